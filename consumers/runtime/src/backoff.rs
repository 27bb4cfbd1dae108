//! How long to wait before trying again.

use std::time::Duration;

/// First wait.
const FIRST: Duration = Duration::from_millis(250);
/// Longest wait: lag falls again soon after a long outage ends.
const LONGEST: Duration = Duration::from_secs(10);

/// The wait after the `attempt`th failure in a row, counted from 1: doubles up to [`LONGEST`].
pub fn backoff(attempt: u32) -> Duration {
    FIRST
        .saturating_mul(1 << attempt.saturating_sub(1).min(10))
        .min(LONGEST)
}
