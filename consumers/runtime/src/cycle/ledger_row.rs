//! What the ledger is told of a range.

use std::collections::BTreeMap;
use std::time::Instant;

use activity_schemas::Content;

use super::{Gone, Job, Sink, now_ms};
use crate::batch::{Mode, Sealed};
use crate::claim::CLAIMED_AT_UNKNOWN;
use crate::store::LedgerRow;

/// The row of a range whose rows are there, `started` being when its attempt began.
pub(super) fn ledger_row(job: &Job, sink: &Sink, started: Instant, gone: &Gone) -> LedgerRow {
    let batch = &job.batch;
    let inserted_at = now_ms();
    let mut rows: BTreeMap<&'static str, u64> =
        sink.tables.iter().map(|table| (table.name, 0)).collect();
    let built = batch
        .tables
        .iter()
        .map(|block| (block.table.name, block.rows));
    for (table, there) in built.chain(gone.rows.iter().map(|(table, there)| (*table, *there))) {
        *rows.entry(table).or_default() += there;
    }
    LedgerRow {
        consumer_group: sink.group,
        topic: job.topic.to_string(),
        partition: job.partition,
        epoch: job.epoch,
        start_offset: batch.range.start,
        end_offset: batch.range.end,
        events: batch.counts.events + gone.offsets_there,
        rejects: batch.counts.rejects,
        reasons: reasons(batch),
        lost: gone.lost,
        rows,
        derived: derived(batch, sink),
        bytes: batch.block_bytes() as u64,
        attempt: if batch.mode == Mode::First {
            job.attempt
        } else {
            job.attempt + 1
        },
        insert_ms: started.elapsed().as_millis() as u32,
        freshness_ms: if batch.counts.events > 0 {
            inserted_at - batch.appended_ms.0
        } else {
            0
        },
        lag: job.lag,
        appended_first: batch.appended_ms.0,
        appended_last: batch.appended_ms.1,
        claimed_at: claimed_at_ms(job, inserted_at),
        inserted_at,
    }
}

/// Rejected messages by reason.
fn reasons(batch: &Sealed) -> BTreeMap<&'static str, u64> {
    let mut reasons = BTreeMap::new();
    for letter in &batch.dead_letters {
        *reasons.entry(letter.reason).or_default() += 1;
    }
    reasons
}

/// When a range was claimed first, as far as is known: a claim that is gone has that of its successor.
fn claimed_at_ms(job: &Job, now_ms: i64) -> i64 {
    match job.first_claimed_at_ms {
        CLAIMED_AT_UNKNOWN => now_ms - job.claimed.elapsed().as_millis() as i64,
        known => known,
    }
}

/// Derived messages of a range, by internal topic; nothing where they are not known.
fn derived(batch: &Sealed, sink: &Sink) -> BTreeMap<String, u64> {
    let Some(counts) = batch.known_derived_counts() else {
        return BTreeMap::new();
    };
    let internal = sink
        .reads
        .iter()
        .filter(|topic| topic.content == Content::Derived);
    internal
        .map(|topic| {
            let sent = counts.get(topic.name).copied().unwrap_or_default();
            (sink.delivery.full_name(*topic), sent)
        })
        .collect()
}
