//! Reads one partition of a topic from some offset to the end that it has now, in bounded memory. Blocking: call it off the async threads.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use activity_platform::kafka::{self, Inspector, Watermarks};
use activity_platform::settings::KafkaSettings;
use rdkafka::config::FromClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::BorrowedMessage;
use rdkafka::{Message, Offset, TopicPartitionList};

use crate::Error;

/// How long one poll waits.
pub(crate) const POLL_TIMEOUT: Duration = Duration::from_millis(100);
/// How long Kafka may be silent.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(30);
/// Progress is told this often.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);
/// Bytes that the client fetches ahead, kB.
const PREFETCH_KB_MAX: &str = "16384";

/// How far reading is: messages read, and how many there are.
pub type Progress<'a> = &'a (dyn Fn(u64, u64) + Sync);

/// Hands every message of partition 0 of `topic`, from `from` on and below the end that the log has now, to `each`, until it breaks.
///
/// # Errors
/// If the topic does not exist, or Kafka does not answer; and what `each` returns.
pub fn read<E: From<Error>>(
    settings: &KafkaSettings,
    topic: &str,
    from: i64,
    progress: Progress<'_>,
    mut each: impl FnMut(&BorrowedMessage<'_>) -> Result<ControlFlow<()>, E>,
) -> Result<(), E> {
    let Watermarks { first, next } = ends(settings, topic)?;
    let start = first.max(from);
    if start >= next {
        return Ok(());
    }
    let consumer = consumer(settings)?;
    assign(&consumer, topic, 0, start)?;
    let all = (next - start) as u64;
    let (mut heard, mut told) = (Instant::now(), Instant::now());
    loop {
        let message = match consumer.poll(POLL_TIMEOUT) {
            Some(Ok(message)) => message,
            // The log's end may be below `next`, where its last offsets hold no message.
            Some(Err(KafkaError::PartitionEOF(_))) => break,
            Some(Err(error)) => return Err(Error::from(kafka::Error::from(error)).into()),
            // Also after an event of the client itself: silence is told by the clock.
            None if heard.elapsed() < SILENCE_MAX => continue,
            None => {
                let topic = topic.to_owned();
                return Err(Error::Silent { topic }.into());
            }
        };
        heard = Instant::now();
        if message.offset() >= next {
            break;
        }
        if told.elapsed() >= PROGRESS_INTERVAL {
            told = heard;
            progress((message.offset() - start) as u64, all);
        }
        if each(&message)?.is_break() || message.offset() + 1 >= next {
            break;
        }
    }
    progress(all, all);
    Ok(())
}

fn ends(settings: &KafkaSettings, topic: &str) -> Result<Watermarks, Error> {
    let inspector = Inspector::new(settings, "activity-reader")?;
    inspector.partitions(topic)?;
    Ok(inspector.watermarks(topic, 0)?)
}

/// A client that reads committed messages, is told where a log ends, and commits nothing.
pub(crate) fn consumer(settings: &KafkaSettings) -> Result<BaseConsumer, Error> {
    let mut config = kafka::client_config(settings).map_err(kafka::Error::from)?;
    config
        .set("group.id", "activity-reader")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", "read_committed")
        .set("auto.offset.reset", "earliest")
        .set("queued.max.messages.kbytes", PREFETCH_KB_MAX)
        .set("fetch.queue.backoff.ms", "10")
        .set("fetch.wait.max.ms", "100");
    Ok(BaseConsumer::from_config(&config).map_err(kafka::Error::from)?)
}

/// Lets it read one partition from an offset on.
pub(crate) fn assign(
    consumer: &BaseConsumer,
    topic: &str,
    partition: i32,
    from: i64,
) -> Result<(), Error> {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, Offset::Offset(from))
        .and_then(|()| consumer.assign(&list))
        .map_err(kafka::Error::from)?;
    Ok(())
}
