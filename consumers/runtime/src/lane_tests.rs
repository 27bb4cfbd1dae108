//! The delivery promise without I/O: random logs, random faults, and a model ([`World`]) of all that is outside. What decides (lanes, batches, claims, `decide`)
//! is the code itself.

mod world;

use std::collections::BTreeSet;
use std::time::Instant;

use activity_consumers::{
    ConsumerGroup, Group, Headers, Input, Output, Received, Reject, Row as _, Settings,
    StaleSnapshot, TableSpec,
};
use activity_schemas::{Partitions, Topic};
use proptest::prelude::*;

use self::world::{Fate, Step, World, hand};
use crate::batch::{Mode, TableBlock};
use crate::claim::Range;
use crate::headers::MessageHeaders;
use crate::source::{SOURCE_HEADER, Source};
use crate::start::Start;
use crate::store::Snapshot;

const EPOCH: u32 = 9;
/// Where the log begins.
const FIRST: i64 = 3;
const TOPIC: Topic = Topic::derived("sums.test", Partitions::One);
/// Where the next stage would read.
const NEXT: Topic = Topic::derived("sums.next", Partitions::One);
static GROUP: Group = Group::of::<Sums>();

activity_consumers::rows! {
    struct SumRow in "sums" { sum: u64 }
}

/// A payload that begins so makes the group panic.
const PANICS: u8 = 7;

/// A group whose every row depends on all messages before it, and goes to the next stage too. A payload that begins with 0 is rejected, after its rows were appended; one that begins with
/// [`PANICS`] panics when the state is half changed.
struct Sums(u64);

impl ConsumerGroup for Sums {
    const NAME: &'static str = "sums";
    const ABOUT: &'static str = "a running hash over payloads";
    const READS: &'static [Topic] = &[TOPIC];
    const TABLES: &'static [&'static TableSpec] = &[SumRow::TABLE];
    const STATE_VERSION: u32 = 1;

    fn new(_settings: &Settings, _topic: Topic) -> Self {
        Self(0)
    }

    fn process(&mut self, received: &Received<'_>, out: &mut Output) -> Result<(), Reject> {
        let Input::Derived(payload) = received.input else {
            unreachable!("the topic carries derived messages")
        };
        let sum = next_sum(self.0, payload);
        for sum in sums_of(sum, payload) {
            out.insert(&SumRow { sum });
            out.send(NEXT, "", &sum);
        }
        if payload[0] == PANICS {
            self.0 = sum / 2;
            panic!("begins with {PANICS}");
        }
        if payload[0] == 0 {
            return Err(Reject::new("zero", "begins with 0"));
        }
        self.0 = sum;
        Ok(())
    }

    fn snapshot(&self, into: &mut Vec<u8>) {
        into.extend_from_slice(&self.0.to_le_bytes());
    }

    fn restore(&mut self, from: &[u8]) -> Result<(), StaleSnapshot> {
        self.0 = u64::from_le_bytes(from.try_into().unwrap());
        Ok(())
    }
}

/// The running hash after one more payload.
fn next_sum(sum: u64, payload: &[u8]) -> u64 {
    payload.iter().fold(sum, |sum, byte| {
        (sum + u64::from(*byte) + 1).wrapping_mul(0x0100_0000_01b3) >> 1
    })
}

/// The one or two rows of a message.
fn sums_of(sum: u64, payload: &[u8]) -> impl Iterator<Item = u64> {
    (0..=payload.len() as u64 % 2).map(move |n| sum + n)
}

/// A message of the log, and its headers.
#[derive(Clone, Debug)]
struct Entry {
    offset: i64,
    source: Option<String>,
    payload: Vec<u8>,
}

impl Headers for Entry {
    fn get(&self, name: &str) -> Option<&[u8]> {
        let source = self.source.as_ref().filter(|_| name == SOURCE_HEADER)?;
        Some(source.as_bytes())
    }
}

impl MessageHeaders for Entry {
    fn at(&self, place: usize) -> Option<(&str, Option<&[u8]>)> {
        let source = self.source.as_ref().filter(|_| place == 0)?;
        Some((SOURCE_HEADER, Some(source.as_bytes())))
    }
}

/// (offset, n, sum)
type Row = (i64, u32, u64);

/// What must come out, computed without any code of the runtime: all rows, and the offsets of the messages that are rejected.
fn expected(log: &[Entry]) -> (Vec<Row>, BTreeSet<i64>) {
    let (mut rows, mut rejects, mut seen, mut sum) = (vec![], BTreeSet::new(), BTreeSet::new(), 0);
    for entry in log {
        let is_new = entry.source.as_ref().is_some_and(|one| seen.insert(one));
        let is_bad = [0, PANICS].contains(&entry.payload[0]);
        if entry.source.is_none() || (is_new && is_bad) {
            rejects.insert(entry.offset);
        } else if is_new {
            sum = next_sum(sum, &entry.payload);
            let sums = sums_of(sum, &entry.payload).zip(0..);
            rows.extend(sums.map(|(sum, n)| (entry.offset, n, sum)));
        }
    }
    (rows, rejects)
}

/// The rows of a Native block: a column's values follow its name and type.
fn rows_in(table: &TableBlock) -> Vec<Row> {
    let block = table.block.concat();
    let column = |header: &[u8], width: usize| {
        let is_here = |window: &[u8]| window == header;
        let at = block.windows(header.len()).position(is_here).unwrap() + header.len();
        let values = block[at..].chunks_exact(width);
        let number = |value: &[u8]| {
            value
                .iter()
                .rev()
                .fold(0, |all, byte| all << 8 | u64::from(*byte))
        };
        values
            .take(table.rows as usize)
            .map(number)
            .collect::<Vec<u64>>()
    };
    let (offsets, ns) = (column(b"_offset\x05Int64", 8), column(b"_n\x06UInt32", 4));
    let sums = column(b"sum\x06UInt64", 8);
    let places = offsets.into_iter().zip(ns).zip(sums);
    places
        .map(|((offset, n), sum)| (offset as i64, n as u32, sum))
        .collect()
}

/// A log from: how many offsets are left out before a message; None without a source, 0 a new one, else so far back; the payload.
fn log_of(messages: Vec<(i64, Option<u32>, Vec<u8>)>) -> Vec<Entry> {
    let (mut next, mut sources) = (FIRST, 0);
    let entry = |(hole, back, payload): (i64, Option<u32>, Vec<u8>)| {
        let offset = next + hole;
        next = offset + 1;
        sources += u32::from(back == Some(0));
        let source = back.map(|back| source((sources + 1).saturating_sub(back.max(1)).max(1)));
        Entry {
            offset,
            source,
            payload,
        }
    };
    messages.into_iter().map(entry).collect()
}

/// The source of a derived message by its number; later ones of a source partition are above earlier ones.
fn source(number: u32) -> String {
    let source = Source {
        epoch: 1 + number / 32,
        topic: "clicks",
        partition: (number / 8 % 2) as i32,
        offset: i64::from(number % 32 / 4),
        n: number % 4,
    };
    source.to_string()
}

/// Logs with holes, rejected messages and, if `repeats`, sources that come again.
fn logs(repeats: bool) -> impl Strategy<Value = Vec<Entry>> {
    let hole = prop_oneof![5 => Just(0_i64), 1 => 1_i64..4];
    let back = prop_oneof![8 => Just(Some(0)), 1 => Just(None), u32::from(repeats) => (1_u32..8).prop_map(Some)];
    let payload = prop::collection::vec(0_u8..8, 1..4);
    prop::collection::vec((hole, back, payload), 1..80).prop_map(log_of)
}

/// Schedules; `late`: inserts may arrive late; `expire`: the log's start may move at any time.
fn schedules(late: bool, expire: bool) -> impl Strategy<Value = Vec<Step>> {
    let insert = if late { Fate::Late } else { Fate::Failed };
    let inserts = vec![Fate::Failed, Fate::Unheard, Fate::Forgotten, insert];
    let step = steps(inserts, late, u32::from(expire), 0);
    prop::collection::vec(step, 0..160)
}

/// Schedules in which the committed offset may be deleted. A limit: an insert that then arrives late, or of which the engine has forgotten the rows, had its token
/// from a claim that nobody knows of any more.
fn schedules_with_deleted_offsets() -> impl Strategy<Value = Vec<Step>> {
    let step = steps(vec![Fate::Failed, Fate::Unheard], false, 0, 3);
    prop::collection::vec(step, 0..160)
}

/// Steps; how often the log's start moves, and offsets are deleted.
fn steps(inserts: Vec<Fate>, late: bool, expire: u32, delete: u32) -> impl Strategy<Value = Step> {
    let fates = |fates: &[Fate]| prop_oneof![2 => Just(Fate::Done), 1 => prop::sample::select(fates.to_vec())];
    let simple = || fates(&[Fate::Failed, Fate::Unheard]);
    let insert = fates(&inserts);
    let often = || prop::bool::weighted(0.8);
    let again = prop_oneof![4 => Just(0), 1 => 1_usize..9];
    prop_oneof![
        6 => (again, 0_usize..8).prop_map(|(again, messages)| Step::Deliver(again, messages)),
        6 => ((often(), often()), simple()).prop_map(|((all, snapshot), fate)| Step::Flush(all, snapshot, fate)),
        6 => (insert, simple()).prop_map(|(fate, ledger)| Step::Insert(fate, ledger)),
        4 => (0_usize..6).prop_map(Step::Send),
        4 => (0_usize..2).prop_map(Step::Snapshot),
        2 => any::<(bool, bool)>().prop_map(move |(last_commit, arrives)| Step::Lose(last_commit, late && arrives)),
        5 => Just(Step::Assign),
        2 => (0_usize..3, any::<bool>()).prop_map(|(which, ledger)| Step::Arrive(which, ledger)),
        expire => prop_oneof![0_i64..60, Just(100)].prop_map(Step::Expire),
        delete => Just(Step::DeleteOffset),
    ]
}

/// Runs a schedule; then retention takes what was not settled, up to so many percent of the rest, while nobody owns the partition; then another schedule.
fn retention_between(log: Vec<Entry>, before: &[Step], percent: i64, after: &[Step]) {
    let mut world = World::new(log);
    world.assign();
    world.flush(false, false, Fate::Done);
    world.run(before);
    world.lose(true, false);
    world.late_inserts.clear();
    let committed = world.committed.map(|(offset, _)| offset);
    let settled = committed.max(world.ledger_end()).unwrap();
    world.expire(settled, percent);
    // A limit: what is left of a range that was claimed goes under another token, which does not absorb what arrives late under the first.
    let is_claimed = world
        .committed
        .is_some_and(|(_, claim)| claim.end > settled);
    world.late_from = if is_claimed { world.log_first } else { settled };
    let gone = settled..world.log_first;
    let there = world.offsets_of(&gone);
    world.run(after);
    world.drain();
    let is_kept = |offset: &i64| !gone.contains(offset) || there.contains(offset);
    let (mut rows, mut rejects) = expected(&world.log);
    assert!(world.dead_letters.is_subset(&rejects));
    rows.retain(|row| is_kept(&row.0));
    rejects.retain(is_kept);
    assert!(world.dead_letters.is_superset(&rejects));
    // The state that a lost message made is lost with it, so that only places are compared.
    let places = |rows: &[Row]| rows.iter().map(|row| (row.0, row.1)).collect::<Vec<_>>();
    assert_eq!(places(&world.rows), places(&rows));
    let events = world
        .log
        .iter()
        .filter(|entry| is_kept(&entry.offset))
        .count() as u64;
    let lost = (gone.end - gone.start) as u64 - there.len() as u64;
    assert_eq!(
        world.tile(FIRST),
        (events, rejects.len() as u64, lost, rows.len())
    );
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    #[test]
    fn whatever_fails_the_tables_hold_what_one_uninterrupted_run_gives(log in logs(true), steps in schedules(true, false)) {
        let mut world = World::new(log);
        world.run(&steps);
        world.drain();
        let (rows, rejects) = expected(&world.log);
        prop_assert_eq!(&world.rows, &rows);
        prop_assert_eq!(&world.dead_letters, &rejects);
        prop_assert_eq!(world.tile(FIRST), (world.log.len() as u64, rejects.len() as u64, 0, rows.len()));
        prop_assert_eq!(&world.built, &world.uninterrupted());
        prop_assert_eq!(world.seen_by_the_next_stage(), rows);
    }

    #[test]
    fn whenever_offsets_are_deleted_the_tables_hold_what_one_uninterrupted_run_gives(log in logs(true), steps in schedules_with_deleted_offsets()) {
        let mut world = World::new(log);
        world.run(&steps);
        world.drain();
        let (rows, rejects) = expected(&world.log);
        prop_assert_eq!(&world.rows, &rows);
        prop_assert_eq!(&world.dead_letters, &rejects);
        prop_assert_eq!(world.tile(FIRST), (world.log.len() as u64, rejects.len() as u64, 0, rows.len()));
        prop_assert_eq!(world.seen_by_the_next_stage(), rows);
    }

    #[test]
    fn what_retention_took_while_nobody_read_is_counted_exactly_and_the_rest_is_there_once(
        log in logs(false), before in schedules(true, false), percent in 1_i64..101, after in schedules(true, false),
    ) {
        retention_between(log, &before, percent, &after);
    }

    #[test]
    fn whenever_retention_passes_nothing_is_there_twice_and_every_message_is_read_or_lost(log in logs(false), steps in schedules(false, true)) {
        let mut world = World::new(log);
        world.assign();
        world.flush(false, false, Fate::Done);
        world.run(&steps);
        // A lane that runs notices a loss with the message behind it.
        let mut last = plain_log(1);
        last[0].offset = world.log.last().unwrap().offset + 1;
        world.log.append(&mut last);
        world.drain();
        let places: BTreeSet<(i64, u32)> = world.rows.iter().map(|row| (row.0, row.1)).collect();
        prop_assert_eq!(places.len(), world.rows.len());
        world.tile(FIRST);
        for (start, range) in &world.ledger {
            let messages = (world.index(range.end) - world.index(*start)) as u64;
            let accounted = range.events + range.lost;
            prop_assert!(range.events <= messages && messages <= accounted, "{start} {range:?}");
            prop_assert!(accounted <= (range.end - start) as u64, "{start} {range:?}");
            prop_assert_eq!(range.rows, world.rows_of(&(*start..range.end)));
        }
    }
}

/// Messages without holes, all of which give rows.
fn plain_log(messages: usize) -> Vec<Entry> {
    log_of(vec![(0, Some(0), vec![1]); messages])
}

/// Found by the second property: the first batch after a loss was built again under another token, which did not absorb its late insert.
#[test]
fn the_insert_of_a_batch_behind_a_loss_may_arrive_late() {
    let claim = Step::Flush(true, false, Fate::Done);
    let is_late = Step::Insert(Fate::Late, Fate::Done);
    let (come, lose) = (Step::Deliver(0, 4), Step::Lose(false, false));
    let after = [
        Step::Assign,
        come,
        claim.clone(),
        is_late.clone(),
        claim,
        is_late,
        lose,
    ];
    retention_between(plain_log(8), &[], 25, &after);
}

/// Found by the third property: what had been settled long ago was counted as lost if the log's start passed a lane that was rebuilding its state.
#[test]
fn what_only_rebuilds_state_is_never_counted_as_lost() {
    let mut world = World::new(plain_log(10));
    world.run(&[Step::Assign, Step::Deliver(0, 5)]);
    world.run(&[
        Step::Flush(true, false, Fate::Done),
        Step::Insert(Fate::Done, Fate::Done),
    ]);
    world.run(&[Step::Lose(true, false), Step::Assign, Step::Deliver(0, 2)]);
    world.expire(FIRST, 70);
    world.drain();
    assert_eq!(world.tile(FIRST), (8, 0, 2, 16));
}

#[test]
fn a_message_over_which_the_group_panics_is_a_dead_letter_that_says_so_and_the_next_ones_are_processed()
 {
    let log = log_of([1, PANICS, 2].map(|first| (0, Some(0), vec![first])).into());
    let mut world = World::new(log);
    world.drain();
    let (rows, rejects) = expected(&world.log);
    assert_eq!((rows.len(), rejects.len()), (4, 1));
    assert_eq!((&world.rows, &world.dead_letters), (&rows, &rejects));
    let (reason, error) = &world.reasons[&(FIRST + 1)];
    assert_eq!(*reason, "panicked");
    assert!(
        error.contains("begins with 7") && error.contains("lane_tests.rs"),
        "{error}"
    );
}

#[test]
fn a_range_of_which_the_log_loses_the_rest_is_settled_without_another_message() {
    let mut world = World::new(plain_log(8));
    let claim = Step::Flush(true, false, Fate::Done);
    world.run(&[
        Step::Assign,
        Step::Deliver(0, 4),
        claim,
        Step::Lose(false, false),
    ]);
    world.run(&[Step::Assign, Step::Deliver(0, 1), Step::Expire(100)]);
    world.drain();
    assert_eq!(world.tile(FIRST), (0, 0, 8, 0));
}

#[test]
fn rows_of_a_range_whose_claim_was_deleted_before_the_ledger_knew_of_it_are_not_doubled() {
    let mut world = World::new(plain_log(8));
    world.run(&[Step::Assign, Step::Deliver(0, 4)]);
    world.run(&[
        Step::Flush(true, false, Fate::Done),
        Step::Insert(Fate::Unheard, Fate::Done),
        Step::Lose(false, false),
        Step::DeleteOffset,
    ]);
    world.drain();
    let (rows, _) = expected(&world.log);
    assert_eq!(world.rows, rows);
}

#[test]
fn a_range_that_is_built_again_from_a_state_with_a_gap_only_fills_what_is_missing() {
    let (world, now) = (World::new(plain_log(8)), Instant::now());
    let mut lane = world.lane();
    let old = Snapshot {
        state_offset: FIRST + 1,
        ..lane.snapshot("test")
    };
    let start = Start::Redo {
        range: Range {
            start: FIRST + 4,
            end: FIRST + 8,
        },
        claimed_at_ms: 7,
        log_first: None,
        notice: None,
    };
    let to = lane.place(&start, FIRST + 3, Some(&old), true, now);
    assert_eq!(to.unwrap(), FIRST + 3);
    let gap = lane.state_gap.map(|gap| (gap.start, gap.end));
    assert_eq!(gap, Some((FIRST + 1, FIRST + 3)));
    for entry in &world.log[3..] {
        hand(&mut lane, entry, FIRST + 3, now);
    }
    lane.close_redo(now);
    assert_eq!(lane.sealed.unwrap().mode, Mode::MissingOnly);
}
