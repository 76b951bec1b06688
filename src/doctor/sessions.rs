//! What stands between the service and PostgreSQL, and whether notifications come through.

use std::time::Duration;

use sqlx::postgres::PgListener;

use super::findings::{Findings, said};
use crate::config::Config;
use crate::store::Store;

/// A notification takes a millisecond; after so long it does not come.
const HEARD_WITHIN: Duration = Duration::from_secs(2);

/// A standby listens to nobody.
pub(super) async fn examine(
    config: &Config,
    store: &Store,
    listens: bool,
    findings: &mut Findings<'_>,
) {
    let look = async |f: &mut Findings<'_>| pooler(config, store, f).await;
    findings.within("pooler", look).await;
    if listens {
        let look = async |f: &mut Findings<'_>| notifications(config, store, f).await;
        findings.within("notifications", look).await;
    }
}

/// A pooler listens on another port than the server behind it.
async fn pooler(config: &Config, store: &Store, findings: &mut Findings<'_>) {
    let Store::Postgres(pool, _) = store else {
        return;
    };
    if config.transaction_pooler {
        return findings.ok(
            "pooler",
            "declared; every statement is a transaction of its own",
        );
    }
    let port = sqlx::query_scalar::<_, Option<i32>>("select inet_server_port()");
    match port.fetch_one(pool).await {
        Err(error) => findings.unknown("pooler", &error),
        Ok(Some(port)) if port != i32::from(pool.pool().connect_options().get_port()) => findings
            .warn(
                "pooler",
                format!("the server's own port is {port}: something stands between"),
                "if it pools transactions, set transaction_pooler = true, and listen_url past it",
            ),
        Ok(_) => findings.ok("pooler", "none is seen"),
    }
}

async fn notifications(config: &Config, store: &Store, findings: &mut Findings<'_>) {
    let check = "notifications";
    let mend = "set listen_url to a direct connection to the database of database_url; until then every read \
                asks that";
    let Some(url) = &config.listen_url else {
        let detail = "with transaction_pooler nothing can be heard of other replicas";
        return findings.warn(check, detail, mend);
    };
    let Store::Postgres(pool, _) = store else {
        return;
    };
    let heard = async {
        let mut listener = PgListener::connect(url).await?;
        let channel = format!("recents_doctor_{}", std::process::id());
        listener.listen(&channel).await?;
        let tell = sqlx::query("select pg_notify($1, '')").bind(&channel);
        tell.execute(pool).await?;
        listener.recv().await.map(drop)
    };
    match tokio::time::timeout(HEARD_WITHIN, heard).await {
        Ok(Ok(())) => findings.ok(check, "they come through"),
        Ok(Err(error)) => findings.fail(check, said(&error), mend),
        Err(_) => findings.fail(check, "nothing is heard there of what is told", mend),
    }
}
