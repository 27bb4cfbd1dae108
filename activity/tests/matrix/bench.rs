//! What cells run on: one stack for all, a scene for each, and the outcome.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use activity_consumers::Group;
use activity_devstack::Stack;
use activity_operator::lag::{self, PartitionLag};
use activity_operator::verify;
use activity_platform::fault::{Action, FAULT, FAULT_MARK, Fault};
use activity_platform::kafka;
use activity_producer::{Published, SimulateArgs};
use futures_util::FutureExt;
use rdkafka::config::FromClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::cells::{Cell, Disturbance};
use crate::disturb;
use crate::support::{Consumer, PATIENCE, World, fresh_stack_of, groups};

/// Events per second of a cell's traffic.
const RATE: f64 = 2_000.0;
const PARTITIONS: u16 = 2;
/// Small batches and short timeouts, so that points are passed often and outages end soon.
pub const TUNING: &[&str] = &[
    "--batch-age-ms",
    "200",
    "--insert-timeout-ms",
    "3000",
    "--snapshot-interval-ms",
    "1000",
];
/// Messages that a disturbance finds unsettled, at the least.
const UNSETTLED_MIN: i64 = 100;
const POLL: Duration = Duration::from_millis(20);

/// What became of a cell.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub kills: u32,
    pub events: u64,
    pub rows: u64,
    pub missing: u64,
    pub duplicate: u64,
    pub unexpected: u64,
    pub recovery: Duration,
    pub failures: Vec<String>,
}

impl Outcome {
    pub fn is_clean(&self) -> bool {
        self.missing + self.duplicate + self.unexpected == 0 && self.failures.is_empty()
    }
}

/// One stack at a time, for all cells until one breaks it.
pub struct Bench {
    stack: Option<(u8, Stack)>,
}

impl Bench {
    pub fn new() -> Self {
        Self { stack: None }
    }

    /// Runs a cell; whatever goes wrong is in the outcome.
    pub async fn run(&mut self, cell: &Cell) -> Outcome {
        let brokers = cell.brokers();
        let mut stack = match self.stack.take() {
            Some((running, stack)) if running == brokers => stack,
            other => {
                drop(other);
                fresh_stack_of(&format!("matrix_{brokers}"), brokers).await
            }
        };
        let ran = AssertUnwindSafe(attempt(&mut stack, cell))
            .catch_unwind()
            .await;
        match ran {
            Ok(outcome) => {
                self.stack = Some((brokers, stack));
                outcome
            }
            Err(panic) => Outcome {
                failures: vec![words(&*panic)],
                ..Outcome::default()
            },
        }
    }

    pub async fn end(self) {
        if let Some((_, stack)) = self.stack {
            stack.stop().await.unwrap();
        }
    }
}

fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_default()
}

async fn attempt(stack: &mut Stack, cell: &Cell) -> Outcome {
    let name = cell.name();
    let world = match cell.disturbance {
        Disturbance::SetupKilled => World::empty(stack.endpoints(), &name),
        _ => World::new(stack.endpoints(), &name, PARTITIONS).await,
    };
    let mut scene = Scene::new(world, *cell);
    disturb::run(stack, &mut scene).await;
    scene.finish().await
}

/// Traffic that goes on until it is told to end.
struct Traffic {
    stop: CancellationToken,
    published: JoinHandle<Published>,
}

/// A cell that failed half way leaves no traffic behind.
impl Drop for Scene {
    fn drop(&mut self) {
        if let Some(traffic) = &self.traffic {
            traffic.stop.cancel();
        }
    }
}

type Ends = HashMap<(String, i32), i64>;

/// A cell under way.
pub struct Scene {
    pub world: World,
    pub cell: Cell,
    pub kills: u32,
    pub consumers: Vec<Consumer>,
    traffic: Option<Traffic>,
    /// None: not all of it went to the topics that there are now.
    published: Option<u64>,
    recovery: Option<JoinHandle<Duration>>,
    recovered: Duration,
    loses: bool,
}

impl Scene {
    fn new(world: World, cell: Cell) -> Self {
        // What an earlier run said counts for nothing.
        let _ = std::fs::remove_file(world.log(&[cell.group]));
        Self {
            world,
            cell,
            kills: 0,
            consumers: Vec::new(),
            traffic: None,
            published: Some(0),
            recovery: None,
            recovered: Duration::ZERO,
            loses: false,
        }
    }

    pub fn group(&self) -> &'static Group {
        groups(&[self.cell.group])[0]
    }

    pub fn start_traffic(&mut self, seed: u64) {
        let args = SimulateArgs {
            rate: Some(RATE),
            seed: Some(seed),
            malformed_share: self.cell.malformed_share,
            ..SimulateArgs::default()
        };
        let (targets, stop) = (self.world.targets.clone(), CancellationToken::new());
        let stopped = stop.clone();
        let published = tokio::spawn(async move {
            activity_producer::simulate(&args, &targets.kafka, &targets.registry, stopped, |_| ())
                .await
                .unwrap()
        });
        self.traffic = Some(Traffic { stop, published });
    }

    pub async fn stop_traffic(&mut self) {
        if let Some(traffic) = self.traffic.take() {
            traffic.stop.cancel();
            let counts = tokio::time::timeout(PATIENCE, traffic.published)
                .await
                .expect("publication ends")
                .unwrap()
                .counts;
            assert_eq!(counts.failed, 0);
            assert_eq!(counts.sent, counts.acknowledged);
            self.published = self.published.map(|before| before + counts.acknowledged);
        }
    }

    /// From here on messages are gone that nobody has read.
    pub fn loses(&mut self) {
        self.loses = true;
    }

    /// The topics are not those that were published to before.
    pub fn forget_published(&mut self) {
        self.published = None;
    }

    /// Another process of the group.
    pub fn start(&mut self) -> usize {
        self.start_with(&[])
    }

    pub fn start_with(&mut self, more: &[&str]) -> usize {
        let tuning: Vec<&str> = TUNING
            .chunks(2)
            .filter(|flag| !more.contains(&flag[0]))
            .flatten()
            .chain(more)
            .copied()
            .collect();
        let consumer = self.world.consume(&[self.cell.group], &tuning);
        self.consumers.push(consumer);
        self.consumers.len() - 1
    }

    /// Another process of the group, armed at the cell's point.
    pub fn start_armed(&mut self, action: Action) -> usize {
        let (point, nth) = self.cell.at.unwrap();
        self.start_armed_at(Fault { point, nth, action })
    }

    pub fn start_armed_at(&mut self, fault: Fault) -> usize {
        let _ = std::fs::remove_file(self.mark());
        let (fault, mark) = (fault.to_string(), self.mark());
        let environment = [
            (FAULT, fault.as_str()),
            (FAULT_MARK, mark.to_str().unwrap()),
        ];
        let consumer = self
            .world
            .consume_with(&[self.cell.group], TUNING, &environment);
        self.consumers.push(consumer);
        self.consumers.len() - 1
    }

    pub fn mark(&self) -> PathBuf {
        PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}.mark", self.world.name))
    }

    /// Waits until the armed point is passed.
    pub async fn reached(&self) {
        let mark = self.mark();
        self.until("the point is reached", || async { mark.exists() })
            .await;
    }

    /// Lets a held process go on.
    pub fn release(&self) {
        std::fs::remove_file(self.mark()).unwrap();
    }

    /// Waits until a process has killed itself.
    pub async fn died(&mut self, index: usize) {
        self.reached().await;
        let began = Instant::now();
        while self.consumers[index].is_running() {
            assert!(began.elapsed() < PATIENCE, "the process lives on");
            tokio::time::sleep(POLL).await;
        }
        self.kills += 1;
    }

    /// SIGKILL.
    pub fn kill(&mut self, index: usize) {
        self.consumers[index].kill();
        self.kills += 1;
    }

    /// Stops a process in order, and waits until nobody is in the group.
    pub async fn stop(&mut self, index: usize) {
        assert_eq!(self.consumers[index].terminate(), Some(0));
        self.until("the group is empty", || async {
            self.membership()
                .await
                .is_some_and(|(_, members)| members == 0)
        })
        .await;
    }

    /// Now is the moment that recovery counts from: until all that is published by now is committed. The broker must answer.
    pub async fn disturbed(&mut self) {
        let unsettled = async || {
            let lags = self.lag().await.expect("kafka answers");
            lags.iter().map(|lag| lag.lag).sum::<i64>() >= UNSETTLED_MIN
        };
        if self.traffic.is_some() {
            self.until("something is not settled", unsettled).await;
        }
        let ends: Ends = self
            .lag()
            .await
            .expect("kafka answers")
            .into_iter()
            .map(|lag| ((lag.topic, lag.partition), lag.end))
            .collect();
        let (began, kafka, group) = (
            Instant::now(),
            self.world.targets.kafka.clone(),
            self.group(),
        );
        self.recovery = Some(tokio::spawn(async move {
            loop {
                let lags = lag::gather(&kafka, &[group]).await.unwrap_or_default();
                let settled = |lag: &PartitionLag| {
                    let end = ends.get(&(lag.topic.clone(), lag.partition)).copied();
                    lag.committed.unwrap_or(0) >= end.unwrap_or(0)
                };
                if !lags.is_empty() && lags.iter().all(settled) {
                    return began.elapsed();
                }
                tokio::time::sleep(POLL).await;
            }
        }));
    }

    /// Waits until all that was published before the disturbance is in.
    pub async fn recovered(&mut self) {
        if let Some(recovery) = self.recovery.take() {
            let waited = tokio::time::timeout(PATIENCE, recovery).await;
            let recovered = waited
                .unwrap_or_else(|_| panic!("no recovery: {}", self.tails()))
                .unwrap();
            self.recovered = self.recovered.max(recovered);
        }
    }

    /// Waits until there is something to read.
    pub async fn published(&self) {
        self.until("something is published", || async {
            self.lag()
                .await
                .is_some_and(|lags| lags.iter().any(|lag| lag.end > 0))
        })
        .await;
    }

    /// Waits until the group has settled something.
    pub async fn settles(&self) {
        self.until("the group settles", || async {
            self.lag()
                .await
                .is_some_and(|lags| lags.iter().any(|lag| lag.committed.unwrap_or(0) > 0))
        })
        .await;
    }

    /// Waits until the group has settled something, and has said of every partition where it is.
    pub async fn settles_everywhere(&self) {
        self.settles().await;
        self.until("the group has a committed offset everywhere", || async {
            self.lag()
                .await
                .is_some_and(|lags| lags.iter().all(|lag| lag.committed.is_some()))
        })
        .await;
    }

    pub async fn caught_up(&self) {
        self.until("the group has caught up", || async {
            self.lag().await.is_some_and(|lags| {
                lags.iter()
                    .all(|lag| lag.lag == 0 && lag.committed.is_some())
            })
        })
        .await;
    }

    async fn lag(&self) -> Option<Vec<PartitionLag>> {
        lag::gather(&self.world.targets.kafka, &[self.group()])
            .await
            .ok()
    }

    /// State and members of the group in Kafka; None: Kafka does not say.
    pub async fn membership(&self) -> Option<(String, usize)> {
        let kafka = self.world.targets.kafka.clone();
        let id = format!("{}{}", kafka.group_prefix, self.cell.group);
        let asked = tokio::task::spawn_blocking(move || {
            let client: BaseConsumer =
                BaseConsumer::from_config(&kafka::client_config(&kafka).unwrap()).unwrap();
            client
                .fetch_group_list(Some(&id), Duration::from_secs(5))
                .map(|list| {
                    let group = list.groups().first();
                    group.map(|group| (group.state().to_owned(), group.members().len()))
                })
        });
        asked.await.unwrap().ok().flatten()
    }

    /// Waits until the group has so many members and is at peace.
    pub async fn members(&self, members: usize) {
        self.until("the group has its members", || async {
            self.membership().await == Some(("Stable".to_owned(), members))
        })
        .await;
    }

    /// Waits until a process has said something.
    pub async fn says(&self, index: usize, words: &str) {
        self.until(words, || async {
            self.consumers[index].log().contains(words)
        })
        .await;
    }

    pub async fn until<F: Future<Output = bool>>(&self, what: &str, holds: impl Fn() -> F) {
        let began = Instant::now();
        while !holds().await {
            assert!(
                began.elapsed() < PATIENCE,
                "waited in vain until {what}: {}",
                self.tails()
            );
            tokio::time::sleep(POLL).await;
        }
    }

    /// The last lines that the processes wrote.
    fn tails(&self) -> String {
        let log = self.consumers.last().map(Consumer::log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }

    async fn finish(mut self) -> Outcome {
        self.recovered().await;
        self.stop_traffic().await;
        self.caught_up().await;
        let mut failures = Vec::new();
        let report = match verify::run(&self.world.targets, &[self.group()]).await {
            Ok(mut reports) => reports.remove(0),
            Err(error) => panic!("verify: {error}"),
        };
        failures.extend(report.findings.iter().map(|finding| format!("{finding:?}")));
        // An account that knows nothing of the ledger: what Kafka has is what the group says it has read.
        let ends = self.lag().await.expect("kafka answers");
        let in_kafka: i64 = ends.iter().map(|lag| lag.end).sum();
        if in_kafka as u64 != report.events + report.lost || self.loses != (report.lost > 0) {
            failures.push(format!(
                "{in_kafka} were in Kafka, {} read, {} lost",
                report.events, report.lost
            ));
        }
        if report.expired > 0 || (self.cell.malformed_share > 0.0 && report.dead_letters == 0) {
            failures.push(format!(
                "{} messages could not be compared, {} dead letters",
                report.expired, report.dead_letters
            ));
        }
        let rows: u64 = report.rows.values().sum();
        if self.cell.group == "analytics" && rows + report.dead_letters != report.events {
            failures.push(format!(
                "{} events gave {rows} rows and {} dead letters",
                report.events, report.dead_letters
            ));
        }
        if self.cell.group == "analytics"
            && self.cell.malformed_share == 0.0
            && let Some(published) = self.published
            && published != report.events + report.lost
        {
            failures.push(format!(
                "{published} acknowledged, {} read, {} lost",
                report.events, report.lost
            ));
        }
        Outcome {
            kills: self.kills,
            events: report.events,
            rows,
            missing: report.missing,
            duplicate: report.duplicate,
            unexpected: report.unexpected,
            recovery: self.recovered,
            failures,
        }
    }
}
