//! What keeps messages from coming although the brokers answer, as the client says while it is polled: bytes that it cannot unpack, a topic that is not there or
//! not allowed; the position stays where it is. And what keeps commits from being taken. Pure.

use std::time::{Duration, Instant};

use activity_platform::advice::{after_kafka, after_kafka_code};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

/// What was not said again for this long is over: longer than the client pauses after a fetch that failed.
const OVER_AFTER: Duration = Duration::from_secs(10);

type Said = Option<(Code, Instant)>;

/// The last troubles with reading.
#[derive(Debug, Default)]
pub(crate) struct ReadTrouble {
    /// The client says it again with each fetch.
    repeated: Said,
    /// The client says it once for each topic or partition, and does not say when it is over.
    said_once: Said,
}

impl ReadTrouble {
    /// Takes note of an error that a poll gave; gives what is worth a warning, if it is news.
    pub fn note(&mut self, error: &KafkaError, now: Instant) -> Option<String> {
        let code = error.rdkafka_error_code().filter(|code| !passes(*code))?;
        let said = if says_once(code) {
            &mut self.said_once
        } else {
            &mut self.repeated
        };
        let is_known = current(*said, now) == Some(code);
        *said = Some((code, now));
        (!is_known).then(|| no_messages(code))
    }

    /// Whether there is a trouble that must be looked for, because the client does not say it again.
    pub fn is_said_once(&self, now: Instant) -> bool {
        current(self.said_once, now).is_some()
    }

    /// A trouble that is said only once counts as said again as long as it `shows`.
    pub fn goes_on(&mut self, shows: bool, now: Instant) {
        let code = current(self.said_once, now).filter(|_| shows);
        self.said_once = code.map(|code| (code, now)).or(self.said_once);
    }

    /// Why messages do not come, and what to do; None: nothing is known to be in their way.
    pub fn why(&self, now: Instant) -> Option<String> {
        current(self.said_once, now)
            .or(current(self.repeated, now))
            .map(no_messages)
    }
}

fn no_messages(code: Code) -> String {
    format!("kafka gives no messages: {code}{}", hint(code))
}

fn current(said: Said, now: Instant) -> Option<Code> {
    let (code, at) = said?;
    (now.saturating_duration_since(at) < OVER_AFTER).then_some(code)
}

/// Whether the client says this once: with the first fetch of a partition that is refused for want of a right, and when it finds that a topic is not available.
pub(crate) fn says_once(code: Code) -> bool {
    matches!(
        code,
        Code::TopicAuthorizationFailed
            | Code::UnknownTopic
            | Code::UnknownTopicOrPartition
            | Code::UnknownPartition
    )
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
        assert!(trouble.note(&error, now).is_some());
        let later = now + Duration::from_secs(7);
        assert!(trouble.note(&error, later).is_none());
        let why = trouble.why(later + Duration::from_secs(7)).unwrap();
        assert!(why.contains("zstd"), "{why}");
        let over = later + OVER_AFTER;
        assert_eq!(trouble.why(over), None);
        assert!(trouble.note(&error, over).is_some());
    }

    #[test]
    fn a_topic_that_is_missing_says_what_to_do() {
        let (mut trouble, now) = (ReadTrouble::default(), Instant::now());
        let error = KafkaError::MessageConsumption(Code::UnknownTopicOrPartition);
        assert!(trouble.note(&error, now).is_some());
        assert!(trouble.why(now).unwrap().contains("activity setup"));
    }

    #[test]
    fn what_is_said_only_once_keeps_the_group_from_being_ready_as_long_as_it_shows() {
        let (mut trouble, now) = (ReadTrouble::default(), Instant::now());
        let error = KafkaError::MessageConsumption(Code::TopicAuthorizationFailed);
        assert!(trouble.note(&error, now).is_some());
        let after = |seconds| now + Duration::from_secs(seconds);
        for seconds in 1..60 {
            trouble.goes_on(true, after(seconds));
        }
        let later = after(60);
        assert!(trouble.is_said_once(later));
        let why = trouble.why(later).unwrap();
        assert!(why.contains("may not use this topic"), "{why}");
        // Another partition's, said meanwhile, does not take its place.
        let other = KafkaError::MessageConsumption(Code::BadCompression);
        let said = trouble.note(&other, later).unwrap();
        assert!(said.contains("zstd"), "{said}");
        assert_eq!(trouble.why(later).as_ref(), Some(&why));
        trouble.goes_on(false, later);
        assert!(!trouble.is_said_once(after(59) + OVER_AFTER));
        // What shows without having been said (a leader that moves) is none.
        trouble.goes_on(true, after(100));
        assert_eq!(trouble.why(after(100)), None);
    }

    #[test]
    fn what_passes_by_itself_is_no_trouble() {
        let (mut trouble, now) = (ReadTrouble::default(), Instant::now());
        for code in [Code::AllBrokersDown, Code::NotLeaderForPartition] {
            let error = KafkaError::MessageConsumption(code);
            assert!(trouble.note(&error, now).is_none());
        }
        assert!(trouble.note(&KafkaError::PartitionEOF(3), now).is_none());
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
