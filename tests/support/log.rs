//! What a process says on standard error, line by line, while it runs.

use std::io::{BufRead, BufReader, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

use super::wait::until;

/// The lines so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Log {
    lines: Arc<Mutex<Vec<String>>>,
    ended: Arc<AtomicBool>,
}

impl Log {
    /// Reads `stderr` to its end, on a thread of its own.
    pub(crate) fn follow(stderr: impl Read + Send + 'static) -> Self {
        let log = Self::default();
        let Self { lines, ended } = log.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                lines
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(line);
            }
            ended.store(true, Ordering::SeqCst);
        });
        log
    }

    /// Waits for the process's last words, which may still be read after its end.
    pub(crate) async fn ended(&self) {
        until("the log ended", async || {
            self.ended.load(Ordering::SeqCst).then_some(())
        })
        .await;
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn text(&self) -> String {
        self.lines().join("\n")
    }

    /// The lines that are JSON objects.
    pub(crate) fn events(&self) -> Vec<Value> {
        self.lines()
            .iter()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }

    /// The first event, or the next to come, that `is` it.
    pub(crate) async fn event(&self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        until(what, async || self.events().into_iter().find(&is)).await
    }

    /// The same, by the event's message.
    pub(crate) async fn message(&self, message: &str) -> Value {
        self.event(message, |event| event["message"] == message)
            .await
    }
}
