//! Trying again, where that can help.

use std::time::Duration;

use tokio::time::Instant;

use super::StoreError;
use crate::telemetry::chain;

/// Tries of one piece of work, the first included.
const TRIES: u32 = 5;
/// A caller waits for all of them together; a client's own patience is some seconds.
const RETRY_WITHIN: Duration = Duration::from_secs(2);
/// The first pause; each next one is twice as long, half of it by chance.
const FIRST_PAUSE: Duration = Duration::from_millis(10);

/// Runs `work` again where it met a conflict ([`StoreError::is_conflict`]): a deadlock, a
/// serialization failure or a busy database. Nothing else is tried twice.
///
/// # Errors
/// The last error of `work`.
pub async fn with_retries<T, F>(mut work: impl FnMut() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let end = Instant::now() + RETRY_WITHIN;
    let mut pause = FIRST_PAUSE;
    for _ in 1..TRIES {
        match work().await {
            Err(error) if error.is_conflict() && Instant::now() + pause < end => {
                tracing::debug!(error = chain(&error), "trying again");
                tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
                pause *= 2;
            }
            done => return done,
        }
    }
    work().await
}
