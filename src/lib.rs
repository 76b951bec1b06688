//! placeholder

pub mod history;
