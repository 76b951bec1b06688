//! All tests against real databases, in one binary. `scripts/test` starts what they need.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a panic is how a test fails; clippy.toml allows it in test functions, not in what they share"
)]

mod backfill;
mod capture;
mod cli;
mod dismissal;
mod faults;
mod history;
mod http;
mod jobs;
mod promises;
mod races;
mod support;
mod verify;
