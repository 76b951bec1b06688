//! The history: the table of runs of the issue that started this, at any size.

use std::time::Instant;

use crate::Failure;
use crate::report::{Report, grouped};
use crate::server::{Server, run, text};

/// Runs of the history.
pub(crate) const FULL: u64 = 7_400_000;
/// Workspaces of the tail.
pub(crate) const TAIL: u64 = 20_000;
/// The first workspace of the tail.
const TAIL_BEGINS: u64 = 10_000_000;

/// A workspace of known size.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Workspace {
    pub(crate) id: u64,
    /// Its runs in the full history; a smaller history has its share.
    runs: u64,
    /// Published runs that they used.
    pub(crate) distinct: u64,
}

const fn workspace(id: u64, runs: u64, distinct: u64) -> Workspace {
    Workspace { id, runs, distinct }
}

/// The longest history of a single workflow,
pub(crate) const LONGEST: Workspace = workspace(5, 1_780_569, 1);
/// the shortest,
pub(crate) const SHORTEST: Workspace = workspace(6, 1, 1);
/// some workflows,
pub(crate) const TEN: Workspace = workspace(3_466_675, 52_471, 10);
/// and many.
pub(crate) const MANY: Workspace = workspace(777, 50_000, 240);

const KNOWN: [Workspace; 7] = [
    LONGEST,
    workspace(232_791, 231_343, 3),
    workspace(3_206_451, 69_119, 1),
    workspace(3_764_345, 53_981, 3),
    TEN,
    MANY,
    SHORTEST,
];

/// The mapping query of `[history]`.
pub(crate) const MAPPING: &str = "select r.id as run, r.workspace_id as workspace, r.uid, \
     v.published_run_id as published_run, r.updated_at as last_used_at
from runs r join app.saved_run_version v on v.id = r.parent_version_id";

impl Workspace {
    /// A user of it, and a version of one of its published runs, as [`insert`] has them.
    pub(crate) fn use_of(self, random: u64) -> (String, u64) {
        let (published_run, random) = (random % self.distinct, random / self.distinct);
        let (version, random) = (random % 2, random / 2);
        let user = match self.id >= TAIL_BEGINS {
            true => format!("user-{}", self.id),
            false => format!("user-{}-{}", self.id, random % 5),
        };
        (user, (self.id * 1000 + published_run) * 2 + version)
    }

    /// Its runs in a history of `of` runs.
    pub(crate) fn runs(self, of: u64) -> u64 {
        (self.runs * of / FULL).max(1)
    }
}

/// One of the tail.
pub(crate) fn of_the_tail(random: u64) -> Workspace {
    let id = TAIL_BEGINS + random % TAIL;
    workspace(id, 0, 1 + id % 5)
}

/// Builds it: the same rows each time, interleaved by workspace as years of use leave them.
pub(crate) async fn build(server: &Server, runs: u64, report: &mut Report) -> Result<(), Failure> {
    let (started, mut conn) = (Instant::now(), server.connect().await?);
    eprintln!("building a history of {} runs", grouped(runs));
    for step in [
        "create schema app".into(),
        TABLES.into(),
        insert(runs),
        VERSIONS.into(),
        "alter table app.saved_run_version add primary key (id)".into(),
        "alter table app.saved_run add primary key (id)".into(),
        "create index on app.saved_run (workspace_id, updated_at desc)".into(),
        "vacuum analyze".into(),
        "checkpoint".into(),
    ] {
        run(&mut conn, &step).await?;
    }
    let size = text(&mut conn, "pg_size_pretty(pg_table_size('app.saved_run'))").await?;
    let workspaces = "select count(distinct workspace_id) from app.saved_run";
    let versions = "select count(*) from app.saved_run_version";
    report.line(&format!(
        "The history: {} runs, {size}, of {} workspaces; {} versions.",
        grouped(runs),
        grouped(text(&mut conn, workspaces).await?.parse()?),
        grouped(text(&mut conn, versions).await?.parse()?),
    ));
    eprintln!("built in {:.0} s", started.elapsed().as_secs_f64());
    Ok(())
}

/// What the mapping needs stands before what makes a real row wide. `published_run_id` is a copy
/// that only one of the peers reads: the skip scan where no join is needed.
const TABLES: &str = "
create table app.saved_run (
    id bigint not null, workspace_id bigint, uid text, parent_version_id bigint,
    updated_at timestamptz, published_run_id bigint,
    created_at timestamptz, run_time double precision, price integer, is_flagged boolean,
    error_msg text, state text
);
create table app.saved_run_version (id bigint not null, published_run_id bigint not null)";

const VERSIONS: &str = "
insert into app.saved_run_version
select parent_version_id, min(published_run_id) from app.saved_run
where parent_version_id is not null group by parent_version_id order by parent_version_id";

/// Run `i` gets the place `i * prime mod runs`, a permutation; the known workspaces take the first
/// places, the tail shares the rest by a square law. Each published run has two versions; of the
/// tail's runs, one of 64 has lost its version. One of 8 runs has no user.
fn insert(runs: u64) -> String {
    let (mut workspaces, mut distinct, mut first) = (String::new(), String::new(), 0);
    for known in KNOWN {
        let end = first + known.runs(runs);
        workspaces += &format!("when place < {end} then {} ", known.id);
        distinct += &format!("when {} then {} ", known.id, known.distinct);
        first = end;
    }
    let tail = runs - first;
    format!(
        "insert into app.saved_run
         select i, workspace,
             case when hash % 8 = 0 then null
                  when workspace >= {TAIL_BEGINS} then 'user-' || workspace
                  else 'user-' || workspace || '-' || hash % 5 end,
             case when hash % 64 = 1 and workspace >= {TAIL_BEGINS} then null
                  else published_run * 2 + hash / 64 % 2 end,
             used_at,
             case when hash % 64 = 1 and workspace >= {TAIL_BEGINS} then null
                  else published_run end,
             used_at - interval '1 minute', hash % 1000 / 100.0, hash % 50, false, '',
             repeat(md5(i::text), 5) || 'state'
         from (
             select i, hash, workspace,
                 workspace * 1000
                     + place % case workspace {distinct}else 1 + workspace % 5 end as published_run,
                 timestamptz '2024-01-01 00:00:00Z' + i * interval '8.000001 seconds'
                     + hash % 3600 * interval '1 second' as used_at
             from (
                 select i, place, hashint8extended(i, 42) & {mask} as hash,
                     case when place >= {first} then {TAIL_BEGINS}
                              + floor({TAIL} * power((place - {first})::float8 / {tail}, 2))::bigint
                          {workspaces}end as workspace
                 from (
                     select i, i * {PRIME} % {runs} as place from generate_series(1, {runs}::bigint) as i
                 ) as placed
             ) as in_workspace
         ) as used",
        mask = i64::MAX,
    )
}

/// Greater than any number of runs and prime, hence without a common divisor.
const PRIME: u64 = 2_654_435_761;
