//! Owns all I/O of the consumer groups: poll, decode, batch, insert, dead letters, offsets, rebalance, snapshots, shutdown.
//!
//! [`run`] runs one group in this process until it is told to stop. Delivery is exactly once in effect: see [`claim`] and [`cycle`] for how.
//!
//! ```text
//! poll ─► lane (decode, group, batch) ─► derived messages ─► claim (commit) ─► cycle (inserts, dead letters, acknowledgements, ledger) ─► next claim
//! ```

mod anew;
pub mod assignment;
mod backoff;
pub mod batch;
mod burst;
pub mod claim;
pub mod cycle;
pub mod dead_letter;
mod decoding;
pub mod delivery;
mod driver;
mod fetch_queue;
mod fetched;
mod flush;
pub mod headers;
mod hole;
mod input;
mod intake;
mod lane;
#[cfg(test)]
mod lane_tests;
mod life;
mod look_up;
pub mod membership;
mod memory;
pub mod models;
mod open;
mod outstanding;
mod panics;
mod places;
mod reject_limit;
mod report;
pub mod resubmit;
#[cfg(test)]
mod resubmit_lane_tests;
pub mod rewinds;
mod settings;
pub mod source;
pub mod standing;
pub mod start;
pub mod store;
mod told;
mod trouble;

pub use driver::{Clients, RunError};
pub use life::{Reread, reread, run};
pub use look_up::{CLIENT_ID_PREFIX, LookUps};
pub use settings::RuntimeSettings;
