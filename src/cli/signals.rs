//! Signals that stop a command.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Turns true at the first SIGINT or SIGTERM.
pub(super) fn stop() -> io::Result<watch::Receiver<bool>> {
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        // Without receivers there is nothing to stop.
        let _ = stop.send(true);
        // Keeps the channel open, so that a receiver never takes its end for a stop.
        stop.closed().await;
    });
    Ok(stopped)
}
