//! `DELETE` of an item, of a list, of a published run everywhere.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use crate::dismiss::dismiss;
use crate::http::App;
use crate::http::path::{ItemPath, PublishedRunPath, ScopePath};
use crate::http::problem::{Code, Problem};
use crate::http::query::NoParameters;
use crate::http::session::name_write;
use crate::http::timing::Waited;
use crate::model::Time;
use crate::store::StoreError;
use crate::store::dismissal::Dismissed;

/// Clear a workspace's list
///
/// Everything used until now is dismissed from it; the users' lists stay.
#[utoipa::path(
    delete,
    path = "/v1/workspaces/{workspace}/recent-workflows",
    params(("workspace" = String, Path, description = "The workspace")),
    responses((status = 204, description = "It is empty until something is used again",
               headers(("Recents-Session-Token" = String))))
)]
pub(super) async fn clear_workspace(
    State(app): State<Arc<App>>,
    ScopePath(scope): ScopePath,
    _: NoParameters,
) -> Result<Response, Problem> {
    hide(&app, Dismissed::List(scope)).await
}

/// Clear a user's list
///
/// Everything used until now is dismissed from it; the workspace's list stays.
#[utoipa::path(
    delete,
    path = "/v1/workspaces/{workspace}/users/{uid}/recent-workflows",
    params(
        ("workspace" = String, Path, description = "The workspace"),
        ("uid" = String, Path, description = "The user"),
    ),
    responses((status = 204, description = "It is empty until something is used again",
               headers(("Recents-Session-Token" = String))))
)]
pub(super) async fn clear_user(
    State(app): State<Arc<App>>,
    ScopePath(scope): ScopePath,
    _: NoParameters,
) -> Result<Response, Problem> {
    hide(&app, Dismissed::List(scope)).await
}

/// Dismiss one item from a workspace's list
///
/// Until its next use. The users' lists keep it.
#[utoipa::path(
    delete,
    path = "/v1/workspaces/{workspace}/recent-workflows/{published_run}",
    params(
        ("workspace" = String, Path, description = "The workspace"),
        ("published_run" = String, Path, description = "The published run"),
    ),
    responses((status = 204, description = "It is not in the list, or no longer",
               headers(("Recents-Session-Token" = String))))
)]
pub(super) async fn item_of_workspace(
    State(app): State<Arc<App>>,
    ItemPath(scope, published_run): ItemPath,
    _: NoParameters,
) -> Result<Response, Problem> {
    let what = Dismissed::Item(scope, published_run);
    hide(&app, what).await
}

/// Dismiss one item from a user's list
///
/// Until its next use. The workspace's list keeps it.
#[utoipa::path(
    delete,
    path = "/v1/workspaces/{workspace}/users/{uid}/recent-workflows/{published_run}",
    params(
        ("workspace" = String, Path, description = "The workspace"),
        ("uid" = String, Path, description = "The user"),
        ("published_run" = String, Path, description = "The published run"),
    ),
    responses((status = 204, description = "It is not in the list, or no longer",
               headers(("Recents-Session-Token" = String))))
)]
pub(super) async fn item_of_user(
    State(app): State<Arc<App>>,
    ItemPath(scope, published_run): ItemPath,
    _: NoParameters,
) -> Result<Response, Problem> {
    let what = Dismissed::Item(scope, published_run);
    hide(&app, what).await
}

/// Dismiss a published run from every list
///
/// For one that was deleted. Uses up to `max_clock_skew` from now stay hidden too.
#[utoipa::path(
    delete,
    path = "/v1/published-runs/{published_run}",
    params(("published_run" = String, Path, description = "The published run")),
    responses((status = 204, description = "It is in no list, or no longer",
               headers(("Recents-Session-Token" = String))))
)]
pub(super) async fn everywhere(
    State(app): State<Arc<App>>,
    PublishedRunPath(published_run): PublishedRunPath,
    _: NoParameters,
) -> Result<Response, Problem> {
    hide(&app, Dismissed::Everywhere(published_run)).await
}

async fn hide(app: &Arc<App>, what: Dismissed) -> Result<Response, Problem> {
    let room = app.sweeps.room(&what).await.ok_or_else(|| {
        Problem::new(
            Code::QueueFull,
            "too many published runs wait to be swept from the lists; try again",
        )
    })?;
    // A client that goes away leaves nothing half done.
    let app = Arc::clone(app);
    let started = Instant::now();
    let hidden = tokio::spawn(async move {
        let now = Time::now();
        let ahead = app.reader.ahead(&what, now, app.how(None)).await?;
        let hidden = dismiss(&app.store, &what, now, app.max_clock_skew, &ahead).await;
        // Also where it failed: the answer of the database may be all that was lost.
        app.sweeps.ask(what, room);
        hidden?;
        Ok::<_, StoreError>(app.store.token().await)
    });
    let token = hidden
        .await
        .map_err(|_| Problem::new(Code::Internal, "the service failed; its log says more"))??;
    let mut answer = name_write(StatusCode::NO_CONTENT.into_response(), &token.encode());
    answer.extensions_mut().insert(Waited(started.elapsed()));
    Ok(answer)
}
