//! What users of the command line are promised.

mod broken;
#[cfg(target_os = "linux")]
mod colours;
mod config;
mod data;
mod demo;
pub(crate) mod doctor;
mod estimate;
mod precedence;
mod secrets;
mod usage;
