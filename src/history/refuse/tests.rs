use super::{COLUMNS, Dialect, Judged, MAX_TOKENS, Refusal, judge};
use Dialect::{Postgres, Sqlite};

const BOTH: [Dialect; 2] = [Postgres, Sqlite];
const HISTORY: &str = "app.saved_run";

/// The output columns of a history without a join.
const OUT: &str =
    "r.id as run, r.ws as workspace, r.uid, r.flow as published_run, r.at as last_used_at";

/// `{out}` stands for the five columns.
fn ask(query: &str, dialect: Dialect) -> Result<Judged, Refusal> {
    judge(&query.replace("{out}", OUT), HISTORY, dialect)
}

#[test]
#[rustfmt::skip]
fn a_row_of_one_run_and_what_is_joined_to_it_is_accepted() {
    let real = "select r.id as run, r.workspace_id as workspace, r.uid,
                       v.published_run_id as published_run, r.updated_at as last_used_at
                from runs r join saved_run_version v on v.id = r.parent_version_id";
    let cases: &[(&[Dialect], &str)] = &[
        (&BOTH, real),
        (&BOTH, "select {out} from runs r"),
        (&BOTH, "SELECT {out} FROM RUNS AS r;"),
        (&BOTH, "select {out} from \"runs\" r ; ; "),
        (&BOTH, "select run, workspace, uid, published_run, last_used_at from runs"),
        (&BOTH, "select last_used_at, uid, run, published_run, workspace from runs"),
        (&BOTH, "select r.id run, r.ws \"workspace\", null as uid, r.f published_run, r.at last_used_at from runs r"),
        (&BOTH, "select {out} from runs r -- the end"),
        (&BOTH, "-- from app.saved_run; limit 5\nselect {out} /* distinct; */ from runs r; -- done;"),
        (&BOTH, "select {out} from runs r where r.kind <> 'limit 5; order by 1' and r.q <> 'now()'"),
        (&BOTH, "(select {out} from runs r)"),
        (&BOTH, "select {out} from runs r where r.count > 1 and r.\"limit\" is null"),
        (&BOTH, "select {out} from runs r left join version v on v.id = r.v where v.gone is null"),
        (&BOTH, "select {out} from version v right join runs r on v.id = r.v"),
        (&BOTH, "select {out} from version v inner join (runs r left join a on a.id = r.a) on v.id = r.v"),
        (&BOTH, "select {out} from runs r, version v where v.id = r.v"),
        (&BOTH, "select {out} from runs r cross join lateral_names l join a using (id)"),
        (&BOTH, "select {out} from (select * from runs where ws is not null) r"),
        (&BOTH, "with r as (select * from runs), v as (select id from version) select {out} from r join v on v.id = r.v"),
        (&BOTH, "with a as (select * from runs), r as (select * from a) select {out} from r"),
        (&BOTH, "with x(id) as (select id from version) select {out} from runs r where r.v in (select id from x)"),
        (&BOTH, "select {out} from (select runs.*, v.flow from runs join v on v.id = runs.v) r"),
        (&BOTH, "select {out} from runs r where exists (select 1 from version v where v.id = r.v)"),
        (&BOTH, "select {out} from runs r where r.v not in (select id from hidden)"),
        (&BOTH, "select r.id as run, r.ws as workspace, r.uid, (select v.flow from version v where v.id = r.v) as published_run, r.at as last_used_at from runs r"),
        (&BOTH, "select r.id as run, case when r.ws = '' then null else r.ws end as workspace, nullif(r.uid, '') as uid, coalesce(r.a, r.b) as published_run, cast(r.at as text) as last_used_at from runs r"),
        (&BOTH, "select {out} from runs r join (values (1, 'a'), (2, 'b')) as kinds on true"),
        (&BOTH, "select {out} from runs r join other.saved_run o on o.id = r.id"),
        (&BOTH, "select {out} from runs r join public.runs o on o.id = r.id"),
        (&BOTH, "select {out} from runs r where lower(r.kind) = 'x' and substr(r.kind, 1, 2) <> trim(r.ws)"),
        (&[Postgres], "select r.id::text as run, r.ws::text as workspace, r.uid::text as uid, r.f as published_run, r.at at time zone 'UTC' as last_used_at from runs r"),
        (&[Postgres], "select {out} from runs r where extract(epoch from r.at) > 0 and r.at > timestamp '2020-01-01' + interval '1 day'"),
        (&[Postgres], "select {out} from runs r cross join lateral (select v.id from version v where v.id = r.v) v"),
        (&[Postgres], "select {out} from runs r left join lateral (values (r.a), (r.b)) as n(name) on true"),
        (&[Postgres], "select {out} from runs r where r.tags ? 'used' and r.meta->>'kind' = any(array['a', 'b'])"),
        (&[Postgres], "select {out} from runs r where r.q <> $$; limit 1$$ and r.p <> $x$distinct$x$"),
        (&[Postgres], "select {out} from runs r where age(r.at, r.made) is not null and r.ns = uuid_generate_v5(r.a, r.b)"),
        (&[Postgres], "select {out} from runs r where r.state = 'now'::text and r.name like 'today' and r.data->>'today' = case 'today' when r.q then 'now'::text else 'on' end and r.q <> '{nowhere}' and r.title = 'today we build'"),
        (&[Postgres], "with pg_x as (select * from runs) select {out} from pg_x r join pg_public p on p.id = r.p where has_run_privilege(r.id) and inet_client_of(r.uid) is null and r.current_role = 'x' and \"current_schema\" = 1"),
        (&[Postgres], "with r as not materialized (select * from runs) select {out} from r"),
        (&[Postgres], "select {out} from runs r /* /* nested; */ limit 1 */"),
        (&[Postgres], "select {out} from runs r join \"SAVED_RUN\" o on o.id = r.id"),
        (&[Sqlite], "select {out} from runs r where max(r.at, r.made) > 0 and min(r.a, r.b, 3) = 1"),
        (&[Sqlite], "select {out} from runs r where datetime(r.at, '+1 day') > r.made and strftime('%s', r.at) <> unixepoch(r.made)"),
        (&[Sqlite], "select {out} from [runs] r where r.`limit` = 1"),
        (&[Sqlite], "select {out} from \"RUNS\" r where r.state = 'now'"),
        (&[Sqlite], "select {out} from runs r, (values (1, 'now')) where case r.a when 'now' then 'today' end = 'now'"),
    ];
    for (dialects, query) in cases {
        for dialect in *dialects {
            let judged = ask(query, *dialect);
            assert!(judged.is_ok(), "{dialect:?} refused {query}\n{judged:?}");
        }
    }
}

/// The databases that refuse the query, the query, the reason, and what its message names.
type Case = (&'static [Dialect], &'static str, Refusal, &'static str);

#[track_caller]
fn refused(cases: Vec<Case>) {
    for (dialects, query, refusal, named) in cases {
        let message = refusal.to_string();
        assert!(
            message.contains(named),
            "{named} is not named in: {message}"
        );
        assert!(
            message.contains(". "),
            "nothing to write instead in: {message}"
        );
        for dialect in dialects {
            assert_eq!(
                ask(query, *dialect).err().as_ref(),
                Some(&refusal),
                "{dialect:?}: {query}"
            );
        }
    }
}

#[test]
#[rustfmt::skip]
fn only_one_plain_select_is_accepted() {
    use Refusal::*;
    refused(vec![
        (&BOTH, "", Empty, "empty"),
        (&BOTH, " ;; -- nothing\n", Empty, "empty"),
        (&BOTH, "select {out} from runs r; select 1", SeveralStatements(2), "2 statements"),
        (&BOTH, "delete from runs", NotASelect("DELETE".into()), "`DELETE`"),
        (&BOTH, "values (1, 2, 3, 4, 5)", NotASelect("VALUES (1, 2, 3, 4, 5)".into()), "`VALUES"),
        (&BOTH, "create table t as select {out} from runs r",
            NotASelect("CREATE".into()), "`CREATE`"),
        (&[Postgres], "with gone as (delete from version returning id) select {out} from runs r",
            Writes("DELETE"), "`DELETE` writes"),
        (&[Postgres], "with a as (insert into t values (1) returning id) select {out} from runs r",
            Writes("INSERT"), "`INSERT` writes"),
        (&[Postgres], "with a as (update t set x = 1 returning id) select {out} from runs r",
            Writes("UPDATE"), "`UPDATE` writes"),
        (&[Postgres], "select {out} into t from runs r", Writes("SELECT INTO"), "`SELECT INTO`"),
        (&[Postgres], "select {out} from runs r for update",
            Locks("FOR UPDATE".into()), "`FOR UPDATE`"),
        (&BOTH, "select {out} from runs r where r.ws = $1", Placeholder("$1".into()), "`$1`"),
        (&[Sqlite], "select {out} from runs r where r.ws = ?", Placeholder("?".into()), "`?`"),
        (&[Sqlite], "select {out} from runs r where r.ws = :ws",
            Placeholder(":ws".into()), "`:ws`"),
        (&[Postgres], "select {out} from runs r tablesample system (1)",
            NotPlain("TABLESAMPLE".into()), "`TABLESAMPLE`"),
        (&BOTH, "select {out} from x semi join runs r on true",
            NotPlain("SEMI JOIN runs r ON true".into()), "`SEMI JOIN"),
        (&[Postgres], "select {out} from runs r, only saved_run",
            NotPlain("ONLY".into()), "`ONLY`"),
    ]);
}

#[test]
#[rustfmt::skip]
fn the_five_columns_are_named_each_once() {
    use Refusal::*;
    refused(vec![
        (&BOTH, "select 1 as run from runs r", MissingColumn("workspace"), "`workspace`"),
        (&BOTH, "select r.id as run, r.ws as workspace, r.f as published_run, r.at as last_used_at from runs r",
            MissingColumn("uid"), "`null as uid`"),
        (&BOTH, "select {out}, r.kind from runs r", ExtraColumn("kind".into()), "`kind`"),
        (&BOTH, "select {out}, 1 as run from runs r", DuplicateColumn("run"), "`run`"),
        (&BOTH, "select {out}, r.a + 1 from runs r", UnnamedColumn("r.a + 1".into()), "`r.a + 1`"),
        (&[Postgres], "select r.uid::text from runs r",
            UnnamedColumn("r.uid::TEXT".into()), "`as`"),
        (&[Postgres], "select {out}, 1 as \"Run\" from runs r", ExtraColumn("Run".into()), "`Run`"),
        (&[Sqlite], "select {out}, 1 as \"Run\" from runs r", DuplicateColumn("run"), "`run`"),
        (&BOTH, "select * from runs", Wildcard("*".into()), "run, workspace, uid"),
        (&BOTH, "select r.* from runs r", Wildcard("r.*".into()), "`r.*`"),
    ]);
}

#[test]
#[rustfmt::skip]
fn each_row_is_made_of_exactly_one_run() {
    use Refusal::*;
    refused(vec![
        (&BOTH, "select {out} from version r", NoRuns, "`runs`"),
        (&BOTH, "select {out} from other.runs r", NoRuns, "`runs`"),
        (&[Postgres], "select {out} from \"Runs\" r", NoRuns, "`runs`"),
        (&BOTH, "with a as (select * from runs) select {out} from version r", NoRuns, "`runs`"),
        (&BOTH, "select {out} from runs r join runs s on s.id = r.parent",
            RunsTwice, "more than once"),
        (&BOTH, "with a as (select * from runs) select {out} from a r join a s on s.id = r.parent",
            RunsTwice, "more than once"),
        (&BOTH, "with a as (select * from runs) select {out} from runs r",
            RunsTwice, "more than once"),
        (&BOTH, "select {out} from version r where exists (select 1 from runs s where s.v = r.id)",
            RunsInExpression("EXISTS (SELECT 1 FROM runs s WHERE s.v = r.id)".into()), "EXISTS"),
        (&BOTH, "select {out} from runs r where r.at > (select s.at from runs s)",
            RunsInExpression("r.at > (SELECT s.at FROM runs s)".into()), "`runs`"),
        (&BOTH, "with a as (select * from runs) select {out} from a r where r.p in (select id from a)",
            RunsInExpression("r.p IN (SELECT id FROM a)".into()), "r.p IN"),
        (&BOTH, "select {out} from runs r join v on v.id = (select p from runs)",
            RunsInExpression("v.id = (SELECT p FROM runs)".into()), "v.id ="),
        (&BOTH, "select {out} from version v left join runs r on r.v = v.id",
            RunsNullable("LEFT JOIN"), "`LEFT JOIN`"),
        (&BOTH, "select {out} from version v left join (select * from runs) r on r.v = v.id",
            RunsNullable("LEFT JOIN"), "`from runs r`"),
        (&BOTH, "select {out} from runs r right join version v on r.v = v.id",
            RunsNullable("RIGHT JOIN"), "`RIGHT JOIN`"),
        (&BOTH, "select {out} from a join runs r on true full join version v on r.v = v.id",
            RunsNullable("FULL JOIN"), "`FULL JOIN`"),
        (&BOTH, "with r as (select * from runs) select {out} from version v left outer join r on r.v = v.id",
            RunsNullable("LEFT JOIN"), "`LEFT JOIN`"),
        (&BOTH, "with runs as (select * from version) select {out} from runs r",
            RunsShadowed, "`runs`"),
        (&BOTH, "with recursive a as (select * from runs) select {out} from a r",
            Recursive, "recursive"),
        (&BOTH, "select {out} from app.saved_run r",
            HistoryTable("app.saved_run".into()), "`app.saved_run`"),
        (&BOTH, "select {out} from runs r join saved_run s on s.id = r.parent",
            HistoryTable("saved_run".into()), "`saved_run`"),
        (&BOTH, "select {out} from runs r where r.id in (select id from APP.\"saved_run\")",
            HistoryTable("APP.\"saved_run\"".into()), "Write `runs`"),
        (&[Sqlite], "select {out} from runs r, [SAVED_RUN] s",
            HistoryTable("[SAVED_RUN]".into()), "`[SAVED_RUN]`"),
    ]);
}

#[test]
#[rustfmt::skip]
fn what_merges_drops_or_multiplies_runs_is_refused() {
    use Refusal::*;
    refused(vec![
        (&[Postgres], "select distinct on (v.published_run_id) r.id as run, r.workspace_id as workspace, r.uid, v.published_run_id as published_run, r.updated_at as last_used_at from saved_run r join saved_run_version v on v.id = r.parent_version_id order by v.published_run_id, r.updated_at desc",
            DistinctOn, "the same select without DISTINCT ON and ORDER BY, one row for each run"),
        (&BOTH, "select distinct {out} from runs r", Distinct, "DISTINCT"),
        (&BOTH, "select {out} from runs r join (select distinct id from v) v on true",
            Distinct, "DISTINCT"),
        (&BOTH, "select {out} from runs r group by r.id", Grouping("GROUP BY"), "`GROUP BY`"),
        (&BOTH, "select {out} from runs r having true", Grouping("HAVING"), "`HAVING`"),
        (&BOTH, "select {out}, max(r.at) from runs r", Aggregate("max".into()), "`max`"),
        (&BOTH, "select {out} from runs r where 1 < (select COUNT(*) from v)",
            Aggregate("count".into()), "`count`"),
        (&BOTH, "select {out}, mine(*) from runs r", Aggregate("mine".into()), "`mine`"),
        (&BOTH, "select {out}, mine(distinct r.a) from runs r", Aggregate("mine".into()), "`mine`"),
        (&BOTH, "select {out}, mine(r.a) filter (where r.b) from runs r",
            Aggregate("mine".into()), "`mine`"),
        (&[Postgres], "select {out}, array(select id from v) from runs r",
            Aggregate("array".into()), "`array`"),
        (&[Postgres], "select {out}, max(r.at, r.made) from runs r",
            Aggregate("max".into()), "`max`"),
        (&[Sqlite], "select {out}, group_concat(r.a) from runs r",
            Aggregate("group_concat".into()), "`group_concat`"),
        (&BOTH, "select {out}, row_number() over (partition by r.ws order by r.at) from runs r",
            Window("row_number".into()), "`row_number`"),
        (&BOTH, "select {out} from runs r window w as (order by r.at)",
            Window("w AS (ORDER BY r.at)".into()), "`w AS"),
        (&BOTH, "select {out} from runs r limit 10", Limit("LIMIT"), "`LIMIT`"),
        (&BOTH, "select {out} from runs r where r.v = (select id from v limit 1)",
            Limit("LIMIT"), "`LIMIT`"),
        (&[Postgres], "select {out} from runs r offset 10", Limit("OFFSET"), "`OFFSET`"),
        (&[Postgres], "select {out} from runs r fetch first 5 rows only",
            Limit("FETCH"), "`FETCH`"),
        (&BOTH, "select {out} from runs r order by r.at desc", OrderBy, "pointless"),
        (&BOTH, "select {out} from runs r union all select {out} from runs r",
            SetOperation("UNION".into()), "`UNION`"),
        (&BOTH, "select {out} from runs r where r.v in (select 1 except select 2)",
            SetOperation("EXCEPT".into()), "`EXCEPT`"),
        (&BOTH, "select {out} from (select * from runs intersect select * from b) r",
            SetOperation("INTERSECT".into()), "`INTERSECT`"),
        (&[Postgres], "select {out}, unnest(r.tags) from runs r",
            SetReturning("unnest".into()), "`unnest`"),
        (&[Postgres], "select {out}, pg_catalog.generate_series(1, 2) from runs r",
            SetReturning("generate_series".into()), "`generate_series`"),
        (&[Postgres], "select {out} from runs r, unnest(r.tags) tag",
            FunctionInFrom("unnest".into()), "`unnest`"),
        (&[Postgres], "select {out} from runs r cross join lateral jsonb_each(r.meta) m",
            FunctionInFrom("jsonb_each".into()), "`jsonb_each`"),
        (&BOTH, "select {out} from runs r, json_each(r.tags) tag",
            FunctionInFrom("json_each".into()), "`json_each`"),
        (&BOTH, "select {out} from runs r join generate_series(1, 3) g on true",
            FunctionInFrom("generate_series".into()), "`generate_series`"),
    ]);
}

#[test]
#[rustfmt::skip]
fn what_differs_from_one_look_to_the_next_is_refused() {
    use Refusal::*;
    refused(vec![
        (&[Postgres], "select {out} from runs r where r.at > now() - interval '1 day'",
            Clock("now".into()), "`now`"),
        (&BOTH, "select {out} from runs r where r.at > CURRENT_TIMESTAMP",
            Clock("current_timestamp".into()), "`current_timestamp`"),
        (&BOTH, "select {out} from runs r where r.at > current_date",
            Clock("current_date".into()), "`current_date`"),
        (&[Postgres], "select {out} from runs r where r.at > localtimestamp(3)",
            Clock("localtimestamp".into()), "`localtimestamp`"),
        (&[Postgres], "select {out} from runs r where r.at > pg_catalog.\"clock_timestamp\"()",
            Clock("clock_timestamp".into()), "`clock_timestamp`"),
        (&[Postgres], "select {out} from runs r where age(r.at) > r.limit",
            Clock("age".into()), "`age`"),
        (&[Postgres], "select {out} from runs r where r.at > 'today'",
            ClockLiteral("today".into()), "'today'::text"),
        (&[Postgres], "select {out} from runs r where r.at::date in (date ' Yesterday')",
            ClockLiteral(" Yesterday".into()), "Yesterday"),
        (&[Postgres], "select {out} from runs r where r.at between r.a and ('tomorrow 04:00')",
            ClockLiteral("tomorrow 04:00".into()), "tomorrow"),
        (&[Postgres], "select {out} from runs r where coalesce(r.at, 'now') is null",
            ClockLiteral("now".into()), "'now'"),
        (&[Postgres], "select {out} from runs r where 'now'::timestamptz > r.at",
            ClockLiteral("now".into()), "'now'"),
        (&[Postgres], "select {out} from runs r where U&'\\006eow'::timestamptz > r.at",
            ClockLiteral("now".into()), "'now'"),
        (&[Postgres], "select {out} from runs r where N'now'::timestamptz > r.at",
            ClockLiteral("now".into()), "'now'"),
        (&[Postgres], "select {out} from runs r where case when r.done then r.at else 'now' end > r.made",
            ClockLiteral("now".into()), "'now'"),
        (&[Postgres], "select {out} from runs r where case when r.done then ('now') else r.at end > r.made",
            ClockLiteral("now".into()), "'now'"),
        (&[Postgres], "select {out} from runs r where case r.at when 'now' then true end",
            ClockLiteral("now".into()), "'now'"),
        (&[Postgres], "select {out} from runs r where r.at in (select v.at from (values (1, r.at), (2, 'now')) v(n, at))",
            ClockLiteral("now".into()), "'now'"),
        (&[Sqlite], "select {out} from runs r where r.at > datetime('now', '-1 day')",
            Clock("datetime".into()), "`datetime`"),
        (&[Sqlite], "select {out} from runs r where r.at > date()", Clock("date".into()), "`date`"),
        (&[Sqlite], "select {out} from runs r where r.at > strftime('%s')",
            Clock("strftime".into()), "`strftime`"),
        (&[Sqlite], "select {out} from runs r where r.at > strftime('%s', \"NOW\")",
            Clock("strftime".into()), "`strftime`"),
        (&[Sqlite], "select {out} from runs r where r.at > unixepoch('subsec')",
            Clock("unixepoch".into()), "`unixepoch`"),
        (&[Sqlite], "select {out} from runs r where timediff(r.at, 'now') > 0",
            Clock("timediff".into()), "`timediff`"),
        (&BOTH, "select {out} from runs r where random() > 0", Random("random".into()), "`random`"),
        (&[Postgres], "select gen_random_uuid() as run from runs r",
            Random("gen_random_uuid".into()), "`gen_random_uuid`"),
        (&[Postgres], "select uuid_generate_v4() as run from runs r",
            Random("uuid_generate_v4".into()), "`uuid_generate_v4`"),
        (&[Sqlite], "select hex(randomblob(16)) as run from runs r",
            Random("randomblob".into()), "`randomblob`"),
        (&[Postgres], "select {out} from runs r where nextval('s') > 0",
            State("nextval".into()), "`nextval`"),
        (&[Postgres], "select {out} from runs r where pg_sleep(1) is null",
            State("pg_sleep".into()), "`pg_sleep`"),
        (&[Postgres], "select {out} from runs r where r.owner = current_user",
            State("current_user".into()), "`current_user`"),
        (&[Postgres], "select {out} from runs r where r.owner = user",
            State("user".into()), "`user`"),
        (&[Postgres], "select {out} from runs r where r.owner = current_setting('app.tenant')",
            State("current_setting".into()), "`current_setting`"),
        (&[Postgres], "select {out} from runs r where r.owner = current_role",
            State("current_role".into()), "`current_role`"),
        (&[Postgres], "select {out} from runs r where r.tenant = current_schema",
            State("current_schema".into()), "`current_schema`"),
        (&[Postgres], "select {out} from runs r where r.tenant = current_database()",
            State("current_database".into()), "`current_database`"),
        (&[Postgres], "select {out} from runs r where has_table_privilege('t', 'select')",
            State("has_table_privilege".into()), "`has_table_privilege`"),
        (&[Postgres], "select {out} from runs r where inet_client_port() > 0",
            State("inet_client_port".into()), "`inet_client_port`"),
        (&[Postgres], "select {out} from runs r where r.uid = (select setting from pg_settings where name = 'x')",
            State("pg_settings".into()), "`pg_settings`"),
        (&[Postgres], "select {out} from runs r, pg_catalog.pg_roles o where o.rolname = r.uid",
            State("pg_catalog.pg_roles".into()), "`pg_catalog.pg_roles`"),
        (&[Postgres], "select {out} from runs r where inet_server_addr() is null",
            State("inet_server_addr".into()), "`inet_server_addr`"),
        (&[Postgres], "select {out} from runs r where txid_current() > 0",
            State("txid_current".into()), "`txid_current`"),
        (&[Sqlite], "select {out} from runs r where changes() > 0",
            State("changes".into()), "`changes`"),
        (&[Sqlite], "select {out} from runs r where r.id = last_insert_rowid()",
            State("last_insert_rowid".into()), "`last_insert_rowid`"),
    ]);
}

#[test]
fn a_parse_error_tells_line_and_column() {
    for (query, told) in [
        (
            "select {out}\nfrom runs r whre r.a = 1",
            "found: whre at Line: 2, Column: 13",
        ),
        (
            "\n select 1 as run frm runs r",
            "found: frm at Line: 2, Column: 18",
        ),
        ("select {out}\nfrom runs r\nwhere (r.a = 1", "found: EOF"),
        (
            "select r.a = 'open",
            "string literal at Line: 1, Column: 14",
        ),
        ("select r.a /* open", "comment at Line: 1, Column: 19"),
        // What would end the brackets that the query is wrapped in.
        (
            "select 1 as run from runs r) q --",
            "found: ) at Line: 1, Column: 28",
        ),
        (
            "select 1 as run from runs r end union",
            "found: end at Line: 1, Column: 29",
        ),
        ("select 'a\0'", "a NUL byte at offset 9"),
    ] {
        for dialect in BOTH {
            let refusal = ask(query, dialect).err();
            let message = refusal.as_ref().map(Refusal::to_string).unwrap_or_default();
            assert!(
                matches!(refusal, Some(Refusal::Parse(_))),
                "{query}: {refusal:?}"
            );
            assert!(message.contains(told), "{query}: {message}");
        }
    }
}

#[test]
fn the_text_is_the_query_without_the_semicolon() {
    for (query, text) in [
        ("  select {out} from runs r ;\n", "select {out} from runs r"),
        (
            ";select {out} from runs r;; -- done;",
            "select {out} from runs r",
        ),
        (
            "/* häuf;ig */ select {out}\r\nfrom runs r\r\n;",
            "/* häuf;ig */ select {out}\r\nfrom runs r",
        ),
        (
            "select {out} from runs r -- é;\n where r.a = ';é';",
            "select {out} from runs r -- é;\n where r.a = ';é'",
        ),
        (
            "select {out} from runs r -- end",
            "select {out} from runs r -- end",
        ),
    ] {
        for dialect in BOTH {
            let judged = ask(query, dialect).map(|judged| judged.text);
            assert_eq!(judged, Ok(text.replace("{out}", OUT)), "{query}");
        }
    }
}

#[test]
fn the_functions_called_are_listed_once_sorted_and_unqualified() {
    let query = "select {out} from runs r join v on app.Visible(v.id) and LOWER(v.a) = lower(r.a)
                 where exists (select 1 from x where \"touch\"(abs(x.id)) = coalesce(r.a, r.b))";
    for dialect in BOTH {
        let functions = ask(query, dialect).map(|judged| judged.functions);
        let expected = ["abs", "coalesce", "lower", "touch", "visible"].map(String::from);
        assert_eq!(functions, Ok(expected.to_vec()), "{dialect:?}");
    }
}

#[test]
fn the_columns_are_told_in_their_order() {
    let query = "select r.at as last_used_at, cast(null as text) as uid, r.f as published_run,
                 r.id as run, r.ws as workspace from runs r";
    let judged = ask(query, Postgres).map(|judged| (judged.columns, judged.without_users));
    let order = vec!["last_used_at", "uid", "published_run", "run", "workspace"];
    assert_eq!(judged, Ok((order, true)));
    let judged = ask("select {out} from runs r", Postgres);
    let judged = judged.map(|judged| (judged.columns, judged.without_users));
    assert_eq!(judged, Ok((COLUMNS.to_vec(), false)));
}

#[test]
fn the_history_table_is_known_however_it_is_written() {
    let history = |table: &str, relation: &str, dialect| {
        judge(
            &format!("select {OUT} from runs r, {relation} h"),
            table,
            dialect,
        )
        .err()
    };
    for (table, relation, dialects) in [
        ("app.saved_run", "saved_run", &BOTH[..]),
        ("app.saved_run", "App.Saved_Run", &BOTH),
        ("saved_run", "app.saved_run", &BOTH),
        ("db.app.saved_run", "app.saved_run", &BOTH),
        ("\"App\".\"Saved Run\"", "\"App\".\"Saved Run\"", &BOTH),
        ("\"App\".\"Saved Run\"", "[saved run]", &[Sqlite]),
        ("app.runs", "app.runs", &BOTH),
        ("runs", "main.runs", &BOTH),
    ] {
        for dialect in dialects {
            let refusal = Some(Refusal::HistoryTable(relation.to_owned()));
            assert_eq!(
                history(table, relation, *dialect),
                refusal,
                "{table} {dialect:?}"
            );
        }
    }
    for (table, relation, dialects) in [
        ("app.saved_run", "other.saved_run", &BOTH[..]),
        ("app.saved_run", "app.saved_run_version", &BOTH),
        ("\"App\".\"Run\"", "app.run", &[Postgres]),
    ] {
        for dialect in dialects {
            assert_eq!(
                history(table, relation, *dialect),
                None,
                "{table} {dialect:?}"
            );
        }
    }
    assert_eq!(
        history("app.", "v", Postgres),
        Some(Refusal::TableName("app.".to_owned()))
    );
    assert_eq!(
        history("a; b", "v", Postgres),
        Some(Refusal::TableName("a; b".to_owned()))
    );
}

#[test]
fn neither_the_longest_nor_the_deepest_query_exhausts_the_stack() {
    let select = format!("select {OUT} from runs r where r.a");
    // 35 tokens come before the chain, and each link of it is one.
    let chain = |links| format!("{select}{}", " notnull".repeat(links));
    assert!(judge(&chain(MAX_TOKENS - 35), HISTORY, Postgres).is_ok());
    let longer = judge(&chain(MAX_TOKENS - 34), HISTORY, Postgres);
    assert_eq!(longer, Err(Refusal::TooLong(MAX_TOKENS + 1)));
    let deep = format!("{select} = {}1{}", "(".repeat(900), ")".repeat(900));
    let refusal = judge(&deep, HISTORY, Postgres).err();
    assert_eq!(
        refusal,
        Some(Refusal::Parse("it is nested too deeply".to_owned()))
    );
}
