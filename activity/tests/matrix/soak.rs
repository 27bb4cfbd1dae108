//! The soak: traffic that keeps the machine busy, and every few seconds something is killed at random: a group, ClickHouse, one of three brokers.

use std::collections::BTreeMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use activity_devstack::{Service, Stack};
use activity_operator::lag;
use activity_operator::verify;
use activity_producer::{Published, SimulateArgs};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::{Consumer, World, fresh_stack_of, groups, peak_memory_bytes};

const BROKERS: u8 = 3;
const PARTITIONS: u16 = 4;
/// From one kill to the next, on average; a service that takes longer to come back delays the next kill.
const PERIOD: Duration = Duration::from_secs(10);
/// What was not consumed while things were killed must be consumed then.
const CATCH_UP: Duration = Duration::from_secs(15 * 60);

/// The same seed gives the same victims.
fn random(seed: u64, step: u64) -> u64 {
    // SplitMix64 (Steele, Lea, Flood 2014).
    let mut z = seed.wrapping_add((step + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

struct Soak {
    stack: Stack,
    world: World,
    consumers: Vec<Consumer>,
    kills: BTreeMap<String, u32>,
    /// By process: the most memory that any of its lives had resident.
    peaks: BTreeMap<String, u64>,
}

pub fn run(length: Duration, seed: Option<u64>, rate: f64) -> ExitCode {
    let seed = seed.unwrap_or_else(|| RandomState::new().hash_one(0));
    println!("soak of {length:?} at {rate} events/s, seed {seed}");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let stack = fresh_stack_of("soak", BROKERS).await;
        let world = World::new(stack.endpoints(), "soak", PARTITIONS).await;
        let consumers = groups(&[])
            .iter()
            .map(|group| world.consume(&[group.name], &[]))
            .collect();
        let soak = Soak {
            stack,
            world,
            consumers,
            kills: BTreeMap::new(),
            peaks: BTreeMap::new(),
        };
        soak.run(length, seed, rate).await
    })
}

impl Soak {
    async fn run(mut self, length: Duration, seed: u64, rate: f64) -> ExitCode {
        let stop = CancellationToken::new();
        let traffic = self.start_traffic(seed, rate, stop.clone());
        let (began, mut due, mut step) = (Instant::now(), Duration::ZERO, 0);
        loop {
            // The moment is what is random; nothing is waited for.
            due += PERIOD.mul_f64(0.5 + random(seed, 2 * step + 1) as f64 / u64::MAX as f64);
            tokio::time::sleep(due.min(length).saturating_sub(began.elapsed())).await;
            if began.elapsed() >= length {
                break;
            }
            let killed = self.kill(random(seed, 2 * step)).await;
            step += 1;
            let lag: i64 = self.lags().await.iter().sum();
            println!(
                "{:>6.0} s  kill {step}: {killed}, {lag} events behind",
                began.elapsed().as_secs_f64()
            );
        }
        stop.cancel();
        let published = traffic.await.unwrap().counts;
        println!(
            "{} events sent, {} acknowledged, {} failed",
            published.sent, published.acknowledged, published.failed
        );
        let caught_up = self.catch_up().await;
        self.report(published.acknowledged, caught_up && published.failed == 0)
            .await
    }

    fn start_traffic(
        &self,
        seed: u64,
        rate: f64,
        stop: CancellationToken,
    ) -> JoinHandle<Published> {
        let args = SimulateArgs {
            rate: Some(rate),
            seed: Some(seed),
            ..SimulateArgs::default()
        };
        let targets = self.world.targets.clone();
        tokio::spawn(async move {
            activity_producer::simulate(&args, &targets.kafka, &targets.registry, stop, |_| ())
                .await
                .unwrap()
        })
    }

    /// Half of the victims are groups, a quarter ClickHouse, a quarter brokers.
    async fn kill(&mut self, random: u64) -> String {
        let name = match random % 4 {
            0 => self.kill_service(Service::ClickHouse).await,
            1 => {
                let broker = 1 + (random / 4 % u64::from(BROKERS)) as u8;
                self.kill_service(Service::Kafka(broker)).await
            }
            _ => {
                let index = (random / 4 % self.consumers.len() as u64) as usize;
                let group = groups(&[])[index].name;
                self.note_peak(index);
                self.consumers[index].kill();
                self.consumers[index] = self.world.consume(&[group], &[]);
                group.to_owned()
            }
        };
        *self.kills.entry(name.clone()).or_default() += 1;
        name
    }

    async fn kill_service(&mut self, service: Service) -> String {
        self.stack.kill(service).await.unwrap();
        self.stack.restart(service).await.unwrap();
        service.to_string()
    }

    fn note_peak(&mut self, index: usize) {
        let name = groups(&[])[index].name.to_owned();
        let peak = self.consumers[index].peak_memory_bytes();
        let known = self.peaks.entry(name).or_default();
        *known = (*known).max(peak);
    }

    /// Messages behind, of each group.
    async fn lags(&self) -> Vec<i64> {
        let mut lags = Vec::new();
        for group in groups(&[]) {
            let of_group = lag::gather(&self.world.targets.kafka, &[group]).await;
            lags.push(of_group.map_or(i64::MAX / 8, |of| of.iter().map(|lag| lag.lag).sum()));
        }
        lags
    }

    async fn catch_up(&self) -> bool {
        let began = Instant::now();
        while self.lags().await.iter().any(|lag| *lag > 0) {
            if began.elapsed() > CATCH_UP {
                println!("not caught up after {CATCH_UP:?}");
                return false;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        println!("caught up {:.1} s later", began.elapsed().as_secs_f64());
        true
    }

    async fn report(mut self, acknowledged: u64, whole: bool) -> ExitCode {
        (0..self.consumers.len()).for_each(|index| self.note_peak(index));
        let reports = verify::run(&self.world.targets, &groups(&[]))
            .await
            .unwrap();
        let mut clean = whole;
        for report in &reports {
            println!(
                "{:<16} {:>10} events  missing {} duplicate {} unexpected {}  peak {:>4} MB",
                report.group,
                report.events,
                report.missing,
                report.duplicate,
                report.unexpected,
                self.peaks.get(&report.group).copied().unwrap_or(0) / 1_000_000
            );
            report
                .findings
                .iter()
                .for_each(|finding| println!("    {finding:?}"));
            clean &= report.is_clean() && report.expired == 0;
        }
        let analytics = reports.iter().find(|report| report.group == "analytics");
        clean &= analytics.is_some_and(|report| report.events == acknowledged);
        let kills: Vec<String> = self
            .kills
            .iter()
            .map(|(name, kills)| format!("{name} {kills}"))
            .collect();
        println!(
            "{} kills ({}); this program, the producer in it: peak {} MB",
            self.kills.values().sum::<u32>(),
            kills.join(", "),
            peak_memory_bytes(std::process::id()) / 1_000_000
        );
        drop(self.consumers);
        self.stack.stop().await.unwrap();
        println!("{}", if clean { "clean" } else { "NOT CLEAN" });
        ExitCode::from(u8::from(!clean))
    }
}
