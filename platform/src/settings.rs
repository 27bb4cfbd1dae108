//! Where the outside is: one struct per concern, filled from flags, environment and file (in this order of precedence), documented where it is declared.

use std::path::PathBuf;

use clap::Args;

use crate::advice::after_io;
use crate::security::KafkaSecurity;

/// A setting that is needed and was given nowhere.
#[derive(Debug, thiserror::Error)]
#[error(
    "no address for {what}: start `activity up` on this data folder, or pass {flag} (environment: {variable})"
)]
pub struct MissingAddress {
    what: &'static str,
    flag: &'static str,
    variable: &'static str,
}

/// Settings that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// One that is needed is missing.
    #[error(transparent)]
    Address(#[from] MissingAddress),
    /// A file that one names cannot be read.
    #[error("{flag} {path}: {error}{hint}", path = path.display(), hint = after_io(error))]
    File {
        /// The flag.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// One is wrong, or does not fit another: what, and how to mend it.
    #[error("{0}")]
    Wrong(String),
}

/// Kafka.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Kafka")]
pub struct KafkaSettings {
    /// Brokers to begin with. Default: those of the `activity up` that runs on the data folder.
    #[arg(
        long = "kafka",
        env = "ACTIVITY_KAFKA",
        value_name = "HOST:PORT[,...]",
        global = true
    )]
    pub kafka: Option<String>,
    /// Stands before every topic's name.
    #[arg(
        long,
        env = "ACTIVITY_TOPIC_PREFIX",
        value_name = "PREFIX",
        default_value = "activity.",
        global = true
    )]
    pub topic_prefix: String,
    /// Stands before every consumer group's id in Kafka, where one Kafka serves several installations.
    #[arg(
        long,
        env = "ACTIVITY_GROUP_PREFIX",
        value_name = "PREFIX",
        default_value = "",
        global = true
    )]
    pub group_prefix: String,
    /// TLS and the user.
    #[command(flatten)]
    pub security: KafkaSecurity,
}

impl KafkaSettings {
    /// The brokers.
    ///
    /// # Errors
    /// If they were given nowhere.
    pub fn brokers(&self) -> Result<&str, MissingAddress> {
        self.kafka.as_deref().ok_or(MissingAddress {
            what: "Kafka",
            flag: "--kafka",
            variable: "ACTIVITY_KAFKA",
        })
    }
}

/// The schema registry.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Schema registry")]
pub struct RegistrySettings {
    /// Base URL of a Confluent-compatible registry. Default: that of the `activity up` that runs on the data folder.
    #[arg(
        long = "registry",
        env = "ACTIVITY_REGISTRY",
        value_name = "URL",
        global = true
    )]
    pub registry: Option<String>,
    /// PEM file of the authorities that the registry's certificate must come from, where its URL is https. Default: the system's.
    #[arg(
        long,
        env = "ACTIVITY_REGISTRY_CA_FILE",
        value_name = "FILE",
        global = true
    )]
    pub registry_ca_file: Option<PathBuf>,
    /// Registry user, for basic authentication.
    #[arg(
        long,
        env = "ACTIVITY_REGISTRY_USER",
        value_name = "NAME",
        global = true
    )]
    pub registry_user: Option<String>,
    /// File that holds the user's password.
    #[arg(
        long,
        env = "ACTIVITY_REGISTRY_PASSWORD_FILE",
        value_name = "FILE",
        global = true
    )]
    pub registry_password_file: Option<PathBuf>,
}

impl RegistrySettings {
    /// The registry's base URL, without a slash at the end.
    ///
    /// # Errors
    /// If it was given nowhere.
    pub fn url(&self) -> Result<&str, MissingAddress> {
        let url = self.registry.as_deref().ok_or(MissingAddress {
            what: "the schema registry",
            flag: "--registry",
            variable: "ACTIVITY_REGISTRY",
        })?;
        Ok(url.trim_end_matches('/'))
    }
}

/// ClickHouse.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "ClickHouse")]
pub struct ClickHouseSettings {
    /// URL of ClickHouse's HTTP interface. Default: that of the `activity up` that runs on the data folder.
    #[arg(
        long = "clickhouse",
        env = "ACTIVITY_CLICKHOUSE",
        value_name = "URL",
        global = true
    )]
    pub clickhouse: Option<String>,
    /// Database that holds all tables.
    #[arg(
        long,
        env = "ACTIVITY_DATABASE",
        value_name = "NAME",
        default_value = "activity",
        global = true
    )]
    pub database: String,
    /// ClickHouse user.
    #[arg(
        long,
        env = "ACTIVITY_CLICKHOUSE_USER",
        value_name = "NAME",
        default_value = "default",
        global = true
    )]
    pub clickhouse_user: String,
    /// File that holds the user's password.
    #[arg(
        long,
        env = "ACTIVITY_CLICKHOUSE_PASSWORD_FILE",
        value_name = "FILE",
        global = true
    )]
    pub clickhouse_password_file: Option<PathBuf>,
    /// PEM file of the authorities that ClickHouse's certificate must come from, where its URL is https. Default: the system's.
    #[arg(
        long,
        env = "ACTIVITY_CLICKHOUSE_CA_FILE",
        value_name = "FILE",
        global = true
    )]
    pub clickhouse_ca_file: Option<PathBuf>,
}

impl ClickHouseSettings {
    /// The URL of the HTTP interface.
    ///
    /// # Errors
    /// If it was given nowhere.
    pub fn url(&self) -> Result<&str, MissingAddress> {
        self.clickhouse.as_deref().ok_or(MissingAddress {
            what: "ClickHouse",
            flag: "--clickhouse",
            variable: "ACTIVITY_CLICKHOUSE",
        })
    }
}

/// What a process shows of itself, and answers, over HTTP.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Metrics")]
pub struct MetricsSettings {
    /// Where this process serves /metrics, /healthz, /readyz and its groups' look-ups (/recommendations/{user}); port 0 takes a free one.
    #[arg(
        long,
        env = "ACTIVITY_METRICS",
        value_name = "HOST:PORT",
        default_value = "127.0.0.1:0"
    )]
    pub metrics: std::net::SocketAddr,
    /// Where other processes of a group send those who look up what this one owns. Default: --metrics, by this machine's name where that is every address.
    #[arg(long, env = "ACTIVITY_REACHED_AT", value_name = "HOST:PORT")]
    pub reached_at: Option<String>,
}

impl MetricsSettings {
    /// Where others reach the server that is bound to this address.
    pub fn reached_at(&self, bound: std::net::SocketAddr) -> String {
        match (&self.reached_at, nix::unistd::gethostname()) {
            (Some(given), _) => given.clone(),
            (None, Ok(host)) if bound.ip().is_unspecified() => {
                format!("{}:{}", host.to_string_lossy(), bound.port())
            }
            (None, _) => bound.to_string(),
        }
    }
}

/// Everything outside that a verb may need.
#[derive(Args, Clone, Debug)]
pub struct Targets {
    /// Kafka.
    #[command(flatten)]
    pub kafka: KafkaSettings,
    /// The registry.
    #[command(flatten)]
    pub registry: RegistrySettings,
    /// ClickHouse.
    #[command(flatten)]
    pub clickhouse: ClickHouseSettings,
}
