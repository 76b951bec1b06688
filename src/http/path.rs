//! Scopes in paths.

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;

use super::problem::{FieldError, Problem};
use crate::model::{Id, Scope};

/// The scope that a list's path names.
pub(super) struct ScopePath(pub(super) Scope);

impl<S: Send + Sync> FromRequestParts<S> for ScopePath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path(names) = Path::<Vec<(String, String)>>::from_request_parts(parts, state)
            .await
            .map_err(|_| {
                let error = FieldError::parameter("path", "not_utf8", "is not UTF-8 when decoded");
                Problem::invalid(vec![error])
            })?;
        let mut errors = Vec::new();
        let mut id = |name: &str| {
            let (_, text) = names.iter().find(|(n, _)| n == name)?;
            let id = Id::new(text.as_str());
            id.map_err(|e| errors.push(FieldError::parameter(name, e.code(), e)))
                .ok()
        };
        let (workspace, uid) = (id("workspace"), id("uid"));
        match workspace {
            Some(workspace) if errors.is_empty() => Ok(Self(Scope { workspace, uid })),
            _ => Err(Problem::invalid(errors)),
        }
    }
}
