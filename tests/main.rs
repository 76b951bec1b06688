//! All tests against real databases, in one binary. `scripts/test` starts what they need.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a panic is how a test fails; clippy.toml allows it in test functions, not in what they share"
)]

mod backfill;
mod cache;
mod capture;
mod cli;
mod details;
mod dismissal;
mod faults;
mod history;
mod http;
mod jobs;
mod promises;
mod races;
mod read_path;
mod settings;
mod support;
mod verify;
