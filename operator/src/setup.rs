//! `activity setup`: topics, schemas and tables, as the code knows them. Safe to run twice and by two at once: everything that is there already is left alone.

use activity_consumers::{GROUPS, Group};
use activity_platform::clickhouse::{Database, quoted};
use activity_platform::fault::{self, Point};
use activity_platform::kafka::{self, TopicToCreate};
use activity_platform::registry::Registry;
use activity_platform::settings::Targets;
use activity_runtime::dead_letter::{TOPIC_BYTES_MAX, dead_letter_topic};
use activity_runtime::resubmit::resubmit_topic;
use activity_runtime::source::DERIVED_TOPIC_BYTES_MAX;
use activity_runtime::standing;
use activity_schemas::migrations::{self, Migration};
use activity_schemas::{CLICKS, Content, EventKind, Partitions, Topic, WATCHES};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::Error;

/// How long events stay in Kafka.
const RETENTION_MS: u64 = 7 * 24 * 3600 * 1000;
/// Dead letters wait longer: somebody has to look at them.
const DEAD_LETTER_RETENTION_MS: u64 = 30 * 24 * 3600 * 1000;
/// What was resubmitted must be known for longer than its dead letter can be found: a letter may outlive its retention until its segment is closed.
const RESUBMIT_RETENTION_MS: u64 = 3 * DEAD_LETTER_RETENTION_MS;

/// What set-up does, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Topics that were created.
    pub topics_created: Vec<String>,
    /// Topics that should be there.
    pub topics: Vec<String>,
    /// Schema ids by topic.
    pub schemas: Vec<(String, u32)>,
    /// Migrations that were applied now.
    pub migrations_applied: Vec<String>,
    /// All migrations.
    pub migrations: Vec<String>,
}

/// Every topic that the code knows: events first, then the groups' own.
pub fn topics() -> Vec<Topic> {
    let mut topics = vec![CLICKS, WATCHES];
    for topic in GROUPS.iter().flat_map(|group| group.reads) {
        if !topics.contains(topic) {
            topics.push(*topic);
        }
    }
    topics
}

/// Topics as they are to be created.
fn topics_to_create(
    groups: &[Group],
    topics: &[Topic],
    prefix: &str,
    partitions: u16,
) -> Vec<TopicToCreate> {
    let config = |retention_ms: u64| {
        vec![
            // Freshness, lag in seconds, retention and table partitions go by the broker's clock.
            ("message.timestamp.type", "LogAppendTime".to_owned()),
            ("retention.ms", retention_ms.to_string()),
            ("cleanup.policy", "delete".to_owned()),
        ]
    };
    let of_events = topics.iter().map(|topic| {
        let mut config = config(RETENTION_MS);
        if topic.content == Content::Derived {
            config.push(("max.message.bytes", DERIVED_TOPIC_BYTES_MAX.to_string()));
        }
        TopicToCreate {
            name: topic.full_name(prefix),
            partitions: match topic.partitions {
                Partitions::Configured => i32::from(partitions),
                Partitions::One => 1,
            },
            config,
        }
    });
    let of_rejected = |name: String, retention_ms: u64| {
        let mut config = config(retention_ms);
        config.push(("max.message.bytes", TOPIC_BYTES_MAX.to_string()));
        TopicToCreate {
            name: format!("{prefix}{name}"),
            partitions: 1,
            config,
        }
    };
    let of_groups = groups.iter().flat_map(|group| {
        [
            of_rejected(dead_letter_topic(group.name), DEAD_LETTER_RETENTION_MS),
            of_rejected(resubmit_topic(group.name), RESUBMIT_RETENTION_MS),
        ]
    });
    of_events.chain(of_groups).collect()
}

/// What set-up would do, without asking anybody.
///
/// # Errors
/// If an embedded migration is misnamed.
pub fn plan(targets: &Targets, partitions: u16) -> Result<Report, Error> {
    let topics = topics_to_create(GROUPS, &topics(), &targets.kafka.topic_prefix, partitions);
    Ok(Report {
        topics: topics
            .iter()
            .map(|topic| format!("{} ({} partitions)", topic.name, topic.partitions))
            .collect(),
        migrations: migrations::all()?.iter().map(label).collect(),
        ..Report::default()
    })
}

/// Creates topics with `partitions` partitions, registers schemas, applies migrations.
///
/// # Errors
/// [`Error`]; what was done until then stays and is found by the next run.
pub async fn run(targets: &Targets, partitions: u16) -> Result<Report, Error> {
    let mut report = plan(targets, partitions)?;
    let to_create = topics_to_create(GROUPS, &topics(), &targets.kafka.topic_prefix, partitions);
    let (created, schemas, migrations) = tokio::try_join!(
        async { Ok(kafka::create_topics(&targets.kafka, &to_create).await?) },
        register(targets),
        migrate(targets)
    )?;
    report.topics_created = created;
    report.schemas = schemas;
    report.migrations_applied = migrations;
    Ok(report)
}

/// Registers the schemas of all topics that carry events.
async fn register(targets: &Targets) -> Result<Vec<(String, u32)>, Error> {
    let registry = Registry::new(&targets.registry)?;
    let mut ids = Vec::new();
    for topic in topics() {
        if let Content::Events(kind) = topic.content {
            ids.push(
                register_topic(
                    &registry,
                    kind,
                    topic.full_name(&targets.kafka.topic_prefix),
                )
                .await?,
            );
        }
    }
    Ok(ids)
}

async fn register_topic(
    registry: &Registry,
    kind: EventKind,
    topic: String,
) -> Result<(String, u32), Error> {
    registry.require_compatibility(&topic).await?;
    let id = registry.register(kind, &topic).await?;
    Ok((topic, id))
}

#[derive(Deserialize)]
struct Applied {
    number: u32,
    checksum: String,
}

/// Applies the migrations that were not applied yet, in the order of their numbers.
async fn migrate(targets: &Targets) -> Result<Vec<String>, Error> {
    let database = Database::new(&targets.clickhouse)?.patient();
    let all = migrations::all()?;
    let applied = applied(&database).await?;
    let mut done = Vec::new();
    for migration in &all {
        let checksum = checksum(migration);
        match applied
            .iter()
            .find(|applied| applied.number == migration.number)
        {
            Some(applied) if applied.checksum == checksum => continue,
            Some(_) => {
                return Err(Error::ChangedMigration {
                    number: migration.number,
                    name: migration.name.to_owned(),
                });
            }
            None => none_is_rewound(&database, migration).await?,
        }
        for statement in migration.statements(database.name()) {
            database.execute(&statement).await?;
            fault::reach(Point::BetweenStatements);
        }
        fault::reach(Point::BeforeMigrationRow);
        let row = serde_json::json!({ "number": migration.number, "name": migration.name, "checksum": checksum });
        database.insert_json("migrations", &[row]).await?;
        done.push(label(migration));
    }
    Ok(done)
}

/// A rewind that was interrupted has made tables as they were then, which are still to take their place: a migration would pass them by.
async fn none_is_rewound(database: &Database, pending: &Migration) -> Result<(), Error> {
    if !has_table(database, "rewinds").await? {
        return Ok(());
    }
    for group in GROUPS {
        let records = standing::records(database, group.name).await?;
        if let Some(rewind) = records.iter().find(|record| record.phase.is_unfinished()) {
            return Err(Error::RewindFirst {
                migration: label(pending),
                group: group.name.to_owned(),
                ways_on: rewind.phase.ways_on_before_migration(group.name),
            });
        }
    }
    Ok(())
}

/// What the database says was applied; nothing if it does not exist yet.
async fn applied(database: &Database) -> Result<Vec<Applied>, Error> {
    if !has_table(database, "migrations").await? {
        return Ok(Vec::new());
    }
    Ok(database
        .rows("SELECT number, checksum FROM {database}.migrations FINAL")
        .await?)
}

async fn has_table(database: &Database, table: &str) -> Result<bool, Error> {
    #[derive(Deserialize)]
    struct Found {
        tables: u64,
    }
    let sql = format!(
        "SELECT count() AS tables FROM system.tables WHERE database = {} AND name = {}",
        quoted(database.name()),
        quoted(table)
    );
    let found: Vec<Found> = database.rows(&sql).await?;
    Ok(found.first().is_some_and(|found| found.tables > 0))
}

fn checksum(migration: &Migration) -> String {
    Sha256::digest(migration.sql)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn label(migration: &Migration) -> String {
    format!("{:04}_{}", migration.number, migration.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_topic_that_a_group_reads_is_created_and_each_group_gets_dead_letters_and_resubmits() {
        let topics = topics_to_create(GROUPS, &topics(), "activity.", 4);
        for group in GROUPS {
            for name in ["dead-letters", "resubmits"] {
                let name = format!("activity.{name}.{}", group.name);
                assert!(topics.iter().any(|topic| topic.name == name), "{name}");
            }
            for read in group.reads {
                assert!(
                    topics
                        .iter()
                        .any(|topic| topic.name == read.full_name("activity.")),
                    "{}",
                    read.name
                );
            }
        }
    }

    #[test]
    fn no_topic_is_created_twice() {
        let mut names: Vec<String> = topics_to_create(GROUPS, &topics(), "", 4)
            .into_iter()
            .map(|topic| topic.name)
            .collect();
        names.sort();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
