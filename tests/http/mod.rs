//! What clients are promised over HTTP.
