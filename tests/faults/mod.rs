//! What holds when something breaks.

mod clients;
mod disk;
mod outage;
mod queue;
mod schema;
mod shutdown;
mod values;
