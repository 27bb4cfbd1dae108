//! Logs: lowercase fragments with structured fields, to stderr, colours only on a terminal.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Variable that sets levels, in tracing's filter syntax: `info,activity_runtime=debug`.
pub const FILTER_VARIABLE: &str = "ACTIVITY_LOG";

/// Starts logging for this process; `default_filter` holds unless [`FILTER_VARIABLE`] is set.
pub fn start(default_filter: &str) {
    let filter =
        EnvFilter::try_from_env(FILTER_VARIABLE).unwrap_or_else(|_| EnvFilter::new(default_filter));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .finish();
    // A second start in one process (tests) keeps the first one's subscriber.
    let _ = tracing::subscriber::set_global_default(subscriber);
}
