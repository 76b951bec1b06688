//! Scopes and ids in paths.

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;

use super::field_error::{FieldCode, FieldError};
use super::problem::Problem;
use crate::model::{Id, Scope};

/// The scope that a list's path names.
pub(super) struct ScopePath(pub(super) Scope);

/// The scope and the published run that an item's path names.
pub(super) struct ItemPath(pub(super) Scope, pub(super) Id);

/// The published run that a path names.
pub(super) struct PublishedRunPath(pub(super) Id);

/// The job that a path names, whether or not there is one.
pub(super) struct JobPath(pub(super) String);

/// The ids of a path, each checked.
struct Ids {
    names: Vec<(String, String)>,
    errors: Vec<FieldError>,
}

impl Ids {
    async fn of<S: Send + Sync>(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        if !is_encoded(parts.uri.path()) {
            let detail = "has a `%` that encodes nothing; encoded, it is `%25`";
            let error = FieldError::parameter("path", FieldCode::NotEncoded, detail);
            return Err(Problem::invalid(vec![error]));
        }
        let Path(names) = Path::<Vec<(String, String)>>::from_request_parts(parts, state)
            .await
            .map_err(|_| {
                let error =
                    FieldError::parameter("path", FieldCode::NotUtf8, "is not UTF-8 when decoded");
                Problem::invalid(vec![error])
            })?;
        let errors = Vec::new();
        Ok(Self { names, errors })
    }

    fn take(&mut self, name: &str) -> Option<Id> {
        let (_, text) = self.names.iter().find(|(n, _)| n == name)?;
        let id = Id::new(text.as_str());
        id.map_err(|e| self.errors.push(FieldError::parameter(name, e, e)))
            .ok()
    }

    fn scope(&mut self) -> Option<Scope> {
        let (workspace, uid) = (self.take("workspace"), self.take("uid"));
        workspace.map(|workspace| Scope { workspace, uid })
    }

    /// What was found, where nothing is wrong.
    fn done<T>(self, found: Option<T>) -> Result<T, Problem> {
        match found {
            Some(found) if self.errors.is_empty() => Ok(found),
            _ => Err(Problem::invalid(self.errors)),
        }
    }
}

/// Whether two digits stand behind each `%`. Decoded as they are, others would be a second name of another id.
fn is_encoded(path: &str) -> bool {
    let mut behind = path.split('%').skip(1).map(str::as_bytes);
    behind.all(|part| matches!(part, [a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit()))
}

impl<S: Send + Sync> FromRequestParts<S> for ScopePath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let mut ids = Ids::of(parts, state).await?;
        let scope = ids.scope();
        ids.done(scope).map(Self)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for ItemPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let mut ids = Ids::of(parts, state).await?;
        let (scope, published_run) = (ids.scope(), ids.take("published_run"));
        let (scope, published_run) = ids.done(scope.zip(published_run))?;
        Ok(Self(scope, published_run))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for PublishedRunPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let mut ids = Ids::of(parts, state).await?;
        let published_run = ids.take("published_run");
        ids.done(published_run).map(Self)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for JobPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let mut ids = Ids::of(parts, state).await?;
        let job = ids.take("id");
        ids.done(job).map(|job| Self(job.to_string()))
    }
}
