//! What holds whatever runs at once.

pub(crate) mod drain;
mod group_commit;
mod held;
mod killed;
mod migrations;
mod model;
mod writers;
