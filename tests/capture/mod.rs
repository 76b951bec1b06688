//! Capture: the table follows whatever an application does to its history.

mod aside;
mod changes;
pub(crate) mod followed;
mod install;
pub(crate) mod life;
mod locks;
mod notes;
mod open;
mod parts;
mod statements;
mod stores;
mod uninstall;
