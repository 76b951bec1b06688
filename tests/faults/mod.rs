//! What holds when something breaks.

mod clients;
pub(crate) mod disk;
mod dismissals;
mod durable;
mod held_back;
mod outage;
mod queue;
mod schema;
mod shutdown;
pub(crate) mod values;
