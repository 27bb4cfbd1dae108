//! The group's processes are killed, stopped and joined by others.

use std::fs;
use std::time::{Duration, Instant};

use activity_platform::fault::{Action, FAULT, FAULT_MARK, Fault, Point};

use crate::bench::Scene;
use crate::support::signal;

const FIGHT: Duration = Duration::from_secs(120);

pub async fn killed(scene: &mut Scene) {
    let first = scene.start_armed(Action::Kill);
    if scene.cell.point() == Some(Point::Revoking) {
        // It must own something that can be taken away.
        scene.settles().await;
        scene.start();
    }
    scene.died(first).await;
    scene.disturbed().await;
    scene.start();
}

pub async fn killed_taking_up(scene: &mut Scene) {
    if scene.group().state_version > 0 {
        let first = scene.start_with(&["--snapshot-interval-ms", "3000"]);
        let stored = "SELECT toInt64(max(state_offset)) AS number FROM {database}.snapshots";
        // So that there is something to feed again.
        let behind = async || {
            let stored = scene.world.number(stored).await;
            let lags = scene.world.lag(&[scene.group()]).await;
            stored > 0 && lags.iter().any(|lag| lag.committed > Some(stored + 100))
        };
        scene.until("the stored state is old", behind).await;
        scene.kill(first);
    } else {
        let first = scene.start_armed_at(Fault {
            point: Point::InsertAnswered,
            nth: 3,
            action: Action::Kill,
        });
        scene.died(first).await;
    }
    let second = scene.start_armed(Action::Kill);
    scene.died(second).await;
    scene.disturbed().await;
    scene.start();
}

pub async fn setup_killed(scene: &mut Scene) {
    let (point, nth) = scene.cell.at.unwrap();
    let fault = Fault {
        point,
        nth,
        action: Action::Kill,
    };
    let _ = fs::remove_file(scene.mark());
    let setup = |scene: &Scene| scene.world.command(&["setup", "--partitions", "2"]);
    let killed = setup(scene)
        .env(FAULT, fault.to_string())
        .env(FAULT_MARK, scene.mark())
        .output()
        .unwrap();
    assert!(killed.status.code().is_none(), "{killed:?}");
    assert!(scene.mark().exists());
    scene.kills += 1;
    let again = setup(scene).output().unwrap();
    assert!(again.status.success(), "{again:?}");
    scene.start_traffic(1);
    scene.start();
    scene.settles().await;
    scene.disturbed().await;
}

pub async fn join(scene: &mut Scene) {
    scene.start_armed(Action::Hold);
    scene.reached().await;
    scene.disturbed().await;
    scene.start();
    scene
        .until("another joins", || async {
            let membership = scene.membership().await;
            membership.is_some_and(|(state, members)| members == 2 || state != "Stable")
        })
        .await;
    scene.release();
    scene.members(2).await;
}

pub async fn leave(scene: &mut Scene) {
    let other = scene.start();
    scene.settles().await;
    scene.start_armed(Action::Hold);
    scene.reached().await;
    scene.disturbed().await;
    signal(scene.consumers[other].id(), "TERM");
    scene
        .until("the other leaves", || async {
            let membership = scene.membership().await;
            membership.is_some_and(|(state, members)| members == 1 || state != "Stable")
        })
        .await;
    scene.release();
    assert_eq!(scene.consumers[other].ended(), Some(0));
    scene.members(1).await;
}

pub async fn zombie(scene: &mut Scene) {
    let first = scene.start_armed(Action::Hold);
    scene.reached().await;
    signal(scene.consumers[first].id(), "STOP");
    scene.disturbed().await;
    scene.start();
    scene.recovered().await;
    scene.release();
    signal(scene.consumers[first].id(), "CONT");
    scene.members(2).await;
}

/// Each takes the other's partitions, again and again, and each wakes up as one that was replaced.
pub async fn fight(scene: &mut Scene) {
    let both = [scene.start(), scene.start()];
    scene.members(2).await;
    let began = Instant::now();
    let mut turn = 0;
    while began.elapsed() < FIGHT {
        let stopped = both[turn % 2];
        turn += 1;
        signal(scene.consumers[stopped].id(), "STOP");
        // The other one has taken over all partitions when all that came until now is settled.
        scene.disturbed().await;
        scene.recovered().await;
        signal(scene.consumers[stopped].id(), "CONT");
        scene.members(2).await;
    }
}

pub async fn unknown_ids(scene: &mut Scene) {
    let first = scene.start();
    scene.settles().await;
    scene.disturbed().await;
    scene.kill(first);
    scene.start();
}
