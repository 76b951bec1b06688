//! `recents migrate`.

use super::{Done, Failure, open, out_of_reach};
use crate::config::Config;
use crate::doctor::MEND_GONE;

pub(super) async fn run(config: &Config) -> Result<Done, Failure> {
    let store = open(config)?;
    let applied = store.migrate().await;
    let applied = applied.map_err(|error| out_of_reach(config, error))?;
    let gone = store.gone_tables().await?;
    if !gone.is_empty() {
        return Err(Failure::failed(format!(
            "migrations made tables that are gone: {}; {MEND_GONE}",
            gone.join(", ")
        )));
    }
    match applied {
        0 => eprintln!("the schema is up to date"),
        n => eprintln!("applied {n} migration(s); the schema is up to date"),
    }
    store.close().await;
    Ok(Done::Complete)
}
