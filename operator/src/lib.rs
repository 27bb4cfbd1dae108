//! What an operator does: set-up, verification, lag, quality. Each verb gathers facts, computes a report without I/O, and leaves the printing to its caller.

mod error;
pub mod lag;
pub mod quality;
pub mod setup;
pub mod verify;

pub use error::Error;
