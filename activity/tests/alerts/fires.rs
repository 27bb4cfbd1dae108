//! Each alert, its fault, and the end of both.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use activity_devstack::Service;
use activity_operator::setup;
use activity_platform::kafka;
use activity_producer::SimulateArgs;
use activity_producer::traffic::scenario::Scenario;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::FromClientConfig;
use rdkafka::{Offset, TopicPartitionList};
use tokio_util::sync::CancellationToken;

use crate::support::{PATIENCE, World, groups};
use crate::{Scene, free_address, on_stack};

const ANALYTICS: Option<&str> = Some("analytics");
/// Enough to be a thousand behind within seconds.
const TRAFFIC_PER_SECOND: f64 = 400.0;

/// One line of the table that a run prints.
fn told(alert: &str, fault: &str, fired: f64, cleared: f64) {
    println!("| {alert} | {fault} | {fired:.1} | {cleared:.1} |");
}

/// Traffic until it is dropped.
struct Flow(CancellationToken);

impl Flow {
    fn start(world: &World, args: SimulateArgs) -> Self {
        let stop = CancellationToken::new();
        let (targets, stopped) = (world.targets.clone(), stop.clone());
        tokio::spawn(async move {
            let (kafka, registry) = (&targets.kafka, &targets.registry);
            activity_producer::simulate(&args, kafka, registry, stopped, |_| ()).await
        });
        Self(stop)
    }

    fn ordinary(world: &World) -> Self {
        Self::start(
            world,
            SimulateArgs {
                rate: Some(TRAFFIC_PER_SECOND),
                seed: Some(1),
                ..SimulateArgs::default()
            },
        )
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

fn admin(world: &World) -> AdminClient<DefaultClientContext> {
    AdminClient::from_config(&kafka::client_config(&world.targets.kafka).unwrap()).unwrap()
}

/// Waits until a query gives more than `least`.
async fn exceeds(scene: &Scene<'_>, query: &str, least: f64) {
    let began = Instant::now();
    while scene
        .watch
        .value(query)
        .await
        .is_none_or(|value| value <= least)
    {
        assert!(
            began.elapsed() < PATIENCE,
            "{query} stays at or below {least}"
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[test]
fn a_killed_group_is_down_until_it_runs_again() {
    on_stack("alert_down", 1, async |scene: Scene<'_>| {
        let address = free_address();
        let mut consumer = scene.consume("analytics", address, &[]);
        scene.stack.scrape(&[("analytics", address)]).unwrap();
        exceeds(&scene, "up", 0.0).await;
        // It was down where Prometheus asked before it served.
        scene.watch.clears("ActivityGroupDown", None).await;
        consumer.kill();
        let fired = scene.watch.fires("ActivityGroupDown", ANALYTICS).await;
        let _again = scene.consume("analytics", address, &[]);
        let cleared = scene.watch.clears("ActivityGroupDown", None).await;
        told("ActivityGroupDown", "its process killed", fired, cleared);
    });
}

#[test]
fn a_group_whose_topics_and_tables_are_missing_is_not_ready_until_they_are_set_up() {
    on_stack("alert_not_ready", 0, async |scene: Scene<'_>| {
        let address = free_address();
        let _consumer = scene.consume("analytics", address, &[]);
        scene.stack.scrape(&[("analytics", address)]).unwrap();
        let fired = scene.watch.fires("ActivityGroupNotReady", ANALYTICS).await;
        setup::run(&scene.world.targets, 1).await.unwrap();
        let cleared = scene.watch.clears("ActivityGroupNotReady", None).await;
        told(
            "ActivityGroupNotReady",
            "started before the set-up",
            fired,
            cleared,
        );
    });
}

#[test]
fn an_engine_that_is_down_fails_inserts_then_lets_lag_grow_and_events_wait_and_makes_rows_stale() {
    on_stack("alert_engine", 2, async |scene: Scene<'_>| {
        let address = free_address();
        let _consumer = scene.consume("analytics", address, &[]);
        scene.stack.scrape(&[("analytics", address)]).unwrap();
        let flow = Flow::ordinary(&scene.world);
        let processed = "sum(activity_events_processed_total)";
        exceeds(&scene, processed, 2.0 * TRAFFIC_PER_SECOND).await;
        for alert in [
            "ActivityInsertsFailing",
            "ActivityEventsWait",
            "ActivityFreshness",
        ] {
            assert!(!scene.watch.is_on(alert, None).await, "{alert}");
        }

        let Scene {
            stack,
            world,
            watch,
        } = scene;
        stack.kill(Service::ClickHouse).await.unwrap();
        let began = Instant::now();
        let mut fired = Vec::new();
        for alert in [
            "ActivityInsertsFailing",
            "ActivityLagGrowing",
            "ActivityEventsWait",
        ] {
            watch.fires(alert, ANALYTICS).await;
            fired.push((alert, began.elapsed().as_secs_f64()));
        }
        stack.restart(Service::ClickHouse).await.unwrap();
        let mended = Instant::now();
        let stale = watch.fires("ActivityFreshness", ANALYTICS).await;
        for (alert, fired) in fired.into_iter().chain([("ActivityFreshness", stale)]) {
            watch.clears(alert, None).await;
            let fault = match alert {
                "ActivityFreshness" => "ClickHouse comes back after more than a minute (from then)",
                _ => "ClickHouse killed",
            };
            told(alert, fault, fired, mended.elapsed().as_secs_f64());
        }
        drop(flow);
        world.caught_up(&["analytics"]).await;
        world.verified(&["analytics"]).await;
    });
}

#[test]
fn messages_that_kafka_deletes_before_they_are_read_are_lost_for_an_hour() {
    on_stack("alert_lost", 1, async |scene: Scene<'_>| {
        let address = free_address();
        let mut first = scene.consume("analytics", address, &[]);
        scene.stack.scrape(&[("analytics", address)]).unwrap();
        scene.world.simulate_events(500, 1).await;
        scene.world.caught_up(&["analytics"]).await;
        assert_eq!(first.terminate(), Some(0));
        scene.world.simulate_events(2_000, 2).await;
        let mut list = TopicPartitionList::new();
        for lag in scene.world.lag(&groups(&["analytics"])).await {
            let first = lag.committed.unwrap_or(0) + lag.lag / 2;
            list.add_partition_offset(&lag.topic, lag.partition, Offset::Offset(first))
                .unwrap();
        }
        let deleted = admin(&scene.world)
            .delete_records(&list, &AdminOptions::new())
            .await;
        deleted.unwrap();
        assert!(!scene.watch.is_on("ActivityEventsLost", None).await);
        let _second = scene.consume("analytics", address, &[]);
        let fired = scene.watch.fires("ActivityEventsLost", ANALYTICS).await;
        let cleared = scene.watch.clears("ActivityEventsLost", None).await;
        told(
            "ActivityEventsLost",
            "delete_records before what was not read",
            fired,
            cleared,
        );
    });
}

#[test]
fn a_topic_that_is_made_anew_stops_its_partitions_until_its_group_begins_anew() {
    on_stack("alert_anew", 1, async |mut scene: Scene<'_>| {
        let address = free_address();
        let mut stopped = scene.consume("analytics", address, &[]);
        scene.stack.scrape(&[("analytics", address)]).unwrap();
        scene.world.simulate_events(2_000, 1).await;
        scene.world.caught_up(&["analytics"]).await;
        let topic = format!("{}clicks", scene.world.targets.kafka.topic_prefix);
        let deleted = admin(&scene.world)
            .delete_topics(&[&topic], &AdminOptions::new())
            .await;
        assert!(deleted.unwrap().iter().all(Result::is_ok));
        // The old topic is gone a moment after it was deleted.
        let began = Instant::now();
        while setup::run(&scene.world.targets, 1)
            .await
            .unwrap()
            .topics_created
            .is_empty()
        {
            assert!(began.elapsed() < PATIENCE);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        // An empty topic is not told from the old one, and nothing is lost of it.
        scene.world.simulate_events(2_000, 2).await;
        let fired = scene
            .watch
            .fires("ActivityPartitionPaused", ANALYTICS)
            .await;
        // What its message says.
        stopped.kill();
        scene.world.targets.clickhouse.database += "_2";
        scene.world.targets.kafka.group_prefix += "2.";
        setup::run(&scene.world.targets, 1).await.unwrap();
        let _anew = scene.consume("analytics", address, &[]);
        let cleared = scene.watch.clears("ActivityPartitionPaused", None).await;
        told(
            "ActivityPartitionPaused",
            "the topic made anew",
            fired,
            cleared,
        );
    });
}

#[test]
fn malformed_messages_raise_the_share_and_then_pass_the_limit() {
    on_stack("alert_malformed", 1, async |scene: Scene<'_>| {
        let address = free_address();
        let mut consumer = scene.consume("analytics", address, &[]);
        scene.stack.scrape(&[("analytics", address)]).unwrap();
        let malformed = || {
            let args = SimulateArgs {
                rate: Some(TRAFFIC_PER_SECOND),
                seed: Some(2),
                malformed_share: 0.1,
                ..SimulateArgs::default()
            };
            Flow::start(&scene.world, args)
        };
        let flow = malformed();
        let fired = scene
            .watch
            .fires("ActivityDeadLetterShare", ANALYTICS)
            .await;
        drop(flow);
        let good = Flow::ordinary(&scene.world);
        let cleared = scene.watch.clears("ActivityDeadLetterShare", None).await;
        told(
            "ActivityDeadLetterShare",
            "a tenth of the traffic malformed",
            fired,
            cleared,
        );
        drop(good);

        assert_eq!(consumer.terminate(), Some(0));
        let strict = [
            "--dead-letter-share-max",
            "0.05",
            "--dead-letter-events-min",
            "500",
        ];
        let mut strict = scene.consume("analytics", address, &strict);
        let flow = malformed();
        let fired = scene.watch.fires("ActivityRejectLimit", ANALYTICS).await;
        drop(flow);
        assert_eq!(strict.terminate(), Some(0));
        let _again = scene.consume("analytics", address, &[]);
        let cleared = scene.watch.clears("ActivityRejectLimit", None).await;
        told(
            "ActivityRejectLimit",
            "the same, with a limit of a twentieth",
            fired,
            cleared,
        );
    });
}

#[test]
fn a_process_that_comes_and_goes_makes_a_storm() {
    on_stack("alert_storm", 4, async |scene: Scene<'_>| {
        let addresses: Vec<_> = (0..2).map(|_| free_address()).collect();
        let steady: Vec<_> = addresses
            .iter()
            .map(|address| scene.consume("analytics", *address, &[]))
            .collect();
        let targets: Vec<_> = addresses
            .iter()
            .map(|address| ("analytics", *address))
            .collect();
        scene.stack.scrape(&targets).unwrap();
        exceeds(&scene, "sum(activity_rebalances_total)", 0.0).await;
        scene.watch.clears("ActivityRebalanceStorm", None).await;
        let began = Instant::now();
        while !scene.watch.is_on("ActivityRebalanceStorm", ANALYTICS).await {
            assert!(began.elapsed() < PATIENCE, "no storm");
            let mut fickle = scene.consume("analytics", free_address(), &[]);
            let joins = "sum(activity_rebalances_total)";
            let before = scene.watch.value(joins).await.unwrap_or(0.0);
            exceeds(&scene, joins, before).await;
            assert_eq!(fickle.terminate(), Some(0));
        }
        let fired = began.elapsed().as_secs_f64();
        scene.watch.fires("ActivityRebalanceStorm", ANALYTICS).await;
        let cleared = scene.watch.clears("ActivityRebalanceStorm", None).await;
        told(
            "ActivityRebalanceStorm",
            "a third process joins and leaves, again and again",
            fired,
            cleared,
        );
        drop(steady);
    });
}

#[test]
fn an_attack_of_bots_is_a_surge() {
    on_stack("alert_fraud", 1, async |scene: Scene<'_>| {
        let address = free_address();
        let _consumer = scene.consume("fraud", address, &[]);
        scene.stack.scrape(&[("fraud", address)]).unwrap();
        let calm = Flow::start(&scene.world, traffic("calm", 0.1));
        let alerts = "sum(activity_rows_inserted_total{table=\"fraud_alerts\"})";
        // An hour, as the shortened rule sees it; of this process alone: what earlier tests ran is still remembered.
        let scraped = format!("count_over_time(up{{instance=\"{address}\"}}[5m])");
        exceeds(&scene, &scraped, 60.0).await;
        assert!(!scene.watch.is_on("ActivityFraudSurge", None).await);
        println!(
            "{alerts} before the attack: {:?}",
            scene.watch.value(alerts).await
        );
        drop(calm);
        let attack = Flow::start(&scene.world, traffic("attack", 30.0));
        let fired = scene.watch.fires("ActivityFraudSurge", None).await;
        println!(
            "{alerts} in the attack: {:?}",
            scene.watch.value(alerts).await
        );
        drop(attack);
        let cleared = scene.watch.clears("ActivityFraudSurge", None).await;
        told(
            "ActivityFraudSurge",
            "sweeps of items and clicks on ads, three hundred times as many",
            fired,
            cleared,
        );
    });
}

/// Attackers who are noticed within seconds, at one strength, from the first moment on.
fn traffic(name: &str, attacks: f64) -> SimulateArgs {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("alert-{name}.toml"));
    let text = format!(
        "about = \"{name}\"\nrepeat = \"1h\"\n\n[actors]\nitem-sweep = 0.020\nad-clicks = 0.020\n\n[[phases]]\nfrom = \"0s\"\nrate = 1.0\nattacks = {attacks:?}\n"
    );
    std::fs::write(&path, text).unwrap();
    SimulateArgs {
        rate: Some(TRAFFIC_PER_SECOND),
        seed: Some(3),
        scenario: Some(Scenario::named(path.to_str().unwrap()).unwrap()),
        ..SimulateArgs::default()
    }
}
