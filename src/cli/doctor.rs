//! `recents doctor`.

use super::output::print;
use super::{Done, Failure, Json};
use crate::config::Config;
use crate::doctor::{self, Finding, Verdict};

/// The longest name of a verdict, and of a check: a line is printed as soon as it is known.
const VERDICT_WIDTH: usize = 7;
const CHECK_WIDTH: usize = 18;

pub(super) async fn run(config: &Config, args: &Json) -> Result<Done, Failure> {
    let mut printed = Ok(());
    let findings = doctor::examine(config, |finding| {
        if !args.json && printed.is_ok() {
            printed = print(lines(finding));
        }
    });
    let findings = findings.await;
    printed?;
    if args.json {
        print(serde_json::to_string_pretty(&findings)? + "\n")?;
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

fn lines(finding: &Finding) -> String {
    let (verdict, check) = (finding.verdict.name(), finding.check);
    let mut lines = format!(
        "{verdict:<VERDICT_WIDTH$}  {check:<CHECK_WIDTH$}  {}\n",
        finding.detail
    );
    if let Some(mend) = &finding.mend {
        let indent = VERDICT_WIDTH + CHECK_WIDTH + 4;
        lines += &format!("{:indent$}→ {mend}\n", "");
    }
    lines
}
