//! `recents doctor`.

use super::output::{columns, print};
use super::{Done, Failure, Json};
use crate::config::Config;
use crate::doctor::{self, Finding, Verdict};

pub(super) async fn run(config: &Config, args: &Json) -> Result<Done, Failure> {
    let findings = doctor::examine(config).await;
    match args.json {
        true => print(serde_json::to_string_pretty(&findings)? + "\n")?,
        false => print(lines(&findings))?,
    }
    let failures = findings
        .iter()
        .filter(|finding| finding.verdict == Verdict::Failure);
    match failures.count() {
        0 => Ok(Done::Complete),
        1 => Err(Failure::failed("something does not work; see above")),
        count => Err(Failure::failed(format!(
            "{count} things do not work; see above"
        ))),
    }
}

fn lines(findings: &[Finding]) -> String {
    let mut rows = Vec::new();
    for finding in findings {
        let verdict = finding.verdict.name().to_owned();
        rows.push(vec![verdict, finding.check.into(), finding.detail.clone()]);
        if let Some(mend) = &finding.mend {
            rows.push(vec![String::new(), String::new(), format!("→ {mend}")]);
        }
    }
    columns(&rows)
}
