//! A lane of resubmits: each letter counts once, in a fresh instance, as the topic that it came from first.

use std::sync::Arc;
use std::time::Instant;

use activity_consumers::{
    ConsumerGroup, Group, Input, Output, Received, Reject, Row as _, Settings, TableSpec,
};
use activity_schemas::{CLICKS, Partitions, Topic};
use clap::{Args as _, FromArgMatches as _};
use rdkafka::message::{Header, OwnedHeaders};
use tokio_util::sync::CancellationToken;

use crate::decoding::Schemas;
use crate::headers::KafkaHeaders;
use crate::lane::{Assignment, Handled, Lane, Message};
use crate::resubmit::{Feed, RESUBMIT_HEADER, Resubmit};
use crate::rewinds::{Rewind, Rewinds};
use crate::settings::RuntimeSettings;
use crate::start::Start;

const TOPIC: Topic = Topic::derived("seen.by-all", Partitions::One);
const NAME: &str = "p.resubmits.seen";
static GROUP: Group = Group::of::<Seen>();

activity_consumers::rows! {
    struct SeenRow in "seen" { before: u64, labels: u64 }
}

/// Says how many messages its instance has seen before.
struct Seen(u64);

impl ConsumerGroup for Seen {
    const NAME: &'static str = "seen";
    const ABOUT: &'static str = "how many came before";
    const READS: &'static [Topic] = &[TOPIC, CLICKS];
    const TABLES: &'static [&'static TableSpec] = &[SeenRow::TABLE];
    const STATE_VERSION: u32 = 1;

    fn new(_settings: &Settings, _topic: Topic) -> Self {
        Self(0)
    }

    fn process(&mut self, received: &Received<'_>, out: &mut Output) -> Result<(), Reject> {
        assert_eq!(received.topic, TOPIC);
        let Input::Derived(payload) = received.input else {
            unreachable!("the topic carries derived messages")
        };
        let labels = u64::from(received.headers.get("label").is_some());
        out.insert(&SeenRow {
            before: self.0,
            labels,
        });
        self.0 += 1;
        match payload {
            b"bad" => Err(Reject::new("bad", "still bad")),
            b"panic" => panic!("still panics"),
            _ => Ok(()),
        }
    }
}

fn lane(first: i64, at: i64) -> Lane {
    rewound_lane(first, at, Rewinds::new(1, []))
}

fn rewound_lane(first: i64, at: i64, rewinds: Rewinds) -> Lane {
    let command = RuntimeSettings::augment_args(clap::Command::new("").no_binary_name(true));
    let matches = command.get_matches_from([""; 0]);
    let settings = RuntimeSettings::from_arg_matches(&matches).unwrap();
    let at_resubmits = Assignment {
        feed: Feed::Resubmits,
        name: NAME.into(),
        partition: 0,
        number: 1,
        cancel: CancellationToken::new(),
    };
    let mut lane = Lane::new(&GROUP, &settings, Arc::new(rewinds), at_resubmits);
    let start = Start::At {
        offset: at,
        lost: None,
        notice: None,
    };
    let reads_from = lane.place(&start, first, None, lane.rebuilds(), Instant::now());
    assert_eq!(reads_from, Ok(first));
    lane
}

/// Hands over what was resubmitted of these topics and offsets.
fn hand(lane: &mut Lane, offset: i64, chain: &[(&str, i64)], payload: &[u8]) -> Handled {
    let resubmits = chain.iter().map(|(topic, offset)| {
        let resubmit = Resubmit {
            epoch: 1,
            topic,
            partition: 0,
            offset: *offset,
            at_ms: 5,
        };
        (RESUBMIT_HEADER, resubmit.to_string())
    });
    let headers = resubmits.chain([("label", "1".to_owned())]).fold(
        OwnedHeaders::new(),
        |headers, (key, value)| {
            headers.insert(Header {
                key,
                value: Some(&value),
            })
        },
    );
    let message = Message {
        offset,
        appended_at_ms: 7,
        key: Some(b"k"),
        payload: Some(payload),
        headers: &KafkaHeaders(Some(&headers)),
    };
    lane.handle(&message, &Schemas::new(), 0, Instant::now())
}

const READ: &str = "p.seen.by-all";

#[test]
fn each_letter_counts_once_however_often_it_was_sent_and_sees_no_state() {
    let mut lane = lane(0, 0);
    for (offset, source) in [4, 5, 4, 6, 5].into_iter().enumerate() {
        let handled = hand(&mut lane, offset as i64, &[(READ, source)], b"good");
        assert_eq!(handled, Handled::Taken(None));
    }
    lane.seal(Instant::now());
    let batch = lane.sealed.unwrap();
    assert_eq!((batch.counts.events, batch.tables[0].rows), (5, 3));
    let block = batch.tables[0].block.concat();
    let at = block
        .windows(6)
        .position(|window| window == b"UInt64")
        .unwrap()
        + 6;
    assert_eq!(
        block[at..at + 24],
        [0; 24],
        "each was the first of its instance"
    );
}

#[test]
fn what_was_read_again_by_a_rewind_counts_there_and_not_as_a_resubmit() {
    let points = [(READ.to_owned(), 0, 10), (NAME.to_owned(), 0, 0)];
    let rewind = Rewind {
        epoch: 2,
        points: points.into_iter().collect(),
    };
    let mut lane = rewound_lane(0, 0, Rewinds::new(2, [rewind]));
    let again = [(NAME, 1), (READ, 4)];
    for (offset, chain) in [&[(READ, 9)][..], &[(READ, 10)], &again].iter().enumerate() {
        let handled = hand(&mut lane, offset as i64, chain, b"good");
        assert_eq!(handled, Handled::Taken(None));
    }
    lane.seal(Instant::now());
    let batch = lane.sealed.unwrap();
    assert_eq!((batch.counts.events, batch.tables[0].rows), (3, 1));
}

#[test]
fn what_was_seen_before_a_restart_is_known_after_it() {
    let mut lane = lane(0, 2);
    assert_eq!(hand(&mut lane, 0, &[(READ, 4)], b"good"), Handled::Replayed);
    assert_eq!(hand(&mut lane, 1, &[(READ, 5)], b"bad"), Handled::Replayed);
    for (offset, source) in [(2, 5), (3, 4), (4, 6)] {
        assert_eq!(
            hand(&mut lane, offset, &[(READ, source)], b"good"),
            Handled::Taken(None)
        );
    }
    lane.seal(Instant::now());
    assert_eq!(lane.sealed.unwrap().tables[0].rows, 1);
}

#[test]
fn what_is_rejected_again_keeps_its_headers_and_can_be_resubmitted_again() {
    let mut lane = lane(0, 0);
    assert_eq!(
        hand(&mut lane, 0, &[(READ, 4)], b"bad"),
        Handled::Taken(Some("bad"))
    );
    let chain = [(NAME, 0), (READ, 4)];
    assert_eq!(hand(&mut lane, 1, &chain, b"good"), Handled::Taken(None));
    assert_eq!(
        hand(&mut lane, 2, &[(READ, 9)], b"panic"),
        Handled::Taken(Some("panicked"))
    );
    assert_eq!(
        hand(&mut lane, 3, &[("p.other", 9)], b"good"),
        Handled::Taken(Some("no_source"))
    );
    assert_eq!(
        hand(&mut lane, 4, &[], b"good"),
        Handled::Taken(Some("no_source"))
    );
    lane.seal(Instant::now());
    let batch = lane.sealed.unwrap();
    assert_eq!(batch.tables[0].rows, 1);
    let letter = &batch.dead_letters[0];
    assert_eq!(letter.key.as_deref(), Some(&b"k"[..]));
    let names: Vec<&str> = letter
        .headers
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(names, [RESUBMIT_HEADER, "label"]);
}
