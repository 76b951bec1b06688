//! Whose list it is.

use super::Id;

/// Whose list it is: a workspace's, or one user's in a workspace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope {
    /// The workspace.
    pub workspace: Id,
    /// The user; `None` is the workspace's own list, with everyone's uses.
    pub uid: Option<Id>,
}

impl Scope {
    /// The `uid` column of this scope's rows: empty for the workspace's own list.
    pub fn uid_column(&self) -> &str {
        self.uid.as_deref().unwrap_or("")
    }
}
