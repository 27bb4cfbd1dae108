//! `activity lag`: how far each group is behind, in messages, by Kafka's own account.

use activity_consumers::Group;
use activity_platform::kafka::Inspector;
use activity_platform::settings::KafkaSettings;
use activity_runtime::claim::Claim;
use activity_runtime::resubmit::feeds;
use serde::Serialize;

use crate::Error;

/// One partition of one group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PartitionLag {
    /// The group's name.
    pub group: String,
    /// Full name of the topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// First offset that the log has.
    pub first: i64,
    /// Committed offset; None: never committed.
    pub committed: Option<i64>,
    /// End of the claim that is in flight; equal to the committed offset where none is.
    pub claimed: Option<i64>,
    /// Offset that the next message will get.
    pub end: i64,
    /// Messages that are not known to be in ClickHouse.
    pub lag: i64,
}

/// Lag of all partitions of the topics that the groups consume, their resubmits included.
///
/// # Errors
/// If Kafka does not answer or a topic is missing.
pub async fn gather(
    kafka: &KafkaSettings,
    groups: &[&'static Group],
) -> Result<Vec<PartitionLag>, Error> {
    let (kafka, groups) = (kafka.clone(), groups.to_vec());
    tokio::task::spawn_blocking(move || Watcher::new(&kafka, &groups)?.gather()).await?
}

/// Looks at the same groups again and again, over connections that stay.
pub struct Watcher {
    groups: Vec<Watched>,
}

struct Watched {
    name: &'static str,
    inspector: Inspector,
    partitions: Vec<(String, i32)>,
}

impl Watcher {
    /// Connects. Blocking, as [`gather`](Self::gather) is: call them off the async threads.
    ///
    /// # Errors
    /// If Kafka does not answer or a topic is missing.
    pub fn new(kafka: &KafkaSettings, groups: &[&'static Group]) -> Result<Self, Error> {
        let watched = |group: &&'static Group| {
            let inspector =
                Inspector::new(kafka, &format!("{}{}", kafka.group_prefix, group.name))?;
            let mut partitions = Vec::new();
            for (_, name) in feeds(group, &kafka.topic_prefix) {
                partitions.extend(
                    (0..inspector.partitions(&name)?)
                        .map(|partition| (name.to_string(), partition)),
                );
            }
            Ok(Watched {
                name: group.name,
                inspector,
                partitions,
            })
        };
        Ok(Self {
            groups: groups.iter().map(watched).collect::<Result<_, Error>>()?,
        })
    }

    /// Lag of all partitions.
    ///
    /// # Errors
    /// If Kafka does not answer.
    pub fn gather(&self) -> Result<Vec<PartitionLag>, Error> {
        let mut lags = Vec::new();
        for Watched {
            name,
            inspector,
            partitions,
        } in &self.groups
        {
            let committed = inspector.committed(partitions)?;
            for (topic, partition) in partitions {
                let log = inspector.watermarks(topic, *partition)?;
                let found = committed.get(&(topic.clone(), *partition));
                let offset = found.map(|found| found.offset);
                let claimed = found.map(|found| {
                    Claim::parse(&found.metadata).map_or(found.offset, |claim| claim.end)
                });
                let lag = log.next - offset.unwrap_or(log.first);
                let (group, topic, partition) = ((*name).to_owned(), topic.clone(), *partition);
                lags.push(PartitionLag {
                    group,
                    topic,
                    partition,
                    first: log.first,
                    committed: offset,
                    claimed,
                    end: log.next,
                    lag,
                });
            }
        }
        Ok(lags)
    }
}
