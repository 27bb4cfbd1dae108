//! Every metric of a process, named once. Names mirror the community's exporters (`kafka_consumergroup_lag`); ours begin with `activity_`.

use std::cell::RefCell;

use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder,
    core::{Collector, Metric, MetricVec, MetricVecBuilder},
    exponential_buckets,
};

/// Labels of what is counted per partition.
pub const PARTITION_LABELS: &[&str] = &["consumergroup", "topic", "partition"];

/// What getting a partition's state back is made of; the label `phase` of [`Metrics::restore_seconds`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestorePhase {
    /// Fetching the snapshot from ClickHouse.
    SnapshotRead,
    /// Taking it over.
    Restore,
    /// Reading again what came after it.
    Replay,
    /// From the assignment of the partition to its first new message.
    Total,
}

impl RestorePhase {
    /// As the label has it.
    pub fn label(self) -> &'static str {
        match self {
            Self::SnapshotRead => "snapshot_read",
            Self::Restore => "restore",
            Self::Replay => "replay",
            Self::Total => "total",
        }
    }
}

/// Seconds, from 1 ms to about 2 min.
fn seconds_buckets() -> Vec<f64> {
    exponential_buckets(0.001, 2.0, 18).unwrap_or_default()
}

/// Rows, from 1 to about a million.
fn rows_buckets() -> Vec<f64> {
    exponential_buckets(1.0, 4.0, 11).unwrap_or_default()
}

/// What a metric is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// Its name; a histogram's series end in `_bucket`, `_sum` and `_count`.
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// The names of its labels.
    pub labels: Vec<String>,
    /// What it counts or measures, in a sentence.
    pub help: String,
}

/// What is registered while the metrics are made.
#[derive(Default)]
struct Book {
    registry: Registry,
    described: RefCell<Vec<Described>>,
}

/// The metrics of a process that runs consumer groups.
pub struct Metrics {
    registry: Registry,
    described: Vec<Described>,
    /// Messages read from Kafka, those that are read again included.
    pub events_read: IntCounterVec,
    /// Messages that a group took.
    pub events_processed: IntCounterVec,
    /// Messages that went to the dead letters, by reason.
    pub events_rejected: IntCounterVec,
    /// Messages that only rebuilt state; their outputs were discarded.
    pub events_replayed: IntCounterVec,
    /// Messages that the log no longer had when a group came to read them.
    pub events_lost: IntCounterVec,
    /// Rows inserted, by table.
    pub rows_inserted: IntCounterVec,
    /// Rows that an insert answered with success had not left, found by counting and inserted again.
    pub rows_repaired: IntCounterVec,
    /// Rows of one batch.
    pub batch_rows: HistogramVec,
    /// Duration of one insert, seconds.
    pub insert_seconds: HistogramVec,
    /// Inserts whose outcome was unknown.
    pub inserts_uncertain: IntCounterVec,
    /// Duration of one commit, seconds.
    pub commit_seconds: HistogramVec,
    /// Age of the oldest message of a batch when it became queryable, seconds.
    pub freshness_seconds: HistogramVec,
    /// Messages behind the end of the log.
    pub lag: IntGaugeVec,
    /// Age of the last message that was committed, where there is lag; milliseconds.
    pub lag_ms: IntGaugeVec,
    /// Committed offset.
    pub current_offset: IntGaugeVec,
    /// 1 where a partition is paused.
    pub paused: IntGaugeVec,
    /// 1 where the last attempt to put a batch into ClickHouse failed; it is tried again.
    pub batch_unsettled: IntGaugeVec,
    /// 1 where the group has joined, gets messages and may commit.
    pub ready: IntGaugeVec,
    /// 1 where the group takes nothing more of a topic because it rejected too much of it.
    pub reject_limit_passed: IntGaugeVec,
    /// How often the coordinator gave this member partitions or took some away.
    pub rebalances: IntCounterVec,
    /// How long it took to get a partition's state back, seconds, by [`RestorePhase`].
    pub restore_seconds: HistogramVec,
    /// Bytes of the last snapshot.
    pub snapshot_bytes: IntGaugeVec,
    /// Bytes in batches that are built or in flight.
    pub buffered_bytes: IntGaugeVec,
}

impl Metrics {
    /// Fresh metrics, all at zero, and the process's own (memory, CPU).
    ///
    /// # Errors
    /// If two metrics had the same name.
    pub fn new() -> Result<Self, prometheus::Error> {
        let r = Book::default();
        r.registry.register(Box::new(
            prometheus::process_collector::ProcessCollector::for_self(),
        ))?;
        let group = &["consumergroup"][..];
        let table = &["consumergroup", "table"][..];
        let reason = &["consumergroup", "topic", "partition", "reason"][..];
        Ok(Self {
            events_read: counter(
                &r,
                "activity_events_read_total",
                "Messages read from Kafka, those that are read again included.",
                PARTITION_LABELS,
            )?,
            events_processed: counter(
                &r,
                "activity_events_processed_total",
                "Messages that the group took.",
                PARTITION_LABELS,
            )?,
            events_rejected: counter(
                &r,
                "activity_events_rejected_total",
                "Messages that went to the dead letters.",
                reason,
            )?,
            events_replayed: counter(
                &r,
                "activity_events_replayed_total",
                "Messages that only rebuilt state.",
                PARTITION_LABELS,
            )?,
            events_lost: counter(
                &r,
                "activity_events_lost_total",
                "Messages that the log no longer had when the group came to read them.",
                PARTITION_LABELS,
            )?,
            rows_inserted: counter(
                &r,
                "activity_rows_inserted_total",
                "Rows inserted into ClickHouse.",
                table,
            )?,
            rows_repaired: counter(
                &r,
                "activity_rows_repaired_total",
                "Rows that were missing after an uncertain insert and were inserted again.",
                table,
            )?,
            batch_rows: histogram(
                &r,
                "activity_batch_rows",
                "Rows of one batch.",
                group,
                rows_buckets(),
            )?,
            insert_seconds: histogram(
                &r,
                "activity_insert_seconds",
                "Duration of one insert.",
                table,
                seconds_buckets(),
            )?,
            inserts_uncertain: counter(
                &r,
                "activity_inserts_uncertain_total",
                "Inserts whose outcome was unknown.",
                table,
            )?,
            commit_seconds: histogram(
                &r,
                "activity_commit_seconds",
                "Duration of one commit.",
                group,
                seconds_buckets(),
            )?,
            freshness_seconds: histogram(
                &r,
                "activity_freshness_seconds",
                "Age of the oldest message of a batch when it became queryable.",
                group,
                seconds_buckets(),
            )?,
            lag: gauge(
                &r,
                "kafka_consumergroup_lag",
                "Messages behind the end of the log.",
                PARTITION_LABELS,
            )?,
            lag_ms: gauge(
                &r,
                "activity_consumergroup_lag_milliseconds",
                "Age of the last committed message, where there is lag.",
                PARTITION_LABELS,
            )?,
            current_offset: gauge(
                &r,
                "kafka_consumergroup_current_offset",
                "Committed offset.",
                PARTITION_LABELS,
            )?,
            paused: gauge(
                &r,
                "activity_partition_paused",
                "1 where a partition is paused.",
                PARTITION_LABELS,
            )?,
            batch_unsettled: gauge(
                &r,
                "activity_batch_unsettled",
                "1 where the last attempt to put a batch into ClickHouse failed; it is tried again.",
                PARTITION_LABELS,
            )?,
            ready: gauge(
                &r,
                "activity_group_ready",
                "1 where the group has joined, gets messages and may commit.",
                group,
            )?,
            reject_limit_passed: gauge(
                &r,
                "activity_reject_limit_passed",
                "1 where the group takes nothing more of a topic because it rejected too much of it.",
                &["consumergroup", "topic"],
            )?,
            rebalances: counter(
                &r,
                "activity_rebalances_total",
                "How often the coordinator gave this member partitions or took some away.",
                group,
            )?,
            restore_seconds: histogram(
                &r,
                "activity_restore_seconds",
                "How long it took to get a partition's state back.",
                &["consumergroup", "topic", "phase"],
                seconds_buckets(),
            )?,
            snapshot_bytes: gauge(
                &r,
                "activity_snapshot_bytes",
                "Bytes of the last snapshot.",
                PARTITION_LABELS,
            )?,
            buffered_bytes: gauge(
                &r,
                "activity_buffered_bytes",
                "Bytes in batches that are built or in flight.",
                group,
            )?,
            registry: r.registry,
            described: r.described.into_inner(),
        })
    }

    /// A group begins, and is not ready yet. What it will count begins at zero: of a count that is there at once nobody sees that it grew.
    pub fn begin<'a>(&self, group: &str, tables: impl Iterator<Item = &'a str>) {
        self.ready.with_label_values(&[group]).set(0);
        self.rebalances.with_label_values(&[group]).inc_by(0);
        for table in tables {
            let labels = [group, table];
            self.rows_inserted.with_label_values(&labels).inc_by(0);
            self.inserts_uncertain.with_label_values(&labels).inc_by(0);
            self.rows_repaired.with_label_values(&labels).inc_by(0);
        }
    }

    /// What each of our own metrics is, in the order of their declaration.
    pub fn described(&self) -> &[Described] {
        &self.described
    }

    /// All metrics in Prometheus's text format.
    pub fn render(&self) -> Vec<u8> {
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "metrics cannot be rendered");
        }
        text
    }
}

/// Registers a collector and notes what it is.
fn registered<C: Collector + Clone + 'static>(
    book: &Book,
    kind: &'static str,
    collector: C,
) -> Result<C, prometheus::Error> {
    let described = collector.desc().into_iter().map(|desc| Described {
        name: desc.fq_name.clone(),
        kind,
        labels: desc.variable_labels.clone(),
        help: desc.help.clone(),
    });
    book.described.borrow_mut().extend(described);
    book.registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

fn counter(
    book: &Book,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<IntCounterVec, prometheus::Error> {
    registered(
        book,
        "counter",
        IntCounterVec::new(Opts::new(name, help), labels)?,
    )
}

fn gauge(
    book: &Book,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<IntGaugeVec, prometheus::Error> {
    registered(
        book,
        "gauge",
        IntGaugeVec::new(Opts::new(name, help), labels)?,
    )
}

fn histogram(
    book: &Book,
    name: &str,
    help: &str,
    labels: &[&str],
    buckets: Vec<f64>,
) -> Result<HistogramVec, prometheus::Error> {
    registered(
        book,
        "histogram",
        HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets), labels)?,
    )
}

/// A partition's series disappear when it moves to another process, so that no two processes report it.
pub fn forget_partition<B>(series: &MetricVec<B>, group: &str, topic: &str, partition: &str)
where
    B: MetricVecBuilder,
    B::M: Metric,
{
    let _ = series.remove_label_values(&[group, topic, partition]);
}
