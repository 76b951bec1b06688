//! What holds whatever runs at once.

mod group_commit;
mod migrations;
mod model;
mod writers;
