//! What an operator does: set-up, verification, status, lag, a look at the stream, dead letters, rewind, quality, new groups. Each verb gathers facts, computes a report without I/O, and leaves the printing to its caller.

pub mod dead_letters;
mod error;
pub mod forget;
pub mod fraud;
pub mod lag;
pub mod log;
mod messages;
pub mod new_group;
pub mod quality;
pub mod rewind;
pub mod setup;
pub mod status;
pub mod tail;
pub mod verify;

pub use error::Error;
