//! Capture: whatever changes the history leaves notes, and what they name is looked at again.
//!
//! Triggers on the history append the keys of changed runs to an outbox beside it; every write of a
//! row leaves a note beside the table. [`drain`] takes both, and the rule that keeps the table exact
//! is: *whoever changes a row leaves a note about it in the same transaction; whoever takes notes
//! reads the history after taking them; notes go only after what they led to is committed.*

pub(crate) mod apply;
mod batch;
mod beside;
mod change;
pub mod coverage;
pub mod decide;
pub mod drain;
pub mod error;
mod everything;
pub mod install;
mod made;
pub(crate) mod outbox;
mod position;
mod reading;
pub(crate) mod rights;
pub mod service;
mod settled;
pub mod status;
mod table_notes;
mod tables;
mod touched;
mod triggers;
pub mod uninstall;
pub(crate) mod write;

pub(crate) use settled::settled;
pub(crate) use touched::Touched;
