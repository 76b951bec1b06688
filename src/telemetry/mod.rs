//! What the service says about itself.

pub mod metrics;
pub mod trace;

pub use metrics::Metrics;
