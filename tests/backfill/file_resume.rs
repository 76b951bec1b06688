//! A backfill of a file that was killed or stopped goes on where it was.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use super::hook::hooked;
use crate::support::history::file::csv;
use crate::support::history::setup::last_json;
use crate::support::history::{Files, Worker, maximum};
use crate::support::{Backend, TestDb, Use, both};

both!(
    a_file_goes_on_where_it_was_after_a_kill_and_after_an_interrupt,
    an_interrupt_in_the_middle_of_a_stretch_counts_what_was_read,
    a_file_that_changed_is_read_from_its_beginning,
    standard_input_can_be_interrupted_and_begins_again,
);

/// Runs of a stretch: what is handed over at once.
const STRETCH: usize = 50_000;

/// A pipe by a name: a file that is read only as far as it was written, always of the same age.
fn pipe(files: &Files, name: &str) {
    let made = Command::new("mkfifo").arg(files.path(name)).status();
    assert!(made.expect("mkfifo runs").success());
    age(files, name);
}

fn age(files: &Files, name: &str) {
    let aged = Command::new("touch")
        .args(["-c", "-d", "2020-01-01"])
        .arg(files.path(name))
        .status();
    assert!(aged.expect("touch runs").success());
}

/// Starts a backfill of a pipe that has these uses, and more to come; waits for its checkpoint.
async fn start_up_to(files: &Files, uses: &[Use], cursor: usize) -> (Worker, File) {
    age(files, "pipe");
    let mut worker = files.start("pipe");
    let path = files.path("pipe");
    let text = csv(uses);
    // Opening and writing wait for the reader.
    let write = tokio::task::spawn_blocking(move || {
        let mut pipe = OpenOptions::new().write(true).open(path).expect("a reader");
        pipe.write_all(text.as_bytes()).expect("it reads");
        pipe
    });
    let cursor = cursor.to_string();
    worker
        .until("the checkpoint", async || {
            (files.job("cursor").await == cursor).then_some(())
        })
        .await;
    (worker, write.await.expect("written"))
}

async fn a_file_goes_on_where_it_was_after_a_kill_and_after_an_interrupt(db: TestDb) {
    let files = Files::beside(db);
    let uses = hooked(60, 2 * STRETCH + 20_000);
    pipe(&files, "pipe");
    let (worker, pipe) = start_up_to(&files, &uses[..STRETCH + 10], STRETCH).await;
    worker.kill();
    drop(pipe);
    files
        .assert_rows(&maximum(&uses[..STRETCH]), "at the checkpoint")
        .await;
    let long_ago = match files.db.backend {
        Backend::Postgres => "'2001-01-01Z'",
        Backend::Sqlite => "1",
    };
    files
        .db
        .execute(&format!(
            "update {{recents}}job set lease_until = {long_ago}"
        ))
        .await;

    let (worker, pipe) = start_up_to(&files, &uses[..2 * STRETCH + 10], 2 * STRETCH).await;
    let begun = Instant::now();
    worker.signal("INT");
    // The pipe is still open, with nothing in it.
    let stopped = worker.ended().await.expect(4);
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "it waited for more of the file"
    );
    drop(pipe);
    assert!(
        stopped.err.contains("going on behind 50,000 runs"),
        "{stopped:?}"
    );
    files
        .assert_rows(&maximum(&uses[..2 * STRETCH]), "where it was stopped")
        .await;

    age(&files, "pipe");
    let worker = files.start("pipe");
    std::fs::write(files.path("pipe"), csv(&uses)).expect("it reads");
    let ended = worker.ended().await.expect(0);
    assert!(
        ended.err.contains("going on behind 100,000 runs"),
        "{ended:?}"
    );
    assert_eq!(
        last_json(&ended)["scanned"],
        json!(uses.len()),
        "each run once"
    );
    files.assert_rows(&maximum(&uses), "at the end").await;
}

async fn an_interrupt_in_the_middle_of_a_stretch_counts_what_was_read(db: TestDb) {
    /// What a pipe, and those who read from it, hold at the most.
    const AHEAD: usize = 10_000;
    let files = Files::beside(db);
    let uses = hooked(63, STRETCH / 2);
    pipe(&files, "pipe");
    let worker = files.start("pipe");
    let (path, text) = (files.path("pipe"), csv(&uses));
    let (written, was_written) = tokio::sync::oneshot::channel();
    let (go_on, may_go_on) = std::sync::mpsc::channel();
    let writer = std::thread::spawn(move || {
        let mut pipe = OpenOptions::new().write(true).open(path).expect("a reader");
        pipe.write_all(text.as_bytes()).expect("it reads");
        written.send(()).expect("the test waits");
        may_go_on.recv().expect("the test goes on");
        // The last use again and again, until nobody reads any more.
        let last = text.lines().last().expect("a use").to_owned() + "\n";
        while pipe.write_all(last.as_bytes()).is_ok() {}
    });
    was_written.await.expect("written");
    worker.signal("INT");
    go_on.send(()).expect("the writer waits");
    let stopped = worker.ended().await.expect(4);
    writer.join().expect("it ends");
    let scanned = last_json(&stopped)["scanned"].as_u64().expect("a count") as usize;
    assert!(scanned > uses.len() - AHEAD, "{scanned}: {stopped:?}");
    assert_eq!(files.job("cursor").await, scanned.to_string());
    let read = &uses[..scanned.min(uses.len())];
    files.assert_rows(&maximum(read), "what was counted").await;
}

async fn a_file_that_changed_is_read_from_its_beginning(db: TestDb) {
    let files = Files::beside(db);
    let uses = hooked(61, 300);
    let broken = csv(&uses[..200]) + "no\n" + &csv(&uses[200..]);
    files.write("a.csv", &broken);
    files.backfill("a.csv", &[]).expect(1);
    assert_eq!(files.job("cursor").await, "200");
    // As long as before, but for the time at which it was written the same.
    files
        .db
        .execute("delete from {recents}recent_workflow")
        .await;
    files.write("a.csv", broken.replace("no\n", "-\n\n"));
    files.backfill("a.csv", &[]).expect(1);
    files
        .assert_rows(&maximum(&uses[..200]), "from the beginning")
        .await;
    // Another file of the same content is another one.
    files
        .db
        .execute("delete from {recents}recent_workflow")
        .await;
    files.write("b.csv", csv(&uses));
    let ended = files.backfill("b.csv", &[]).expect(0);
    assert!(!ended.err.contains("going on"), "{ended:?}");
    files
        .assert_rows(&maximum(&uses), "from the beginning of another")
        .await;
    // And a name may change where the file does not.
    files.write("c.csv", &broken);
    files.backfill("c.csv", &[]).expect(1);
    std::os::unix::fs::symlink(files.path("c.csv"), files.path("e.csv")).expect("a link");
    let ended = files.backfill("e.csv", &["--on-error", "skip"]);
    assert!(ended.err.contains("going on behind 200 runs"), "{ended:?}");
}

async fn standard_input_can_be_interrupted_and_begins_again(db: TestDb) {
    let files = Files::beside(db);
    let uses = hooked(62, 1_000);
    let mut command = files.command("-", &[]);
    command.stdin(Stdio::piped());
    let mut worker = Worker::start(command);
    let mut input = worker.child.stdin.take().expect("its input");
    input
        .write_all(csv(&uses[..10]).as_bytes())
        .expect("it reads");
    worker
        .until("it holds the job", async || {
            (files.job("state").await == "running").then_some(())
        })
        .await;
    let begun = Instant::now();
    worker.signal("INT");
    let stopped = worker.ended().await.expect(4);
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "it waited for more input"
    );
    assert_eq!(stopped.out.lines().count(), 1);
    drop(input);
    assert_eq!(
        files.job("cursor").await,
        "NULL",
        "nobody can go on in a stream that is gone"
    );
    files.write("input", csv(&uses));
    let mut command = files.command("-", &[]);
    command.stdin(Stdio::from(
        File::open(files.path("input")).expect("it is there"),
    ));
    let ended = Worker::start(command).ended().await.expect(0);
    assert!(!ended.err.contains("going on"), "{ended:?}");
    assert_eq!(last_json(&ended)["scanned"], 1_000);
    files
        .assert_rows(&maximum(&uses), "from the beginning")
        .await;
}
