//! Consumer groups: deterministic functions from events to rows. No Kafka, no ClickHouse, no clock, no randomness, no threads: the runtime owns those.
//!
//! A group is one file in [`groups`], one line in [`GROUPS`] and one SQL migration for its tables. Everything else (command line, metrics, dead letters,
//! ledger, verification, golden tests) iterates [`GROUPS`].

mod column;
mod dictionary;
mod fingerprint;
mod group;
pub mod groups;
mod look_up;
mod lru;
mod models;
mod output;
mod snapshot;
pub mod template;
mod windows;

pub use column::{ColumnBuffer, Layout, LowCardinality, Millis, Value};
pub use group::{
    ConsumerGroup, Group, Headers, Input, Instance, NoHeaders, Received, Reject, Settings,
    StaleSnapshot,
};
pub use groups::GROUPS;
pub use look_up::{Answers, LookUp};
pub use models::{Model, Models};
pub use output::{ColumnSpec, Derived, ORIGIN, Origin, Output, Row, Rows, TableSpec};
