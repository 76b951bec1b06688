//! What the service says about itself.

pub mod metrics;
mod outage;
mod repeated;
mod said;
pub mod trace;

pub use metrics::Metrics;
pub(crate) use outage::Outage;
pub(crate) use repeated::Repeated;
pub(crate) use said::chain;
