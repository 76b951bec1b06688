//! Verify: what it finds is so, and what it does not find is not.

mod differences;
mod found;
mod junk;
mod live;
mod no_times;
mod output;
mod races;
mod repairs;
