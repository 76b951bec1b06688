//! Waiting for the notes of now to be worked off.

use std::time::{Duration, Instant};

use super::outbox::{self, Notes};
use crate::check::CheckError;
use crate::history::History;
use crate::store::{Store, identity, note};

/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Notes of which none has gone for so long are nobody's: no service is running. One that waits for a lock, or
/// for a slow look-up, looks the same: it holds nothing meanwhile that all databases show.
const GIVE_UP_AFTER: Duration = Duration::from_secs(3);

/// Returns true when the notes that stand now are worked off, by whoever does that; or false when nobody
/// seems to. A step of a drain may take as long, so that this is no proof.
///
/// # Errors
/// [`CheckError`] where the notes cannot be read.
pub(crate) async fn settled(store: &Store, history: &History) -> Result<bool, CheckError> {
    let identity = identity::of(store).await?;
    let with_outbox = Notes::of(history, &identity).await? == Notes::Ours;
    let look = async |from: i64| {
        let outbox = match with_outbox {
            true => outbox::backlog(history).await?.standing,
            false => None,
        };
        Ok::<_, CheckError>([outbox, note::ends(store, from).await?])
    };
    let before = look(0).await?;
    let from = before[1].map_or(0, |(first, _)| first);
    let oldest =
        |standing: &[Option<(i64, i64)>; 2]| standing.map(|ids| ids.map(|(first, _)| first));
    let (mut last, mut since) = (oldest(&before), Instant::now());
    loop {
        let now = look(from).await?;
        let is_past = |now: &Option<(i64, i64)>, before: &Option<(i64, i64)>| match (now, before) {
            (Some((first, _)), Some((_, newest))) => first > newest,
            (None, _) | (_, None) => true,
        };
        if now
            .iter()
            .zip(&before)
            .all(|(now, before)| is_past(now, before))
        {
            return Ok(true);
        }
        // New ones come all the time; that the oldest go shows that somebody works.
        if oldest(&now) != last {
            (last, since) = (oldest(&now), Instant::now());
        }
        if since.elapsed() > GIVE_UP_AFTER {
            return Ok(false);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
