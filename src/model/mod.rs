//! The nouns of the domain: ids, times, scopes, keys and uses.

pub mod changes;
pub mod id;
pub mod key;
pub mod scope;
pub mod time;
pub mod usage;

pub use changes::Changes;
pub use id::{Id, IdError};
pub use key::Key;
pub use scope::Scope;
pub use time::Time;
pub use usage::{Newest, NoUse, RawUse, Usage};
