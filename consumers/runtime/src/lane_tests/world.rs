//! The model: Kafka, ClickHouse and the owners of one partition. What does I/O (the loop, cycles, the store) is mirrored here in its shortest form; "as …" names
//! the code that a function mirrors.

mod clickhouse;
mod next_stage;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clap::{Args as _, FromArgMatches as _};
use tokio_util::sync::CancellationToken;

use self::clickhouse::token_of;
use self::next_stage::message_of;
use super::{EPOCH, Entry, FIRST, GROUP, PANICS, Row, TOPIC};
use crate::batch::Sealed;
use crate::claim::{Claim, Range};
use crate::decoding::Schemas;
use crate::flush::{claim, empty_claim, is_claimable, is_idle_unsaid};
use crate::lane::{Assignment, Handled, Lane, Message, Phase};
use crate::membership::Commit;
use crate::resubmit::Feed;
use crate::rewinds::{Points, Rewind, Rewinds};
use crate::settings::RuntimeSettings;
use crate::start::{Start, Witnesses, decide, over_rows, unvouched_from};
use crate::store::Snapshot;

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Fate {
    Done,
    /// It is not carried out.
    Failed,
    /// It is carried out, its answer is lost.
    Unheard,
    /// An insert that is carried out some time later; its owner hears nothing.
    Late,
    /// An insert of which the engine remembers the token but not the rows; its owner hears nothing.
    Forgotten,
}

#[derive(Clone, Debug)]
pub(super) enum Step {
    /// The consumer's position goes back by so many messages, then so many come.
    Deliver(usize, usize),
    /// The Kafka client takes so many messages for the next stage.
    Send(usize),
    /// What is there, or only what is full, is sealed; perhaps there is a snapshot; the claim, or that nothing is in flight, is committed.
    Flush(bool, bool, Fate),
    /// The claimed batch is inserted, then written to the ledger.
    Insert(Fate, Fate),
    /// A snapshot that is on its way is stored.
    Snapshot(usize),
    /// The owner is revoked, with or without a last commit, or crashes; an insert may still be on its way.
    Lose(bool, bool),
    /// There is a new owner.
    Assign,
    /// An insert that is on its way arrives; its owner may still write the ledger.
    Arrive(usize, bool),
    /// Retention takes so many percent of what the log has.
    Expire(i64),
    /// Somebody deletes the committed offset, which Kafka only does where nobody owns the partition.
    DeleteOffset,
}

/// A row of the ledger.
#[derive(Debug, PartialEq)]
pub(super) struct Settled {
    pub(super) end: i64,
    pub(super) events: u64,
    rejects: u64,
    pub(super) lost: u64,
    pub(super) rows: usize,
    /// Messages for the next stage; None: not known.
    pub(super) derived: Option<u64>,
}

/// The process that owns the partition.
struct Owner {
    lane: Lane,
    /// Index of the message that comes next.
    at: usize,
    /// What is committed if the partition is revoked now.
    settled: Option<Commit>,
}

/// Kafka, ClickHouse, what is on its way to them, and the owner of one partition.
pub(super) struct World {
    settings: RuntimeSettings,
    now: Instant,
    pub(super) log: Vec<Entry>,
    pub(super) log_first: i64,
    pub(super) committed: Option<(i64, Claim)>,
    pub(super) rows: Vec<Row>,
    tokens: BTreeSet<String>,
    /// The block that was built for each token.
    pub(super) built: BTreeMap<String, Vec<u8>>,
    pub(super) ledger: BTreeMap<i64, Settled>,
    pub(super) dead_letters: BTreeSet<i64>,
    /// Why: reason and error.
    pub(super) reasons: BTreeMap<i64, (&'static str, String)>,
    snapshots: [Option<Snapshot>; 2],
    late_snapshots: Vec<(u8, Snapshot)>,
    /// What came to the next stage's topic, repetitions included.
    sent: Vec<Row>,
    pub(super) late_inserts: Vec<Arc<Sealed>>,
    /// Inserts of ranges from here on may arrive late.
    pub(super) late_from: i64,
    owner: Option<Owner>,
}

impl World {
    pub(super) fn new(log: Vec<Entry>) -> Self {
        let command = RuntimeSettings::augment_args(clap::Command::new("").no_binary_name(true));
        let matches = command.get_matches_from([""; 0]);
        let mut settings = RuntimeSettings::from_arg_matches(&matches).unwrap();
        (settings.batch_rows_max, settings.batch_bytes_max) = (6, usize::MAX);
        Self {
            settings,
            now: Instant::now(),
            log,
            log_first: FIRST,
            committed: None,
            rows: Vec::new(),
            tokens: BTreeSet::new(),
            built: BTreeMap::new(),
            ledger: BTreeMap::new(),
            dead_letters: BTreeSet::new(),
            reasons: BTreeMap::new(),
            snapshots: [None, None],
            late_snapshots: Vec::new(),
            sent: Vec::new(),
            late_inserts: Vec::new(),
            late_from: FIRST,
            owner: None,
        }
    }

    pub(super) fn run(&mut self, steps: &[Step]) {
        for step in steps {
            match *step {
                Step::Deliver(again, messages) => self.deliver(again, messages),
                Step::Send(room) => self.send(room),
                Step::Flush(all, snapshot, fate) => self.flush(all, snapshot, fate),
                Step::Insert(fate, ledger) => self.insert(fate, ledger),
                Step::Snapshot(which) => self.store_snapshot(which),
                Step::Lose(last_commit, late) => self.lose(last_commit, late),
                Step::Assign => self.assign(),
                Step::Arrive(which, ledger) => self.arrive(which, ledger),
                Step::Expire(percent) => self.expire(self.log_first, percent),
                Step::DeleteOffset => self.delete_offset(),
            }
        }
    }

    /// Goes on without faults until all is settled and said; then what was on its way arrives.
    pub(super) fn drain(&mut self) {
        let end = self.log_next();
        let is_done = |(offset, claim): (i64, Claim)| offset == end && claim.end == end;
        // Once for each message that panics, and some more.
        for _ in 0..10 + self.log.len() {
            self.assign();
            self.deliver(0, self.log.len());
            self.flush(true, true, Fate::Done);
            self.insert(Fate::Done, Fate::Done);
        }
        assert!(self.committed.is_some_and(is_done), "{:?}", self.committed);
        while !self.late_inserts.is_empty() {
            self.arrive(0, true);
        }
        self.rows.sort_unstable();
    }

    fn log_next(&self) -> i64 {
        self.log.last().unwrap().offset + 1
    }

    /// Index of the first message at or above an offset.
    pub(super) fn index(&self, offset: i64) -> usize {
        self.log.partition_point(|entry| entry.offset < offset)
    }

    pub(super) fn ledger_end(&self) -> Option<i64> {
        self.ledger.values().map(|range| range.end).max()
    }

    /// Retention takes so many percent of what the log has above `from`.
    pub(super) fn expire(&mut self, from: i64, percent: i64) {
        self.log_first = from + (self.log_next() - from) * percent / 100;
    }

    fn delete_offset(&mut self) {
        if self.owner.is_none() {
            self.committed = None;
        }
    }

    /// As `open.rs` and `places.rs`; but for deleted offsets the model gives no cause to tell an operator anything.
    pub(super) fn assign(&mut self) {
        if self.owner.is_some() {
            return;
        }
        let witnesses = Witnesses {
            committed: self.committed.map(|(offset, claim)| (offset, Some(claim))),
            ledger_end: self.ledger_end(),
            log_first: self.log_first,
            log_next: self.log_next(),
        };
        let mut start = decide(&witnesses, EPOCH);
        if let Some(from) = unvouched_from(&start, witnesses.committed, EPOCH)
            && let Some(last) = self.offsets_of(&(from..i64::MAX)).last()
        {
            let log = Range {
                start: self.log_first,
                end: self.log_next(),
            };
            start = over_rows(start, *last, log);
        }
        let (offset, notice) = match &start {
            Start::At { offset, notice, .. } => (*offset, notice),
            Start::Redo { range, notice, .. } => (range.start, notice),
            Start::Stop { why } => panic!("{why}"),
        };
        assert!(
            notice.is_none() || self.committed.is_none(),
            "{witnesses:?} {notice:?}"
        );
        let found = self.snapshots.iter().zip(0..);
        let (snapshot, slot) = found
            .filter(|(found, _)| {
                found
                    .as_ref()
                    .is_some_and(|found| found.state_offset <= offset)
            })
            .max_by_key(|(found, _)| found.as_ref().map(|found| found.state_offset))
            .map_or((None, 1), |(found, slot)| (found.as_ref(), slot));
        let mut lane = self.lane();
        let to = lane
            .place(&start, self.log_first, snapshot, true, self.now)
            .unwrap();
        lane.snapshots.slot = 1 - slot;
        lane.phase = Phase::Running;
        let (at, settled) = (self.index(to), None);
        self.owner = Some(Owner { lane, at, settled });
    }

    /// A lane that has no place yet.
    pub(super) fn lane(&self) -> Lane {
        let (feed, name, cancel) = (
            Feed::Reads(TOPIC),
            TOPIC.name.into(),
            CancellationToken::new(),
        );
        let (partition, number) = (0, 1);
        let at = Assignment {
            feed,
            name,
            partition,
            number,
            cancel,
        };
        // Messages of earlier epochs count as long as nothing was read again.
        let raised = (2..=EPOCH).map(|epoch| Rewind {
            epoch,
            points: Points::default(),
        });
        let rewinds = Arc::new(Rewinds::new(EPOCH, raised));
        Lane::new(&GROUP, &self.settings, rewinds, at)
    }

    /// As `Driver::receive` and `Driver::tend_redos`.
    fn deliver(&mut self, again: usize, messages: usize) {
        let first = self.index(self.log_first);
        let Some(Owner { lane, at, .. }) = &mut self.owner else {
            return;
        };
        *at = at.saturating_sub(again).max(first);
        let coming = &self.log[*at..self.log.len().min(*at + messages)];
        *at += coming.len();
        let begins_anew = |entry| {
            let handled = hand(lane, entry, self.log_first, self.now);
            let anew = [Handled::Repeated, Handled::RangeLost, Handled::Panicked];
            anew.contains(&handled)
        };
        let is_over = coming.iter().any(begins_anew);
        if !is_over {
            lane.close_redo(self.now);
        }
        if is_over || lane.redo_is_lost(self.log_first) {
            let poisonous = std::mem::take(&mut lane.poisonous);
            self.owner = None;
            self.assign();
            if let Some(owner) = &mut self.owner {
                owner.lane.avoid(poisonous, self.now);
            }
        }
    }

    /// As `Driver::start_cycle`.
    pub(super) fn flush(&mut self, all: bool, snapshot: bool, fate: Fate) {
        let Some(owner) = self.owner.as_mut().filter(|owner| !owner.lane.in_flight) else {
            return;
        };
        let lane = &mut owner.lane;
        let age = if all { Duration::ZERO } else { Duration::MAX };
        if lane.is_due(&self.settings, age, false, self.now) {
            lane.seal(self.now);
            if snapshot && lane.snapshots.pending.is_none() {
                lane.snapshots.pending = Some(lane.snapshot("test"));
            }
        }
        let claims = is_claimable(lane, self.now);
        let idle = is_idle_unsaid(lane).then(|| empty_claim(lane, EPOCH));
        let commit = if claims { claim(lane, EPOCH) } else { idle };
        let Some(commit) = commit.filter(|_| fate != Fate::Failed) else {
            return;
        };
        say(&mut self.committed, &commit);
        if fate == Fate::Unheard {
            return;
        }
        owner.settled = None;
        lane.committed = Some(commit.offset);
        lane.claim_open = commit.claim.end > commit.offset;
        let is_said = |snapshot: &mut Snapshot| snapshot.state_offset <= commit.offset;
        if let Some(snapshot) = lane.snapshots.pending.take_if(is_said) {
            self.late_snapshots.push((lane.snapshots.slot, snapshot));
            lane.snapshots.slot = 1 - lane.snapshots.slot;
        }
        if let Some(batch) = lane.sealed.clone().filter(|_| claims) {
            lane.attempt += 1;
            lane.in_flight = true;
            self.note_built(&batch);
        }
    }

    /// As `cycle::run` and `Driver::finish_cycle`.
    fn insert(&mut self, fate: Fate, ledger: Fate) {
        let in_flight = self.owner.as_mut().filter(|owner| owner.lane.in_flight);
        let Some(Owner { lane, .. }) = in_flight else {
            return;
        };
        lane.in_flight = false;
        let (batch, attempt) = (lane.sealed.clone().unwrap(), lane.attempt);
        let claimed = self
            .committed
            .map(|(start, Claim { end, .. })| Range { start, end });
        assert_eq!(claimed, Some(batch.range), "inserted without a claim");
        self.deliver_messages(&batch);
        let mut tables = batch.tables.iter();
        if !tables.all(|table| self.insert_table(&batch, table, attempt, fate))
            || ledger == Fate::Failed
        {
            return;
        }
        self.write_ledger(&batch);
        if let Some(owner) = self.owner.as_mut().filter(|_| ledger == Fate::Done) {
            owner.lane.sealed = None;
            owner.lane.claim_open = true;
            owner.lane.attempt = 0;
            owner.settled = Some(empty_claim(&owner.lane, EPOCH));
        }
    }

    /// As `Delivery::send`.
    fn deliver_messages(&mut self, batch: &Sealed) {
        if !batch.delivered.swap(true, Ordering::AcqRel) {
            self.sent.extend(batch.derived.iter().map(message_of));
        }
        for letter in &batch.dead_letters {
            self.dead_letters.insert(letter.offset);
            let why = (letter.reason, letter.error.clone());
            self.reasons.insert(letter.offset, why);
        }
    }

    pub(super) fn lose(&mut self, last_commit: bool, late: bool) {
        let Some(Owner { lane, settled, .. }) = self.owner.take() else {
            return;
        };
        if let Some(commit) = settled.filter(|_| last_commit) {
            say(&mut self.committed, &commit);
        }
        if let Some(batch) = lane.sealed.filter(|_| late && lane.in_flight) {
            self.keep_late(&batch);
        }
    }

    /// The ledger's ranges lie end to end from an offset to the log's end, and their messages for the next stage are there. Gives the sums of events, rejects, lost offsets and rows.
    pub(super) fn tile(&self, first: i64) -> (u64, u64, u64, usize) {
        self.count_derived();
        let (mut end, mut sums) = (first, (0, 0, 0, 0));
        for (start, range) in &self.ledger {
            assert_eq!(*start, end, "{:#?}", self.ledger);
            end = range.end;
            sums.0 += range.events;
            sums.1 += range.rejects;
            sums.2 += range.lost;
            sums.3 += range.rows;
        }
        assert_eq!(end, self.log_next());
        sums
    }

    /// The blocks that one lane builds of the log, without any fault, if it closes its batches where the ledger's ranges end.
    pub(super) fn uninterrupted(&self) -> BTreeMap<String, Vec<u8>> {
        let (mut lane, mut built) = (self.lane(), BTreeMap::new());
        let (offset, lost, notice) = (FIRST, None, None);
        let start = Start::At {
            offset,
            lost,
            notice,
        };
        lane.place(&start, FIRST, None, true, self.now).unwrap();
        let poisonous = self.log.iter().filter(|entry| entry.payload[0] == PANICS);
        let why = String::new;
        lane.avoid(
            poisonous.map(|entry| (entry.offset, why())).collect(),
            self.now,
        );
        for (start, Settled { end, .. }) in &self.ledger {
            for entry in &self.log[self.index(*start)..self.index(*end)] {
                hand(&mut lane, entry, FIRST, self.now);
            }
            lane.seal(self.now);
            let batch = lane.sealed.take().unwrap();
            built.extend(
                batch
                    .tables
                    .iter()
                    .map(|table| (token_of(&batch), table.block.concat())),
            );
        }
        built
    }
}

/// Kafka takes a commit; its offset never goes back.
fn say(committed: &mut Option<(i64, Claim)>, commit: &Commit) {
    let before = committed.replace((commit.offset, commit.claim));
    assert!(
        before.is_none_or(|(offset, _)| offset <= commit.offset),
        "{before:?} {commit:?}"
    );
}

/// Hands one message of the log to a lane.
pub(super) fn hand(lane: &mut Lane, entry: &Entry, log_first: i64, now: Instant) -> Handled {
    let message = Message {
        offset: entry.offset,
        appended_at_ms: entry.offset * 10,
        key: None,
        payload: Some(&entry.payload),
        headers: entry,
    };
    let log_first = if entry.offset > lane.next() {
        log_first
    } else {
        0
    };
    lane.handle(&message, &Schemas::new(), log_first, now)
}
