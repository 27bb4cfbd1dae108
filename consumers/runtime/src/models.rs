//! Keeps a group's models loaded while it runs: all versions before its first message, then every few seconds.
//!
//! A new version is stored [`LEAD`] before it begins to hold, so that every process has it by then. A process that ClickHouse did not answer for longer may
//! handle some messages by the version before; it could not insert anything meanwhile either.

use std::time::Duration;

use activity_consumers::{Model, Models};
use activity_platform::clickhouse::{Database, Error, quoted};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use crate::backoff::backoff;

/// Between storing a version and its beginning to hold.
pub const LEAD: Duration = Duration::from_secs(30);
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

#[derive(Deserialize)]
struct ModelRow {
    version: u32,
    effective_at_ms: i64,
    content: String,
}

/// Every version of a group's model.
///
/// # Errors
/// If ClickHouse does not answer.
pub async fn load(database: &Database, group: &str) -> Result<Vec<Model>, Error> {
    let sql = format!(
        "SELECT version, toUnixTimestamp64Milli(effective_at) AS effective_at_ms, content \
         FROM {{database}}.models FINAL WHERE consumer_group = {} ORDER BY version",
        quoted(group)
    );
    let rows: Vec<ModelRow> = database.rows(&sql).await?;
    let model = |row: ModelRow| Model {
        version: row.version,
        effective_at_ms: row.effective_at_ms,
        content: row.content.into(),
    };
    Ok(rows.into_iter().map(model).collect())
}

/// Loads them for the first time, however long it takes.
pub(crate) async fn begin(
    database: &Database,
    group: &str,
    models: &Models,
    stop: &CancellationToken,
) {
    let mut attempt = 0;
    while !stop.is_cancelled() {
        match load(database, group).await {
            Ok(loaded) => return models.replace(loaded),
            Err(error) => {
                attempt += 1;
                if attempt == 1 {
                    tracing::warn!(group, %error, "waiting for the group's models");
                }
            }
        }
        tokio::select! {
            () = stop.cancelled() => (),
            () = tokio::time::sleep(backoff(attempt)) => (),
        }
    }
}

/// Loads them again and again.
pub(crate) async fn keep(database: Database, group: &'static str, models: Models) {
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        match load(&database, group).await {
            Ok(loaded) => models.replace(loaded),
            Err(error) => tracing::debug!(group, %error, "models are not loaded anew"),
        }
    }
}
