//! Capture: the table follows whatever an application does to its history.

mod advice;
mod aside;
mod changes;
mod covered;
mod fair;
pub(crate) mod followed;
mod horizon;
mod install;
mod isolation;
pub(crate) mod life;
mod locks;
mod notes;
mod open;
mod parts;
mod retyped;
mod rights;
mod statements;
mod stores;
mod truncated;
mod uninstall;
