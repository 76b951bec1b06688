//! `recents dismiss` and `recents forget`.

use std::collections::BTreeSet;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::backfill::connect;
use super::output::{chain, print, thousands};
use super::{Done, Failure, Json, open_existing};
use crate::config::Config;
use crate::dismiss::{self, dismiss, sweep};
use crate::history::{History, Lookup};
use crate::model::{Id, Key, Newest, RawUse, Scope, Time};
use crate::record::Fold;
use crate::settings::{self, ReadPath};
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
    /// The user, as the lists' addresses name them: ids are compared letter by letter
    #[arg(long, value_parser = |text: &str| Id::new(text))]
    uid: Id,
    #[command(flatten)]
    json: Json,
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
    let now = Time::now();
    let ahead = ahead(config, &store, &what, now).await?;
    dismiss(&store, &what, now, config.max_clock_skew, &ahead).await?;
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
    match &what {
        Dismissed::Everywhere(_) => eprintln!(
            "dismissed from every list, until a use after {}",
            now.saturating_add(config.max_clock_skew)
        ),
        _ => eprintln!("dismissed, until the next use"),
    }
    Ok(Done::Complete)
}

/// What only the history has of it that is dated later, where lists are read from there.
async fn ahead(
    config: &Config,
    store: &Store,
    what: &Dismissed,
    now: Time,
) -> Result<Vec<(Key, Newest)>, Failure> {
    let effective = settings::load(store, &config.settings).await?;
    if config.history.is_none() || effective.read_path == ReadPath::Materialized {
        return Ok(Vec::new());
    }
    let history = connect(config).await?;
    let ahead = dismiss::ahead(&history, what, now).await;
    history.close().await;
    ahead.map_err(Failure::from_history)
}

pub(super) async fn forget(config: &Config, args: &ForgetArgs) -> Result<Done, Failure> {
    // It looks through the whole table: whatever is meant for a request is too short.
    let mut patient = config.clone();
    patient.statement_timeout = config.statement_timeout.max(FORGET_TIMEOUT);
    let store = open_existing(&patient).await?;
    let forgotten = user::forget(&store, &args.uid).await?;
    eprintln!(
        "removed {} and {} of the user",
        counted(forgotten.rows, "row"),
        counted(forgotten.dismissals, "dismissal"),
    );
    let mut history_knows = None;
    if config.history.is_some() {
        let history = connect(config).await?;
        let known = known_of(&args.uid, &store, &history).await;
        history.close().await;
        tell(history_knows.insert(known?));
    }
    store.close().await;
    if args.json.json {
        let told = Told {
            rows: forgotten.rows,
            dismissals: forgotten.dismissals,
            history_knows,
        };
        print(serde_json::to_string(&told)? + "\n")?;
    }
    Ok(Done::Complete)
}

/// What was done, for programs.
#[derive(Debug, Serialize)]
struct Told {
    rows: u64,
    dismissals: u64,
    /// Absent without a history.
    #[serde(skip_serializing_if = "Option::is_none")]
    history_knows: Option<Known>,
}

/// What a history still knows of a user.
#[derive(Debug, Default, Serialize)]
struct Known {
    runs: u64,
    /// Items of their lists that a backfill would write.
    items: u64,
    workspaces: u64,
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
    known.workspaces = workspaces.len() as u64;
    Ok(known)
}

fn tell(known: &Known) {
    if known.runs == 0 {
        eprintln!("the history knows nothing of them");
        return;
    }
    eprintln!(
        "the history still knows {} of theirs: a service that audits, the next backfill or a repair brings \
         back {} in {}, also what they had dismissed, and a change of such a run its own; the read path \
         `history` shows them now. Remove the user there, then run this again",
        counted(known.runs, "run"),
        counted(known.items, "item"),
        counted(known.workspaces, "workspace"),
    );
}

fn counted(number: u64, of: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {of}{plural}", thousands(number))
}

/// As long as a look-up in the history.
const FORGET_TIMEOUT: Duration = Duration::from_secs(300);
