//! What clients are promised over HTTP.

mod answers;
mod batches;
mod bodies;
mod conditional;
mod described;
mod health;
mod metrics;
mod parameters;
mod refusals;
mod resources;
mod tracing;
mod wire;
