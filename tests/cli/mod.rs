//! What users of the command line are promised.

mod config;
mod data;
mod doctor;
mod estimate;
mod precedence;
mod secrets;
mod usage;
