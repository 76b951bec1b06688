//! What is promised of the table, kept on both databases.

mod fold;
pub(crate) mod ids;
mod lists;
mod model;
mod times;
