//! Whether what `read_database_url` names is a streaming replica of the database.

use std::time::Duration;

use super::findings::{Findings, said};
use super::{CLOSE_WITHIN, STATEMENT_WITHIN};
use crate::cache::listener::DEAF_WITHIN;
use crate::config::Config;
use crate::read::NoReplica;
use crate::store::{PoolSettings, Store};

const CHECK: &str = "replica";
const MEND: &str = "name a streaming replica of database_url in read_database_url, or none; until then the \
                    primary answers";

/// How often a standby is asked whether it has caught up.
const ASK_EVERY: Duration = Duration::from_millis(50);

pub(super) async fn examine(config: &Config, store: &Store, findings: &mut Findings<'_>) {
    let Some(url) = &config.read_database_url else {
        return;
    };
    let settings = PoolSettings {
        size: 1,
        statement_timeout: STATEMENT_WITHIN,
        behind_pooler: config.transaction_pooler,
    };
    let replica = match Store::open(url, settings) {
        Ok(replica) => replica,
        Err(error) => return findings.fail(CHECK, said(&error), MEND),
    };
    look(store, &replica, findings).await;
    let _ = tokio::time::timeout(CLOSE_WITHIN, replica.close()).await;
}

async fn look(store: &Store, replica: &Store, findings: &mut Findings<'_>) {
    let Store::Postgres(pool, _) = replica else {
        return;
    };
    // In this order, so that a replica cannot be ahead.
    let reached = match replica.reached().await {
        Ok(reached) => reached,
        Err(error) => return findings.fail(CHECK, said(&error), MEND),
    };
    let primary = match store.position().await {
        Ok(primary) => primary,
        Err(error) => return findings.unknown(CHECK, &error),
    };
    match NoReplica::unless_it_is(reached, &primary) {
        Err(error) => return findings.fail(CHECK, said(&error), MEND),
        Ok(reached) if reached.position.at > primary.at => {
            return findings.fail(CHECK, said(&NoReplica::Ahead), MEND);
        }
        Ok(_) => {}
    }
    let catching_up = tokio::time::timeout(DEAF_WITHIN, async {
        while let Ok(Some(reached)) = replica.reached().await {
            if reached.position.at >= primary.at {
                return;
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    });
    if catching_up.await.is_err() {
        return findings.warn(
            CHECK,
            format!("a standby that is more than {DEAF_WITHIN:?} behind, so that the primary answers"),
            "select * from pg_stat_wal_receiver; select pg_get_wal_replay_pause_state(); on the standby",
        );
    }
    let behind = sqlx::query_scalar::<_, Option<f64>>(
        "select extract(epoch from clock_timestamp() - pg_last_xact_replay_timestamp())::float8",
    );
    match behind.fetch_one(pool).await {
        Ok(behind) => {
            let behind = behind.unwrap_or(0.0);
            let detail = format!("a standby; the last change it has is {behind:.0} s old");
            findings.ok(CHECK, detail);
        }
        Err(error) => findings.unknown(CHECK, &error),
    }
}
