//! PostgreSQL below the table: plans, vacuum, what holds it back.

use sqlx::PgConnection;
use sqlx::postgres::PgRow;

use super::asked::{alone, number, row, rows, text};
use super::findings::Findings;
use crate::config::Config;
use crate::store::{Dialect, PgStore, planned_once, statements};

/// The oldest version that is tested against.
const OLDEST: i32 = 140_000;
/// Dead rows of a table beside which its live ones are few.
const MANY_DEAD: i64 = 20_000;
/// Autovacuum comes by once a minute: seconds after which it is late …
const LATE_VACUUM: f64 = 150.0;
/// … and dead rows that say so of a table that it never came by: a backfill leaves fewer.
const NEVER_VACUUMED: i64 = 10 * MANY_DEAD;
/// A transaction that is open for so long keeps vacuum from working.
const OLD_TRANSACTION: f64 = 10.0;
/// The queue of notifications that fills up to this is read too slowly.
const FULL_QUEUE: f64 = 0.1;

/// What migrations set for each table, because autovacuum's own is for tables that change less.
const STORAGE: [&str; 4] = [
    "autovacuum_vacuum_threshold=500",
    "autovacuum_vacuum_scale_factor=0.01",
    "autovacuum_vacuum_cost_delay=0",
    "vacuum_truncate=off",
];

pub(super) async fn examine(config: &Config, pool: &PgStore, findings: &mut Findings<'_>) {
    alone("version", pool, findings, version).await;
    let look = async |conn: &mut PgConnection, findings: &mut Findings<'_>| {
        clock(config, conn, findings).await;
    };
    alone("clock", pool, findings, look).await;
    alone("plans", pool, findings, plans).await;
    alone("vacuum", pool, findings, vacuum).await;
    alone("transactions", pool, findings, old_transactions).await;
    alone("notification queue", pool, findings, queue).await;
}

async fn version(conn: &mut PgConnection, findings: &mut Findings<'_>) {
    let sql = "select current_setting('server_version'), current_setting('server_version_num')";
    match row(conn, sql).await {
        Err(error) => findings.unknown("version", &error),
        Ok(row) => {
            let version = text(&row, 0).unwrap_or_default();
            match number::<i32>(&row, 1).unwrap_or(0) {
                OLDEST.. => findings.ok("version", format!("PostgreSQL {version}")),
                _ => findings.fail(
                    "version",
                    format!("PostgreSQL {version}; 14 is the oldest that is supported"),
                    "upgrade PostgreSQL",
                ),
            }
        }
    }
}

async fn clock(config: &Config, conn: &mut PgConnection, findings: &mut Findings<'_>) {
    let now = || {
        let since = std::time::SystemTime::UNIX_EPOCH.elapsed();
        since.map_or(0.0, |since| since.as_secs_f64())
    };
    let before = now();
    let there = row(conn, "select extract(epoch from clock_timestamp())").await;
    let after = now();
    match there {
        Err(error) => findings.unknown("clock", &error),
        Ok(row) => {
            let there: f64 = number(&row, 0).unwrap_or(0.0);
            // It was read somewhere in between.
            let apart = (there - (before + after) / 2.0).abs() - (after - before) / 2.0;
            let apart = apart.max(0.0);
            let detail = format!("the database's and this machine's are {apart:.1} s apart");
            let mend = "synchronise both machines' clocks (NTP)";
            match apart {
                _ if apart > config.max_clock_skew.as_secs_f64() => {
                    findings.fail("clock", detail + ", more than max_clock_skew", mend);
                }
                1.0.. => findings.warn("clock", detail, mend),
                _ => findings.ok("clock", detail),
            }
        }
    }
}

/// Of so few rows, as after a history was emptied, PostgreSQL reads all as fast as one list.
const FEW_ROWS: u32 = 500;

/// The statement that reads a list must be a range of its index.
async fn plans(conn: &mut PgConnection, findings: &mut Findings<'_>) {
    let read = statements().find(|statement| statement.name == "read_1");
    let Some(read) = read else { return };
    let sql = format!(
        "savepoint plans; set local search_path = public{}; prepare recents_doctor as {}; \
         explain execute recents_doctor(5, 'w', '');",
        planned_once(),
        read.text(Dialect::Postgres)
    );
    let plan = rows(conn, &sql).await;
    let _ = rows(conn, "rollback to plans").await;
    if plan.is_ok() {
        let _ = rows(conn, "deallocate recents_doctor").await;
    }
    match plan {
        Err(error) => findings.unknown("plans", &error),
        Ok(plan) => {
            let lines: Vec<_> = plan.iter().filter_map(|row| text(row, 0)).collect();
            let by_index = lines
                .iter()
                .any(|line| line.contains("recent_workflow_newest"));
            let is_range = by_index && !lines.iter().any(|line| line.contains("Sort"));
            match is_range || has_few_rows(conn).await {
                true if !is_range => findings.ok("plans", "so few rows are read in any order"),
                true => findings.ok("plans", "a list is one range of its index"),
                false => findings.fail(
                    "plans",
                    format!("a list is not read by its index: {}", lines.join("; ")),
                    "create index if not exists recent_workflow_newest on recents.recent_workflow \
                     (workspace, uid, last_used_at, published_run); analyze recents.recent_workflow;",
                ),
            }
        }
    }
}

/// Whether the index is there, and the table has so few rows that nobody cares which one is used.
async fn has_few_rows(conn: &mut PgConnection) -> bool {
    let few = format!(
        "select c.reltuples between 0 and {FEW_ROWS}
         from pg_class c join pg_index i on i.indrelid = c.oid
         where c.oid = to_regclass('recents.recent_workflow') and i.indisvalid
           and i.indexrelid = to_regclass('recents.recent_workflow_newest')"
    );
    let few = row(conn, &few).await.map(|row| text(&row, 0));
    few.is_ok_and(|few| few.as_deref() == Some("t"))
}

async fn vacuum(conn: &mut PgConnection, findings: &mut Findings<'_>) {
    let on = "select bool_and(setting = 'on') from pg_settings
              where name in ('autovacuum', 'track_counts')";
    match row(conn, on).await.map(|row| text(&row, 0)) {
        Err(error) => return findings.unknown("vacuum", &error),
        Ok(Some(on)) if on != "t" => {
            findings.fail(
                "vacuum",
                "autovacuum is off: dead versions pile up, and reads get slower with each write",
                "alter system set autovacuum = on; alter system set track_counts = on; \
                 select pg_reload_conf();",
            );
        }
        Ok(_) => {}
    }
    let tables = "select c.relname, coalesce(array_to_string(c.reloptions, ' '), ''), s.n_dead_tup,
                greatest(s.n_live_tup, c.reltuples::bigint, 0), pg_size_pretty(pg_total_relation_size(c.oid)),
                extract(epoch from clock_timestamp() - greatest(s.last_autovacuum, s.last_vacuum))
         from pg_class c join pg_namespace n on n.oid = c.relnamespace
         left join pg_stat_user_tables s on s.relid = c.oid
         where n.nspname = 'recents' and c.relname in ('recent_workflow', 'note', 'outbox')
         order by 1";
    let rows = match rows(conn, tables).await {
        Ok(rows) => rows,
        Err(error) => return findings.unknown("vacuum", &error),
    };
    for row in rows {
        let (table, options) = (
            text(&row, 0).unwrap_or_default(),
            text(&row, 1).unwrap_or_default(),
        );
        let (dead, live) = (
            number::<i64>(&row, 2).unwrap_or(0),
            number::<i64>(&row, 3).unwrap_or(0),
        );
        let size = text(&row, 4).unwrap_or_default();
        let options: Vec<&str> = options.split(' ').collect();
        let missing: Vec<&str> = STORAGE
            .into_iter()
            .filter(|o| !options.contains(o))
            .collect();
        if table != "outbox" && !missing.is_empty() {
            findings.warn(
                "vacuum",
                format!("recents.{table} lost its settings: {}", missing.join(", ")),
                format!("alter table recents.{table} set ({});", missing.join(", ")),
            );
        }
        let detail = format!("recents.{table} has about {live} rows and {dead} dead ones, {size}");
        let is_late =
            number::<f64>(&row, 5).map_or(dead > NEVER_VACUUMED, |seconds| seconds > LATE_VACUUM);
        match is_late && dead > MANY_DEAD && dead > 2 * live {
            true => findings.warn("vacuum", detail, format!("vacuum recents.{table};")),
            false => findings.ok("vacuum", detail),
        }
    }
}

async fn old_transactions(conn: &mut PgConnection, findings: &mut Findings<'_>) {
    let check = "transactions";
    // One that idles keeps no versions alive, and may hold a table all the same.
    let sql = "select pid, extract(epoch from clock_timestamp() - xact_start), state,
                backend_xmin is not null and backend_type <> 'autovacuum worker'
                  and pid not in (select pid from pg_stat_progress_vacuum),
                (select string_agg(distinct c.oid::regclass::text, ', ')
                 from pg_locks l join pg_class c on c.oid = l.relation
                 where l.pid = a.pid and l.granted and l.mode = 'AccessExclusiveLock'
                   and c.relkind in ('r', 'p')),
                application_name = 'recents'
         from pg_stat_activity a
         where xact_start is not null and datname = current_database() and pid <> pg_backend_pid()
         order by xact_start";
    let rows = match rows(conn, sql).await {
        Ok(rows) => rows,
        Err(error) => return findings.unknown(check, &error),
    };
    let age = |row: &PgRow| number::<f64>(row, 1).unwrap_or(0.0);
    let old: Vec<_> = rows
        .iter()
        .filter(|row| age(row) > OLD_TRANSACTION)
        .collect();
    let holds_back = old
        .iter()
        .find(|row| text(row, 3).is_some_and(|is| is == "t"));
    let locks = old.iter().find_map(|row| Some((row, text(row, 4)?)));
    let end = |row: &PgRow| {
        let pid = text(row, 0).unwrap_or_default();
        match text(row, 5).is_some_and(|is| is == "t") {
            true => "it is one of recents' own, which ends by itself; where such come again, recents capture status \
                     names the index that makes them short"
                .into(),
            false => format!("select pg_terminate_backend({pid});"),
        }
    };
    let of = |row: &PgRow| {
        let state = text(row, 2).unwrap_or_default();
        format!("one is open for {:.0} s ({state})", age(row))
    };
    if let Some((row, tables)) = &locks {
        let detail = format!(
            "{} and holds {tables}: whoever reads or writes it waits",
            of(row)
        );
        findings.warn(check, detail, end(row));
    }
    if let Some(row) = holds_back {
        let detail = "vacuum stands still, and writes are kept apart meanwhile";
        findings.warn(check, format!("{}: {detail}", of(row)), end(row));
    }
    if locks.is_none() && holds_back.is_none() {
        match hidden(conn).await {
            Some(user) => findings.warn(
                check,
                format!("{user} sees only its own: an old one of another role goes unnoticed"),
                format!("grant pg_read_all_stats to \"{user}\";"),
            ),
            None => findings.ok(check, "none is open for long"),
        }
    }
}

/// The role, where it does not see what others do.
async fn hidden(conn: &mut PgConnection) -> Option<String> {
    let sql = "select current_user where not pg_has_role('pg_read_all_stats', 'usage')";
    let row = rows(conn, sql).await.ok()?.into_iter().next()?;
    text(&row, 0)
}

async fn queue(conn: &mut PgConnection, findings: &mut Findings<'_>) {
    match row(conn, "select pg_notification_queue_usage()").await {
        Err(error) => findings.unknown("notification queue", &error),
        Ok(row) => {
            let used: f64 = number(&row, 0).unwrap_or(0.0);
            let detail = format!("{:.1} % full", used * 100.0);
            match used > FULL_QUEUE {
                false => findings.ok("notification queue", detail),
                true => findings.warn(
                    "notification queue",
                    detail + ": somebody listens and stays in one transaction",
                    "end it: select pid, xact_start, query from pg_stat_activity order by xact_start;",
                ),
            }
        }
    }
}
