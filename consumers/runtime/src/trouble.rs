//! What keeps messages from coming although the brokers answer, as the client says while it is polled: bytes that it cannot unpack, a topic that is not there or
//! not allowed. It says so again with each fetch, and the position stays where it is. And what keeps commits from being taken. Pure.

use std::time::{Duration, Instant};

use activity_platform::advice::{after_kafka, after_kafka_code};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

/// What was not said again for this long is over: longer than the client pauses after a fetch that failed, or between two looks at a topic's metadata.
const OVER_AFTER: Duration = Duration::from_secs(10);

/// The last trouble with reading.
#[derive(Debug, Default)]
pub(crate) struct ReadTrouble(Option<(Code, Instant)>);

impl ReadTrouble {
    /// Takes note of an error that a poll gave. True: it is news, and worth a warning.
    pub fn note(&mut self, error: &KafkaError, now: Instant) -> bool {
        let Some(code) = error.rdkafka_error_code().filter(|code| !passes(*code)) else {
            return false;
        };
        let is_known = self.current(now) == Some(code);
        self.0 = Some((code, now));
        !is_known
    }

    /// Why messages do not come, and what to do; None: nothing is known to be in their way.
    pub fn why(&self, now: Instant) -> Option<String> {
        self.current(now)
            .map(|code| format!("kafka gives no messages: {code}{}", hint(code)))
    }

    fn current(&self, now: Instant) -> Option<Code> {
        let (code, said) = self.0?;
        (now.saturating_duration_since(said) < OVER_AFTER).then_some(code)
    }
}

/// Commits that fail for this long are worth saying.
const COMMITS_FAIL_FOR: Duration = Duration::from_secs(10);

/// Commits that fail, one after the other.
#[derive(Debug, Default)]
pub(crate) struct CommitTrouble(Option<(Instant, String)>);

impl CommitTrouble {
    /// Takes note of a commit that failed. True: the one before did not.
    pub fn note(&mut self, error: &KafkaError, now: Instant) -> bool {
        let is_news = self.0.is_none();
        let since = self.0.as_ref().map_or(now, |(since, _)| *since);
        self.0 = Some((since, format!("{error}{}", after_kafka(error))));
        is_news
    }

    /// One was taken, or there is nothing to commit any more: what could not be committed is not ours now.
    pub fn over(&mut self) {
        self.0 = None;
    }

    /// Whether the last one failed.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Why the group is not ready; None: it is, or it is too early to say.
    pub fn why(&self, now: Instant) -> Option<String> {
        let (since, error) = self.0.as_ref()?;
        let is_long = now.saturating_duration_since(*since) > COMMITS_FAIL_FOR;
        is_long.then(|| format!("kafka takes no commit: {error}"))
    }
}

/// What comes and goes with brokers, leaders, coordinators and rebalances, and is told elsewhere if it stays.
fn passes(code: Code) -> bool {
    matches!(
        code,
        Code::PartitionEOF
            | Code::AllBrokersDown
            | Code::BrokerTransportFailure
            | Code::Resolve
            | Code::OperationTimedOut
            | Code::TimedOutQueue
            | Code::RequestTimedOut
            | Code::PollExceeded
            | Code::WaitingForCoordinator
            | Code::CoordinatorLoadInProgress
            | Code::CoordinatorNotAvailable
            | Code::NotCoordinator
            | Code::LeaderNotAvailable
            | Code::NotLeaderForPartition
            | Code::ReplicaNotAvailable
            | Code::BrokerNotAvailable
            | Code::NetworkException
            | Code::NotEnoughReplicas
            | Code::NotEnoughReplicasAfterAppend
            | Code::OffsetNotAvailable
            | Code::FencedLeaderEpoch
            | Code::UnknownLeaderEpoch
            | Code::RebalanceInProgress
            | Code::IllegalGeneration
            | Code::UnknownMemberId
            | Code::AssignmentLost
    )
}

/// Of two codes nobody but a reader of messages has to know what to do.
fn hint(code: Code) -> String {
    match code {
        Code::NotImplemented | Code::BadCompression => {
            "; a batch is packed in a way that this build does not know: have its producer use gzip, snappy, lz4 or zstd".to_owned()
        }
        code => after_kafka_code(code),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_that_cannot_be_unpacked_is_said_once_and_keeps_the_group_from_being_ready_until_it_is_over()
     {
        let (mut trouble, now) = (ReadTrouble::default(), Instant::now());
        let error = KafkaError::MessageConsumption(Code::NotImplemented);
        assert_eq!(trouble.why(now), None);
        assert!(trouble.note(&error, now));
        let later = now + Duration::from_secs(7);
        assert!(!trouble.note(&error, later));
        let why = trouble.why(later + Duration::from_secs(7)).unwrap();
        assert!(why.contains("zstd"), "{why}");
        let over = later + OVER_AFTER;
        assert_eq!(trouble.why(over), None);
        assert!(trouble.note(&error, over));
    }

    #[test]
    fn a_topic_that_is_missing_says_what_to_do() {
        let (mut trouble, now) = (ReadTrouble::default(), Instant::now());
        let error = KafkaError::MessageConsumption(Code::UnknownTopicOrPartition);
        assert!(trouble.note(&error, now));
        assert!(trouble.why(now).unwrap().contains("activity setup"));
    }

    #[test]
    fn what_passes_by_itself_is_no_trouble() {
        let (mut trouble, now) = (ReadTrouble::default(), Instant::now());
        for code in [Code::AllBrokersDown, Code::NotLeaderForPartition] {
            assert!(!trouble.note(&KafkaError::MessageConsumption(code), now));
        }
        assert!(!trouble.note(&KafkaError::PartitionEOF(3), now));
        assert_eq!(trouble.why(now), None);
    }

    #[test]
    fn commits_that_fail_for_long_say_why_and_what_to_do_until_one_is_taken_or_none_is_due() {
        let (mut trouble, now) = (CommitTrouble::default(), Instant::now());
        let early = KafkaError::ConsumerCommit(Code::NotCoordinator);
        let late = KafkaError::ConsumerCommit(Code::GroupAuthorizationFailed);
        assert!(trouble.note(&early, now));
        assert_eq!(trouble.why(now + COMMITS_FAIL_FOR), None);
        let later = now + COMMITS_FAIL_FOR + Duration::from_secs(1);
        assert!(!trouble.note(&late, later));
        let why = trouble.why(later).unwrap();
        assert!(
            why.contains("takes no commit") && why.contains("--group-prefix"),
            "{why}"
        );
        trouble.over();
        assert!(!trouble.is_on());
        assert!(trouble.note(&early, later));
        assert_eq!(trouble.why(later), None);
    }
}
