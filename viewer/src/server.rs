//! HTTP: the pages, their three files, and the two questions that a page asks (a dashboard opened, a panel's answer).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use activity_platform::clickhouse::{Database, Error as ClickHouseError};
use activity_platform::settings::ClickHouseSettings;
use axum::extract::{Path, Query, Request as HttpRequest, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use bytes::Bytes;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::pages;
use crate::settings::ViewerSettings;
use crate::source::Source;
use crate::viewer::{Answer, Opened, Request, ViewError, Viewer};
use crate::{DashboardError, dashboards};

const SCRIPT: &str = include_str!("../assets/viewer.js");
const STYLE: &str = include_str!("../assets/viewer.css");
const ICON: &str = include_str!("../assets/icon.svg");
/// A page loads what this server serves, and nothing else. Charts and the grid set styles of their own.
const POLICY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// Why pages cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// ClickHouse cannot be spoken to as configured.
    #[error(transparent)]
    ClickHouse(#[from] ClickHouseError),
    /// A dashboard cannot be read.
    #[error(transparent)]
    Dashboard(#[from] DashboardError),
    /// The address cannot be had.
    #[error("--listen {address}: {error}")]
    Address {
        /// Which.
        address: SocketAddr,
        /// Why.
        error: std::io::Error,
    },
}

type Shared = State<Arc<Viewer>>;

/// Serves the pages until `stop`; returns the address. `charts` is the chart library, as a script.
///
/// # Errors
/// [`ServeError`]; whether ClickHouse is there is not asked, a page says it.
pub async fn serve(
    settings: &ViewerSettings,
    clickhouse: &ClickHouseSettings,
    charts: Bytes,
    stop: CancellationToken,
) -> Result<SocketAddr, ServeError> {
    let database = Database::new(&settings.clickhouse(clickhouse))?;
    let folder = settings.dashboards.clone();
    // A folder that cannot be read is said now; it is read again at each page.
    dashboards::load(folder.as_deref())?;
    let listener = listen(&settings.addresses()).await?;
    let address = listener.local_addr().map_err(|error| ServeError::Address {
        address: settings.listen.unwrap_or(([127, 0, 0, 1], 0).into()),
        error,
    })?;
    let router = router(
        Arc::new(Viewer::new(folder, Source::new(database), charts)),
        address,
    );
    tokio::spawn(async move {
        let served = axum::serve(listener, router)
            .with_graceful_shutdown(stop.cancelled_owned())
            .await;
        if let Err(error) = served {
            tracing::error!(%error, "the dashboards' server ended");
        }
    });
    Ok(address)
}

async fn listen(addresses: &[SocketAddr]) -> Result<TcpListener, ServeError> {
    let mut refused = None;
    for address in addresses {
        match TcpListener::bind(address).await {
            Ok(listener) => return Ok(listener),
            Err(error) => {
                let address = *address;
                refused = Some(ServeError::Address { address, error });
            }
        }
    }
    Err(refused.unwrap_or(ServeError::Address {
        address: ([0, 0, 0, 0], 0).into(),
        error: std::io::ErrorKind::AddrNotAvailable.into(),
    }))
}

fn router(viewer: Arc<Viewer>, address: SocketAddr) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/d/{uid}", get(dashboard))
        // Grafana writes a readable name behind; it means nothing.
        .route("/d/{uid}/{name}", get(named_dashboard))
        .route("/api/dashboards/{uid}", get(open))
        .route("/api/dashboards/{uid}/panels/{id}", get(panel))
        .route(
            "/assets/viewer.js",
            get(|| file("text/javascript; charset=utf-8", SCRIPT)),
        )
        .route(
            "/assets/viewer.css",
            get(|| file("text/css; charset=utf-8", STYLE)),
        )
        .route("/assets/icon.svg", get(|| file("image/svg+xml", ICON)))
        .route("/assets/charts.js", get(charts))
        .route("/healthz", get(|| async { "ok\n" }))
        .fallback(|| async { pages::not_found("page") })
        .with_state(viewer)
        .layer(middleware::from_fn(
            move |request: HttpRequest, next: Next| guard(address.ip(), request, next),
        ))
}

/// Says what pages may load, and turns away who reached a loopback address by another name: a page of elsewhere, whose name was made to point here.
async fn guard(bound: IpAddr, request: HttpRequest, next: Next) -> Response {
    let host = request
        .headers()
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    if bound.is_loopback() && !host.is_some_and(is_local) {
        return (
            StatusCode::MISDIRECTED_REQUEST,
            "this address is for 127.0.0.1 and localhost\n",
        )
            .into_response();
    }
    let mut response = next.run(request).await;
    let said = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
    ];
    let headers = response.headers_mut();
    for (name, value) in said {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}

fn is_local(host: &str) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    name.eq_ignore_ascii_case("localhost")
        || name
            .trim_matches(['[', ']'])
            .parse::<IpAddr>()
            .is_ok_and(|ip| ip.is_loopback())
}

async fn file(kind: &'static str, content: &'static str) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, kind)], content)
}

async fn charts(State(viewer): Shared) -> impl IntoResponse {
    let said = [
        (header::CONTENT_TYPE, "text/javascript; charset=utf-8"),
        // A megabyte that changes with this program alone.
        (header::CACHE_CONTROL, "max-age=3600"),
    ];
    (said, viewer.charts.clone())
}

async fn index(State(viewer): Shared) -> Response {
    match viewer.dashboards().await {
        Ok(all) => Html(pages::index(&all)).into_response(),
        Err(error) => pages::failure(&error),
    }
}

async fn named_dashboard(viewer: Shared, Path((uid, _)): Path<(String, String)>) -> Response {
    dashboard(viewer, Path(uid)).await
}

async fn dashboard(State(viewer): Shared, Path(uid): Path<String>) -> Response {
    if let Err(error) = viewer.look().await {
        return pages::no_clickhouse(&error);
    }
    match viewer.dashboards().await {
        Ok(all) => match all.iter().find(|dashboard| dashboard.uid == uid) {
            Some(found) => Html(pages::dashboard(found, &all)).into_response(),
            None => pages::not_found("dashboard"),
        },
        Err(error) => pages::failure(&error),
    }
}

type Parameters = Query<Vec<(String, String)>>;

async fn open(
    State(viewer): Shared,
    Path(uid): Path<String>,
    Query(parameters): Parameters,
) -> Result<Json<Opened>, Refusal> {
    Ok(Json(viewer.open(&uid, &Request::read(parameters)).await?))
}

/// A query that fails is an answer too: the panel shows why.
async fn panel(
    State(viewer): Shared,
    Path((uid, id)): Path<(String, u64)>,
    Query(parameters): Parameters,
) -> Result<Json<Answer>, Refusal> {
    Ok(Json(
        viewer.panel(&uid, id, &Request::read(parameters)).await?,
    ))
}

/// What is said instead of an answer.
struct Refusal(ViewError);

impl From<ViewError> for Refusal {
    fn from(error: ViewError) -> Self {
        Self(error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = match &self.0 {
            ViewError::Missing(_) => StatusCode::NOT_FOUND,
            ViewError::Time(_) => StatusCode::BAD_REQUEST,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let said = serde_json::json!({ "error": self.0.to_string() });
        (status, Json(said)).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_local() {
        for host in [
            "127.0.0.1:3000",
            "localhost:3000",
            "LOCALHOST",
            "[::1]:3000",
            "127.0.0.2",
        ] {
            assert!(is_local(host), "{host}");
        }
        for host in [
            "evil.example:3000",
            "10.0.0.1:3000",
            "localhost.evil.example",
            "",
        ] {
            assert!(!is_local(host), "{host}");
        }
    }
}
