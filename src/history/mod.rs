//! The application's run history, and the one query that turns its runs into uses.

pub mod refuse;
