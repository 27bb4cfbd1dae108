//! Which offsets of a partition hold a message: markers of transactions, and what compaction has taken, are offsets without any. Blocking: call it off the async threads.

use std::time::{Duration, Instant};

use activity_platform::kafka::{self, Watermarks};
use activity_platform::settings::KafkaSettings;
use rdkafka::Message;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;

use crate::Error;
use crate::log::{self, POLL_TIMEOUT, SILENCE_MAX};

/// How long one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Each step back from the end of a log is so many times longer than the one before.
const STEP_FACTOR: i64 = 8;

/// The messages of one partition. Asked for in the order of their offsets, each is fetched once.
pub struct Messages {
    consumer: BaseConsumer,
    topic: String,
    partition: i32,
    /// Offset from which the next message is fetched; None: nothing is being fetched.
    position: Option<i64>,
    /// The message that was met last, and the offset from which on it is the first.
    met: Option<(i64, i64)>,
}

impl Messages {
    /// Asks for nothing yet.
    ///
    /// # Errors
    /// If no brokers were given or the client cannot be made.
    pub fn of(settings: &KafkaSettings, topic: &str, partition: i32) -> Result<Self, Error> {
        Ok(Self {
            consumer: log::consumer(settings)?,
            topic: topic.to_owned(),
            partition,
            position: None,
            met: None,
        })
    }

    /// First and next offset of the log.
    ///
    /// # Errors
    /// If Kafka does not answer.
    pub fn watermarks(&self) -> Result<Watermarks, Error> {
        let (first, next) = self
            .consumer
            .fetch_watermarks(&self.topic, self.partition, REQUEST_TIMEOUT)
            .map_err(kafka::Error::from)?;
        Ok(Watermarks { first, next })
    }

    /// How many messages lie in [start, end), and the offset after the last of them.
    ///
    /// # Errors
    /// If Kafka does not answer.
    pub fn within(&mut self, start: i64, end: i64) -> Result<(u64, Option<i64>), Error> {
        let (mut at, mut count) = (start, 0);
        while at < end
            && let Some(offset) = self.first_from(at)?
            && offset < end
        {
            (at, count) = (offset + 1, count + 1);
        }
        Ok((count, (count > 0).then_some(at)))
    }

    /// Offset after the last message of a log; None: it has none. It is searched for from the log's end, in longer and longer steps.
    ///
    /// # Errors
    /// If Kafka does not answer.
    pub fn end(&mut self, log: Watermarks) -> Result<Option<i64>, Error> {
        let mut step = 1;
        loop {
            let from = log.first.max(log.next - step);
            let (_, end) = self.within(from, log.next)?;
            if end.is_some() || from == log.first {
                return Ok(end);
            }
            step = log.next.min(step * STEP_FACTOR);
        }
    }

    /// Offset of the first message at or above an offset; None: the log has none.
    fn first_from(&mut self, from: i64) -> Result<Option<i64>, Error> {
        if let Some((since, offset)) = self.met
            && (since..=offset).contains(&from)
        {
            return Ok(Some(offset));
        }
        if self.position != Some(from) {
            log::assign(&self.consumer, &self.topic, self.partition, from)?;
        }
        let found = self.poll(from)?;
        // The end of a log is told once: who comes from there begins anew.
        self.position = found.map(|offset| offset + 1);
        self.met = found.map(|offset| (from, offset));
        Ok(found)
    }

    fn poll(&self, from: i64) -> Result<Option<i64>, Error> {
        let began = Instant::now();
        loop {
            match self.consumer.poll(POLL_TIMEOUT) {
                Some(Ok(message)) if message.offset() >= from => {
                    return Ok(Some(message.offset()));
                }
                Some(Err(KafkaError::PartitionEOF(_))) => return Ok(None),
                Some(Err(error)) => return Err(kafka::Error::from(error).into()),
                Some(Ok(_)) | None if began.elapsed() < SILENCE_MAX => (),
                Some(Ok(_)) | None => {
                    let topic = self.topic.clone();
                    return Err(Error::Silent { topic });
                }
            }
        }
    }
}
