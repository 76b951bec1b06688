//! What is promised of the table, kept on both databases.

pub(crate) mod counts;
pub(crate) mod fold;
pub(crate) mod ids;
pub(crate) mod lists;
pub(crate) mod model;
pub(crate) mod plans;
mod statements;
mod times;
mod work;
