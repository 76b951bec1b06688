//! Verify: what it finds is so, and what it does not find is not.

mod audited;
pub(crate) mod differences;
mod folded;
pub(crate) mod found;
mod junk;
mod live;
mod no_times;
mod output;
mod races;
mod repairs;
mod unmappable;
mod waiting;
