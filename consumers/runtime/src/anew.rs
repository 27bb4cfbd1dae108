//! Whether the log of a partition is still that of the topic that the group has read.
//!
//! A topic that is deleted and made anew under its name begins at offset 0 again, and the client goes on in it, without a word, at the offset that it had reached in
//! the old one. Kafka vouches for nothing here; what does is the time at which messages were appended, against that of those which the ledger has.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use activity_platform::clickhouse::Database;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};

use crate::membership::Membership;
use crate::open::{OpenEnd, OpenError, OpenState, Opening};
use crate::start::of_another_topic;
use crate::store;

/// How long one request to Kafka may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Looks at partitions that are being read, one after the other, and says which are to be stopped. Without an answer nothing is known; they are looked at again.
pub(crate) async fn watch(
    openings: Vec<Opening>,
    consumer: Arc<BaseConsumer<Membership>>,
    database: Database,
    said: Sender<OpenEnd>,
) {
    for opening in openings {
        if let Ok(Some(why)) = look(&opening, &consumer, &database).await {
            // Nobody listens once the loop is gone.
            let _ = said.send((opening.assignment, OpenState::Stop(why)));
        }
    }
}

/// Why a partition must stop whose log is of another topic; None: it is not, as far as can be seen.
///
/// It is the beginning of what the ledger has that is compared: behind it there may be messages of the new topic already, taken for those of the old one.
pub(crate) async fn look(
    opening: &Opening,
    consumer: &Arc<BaseConsumer<Membership>>,
    database: &Database,
) -> Result<Option<String>, OpenError> {
    let Some(first) = first_since(0, opening, consumer).await? else {
        return Ok(None);
    };
    let epoch = opening.rewinds.epoch();
    let ledger = store::ledger_beginning(database, opening.of(), epoch, first).await?;
    let Some((end, appended_last_ms)) = ledger.filter(|(end, _)| first < *end) else {
        return Ok(None);
    };
    let first_after = first_since(appended_last_ms + 1, opening, consumer).await?;
    Ok(of_another_topic(end, first, first_after))
}

/// The first offset of the log that was appended at a time or later, if there is one.
async fn first_since(
    appended_ms: i64,
    opening: &Opening,
    consumer: &Arc<BaseConsumer<Membership>>,
) -> Result<Option<i64>, OpenError> {
    let (consumer, topic, partition) = (consumer.clone(), opening.topic.clone(), opening.partition);
    let ask = move || {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&topic, partition, Offset::Offset(appended_ms))?;
        let found = consumer.offsets_for_times(list, REQUEST_TIMEOUT)?;
        let elements = found.elements();
        let Some(element) = elements.first() else {
            return Ok(None);
        };
        element.error()?;
        Ok::<_, KafkaError>(match element.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        })
    };
    Ok(tokio::task::spawn_blocking(ask).await??)
}
