//! What holds whatever runs at once.

mod drain;
mod group_commit;
mod migrations;
mod model;
mod writers;
