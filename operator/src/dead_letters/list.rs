//! `activity deadletters list`: how many, why, since when, and what became of those that were resubmitted.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use activity_consumers::Group;
use activity_platform::clickhouse::Database;
use activity_platform::settings::{KafkaSettings, Targets};
use activity_runtime::dead_letter::Letter;
use activity_runtime::headers::KafkaHeaders;
use activity_runtime::resubmit::{LetterSet, Resubmit};
use activity_runtime::rewinds::Rewinds;
use activity_runtime::standing::Standing;
use jiff::Timestamp;
use rdkafka::Message;
use serde::Serialize;

use super::{Committed, Topics, appended_at};
use crate::Error;
use crate::log::{self, Progress};

/// The dead letters of one group, topic and reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// The group's name.
    pub group: String,
    /// Full name of the topic that the messages were read from.
    pub topic: String,
    /// Why they were rejected.
    pub reason: String,
    /// How many.
    pub letters: u64,
    /// When the first of them was rejected.
    pub first: Timestamp,
    /// When the last of them was rejected.
    pub last: Timestamp,
    /// Key of the last of them.
    pub example: String,
    /// Of these: a rewind has read their messages again since, or was given up. They are answered, and are not resubmitted.
    pub read_again: u64,
    /// Of these: too large to be written whole. They cannot be resubmitted.
    pub cut: u64,
    /// Of these: resubmitted.
    pub resubmitted: u64,
    /// Of those resubmitted: taken by the group.
    pub processed: u64,
    /// Of those resubmitted: rejected again.
    pub rejected_again: u64,
    /// Of those resubmitted: not yet read.
    pub waiting: u64,
}

/// Dead letters of groups.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Listing {
    /// By group, topic and reason.
    pub summaries: Vec<Summary>,
    /// Messages in the topics of dead letters that are no dead letters of ours.
    pub unreadable: u64,
}

/// Counts the dead letters of groups.
///
/// # Errors
/// If Kafka or ClickHouse does not answer or a topic is missing.
pub async fn run(
    targets: &Targets,
    groups: &[&'static Group],
    progress: impl Fn(u64, u64) + Send + Sync + 'static,
) -> Result<Listing, Error> {
    let database = Database::new(&targets.clickhouse)?.patient();
    let mut of_groups = Vec::new();
    for group in groups {
        let standing = Standing::of(&database, group.name).await?;
        of_groups.push((*group, standing.finished()));
    }
    let kafka = targets.kafka.clone();
    tokio::task::spawn_blocking(move || count(&kafka, of_groups, &progress)).await?
}

fn count(
    kafka: &KafkaSettings,
    groups: Vec<(&'static Group, Rewinds)>,
    progress: Progress<'_>,
) -> Result<Listing, Error> {
    let mut listing = Listing::default();
    for (group, rewinds) in groups {
        let topics = Topics::of(group, kafka);
        // Before the letters: what is committed now has its letters below their log's end.
        let committed = Committed::of(group, kafka)?;
        let mut tally = Tally::new(group.name, &topics.resubmits, rewinds);
        log::read(kafka, &topics.letters, 0, progress, |message| {
            match Letter::parse(&KafkaHeaders(message.headers())) {
                Some(letter) => tally.letter(&letter, appended_at(message)),
                None => listing.unreadable += 1,
            }
            Ok::<_, Error>(ControlFlow::Continue(()))
        })?;
        log::read(kafka, &topics.resubmits, 0, progress, |message| {
            let offset = message.offset();
            let is_past = committed.is_past(&topics.resubmits, 0, offset);
            if let Some(resubmit) = Resubmit::at(&KafkaHeaders(message.headers()), 0) {
                tally.resubmitted(&resubmit, offset, is_past);
            }
            Ok::<_, Error>(ControlFlow::Continue(()))
        })?;
        listing.summaries.extend(tally.summaries());
    }
    Ok(listing)
}

/// Counts one group's letters, then its resubmits. Pure.
struct Tally<'a> {
    group: &'a str,
    resubmits: &'a str,
    rewinds: Rewinds,
    seen: LetterSet,
    /// Offsets in the topic of resubmits that were rejected again.
    again: LetterSet,
    resubmitted: LetterSet,
    kinds: BTreeMap<(String, String), (Summary, LetterSet)>,
}

impl<'a> Tally<'a> {
    fn new(group: &'a str, resubmits: &'a str, rewinds: Rewinds) -> Self {
        Self {
            group,
            resubmits,
            rewinds,
            seen: LetterSet::default(),
            again: LetterSet::default(),
            resubmitted: LetterSet::default(),
            kinds: BTreeMap::new(),
        }
    }

    fn letter(&mut self, letter: &Letter<'_>, rejected_at: Timestamp) {
        let (epoch, topic, partition, offset) =
            (letter.epoch, letter.topic, letter.partition, letter.offset);
        if !self.seen.insert(epoch, topic, partition, offset) {
            return;
        }
        if topic == self.resubmits {
            self.again.insert(0, topic, partition, offset);
        }
        let fresh = || Summary {
            group: self.group.to_owned(),
            topic: topic.to_owned(),
            reason: letter.reason.to_owned(),
            letters: 0,
            first: rejected_at,
            last: rejected_at,
            example: String::new(),
            read_again: 0,
            cut: 0,
            resubmitted: 0,
            processed: 0,
            rejected_again: 0,
            waiting: 0,
        };
        let (summary, letters) = self
            .kinds
            .entry((topic.to_owned(), letter.reason.to_owned()))
            .or_insert_with(|| (fresh(), LetterSet::default()));
        letters.insert(epoch, topic, partition, offset);
        summary.letters += 1;
        summary.read_again += u64::from(!self.rewinds.count(epoch, topic, partition, offset));
        summary.cut += u64::from(letter.cut.is_some());
        summary.first = summary.first.min(rejected_at);
        summary.last = summary.last.max(rejected_at);
        summary.example = letter.letter_key(self.group);
    }

    fn resubmitted(&mut self, resubmit: &Resubmit<'_>, at: i64, is_past: bool) {
        let (epoch, topic, partition, offset) = (
            resubmit.epoch,
            resubmit.topic,
            resubmit.partition,
            resubmit.offset,
        );
        if !self.resubmitted.insert(epoch, topic, partition, offset) {
            return;
        }
        let is_of = |(_, letters): &&mut (Summary, LetterSet)| {
            letters.contains(epoch, topic, partition, offset)
        };
        let Some((summary, _)) = self.kinds.values_mut().find(is_of) else {
            return;
        };
        summary.resubmitted += 1;
        if self.again.contains(0, self.resubmits, 0, at) {
            summary.rejected_again += 1;
        } else if is_past {
            summary.processed += 1;
        } else {
            summary.waiting += 1;
        }
    }

    fn summaries(self) -> impl Iterator<Item = Summary> {
        self.kinds.into_values().map(|(summary, _)| summary)
    }
}

#[cfg(test)]
mod tests {
    use activity_runtime::rewinds::Rewind;

    use super::*;

    const RESUBMITS: &str = "a.resubmits.g";

    fn letter<'a>(topic: &'a str, offset: i64, reason: &'a str) -> Letter<'a> {
        Letter {
            reason,
            error: "",
            topic,
            partition: 0,
            offset,
            appended_at_ms: 0,
            epoch: 1,
            key: None,
            cut: None,
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn resubmit(topic: &str, offset: i64) -> Resubmit<'_> {
        Resubmit {
            epoch: 1,
            topic,
            partition: 0,
            offset,
            at_ms: 0,
        }
    }

    #[test]
    fn a_letter_that_was_written_or_resubmitted_twice_counts_once() {
        let mut tally = Tally::new("g", RESUBMITS, Rewinds::new(1, []));
        for second in [5, 9] {
            tally.letter(&letter("a.t", 7, "bad"), at(second));
        }
        for offset in [0, 1] {
            tally.resubmitted(&resubmit("a.t", 7), offset, true);
        }
        let summaries: Vec<Summary> = tally.summaries().collect();
        let summary = &summaries[0];
        assert_eq!(
            (summary.letters, summary.resubmitted, summary.processed),
            (1, 1, 1)
        );
        assert_eq!((summary.first, summary.last), (at(5), at(5)));
        assert_eq!(summary.example, "g/a.t/0/7");
    }

    #[test]
    fn letters_of_messages_that_a_rewind_read_again_are_told_apart() {
        let points = [("a.t".to_owned(), 0, 5)].into_iter().collect();
        let rewinds = Rewinds::new(2, [Rewind { epoch: 2, points }]);
        let mut tally = Tally::new("g", RESUBMITS, rewinds);
        for offset in [4, 5, 6] {
            tally.letter(&letter("a.t", offset, "bad"), at(offset));
        }
        let summary = tally.summaries().next().unwrap();
        assert_eq!((summary.letters, summary.read_again), (3, 2));
    }

    #[test]
    fn each_resubmitted_letter_is_processed_or_rejected_again_or_waits() {
        let mut tally = Tally::new("g", RESUBMITS, Rewinds::new(1, []));
        for offset in 0..4 {
            tally.letter(&letter("a.t", offset, "bad"), at(offset));
        }
        tally.letter(&letter(RESUBMITS, 1, "bad"), at(9));
        for (offset, is_past) in [(0, true), (1, true), (2, false)] {
            tally.resubmitted(&resubmit("a.t", offset), offset, is_past);
        }
        tally.resubmitted(&resubmit("a.unknown", 0), 3, true);
        let summaries: Vec<Summary> = tally.summaries().collect();
        let counts = |summary: &Summary| {
            [
                summary.letters,
                summary.resubmitted,
                summary.processed,
                summary.rejected_again,
                summary.waiting,
            ]
        };
        assert_eq!(
            summaries.iter().map(counts).collect::<Vec<_>>(),
            [[1, 0, 0, 0, 0], [4, 3, 1, 1, 1]]
        );
    }
}
