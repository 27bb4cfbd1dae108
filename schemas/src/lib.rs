//! What data looks like, in motion and at rest. Pure: schemas are handed to it, it fetches nothing and knows no other member.
//!
//! - `avro/<event>/v<N>.avsc`: immutable versions, the one truth about what an event is ([`avro`]).
//! - [`ClickEvent`], [`WatchEvent`]: the typed view of the newest version, borrowed from the message ([`events`]).
//! - [`codec`]: the Confluent wire format, both ways; `plan`: its hot path.
//! - [`truth`]: the headers that ground truth travels in.
//! - `clickhouse/<NNNN>_<name>.sql`: numbered migrations ([`migrations`]).

pub mod avro;
pub mod codec;
pub mod events;
pub mod migrations;
mod plan;
mod topics;
pub mod truth;

pub use codec::{DecodeError, Decoders, Encoder};
pub use events::{ClickEvent, Event, EventKind, WatchAction, WatchEvent};
pub use plan::Encode;
pub use topics::{CLICKS, Content, Partitions, Topic, WATCHES};
