//! `recents dismiss` and `recents forget`.

use std::collections::BTreeSet;
use std::time::Duration;

use clap::Args;

use super::backfill::connect;
use super::output::{chain, thousands};
use super::{Done, Failure, open_existing};
use crate::config::Config;
use crate::dismiss::{dismiss, sweep};
use crate::history::{History, Lookup};
use crate::model::{Id, RawUse, Scope, Time};
use crate::record::Fold;
use crate::store::dismissal::Dismissed;
use crate::store::recent::{self, MAX_KEYS};
use crate::store::{Store, user};

#[derive(Debug, Args)]
pub(super) struct DismissArgs {
    /// Whose list
    #[arg(value_parser = |text: &str| Id::new(text), required_unless_present = "everywhere")]
    workspace: Option<Id>,
    /// The item; the whole list where it is left out
    #[arg(value_parser = |text: &str| Id::new(text))]
    published_run: Option<Id>,
    /// One user's list in the workspace
    #[arg(long, value_parser = |text: &str| Id::new(text))]
    uid: Option<Id>,
    /// From every list: a published run that was deleted
    #[arg(long, value_name = "PUBLISHED_RUN", conflicts_with_all = ["workspace", "uid"],
          value_parser = |text: &str| Id::new(text))]
    everywhere: Option<Id>,
}

#[derive(Debug, Args)]
pub(super) struct ForgetArgs {
    /// The user
    #[arg(long, value_parser = |text: &str| Id::new(text))]
    uid: Id,
}

pub(super) async fn run(config: &Config, args: &DismissArgs) -> Result<Done, Failure> {
    let store = open_existing(config).await?;
    let what = match (&args.everywhere, &args.workspace) {
        (Some(published_run), _) => Dismissed::Everywhere(published_run.clone()),
        (None, Some(workspace)) => {
            let scope = Scope {
                workspace: workspace.clone(),
                uid: args.uid.clone(),
            };
            match &args.published_run {
                Some(published_run) => Dismissed::Item(scope, published_run.clone()),
                None => Dismissed::List(scope),
            }
        }
        (None, None) => return Err(Failure::Usage("say which list".into())),
    };
    dismiss(&store, &what, Time::now(), config.max_clock_skew).await?;
    let swept = match &what {
        Dismissed::Item(..) => Ok(0),
        Dismissed::List(scope) => sweep::list(&store, scope).await,
        Dismissed::Everywhere(_) => sweep::everything(&store).await,
    };
    if let Err(error) = swept {
        eprintln!(
            "its rows are left to `recents serve` to sweep: {}",
            chain(&error)
        );
    }
    store.close().await;
    eprintln!("dismissed, until the next use");
    Ok(Done::Complete)
}

pub(super) async fn forget(config: &Config, args: &ForgetArgs) -> Result<Done, Failure> {
    // It looks through the whole table: whatever is meant for a request is too short.
    let mut patient = config.clone();
    patient.statement_timeout = config.statement_timeout.max(FORGET_TIMEOUT);
    let store = open_existing(&patient).await?;
    let forgotten = user::forget(&store, &args.uid).await?;
    eprintln!(
        "removed {} rows and {} dismissals of the user",
        thousands(forgotten.rows),
        thousands(forgotten.dismissals),
    );
    if config.history.is_some() {
        let history = connect(config).await?;
        let known = known_of(&args.uid, &store, &history).await;
        history.close().await;
        tell(&known?);
    }
    store.close().await;
    Ok(Done::Complete)
}

/// What a history still knows of a user.
#[derive(Debug, Default)]
struct Known {
    runs: u64,
    /// Items of their lists that a backfill would write.
    items: usize,
    workspaces: usize,
}

async fn known_of(uid: &Id, store: &Store, history: &History) -> Result<Known, Failure> {
    let (mut known, mut fold) = (Known::default(), Fold::default());
    let take = |raw: RawUse<'_>| {
        if let Ok(usage) = raw.check() {
            known.runs += 1;
            fold.add(&usage);
        }
    };
    history.look_up(Lookup::User(uid.as_str()), take).await?;
    let mut uses = fold.into_sorted();
    uses.retain(|(key, _)| key.parts().1 == uid.as_str());
    let mut workspaces = BTreeSet::new();
    for chunk in uses.chunks(MAX_KEYS) {
        for outdone in recent::outdone(store, chunk).await? {
            known.items += 1;
            workspaces.insert(outdone.key.parts().0.to_owned());
        }
    }
    known.workspaces = workspaces.len();
    Ok(known)
}

fn tell(known: &Known) {
    if known.runs == 0 {
        eprintln!("the history knows nothing of them");
        return;
    }
    eprintln!(
        "the history still knows {} runs of theirs: the next backfill or repair brings back {} items in \
         {} workspaces, also what they had dismissed, and a change of such a run its own; remove the \
         user there, then run this again",
        thousands(known.runs),
        thousands(known.items as u64),
        thousands(known.workspaces as u64),
    );
}

/// As long as a look-up in the history.
const FORGET_TIMEOUT: Duration = Duration::from_secs(300);
