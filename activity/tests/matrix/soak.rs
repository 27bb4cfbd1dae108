//! The soak.
use std::process::ExitCode;
use std::time::Duration;
pub fn run(_length: Duration, _seed: Option<u64>, _rate: f64) -> ExitCode {
    ExitCode::FAILURE
}
