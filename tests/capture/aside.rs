//! What is set aside keeps nothing wrong in the lists, and is looked at again as soon as it may be right.

use super::fair::{number, slow};
use super::followed::{Followed, quiet, serve};
use crate::support::history::garbled::GARBAGE;
use crate::support::history::{Run, Setup};
use crate::support::{Server, TestDb, both, until};

both!(
    a_deleted_run_goes_at_once_though_another_one_of_its_row_cannot_be_mapped,
    a_row_that_names_a_run_that_cannot_be_mapped_stays_until_it_can,
    what_is_set_aside_is_looked_at_again_when_a_run_of_it_is_mended_or_gone,
    a_row_that_was_set_aside_is_right_as_soon_as_its_runs_are,
    hundreds_of_runs_that_cannot_be_mapped_keep_no_row_from_what_the_others_say,
    a_run_that_another_service_set_aside_is_aside_no_longer_when_it_is_mended,
    a_row_is_what_its_other_runs_say_though_very_many_elsewhere_are_set_aside,
    a_change_is_seen_while_thousands_of_runs_are_found_to_fail,
);

/// An empty history with two versions, which is followed.
async fn followed(db: TestDb, seed: u64) -> (Setup, Server) {
    let setup = Setup::garbled(db, seed, 0, &[]).await;
    let versions = "truncate saved_run_version;
                    insert into saved_run_version values (1, 'p1'), (2, 'p2')";
    setup.source().execute(versions).await;
    setup.recents(&["capture", "install"]).expect(0);
    setup.recents(&["backfill"]).expect(0);
    let server = serve(&setup).await;
    (setup, server)
}

/// Runs a statement of the application, and waits until its notes are worked off.
async fn app(setup: &Setup, sql: &str) {
    setup.source().execute(sql).await;
    quiet(setup).await;
}

/// A statement that inserts runs of one version, each with the text that should be its time.
fn insert(version: u32, runs: &[(u32, &str)]) -> String {
    let row = |(run, at): &(u32, &str)| format!("({run}, 'w', null, {version}, '{at}')");
    let rows: Vec<_> = runs.iter().map(row).collect();
    format!("insert into saved_run values {}", rows.join(", "))
}

const DAYS: [&str; 3] = ["2026-01-01Z", "2026-01-02Z", "2026-01-03Z"];

/// The rows: of which published run, by which run.
async fn rows(setup: &Setup) -> Vec<(String, String)> {
    let rows = setup.store.rows().await.into_iter();
    rows.map(|((.., published_run), (_, run))| (published_run, run.expect("its run")))
        .collect()
}

fn is(rows: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(p, run): &(&str, &str)| ((*p).to_owned(), (*run).to_owned());
    rows.iter().map(owned).collect()
}

fn set_aside(setup: &Setup) -> serde_json::Value {
    setup.json(&["capture", "status"], 0)["set_aside"].clone()
}

async fn a_deleted_run_goes_at_once_though_another_one_of_its_row_cannot_be_mapped(db: TestDb) {
    let (setup, _server) = followed(db, 231).await;
    app(
        &setup,
        &insert(1, &[(1, DAYS[0]), (2, GARBAGE), (3, DAYS[2])]),
    )
    .await;
    assert_eq!(rows(&setup).await, is(&[("p1", "3")]));
    app(&setup, "delete from saved_run where id = 3").await;
    assert_eq!(
        rows(&setup).await,
        is(&[("p1", "1")]),
        "what is left and can be mapped"
    );
    app(&setup, "delete from saved_run where id = 1").await;
    assert_eq!(rows(&setup).await, is(&[]));
    assert_eq!(set_aside(&setup), 1, "the run, and no row");
    setup.recents(&["verify"]).expect(0);
}

async fn a_row_that_names_a_run_that_cannot_be_mapped_stays_until_it_can(db: TestDb) {
    let (setup, _server) = followed(db, 232).await;
    app(&setup, &insert(1, &[(1, DAYS[0]), (2, DAYS[1])])).await;
    let broken = format!("update saved_run set updated_at = '{GARBAGE}' where id = 2");
    app(&setup, &broken).await;
    assert_eq!(rows(&setup).await, is(&[("p1", "2")]), "it may be right");
    setup.recents(&["verify"]).expect(0);
    // Elsewhere it cannot be, whatever its time is.
    app(
        &setup,
        "update saved_run set workspace_id = 'other' where id = 2",
    )
    .await;
    assert_eq!(rows(&setup).await, is(&[("p1", "1")]));
    let mended = format!(
        "update saved_run set updated_at = '{}' where id = 2",
        DAYS[2]
    );
    app(&setup, &mended).await;
    assert_eq!(rows(&setup).await, is(&[("p1", "2"), ("p1", "1")]));
    assert_eq!(set_aside(&setup), 0);
    setup.recents(&["verify"]).expect(0);
}

/// One by the application's own hand, which is noted; the other by a joined row, which is not.
async fn what_is_set_aside_is_looked_at_again_when_a_run_of_it_is_mended_or_gone(db: TestDb) {
    let (mut setup, server) = followed(db, 233).await;
    drop(server);
    let source = setup.source();
    source
        .execute("create table mended (text text, said text)")
        .await;
    let (column, joined) = (
        "r.updated_at",
        "coalesce((select m.said from mended m where m.text = r.updated_at), r.updated_at)",
    );
    setup.query = setup.query.replace(column, joined);
    let _server = serve(&setup).await;
    for (mend, first) in [
        (
            "update saved_run set updated_at = '2026-01-01Z' where id = 11",
            11,
        ),
        ("delete from saved_run where id = 21", 21),
    ] {
        let text = format!("{GARBAGE} {first}");
        app(&setup, &insert(1, &[(first, GARBAGE), (first + 1, &text)])).await;
        assert_eq!(set_aside(&setup), 2, "{mend}");
        let joined = format!("insert into mended values ('{text}', '2026-02-{first}Z')");
        app(&setup, &joined).await;
        assert_eq!(set_aside(&setup), 2, "nobody noted it: {mend}");
        app(&setup, mend).await;
        until("nothing is set aside", async || {
            (set_aside(&setup) == 0).then_some(())
        })
        .await;
        quiet(&setup).await;
        let run = (first + 1).to_string();
        assert_eq!(rows(&setup).await, is(&[("p1", &run)]), "{mend}");
    }
}

/// Of a row with very many runs that cannot be mapped, and of which nobody knew that, nothing is known.
async fn a_row_that_was_set_aside_is_right_as_soon_as_its_runs_are(db: TestDb) {
    let (setup, _server) = followed(db, 234).await;
    let garbage: Vec<_> = (100..250).map(|run| (run, GARBAGE)).collect();
    let garbage = insert(1, &garbage);
    let untold = format!(
        "set session_replication_role = replica; {garbage}; reset session_replication_role"
    );
    app(&setup, &untold).await;
    app(&setup, &insert(1, &[(1, DAYS[0]), (2, DAYS[1])])).await;
    app(&setup, "delete from saved_run where id = 2").await;
    assert_eq!(set_aside(&setup), 1, "the row");
    let told = "update saved_run set updated_at = updated_at where id >= 100";
    app(&setup, told).await;
    assert_eq!(set_aside(&setup), 150, "the runs, and the row no longer");
    assert_eq!(rows(&setup).await, is(&[("p1", "1")]));
    let mended = "update saved_run set updated_at = '2025-12-01Z' where id >= 100";
    app(&setup, mended).await;
    until("nothing is set aside", async || {
        (set_aside(&setup) == 0).then_some(())
    })
    .await;
    quiet(&setup).await;
    assert_eq!(rows(&setup).await, is(&[("p1", "1")]));
    setup.recents(&["verify"]).expect(0);
}

async fn hundreds_of_runs_that_cannot_be_mapped_keep_no_row_from_what_the_others_say(db: TestDb) {
    let (setup, _server) = followed(db, 235).await;
    let times: Vec<_> = (1..=600)
        .map(|run| format!("2026-01-01T00:{:02}:{:02}Z", run / 60, run % 60))
        .collect();
    let runs: Vec<_> = (1..).zip(times.iter().map(String::as_str)).collect();
    for (version, runs) in [(1, &runs[..590]), (2, &runs[590..])] {
        app(&setup, &insert(version, runs)).await;
    }
    assert_eq!(rows(&setup).await, is(&[("p1", "590"), ("p2", "600")]));
    // In one batch with what makes their row be computed anew.
    let changes = format!(
        "begin; update saved_run set updated_at = '{GARBAGE}' where id between 301 and 589;
         delete from saved_run where id in (590, 600); commit"
    );
    app(&setup, &changes).await;
    assert_eq!(rows(&setup).await, is(&[("p1", "300"), ("p2", "599")]));
    assert_eq!(set_aside(&setup), 289, "each run, and no row");
    let mended = format!(
        "update saved_run set updated_at = '{}' where id = 400",
        DAYS[1]
    );
    app(&setup, &mended).await;
    assert_eq!(rows(&setup).await, is(&[("p1", "400"), ("p2", "599")]));
}

/// In one statement with another one of its row that breaks: this service hears of what is set aside only behind it.
async fn a_run_that_another_service_set_aside_is_aside_no_longer_when_it_is_mended(db: TestDb) {
    let (setup, _server) = followed(db, 236).await;
    let runs = [(1, DAYS[0]), (2, DAYS[1]), (3, DAYS[2])];
    app(&setup, &insert(1, &runs)).await;
    let mut store = setup.store.connect().await;
    store
        .execute("insert into {recents}note (run, error) values ('2', 'as it was')")
        .await;
    let change = format!(
        "update saved_run set updated_at = case id when 3 then '{GARBAGE}' else updated_at end where id > 1"
    );
    app(&setup, &change).await;
    let aside = "select run from {recents}note where error is not null";
    assert_eq!(store.texts(aside).await, ["3"]);
}

async fn a_row_is_what_its_other_runs_say_though_very_many_elsewhere_are_set_aside(db: TestDb) {
    let (setup, _server) = followed(db, 237).await;
    app(&setup, &insert(1, &[(900_001, GARBAGE)])).await;
    let mut store = setup.store.connect().await;
    store
        .execute(
            "insert into {recents}note (run, error)
             with recursive n(n) as (select 1 union all select n + 1 from n where n < 10050)
             select 100000 + n, 'it fails' from n",
        )
        .await;
    let runs = [(900_002, DAYS[0]), (900_003, DAYS[1])];
    app(&setup, &insert(1, &runs)).await;
    app(&setup, "delete from saved_run where id = 900003").await;
    assert_eq!(rows(&setup).await, is(&[("p1", "900002")]));
}

async fn a_change_is_seen_while_thousands_of_runs_are_found_to_fail(db: TestDb) {
    const MANY: u32 = 3_000;
    let (setup, _server) = followed(db, 238).await;
    let runs: Vec<_> = (1..=MANY).map(|run| (run, GARBAGE)).collect();
    let mut source = setup.source().connect().await;
    source.execute(&insert(1, &runs)).await;
    source.execute(&insert(2, &[(MANY + 1, DAYS[0])])).await;
    until("the change is seen", async || {
        (rows(&setup).await == is(&[("p2", "3001")])).then_some(())
    })
    .await;
    let aside = set_aside(&setup).as_u64();
    // About a hundred; where all of a row of the outbox are looked for first, 500.
    assert!(aside < Some(250), "{aside:?} of {MANY} are set aside");
    app(&setup, "delete from saved_run").await;
    until("nothing is set aside", async || {
        (set_aside(&setup) == 0).then_some(())
    })
    .await;
}

/// The look that finds it to fail is a long one, and it is mended, and looked at, before that one ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_is_mended_while_a_row_is_computed_without_it_does_not_stay_set_aside() {
    // Read in this order; halves are looked at from behind.
    let runs = [(9, 1), (7, 2), (10, 3)].map(|(run, at)| Run::new(run, "w", 1, at));
    let (followed, [mut lock, mut application]) = slow(&runs).await;
    application
        .execute("insert into bad values (9); delete from saved_run where id = 10")
        .await;
    let sleeps = "select count(*)::text from pg_stat_activity
                  where datname = current_database() and wait_event = 'PgSleep'";
    until("run 9 was found, and the look goes on", async || {
        (number(&mut application, sleeps).await > 0).then_some(())
    })
    .await;
    application
        .execute("delete from bad; update saved_run set uid = uid where id = 9")
        .await;
    let noted = "select ((select count(*) from recents.outbox)
                         + (select count(*) from recents.note where run is not null))::text";
    until("it is looked at", async || {
        (number(&mut application, noted).await == 0).then_some(())
    })
    .await;
    lock.execute("select pg_advisory_unlock(4712)").await;
    until("nothing is set aside", async || {
        let all = "select count(*)::text from recents.note";
        (number(&mut application, all).await == 0).then_some(())
    })
    .await;
    followed.assert_exact("when the row is computed").await;
}

/// More than are tried at once; what mends them is told to nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_that_is_set_aside_is_tried_again_at_a_start() {
    const MANY: i64 = 1_200;
    let (followed, [_lock, mut application]) = slow(&[Run::new(1, "w", 1, 1)]).await;
    let insert = format!(
        "insert into bad select 1000 + n from generate_series(1, {MANY}) n;
         insert into saved_run select run, 'w' || run, null, 1, now() from bad"
    );
    application.execute(&insert).await;
    followed.quiet().await;
    let aside = "select count(*)::text from recents.note where error is not null";
    assert_eq!(number(&mut application, aside).await, MANY);
    let Followed { setup, server } = followed;
    drop(server);
    application.execute("delete from bad").await;
    let server = serve(&setup).await;
    until("all are right", async || {
        (number(&mut application, "select count(*)::text from recents.note").await == 0)
            .then_some(())
    })
    .await;
    Followed { setup, server }
        .assert_exact("behind the start")
        .await;
}
