//! What the services have in common: a name, an address, and the way a start is awaited.

use std::borrow::Cow;
use std::fmt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::error::Doing;
use crate::process::{Process, Spawner};
use crate::{Ports, StackError, logs};

/// A start on an idle machine takes 1 to 6 s; on one that compiles with all cores, many times that.
const START_PATIENCE: Duration = Duration::from_secs(180);
const PROBE_INTERVAL: Duration = Duration::from_millis(50);

/// One of the services of a stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Service {
    /// A broker of Apache Kafka, by its number from 1.
    Kafka(u8),
    /// The schema registry, Apicurio.
    Registry,
    /// The ClickHouse engine.
    ClickHouse,
    /// Prometheus, where the stack was asked for one and it could be had.
    Prometheus,
}

impl Service {
    /// All that a stack of so many brokers may have.
    pub(crate) fn all(brokers: u8) -> impl Iterator<Item = Self> {
        (1..=brokers)
            .map(Self::Kafka)
            .chain([Self::Registry, Self::ClickHouse, Self::Prometheus])
    }

    /// Its name in files and messages.
    pub fn name(self) -> Cow<'static, str> {
        match self {
            Self::Kafka(1) => "kafka".into(),
            Self::Kafka(broker) => format!("kafka-{broker}").into(),
            Self::Registry => "registry".into(),
            Self::ClickHouse => "clickhouse".into(),
            Self::Prometheus => "prometheus".into(),
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.name())
    }
}

/// Where clients find the services.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoints {
    /// Kafka's bootstrap servers, all brokers, as in `127.0.0.1:9092,127.0.0.1:9094`.
    pub kafka: String,
    /// Kafka's bootstrap servers over TLS, where the stack has [`crate::Security`].
    pub secure_kafka: Option<String>,
    /// The registry's Confluent-compatible API, as in `http://127.0.0.1:8081/apis/ccompat/v7`.
    pub registry: String,
    /// ClickHouse's HTTP interface, as in `http://127.0.0.1:8123`.
    pub clickhouse: String,
    /// Prometheus, as in `http://127.0.0.1:9090`, where the stack has one.
    #[serde(default)]
    pub prometheus: Option<String>,
}

impl Endpoints {
    pub(crate) fn on(ports: &Ports) -> Self {
        let servers = |ports: &[u16]| {
            let ports = ports.iter().filter(|port| **port != 0);
            let servers: Vec<_> = ports.map(|port| format!("127.0.0.1:{port}")).collect();
            servers.join(",")
        };
        Self {
            kafka: servers(&ports.kafka),
            secure_kafka: Some(servers(&ports.secure_kafka)).filter(|servers| !servers.is_empty()),
            registry: format!("http://127.0.0.1:{}/apis/ccompat/v7", ports.registry),
            clickhouse: format!("http://127.0.0.1:{}", ports.clickhouse),
            prometheus: (ports.prometheus != 0)
                .then(|| format!("http://127.0.0.1:{}", ports.prometheus)),
        }
    }
}

/// A service that is being started: who it is and where it logs to.
#[derive(Clone, Copy)]
pub(crate) struct Start<'a> {
    pub(crate) service: Service,
    pub(crate) log: &'a Path,
    pub(crate) spawner: &'a Spawner,
}

impl Start<'_> {
    /// Starts `command` and waits until `probe` is content with it; `probe` gets the byte at which this run's log
    /// begins, and says what is still amiss.
    pub(crate) async fn serving<F>(
        &self,
        command: Command,
        probe: impl Fn(u64) -> F,
    ) -> Result<Process, StackError>
    where
        F: Future<Output = Result<(), String>>,
    {
        let (process, log_from) = self.spawn(command).await?;
        let began = Instant::now();
        loop {
            let looked = probe(log_from).await;
            // Looked at first: another program may be what answered.
            if process.ended().is_some() {
                return Err(self.died(&process, log_from));
            }
            let Err(reason) = looked else {
                return Ok(process);
            };
            if began.elapsed() > START_PATIENCE {
                let (service, log) = (self.service, self.log.to_owned());
                let tail = logs::tail(self.log, log_from);
                return Err(StackError::NotReady {
                    service,
                    waited: began.elapsed(),
                    reason,
                    log,
                    tail,
                });
            }
            tokio::time::sleep(PROBE_INTERVAL).await;
        }
    }

    /// Runs `command` to its end, which must be a good one.
    pub(crate) async fn run_to_end(&self, command: Command) -> Result<(), StackError> {
        let (mut process, log_from) = self.spawn(command).await?;
        match process.wait().await {
            Some(status) if status.success() => Ok(()),
            _ => Err(self.died(&process, log_from)),
        }
    }

    async fn spawn(&self, mut command: Command) -> Result<(Process, u64), StackError> {
        let (log, opening) = (self.log, || format!("opening {}", self.log.display()));
        let out = logs::open(log).doing(opening)?;
        let log_from = out.metadata().doing(opening)?.len();
        command.stderr(out.try_clone().doing(opening)?).stdout(out);
        let process = self
            .spawner
            .spawn(command)
            .await
            .doing(|| format!("starting {}", self.service))?;
        Ok((process, log_from))
    }

    fn died(&self, process: &Process, log_from: u64) -> StackError {
        let outcome = process
            .ended()
            .map_or_else(|| "it is gone".to_owned(), |status| status.to_string());
        let (service, log) = (self.service, self.log.to_owned());
        StackError::Died {
            service,
            outcome,
            log,
            tail: logs::tail(self.log, log_from),
        }
    }
}

/// Reduces a command to what a service needs: the user's environment must not configure it by accident.
pub(crate) fn isolate(command: &mut Command, folder: &Path) {
    command
        .env_clear()
        .current_dir(folder)
        .stdin(Stdio::null())
        .env("LANG", "C.UTF-8")
        .env("TZ", "UTC");
    for name in ["PATH", "HOME", "LD_LIBRARY_PATH"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
}

/// Asks a service on loopback, and gives back the body of a good answer or what is amiss.
pub(crate) async fn get(url: &str) -> Result<String, String> {
    let spell = |error: reqwest::Error| error.to_string();
    // A client of its own each time: no connection of ours stays open and delays a stop. No proxy: this is loopback.
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(5))
        .build()
        .map_err(spell)?;
    let response = client.get(url).send().await.map_err(spell)?;
    let status = response.status();
    let body = response.text().await.map_err(spell)?;
    if status.is_success() {
        Ok(body)
    } else {
        Err(format!("{status}: {body}"))
    }
}
