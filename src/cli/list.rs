//! `recents list`.

use clap::Args;

use super::output::{columns, print};
use super::{Done, Failure, Json, open_existing};
use crate::config::Config;
use crate::model::{Id, Scope};
use crate::read::page::{DEFAULT_LIMIT, MAX_LIMIT};
use crate::read::{PageRequest, pages};

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Whose list
    #[arg(value_parser = |text: &str| Id::new(text))]
    workspace: Id,
    /// One user's list in the workspace
    #[arg(long, value_parser = |text: &str| Id::new(text))]
    uid: Option<Id>,
    /// Items at the most
    #[arg(long, default_value_t = DEFAULT_LIMIT, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_LIMIT)))]
    limit: u32,
    #[command(flatten)]
    json: Json,
}

pub(super) async fn run(config: &Config, args: &ListArgs) -> Result<Done, Failure> {
    let store = open_existing(config).await?;
    let scope = Scope {
        workspace: args.workspace.clone(),
        uid: args.uid.clone(),
    };
    let request = PageRequest {
        scope,
        cursor: None,
    };
    let pages = pages(&store, vec![request], args.limit).await?;
    let items: Vec<_> = pages
        .into_iter()
        .flat_map(|page| page.recent_workflows)
        .collect();
    if args.json.json {
        print(serde_json::to_string_pretty(&items)? + "\n")?;
    } else {
        let mut rows = vec![vec![
            "published run".into(),
            "last used at".into(),
            "run".into(),
        ]];
        rows.extend(items.iter().map(|item| {
            let run = item.run.as_deref().unwrap_or("-");
            vec![
                item.published_run.to_string(),
                item.last_used_at.to_string(),
                run.into(),
            ]
        }));
        print(columns(&rows))?;
    }
    store.close().await;
    Ok(Done::Complete)
}
