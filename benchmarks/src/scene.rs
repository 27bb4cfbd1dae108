//! What the contenders of a comparison share: the real services, a topic full of clicks, an empty table, and the account of what they use.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use activity_devstack::{Ports, Process, Service, Spawner, Stack, StackOptions, Stderr, bound};
use activity_operator::setup;
use activity_platform::clickhouse::Database;
use activity_platform::kafka::{self, TopicToCreate};
use activity_platform::registry::Registry;
use activity_platform::security::KafkaSecurity;
use activity_platform::settings::{ClickHouseSettings, KafkaSettings, RegistrySettings, Targets};
use activity_runtime::dead_letter::dead_letter_topic;
use activity_runtime::resubmit::resubmit_topic;
use activity_schemas::{CLICKS, Encoder, EventKind};
use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::account::{Meter, peak_memory_bytes};
use crate::fill::{self, Filling};
use crate::plain::PLAIN;

const DATABASE: &str = "bench";
/// Names of our processes in a sample, as many as groups can be measured at once.
pub const CONSUMERS: [&str; 4] = ["consumer", "consumer_2", "consumer_3", "consumer_4"];
const TABLE_SQL: &str = include_str!("../clickhouse/plain.sql");
const POLL: Duration = Duration::from_millis(100);
/// Nothing here takes this long; whatever does, hangs.
const PATIENCE: Duration = Duration::from_secs(1200);

/// What a contender used for one reading of the whole topic.
#[derive(Clone, Debug, Serialize)]
pub struct Sample {
    /// From its start to the last row.
    pub seconds: f64,
    /// CPU-seconds by process: `consumer`, until the last row was there; `clickhouse` and `kafka`, until ClickHouse had nothing left to merge.
    pub cpu_seconds: BTreeMap<&'static str, f64>,
    /// Of the consumer; of ClickHouse where that reads itself.
    pub peak_memory_bytes: u64,
    /// Parts that were written.
    pub parts: u64,
}

/// The services, the topic and the table.
pub struct Scene {
    /// Where contenders read and write.
    pub targets: Targets,
    /// A client of the database.
    pub database: Database,
    /// Rows that a contender must have written when it is done.
    pub events: u64,
    /// Partitions of the topic.
    pub partitions: u16,
    /// The services.
    pub stack: Stack,
    spawner: Spawner,
    /// Prefixes of the topics that are there.
    filled: BTreeSet<String>,
    /// How many groups there were.
    groups: AtomicU64,
    _data: TempDir,
}

impl Sample {
    /// CPU-seconds of a process; 0 where it had no part.
    pub fn of(&self, process: &str) -> f64 {
        self.cpu_seconds.get(process).copied().unwrap_or(0.0)
    }
}

impl Scene {
    /// Starts the services on a fresh folder, which goes when the scene is dropped, and fills the topic.
    pub async fn start(filling: Filling) -> anyhow::Result<Self> {
        let data = tempfile::Builder::new()
            .prefix("activity-bench-")
            .tempdir()?;
        let options = StackOptions {
            data_dir: data.path().to_owned(),
            cache_dir: None,
            executable: executable()?,
            ports: Ports::free(),
            brokers: Some(1),
            security: None,
            prometheus: None,
            // What is measured is the pipeline, not who gives way to whom.
            gives_way: false,
        };
        let stack = Stack::start(options, Arc::new(Stderr::default())).await?;
        let targets = targets(&stack);
        let database = Database::new(&targets.clickhouse)?.unhurried();
        let mut scene = Self {
            targets,
            database,
            events: 0,
            partitions: 0,
            stack,
            spawner: Spawner::new()?,
            filled: BTreeSet::new(),
            groups: AtomicU64::new(0),
            _data: data,
        };
        scene.turn_to("bench.", filling).await?;
        execute_all(&scene.database, TABLE_SQL).await?;
        Ok(scene)
    }

    /// Makes the topic with this prefix the one that is read; makes and fills it where it is not there.
    pub async fn turn_to(&mut self, topic_prefix: &str, filling: Filling) -> anyhow::Result<()> {
        self.targets.kafka.topic_prefix = topic_prefix.to_owned();
        self.events = filling.events;
        self.partitions = filling.partitions;
        if !self.filled.insert(topic_prefix.to_owned()) {
            return Ok(());
        }
        setup::run(&self.targets, filling.partitions).await?;
        let own = [dead_letter_topic(PLAIN.name), resubmit_topic(PLAIN.name)];
        let own = own.map(|name| TopicToCreate {
            name: format!("{topic_prefix}{name}"),
            partitions: 1,
            config: Vec::new(),
        });
        kafka::create_topics(&self.targets.kafka, &own).await?;
        // Views that are made anew every so often would be counted with whoever is measured then.
        self.database.execute("SYSTEM STOP VIEWS").await?;
        if filling.events > 0 {
            self.fill(filling).await?;
        }
        Ok(())
    }

    /// So many databases with the table in each, empty: the first is that of the scene.
    pub async fn databases(&self, count: usize) -> anyhow::Result<Vec<Database>> {
        let mut databases = Vec::new();
        for number in 1..=count {
            let mut targets = self.targets.clone();
            if number > 1 {
                targets.clickhouse.database = format!("{DATABASE}_{number}");
                setup::run(&targets, self.partitions).await?;
            }
            let database = Database::new(&targets.clickhouse)?.unhurried();
            execute_all(&database, TABLE_SQL).await?;
            empty(&database).await?;
            databases.push(database);
        }
        self.database.execute("SYSTEM STOP VIEWS").await?;
        Ok(databases)
    }

    /// A prefix for a group that has read nothing yet.
    pub fn fresh_group(&self) -> String {
        format!("bench.{}.", self.groups.fetch_add(1, Ordering::Relaxed))
    }

    /// Publishes clicks to the topic; waits until all are there.
    async fn fill(&self, filling: Filling) -> anyhow::Result<()> {
        let began = Instant::now();
        let bytes = self
            .filler(filling)
            .await?
            .await
            .context("the filling thread")??;
        eprintln!(
            "{} clicks of {} bytes in {} partitions, published in {:.1} s",
            filling.events,
            bytes / filling.events.max(1),
            filling.partitions,
            began.elapsed().as_secs_f64()
        );
        Ok(())
    }

    /// Begins to publish clicks on a thread of its own, which ends with the bytes of their values.
    pub async fn filler(
        &self,
        filling: Filling,
    ) -> anyhow::Result<JoinHandle<anyhow::Result<u64>>> {
        let schema_id = Registry::new(&self.targets.registry)?
            .register(EventKind::Click, &self.topic())
            .await?;
        let encoder = Encoder::new(EventKind::Click, schema_id);
        let (config, topic) = (kafka::producer_config(&self.targets.kafka)?, self.topic());
        Ok(tokio::task::spawn_blocking(move || {
            fill::publish(&config, &topic, &encoder, filling)
        }))
    }

    /// Full name of the topic that is read.
    pub fn topic(&self) -> String {
        CLICKS.full_name(&self.targets.kafka.topic_prefix)
    }

    /// As a contender finds it: nothing read, nothing written.
    pub async fn reset(&self) -> anyhow::Result<()> {
        empty(&self.database).await
    }

    /// Starts this program again with another verb, on this scene; it dies with us.
    pub async fn spawn(
        &self,
        arguments: &[&str],
        group_prefix: &str,
        database: &str,
    ) -> anyhow::Result<Process> {
        let executable = executable()?;
        let mut command = bound(&executable, None, &executable);
        command.args(arguments);
        self.environment(&mut command)?;
        command
            .env("ACTIVITY_GROUP_PREFIX", group_prefix)
            .env("ACTIVITY_DATABASE", database);
        Ok(self.spawner.spawn(command).await?)
    }

    /// Tells a process of ours where everything is.
    pub fn environment(&self, command: &mut Command) -> anyhow::Result<()> {
        command
            .env("ACTIVITY_KAFKA", self.targets.kafka.brokers()?)
            .env("ACTIVITY_REGISTRY", self.targets.registry.url()?)
            .env("ACTIVITY_CLICKHOUSE", self.targets.clickhouse.url()?)
            .env("ACTIVITY_TOPIC_PREFIX", &self.targets.kafka.topic_prefix)
            .env("ACTIVITY_DATABASE", DATABASE);
        Ok(())
    }

    /// Runs `work`, then waits until ClickHouse is at rest: what the services used meanwhile. `consumers` are
    /// further processes, which run already: what they used until `work` ended.
    pub async fn measure(
        &self,
        consumers: BTreeMap<&'static str, u32>,
        work: impl Future<Output = anyhow::Result<()>>,
    ) -> anyhow::Result<Sample> {
        let services = [
            ("kafka", Service::Kafka(1)),
            ("clickhouse", Service::ClickHouse),
        ]
        .map(|(name, service)| (name, self.stack.process_id(service).unwrap_or_default()));
        let parts_before = self.parts_ever().await?;
        let reader = consumers.get("consumer").copied().unwrap_or(services[1].1);
        let (of_services, of_consumers) = (Meter::start(services), Meter::start(consumers));
        let began = Instant::now();
        work.await?;
        let seconds = began.elapsed().as_secs_f64();
        // What ClickHouse has left to do is not theirs.
        let mut cpu_seconds = of_consumers.read();
        self.at_rest().await?;
        cpu_seconds.extend(of_services.read());
        let sample = Sample {
            seconds,
            cpu_seconds,
            peak_memory_bytes: peak_memory_bytes(reader),
            parts: self.parts_ever().await? - parts_before,
        };
        let rows = rows(&self.database).await?;
        ensure!(rows == self.events, "{rows} rows of {} events", self.events);
        Ok(sample)
    }

    /// Waits until the table of a database has all rows.
    pub async fn wait_for_rows(&self, database: &Database) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            let rows = rows(database).await?;
            if rows >= self.events {
                return Ok(());
            }
            ensure!(
                began.elapsed() < PATIENCE,
                "{rows} of {} rows after {PATIENCE:?}",
                self.events
            );
            tokio::time::sleep(POLL).await;
        }
    }

    /// Inserted parts since the engine's start.
    async fn parts_ever(&self) -> anyhow::Result<u64> {
        number(&self.database, "SELECT sum(value) AS number FROM system.events WHERE event = 'MergeTreeDataWriterBlocks'").await
    }

    /// Waits until nothing was being merged three times in a row.
    async fn at_rest(&self) -> anyhow::Result<()> {
        let mut quiet = 0;
        while quiet < 3 {
            let merges = number(
                &self.database,
                "SELECT count() AS number FROM system.merges",
            )
            .await?;
            quiet = if merges == 0 { quiet + 1 } else { 0 };
            tokio::time::sleep(POLL * 2).await;
        }
        Ok(())
    }

    /// What takes part, with versions.
    pub async fn versions(&self) -> anyhow::Result<Vec<String>> {
        #[derive(Deserialize)]
        struct Row {
            version: String,
        }
        let rows: Vec<Row> = self.database.rows("SELECT version() AS version").await?;
        let clickhouse = rows.first().map_or("?", |row| row.version.as_str());
        let (_, librdkafka) = rdkafka::util::get_rdkafka_version();
        Ok(vec![
            format!("activity {}", env!("CARGO_PKG_VERSION")),
            format!("ClickHouse {clickhouse}"),
            format!("librdkafka {librdkafka}"),
            format!("{} cores", std::thread::available_parallelism()?),
        ])
    }

    /// Ends the services in order.
    pub async fn end(self) -> anyhow::Result<()> {
        Ok(self.stack.stop().await?)
    }
}

/// Rows of the table.
pub async fn rows(database: &Database) -> anyhow::Result<u64> {
    number(
        database,
        "SELECT count() AS number FROM {database}.plain_clicks",
    )
    .await
}

async fn number(database: &Database, sql: &str) -> anyhow::Result<u64> {
    #[derive(Deserialize)]
    struct Row {
        number: u64,
    }
    let rows: Vec<Row> = database.rows(sql).await?;
    Ok(rows.first().map_or(0, |row| row.number))
}

async fn empty(database: &Database) -> anyhow::Result<()> {
    for table in ["plain_clicks", "ledger", "snapshots"] {
        let truncated = format!("TRUNCATE TABLE {{database}}.{table} SYNC");
        database.execute(&truncated).await?;
    }
    Ok(())
}

/// Runs the statements of a file.
pub async fn execute_all(database: &Database, sql: &str) -> anyhow::Result<()> {
    for statement in sql
        .split(";\n")
        .map(str::trim)
        .filter(|text| !text.is_empty())
    {
        database
            .execute(statement)
            .await
            .with_context(|| statement.to_owned())?;
    }
    Ok(())
}

fn executable() -> anyhow::Result<PathBuf> {
    std::env::current_exe().context("where this program is")
}

fn targets(stack: &Stack) -> Targets {
    let endpoints = stack.endpoints();
    Targets {
        kafka: KafkaSettings {
            kafka: Some(endpoints.kafka.clone()),
            topic_prefix: String::new(),
            group_prefix: String::new(),
            security: KafkaSecurity::default(),
        },
        registry: RegistrySettings {
            registry: Some(endpoints.registry.clone()),
            registry_ca_file: None,
            registry_user: None,
            registry_password_file: None,
        },
        clickhouse: ClickHouseSettings {
            clickhouse: Some(endpoints.clickhouse.clone()),
            database: DATABASE.to_owned(),
            clickhouse_user: "default".to_owned(),
            clickhouse_password_file: None,
            clickhouse_ca_file: None,
        },
    }
}
