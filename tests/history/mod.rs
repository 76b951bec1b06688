//! The history and its mapping query.

mod accepted;
mod clock;
mod misfits;
mod no_key;
mod odd_keys;
mod plans;
mod refusals;
mod refusing;
mod reordered;
mod settings;
mod views;
