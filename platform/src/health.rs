//! What a process shows of itself: `/metrics`, `/healthz` (it runs), `/readyz` (it does its work, or why not).

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::slice::wish_for_short_slices;

/// Parts of the process that are not ready, each with the reason. Cheap to clone; all clones are one.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Mutex<BTreeMap<String, String>>>);

impl Readiness {
    /// The part does its work.
    pub fn ready(&self, part: &str) {
        self.lock().remove(part);
    }

    /// The part does not do its work, and why.
    pub fn not_ready(&self, part: &str, why: impl Into<String>) {
        self.lock().insert(part.to_owned(), why.into());
    }

    /// What is not ready, by part.
    pub fn reasons(&self) -> BTreeMap<String, String> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves the three pages, and `more` beside them, until `stop`; returns the address it listens on. On a thread of its own, which is let in soon: whoever asks
/// does not wait for what the process does for its groups.
///
/// # Errors
/// If the address cannot be bound, or the thread cannot be started.
pub fn serve(
    address: SocketAddr,
    metrics: Arc<Metrics>,
    readiness: Readiness,
    more: axum::Router,
    stop: CancellationToken,
) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let router = axum::Router::new()
        .route("/metrics", get(serve_metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(serve_readiness))
        .with_state((metrics, readiness))
        .merge(more);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let serve = async move {
        axum::serve(tokio::net::TcpListener::from_std(listener)?, router)
            .with_graceful_shutdown(stop.cancelled_owned())
            .await
    };
    thread::Builder::new()
        .name("http".to_owned())
        .spawn(move || {
            wish_for_short_slices();
            if let Err(error) = runtime.block_on(serve) {
                tracing::error!(%error, "metrics server ended");
            }
        })?;
    Ok(address)
}

async fn serve_metrics(State((metrics, _)): State<(Arc<Metrics>, Readiness)>) -> impl IntoResponse {
    (
        [(
            header::CONTENT_TYPE,
            "text/plain; version=0.0.4; charset=utf-8",
        )],
        metrics.render(),
    )
}

async fn serve_readiness(
    State((_, readiness)): State<(Arc<Metrics>, Readiness)>,
) -> impl IntoResponse {
    let reasons = readiness.reasons();
    if reasons.is_empty() {
        return (StatusCode::OK, "ready\n".to_owned());
    }
    let text = reasons
        .iter()
        .map(|(part, why)| format!("{part}: {why}\n"))
        .collect();
    (StatusCode::SERVICE_UNAVAILABLE, text)
}
