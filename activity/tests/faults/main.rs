//! Faults on a stack of its own: processes are killed with SIGKILL at random moments while traffic flows, services among them.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests"
)]

mod brokers;
mod secure;
#[path = "../support/mod.rs"]
mod support;

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::Duration;

use activity_devstack::Service;
use activity_platform::kafka;
use activity_producer::publish::{Publisher, Run, publish};
use activity_producer::traffic::{Traffic, TrafficSettings};
use activity_producer::{Pace, SimulateArgs};
use support::{World, fresh_stack, groups, place};
use tokio_util::sync::CancellationToken;

const KILLS: u64 = 10;

/// What is killed.
#[derive(Clone, Copy, Debug)]
enum Victim {
    Group(usize),
    Service(Service),
}

/// The same seed gives the same kills; the failure names it.
fn random(seed: u64, step: u64) -> u64 {
    // SplitMix64 (Steele, Lea, Flood 2014).
    let mut z = seed.wrapping_add((step + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

fn victim(seed: u64, step: u64) -> Victim {
    match step {
        // Both services are among the killed in every run.
        3 => Victim::Service(Service::ClickHouse),
        6 => Victim::Service(Service::Kafka(1)),
        8 => Victim::Service(Service::ClickHouse),
        _ => Victim::Group((random(seed, step) % groups(&[]).len() as u64) as usize),
    }
}

#[test]
fn what_kafka_does_not_take_in_time_is_counted_as_failed_and_fails_the_run() {
    let _place = place();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut stack = fresh_stack("fault_publish").await;
        let world = World::new(stack.endpoints(), "not_in_time", 1).await;
        let mut config = kafka::producer_config(&world.targets.kafka).unwrap();
        // Long enough for a busy machine to take the first message, short enough to wait for.
        config.set("message.timeout.ms", "5000");
        let hasty = Publisher::new(config, &world.targets.kafka.topic_prefix, 1, 2).unwrap();
        let (stop, alive) = (CancellationToken::new(), CancellationToken::new());
        let run = Run {
            pace: Pace::PerSecond(200.0),
            ..Run::EVERYTHING
        };
        let (stopping, living) = (stop.clone(), alive.clone());
        let traffic = Traffic::new(1, TrafficSettings::default());
        let published = tokio::spawn(publish(
            hasty,
            traffic,
            run,
            stop.clone(),
            move |progress| {
                if progress.acknowledged > 0 {
                    living.cancel();
                }
                if progress.failed > 0 {
                    stopping.cancel();
                }
            },
        ));
        tokio::time::timeout(support::PATIENCE, alive.cancelled())
            .await
            .expect("something is acknowledged");
        stack.kill(Service::Kafka(1)).await.unwrap();
        let published = tokio::time::timeout(support::PATIENCE, published)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        let counts = &published.counts;
        assert!(counts.failed > 0 && !published.complete, "{published:?}");
        assert_eq!(counts.sent, counts.acknowledged + counts.failed);
    });
}

#[test]
fn ten_kills_at_random_moments_lose_nothing_and_double_nothing() {
    let seed = std::env::var("ACTIVITY_TEST_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| RandomState::new().hash_one(0));
    println!("ACTIVITY_TEST_SEED={seed}");
    let _place = place();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut stack = fresh_stack("faults").await;
        let world = World::new(stack.endpoints(), "ten_kills", 4).await;
        let mut consumers: Vec<_> = groups(&[])
            .iter()
            .map(|group| world.consume(&[group.name], &["--snapshot-interval-ms", "1000"]))
            .collect();
        let stop = tokio_util::sync::CancellationToken::new();
        let traffic = {
            let args = SimulateArgs {
                rate: Some(3_000.0),
                seed: Some(seed),
                ..SimulateArgs::default()
            };
            let (targets, stop) = (world.targets.clone(), stop.clone());
            tokio::spawn(async move {
                activity_producer::simulate(&args, &targets.kafka, &targets.registry, stop, |_| ())
                    .await
                    .unwrap()
            })
        };
        for step in 0..KILLS {
            // The moment is what is random here; nothing is waited for.
            tokio::time::sleep(Duration::from_millis(
                500 + random(seed, 100 + step) % 3_000,
            ))
            .await;
            let victim = victim(seed, step);
            println!("kill {step}: {victim:?}");
            match victim {
                Victim::Group(index) => {
                    consumers[index].kill();
                    consumers[index] = world.consume(
                        &[groups(&[])[index].name],
                        &["--snapshot-interval-ms", "1000"],
                    );
                }
                Victim::Service(service) => {
                    stack.kill(service).await.unwrap();
                    stack.restart(service).await.unwrap();
                }
            }
        }
        stop.cancel();
        let published = traffic.await.unwrap();
        assert_eq!(
            (published.counts.failed, published.counts.sent),
            (0, published.counts.acknowledged)
        );
        world.caught_up(&[]).await;
        let reports = world.verified(&[]).await;
        let analytics = reports
            .iter()
            .find(|report| report.group == "analytics")
            .unwrap();
        assert_eq!(analytics.events, published.counts.acknowledged);
        assert!(consumers.iter_mut().all(support::Consumer::is_running));
        drop(consumers);
        stack.stop().await.unwrap();
    });
}
