//! One flush cycle: all claimed batches go into ClickHouse, side by side with that what they send must be acknowledged by Kafka; then their ranges go into the ledger
//! with one insert.
//!
//! An answer of success to a first attempt is enough. After anything else the whole batch is sent again under its token and counted; rows that an engine
//! forgot although it remembers their token are inserted under another token.

mod ledger_row;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use activity_consumers::{ORIGIN, TableSpec};
use activity_platform::clickhouse::{self, Database, Insert};
use activity_platform::fault::{self, Point};
use activity_platform::metrics::Metrics;
use activity_schemas::Topic;
use tokio_util::sync::CancellationToken;

use self::ledger_row::ledger_row;
use crate::batch::{Mode, Sealed, TableBlock};
use crate::claim::{CLAIMED_AT_UNKNOWN, Range, token};
use crate::delivery::{BatchSource, Delivery};
use crate::settings::RuntimeSettings;
use crate::store::{self, LedgerRow};

/// How often missing rows are looked for and inserted in one attempt before the partition waits for its next one.
const REPAIRS_MAX: u32 = 4;
/// An insert of somebody else under the same token may be between its log line and its rows: it gets this long before they count as missing.
const RENAME_PAUSE: Duration = Duration::from_millis(500);

/// Where a cycle's batches go.
pub struct Sink {
    /// The group's name.
    pub group: &'static str,
    /// All topics that the group reads.
    pub reads: &'static [Topic],
    /// All tables of the group.
    pub tables: &'static [&'static TableSpec],
    /// Stands behind the name of each table: empty unless the group is rewound, into tables beside the live ones.
    pub table_suffix: &'static str,
    /// ClickHouse.
    pub database: Database,
    /// Kafka.
    pub delivery: Delivery,
    /// Limits.
    pub settings: RuntimeSettings,
    /// Metrics.
    pub metrics: Arc<Metrics>,
}

impl Sink {
    /// Name of a table of the group, as this process writes it.
    fn table(&self, spec: &TableSpec) -> String {
        format!("{}{}", spec.name, self.table_suffix)
    }

    /// Names of all tables of the group, as this process writes them.
    pub(crate) fn table_names(&self) -> Vec<String> {
        self.tables.iter().map(|table| self.table(table)).collect()
    }
}

/// A claimed batch.
pub struct Job {
    /// The lane, by the number of its assignment.
    pub assignment: u64,
    /// The batch.
    pub batch: Arc<Sealed>,
    /// Full name of the topic.
    pub topic: Arc<str>,
    /// Partition.
    pub partition: i32,
    /// The group's epoch.
    pub epoch: u32,
    /// 1 for the first attempt of this process.
    pub attempt: u32,
    /// When the claim was committed.
    pub claimed: Instant,
    /// When the range was claimed first, milliseconds since 1970-01-01 UTC; or [`CLAIMED_AT_UNKNOWN`].
    pub first_claimed_at_ms: i64,
    /// Messages behind the end of the log at the claim.
    pub lag: i64,
    /// Cancelled when the partition is revoked.
    pub cancel: CancellationToken,
}

/// What became of a batch.
#[derive(Debug)]
pub enum Outcome {
    /// All of it is in ClickHouse and in the ledger.
    Settled {
        /// Age of its oldest message, milliseconds.
        freshness_ms: i64,
        /// Offsets of its range that are lost.
        lost: u64,
    },
    /// It is not known to be there: claim it again and send it again.
    Unsettled {
        /// Why.
        why: String,
    },
    /// Kafka did not take a message: the partition must begin anew.
    DeliveryFailed {
        /// Why.
        why: String,
    },
    /// The partition was revoked; the range belongs to its next owner.
    Cancelled,
}

/// Why one batch is not settled.
enum Unsettled {
    Uncertain(String),
    Delivery(String),
}

impl From<clickhouse::Error> for Unsettled {
    fn from(error: clickhouse::Error) -> Self {
        Unsettled::Uncertain(error.to_string())
    }
}

/// Milliseconds since 1970-01-01 UTC.
pub fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as i64)
}

/// Runs a cycle; gives the outcome of each job.
pub async fn run(jobs: Vec<Job>, sink: Arc<Sink>) -> Vec<(u64, Outcome)> {
    let settled =
        futures_util::future::join_all(jobs.iter().map(|job| settle_or_cancel(job, &sink))).await;
    let ledger: Vec<LedgerRow> = settled
        .iter()
        .filter_map(|result| result.as_ref().ok().cloned())
        .collect();
    let written = if ledger.is_empty() {
        Ok(())
    } else {
        fault::reach(Point::BeforeLedger);
        let written = store::write_ledger(&sink.database, &ledger).await;
        fault::reach(Point::AfterLedger);
        written
    };
    let outcomes = settled.into_iter().map(|result| match (result, &written) {
        (Ok(row), Ok(())) => {
            sink.metrics
                .freshness_seconds
                .with_label_values(&[sink.group])
                .observe(row.freshness_ms as f64 / 1000.0);
            Outcome::Settled {
                freshness_ms: row.freshness_ms,
                lost: row.lost,
            }
        }
        (Ok(_), Err(error)) => Outcome::Unsettled {
            why: format!("ledger: {error}"),
        },
        (Err(outcome), _) => outcome,
    });
    jobs.iter()
        .map(|job| job.assignment)
        .zip(outcomes)
        .collect()
}

async fn settle_or_cancel(job: &Job, sink: &Sink) -> Result<LedgerRow, Outcome> {
    tokio::select! {
        biased;
        () = job.cancel.cancelled() => Err(Outcome::Cancelled),
        settled = settle(job, sink) => settled.map_err(|unsettled| match unsettled {
            Unsettled::Uncertain(why) => Outcome::Unsettled { why },
            Unsettled::Delivery(why) => Outcome::DeliveryFailed { why },
        }),
    }
}

async fn settle(job: &Job, sink: &Sink) -> Result<LedgerRow, Unsettled> {
    let started = Instant::now();
    let source = BatchSource {
        topic: &job.topic,
        partition: job.partition,
        epoch: job.epoch,
    };
    let deliver = async {
        if !job.batch.delivered.load(Ordering::Acquire) {
            sink.delivery
                .send(&job.batch, source)
                .await
                .map_err(|error| Unsettled::Delivery(error.to_string()))?;
            job.batch.delivered.store(true, Ordering::Release);
        }
        Ok::<(), Unsettled>(())
    };
    let insert = async {
        for (at, block) in job.batch.tables.iter().enumerate() {
            if at > 0 {
                fault::reach(Point::BetweenTables);
            }
            insert_table(job, block, sink).await?;
        }
        Ok::<(), Unsettled>(())
    };
    // Both to their ends: a delivery that is dropped half way is sent again from its first message.
    let (delivered, inserted) = futures_util::join!(deliver, insert);
    delivered?;
    inserted?;
    let gone = gone(job, sink).await?;
    Ok(ledger_row(job, sink, started, &gone))
}

/// The part of a claimed range that the log no longer has: what an earlier attempt had brought in of it, and what is lost.
#[derive(Default)]
struct Gone {
    rows: BTreeMap<&'static str, u64>,
    offsets_there: u64,
    lost: u64,
}

async fn gone(job: &Job, sink: &Sink) -> Result<Gone, Unsettled> {
    let batch = &job.batch;
    let mut gone = Gone {
        lost: batch.counts.lost,
        ..Gone::default()
    };
    if batch.first_read == batch.range.start {
        return Ok(gone);
    }
    let range = Range {
        start: batch.range.start,
        end: batch.first_read,
    };
    let (database, topic, partition, epoch) =
        (&sink.database, &*job.topic, job.partition, job.epoch);
    for table in sink.tables {
        let name = sink.table(table);
        let rows = store::count_rows(database, &name, topic, partition, range, epoch).await?;
        gone.rows.insert(table.name, rows);
    }
    let tables = sink.table_names();
    gone.offsets_there =
        store::count_offsets(database, &tables, topic, partition, range, epoch).await?;
    gone.lost += ((range.end - range.start) as u64).saturating_sub(gone.offsets_there);
    Ok(gone)
}

/// Brings one table's rows in, exactly once, in the way that the batch's history asks for.
async fn insert_table(job: &Job, block: &TableBlock, sink: &Sink) -> Result<(), Unsettled> {
    let token = token(
        sink.group,
        &job.topic,
        job.partition,
        job.batch.range,
        job.epoch,
    );
    match mode(job, sink) {
        Mode::First => {
            insert_all(job, block, &token, sink).await?;
            late_answer(job, block, sink).await
        }
        Mode::Again => {
            // A look first: where all is there, the token, which may have left ClickHouse's window, is not relied on.
            if count_there(job, block, sink).await? < block.rows {
                insert_all(job, block, &token, sink).await?;
            }
            ensure_all_there(job, block, &token, sink).await
        }
        Mode::MissingOnly => {
            // Nothing is there: then the plain token is safe, and it stops an earlier owner's insert that may still be on its way.
            if count_in(job, block, job.batch.range, sink).await? == 0 {
                insert_all(job, block, &token, sink).await?;
            }
            let token = format!("{token}/from/{}", job.batch.first_read);
            ensure_all_there(job, block, &token, sink).await
        }
    }
}

/// A first insert that was answered so late after its claim that the session may have ended meanwhile: a successor may have sent the same token, and an engine that
/// was killed then may remember it without its rows. The answer is not enough; the rows are.
async fn late_answer(job: &Job, block: &TableBlock, sink: &Sink) -> Result<(), Unsettled> {
    let session = Duration::from_millis(sink.settings.session_timeout_ms.into());
    if job.claimed.elapsed() < session / 2 || count_there(job, block, sink).await? >= block.rows {
        return Ok(());
    }
    Err(Unsettled::Uncertain(format!(
        "the insert into {} was answered late, and its rows are not there",
        block.table.name
    )))
}

/// An insert begins soon after its claim, or not at all: an owner that was paused for long must look first whether it still is the owner.
fn is_fresh(job: &Job, sink: &Sink) -> Result<(), Unsettled> {
    if job.claimed.elapsed() <= Duration::from_millis(sink.settings.insert_start_ms_max) {
        return Ok(());
    }
    Err(Unsettled::Uncertain(
        "the claim is too old to begin an insert under it".to_owned(),
    ))
}

/// Rows of the batch that the table has. Only what was really read can be counted against the rows that were built from it.
async fn count_there(job: &Job, block: &TableBlock, sink: &Sink) -> Result<u64, Unsettled> {
    let range = Range {
        start: job.batch.first_read,
        end: job.batch.range.end,
    };
    count_in(job, block, range, sink).await
}

async fn count_in(
    job: &Job,
    block: &TableBlock,
    range: Range,
    sink: &Sink,
) -> Result<u64, Unsettled> {
    Ok(store::count_rows(
        &sink.database,
        &sink.table(block.table),
        &job.topic,
        job.partition,
        range,
        job.epoch,
    )
    .await?)
}

fn mode(job: &Job, sink: &Sink) -> Mode {
    let age_ms = now_ms() - job.first_claimed_at_ms;
    let is_old = age_ms > sink.settings.token_age_ms_max as i64;
    match job.batch.mode {
        Mode::First if job.attempt == 1 => Mode::First,
        Mode::MissingOnly => Mode::MissingOnly,
        _ if is_old || job.first_claimed_at_ms == CLAIMED_AT_UNKNOWN => Mode::MissingOnly,
        _ => Mode::Again,
    }
}

async fn insert_all(
    job: &Job,
    block: &TableBlock,
    token: &str,
    sink: &Sink,
) -> Result<(), Unsettled> {
    is_fresh(job, sink)?;
    let started = Instant::now();
    let labels = &[sink.group, block.table.name];
    let table = sink.table(block.table);
    let insert = insert_of(block, &table, token, sink);
    if let Err(error) = sink.database.insert(&insert).await {
        sink.metrics
            .inserts_uncertain
            .with_label_values(labels)
            .inc();
        return Err(Unsettled::Uncertain(format!(
            "insert into {}: {error}",
            block.table.name
        )));
    }
    fault::reach(Point::InsertAnswered);
    sink.metrics
        .insert_seconds
        .with_label_values(labels)
        .observe(started.elapsed().as_secs_f64());
    sink.metrics
        .rows_inserted
        .with_label_values(labels)
        .inc_by(block.rows);
    Ok(())
}

fn insert_of<'a>(block: &TableBlock, table: &'a str, token: &'a str, sink: &Sink) -> Insert<'a> {
    Insert {
        table,
        block: block.block.clone(),
        token,
        timeout: Duration::from_millis(sink.settings.insert_timeout_ms),
    }
}

/// Counts the batch's rows and inserts those that are not there.
async fn ensure_all_there(
    job: &Job,
    block: &TableBlock,
    token: &str,
    sink: &Sink,
) -> Result<(), Unsettled> {
    let (group, table, topic, partition) =
        (sink.group, block.table.name, &job.topic, job.partition);
    let (start, end, expected) = (job.batch.first_read, job.batch.range.end, block.rows);
    for repair in 2..2 + REPAIRS_MAX {
        let mut there = count_there(job, block, sink).await?;
        if there < expected && job.batch.mode != Mode::MissingOnly {
            tokio::time::sleep(RENAME_PAUSE).await;
            there = count_there(job, block, sink).await?;
        }
        if there > expected {
            tracing::error!(group, table, %topic, partition, start, end, expected, there, "more rows than events gave: run `activity verify`");
        }
        if there >= expected {
            return Ok(());
        }
        let missing = expected - there;
        tracing::info!(group, table, %topic, partition, start, end, missing, "rows are missing after an uncertain insert; inserting them");
        insert_missing(job, block, &format!("{token}/{repair}"), sink).await?;
        sink.metrics
            .rows_repaired
            .with_label_values(&[group, table])
            .inc_by(missing);
    }
    if count_there(job, block, sink).await? >= expected {
        return Ok(());
    }
    Err(Unsettled::Uncertain(format!(
        "rows of {table} are still missing after {REPAIRS_MAX} repairs"
    )))
}

/// Inserts the rows of the block whose (`_offset`, `_n`) the table does not have; the server compares.
async fn insert_missing(
    job: &Job,
    block: &TableBlock,
    token: &str,
    sink: &Sink,
) -> Result<(), Unsettled> {
    is_fresh(job, sink)?;
    let range = Range {
        start: job.batch.first_read,
        end: job.batch.range.end,
    };
    let all: Vec<(&str, &str)> = block
        .table
        .columns
        .iter()
        .map(|column| (column.name, column.sent_as))
        .chain(ORIGIN)
        .collect();
    let columns = all
        .iter()
        .map(|(name, _)| *name)
        .collect::<Vec<_>>()
        .join(", ");
    let structure = all
        .iter()
        .map(|(name, sent_as)| format!("{name} {sent_as}"))
        .collect::<Vec<_>>()
        .join(", ");
    let table = sink.table(block.table);
    let there = format!(
        "SELECT _offset, _n FROM {{database}}.{} WHERE {}",
        table,
        store::range_condition(&job.topic, job.partition, range, job.epoch)
    );
    let insert = insert_of(block, &table, token, sink);
    sink.database
        .insert_where(
            &insert,
            &columns,
            &structure,
            &format!("(_offset, _n) NOT IN ({there})"),
        )
        .await?;
    Ok(())
}
