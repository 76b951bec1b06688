//! The key of a row.

use std::fmt;

use super::{Id, Scope};

/// Separates the parts of a [`Key`]. Ids hold no control characters, so it cannot stand in one,
/// and it sorts before everything that can: packed keys order as the tuples that they hold.
const SEPARATOR: char = '\0';

/// The key of a row of the table: `(workspace, uid, published_run)`, packed into one allocation,
/// because a backfill holds many. An empty `uid` is the workspace's own list.
///
/// Keys order as the primary key does in both databases: part by part, by bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Box<str>);

impl Key {
    /// Packs checked ids (`uid` may be empty).
    pub fn new(workspace: &str, uid: &str, published_run: &str) -> Self {
        let mut packed = String::new();
        Self::pack_into(&mut packed, workspace, uid, published_run);
        Self(packed.into_boxed_str())
    }

    /// The key of an item of a list.
    pub fn of_item(scope: &Scope, published_run: &Id) -> Self {
        Self::new(
            scope.workspace.as_str(),
            scope.uid_column(),
            published_run.as_str(),
        )
    }

    /// Writes the packed form over `buffer`, so that a look-up needs no allocation.
    pub fn pack_into(buffer: &mut String, workspace: &str, uid: &str, published_run: &str) {
        buffer.clear();
        buffer.reserve_exact(workspace.len() + uid.len() + published_run.len() + 2);
        buffer.push_str(workspace);
        buffer.push(SEPARATOR);
        buffer.push_str(uid);
        buffer.push(SEPARATOR);
        buffer.push_str(published_run);
    }

    /// The key whose packed form `pack_into` wrote.
    pub fn from_packed(packed: &str) -> Self {
        Self(packed.into())
    }

    /// Its parts: workspace, uid (empty for the workspace's own list), published run.
    pub fn parts(&self) -> (&str, &str, &str) {
        let mut parts = self.0.split(SEPARATOR);
        let mut next = || parts.next().unwrap_or_default();
        (next(), next(), next())
    }

    /// The key of the same published run in the workspace's own list.
    pub(crate) fn of_everyone(&self) -> Self {
        let (workspace, _, published_run) = self.parts();
        Self::new(workspace, "", published_run)
    }

    /// Whether it is a row of the workspace's own list.
    pub fn is_workspace_list(&self) -> bool {
        self.parts().1.is_empty()
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.0.len()
    }
}

impl std::borrow::Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.parts(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_keys_order_as_the_tuples_that_they_hold() {
        let texts = ["", "a", "a ", "aa", "a!", "é", "~"];
        for a in texts {
            for b in texts {
                for c in texts {
                    for d in texts {
                        assert_eq!(
                            Key::new(a, b, "x").cmp(&Key::new(c, d, "x")),
                            (a, b).cmp(&(c, d))
                        );
                        assert_eq!(
                            Key::new("w", a, b).cmp(&Key::new("w", c, d)),
                            (a, b).cmp(&(c, d))
                        );
                    }
                }
            }
        }
        assert_eq!(Key::new("w", "", "p").parts(), ("w", "", "p"));
    }
}
