//! Where the group that reads for a rewind stands in Kafka. Blocking: call it off the async threads.

use std::collections::BTreeMap;

use activity_consumers::Group;
use activity_platform::kafka::{Committed, Inspector};
use activity_platform::settings::KafkaSettings;
use activity_runtime::claim::Claim;
use activity_runtime::cycle::now_ms;
use activity_runtime::resubmit::feeds;
use activity_runtime::standing::Record;

use super::groups::GroupClient;
use super::{RewindError, rewind_group_id};

/// Every partition that the group reads.
fn partitions(
    settings: &KafkaSettings,
    inspector: &Inspector,
    group: &Group,
) -> Result<Vec<(String, i32)>, RewindError> {
    let mut all = Vec::new();
    for (_, name) in feeds(group, &settings.topic_prefix) {
        let count = inspector.partitions(&name)?;
        all.extend((0..count).map(|partition| (name.to_string(), partition)));
    }
    Ok(all)
}

/// Where a rewind begins to read a partition, in the words of a commit.
fn at_point(record: &Record, (topic, partition): &(String, i32)) -> Option<Committed> {
    let point = record.points.get(topic, *partition)?;
    let claim = Claim {
        end: point,
        epoch: record.epoch,
        claimed_at_ms: now_ms(),
    };
    Some(Committed {
        offset: point,
        metadata: claim.to_string(),
    })
}

/// Where the reading group stands, or would begin where it has committed nothing.
pub fn reading_offsets(
    settings: &KafkaSettings,
    group: &Group,
    record: &Record,
) -> Result<BTreeMap<(String, i32), Committed>, RewindError> {
    let group_id = rewind_group_id(settings, group.name, record.epoch);
    let inspector = Inspector::new(settings, &group_id)?;
    let all = partitions(settings, &inspector, group)?;
    let mut offsets = inspector.committed(&all)?;
    for partition in all {
        if let Some(at) = at_point(record, &partition) {
            offsets.entry(partition).or_insert(at);
        }
    }
    Ok(offsets)
}

/// Nobody is in the reading group any more, so that what it has committed is its last word.
pub fn reading_group(
    settings: &KafkaSettings,
    group: &Group,
    record: &Record,
) -> Result<GroupClient, RewindError> {
    let client = GroupClient::new(
        settings,
        &rewind_group_id(settings, group.name, record.epoch),
    )?;
    client.until_empty()?;
    Ok(client)
}

/// Where the reading group has committed nothing yet, it begins at the points.
pub fn begin_reading(
    settings: &KafkaSettings,
    group: &Group,
    record: &Record,
) -> Result<(), RewindError> {
    let client = reading_group(settings, group, record)?;
    Ok(client.commit(&reading_offsets(settings, group, record)?)?)
}
