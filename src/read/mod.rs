//! The one way out: a page of a list.

mod asked;
mod away;
pub mod cursor;
mod history;
mod loader;
pub mod page;
pub mod reader;
mod replica;
mod rest;
mod shadow;
mod source;

pub use cursor::Cursor;
pub use page::{Page, PageRequest, pages};
pub use reader::{Found, How, Reader};
pub(crate) use replica::NoReplica;
pub use shadow::Shadowed;
