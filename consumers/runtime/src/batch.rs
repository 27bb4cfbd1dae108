//! Batches: what is built from messages, and what is sealed to be claimed and inserted. Pure.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use activity_consumers::{Derived, Origin, Output, TableSpec};
use bytes::Bytes;

use crate::claim::Range;
use crate::outstanding::Outstanding;

/// A message that a group does not take, with all that is needed to put it through again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Offset in the batch's partition.
    pub offset: i64,
    /// When the broker appended it, milliseconds since 1970-01-01 UTC.
    pub appended_at_ms: i64,
    /// One word of few.
    pub reason: &'static str,
    /// What exactly is wrong.
    pub error: String,
    /// The message's key.
    pub key: Option<Vec<u8>>,
    /// The message's bytes, or the beginning of more than can be written.
    pub payload: Option<Vec<u8>>,
    /// How many bytes the message had.
    pub payload_bytes: usize,
    /// The message's headers.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl DeadLetter {
    fn bytes(&self) -> usize {
        let headers = self
            .headers
            .iter()
            .map(|(name, value)| name.len() + value.as_ref().map_or(0, Vec::len))
            .sum::<usize>();
        self.key.as_ref().map_or(0, Vec::len)
            + self.payload.as_ref().map_or(0, Vec::len)
            + self.error.len()
            + headers
            + 128
    }
}

/// How a sealed batch is brought into ClickHouse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It was never sent: an answer of success is enough.
    First,
    /// It may have been sent: send all of it again under its token, then count.
    Again,
    /// Its token is not to be relied on (too old, or a part of the range is gone from the log): insert what is not there.
    MissingOnly,
}

/// Counts of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages read.
    pub events: u64,
    /// Of these, dead letters.
    pub rejects: u64,
    /// Offsets that the log no longer had.
    pub lost: u64,
}

/// How many messages a batch has for the next stage, by the internal topic's short name.
pub type DerivedCounts = BTreeMap<&'static str, u64>;

/// The batch that is being built.
pub struct Building {
    /// Rows and derived messages so far.
    pub output: Output,
    /// S.
    pub start: i64,
    /// Offset after the last message taken.
    pub next: i64,
    /// Counts so far.
    pub counts: Counts,
    /// Of those that the client has taken.
    derived_counts: DerivedCounts,
    outstanding: Arc<Outstanding>,
    dead_letters: Vec<DeadLetter>,
    dead_letter_bytes: usize,
    appended_first_ms: i64,
    appended_last_ms: i64,
    opened_at: Option<Instant>,
}

/// The rows of one table.
#[derive(Clone, Debug)]
pub struct TableBlock {
    /// The table.
    pub table: &'static TableSpec,
    /// Rows.
    pub rows: u64,
    /// One Native block, in pieces.
    pub block: Arc<[Bytes]>,
}

/// A closed batch: its range and bytes are decided and never change.
#[derive(Debug)]
pub struct Sealed {
    /// [S, E).
    pub range: Range,
    /// First offset that was really read: above S where the log had lost the rest.
    pub first_read: i64,
    /// Tables with at least one row.
    pub tables: Vec<TableBlock>,
    /// Messages for the next stage that Kafka's client did not take before the batch was closed.
    pub derived: Vec<Derived>,
    /// How many there are with those that it took.
    pub derived_counts: DerivedCounts,
    /// Messages that the client has, and how they fare.
    pub outstanding: Arc<Outstanding>,
    /// Messages that were not taken.
    pub dead_letters: Vec<DeadLetter>,
    /// Counts.
    pub counts: Counts,
    /// Append time of the first message, and the latest of all, milliseconds since 1970-01-01 UTC; 0 where there is none.
    pub appended_ms: (i64, i64),
    /// How it is brought into ClickHouse at its first attempt by this process.
    pub mode: Mode,
    /// When the range was claimed first, milliseconds since 1970-01-01 UTC, or [`CLAIMED_AT_UNKNOWN`](crate::claim::CLAIMED_AT_UNKNOWN); unset: not yet.
    pub first_claimed_at_ms: OnceLock<i64>,
    /// Derived messages and dead letters are acknowledged.
    pub delivered: AtomicBool,
}

impl Sealed {
    /// Bytes of all blocks.
    pub fn block_bytes(&self) -> usize {
        let pieces = self.tables.iter().flat_map(|table| table.block.iter());
        pieces.map(Bytes::len).sum()
    }

    /// How many messages the range has for the next stage. None where the log had lost a part of it: an earlier owner may have read that and sent what it gives.
    pub fn known_derived_counts(&self) -> Option<&DerivedCounts> {
        let is_whole = self.first_read == self.range.start && self.counts.lost == 0;
        is_whole.then_some(&self.derived_counts)
    }

    /// Memory held, roughly.
    pub fn bytes(&self) -> usize {
        self.block_bytes()
            + self
                .dead_letters
                .iter()
                .map(DeadLetter::bytes)
                .sum::<usize>()
            + self.derived.iter().map(Derived::bytes).sum::<usize>()
    }
}

impl Building {
    /// An empty batch that begins at `start`.
    pub fn new(tables: &[&'static TableSpec], start: i64) -> Self {
        Self {
            output: Output::new(tables),
            start,
            next: start,
            counts: Counts::default(),
            derived_counts: DerivedCounts::new(),
            outstanding: Arc::default(),
            dead_letters: Vec::new(),
            dead_letter_bytes: 0,
            appended_first_ms: 0,
            appended_last_ms: 0,
            opened_at: None,
        }
    }

    /// A message at `offset` belongs to this batch; `now` decides its age. Processed or rejected is said afterwards.
    pub fn count(&mut self, offset: i64, appended_at_ms: i64, now: Instant) {
        if self.counts.events == 0 {
            self.appended_first_ms = appended_at_ms;
            self.opened_at = Some(now);
        }
        // Not the last message's: append times may run backwards (a broker's clock was set, or the producers say them).
        self.appended_last_ms = self.appended_last_ms.max(appended_at_ms);
        self.counts.events += 1;
        self.next = offset + 1;
    }

    /// The message that was counted last is not taken.
    pub fn reject(&mut self, dead_letter: DeadLetter) {
        self.output.take_back_event();
        self.counts.rejects += 1;
        self.dead_letter_bytes += dead_letter.bytes();
        self.dead_letters.push(dead_letter);
    }

    /// Drains what there is for the next stage, in order, until `take` says no: it is to send the message, and to note it as outstanding. After a failure nothing
    /// goes out any more, since what comes behind a hole would be all that the next stage sees.
    pub fn drain_derived(&mut self, mut take: impl FnMut(&Derived, &Arc<Outstanding>) -> bool) {
        let (counts, outstanding) = (&mut self.derived_counts, &self.outstanding);
        self.output.drain_derived(|derived| {
            let taken = !outstanding.has_failed() && take(derived, outstanding);
            if taken {
                *counts.entry(derived.topic.name).or_default() += 1;
            }
            taken
        });
    }

    /// Offsets up to `next` were not in the log any more.
    pub fn lose(&mut self, next: i64, lost: u64, now: Instant) {
        self.counts.lost += lost;
        self.next = next;
        self.opened_at.get_or_insert(now);
    }

    /// Whether the batch moves the offset at all.
    pub fn is_empty(&self) -> bool {
        self.next == self.start
    }

    /// Rows and dead letters: what the limit on rows counts.
    pub fn rows(&self) -> usize {
        self.output.rows() + self.dead_letters.len()
    }

    /// Memory held, roughly.
    pub fn bytes(&self) -> usize {
        self.output.bytes() + self.dead_letter_bytes
    }

    /// Append time of the first message, milliseconds since 1970-01-01 UTC.
    pub fn oldest_ms(&self) -> Option<i64> {
        (self.counts.events > 0).then_some(self.appended_first_ms)
    }

    /// Age of the oldest message taken.
    pub fn age(&self, now: Instant) -> Duration {
        self.opened_at.map_or(Duration::ZERO, |opened| {
            now.saturating_duration_since(opened)
        })
    }

    /// Closes the batch at `end` and begins the next one there.
    pub fn seal(
        &mut self,
        end: i64,
        topic: &str,
        partition: i32,
        epoch: u32,
        mode: Mode,
    ) -> Sealed {
        let (rows, derived) = self.output.take();
        let mut derived_counts = std::mem::take(&mut self.derived_counts);
        for derived in &derived {
            *derived_counts.entry(derived.topic.name).or_default() += 1;
        }
        let origin = Origin {
            topic,
            partition,
            epoch,
        };
        let tables = rows
            .into_iter()
            .filter(|rows| !rows.is_empty())
            .map(|rows| TableBlock {
                table: rows.table(),
                rows: rows.len() as u64,
                block: rows
                    .into_native_block(&origin)
                    .into_iter()
                    .map(Bytes::from)
                    .collect(),
            })
            .collect();
        let sealed = Sealed {
            range: Range {
                start: self.start,
                end,
            },
            first_read: self.start,
            tables,
            derived,
            derived_counts,
            outstanding: std::mem::take(&mut self.outstanding),
            dead_letters: std::mem::take(&mut self.dead_letters),
            counts: std::mem::take(&mut self.counts),
            appended_ms: (self.appended_first_ms, self.appended_last_ms),
            mode,
            first_claimed_at_ms: OnceLock::new(),
            delivered: AtomicBool::new(false),
        };
        self.start = end;
        self.next = end;
        self.dead_letter_bytes = 0;
        self.opened_at = None;
        self.appended_first_ms = 0;
        self.appended_last_ms = 0;
        sealed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_append_time_is_not_the_last_messages_where_times_run_backwards() {
        let (mut building, now) = (Building::new(&[], 0), Instant::now());
        for (offset, appended_at_ms) in [(0, 10), (1, 30), (2, 20)] {
            building.count(offset, appended_at_ms, now);
        }
        let sealed = building.seal(3, "topic", 0, 1, Mode::First);
        assert_eq!(sealed.appended_ms, (10, 30));
        building.count(3, 5, now);
        let sealed = building.seal(4, "topic", 0, 1, Mode::First);
        assert_eq!(sealed.appended_ms, (5, 5));
    }
}
