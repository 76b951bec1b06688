//! A command that runs beside the test.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crate::support::command::Ended;
use crate::support::until;

/// A running command, killed when dropped.
pub(crate) struct Worker {
    pub(crate) child: Child,
    said: Arc<Mutex<String>>,
    out: Option<JoinHandle<String>>,
    err: Option<JoinHandle<()>>,
}

impl Worker {
    pub(crate) fn start(mut command: Command) -> Self {
        let spawned = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = spawned.expect("recents runs");
        let mut stdout = child.stdout.take().expect("its standard output");
        let stderr = child.stderr.take().expect("its standard error");
        let out = std::thread::spawn(move || {
            let mut text = String::new();
            stdout.read_to_string(&mut text).expect("output in UTF-8");
            text
        });
        let said = Arc::new(Mutex::new(String::new()));
        let lines = Arc::clone(&said);
        let err = std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut said = lines.lock().unwrap_or_else(PoisonError::into_inner);
                said.push_str(&line);
                said.push('\n');
            }
        });
        Self {
            child,
            said,
            out: Some(out),
            err: Some(err),
        }
    }

    /// What it said on standard error so far.
    pub(crate) fn said(&self) -> String {
        self.said
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Sends it a signal, such as `INT`.
    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let kill = Command::new("kill").args(["-s", signal, &pid]).status();
        assert!(
            kill.expect("kill runs").success(),
            "it is gone already: {}",
            self.said()
        );
    }

    /// Kills it, as a crash does.
    pub(crate) fn kill(mut self) {
        let ended = self.child.try_wait().expect("its state");
        assert_eq!(
            ended,
            None,
            "it ended before it was killed: {}",
            self.said()
        );
        self.child.kill().expect("it is killed");
        self.child.wait().expect("its end");
    }

    /// Waits for `look`, while it lives.
    pub(crate) async fn until<T>(
        &mut self,
        what: &str,
        mut look: impl AsyncFnMut() -> Option<T>,
    ) -> T {
        until(what, async || {
            let found = look().await;
            if found.is_none() {
                let ended = self.child.try_wait().expect("its state");
                assert_eq!(ended, None, "it ended before {what}: {}", self.said());
            }
            found
        })
        .await
    }

    /// Waits for its end.
    pub(crate) async fn ended(mut self) -> Ended {
        let status = until("the command ended", async || {
            self.child.try_wait().expect("its state")
        });
        let code = status.await.code();
        let out = self
            .out
            .take()
            .expect("taken once")
            .join()
            .expect("its output");
        self.err
            .take()
            .expect("taken once")
            .join()
            .expect("its messages");
        Ended {
            code,
            out,
            err: self.said(),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
