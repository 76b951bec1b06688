//! The one way out: a page of a list.

pub mod cursor;
pub mod page;

pub use cursor::Cursor;
pub use page::{Page, PageRequest, pages};
