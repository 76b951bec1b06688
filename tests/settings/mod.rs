//! Settings that change while the service runs.

pub(crate) mod changed;
mod command;
mod first;
