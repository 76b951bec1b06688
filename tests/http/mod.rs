//! What clients are promised over HTTP.

mod answers;
mod batches;
mod bodies;
mod conditional;
mod connections;
mod described;
mod health;
mod metrics;
mod panics;
mod parameters;
mod problems;
mod refusals;
mod resources;
mod responses;
mod tracing;
mod wire;
