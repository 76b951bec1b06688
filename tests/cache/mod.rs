//! The cache: what it gives is what a read of the database would give.

mod coherent;
mod loads;
mod locked_out;
mod model;
mod no_replica;
mod other_processes;
mod outage;
mod pooler;
mod replicas;
mod silent;
pub(crate) mod standby;

use crate::support::Server;

/// Waits until a server hears what others change, so that it keeps what it reads.
async fn hears(server: &Server) {
    let listening =
        |event: &serde_json::Value| event["message"] == "listening to changes of other processes";
    server.log.event("the server listens", listening).await;
}

/// How many lists a server came by in a way.
async fn came_by(server: &Server, result: &str) -> f64 {
    let sample = format!("recents_cache_requests_total{{result=\"{result}\"}}");
    server.metric(&sample).await
}
