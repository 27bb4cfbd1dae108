//! The group is rewound, and the rewind is killed.

use std::process::Output;

use activity_platform::fault::{Action, FAULT, FAULT_MARK, Fault};
use activity_schemas::Content;

use crate::bench::{Scene, TUNING};

/// Messages that the group has settled before, at the least: several batches, so that some are kept and some read again.
const SETTLED_MIN: i64 = 3_000;

/// The rewind is killed, and taken up again.
pub async fn killed(scene: &mut Scene) {
    kill_at_its_point(scene).await;
    scene.disturbed().await;
    run(scene, &["--resume"], None).await;
    scene.start();
}

/// The rewind is killed, and given up; what it has left behind must not disturb the one that then takes place.
pub async fn given_up(scene: &mut Scene) {
    kill_at_its_point(scene).await;
    scene.disturbed().await;
    run(scene, &["--abort"], None).await;
    let half_way = half_way(scene).await;
    run(scene, &["--to", &half_way, "--yes"], None).await;
    scene.start();
}

async fn kill_at_its_point(scene: &mut Scene) {
    let first = scene.start();
    let settled = async || {
        let lags = scene.world.lag(&[scene.group()]).await;
        let committed = lags.iter().filter_map(|lag| lag.committed);
        committed.sum::<i64>() >= SETTLED_MIN
    };
    scene.until("several batches are settled", settled).await;
    scene.stop(first).await;
    let half_way = half_way(scene).await;
    let (point, nth) = scene.cell.at.unwrap();
    let fault = Fault {
        point,
        nth,
        action: Action::Kill,
    };
    let _ = std::fs::remove_file(scene.mark());
    let killed = run(scene, &["--to", &half_way, "--yes"], Some(fault)).await;
    assert!(killed.status.code().is_none(), "{killed:?}");
    assert!(scene.mark().exists());
    scene.kills += 1;
}

/// The middle of what the group has settled of the topics that it shares with others.
async fn half_way(scene: &Scene) -> String {
    let prefix = &scene.world.targets.kafka.topic_prefix;
    let reads: Vec<String> = scene
        .group()
        .reads
        .iter()
        .filter(|topic| topic.content != Content::Derived)
        .map(|topic| topic.full_name(prefix))
        .collect();
    let lags = scene.world.lag(&[scene.group()]).await;
    let places: Vec<String> = lags
        .iter()
        .filter(|lag| reads.contains(&lag.topic))
        .filter_map(|lag| Some((lag, lag.committed?)))
        .map(|(lag, committed)| format!("{}/{}={}", lag.topic, lag.partition, committed / 2))
        .collect();
    places.join(",")
}

/// `activity rewind`; without a fault it must succeed.
async fn run(scene: &Scene, arguments: &[&str], fault: Option<Fault>) -> Output {
    let verb = ["rewind", scene.cell.group];
    let arguments: Vec<&str> = verb
        .iter()
        .chain(arguments)
        .chain(TUNING)
        .copied()
        .collect();
    let mut command = scene.world.command(&arguments);
    if let Some(fault) = fault {
        command
            .env(FAULT, fault.to_string())
            .env(FAULT_MARK, scene.mark());
    }
    let output = tokio::task::spawn_blocking(move || command.output())
        .await
        .unwrap()
        .unwrap();
    assert!(fault.is_some() || output.status.success(), "{output:?}");
    output
}
