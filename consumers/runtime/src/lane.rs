//! A lane: one assigned partition, its instance of the group, the batch that is built and the batch that is under way. No I/O.

mod closing;
mod handling;
mod state;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use activity_consumers::{Answers, Group, Instance, Settings, StaleSnapshot};
use rdkafka::TopicPartitionList;
use tokio_util::sync::CancellationToken;

use crate::batch::{Building, Mode, Sealed};
use crate::claim::Range;
use crate::headers::MessageHeaders;
use crate::input::Reader;
use crate::resubmit::Feed;
use crate::rewinds::Rewinds;
use crate::settings::RuntimeSettings;
use crate::start::{Start, gap_in_state};
use crate::store::Snapshot;
use crate::told::Told;

/// What a message needs, which was not to be had, is asked for again after this long.
const STALL: Duration = Duration::from_secs(1);
/// Reason of the dead letters of messages over which the group panicked.
pub const PANICKED: &str = "panicked";
/// Longer than the longest interval of snapshots.
const LONG_AGO: Duration = Duration::from_secs(24 * 3600);

/// What a lane does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Kafka and ClickHouse are asked where it stands.
    Opening,
    /// It is to be read from an offset on, not before a point in time.
    Seeking {
        /// The offset.
        to: i64,
        /// Not before.
        not_before: Instant,
    },
    /// Messages come in.
    Running,
    /// Nothing can be done without an operator; it is opened again at a point in time.
    Stopped {
        /// When it is tried again.
        until: Instant,
    },
}

/// A message as it came from Kafka.
pub struct Message<'a> {
    /// Offset.
    pub offset: i64,
    /// Append time, milliseconds since 1970-01-01 UTC.
    pub appended_at_ms: i64,
    /// Key.
    pub key: Option<&'a [u8]>,
    /// Payload.
    pub payload: Option<&'a [u8]>,
    /// Headers.
    pub headers: &'a dyn MessageHeaders,
}

/// What became of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Handled {
    /// Processed, or rejected for this reason.
    Taken(Option<&'static str>),
    /// It only rebuilt state.
    Replayed,
    /// Its offset was handled before. A seek throws away what was fetched for another place, so that this is another log, and the lane must take its place anew.
    Repeated,
    /// Its schema must be fetched first.
    UnknownSchema(u32),
    /// The log has lost a part of the range that is being built again.
    RangeLost,
    /// The group panicked over it: its state is half changed, and the lane must be opened anew with what it is to [`avoid`](Lane::avoid).
    Panicked,
}

/// A range that was claimed by an earlier owner, or an earlier life, and must be built again exactly.
#[derive(Clone, Copy, Debug)]
struct Redo {
    end: i64,
    first_read: i64,
    first_claimed_at_ms: i64,
    mode: Mode,
}

/// Where a lane's snapshots stand.
#[derive(Debug)]
pub struct Snapshots {
    /// Slot for the next one.
    pub slot: u8,
    /// When the last one was taken.
    pub taken_at: Instant,
    /// Offset of the last one; -1: none.
    pub offset: i64,
    /// Taken, and to be written as soon as its offset is committed.
    pub pending: Option<Snapshot>,
}

/// A state that is being got back, for the metrics.
#[derive(Clone, Copy, Debug)]
pub struct Rebuilding {
    /// When the partition began to be opened.
    pub began: Instant,
    /// When its snapshot had been taken over.
    pub restored: Instant,
}

/// What a lane is a lane of.
#[derive(Clone)]
pub struct Assignment {
    /// What its messages are.
    pub feed: Feed,
    /// Full name of the topic.
    pub name: Arc<str>,
    /// Partition.
    pub partition: i32,
    /// Number of the assignment, never used again.
    pub number: u64,
    /// Cancelled when the partition is revoked.
    pub cancel: CancellationToken,
}

/// One assigned partition.
pub struct Lane {
    /// What its messages are.
    pub feed: Feed,
    /// Full name of the topic.
    pub name: Arc<str>,
    /// Partition.
    pub partition: i32,
    /// Number of the assignment.
    pub assignment: u64,
    /// Cancelled when the partition is revoked.
    pub cancel: CancellationToken,
    /// What it does.
    pub phase: Phase,
    /// Kafka was told to pause it.
    pub paused: bool,
    /// The batch that is built.
    pub building: Building,
    /// The batch that is under way.
    pub sealed: Option<Arc<Sealed>>,
    /// Attempts of [`sealed`](Self::sealed) so far.
    pub attempt: u32,
    /// The batch under way is with a cycle now.
    pub in_flight: bool,
    /// When the batch under way may be tried again.
    pub retry_at: Option<Instant>,
    /// Committed offset, as far as this process knows.
    pub committed: Option<i64>,
    /// The committed metadata claims a range that is settled meanwhile.
    pub claim_open: bool,
    /// Why the batch under way is not settled, after its first attempt.
    pub unsettled_why: Option<String>,
    /// What the lane waits for before it can take messages.
    pub waiting_for: Option<String>,
    /// Snapshots.
    pub snapshots: Snapshots,
    /// What the log had lost of the messages that the state was to be rebuilt from.
    pub state_gap: Option<Range>,
    /// What the metrics are told.
    pub told: Told,
    /// Messages over which the group panicked, with what the panic said: they are rejected unseen.
    pub poisonous: BTreeMap<i64, String>,
    /// Its state is being got back.
    pub rebuilding: Option<Rebuilding>,
    group: Group,
    group_settings: Settings,
    /// None: each message gets a fresh one.
    instance: Option<Box<dyn Instance>>,
    reader: Reader,
    next: i64,
    replay_until: i64,
    redo: Option<Redo>,
    rewinds: Arc<Rewinds>,
}

impl Lane {
    /// A lane whose place is not known yet.
    pub fn new(
        group: &Group,
        settings: &RuntimeSettings,
        rewinds: Arc<Rewinds>,
        assignment: Assignment,
    ) -> Self {
        let Assignment {
            feed,
            name,
            partition,
            number,
            cancel,
        } = assignment;
        let group_settings = settings.for_groups();
        let instance = match feed {
            Feed::Reads(topic) => Some(group.instance(&group_settings, topic)),
            Feed::Resubmits => None,
        };
        Self {
            feed,
            reader: Reader::new(feed, group.name, group.reads, &name, rewinds.clone()),
            name,
            partition,
            assignment: number,
            cancel,
            phase: Phase::Opening,
            paused: true,
            building: Building::new(group.tables, 0),
            sealed: None,
            attempt: 0,
            in_flight: false,
            retry_at: None,
            committed: None,
            claim_open: false,
            unsettled_why: None,
            waiting_for: None,
            snapshots: Snapshots {
                slot: 0,
                taken_at: Instant::now(),
                offset: -1,
                pending: None,
            },
            state_gap: None,
            told: Told::default(),
            poisonous: BTreeMap::new(),
            rebuilding: None,
            group: *group,
            group_settings,
            instance,
            next: 0,
            replay_until: 0,
            redo: None,
            rewinds,
        }
    }

    /// Takes its place: where it goes on, and with which state. Returns the offset to read from.
    ///
    /// # Errors
    /// If the snapshot is not one that this code can take over; the lane must then be placed again without it.
    pub fn place(
        &mut self,
        start: &Start,
        log_first: i64,
        snapshot: Option<&Snapshot>,
        stateful: bool,
        now: Instant,
    ) -> Result<i64, StaleSnapshot> {
        let (range_start, settled_below) = match start {
            Start::At { offset, lost, .. } => (lost.map_or(*offset, |lost| lost.start), *offset),
            Start::Redo {
                range, log_first, ..
            } => (range.start, log_first.unwrap_or(range.start)),
            Start::Stop { .. } => return Ok(0),
        };
        if let Some(snapshot) = snapshot {
            self.restore(snapshot)?;
        }
        self.state_gap = snapshot
            .and_then(|snapshot| gap_in_state(snapshot.state_offset, log_first, range_start));
        self.building.start = range_start;
        self.building.next = range_start;
        match start {
            Start::At {
                lost: Some(lost), ..
            } => {
                self.building
                    .lose(lost.end, (lost.end - lost.start) as u64, now);
                // A batch of its own, without rows: one that begins below the log's start is not sent again under its token, which then could not absorb a late insert.
                self.seal(now);
            }
            Start::Redo {
                range,
                log_first,
                claimed_at_ms,
                ..
            } => {
                let first_read = log_first.map_or(range.start, |first| first.min(range.end));
                // Rows of another state are not sent under the token of those that may be there.
                let mode = if log_first.is_some() || self.state_gap.is_some() {
                    Mode::MissingOnly
                } else {
                    Mode::Again
                };
                self.redo = Some(Redo {
                    end: range.end,
                    first_read,
                    first_claimed_at_ms: *claimed_at_ms,
                    mode,
                });
                self.claim_open = true;
            }
            _ => (),
        }
        self.replay_until = settled_below;
        self.next = match snapshot {
            Some(snapshot) => snapshot.state_offset.max(log_first),
            None if stateful => log_first.min(settled_below),
            None => settled_below,
        };
        self.snapshots.offset = snapshot.map_or(-1, |snapshot| snapshot.state_offset);
        Ok(self.next)
    }

    /// Whether its instance carries something from message to message, which snapshots keep.
    pub fn keeps_state(&self) -> bool {
        self.instance.is_some() && self.group.state_version > 0
    }

    /// What the instance answers from now on.
    pub fn answers(&self) -> Option<Arc<dyn Answers>> {
        self.instance.as_ref()?.answers()
    }

    /// Whether its place must be reached by reading what is before it: for the instance's state, or for the resubmits that were seen.
    pub fn rebuilds(&self) -> bool {
        self.keeps_state() || self.feed == Feed::Resubmits
    }

    /// Takes over the messages over which the partition's earlier instances panicked. The state behind them is stored soon, so that it is not rebuilt for long.
    pub fn avoid(&mut self, mut poisonous: BTreeMap<i64, String>, now: Instant) {
        poisonous.retain(|offset, _| *offset >= self.next);
        if !poisonous.is_empty() {
            self.snapshots.taken_at = now.checked_sub(LONG_AGO).unwrap_or(now);
        }
        self.poisonous = poisonous;
    }

    /// Whether a range of an earlier claim is still being built again.
    pub fn is_redoing(&self) -> bool {
        self.redo.is_some()
    }

    /// Whether state is still being rebuilt.
    pub fn is_replaying(&self) -> bool {
        self.next < self.replay_until
    }

    /// Offsets until the state is rebuilt.
    pub fn replay_left(&self) -> i64 {
        (self.replay_until - self.next).max(0)
    }

    /// Whether the log lost the rest of a range that is being built again: the lane must then take its place anew.
    pub fn redo_is_lost(&self, log_first: i64) -> bool {
        self.redo
            .is_some_and(|redo| log_first >= redo.end && redo.first_read < redo.end)
    }

    /// Append time of the oldest message that is not settled, milliseconds since 1970-01-01 UTC.
    pub fn oldest_unsettled_ms(&self) -> Option<i64> {
        let sealed = self.sealed.as_ref().map(|sealed| sealed.appended_ms.0);
        sealed
            .or_else(|| self.building.oldest_ms())
            .filter(|appended_at_ms| *appended_at_ms > 0)
    }

    /// The lane waits for what a message needs, and reads again; others go on.
    pub fn stall(&mut self, offset: i64, what: &str, why: String, now: Instant) {
        if self.waiting_for.is_none() {
            tracing::warn!(topic = %self.name, partition = self.partition, offset, why, "waiting for {what}");
        }
        self.waiting_for = Some(why);
        self.phase = Phase::Seeking {
            to: offset,
            not_before: now + STALL,
        };
    }

    /// What was taken of its messages but not handled is fetched again.
    pub fn give_back(&mut self, now: Instant) {
        self.phase = Phase::Seeking {
            to: self.next,
            not_before: now,
        };
    }

    /// The lane's partition, as the Kafka client wants it.
    pub fn partition_list(&self) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.name, self.partition);
        list
    }

    /// The range of the batch under way.
    pub fn sealed_range(&self) -> Option<Range> {
        self.sealed.as_ref().map(|sealed| sealed.range)
    }

    /// Memory held, roughly.
    pub fn bytes(&self) -> usize {
        self.building.bytes() + self.sealed.as_ref().map_or(0, |sealed| sealed.bytes())
    }

    /// Offset of the next message that the instance has not seen.
    pub fn next(&self) -> i64 {
        self.next
    }
}
