//! The servers beside `recents`: each answers the same GET in another way, and pays for HTTP what
//! `recents` pays, but for the floor, which has nothing around its handler.

use std::collections::HashMap;
use std::path;
use std::sync::{Arc, PoisonError, RwLock};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::ListenerExt;
use recents::cache::Answer;
use recents::http::{framed, server};
use recents::model::{Id, Scope, Time};
use recents::read::page::{DEFAULT_LIMIT, RecentWorkflow, page};
use recents::store::{self, Dialect, PG_PLANNING, PoolSettings, Store, pg_options};
use recents::telemetry::Metrics;
use sqlx::postgres::PgPoolOptions;
use sqlx::{PgPool, Row};
use tokio::net::TcpListener;

use super::lists::{self, STATEMENT_TIMEOUT};
use super::redis;
use crate::Failure;
use crate::program::announce;

const ROUTE: &str = "/v1/workspaces/{workspace}/recent-workflows";
/// `pool_size` of `recents` unless set.
const CONNECTIONS: u32 = 8;

/// One answer for all; nothing but axum.
pub(crate) async fn floor(url: &str) -> Result<(), Failure> {
    let some = lists::answers(url).await?.into_iter().next();
    let (_, answer) = some.ok_or("no list")?;
    let kind = HeaderValue::from_static("application/json");
    let handler = async move || ([(header::CONTENT_TYPE, kind.clone())], answer.body.clone());
    let listener = listen().await?.tap_io(|stream| {
        // As the other servers do.
        let _ = stream.set_nodelay(true);
    });
    Ok(axum::serve(listener, Router::new().route(ROUTE, get(handler))).await?)
}

/// Bytes ready to send, in a plain map.
pub(crate) async fn map(url: &str) -> Result<(), Failure> {
    let lists: HashMap<String, Answer> = lists::answers(url).await?.into_iter().collect();
    let lists = Arc::new(RwLock::new(lists));
    serve(
        url,
        Router::new().route(ROUTE, get(from_map)).with_state(lists),
    )
    .await
}

async fn from_map(
    State(lists): State<Arc<RwLock<HashMap<String, Answer>>>>,
    Path(workspace): Path<String>,
) -> Result<Response, StatusCode> {
    let lists = lists.read().unwrap_or_else(PoisonError::into_inner);
    let answer = lists.get(&workspace).ok_or(StatusCode::NOT_FOUND)?;
    Ok(respond(answer.clone()))
}

/// One query a request, through a pool; the statement, its plan and the pool are the product's.
pub(crate) async fn query(url: &str) -> Result<(), Failure> {
    let options = pg_options(url, STATEMENT_TIMEOUT)?.options(PG_PLANNING);
    let pool = PgPoolOptions::new()
        .max_connections(CONNECTIONS)
        .test_before_acquire(false)
        .connect_with(options)
        .await?;
    let read = store::statements().find(|statement| statement.name == "read_1");
    let read = read.ok_or("no such statement")?.text(Dialect::Postgres);
    let router = Router::new()
        .route(ROUTE, get(from_query))
        .with_state((pool, read));
    serve(url, router).await
}

async fn from_query(
    State((pool, read)): State<(PgPool, &'static str)>,
    Path(workspace): Path<String>,
) -> Result<Response, StatusCode> {
    let found = async {
        let query = sqlx::query(read).bind(i64::from(DEFAULT_LIMIT) + 1);
        let query = query.bind(&workspace).bind("");
        let mut items = Vec::new();
        for row in query.fetch_all(&pool).await? {
            items.push(RecentWorkflow {
                published_run: row.try_get::<&str, _>(1)?.into(),
                last_used_at: row.try_get(2)?,
                run: row.try_get::<Option<&str>, _>(3)?.map(Into::into),
                details: None,
            });
        }
        head(workspace, &items)
    };
    respond_or_fail(found.await)
}

/// A sorted set for each list, through a pool. It keeps no run.
pub(crate) async fn redis(url: &str, socket: &path::Path) -> Result<(), Failure> {
    let pool = redis::Pool::connect(socket, CONNECTIONS as usize).await?;
    let router = Router::new()
        .route(ROUTE, get(from_redis))
        .with_state(Arc::new(pool));
    serve(url, router).await
}

async fn from_redis(
    State(pool): State<Arc<redis::Pool>>,
    Path(workspace): Path<String>,
) -> Result<Response, StatusCode> {
    let found = async {
        let last = DEFAULT_LIMIT.to_string();
        let command = [
            b"ZREVRANGE",
            workspace.as_bytes(),
            b"0",
            last.as_bytes(),
            b"WITHSCORES",
        ];
        let texts = pool.send(&command).await?;
        let mut items = Vec::new();
        for pair in texts.chunks_exact(2) {
            let micros: i64 = std::str::from_utf8(&pair[1])?.parse()?;
            items.push(RecentWorkflow {
                published_run: std::str::from_utf8(&pair[0])?.into(),
                last_used_at: Time::from_micros(micros)?,
                run: None,
                details: None,
            });
        }
        head(workspace, &items)
    };
    respond_or_fail(found.await)
}

fn head(workspace: String, items: &[RecentWorkflow]) -> Result<Answer, Failure> {
    let scope = Scope {
        workspace: Id::new(workspace)?,
        uid: None,
    };
    Ok(Answer::of(&page(&scope, items, DEFAULT_LIMIT)))
}

fn respond_or_fail(found: Result<Answer, Failure>) -> Result<Response, StatusCode> {
    found.map(respond).map_err(|error| {
        eprintln!("{error}");
        StatusCode::INTERNAL_SERVER_ERROR
    })
}

fn respond(answer: Answer) -> Response {
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        ),
        (header::ETAG, answer.tag),
        (
            header::CACHE_CONTROL,
            HeaderValue::from_static("private, no-cache"),
        ),
    ];
    (headers, answer.body).into_response()
}

/// Serves until it is killed, with the product's middleware on the product's listener.
async fn serve(url: &str, router: Router) -> Result<(), Failure> {
    let settings = PoolSettings {
        size: 1,
        statement_timeout: STATEMENT_TIMEOUT,
        behind_pooler: false,
    };
    // Its metrics name a store; nobody asks it.
    let metrics = Arc::new(Metrics::new(&Store::open(url, settings)?));
    let listener = listen().await?;
    let never = std::future::pending();
    server::serve(
        listener,
        framed(router, metrics),
        never,
        std::time::Duration::ZERO,
    )
    .await;
    Ok(())
}

async fn listen() -> Result<TcpListener, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    announce(listener.local_addr()?);
    Ok(listener)
}
