//! Waiting for a condition, never for luck.

use std::time::Duration;

use tokio::time::Instant;

/// Longer than anything here takes on a loaded machine; a test that waits this long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);
const BETWEEN_LOOKS: Duration = Duration::from_millis(5);

/// Looks until `look` finds something.
///
/// # Panics
/// After [`PATIENCE`], naming what did not come about.
pub(crate) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(
            Instant::now() < deadline,
            "waited {PATIENCE:?} in vain until {what}"
        );
        tokio::time::sleep(BETWEEN_LOOKS).await;
    }
}
