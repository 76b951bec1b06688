//! The history and its mapping query.
