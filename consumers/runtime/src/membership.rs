//! Which partitions this process owns, as the group's coordinator sees it.
//!
//! One lock is held across {still owned, same assignment; synchronous commit}, and the revocation callback takes it and marks partitions lost before it gives
//! them up. The callback runs inside `poll`, on the thread that also commits, so that no commit can fall between a revocation and its acknowledgement.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use activity_platform::fault::{self, Point};
use activity_platform::kafka;
use rdkafka::bindings::rd_kafka_resp_err_t;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::statistics::Statistics;
use rdkafka::{Offset, TopicPartitionList};
use tokio_util::sync::CancellationToken;

use crate::claim::Claim;

/// Topic (full name) and partition.
pub type Partition = (String, i32);

/// A partition that this process owns.
struct Owned {
    assignment: u64,
    cancel: CancellationToken,
    /// What is settled but not yet said in Kafka: committed when the partition is revoked.
    settled: Option<(i64, Claim)>,
}

/// What the log of a partition looks like, from the client's statistics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogEnds {
    /// First offset that the log has; -1 unknown.
    pub first: i64,
    /// Offset that the next message will get; -1 unknown.
    pub next: i64,
}

/// In the client's statistics, the end of a log whose last fetch the broker refused. Before the first fetch it is another number.
const REFUSED_END: i64 = -1;

/// What a rebalance did.
#[derive(Debug)]
pub enum Change {
    /// The coordinator has given us our share, be it empty.
    Joined,
    /// A partition is ours now.
    Assigned {
        /// Which.
        partition: Partition,
        /// Number of this assignment, never used again.
        assignment: u64,
        /// Cancelled when it is revoked.
        cancel: CancellationToken,
    },
    /// A partition is not ours any more.
    Revoked(Partition),
}

#[derive(Default)]
struct State {
    owned: HashMap<Partition, Owned>,
    changes: Vec<Change>,
    assignments: u64,
    ends: HashMap<Partition, LogEnds>,
    /// Partitions whose last fetch the broker refused.
    refused_fetches: HashSet<Partition>,
    /// A topic was not there, or not for us, when it was asked for last.
    topic_unavailable: bool,
    /// Why the brokers did not let us in when we last heard of it.
    refused: Option<String>,
}

/// The consumer's context: rebalances, statistics, logs.
#[derive(Default)]
pub struct Membership {
    state: Mutex<State>,
}

/// One partition's part of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Which partition.
    pub partition: Partition,
    /// In which assignment.
    pub assignment: u64,
    /// S.
    pub offset: i64,
    /// What the metadata says.
    pub claim: Claim,
}

/// Why a commit did not happen.
#[derive(Debug)]
pub enum CommitError {
    /// Try again after the next poll, while the same assignment owns the partition.
    Retry(KafkaError),
    /// This member is not in the group any more: what it holds belongs to others.
    Fenced(KafkaError),
}

impl Membership {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Rebalances since the last call, in order.
    pub fn take_changes(&self) -> Vec<Change> {
        std::mem::take(&mut self.lock().changes)
    }

    /// Why the brokers do not let us in, as far as they have said; to be asked while the group is not joined.
    pub fn refused(&self) -> Option<String> {
        self.lock().refused.clone()
    }

    /// Whether something that is to be read is not to be had: a partition whose last fetch was refused, or a topic that was not available when it was asked for.
    pub fn is_unreadable(&self) -> bool {
        let state = self.lock();
        state.topic_unavailable || !state.refused_fetches.is_empty()
    }

    /// Whether one of the topics was not available when they were asked for.
    pub fn note_topics(&self, unavailable: bool) {
        self.lock().topic_unavailable = unavailable;
    }

    /// The log's ends as last known.
    pub fn log_ends(&self, partition: &Partition) -> Option<LogEnds> {
        self.lock().ends.get(partition).copied()
    }

    /// The log's ends, learned otherwise than from the client's statistics.
    pub fn note_log_ends(&self, partition: Partition, first: i64, next: i64) {
        let mut state = self.lock();
        if state.owned.contains_key(&partition) {
            state.ends.insert(partition, LogEnds { first, next });
        }
    }

    /// Remembers what is to be committed if the partition is revoked now.
    pub fn settled(&self, commit: &Commit) {
        if let Some(owned) = self.lock().owned.get_mut(&commit.partition)
            && owned.assignment == commit.assignment
        {
            owned.settled = Some((commit.offset, commit.claim));
        }
    }

    /// Commits, synchronously, what is still owned in the same assignment; returns the partitions that were committed and how long it took.
    ///
    /// # Errors
    /// [`CommitError`]; nothing is known to be committed then.
    pub fn commit(
        &self,
        consumer: &BaseConsumer<Membership>,
        commits: &[Commit],
    ) -> Result<(Vec<Partition>, Duration), CommitError> {
        let mut state = self.lock();
        let owned: Vec<&Commit> = commits
            .iter()
            .filter(|commit| {
                state
                    .owned
                    .get(&commit.partition)
                    .is_some_and(|owned| owned.assignment == commit.assignment)
            })
            .collect();
        if owned.is_empty() {
            return Ok((Vec::new(), Duration::ZERO));
        }
        let started = Instant::now();
        let list = offsets(
            owned
                .iter()
                .map(|commit| (&commit.partition, commit.offset, commit.claim)),
        )
        .map_err(CommitError::Retry)?;
        fault::reach(Point::BeforeCommit);
        let committed: Vec<Partition> = match consumer.commit(&list, CommitMode::Sync) {
            Ok(()) => owned
                .iter()
                .map(|commit| commit.partition.clone())
                .collect(),
            Err(error) => commit_one_by_one(consumer, &owned, error)?,
        };
        fault::reach(Point::AfterCommit);
        for partition in &committed {
            if let Some(owned) = state.owned.get_mut(partition) {
                owned.settled = None;
            }
        }
        Ok((committed, started.elapsed()))
    }

    fn assign(&self, list: &TopicPartitionList) {
        let mut state = self.lock();
        state.changes.push(Change::Joined);
        for element in list.elements() {
            state.assignments += 1;
            let partition = (element.topic().to_owned(), element.partition());
            let (assignment, cancel) = (state.assignments, CancellationToken::new());
            state.owned.insert(
                partition.clone(),
                Owned {
                    assignment,
                    cancel: cancel.clone(),
                    settled: None,
                },
            );
            state.changes.push(Change::Assigned {
                partition,
                assignment,
                cancel,
            });
        }
    }

    /// Marks partitions lost, stops their inserts, and says in Kafka what was settled, so that the next owner need not send it again.
    fn revoke(&self, consumer: &BaseConsumer<Membership>, list: &TopicPartitionList) {
        let mut state = self.lock();
        let mut settled = Vec::new();
        for element in list.elements() {
            let partition = (element.topic().to_owned(), element.partition());
            if let Some(owned) = state.owned.remove(&partition) {
                owned.cancel.cancel();
                settled.extend(
                    owned
                        .settled
                        .map(|(offset, claim)| (partition.clone(), offset, claim)),
                );
            }
            state.ends.remove(&partition);
            state.refused_fetches.remove(&partition);
            state.changes.push(Change::Revoked(partition));
        }
        if settled.is_empty() || consumer.assignment_lost() {
            return;
        }
        let committed = offsets(
            settled
                .iter()
                .map(|(partition, offset, claim)| (partition, *offset, *claim)),
        )
        .and_then(|list| consumer.commit(&list, CommitMode::Sync));
        if let Err(error) = committed {
            tracing::debug!(%error, "last commit before a revocation failed; the next owner finds the ranges in the ledger");
        }
    }
}

/// After a commit of many that failed: one partition that cannot be committed (its topic is gone) must not keep the others from it. The error is given back where
/// none of them can be.
fn commit_one_by_one(
    consumer: &BaseConsumer<Membership>,
    commits: &[&Commit],
    error: KafkaError,
) -> Result<Vec<Partition>, CommitError> {
    let of_one_partition = matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::OffsetMetadataTooLarge
        )
    );
    if !of_one_partition || commits.len() == 1 {
        return Err(classify(error));
    }
    let mut committed = Vec::new();
    for commit in commits {
        let list = offsets([(&commit.partition, commit.offset, commit.claim)].into_iter())
            .map_err(CommitError::Retry)?;
        match consumer.commit(&list, CommitMode::Sync).map_err(classify) {
            Ok(()) => committed.push(commit.partition.clone()),
            Err(CommitError::Retry(error)) => {
                let (topic, partition) = &commit.partition;
                tracing::debug!(%topic, partition, %error, "commit failed");
            }
            Err(fenced) => return Err(fenced),
        }
    }
    if committed.is_empty() {
        return Err(CommitError::Retry(error));
    }
    Ok(committed)
}

fn offsets<'a>(
    commits: impl Iterator<Item = (&'a Partition, i64, Claim)>,
) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    for ((topic, partition), offset, claim) in commits {
        let mut element = list.add_partition(topic, *partition);
        element.set_offset(Offset::Offset(offset))?;
        element.set_metadata(claim.to_string());
    }
    Ok(list)
}

fn classify(error: KafkaError) -> CommitError {
    use RDKafkaErrorCode as Code;
    match error.rdkafka_error_code() {
        Some(Code::UnknownMemberId | Code::FencedInstanceId | Code::Fenced | Code::Fatal) => {
            CommitError::Fenced(error)
        }
        _ => CommitError::Retry(error),
    }
}

impl ClientContext for Membership {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        kafka::log_line(level, facility, message);
    }

    fn stats(&self, statistics: Statistics) {
        let mut state = self.lock();
        for (name, topic) in statistics.topics {
            for (id, partition) in topic.partitions {
                let key = (name.clone(), id);
                if state.owned.contains_key(&key) {
                    if partition.hi_offset == REFUSED_END {
                        state.refused_fetches.insert(key.clone());
                    } else {
                        state.refused_fetches.remove(&key);
                    }
                    let known = state.ends.entry(key).or_default();
                    // Both only grow; a paused partition's statistics stand still.
                    known.first = known.first.max(partition.lo_offset);
                    known.next = known.next.max(partition.ls_offset.max(partition.hi_offset));
                }
            }
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        kafka::client_error(&error, reason);
        if let Some(refused) = kafka::refused(&error, reason) {
            self.lock().refused = Some(refused);
        }
    }
}

impl ConsumerContext for Membership {
    /// Assigned partitions begin paused: where they go on is decided from Kafka and ClickHouse outside of the callback, which must be quick.
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        err: rd_kafka_resp_err_t,
        list: &mut TopicPartitionList,
    ) {
        let result = match err {
            rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => {
                self.assign(list);
                consumer
                    .incremental_assign(list)
                    .and_then(|()| consumer.pause(list))
            }
            _ => {
                fault::reach(Point::Revoking);
                self.revoke(consumer, list);
                consumer.incremental_unassign(list)
            }
        };
        if let Err(error) = result {
            tracing::error!(%error, "rebalance failed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdkafka::statistics;

    /// What the client says of the end of the log of `topic/0`.
    fn end_of_log(hi_offset: i64) -> Statistics {
        let partition = statistics::Partition {
            hi_offset,
            ..statistics::Partition::default()
        };
        let topic = statistics::Topic {
            partitions: HashMap::from([(0, partition)]),
            ..statistics::Topic::default()
        };
        Statistics {
            topics: HashMap::from([("topic".to_owned(), topic)]),
            ..Statistics::default()
        }
    }

    #[test]
    fn a_partition_whose_fetches_are_refused_is_unreadable_until_one_is_answered_or_it_is_not_ours()
    {
        let membership = Membership::default();
        membership.stats(end_of_log(REFUSED_END));
        assert!(!membership.is_unreadable(), "not ours");
        let mut list = TopicPartitionList::new();
        list.add_partition("topic", 0);
        membership.assign(&list);
        // Before the first fetch.
        membership.stats(end_of_log(-1001));
        assert!(!membership.is_unreadable());
        membership.stats(end_of_log(REFUSED_END));
        assert!(membership.is_unreadable());
        membership.stats(end_of_log(0));
        assert!(!membership.is_unreadable());
        membership.note_topics(true);
        assert!(membership.is_unreadable());
        membership.note_topics(false);
        assert!(!membership.is_unreadable());
    }
}
