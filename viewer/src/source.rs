//! The way to ClickHouse: as a user who may only read, within limits of time, rows and memory, a few queries at once.

use std::time::Duration;

use activity_platform::clickhouse::{Database, Error};
use serde::Deserialize;
use tokio::sync::{OnceCell, Semaphore};

use crate::frames::{self, Column, FrameError};

/// Queries that run at once, of all pages together.
const QUERIES_MAX: usize = 8;
/// Longer than the limit that ClickHouse itself keeps to, so that its own words are heard.
const QUERY_TIMEOUT: Duration = Duration::from_secs(40);
/// A page says soon that nobody answers.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);
/// What is set for each query where the user's own profile leaves it open. A user in ClickHouse's stricter mode of reading can set nothing: there its profile
/// must hold such limits, as that of this project's own user does.
const LIMITS: [(&str, &str); 5] = [
    ("max_execution_time", "30"),
    ("max_memory_usage", "1073741824"),
    ("max_result_rows", "50000"),
    ("max_rows_to_read", "2000000000"),
    ("max_result_bytes", "33554432"),
];

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// ClickHouse says so, or nobody answers.
    #[error(transparent)]
    ClickHouse(#[from] Error),
    /// The answer cannot be drawn.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

/// ClickHouse, for reading.
pub(crate) struct Source {
    database: Database,
    turns: Semaphore,
    settings: OnceCell<Vec<(&'static str, &'static str)>>,
}

impl Source {
    pub(crate) fn new(database: Database) -> Self {
        Self {
            database,
            turns: Semaphore::new(QUERIES_MAX),
            settings: OnceCell::new(),
        }
    }

    /// Runs a query and reads its columns.
    pub(crate) async fn columns(&self, sql: &str) -> Result<Vec<Column>, SourceError> {
        Ok(frames::read(&self.json(sql).await?)?)
    }

    /// Runs a query; its answer in the format JSONCompact.
    pub(crate) async fn json(&self, sql: &str) -> Result<Vec<u8>, SourceError> {
        // It is never closed.
        let _turn = self.turns.acquire().await;
        let settings = self.settings().await?;
        let sql = sql.trim().trim_end_matches(';');
        let answer = self
            .database
            .read(sql, "JSONCompact", settings, QUERY_TIMEOUT);
        Ok(answer.await?)
    }

    /// Whether somebody answers and lets this user in.
    pub(crate) async fn look(&self) -> Result<(), Error> {
        self.mode().await.map(drop)
    }

    /// The server's setting `readonly` for this user: 0 writes, 1 reads, 2 reads and may set.
    async fn mode(&self) -> Result<u8, Error> {
        #[derive(Deserialize)]
        struct Row {
            mode: u8,
        }
        let sql = "SELECT toUInt8(getSetting('readonly')) AS mode";
        let answer = self
            .database
            .read(sql, "JSONEachRow", &[], LOOK_TIMEOUT)
            .await?;
        let row: Result<Row, _> = serde_json::from_slice(&answer);
        let row = row.map_err(|error| Error::Answer(error.to_string()))?;
        Ok(row.mode)
    }

    async fn settings(&self) -> Result<&[(&'static str, &'static str)], Error> {
        let settle = || async {
            let mut settings = match self.mode().await? {
                1 => return Ok(Vec::new()),
                2 => Vec::new(),
                _ => vec![("readonly", "1")],
            };
            settings.extend(LIMITS);
            Ok::<_, Error>(settings)
        };
        self.settings
            .get_or_try_init(settle)
            .await
            .map(Vec::as_slice)
    }
}
