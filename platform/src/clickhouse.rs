//! ClickHouse over HTTP: queries that answer in JSON, and inserts of ready-made Native blocks under the promise's settings.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clickhouse::error::Error as ClientError;
use serde::de::DeserializeOwned;

use crate::advice::{Known, after_clickhouse, after_connection, is_fatal};
use crate::fault::{self, Point};
use crate::http::{chain, clickhouse_over_tls};
use crate::security::{certificates, http_problem, password};
use crate::settings::{ClickHouseSettings, SettingsError};

/// Longest slice of a block that is handed to the HTTP client at once.
const SLICE_BYTES_MAX: usize = 1024 * 1024;
/// How long a query that our own processes ask may take.
const QUERY_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a statement that moves whole tables may take.
const MOVE_TIMEOUT: Duration = Duration::from_secs(24 * 3600);
/// How long a patient client asks again while nobody answers: longer than a service needs to be started again.
const PATIENCE: Duration = Duration::from_secs(10);
const PATIENCE_STEP: Duration = Duration::from_millis(200);

/// What goes wrong with ClickHouse.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No ClickHouse was given, or it cannot be spoken to as configured.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// It does not answer. Whether an insert took effect is then unknown.
    #[error("clickhouse does not answer: {0}{hint}", hint = after_connection(.0))]
    Unreachable(String),
    /// It answered with an error. An insert may still have taken effect in part.
    #[error("clickhouse: {0}{hint}", hint = after_clickhouse(.0))]
    Server(String),
    /// It answered something else than was asked for.
    #[error("clickhouse answered unexpectedly: {0}")]
    Answer(String),
}

impl From<ClientError> for Error {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::BadResponse(text) => Error::Server(text.trim().to_owned()),
            ClientError::Network(cause) => Error::Unreachable(chain(&*cause)),
            ClientError::TimedOut => Error::Unreachable("timeout expired".to_owned()),
            other => Error::Answer(other.to_string()),
        }
    }
}

/// A client of one ClickHouse and one database.
#[derive(Clone)]
pub struct Database {
    client: clickhouse::Client,
    name: String,
    patience: Duration,
    query_timeout: Duration,
}

/// One insert of one block.
#[derive(Clone, Debug)]
pub struct Insert<'a> {
    /// Table, without the database.
    pub table: &'a str,
    /// One Native block, in pieces that are sent one after the other.
    pub block: Arc<[Bytes]>,
    /// `insert_deduplication_token`: the same block under the same token is there once.
    pub token: &'a str,
    /// How long it may take before its outcome counts as unknown.
    pub timeout: Duration,
}

impl Database {
    /// Makes the client; nothing is sent yet.
    ///
    /// # Errors
    /// If no ClickHouse was given, or the settings do not fit together or name a file that cannot be read.
    pub fn new(settings: &ClickHouseSettings) -> Result<Self, Error> {
        let url = settings.url().map_err(SettingsError::from)?;
        let ca_file = settings.clickhouse_ca_file.as_deref();
        if let Some(problem) = http_problem("clickhouse", url, ca_file) {
            return Err(SettingsError::Wrong(problem).into());
        }
        let client = if url.starts_with("https") {
            let authorities = ca_file.map(|path| certificates("--clickhouse-ca-file", path));
            clickhouse_over_tls(authorities.transpose()?)?
        } else {
            clickhouse::Client::default()
        };
        let mut client = client
            .with_url(url)
            .with_user(&settings.clickhouse_user)
            // LZ4 costs CPU and saves nothing on loopback.
            .with_compression(clickhouse::Compression::None);
        if let Some(path) = &settings.clickhouse_password_file {
            client = client.with_password(password("--clickhouse-password-file", path)?);
        }
        Ok(Self {
            client,
            name: settings.database.clone(),
            patience: Duration::ZERO,
            query_timeout: QUERY_TIMEOUT,
        })
    }

    /// A client for people's commands: while ClickHouse does not answer, queries and statements (not inserts) are sent again for a few seconds, so that a
    /// restart in the middle of a long check is not its end. Statements must bear being repeated.
    #[must_use]
    pub fn patient(self) -> Self {
        Self {
            patience: PATIENCE,
            ..self
        }
    }

    /// A client for statements that move whole tables: they may take as long as they need.
    #[must_use]
    pub fn unhurried(self) -> Self {
        Self {
            query_timeout: MOVE_TIMEOUT,
            ..self
        }
    }

    /// The database's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The client, with the database as its default: for typed inserts and reads. The database must exist.
    pub fn client(&self) -> clickhouse::Client {
        self.client.clone().with_database(&self.name)
    }

    /// Runs a statement that answers nothing. `{database}` in it stands for the database's name.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn execute(&self, sql: &str) -> Result<(), Error> {
        let sql = self.with_database(sql);
        self.patiently(|| async {
            let query = self
                .client
                .query_raw(&sql)
                .with_setting("wait_end_of_query", "1")
                .execute();
            tokio::time::timeout(self.query_timeout, query)
                .await
                .map_err(|_| ClientError::TimedOut)??;
            Ok(())
        })
        .await
    }

    /// Asks again while nobody answers, as long as this client's patience lasts.
    async fn patiently<T, F: Future<Output = Result<T, Error>>>(
        &self,
        ask: impl Fn() -> F,
    ) -> Result<T, Error> {
        let began = Instant::now();
        loop {
            match ask().await {
                Err(Error::Unreachable(why))
                    // A certificate that is not trusted stays so.
                    if !is_fatal(Known::Tls(&why)) && began.elapsed() < self.patience =>
                {
                    tokio::time::sleep(PATIENCE_STEP).await;
                }
                answered => return answered,
            }
        }
    }

    /// Runs a query and reads its rows, one JSON object each. `{database}` in it stands for the database's name.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn rows<T: DeserializeOwned>(&self, sql: &str) -> Result<Vec<T>, Error> {
        let answer = self.raw(sql, "JSONEachRow").await?;
        answer
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| {
                serde_json::from_slice(line).map_err(|error| {
                    Error::Answer(format!("{error} in {}", String::from_utf8_lossy(line)))
                })
            })
            .collect()
    }

    /// Runs a query and returns its answer in any of ClickHouse's formats.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn raw(&self, sql: &str, format: &str) -> Result<Vec<u8>, Error> {
        let sql = self.with_database(sql);
        self.patiently(|| async {
            let query = self
                .client
                .query_raw(&sql)
                .with_setting("output_format_json_quote_64bit_integers", "0")
                .with_setting("wait_end_of_query", "1");
            let collect = async { query.fetch_bytes(format)?.collect().await };
            let answer = tokio::time::timeout(self.query_timeout, collect)
                .await
                .map_err(|_| ClientError::TimedOut)??;
            Ok(answer.to_vec())
        })
        .await
    }

    /// Runs a query that somebody else wrote, with the database as its default and under these settings alone: a user who may only read cannot set any.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn read(
        &self,
        sql: &str,
        format: &str,
        settings: &[(&str, &str)],
        timeout: Duration,
    ) -> Result<Vec<u8>, Error> {
        let mut query = self.client().query_raw(sql);
        for (name, value) in settings {
            query = query.with_setting(*name, *value);
        }
        let collect = async { query.fetch_bytes(format)?.collect().await };
        let answer = tokio::time::timeout(timeout, collect)
            .await
            .map_err(|_| ClientError::TimedOut)??;
        Ok(answer.to_vec())
    }

    /// Inserts one Native block, all of it, under its token.
    ///
    /// # Errors
    /// [`Error`]; after any of them it is unknown whether the rows are there.
    pub async fn insert(&self, insert: &Insert<'_>) -> Result<(), Error> {
        self.send(
            &format!("INSERT INTO {{database}}.{} FORMAT Native", insert.table),
            insert,
        )
        .await
    }

    /// Inserts those rows of one Native block for which `condition` holds on the server; `structure` names the block's columns and types.
    ///
    /// # Errors
    /// [`Error`]; after any of them it is unknown whether the rows are there.
    pub async fn insert_where(
        &self,
        insert: &Insert<'_>,
        columns: &str,
        structure: &str,
        condition: &str,
    ) -> Result<(), Error> {
        let structure = structure.replace('\'', "\\'");
        let sql = format!(
            "INSERT INTO {{database}}.{} ({columns}) SELECT {columns} FROM input('{structure}') WHERE {condition} FORMAT Native",
            insert.table
        );
        self.send(&sql, insert).await
    }

    /// Inserts rows as JSON, all in one block: for the small tables that we keep about ourselves.
    ///
    /// # Errors
    /// [`Error`]; after any of them it is unknown whether the rows are there.
    pub async fn insert_json<T: serde::Serialize>(
        &self,
        table: &str,
        rows: &[T],
    ) -> Result<(), Error> {
        let mut lines = Vec::new();
        for row in rows {
            serde_json::to_writer(&mut lines, row)
                .map_err(|error| Error::Answer(format!("row for {table}: {error}")))?;
            lines.push(b'\n');
        }
        let mut request = self
            .client
            .insert_formatted_with(self.with_database(&format!(
                "INSERT INTO {{database}}.{table} FORMAT JSONEachRow"
            )))
            .with_setting("async_insert", "0")
            .with_setting("wait_end_of_query", "1")
            .with_timeouts(Some(QUERY_TIMEOUT), Some(QUERY_TIMEOUT));
        request.send(lines.into()).await?;
        request.end().await?;
        Ok(())
    }

    async fn send(&self, sql: &str, insert: &Insert<'_>) -> Result<(), Error> {
        let deadline = Some(insert.timeout);
        let mut request = self
            .client
            .insert_formatted_with(self.with_database(sql))
            .with_setting("async_insert", "0")
            .with_setting("deduplicate_insert", "enable")
            .with_setting("insert_deduplication_token", insert.token)
            // The answer comes when the rows are there, not when the body was read.
            .with_setting("wait_end_of_query", "1")
            .with_timeouts(deadline, deadline);
        for piece in insert.block.iter() {
            for start in (0..piece.len()).step_by(SLICE_BYTES_MAX) {
                let end = piece.len().min(start + SLICE_BYTES_MAX);
                request.send(piece.slice(start..end)).await?;
                fault::reach(Point::InsertBody);
            }
        }
        request.end().await?;
        Ok(())
    }

    fn with_database(&self, sql: &str) -> String {
        sql.replace("{database}", &self.name)
    }
}

/// A string as a SQL literal.
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}
