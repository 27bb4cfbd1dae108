//! Events out: the traffic model, the replay of recorded data, and their publication to Kafka.
//!
//! - [`traffic`]: what people do, and attackers among them, seeded and pure.
//! - [`mod@replay`]: recorded data as events, by a mapping file.
//! - [`source`]: what both are to the publication.
//! - [`mod@publish`]: into Kafka, at a [`Pace`], with counts of what was acknowledged.
//! - [`args`]: what the verbs `simulate` and `replay` of the command line are asked for; [`verbs`] runs them.

pub mod args;
mod encode;
mod pace;
pub mod publish;
pub mod replay;
pub mod source;
pub mod traffic;
pub mod verbs;

pub use args::{BackFill, ReplayArgs, SimulateArgs};
pub use pace::Pace;
pub use publish::{Progress, PublishError, Published, Publisher, Run};
pub use verbs::{measure_oracle, replay, simulate};
