//! Three brokers: one dies while events are published and consumed, each is restarted in turn, all die at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use activity_devstack::{Service, Stack};
use activity_platform::kafka::client_config;
use activity_producer::{Published, SimulateArgs};
use rdkafka::config::FromClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::{self, World, fresh_stack_of, place};

/// Events that must come through before the next fault.
const EVENTS_BETWEEN: u64 = 1_000;

/// Traffic that goes on until it is stopped, and what of it is acknowledged.
struct Traffic {
    acknowledged: Arc<AtomicU64>,
    stop: CancellationToken,
    published: JoinHandle<Published>,
}

impl Traffic {
    fn start(world: &World) -> Self {
        let args = SimulateArgs {
            rate: Some(1_000.0),
            seed: Some(4),
            ..SimulateArgs::default()
        };
        let (targets, stop) = (world.targets.clone(), CancellationToken::new());
        let acknowledged = Arc::new(AtomicU64::new(0));
        let (stopped, seen) = (stop.clone(), acknowledged.clone());
        let published = tokio::spawn(async move {
            let progress = move |progress: &activity_producer::Progress| {
                seen.store(progress.acknowledged, Ordering::Relaxed);
            };
            let (kafka, registry) = (&targets.kafka, &targets.registry);
            activity_producer::simulate(&args, kafka, registry, stopped, progress)
                .await
                .unwrap()
        });
        Self {
            acknowledged,
            stop,
            published,
        }
    }

    /// Waits until so many more events are acknowledged, and as many more are in ClickHouse.
    async fn flows(&self, world: &World) {
        let acknowledged = self.acknowledged.load(Ordering::Relaxed) + EVENTS_BETWEEN;
        let rows = rows_of(world).await + EVENTS_BETWEEN as i64;
        world
            .until(|| async {
                self.acknowledged.load(Ordering::Relaxed) >= acknowledged
                    && rows_of(world).await >= rows
            })
            .await;
    }

    async fn end(self) -> Published {
        self.stop.cancel();
        self.published.await.unwrap()
    }
}

async fn rows_of(world: &World) -> i64 {
    world
        .number("SELECT (SELECT count() FROM {database}.clicks) + (SELECT count() FROM {database}.watches) AS number")
        .await
}

/// The broker that coordinates groups: the one whose end costs most.
fn coordinator(world: &World) -> u8 {
    let mut config = client_config(&world.targets.kafka).unwrap();
    config.set("group.id", "coordinator.look");
    let consumer = BaseConsumer::from_config(&config).unwrap();
    let offsets = consumer
        .fetch_metadata(Some("__consumer_offsets"), Duration::from_secs(10))
        .unwrap();
    u8::try_from(offsets.topics()[0].partitions()[0].leader()).unwrap()
}

async fn kill_all_at_once(stack: &mut Stack) {
    for broker in 1..=3 {
        let id = stack.process_id(Service::Kafka(broker)).unwrap();
        support::signal(id, "KILL");
    }
    for broker in 1..=3 {
        stack.kill(Service::Kafka(broker)).await.unwrap();
    }
}

#[test]
fn of_three_brokers_one_may_die_each_may_be_restarted_and_all_may_die_at_once() {
    let _place = place();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut stack = fresh_stack_of("fault_brokers", 3).await;
        let world = World::new(stack.endpoints(), "three_brokers", 4).await;
        let mut consumer = world.consume(&["analytics", "fraud"], &[]);
        let traffic = Traffic::start(&world);
        traffic.flows(&world).await;

        let killed = Service::Kafka(coordinator(&world));
        stack.kill(killed).await.unwrap();
        traffic.flows(&world).await;
        stack.restart(killed).await.unwrap();
        traffic.flows(&world).await;

        for broker in 1..=3 {
            stack.restart(Service::Kafka(broker)).await.unwrap();
        }
        traffic.flows(&world).await;

        kill_all_at_once(&mut stack).await;
        for broker in 1..=3 {
            stack.restart(Service::Kafka(broker)).await.unwrap();
        }
        traffic.flows(&world).await;

        let published = traffic.end().await;
        let counts = &published.counts;
        assert!(published.complete, "{published:?}");
        assert_eq!((counts.failed, counts.sent), (0, counts.acknowledged));
        world.caught_up(&["analytics", "fraud"]).await;
        let reports = world.verified(&["analytics", "fraud"]).await;
        let analytics = reports.iter().find(|report| report.group == "analytics");
        assert_eq!(analytics.unwrap().events, counts.acknowledged);
        assert!(consumer.is_running());
        drop(consumer);
        stack.stop().await.unwrap();
    });
}
