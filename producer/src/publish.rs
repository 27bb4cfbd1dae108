//! From a source into Kafka: paced, encoded, keyed by user, acknowledged.
//!
//! Contract: every event that was sent ends up counted as acknowledged or as failed, `sent = acknowledged + failed`; a full queue slows the source down
//! and drops nothing; memory is bounded by librdkafka's queue. Idempotent, all replicas, in order per user. It waits for nobody but the broker.
//!
//! One thread does all of it (librdkafka has its own for the network): no future and no channel per message, and one buffer for all values.
//!
//! - this file: what is asked for and what is told; `client`: the connection; `publication`: the loop.

mod client;
mod publication;

use std::time::Duration;

use activity_platform::{kafka, registry};
use activity_schemas::codec::EncodeError;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::{pace::Pace, source::EventSource};
pub use client::Publisher;

/// So many unmappable lines and failed deliveries are logged; the rest is counted.
const LOGGED_MAX: u64 = 20;

/// Why nothing could be published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// Kafka could not be reached, has no topics, or no address was given.
    #[error(transparent)]
    Kafka(#[from] kafka::Error),
    /// The schemas could not be registered.
    #[error(transparent)]
    Registry(#[from] registry::Error),
    /// The embedded schema cannot be used.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The mapping cannot be used.
    #[error("mapping: {0}")]
    Mapping(#[from] crate::replay::mapping::MappingError),
    /// The recording cannot be read.
    #[error("{path}: {cause}")]
    Recording {
        /// The file.
        path: String,
        /// What the system says.
        cause: std::io::Error,
    },
    /// The publishing thread panicked: a bug.
    #[error("the publishing thread ended in a panic")]
    Panicked,
}

/// What a publication does, beside where its events come from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Run {
    /// How fast.
    pub pace: Pace,
    /// So many events, then it ends.
    pub events_max: Option<u64>,
    /// So long, then it ends.
    pub duration_max: Option<Duration>,
    /// It ends before the first event that is received at this moment or later, milliseconds since 1970-01-01 UTC.
    pub received_before_ms: Option<i64>,
    /// Malformed messages beside the good ones.
    pub malformed: Option<MalformedShare>,
    /// Records that are no events do not make the run incomplete.
    pub unmappable_allowed: bool,
}

impl Run {
    /// Everything, flat out.
    pub const EVERYTHING: Run = Run {
        pace: Pace::FlatOut,
        events_max: None,
        duration_max: None,
        received_before_ms: None,
        malformed: None,
        unmappable_allowed: false,
    };
}

/// How many malformed messages go out beside the good ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MalformedShare {
    /// They have a seed, too.
    pub seed: u64,
    /// Per million good ones: 100,000 good ones and 100,000 here make 10,000 malformed ones.
    pub per_million: u32,
}

/// Where a publication is.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Progress {
    /// Messages handed to the client, malformed ones among them.
    pub sent: u64,
    /// Messages that the brokers acknowledged.
    pub acknowledged: u64,
    /// Messages that were given up.
    pub failed: u64,
    /// Records that are no events.
    pub unmappable: u64,
    /// Messages among `sent` that were made to be undecodable.
    pub malformed: u64,
    /// Bytes of keys and values sent.
    pub bytes: u64,
    /// Seconds since the start.
    pub seconds: f64,
    /// `received_at` of the latest event, milliseconds: how far the source is in its own time.
    pub received_at_ms: Option<i64>,
    /// Seconds until the next event is due, if the pace makes it wait.
    pub next_event_in_s: Option<f64>,
}

/// Why a publication ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// The source has no more.
    SourceEnded,
    /// As many events, or as long, as was asked for.
    LimitReached,
    /// The stop signal.
    Stopped,
    /// The source cannot be read on, or Kafka refused for good.
    Broken(String),
}

/// How a publication went.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Published {
    /// The final counts: `sent = acknowledged + failed`.
    #[serde(flatten)]
    pub counts: Progress,
    /// Why it ended.
    pub ended: Ended,
    /// All that was sent is acknowledged, nothing broke, and no record was unmappable (unless that is allowed): exit code 0.
    pub complete: bool,
}
/// Runs [`Publisher::run`] on a thread of its own.
///
/// # Errors
/// As there.
pub async fn publish(
    publisher: Publisher,
    mut source: impl EventSource + Send + 'static,
    run: Run,
    stop: CancellationToken,
    progress: impl FnMut(&Progress) + Send + 'static,
) -> Result<Published, PublishError> {
    tokio::task::spawn_blocking(move || publisher.run(&mut source, &run, &stop, progress))
        .await
        .unwrap_or(Err(PublishError::Panicked))
}
