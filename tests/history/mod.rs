//! The history and its mapping query.

mod accepted;
mod misfits;
mod refusals;
mod refusing;
