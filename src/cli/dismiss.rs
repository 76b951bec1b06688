//! `recents dismiss` and `recents forget`.

use clap::Args;

use super::backfill::connect;
use super::output::thousands;
use super::{Done, Failure, open_existing};
use crate::config::Config;
use crate::dismiss::{dismiss, sweep};
use crate::history::Lookup;
use crate::model::{Id, Scope, Time};
use crate::store::dismissal::{self, Dismissed};

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
    if matches!(what, Dismissed::Everywhere(_)) {
        sweep::everything(&store).await?;
    }
    store.close().await;
    eprintln!("dismissed, until the next use");
    Ok(Done::Complete)
}

pub(super) async fn forget(config: &Config, args: &ForgetArgs) -> Result<Done, Failure> {
    let store = open_existing(config).await?;
    let runs = dismissal::runs_of_user(&store, &args.uid).await?;
    let known = match &config.history {
        None => 0,
        Some(_) => {
            let history = connect(config).await?;
            let mut known = 0_u64;
            for runs in runs.chunks(RUNS) {
                let count = |raw: crate::model::RawUse<'_>| {
                    known += u64::from(raw.uid == Some(args.uid.as_str()));
                };
                history.look_up(Lookup::Runs(runs), count).await?;
            }
            history.close().await;
            known
        }
    };
    let forgotten = dismissal::forget(&store, &args.uid).await?;
    store.close().await;
    eprintln!(
        "removed {} rows and {} dismissals of the user",
        thousands(forgotten.rows),
        thousands(forgotten.dismissals),
    );
    if known > 0 {
        eprintln!(
            "the history still knows {} of their runs: the next backfill, repair or change of these \
             runs brings them back; remove the user there, then run this again",
            thousands(known)
        );
    }
    Ok(Done::Complete)
}

/// Runs that are looked up together.
const RUNS: usize = 2_000;
