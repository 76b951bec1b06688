//! What a process says on standard error, line by line, while it runs.

use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

use super::wait::until;

/// The lines so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    /// Reads `stderr` to its end, on a thread of its own.
    pub(crate) fn follow(stderr: impl Read + Send + 'static) -> Self {
        let log = Self::default();
        let lines = Arc::clone(&log.0);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                lines
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(line);
            }
        });
        log
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.0
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
