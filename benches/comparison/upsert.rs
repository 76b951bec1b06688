//! The hook's peer: what one writes first. One upsert a request, on a pool of the same size, behind
//! the same HTTP stack, into a table of the same shape.

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use serde::Deserialize;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tokio::net::TcpListener;

use crate::Failure;
use crate::program::announce;

/// `pool_size` of `recents` unless set.
const CONNECTIONS: u32 = 8;

/// Its table, with the indexes and the storage parameters of the product's.
pub(crate) const TABLE: &str = "
drop schema if exists peer cascade;
create schema peer;
create table peer.recent_workflow (like recents.recent_workflow including all) with (
    autovacuum_vacuum_threshold = 500, autovacuum_vacuum_scale_factor = 0.01,
    autovacuum_vacuum_cost_delay = 0, vacuum_truncate = off
);
insert into peer.recent_workflow select * from recents.recent_workflow;
vacuum analyze peer.recent_workflow";

const UPSERT: &str = "
insert into peer.recent_workflow as t (workspace, published_run, last_used_at, run)
values ($1, $2, clock_timestamp(), $3)
on conflict (workspace, uid, published_run) do update
set last_used_at = excluded.last_used_at, run = excluded.run
where excluded.last_used_at > t.last_used_at";

#[derive(Deserialize)]
struct Runs {
    runs: Vec<Run>,
}

#[derive(Deserialize)]
struct Run {
    workspace: String,
    published_run: String,
    run: String,
}

/// Serves until it is killed.
pub(crate) async fn serve(url: &str) -> Result<(), Failure> {
    let pool = PgPoolOptions::new()
        .max_connections(CONNECTIONS)
        .connect(url)
        .await?;
    let router = Router::new()
        .route("/v1/runs", post(upsert))
        .with_state(pool);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    announce(listener.local_addr()?);
    // The same server as the product's.
    recents::http::server::serve(
        listener,
        router,
        std::future::pending(),
        std::time::Duration::ZERO,
    )
    .await;
    Ok(())
}

async fn upsert(
    State(pool): State<PgPool>,
    Json(body): Json<Runs>,
) -> Result<&'static str, StatusCode> {
    for run in body.runs {
        let query = sqlx::query(UPSERT)
            .bind(run.workspace)
            .bind(run.published_run)
            .bind(run.run);
        let done = query.execute(&pool).await;
        done.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    }
    Ok("{}")
}
