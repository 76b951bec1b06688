//! What dismissal adds to a read, by the statements of the service: with nothing dismissed, with some
//! items, with thousands; each beside the read as it was before there was dismissal, in turns with it.

use recents::store::{Dialect, PG_PLANNING};
use sqlx::{AssertSqlSafe, PgConnection};

use crate::Failure;
use crate::peers::Peer;
use crate::reads::{LISTS, in_turns};
use crate::report::{Report, median, target, time};
use crate::server::{Server, run};

/// The read of a list before there was dismissal: one statement for all pages, the first included.
const BEFORE: &str = "select * from (
    select 0 as list, r.published_run, r.last_used_at, r.run from recents.recent_workflow as r
    where r.workspace = $2 and r.uid = $3 and (r.last_used_at, r.published_run) < ($4, $5)
    order by r.last_used_at desc, r.published_run desc limit $1
) as list_0";

/// The read of a first page as it is, without any clause about dismissal.
const BARE: &str = "select * from (
    select 0 as list, r.published_run, r.last_used_at, r.run from recents.recent_workflow as r
    where r.workspace = $2 and r.uid = $3
    order by r.last_used_at desc, r.published_run desc limit $1
) as list_0";

/// Dismisses `$1` items of each list which it does not have: rows of what is dismissed are swept.
const DISMISS: &str = "insert into recents.dismissal (workspace, uid, published_run, until)
    select w, '', 'gone-' || i, now() from unnest($2) as w, generate_series(1, $1) as i
    on conflict do nothing";

/// Nothing dismissed costs so much more than before, at the most.
const MOST: f64 = 0.05;

/// What is measured: its name, how many items of each list are dismissed, and the statement.
const STATES: [(&str, i64, &str); 5] = [
    ("a first page without any clause about it", 0, BARE),
    ("nothing dismissed", 0, "read_1"),
    ("nothing dismissed, a later page", 0, "read_on_1"),
    ("10 items of each list dismissed", 10, "visible_1"),
    ("10,000 items of each list dismissed", 10_000, "visible_1"),
];

/// Reads lists in all states of the table `dismissal`, and leaves it empty.
pub(crate) async fn measure(
    server: &Server,
    header: Vec<String>,
    report: &mut Report,
) -> Result<(), Failure> {
    let mut conn = server.connect().await?;
    report.line(
        "What dismissal adds to a read, by the service's own statements: medians, and how much more than \
         the read of a page before there was dismissal, in turns with it.",
    );
    let (mut rows, mut greatest) = (vec![header], f64::MIN);
    for (state, items, statement) in STATES {
        dismiss(&mut conn, items).await?;
        let text = text_of(statement).unwrap_or(statement);
        let mut peers = vec![
            Peer::statement("before", BEFORE, session(server).await?),
            Peer::statement("now", text, session(server).await?),
        ];
        let mut cells = in_turns(&mut peers).await?;
        let (before, now) = cells.split_at_mut(LISTS.len());
        let mut before_row = vec!["before there was dismissal".to_owned()];
        let mut row = vec![state.to_owned()];
        for (before, now) in before.iter_mut().zip(now) {
            let (before, now) = (median(&mut before.seconds), median(&mut now.seconds));
            let more = now / before - 1.0;
            before_row.push(time(before));
            row.push(format!("{} ({:+.1} %)", time(now), more * 100.0));
            if statement == "read_1" {
                greatest = greatest.max(more);
            }
        }
        if rows.len() == 1 {
            rows.push(before_row);
        }
        rows.push(row);
    }
    run(&mut conn, "truncate recents.dismissal").await?;
    report.table(&rows);
    report.table(&[
        ["", "figure", "target"].map(Into::into).into(),
        vec![
            "nothing dismissed, against before, the most of the four".into(),
            format!("{:+.1} %", greatest * 100.0),
            target("within 5 %", greatest <= MOST),
        ],
    ]);
    Ok(())
}

/// A session as the service's.
async fn session(server: &Server) -> Result<PgConnection, Failure> {
    let mut conn = server.connect().await?;
    for (name, value) in PG_PLANNING {
        run(&mut conn, &format!("set {name} = {value}")).await?;
    }
    Ok(conn)
}

fn text_of(name: &str) -> Result<&'static str, Failure> {
    let found = recents::store::statements().find(|statement| statement.name == name);
    Ok(found
        .ok_or("no statement of that name")?
        .text(Dialect::Postgres))
}

async fn dismiss(conn: &mut PgConnection, items: i64) -> Result<(), Failure> {
    let lists: Vec<_> = LISTS.iter().map(|list| list.id.to_string()).collect();
    let dismiss = sqlx::query(AssertSqlSafe(DISMISS)).bind(items).bind(lists);
    dismiss.execute(&mut *conn).await?;
    run(conn, "analyze recents.dismissal").await
}
