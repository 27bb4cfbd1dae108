//! What stops a verb.

use activity_platform::{clickhouse, kafka, registry};

/// What stops a verb.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Kafka.
    #[error(transparent)]
    Kafka(#[from] kafka::Error),
    /// The registry.
    #[error(transparent)]
    Registry(#[from] registry::Error),
    /// ClickHouse.
    #[error(transparent)]
    ClickHouse(#[from] clickhouse::Error),
    /// A migration that was applied has another text now.
    #[error(
        "migration {number:04}_{name} was applied with another text: a migration that has run is never changed, add a new one"
    )]
    ChangedMigration {
        /// Its number.
        number: u32,
        /// Its name.
        name: String,
    },
    /// A migration waits for a rewind.
    #[error(
        "migration {migration} cannot be applied while a rewind of {group} is unfinished: {ways_on}, then run `activity setup` again"
    )]
    RewindFirst {
        /// Number and name of the migration.
        migration: String,
        /// The group.
        group: String,
        /// What can be done about the rewind.
        ways_on: String,
    },
    /// A file in `schemas/clickhouse` is not a migration.
    #[error(transparent)]
    BadMigration(#[from] activity_schemas::migrations::BadName),
    /// Kafka stopped answering in the middle of a topic.
    #[error("{topic} cannot be read to its end: kafka is silent")]
    Silent {
        /// Its full name.
        topic: String,
    },
    /// A group's epoch rose again and again while it was verified.
    #[error("{group} was rewound while it was verified: verify it again")]
    Rewound {
        /// The group's name.
        group: String,
    },
    /// Some of a group's tables are of the old epoch and some of the new one.
    #[error(
        "the tables of {group} are being exchanged by a rewind: verify it again when the rewind is done (`activity rewind {group} --resume` if it was interrupted)"
    )]
    Exchanging {
        /// The group's name.
        group: String,
    },
    /// Dead letters that were to be sent through their group again are not known to be on their way.
    #[error("not all dead letters were resubmitted: {0}; run the same again, which sends the rest")]
    NotResubmitted(String),
    /// Weights cannot be fitted.
    #[error("weights cannot be fitted: {0}")]
    Unfittable(#[from] activity_consumers::groups::fraud::fit::FitError),
    /// A message has no such field.
    #[error("there is no field {field:?}; there are: {fields}")]
    NoSuchField {
        /// What was asked for.
        field: String,
        /// What there is.
        fields: String,
    },
    /// A worker thread ended early.
    #[error("a worker thread ended: {0}")]
    Worker(#[from] tokio::task::JoinError),
}
