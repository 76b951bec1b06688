//! Runs of a history, and what the table must be after them.

use std::collections::BTreeMap;

use super::layout::{Layout, TimeForm};
use crate::support::uses::{Rows, T0};
use crate::support::{TestDb, Use};

/// A run; `None` is NULL.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) key: String,
    pub(crate) workspace: Option<String>,
    pub(crate) uid: Option<String>,
    pub(crate) version: Option<i64>,
    pub(crate) at: Option<At>,
}

/// When a run was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum At {
    /// A time that counts, in microseconds since 1970.
    Micros(i64),
    /// Text for the database, which is no time that counts.
    Never(&'static str),
}

impl Run {
    /// A run at `T0 + after` microseconds, by nobody.
    pub(crate) fn new(key: impl ToString, workspace: &str, version: i64, after: i64) -> Self {
        Self {
            key: key.to_string(),
            workspace: Some(workspace.into()),
            uid: None,
            version: Some(version),
            at: Some(At::Micros(T0 + after)),
        }
    }

    pub(crate) fn by(mut self, uid: &str) -> Self {
        self.uid = Some(uid.into());
        self
    }
}

/// A history: its runs, and the published runs of its versions.
#[derive(Debug, Clone)]
pub(crate) struct History {
    pub(crate) layout: Layout,
    pub(crate) runs: Vec<Run>,
    pub(crate) versions: BTreeMap<i64, Option<String>>,
}

impl History {
    /// Runs by chance, the same ones for the same seed: few workspaces, users and times, so that
    /// most runs tie or are outdone, and a NULL here and there in every column.
    pub(crate) fn random(layout: Layout, seed: u64, count: usize) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let numbers = layout.id_type == "bigint" || layout.id_type == "integer";
        let id = |name: &str, number: u8| match numbers {
            true => number.to_string(),
            false => format!("{name}{number}"),
        };
        let versions = (0..40)
            .map(|version| {
                let published_run = id("p", rng.u8(..15));
                (version, (rng.u8(..8) > 0).then_some(published_run))
            })
            .collect();
        let runs = (0..count)
            .map(|at| Run {
                key: key(&layout, at, &mut rng),
                workspace: (rng.u8(..12) > 0).then(|| id("w", rng.u8(..6))),
                uid: match rng.u8(..8) {
                    0 => None,
                    1 => Some(String::new()),
                    _ => Some(format!("u{}", rng.u8(..4))),
                },
                // Some versions were deleted.
                version: (rng.u8(..12) > 0).then(|| rng.i64(0..44)),
                at: (rng.u8(..12) > 0).then(|| At::Micros(T0 + rng.i64(0..25) * 500_000)),
            })
            .collect();
        Self {
            layout,
            runs,
            versions,
        }
    }

    /// Runs of the plain layout, each of a version of its own number; the versions are those that
    /// the runs name, with the published run `p<number>`.
    pub(crate) fn of(layout: Layout, runs: Vec<Run>) -> Self {
        let versions = runs.iter().filter_map(|run| run.version);
        let versions = versions
            .map(|version| (version, Some(format!("p{version}"))))
            .collect();
        Self {
            layout,
            runs,
            versions,
        }
    }

    /// Makes the tables with all runs.
    pub(crate) async fn create(&self, db: &TestDb) {
        let mut conn = db.connect().await;
        conn.execute(&self.layout.tables()).await;
        for versions in self.versions.iter().collect::<Vec<_>>().chunks(1_000) {
            let rows = versions.iter().map(|(id, published_run)| {
                format!("({id}, {})", literal(published_run.as_deref()))
            });
            let rows = rows.collect::<Vec<_>>().join(", ");
            conn.execute(&format!("insert into saved_run_version values {rows}"))
                .await;
        }
        for runs in self.runs.chunks(1_000) {
            conn.execute(&self.insert(runs)).await;
        }
    }

    /// The statement that inserts these runs.
    pub(crate) fn insert(&self, runs: &[Run]) -> String {
        let row = |run: &Run| {
            let number = |n: i64| n.to_string();
            format!(
                "({}, {}, {}, {}, {})",
                literal(Some(&run.key)),
                literal(run.workspace.as_deref()),
                literal(run.uid.as_deref()),
                run.version.map_or("null".into(), number),
                run.at.map_or("null".into(), |at| self.time(at)),
            )
        };
        let rows = runs.iter().map(row).collect::<Vec<_>>().join(", ");
        format!("insert into {} values {rows}", self.layout.table)
    }

    /// A time as the table's column takes it.
    pub(crate) fn time(&self, at: At) -> String {
        let micros = match at {
            At::Never(text) => return literal(Some(text)),
            At::Micros(micros) => micros,
        };
        let text = Use::new("", "", 0).at(micros).time().to_string();
        match self.layout.time_form {
            TimeForm::Micros => micros.to_string(),
            TimeForm::Rfc3339 => literal(Some(&text)),
            TimeForm::Sql => literal(Some(&text.trim_end_matches('Z').replacen('T', " ", 1))),
        }
    }

    /// The uses that the runs are. Ids are taken to be valid ones, or empty.
    pub(crate) fn uses(&self) -> Vec<Use> {
        self.runs
            .iter()
            .filter_map(|run| self.use_of(run))
            .collect()
    }

    /// The use that a run is.
    pub(crate) fn use_of(&self, run: &Run) -> Option<Use> {
        let published_run = self.versions.get(&run.version?)?.clone()?;
        let Some(At::Micros(micros)) = run.at else {
            return None;
        };
        Some(Use {
            workspace: run.workspace.clone()?,
            uid: run.uid.clone().filter(|uid| !uid.is_empty()),
            published_run,
            micros,
            run: Some(run.key.clone()),
        })
    }

    /// What the table must be.
    pub(crate) fn rows(&self) -> Rows {
        maximum(&self.uses())
    }
}

/// The greatest use of each key, by time, then by run as bytes.
pub(crate) fn maximum<'a>(uses: impl IntoIterator<Item = &'a Use>) -> Rows {
    let mut rows = Rows::new();
    for usage in uses {
        for uid in [Some(""), usage.uid.as_deref()].into_iter().flatten() {
            let key = (
                usage.workspace.clone(),
                uid.to_owned(),
                usage.published_run.clone(),
            );
            let newest = (usage.micros, usage.run.clone());
            // Text orders by bytes, and no run below every run.
            rows.entry(key)
                .and_modify(|row| *row = newest.clone().max(row.clone()))
                .or_insert(newest);
        }
    }
    rows
}

fn key(layout: &Layout, at: usize, rng: &mut fastrand::Rng) -> String {
    match layout.key_type {
        "uuid" => {
            let hex = format!("{:032x}", rng.u128(..));
            format!(
                "{}-{}-{}-{}-{}",
                &hex[..8],
                &hex[8..12],
                &hex[12..16],
                &hex[16..20],
                &hex[20..]
            )
        }
        // Orders in which languages, cases and bytes disagree.
        "text" | "varchar(200)" => {
            let letters = ["a", "B", "b", "é", "_", "Z", " z", "'", "10", "9"];
            format!(
                "{}{}-{at}",
                letters[rng.usize(..letters.len())],
                letters[rng.usize(..letters.len())]
            )
        }
        // With gaps.
        _ => (at * 3 + rng.usize(..3) + 1).to_string(),
    }
}

/// A text as SQL writes it.
pub(crate) fn literal(text: Option<&str>) -> String {
    text.map_or("null".into(), |text| {
        format!("'{}'", text.replace('\'', "''"))
    })
}
