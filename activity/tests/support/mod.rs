//! What tests on real services share: a stack, a world of one's own on it (topics, groups, database named after the test), and the groups' real processes.
#![allow(dead_code, missing_docs, reason = "each test binary uses its part")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use activity_consumers::{GROUPS, Group};
use activity_devstack::{Endpoints, Ports, Silent, Stack, StackOptions};
use activity_operator::lag::{self, PartitionLag};
use activity_operator::setup;
use activity_operator::verify::{self, GroupReport};
use activity_platform::clickhouse::Database;
use activity_platform::security::KafkaSecurity;
use activity_platform::settings::{ClickHouseSettings, KafkaSettings, RegistrySettings, Targets};
use activity_producer::{Published, SimulateArgs};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;

/// The binary under test.
pub const ACTIVITY: &str = env!("CARGO_BIN_EXE_activity");
/// Nothing here takes this long; whatever does, hangs.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Stacks of one test binary at a time, where each test has its own. Most of such a test is waiting, for a timeout or for a service that starts; more than these
/// would share two cores when they do not wait.
const STACKS_MAX: usize = 2;

/// Waits until the test may have a stack of its own; it may until this is dropped.
pub fn place() -> SemaphorePermit<'static> {
    static PLACES: Semaphore = Semaphore::const_new(STACKS_MAX);
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(PLACES.acquire()).unwrap()
}

/// Starts a stack on a fresh folder of the target directory.
pub async fn fresh_stack(name: &str) -> Stack {
    fresh_stack_of(name, 1).await
}

/// The same with so many brokers.
pub async fn fresh_stack_of(name: &str, brokers: u8) -> Stack {
    let data_dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&data_dir);
    let options = StackOptions {
        data_dir,
        cache_dir: None,
        executable: ACTIVITY.into(),
        ports: Ports::free(),
        brokers: Some(brokers),
        security: None,
        prometheus: None,
        gives_way: true,
    };
    Stack::start(options, Arc::new(Silent)).await.unwrap()
}

/// One test's own corner of a stack.
pub struct World {
    pub name: String,
    pub targets: Targets,
}

impl World {
    /// Creates topics, schemas and tables of its own.
    pub async fn new(endpoints: &Endpoints, name: &str, partitions: u16) -> Self {
        let world = Self::empty(endpoints, name);
        setup::run(&world.targets, partitions).await.unwrap();
        world
    }

    /// Names only.
    pub fn empty(endpoints: &Endpoints, name: &str) -> Self {
        let kafka = KafkaSettings {
            kafka: Some(endpoints.kafka.clone()),
            topic_prefix: format!("{name}."),
            group_prefix: format!("{name}."),
            security: KafkaSecurity::default(),
        };
        let registry = RegistrySettings {
            registry: Some(endpoints.registry.clone()),
            registry_ca_file: None,
            registry_user: None,
            registry_password_file: None,
        };
        let clickhouse = ClickHouseSettings {
            clickhouse: Some(endpoints.clickhouse.clone()),
            database: name.to_owned(),
            clickhouse_user: "default".to_owned(),
            clickhouse_password_file: None,
            clickhouse_ca_file: None,
        };
        Self {
            name: name.to_owned(),
            targets: Targets {
                kafka,
                registry,
                clickhouse,
            },
        }
    }

    /// Publishes simulated events and waits until each is acknowledged.
    pub async fn simulate(&self, args: SimulateArgs) -> Published {
        let published = activity_producer::simulate(
            &args,
            &self.targets.kafka,
            &self.targets.registry,
            CancellationToken::new(),
            |_| (),
        )
        .await
        .unwrap();
        assert_eq!(published.counts.failed, 0);
        published
    }

    pub async fn simulate_events(&self, events: u64, seed: u64) -> Published {
        self.simulate(SimulateArgs {
            events: Some(events),
            seed: Some(seed),
            ..SimulateArgs::default()
        })
        .await
    }

    /// `activity VERB…` against this world.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let Targets {
            kafka,
            registry,
            clickhouse,
        } = &self.targets;
        let mut command = Command::new(ACTIVITY);
        command
            .args(arguments)
            .env("ACTIVITY_KAFKA", kafka.kafka.as_ref().unwrap())
            .env("ACTIVITY_REGISTRY", registry.registry.as_ref().unwrap())
            .env(
                "ACTIVITY_CLICKHOUSE",
                clickhouse.clickhouse.as_ref().unwrap(),
            )
            .env("ACTIVITY_TOPIC_PREFIX", &kafka.topic_prefix)
            .env("ACTIVITY_GROUP_PREFIX", &kafka.group_prefix)
            .env("ACTIVITY_DATABASE", &clickhouse.database)
            .env("ACTIVITY_LOG", "info")
            .stdin(Stdio::null());
        for (variable, value) in secrets(&self.targets) {
            command.env(variable, value);
        }
        command
    }

    /// Where processes of these groups write what they say, one after the other.
    pub fn log(&self, groups: &[&str]) -> PathBuf {
        PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!(
            "{}-{}.log",
            self.name,
            groups.join("-")
        ))
    }

    /// Starts a process of groups; it is killed when dropped.
    pub fn consume(&self, groups: &[&str], more: &[&str]) -> Consumer {
        self.consume_with(groups, more, &[])
    }

    /// Starts a process of groups with more in its environment.
    pub fn consume_with(
        &self,
        groups: &[&str],
        more: &[&str],
        environment: &[(&str, &str)],
    ) -> Consumer {
        let log = self.log(groups);
        let file = std::fs::File::options()
            .create(true)
            .append(true)
            .open(&log)
            .unwrap();
        let arguments: Vec<&str> = ["consume"]
            .iter()
            .chain(groups)
            .chain(more)
            .copied()
            .collect();
        let child = self
            .command(&arguments)
            .envs(environment.iter().copied())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .unwrap();
        Consumer { child, log }
    }

    pub fn database(&self) -> Database {
        Database::new(&self.targets.clickhouse).unwrap()
    }

    /// One number from ClickHouse.
    pub async fn number(&self, sql: &str) -> i64 {
        #[derive(serde::Deserialize)]
        struct Row {
            number: i64,
        }
        let rows: Vec<Row> = self.database().rows(sql).await.unwrap();
        rows[0].number
    }

    pub async fn lag(&self, groups: &[&'static Group]) -> Vec<PartitionLag> {
        lag::gather(&self.targets.kafka, groups).await.unwrap()
    }

    /// Waits until the groups have committed all there is.
    pub async fn caught_up(&self, names: &[&str]) {
        let groups = groups(names);
        self.until(|| async {
            match lag::gather(&self.targets.kafka, &groups).await {
                Ok(lags) => lags
                    .iter()
                    .all(|lag| lag.lag == 0 && lag.committed.is_some()),
                Err(_) => false,
            }
        })
        .await;
    }

    /// Waits until something holds; fails with the groups' logs at hand.
    pub async fn until<F: Future<Output = bool>>(&self, holds: impl Fn() -> F) {
        let waited = tokio::time::timeout(PATIENCE, async {
            while !holds().await {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        assert!(
            waited.await.is_ok(),
            "{} waited in vain: {:#?}",
            self.name,
            lag::gather(&self.targets.kafka, &groups(&[])).await
        );
    }

    /// Verifies groups and expects them clean.
    pub async fn verified(&self, names: &[&str]) -> Vec<GroupReport> {
        let reports = verify::run(&self.targets, &groups(names)).await.unwrap();
        for report in &reports {
            assert!(report.is_clean(), "{report:#?}");
        }
        reports
    }
}

/// How a secure world is spoken to.
fn secrets(targets: &Targets) -> Vec<(&'static str, PathBuf)> {
    let Targets {
        kafka: KafkaSettings { security, .. },
        registry,
        clickhouse,
    } = targets;
    let user = security.kafka_user.as_ref().map(PathBuf::from);
    let secure = user.as_ref().map(|_| PathBuf::from("sasl_ssl"));
    let clickhouse_user = Some(PathBuf::from(&clickhouse.clickhouse_user));
    let given = [
        ("ACTIVITY_KAFKA_SECURITY", &secure),
        ("ACTIVITY_KAFKA_USER", &user),
        ("ACTIVITY_KAFKA_CA_FILE", &security.kafka_ca_file),
        (
            "ACTIVITY_KAFKA_CERTIFICATE_FILE",
            &security.kafka_certificate_file,
        ),
        ("ACTIVITY_KAFKA_KEY_FILE", &security.kafka_key_file),
        (
            "ACTIVITY_KAFKA_PASSWORD_FILE",
            &security.kafka_password_file,
        ),
        ("ACTIVITY_REGISTRY_CA_FILE", &registry.registry_ca_file),
        ("ACTIVITY_CLICKHOUSE_USER", &clickhouse_user),
        (
            "ACTIVITY_CLICKHOUSE_PASSWORD_FILE",
            &clickhouse.clickhouse_password_file,
        ),
        (
            "ACTIVITY_CLICKHOUSE_CA_FILE",
            &clickhouse.clickhouse_ca_file,
        ),
    ];
    given
        .into_iter()
        .filter_map(|(variable, value)| Some((variable, value.clone()?)))
        .collect()
}

/// Groups of these names; all where none is named.
pub fn groups(names: &[&str]) -> Vec<&'static Group> {
    GROUPS
        .iter()
        .filter(|group| names.is_empty() || names.contains(&group.name))
        .collect()
}

/// A process that runs groups.
pub struct Consumer {
    child: Child,
    log: PathBuf,
}

impl Consumer {
    /// SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and its exit code.
    pub fn terminate(&mut self) -> Option<i32> {
        signal(self.child.id(), "TERM");
        self.ended()
    }

    /// Waits for its end; its exit code.
    pub fn ended(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    /// The most memory that it ever had resident.
    pub fn peak_memory_bytes(&self) -> u64 {
        peak_memory_bytes(self.child.id())
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The most memory that a process ever had resident, as the kernel counts.
pub fn peak_memory_bytes(process_id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process_id}/status")).unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = peak.and_then(|peak| peak.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}

/// Sends a signal to a process of ours.
pub fn signal(process_id: u32, name: &str) {
    let status = Command::new("kill")
        .args([format!("-{name}"), process_id.to_string()])
        .status()
        .unwrap();
    assert!(status.success());
}

/// A folder for files of one test.
pub fn scratch(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&path).unwrap();
    path
}
