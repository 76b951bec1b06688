//! Settings that change while the service runs.

mod changed;
mod command;
mod first;
