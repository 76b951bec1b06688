//! The backfill: the table ends as the history says, whatever happens meanwhile.

mod counts;
mod equal;
mod leases;
mod odd;
mod resume;
mod steps;
mod summary;
