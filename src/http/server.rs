//! Listeners: connections within their limits, and a stop that lets requests end.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// How long a client may take to send a header; it is also how long a connection may rest between
/// two requests.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// What is read of a header at the most. Well beyond the limits of requests, which are refused with a
/// problem document: beyond these, and beyond the hundred fields for which hyper has room without asking
/// the allocator for it with each request, the connection hears a bare status.
const MAX_HEADER_BYTES: usize = 128 * 1024;
/// Connections of one listener at the most; further ones wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 1_024;
/// After an accept failed (too many open files, say), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Lets this process have as many files open as the system allows it. A connection is one, and what a shell
/// or an init system gives by default (1,024, all told) is less than the listeners' own limits: the database
/// would be out of reach before these are.
pub fn raise_open_files() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        let error = &error as &dyn std::error::Error;
        tracing::debug!(error, "the limit of open files stays as it is");
    }
}

/// Serves `router` on `listener` until `stop` ends, then lets the requests under way end within
/// `grace`.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    stop: impl Future<Output = ()>,
    grace: Duration,
) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let graceful = GracefulShutdown::new();
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEADER_BYTES);
    let mut stop = std::pin::pin!(stop);
    let mut connections = JoinSet::new();
    loop {
        let place = tokio::select! {
            () = &mut stop => break,
            place = Arc::clone(&places).acquire_owned() => place,
        };
        let accepted = tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "a connection failed"
                );
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Answers are small: waiting to fill a packet only delays them.
        let _ = stream.set_nodelay(true);
        let service = TowerToHyperService::new(router.clone());
        let connection = graceful.watch(http.serve_connection(TokioIo::new(stream), service));
        while connections.try_join_next().is_some() {}
        connections.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "a connection broke"
                );
            }
            drop(place);
        });
    }
    drop(listener);
    if tokio::time::timeout(grace, graceful.shutdown())
        .await
        .is_err()
    {
        tracing::warn!("some requests did not end within the grace period; they are broken off");
        connections.shutdown().await;
    }
}
