//! Metrics: Prometheus, prefix `recents_`, base units, no ids in labels, all there from the start.

use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::cache::{Reason, Via};
use crate::check::Kind;
use crate::jobs::{BACKFILL, RESYNC};
use crate::read::Reader;
use crate::settings::ReadPath;
use crate::store::{self, Store};

/// From a cached answer to the longest request that is not cut off.
const REQUEST_BUCKETS: [f64; 14] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0,
];
/// Rows of one flush: from one to the largest statement.
const ROWS_BUCKETS: [f64; 9] = [1.0, 2.0, 5.0, 10.0, 50.0, 100.0, 500.0, 1_000.0, 2_000.0];

/// Where a run was heard of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// `POST /v1/runs`.
    Hook,
    /// The drain of the notes.
    Capture,
    /// A backfill: a command of its own, which this process only lists.
    Backfill,
    /// A re-sync.
    Resync,
}

impl Source {
    fn name(self) -> &'static str {
        match self {
            Self::Hook => "hook",
            Self::Capture => "capture",
            Self::Backfill => "backfill",
            Self::Resync => "resync",
        }
    }
}

/// What becomes of a run.
const OUTCOMES: [&str; 4] = ["applied", "superseded", "skipped", "rejected"];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RunLabels {
    source: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ModeLabels {
    mode: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    kind: &'static str,
}

/// Labels of a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// The method; unknown ones are `other`.
    pub method: &'static str,
    /// The route's pattern; `unmatched` where there is none.
    pub route: String,
    /// The status code.
    pub status: u16,
}

/// Everything that is counted.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Histogram, fn() -> Histogram>,
    runs: Family<RunLabels, Counter>,
    job_rows: Family<KindLabels, Counter>,
    drift_rows: Family<KindLabels, Counter>,
    /// How long a flush took, retries included.
    pub record_flush_seconds: Histogram,
    /// Rows of a flush.
    pub record_batch_rows: Histogram,
    /// Uses that wait for the database.
    pub record_queue_depth: Gauge,
    /// How long the oldest note has waited, in seconds.
    pub capture_lag: Gauge<f64, std::sync::atomic::AtomicU64>,
    /// Notes that wait, those beside the history and those beside the table.
    pub capture_backlog_rows: Gauge,
    /// Loads of details that failed, took too long or panicked.
    pub details_failures: Counter,
    /// Statements sent for details.
    pub details_statements: Counter,
    read_path: Family<ModeLabels, Gauge>,
    /// Whether the database answered when it was last asked.
    pub database_up: Gauge,
    /// When the table was last held against the whole history, in seconds since 1970; 0 before.
    pub verify_last_success: Gauge,
    /// When a backfill last succeeded, in seconds since 1970; 0 before the first.
    pub backfill_last_success: Gauge,
}

impl Metrics {
    /// All metrics, each with every value of its labels that is known beforehand.
    pub fn new(store: &Store) -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("recents"),
            requests: Family::new_with_constructor(|| Histogram::new(REQUEST_BUCKETS)),
            runs: Family::default(),
            job_rows: Family::default(),
            drift_rows: Family::default(),
            record_flush_seconds: Histogram::new(REQUEST_BUCKETS),
            record_batch_rows: Histogram::new(ROWS_BUCKETS),
            record_queue_depth: Gauge::default(),
            capture_lag: Gauge::default(),
            capture_backlog_rows: Gauge::default(),
            details_failures: Counter::default(),
            details_statements: Counter::default(),
            read_path: Family::default(),
            database_up: Gauge::default(),
            verify_last_success: Gauge::default(),
            backfill_last_success: Gauge::default(),
        };
        for source in [
            Source::Hook,
            Source::Capture,
            Source::Backfill,
            Source::Resync,
        ] {
            for outcome in OUTCOMES {
                metrics.count_runs(source, outcome, 0);
            }
        }
        for kind in [BACKFILL, RESYNC] {
            metrics.count_job_rows(kind, 0);
        }
        for kind in Kind::ALL {
            metrics.count_drift(kind, 0);
        }
        metrics.register(store.clone());
        metrics
    }

    fn register(&mut self, store: Store) {
        let registry = &mut self.registry;
        let seconds = || Unit::Seconds;
        registry.register_with_unit(
            "http_request_duration",
            "Time from the request's header to the answer's",
            seconds(),
            self.requests.clone(),
        );
        registry.register(
            "runs",
            "Runs that this process took, by source and by what became of them; a backfill is a process of its \
             own, GET /admin/v1/jobs counts for it",
            self.runs.clone(),
        );
        registry.register(
            "job_rows",
            "Rows that jobs of this process changed, by the kind of job",
            self.job_rows.clone(),
        );
        registry.register(
            "drift_rows",
            "Rows that the audit found to differ from the history, by how",
            self.drift_rows.clone(),
        );
        registry.register_with_unit(
            "record_flush",
            "Time to write a batch of uses",
            seconds(),
            self.record_flush_seconds.clone(),
        );
        registry.register(
            "record_batch_rows",
            "Rows written together",
            self.record_batch_rows.clone(),
        );
        registry.register(
            "record_queue_depth",
            "Uses that wait for the database",
            self.record_queue_depth.clone(),
        );
        registry.register_with_unit(
            "capture_lag",
            "How long the oldest has waited, of the outbox or of the notes of the table; while they cannot be \
             counted, since when",
            seconds(),
            self.capture_lag.clone(),
        );
        registry.register(
            "capture_backlog_rows",
            "Rows of the outbox, some hundred runs each, and notes of the table that wait",
            self.capture_backlog_rows.clone(),
        );
        registry.register(
            "details_failures",
            "Loads of details that failed",
            self.details_failures.clone(),
        );
        registry.register(
            "read_path",
            "1 for where lists are read from",
            self.read_path.clone(),
        );
        registry.register(
            "database_up",
            "1 where the database answered when last asked",
            self.database_up.clone(),
        );
        registry.register_with_unit(
            "verify_last_success_timestamp",
            "When the table was last held against the whole history, 0 before",
            seconds(),
            self.verify_last_success.clone(),
        );
        registry.register_with_unit(
            "backfill_last_success_timestamp",
            "When a backfill last succeeded, 0 before the first",
            seconds(),
            self.backfill_last_success.clone(),
        );
        registry.register(
            "build",
            "The running version",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
        registry.register_collector(Box::new(DatabaseCollector {
            store,
            details_statements: self.details_statements.clone(),
        }));
    }

    /// With what is counted of reads.
    #[must_use]
    pub fn with_reader(mut self, reader: Arc<Reader>) -> Self {
        self.registry
            .register_collector(Box::new(ReadCollector(reader)));
        self
    }

    /// Counts `count` runs of `source` that ended as `outcome`.
    pub fn count_runs(&self, source: Source, outcome: &'static str, count: u64) {
        self.runs
            .get_or_create(&RunLabels {
                source: source.name(),
                outcome,
            })
            .inc_by(count);
    }

    /// Shows where lists are read from.
    pub fn set_read_path(&self, read_path: ReadPath) {
        for path in ReadPath::ALL {
            let mode = self
                .read_path
                .get_or_create(&ModeLabels { mode: path.name() });
            mode.set(i64::from(path == read_path));
        }
    }

    /// Counts `count` rows that a job of `kind` changed.
    pub fn count_job_rows(&self, kind: &'static str, count: u64) {
        self.job_rows
            .get_or_create(&KindLabels { kind })
            .inc_by(count);
    }

    /// Counts rows that the audit found to differ.
    pub fn count_drift(&self, kind: Kind, count: u64) {
        let labels = KindLabels { kind: kind.name() };
        self.drift_rows.get_or_create(&labels).inc_by(count);
    }

    /// Lets a request's series be there before the first such request.
    pub fn expect_request(&self, labels: &RequestLabels) {
        drop(self.requests.get_or_create(labels));
    }

    /// Counts a request and its time.
    pub fn observe_request(&self, labels: &RequestLabels, seconds: f64) {
        self.requests.get_or_create(labels).observe(seconds);
    }

    /// All metrics in the OpenMetrics text format.
    ///
    /// # Errors
    /// None in practice: writing to a string does not fail.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// What is counted of reads.
#[derive(Debug)]
struct ReadCollector(Arc<Reader>);

impl Collector for ReadCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let counter = ConstCounter::new(0_u64).metric_type();
        let about = "Lists that were asked for, by how they were come by";
        let mut requests = encoder.encode_descriptor("cache_requests", about, None, counter)?;
        for via in Via::ALL {
            let count = ConstCounter::new(self.0.counts.of(via));
            count.encode(requests.encode_family(&[("result", via.name())])?)?;
        }
        let about = "What was forgotten, by reason";
        let mut forgotten =
            encoder.encode_descriptor("cache_invalidations", about, None, counter)?;
        for reason in Reason::ALL {
            let count = ConstCounter::new(self.0.changes().counted(reason));
            count.encode(forgotten.encode_family(&[("reason", reason.name())])?)?;
        }
        let about = "Answers of the history that were held against the table, by what was seen";
        let mut shadowed = encoder.encode_descriptor("shadow_reads", about, None, counter)?;
        for (result, count) in self.0.shadowed.counts() {
            let count = ConstCounter::new(count);
            count.encode(shadowed.encode_family(&[("result", result)])?)?;
        }
        let (entries, bytes) = self.0.cache().size();
        for (name, about, value) in [
            ("cache_entries", "Lists that are kept", entries),
            ("cache_bytes", "Bytes that they take, about", bytes),
        ] {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, about, None, gauge.metric_type())?)?;
        }
        Ok(())
    }
}

/// What is read off where it is counted, when it is asked for.
#[derive(Debug)]
struct DatabaseCollector {
    store: Store,
    details_statements: Counter,
}

impl Collector for DatabaseCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let counter = ConstCounter::new(0_u64);
        let mut statements = encoder.encode_descriptor(
            "db_statements",
            "Statements sent to the database, by name",
            None,
            counter.metric_type(),
        )?;
        let own = store::statements().map(|statement| (statement.name, statement.executed()));
        let details = ("details", self.details_statements.get());
        for (name, executed) in own.chain([details]) {
            let labels = [("statement", name)];
            let count = ConstCounter::new(executed);
            count.encode(statements.encode_family(&labels)?)?;
        }
        let (idle, used) = self.store.connections();
        let gauge = ConstGauge::new(0_i64);
        let mut connections = encoder.encode_descriptor(
            "db_pool_connections",
            "Connections to the database, by state",
            None,
            gauge.metric_type(),
        )?;
        for (state, count) in [("idle", idle), ("used", used)] {
            let labels = [("state", state)];
            ConstGauge::new(i64::from(count)).encode(connections.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
