//! What holds when something breaks.

mod clients;
mod disk;
mod dismissals;
mod held_back;
mod outage;
mod queue;
mod schema;
mod shutdown;
mod values;
