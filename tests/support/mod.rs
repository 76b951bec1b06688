//! What the tests share: databases, servers, a client, and waiting.

pub(crate) mod beside;
pub(crate) mod client;
pub(crate) mod cluster;
pub(crate) mod command;
pub(crate) mod database;
pub(crate) mod history;
pub(crate) mod lock;
pub(crate) mod log;
pub(crate) mod meter;
pub(crate) mod raw;
pub(crate) mod server;
pub(crate) mod snapshot;
pub(crate) mod uses;
pub(crate) mod wait;
pub(crate) mod wire;

pub(crate) use beside::Beside;
pub(crate) use cluster::Cluster;
pub(crate) use command::recents;
pub(crate) use database::{Backend, TestDb, both};
pub(crate) use lock::Lock;
pub(crate) use meter::Meter;
pub(crate) use server::{InProcess, Server};
pub(crate) use uses::Use;
pub(crate) use wait::until;
pub(crate) use wire::{Passes, Wire};
