//! `recents`: "recently used" lists that stay instant and exact, however long the history behind
//! them grows.
//!
//! The layout shows the flow: [`record`] is the one way in, [`read`] the one way out, [`store`]
//! holds the table between them; [`history`] is where runs come from, [`jobs`] seeds the table from
//! it, [`capture`] follows its changes, and [`check`] proves that both agree.

pub mod cache;
pub mod capture;
pub mod check;
pub mod cli;
pub mod config;
pub mod details;
pub mod dismiss;
pub mod doctor;
pub mod history;
pub mod http;
pub mod jobs;
pub mod model;
pub mod read;
pub mod record;
pub mod settings;
pub mod store;
pub mod telemetry;
