//! The backfill: the table ends as the history says, whatever happens meanwhile.

mod broken;
mod counts;
mod equal;
mod gone;
mod leases;
mod odd;
mod resume;
mod steps;
mod summary;
