//! How the groups are: by Kafka's coordinator who owns what, by Kafka's offsets and the ledger how far and how fresh, by their own processes whether they are ready.

use std::collections::BTreeMap;
use std::time::Duration;

use activity_consumers::Group;
use activity_platform::clickhouse::Database;
use activity_platform::kafka::{Inspector, Member};
use activity_platform::settings::{KafkaSettings, Targets};
use activity_runtime::{CLIENT_ID_PREFIX, assignment};
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::lag::{self, PartitionLag};

/// How long a group's process may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Rates are taken over so many seconds.
const RATE_SECONDS: u32 = 60;
/// Freshness and dead letters are taken over so many minutes.
const RECENT_MINUTES: u32 = 5;

/// A group.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct GroupStatus {
    /// Its name.
    pub group: String,
    /// Processes that run it.
    pub owners: Vec<Owner>,
    /// Partitions that belong to none of them.
    pub unowned: usize,
    /// What a process of it waits for, if one is not ready.
    pub waits_for: Option<String>,
    /// Events per second that it put into ClickHouse in the last minute.
    pub events_per_second: Option<f64>,
    /// Messages that are not known to be in ClickHouse.
    pub lag: Option<i64>,
    /// How long ago the last message was appended that is, where there is lag; 0 where there is none.
    pub lag_seconds: Option<f64>,
    /// Age of messages when they were queryable, milliseconds, median of the last five minutes.
    pub freshness_ms_p50: Option<f64>,
    /// The same, of all but one in a hundred.
    pub freshness_ms_p99: Option<f64>,
    /// Messages that were rejected in the last five minutes.
    pub rejected: Option<u64>,
}

/// A process that runs a group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Owner {
    /// Where it is reached, `host:port`; or its `client.id`.
    pub process: String,
    /// The host that it comes from, by the broker.
    pub host: String,
    /// What it owns: `clicks/0`.
    pub partitions: Vec<String>,
    /// Whether it says that it is ready; None: it does not answer.
    pub ready: Option<bool>,
    /// Memory that it has resident.
    pub memory_bytes: Option<u64>,
}

/// What the ledger says of a group.
#[derive(Deserialize)]
struct Recent {
    consumer_group: String,
    events_per_second: f64,
    freshness: Vec<Option<f64>>,
    rejected: u64,
}

/// When the last message of a partition that is in ClickHouse was appended.
#[derive(Deserialize)]
struct Reached {
    consumer_group: String,
    topic: String,
    partition: i32,
    seconds: f64,
}

/// Looks at groups; of what cannot be asked the fields stay empty.
pub(super) async fn look(
    targets: &Targets,
    groups: &[&'static Group],
    kafka: bool,
    clickhouse: bool,
) -> Vec<GroupStatus> {
    let (of_kafka, of_ledger) = tokio::join!(
        async {
            match kafka {
                true => of_kafka(&targets.kafka, groups).await,
                false => Ok((Vec::new(), BTreeMap::new())),
            }
        },
        async {
            match clickhouse {
                true => of_ledger(targets).await,
                false => Ok((Vec::new(), Vec::new())),
            }
        }
    );
    let (lags, mut members) = of_kafka.unwrap_or_else(|error| {
        tracing::warn!(%error, "kafka does not tell how the groups are");
        Default::default()
    });
    let (recent, reached) = of_ledger.unwrap_or_else(|error| {
        tracing::warn!(%error, "the ledger cannot be read");
        Default::default()
    });
    let prefix = &targets.kafka.topic_prefix;
    let status = groups.iter().map(|group| {
        let lags: Vec<&PartitionLag> = lags.iter().filter(|lag| lag.group == group.name).collect();
        let members = members.remove(group.name).unwrap_or_default();
        let recent = recent
            .iter()
            .find(|recent| recent.consumer_group == group.name);
        let reached: Vec<&Reached> = reached
            .iter()
            .filter(|reached| reached.consumer_group == group.name)
            .collect();
        async move {
            let owners = members.iter().map(|member| owner(member, prefix));
            let (owners, waits_for) = asked(owners.collect()).await;
            let owned: usize = owners.iter().map(|owner| owner.partitions.len()).sum();
            let freshness = |index: usize| {
                recent.and_then(|recent| recent.freshness.get(index).copied().flatten())
            };
            GroupStatus {
                group: group.name.to_owned(),
                unowned: if owners.is_empty() {
                    0
                } else {
                    lags.len().saturating_sub(owned)
                },
                owners,
                waits_for,
                events_per_second: clickhouse
                    .then(|| recent.map_or(0.0, |recent| recent.events_per_second)),
                lag: (!lags.is_empty()).then(|| lags.iter().map(|lag| lag.lag).sum()),
                lag_seconds: lag_seconds(&lags, &reached),
                freshness_ms_p50: freshness(0),
                freshness_ms_p99: freshness(1),
                rejected: clickhouse.then(|| recent.map_or(0, |recent| recent.rejected)),
            }
        }
    });
    join_all(status).await
}

type OfKafka = (Vec<PartitionLag>, BTreeMap<&'static str, Vec<Member>>);

async fn of_kafka(kafka: &KafkaSettings, groups: &[&'static Group]) -> Result<OfKafka, Error> {
    let (kafka, groups) = (kafka.clone(), groups.to_vec());
    let look = move || {
        let mut members = BTreeMap::new();
        for group in &groups {
            let id = format!("{}{}", kafka.group_prefix, group.name);
            members.insert(group.name, Inspector::new(&kafka, &id)?.members(&id)?);
        }
        let lags = lag::Watcher::new(&kafka, &groups)?.gather()?;
        Ok((lags, members))
    };
    tokio::task::spawn_blocking(look).await?
}

async fn of_ledger(targets: &Targets) -> Result<(Vec<Recent>, Vec<Reached>), Error> {
    let database = Database::new(&targets.clickhouse)?;
    let recent = format!(
        "SELECT consumer_group, sumIf(events, inserted_at > now64(3) - INTERVAL {RATE_SECONDS} SECOND) / {RATE_SECONDS} AS events_per_second, \
         quantilesExactWeighted(0.5, 0.99)(freshness_ms, greatest(events, 1)) AS freshness, sum(rejects) AS rejected \
         FROM {{database}}.ledger FINAL WHERE inserted_at > now64(3) - INTERVAL {RECENT_MINUTES} MINUTE GROUP BY consumer_group"
    );
    let reached = "SELECT consumer_group, topic, partition, (now64(3) - argMax(appended_last, (epoch, end_offset)))::Float64 AS seconds \
         FROM {database}.ledger GROUP BY consumer_group, topic, partition";
    Ok((database.rows(&recent).await?, database.rows(reached).await?))
}

/// The partition that is furthest behind tells. One that was never read has no such moment.
fn lag_seconds(lags: &[&PartitionLag], reached: &[&Reached]) -> Option<f64> {
    if lags.is_empty() {
        return None;
    }
    let behind = lags.iter().filter(|lag| lag.lag > 0);
    let seconds = behind.filter_map(|lag| {
        let found = reached
            .iter()
            .find(|reached| reached.topic == lag.topic && reached.partition == lag.partition);
        found.map(|found| found.seconds)
    });
    Some(seconds.fold(0.0, f64::max))
}

fn owner(member: &Member, prefix: &str) -> Owner {
    let partitions = assignment::partitions(&member.assignment).unwrap_or_default();
    let mut partitions: Vec<String> = partitions
        .into_iter()
        .map(|(topic, partition)| {
            format!(
                "{}/{partition}",
                topic.strip_prefix(prefix).unwrap_or(&topic)
            )
        })
        .collect();
    partitions.sort();
    Owner {
        process: member
            .client_id
            .strip_prefix(CLIENT_ID_PREFIX)
            .unwrap_or(&member.client_id)
            .to_owned(),
        host: member.host.trim_start_matches('/').to_owned(),
        partitions,
        ready: None,
        memory_bytes: None,
    }
}

/// The owners with what their processes say of themselves, and what the first that is not ready waits for.
async fn asked(owners: Vec<Owner>) -> (Vec<Owner>, Option<String>) {
    let asked = join_all(owners.into_iter().map(ask)).await;
    let waits_for = asked.iter().find_map(|(_, waits_for)| waits_for.clone());
    (
        asked.into_iter().map(|(owner, _)| owner).collect(),
        waits_for,
    )
}

async fn ask(mut owner: Owner) -> (Owner, Option<String>) {
    // A member that says no address cannot be asked.
    if !owner.process.contains(':') {
        return (owner, None);
    }
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(ANSWER_TIMEOUT)
        .build();
    let Ok(client) = client else {
        return (owner, None);
    };
    let page = |path: &str| {
        let asked = client
            .get(format!("http://{}/{path}", owner.process))
            .send();
        async move {
            let answer = asked.await.ok()?;
            Some((answer.status().is_success(), answer.text().await.ok()?))
        }
    };
    let (readiness, metrics) = tokio::join!(page("readyz"), page("metrics"));
    owner.memory_bytes = metrics.and_then(|(_, text)| resident_bytes(&text));
    owner.ready = readiness.as_ref().map(|(ready, _)| *ready);
    let waits_for = readiness.filter(|(ready, _)| !ready).map(|(_, why)| {
        let lines: Vec<&str> = why
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .collect();
        lines.join("; ")
    });
    (owner, waits_for)
}

/// `process_resident_memory_bytes` of a page of metrics.
fn resident_bytes(metrics: &str) -> Option<u64> {
    let mut lines = metrics.lines();
    let value = lines.find_map(|line| line.strip_prefix("process_resident_memory_bytes "))?;
    Some(value.trim().parse::<f64>().ok()? as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lag(partition: i32, lag: i64) -> PartitionLag {
        PartitionLag {
            group: "a".to_owned(),
            topic: "t".to_owned(),
            partition,
            first: 0,
            committed: Some(1),
            claimed: Some(1),
            end: 1 + lag,
            lag,
        }
    }

    #[test]
    fn the_partition_that_is_furthest_behind_tells_the_seconds() {
        let at = |partition, seconds| Reached {
            consumer_group: "a".to_owned(),
            topic: "t".to_owned(),
            partition,
            seconds,
        };
        let (none, some, more) = (lag(0, 0), lag(1, 5), lag(2, 1));
        let reached = [at(0, 99.0), at(1, 3.0), at(2, 7.0)];
        let reached: Vec<&Reached> = reached.iter().collect();
        assert_eq!(lag_seconds(&[&none, &some, &more], &reached), Some(7.0));
        assert_eq!(lag_seconds(&[&none], &reached), Some(0.0));
        assert_eq!(lag_seconds(&[], &reached), None);
    }

    #[test]
    fn an_owner_is_told_by_where_it_is_reached() {
        let member = Member {
            client_id: "activity-127.0.0.1:9401".to_owned(),
            host: "/127.0.0.1".to_owned(),
            assignment: vec![
                0, 3, 0, 0, 0, 1, 0, 3, b'p', b'.', b't', 0, 0, 0, 1, 0, 0, 0, 2,
            ],
        };
        let owner = owner(&member, "p.");
        assert_eq!(
            (owner.process.as_str(), owner.host.as_str()),
            ("127.0.0.1:9401", "127.0.0.1")
        );
        assert_eq!(owner.partitions, ["t/2"]);
    }

    #[test]
    fn memory_is_found_among_the_metrics() {
        let page = "# HELP x y\nprocess_resident_memory_bytes 25600000\nother 1\n";
        assert_eq!(resident_bytes(page), Some(25_600_000));
        assert_eq!(resident_bytes("other 1\n"), None);
    }
}
