//! Ranges of the ledger with fewer messages than offsets: a message that was passed over, or offsets that never held one. The log can tell as long as it has them.

use activity_platform::settings::KafkaSettings;

use super::ledger::LedgerRange;
use crate::Error;
use crate::lag::PartitionLag;
use crate::messages::Messages;

/// Asks the log of one partition, about ranges in the order of their offsets.
pub struct Holes<'a> {
    kafka: &'a KafkaSettings,
    of: &'a PartitionLag,
    messages: Option<Messages>,
}

/// Offsets of a range in which no message is missed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Excused {
    /// They hold no message.
    pub empty: u64,
    /// The log no longer has the range, so that nobody can tell.
    pub expired: u64,
}

impl<'a> Holes<'a> {
    /// Nothing is asked before a range has a hole.
    pub fn new(kafka: &'a KafkaSettings, of: &'a PartitionLag) -> Self {
        Self {
            kafka,
            of,
            messages: None,
        }
    }

    /// The offsets of a range in which no message is missed.
    ///
    /// # Errors
    /// If Kafka does not answer.
    pub async fn excused(&mut self, range: &LedgerRange) -> Result<Excused, Error> {
        if range.untold() == 0 || range.start < self.of.first {
            return Ok(excused(range, None));
        }
        let (start, end) = (range.start, range.end);
        let (kafka, of) = (self.kafka.clone(), self.of.clone());
        let messages = self.messages.take();
        let ask = move || {
            let mut messages = match messages {
                Some(messages) => messages,
                None => Messages::of(&kafka, &of.topic, of.partition)?,
            };
            let (there, _) = messages.within(start, end)?;
            // Asked last: what retention takes away meanwhile is no hole.
            let is_whole = messages.watermarks()?.first <= start;
            Ok::<_, Error>((messages, is_whole.then_some(there)))
        };
        let (messages, there) = tokio::task::spawn_blocking(ask).await??;
        self.messages = Some(messages);
        Ok(excused(range, there))
    }
}

/// `there`: messages that the log has in the range; None: it no longer has all of the range.
fn excused(range: &LedgerRange, there: Option<u64>) -> Excused {
    let untold = range.untold();
    match there {
        Some(there) => Excused {
            empty: untold.min(range.offsets().saturating_sub(there)),
            expired: 0,
        },
        None => Excused {
            empty: 0,
            expired: untold,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(events: u64) -> LedgerRange {
        LedgerRange {
            start: 10,
            end: 20,
            events,
            ..LedgerRange::default()
        }
    }

    fn found(events: u64, there: Option<u64>) -> (u64, u64) {
        let Excused { empty, expired } = excused(&range(events), there);
        (empty, expired)
    }

    #[test]
    fn offsets_without_a_message_are_excused_and_messages_that_were_passed_over_are_not() {
        assert_eq!(found(10, Some(10)), (0, 0));
        assert_eq!(found(8, Some(8)), (2, 0));
        assert_eq!(found(7, Some(8)), (2, 0));
        assert_eq!(found(7, Some(10)), (0, 0));
        // Compaction came after the group.
        assert_eq!(found(8, Some(3)), (2, 0));
    }

    #[test]
    fn what_the_log_no_longer_has_cannot_be_told() {
        assert_eq!(found(8, None), (0, 2));
        assert_eq!(found(10, None), (0, 0));
    }
}
