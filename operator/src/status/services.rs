//! Whether the services answer, and what they say of themselves.

use std::time::Duration;

use activity_platform::clickhouse::Database;
use activity_platform::kafka::Inspector;
use activity_platform::registry::Registry;
use activity_platform::settings::Targets;
use serde::{Deserialize, Serialize};

/// Whoever takes longer is as good as down to those who wait for it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(12);

pub(super) const KAFKA: &str = "kafka";
pub(super) const REGISTRY: &str = "registry";
pub(super) const CLICKHOUSE: &str = "clickhouse";
pub(super) const PROMETHEUS: &str = "prometheus";

/// A service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ServiceStatus {
    /// `kafka`, `registry`, `clickhouse` or `prometheus`.
    pub name: String,
    /// Where it was asked.
    pub address: Option<String>,
    /// Whether it answers.
    pub up: bool,
    /// Its version, where it tells it.
    pub version: Option<String>,
    /// What else there is to say, or why it does not answer.
    pub detail: String,
    /// Memory that it has resident, where it is known.
    pub memory_bytes: Option<u64>,
}

/// What a service that answers says.
#[derive(Default)]
struct Answer {
    version: Option<String>,
    detail: String,
    memory_bytes: Option<u64>,
}

/// Asks all at once.
pub(super) async fn look(targets: &Targets, prometheus: Option<&str>) -> Vec<ServiceStatus> {
    let (kafka, registry, clickhouse, prometheus) = tokio::join!(
        told(KAFKA, targets.kafka.kafka.clone(), kafka(targets)),
        told(
            REGISTRY,
            targets.registry.registry.clone(),
            registry(targets)
        ),
        told(
            CLICKHOUSE,
            targets.clickhouse.clickhouse.clone(),
            clickhouse(targets)
        ),
        async {
            match prometheus {
                Some(url) => {
                    Some(told(PROMETHEUS, Some(url.to_owned()), ask_prometheus(url)).await)
                }
                None => None,
            }
        },
    );
    [kafka, registry, clickhouse]
        .into_iter()
        .chain(prometheus)
        .collect()
}

async fn told(
    name: &str,
    address: Option<String>,
    asked: impl Future<Output = Result<Answer, String>>,
) -> ServiceStatus {
    let answer = tokio::time::timeout(ANSWER_TIMEOUT, asked).await;
    let answer = answer.unwrap_or_else(|_| Err("does not answer in time".to_owned()));
    let up = answer.is_ok();
    let answer = answer.unwrap_or_else(|why| Answer {
        detail: why,
        ..Answer::default()
    });
    ServiceStatus {
        name: name.to_owned(),
        address,
        up,
        version: answer.version,
        detail: answer.detail,
        memory_bytes: answer.memory_bytes,
    }
}

async fn kafka(targets: &Targets) -> Result<Answer, String> {
    let kafka = targets.kafka.clone();
    let ask = move || Inspector::new(&kafka, "activity-reader")?.brokers();
    let brokers = tokio::task::spawn_blocking(ask).await;
    let brokers = brokers.map_err(|error| error.to_string())?;
    let brokers = brokers.map_err(|error| error.to_string())?;
    Ok(Answer {
        detail: format!(
            "{brokers} {}",
            if brokers == 1 { "broker" } else { "brokers" }
        ),
        ..Answer::default()
    })
}

async fn registry(targets: &Targets) -> Result<Answer, String> {
    let registry = Registry::new(&targets.registry).map_err(|error| error.to_string())?;
    let subjects = registry
        .subjects()
        .await
        .map_err(|error| error.to_string())?;
    Ok(Answer {
        version: registry.version().await,
        detail: format!("{} subjects", subjects.len()),
        memory_bytes: None,
    })
}

async fn clickhouse(targets: &Targets) -> Result<Answer, String> {
    #[derive(Deserialize)]
    struct Said {
        version: String,
        rows: u64,
    }
    #[derive(Deserialize)]
    struct Memory {
        bytes: f64,
    }
    let database = Database::new(&targets.clickhouse).map_err(|error| error.to_string())?;
    let sql = format!(
        "SELECT version() AS version, toUInt64(sum(rows)) AS rows FROM system.parts WHERE active AND database = {}",
        activity_platform::clickhouse::quoted(database.name())
    );
    let said: Vec<Said> = database
        .rows(&sql)
        .await
        .map_err(|error| error.to_string())?;
    let said = said.into_iter().next().ok_or("it answers nothing")?;
    // Not every engine has this table; then others may know.
    let memory =
        "SELECT value AS bytes FROM system.asynchronous_metrics WHERE metric = 'MemoryResident'";
    let memory: Vec<Memory> = database.rows(memory).await.unwrap_or_default();
    Ok(Answer {
        version: Some(said.version),
        detail: format!("{} rows in database {}", said.rows, database.name()),
        memory_bytes: memory.first().map(|memory| memory.bytes as u64),
    })
}

async fn ask_prometheus(url: &str) -> Result<Answer, String> {
    #[derive(Deserialize)]
    struct Said {
        data: Build,
    }
    #[derive(Deserialize)]
    struct Build {
        version: String,
    }
    let url = format!("{}/api/v1/status/buildinfo", url.trim_end_matches('/'));
    let said: Said = super::alerts::get(&url).await?;
    Ok(Answer {
        version: Some(said.data.version),
        ..Answer::default()
    })
}
