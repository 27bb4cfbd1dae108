//! The HTTP clients of ClickHouse and the registry: which authorities they trust, and their errors with all causes.

use std::sync::Arc;
use std::time::Duration;

use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};

use crate::settings::SettingsError;

/// As the clickhouse crate's own client for connections without TLS has it.
const TCP_KEEPALIVE: Duration = Duration::from_secs(60);
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(2);

/// A client of ClickHouse over TLS that trusts these authorities, or the system's.
///
/// # Errors
/// If they cannot be used.
pub(crate) fn clickhouse_over_tls(
    authorities: Option<Vec<CertificateDer<'static>>>,
) -> Result<clickhouse::Client, SettingsError> {
    let wrong = |error: &dyn std::error::Error| SettingsError::Wrong(format!("TLS: {error}"));
    let provider = aws_lc_rs::default_provider();
    let builder = HttpsConnectorBuilder::new();
    let builder = match authorities {
        None => builder
            .with_provider_and_native_roots(provider)
            .map_err(|error| wrong(&error))?,
        Some(certificates) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates {
                roots.add(certificate).map_err(|error| wrong(&error))?;
            }
            let config = ClientConfig::builder_with_provider(Arc::new(provider))
                .with_safe_default_protocol_versions()
                .map_err(|error| wrong(&error))?
                .with_root_certificates(roots)
                .with_no_client_auth();
            builder.with_tls_config(config)
        }
    };
    let mut tcp = HttpConnector::new();
    tcp.set_keepalive(Some(TCP_KEEPALIVE));
    tcp.enforce_http(false);
    let connector = builder.https_only().enable_http1().wrap_connector(tcp);
    let client = Client::builder(TokioExecutor::new())
        .pool_idle_timeout(POOL_IDLE_TIMEOUT)
        .build(connector);
    Ok(clickhouse::Client::with_http_client(client))
}

/// The beginnings of a client of the registry at this address, which trusts these authorities, or the system's.
///
/// # Errors
/// If they cannot be used.
pub(crate) fn registry_client(
    url: &str,
    authorities: Option<&[CertificateDer<'static>]>,
    timeout: Duration,
) -> Result<reqwest::ClientBuilder, reqwest::Error> {
    let builder = reqwest::Client::builder().timeout(timeout).no_proxy();
    let certificates = match authorities {
        Some(certificates) => certificates,
        None if url.starts_with("https:") => return Ok(builder),
        // Reading the system's takes a third of a group's start.
        None => &[],
    };
    let certificates: Result<Vec<_>, _> = certificates
        .iter()
        .map(|certificate| reqwest::Certificate::from_der(certificate))
        .collect();
    Ok(builder.tls_certs_only(certificates?))
}

/// An error with all its causes: the outermost alone says that something failed, the innermost says what.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}
