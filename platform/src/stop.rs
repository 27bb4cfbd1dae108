//! The signal to stop: Ctrl-C or SIGTERM once asks for an orderly end, twice ends the process at once.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Lets the first SIGINT or SIGTERM cancel the token; the second one exits with 130. Who does not call this is ended by the first.
///
/// # Errors
/// If the process may not install signal handlers.
pub fn on_signal(token: &CancellationToken) -> std::io::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let cancelled = token.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => (),
                _ = terminate.recv() => (),
            }
            if cancelled.is_cancelled() {
                std::process::exit(130);
            }
            cancelled.cancel();
        }
    });
    Ok(())
}
