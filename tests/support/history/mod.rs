//! Histories: tables of runs shaped as real ones are, and the commands that read them.

pub(crate) mod file;
pub(crate) mod garbled;
pub(crate) mod gate;
pub(crate) mod layout;
pub(crate) mod runs;
pub(crate) mod setup;
pub(crate) mod turnstile;
pub(crate) mod worker;

pub(crate) use file::Files;
pub(crate) use gate::Gate;
pub(crate) use layout::Layout;
pub(crate) use runs::{At, History, Run, maximum};
pub(crate) use setup::Setup;
pub(crate) use turnstile::Turnstile;
pub(crate) use worker::Worker;
