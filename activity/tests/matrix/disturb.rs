//! What each cell does. Every function leaves a process of the group that goes on, and no trouble behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use activity_devstack::{EngineTrouble, Service, Stack};
use activity_operator::lag::PartitionLag;
use activity_operator::setup;
use activity_platform::fault::{Action, FAULT, FAULT_MARK, Fault, Point};
use activity_platform::kafka;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::FromClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::{Offset, TopicPartitionList};
use serde::Deserialize;

use crate::bench::Scene;
use crate::cells::Disturbance;
use crate::support::{PATIENCE, World, signal};

/// Longer than a session (6 s).
const ZOMBIE_PAUSE: Duration = Duration::from_secs(7);
const HUNG: Duration = Duration::from_secs(8);
const DOWN: Duration = Duration::from_secs(60);
/// Its batches (192 MiB), what the client fetched ahead (16 MB), and itself.
const PROCESS_BYTES_MAX: u64 = 512 << 20;
const TROUBLE: Duration = Duration::from_secs(5);
const FIGHT: Duration = Duration::from_secs(120);
/// Kills aimed at the moment between log and part; most hit.
const AIMED_KILLS: u32 = 5;
const AIMED_KILLS_MAX: u32 = 15;
const UNSETTLED: &str = "batch is not settled";
const REPAIRED: &str = "rows are missing after an uncertain insert";

pub async fn run(stack: &mut Stack, scene: &mut Scene) {
    if scene.cell.disturbance != Disturbance::SetupKilled {
        scene.start_traffic(1);
    }
    match scene.cell.disturbance {
        Disturbance::Killed => killed(scene).await,
        Disturbance::KilledTakingUp => killed_taking_up(scene).await,
        Disturbance::SetupKilled => setup_killed(scene).await,
        Disturbance::Join => join(scene).await,
        Disturbance::Leave => leave(scene).await,
        Disturbance::Zombie => zombie(scene).await,
        Disturbance::EngineKilled => engine_killed(stack, scene).await,
        Disturbance::EngineKilledAtItsLog => engine_killed_at_its_log(stack, scene).await,
        Disturbance::EngineRestarted => {
            scene.start();
            scene.settles().await;
            scene.disturbed().await;
            stack.restart(Service::ClickHouse).await.unwrap();
        }
        Disturbance::EngineHung => hung(stack, scene, Service::ClickHouse, HUNG).await,
        Disturbance::EngineReadOnly => troubled(stack, scene, EngineTrouble::ReadOnly).await,
        Disturbance::EngineOutOfMemory => {
            troubled(stack, scene, EngineTrouble::QueryMemory(8_000_000)).await;
        }
        Disturbance::EngineDiskFull => disk_full(scene).await,
        Disturbance::EngineFileSize => file_size(stack, scene).await,
        Disturbance::EngineDown => engine_down(stack, scene).await,
        Disturbance::BrokerKilled => {
            scene.start();
            scene.settles().await;
            scene.disturbed().await;
            stack.kill(Service::Kafka(1)).await.unwrap();
            scene.kills += 1;
            stack.restart(Service::Kafka(1)).await.unwrap();
        }
        Disturbance::OneOfThreeBrokersKilled => {
            scene.start();
            scene.settles().await;
            for broker in 1..=3 {
                scene.disturbed().await;
                stack.kill(Service::Kafka(broker)).await.unwrap();
                scene.kills += 1;
                // Without it, first.
                scene.recovered().await;
                stack.restart(Service::Kafka(broker)).await.unwrap();
            }
        }
        Disturbance::AllBrokersKilled => {
            scene.start();
            scene.settles().await;
            scene.disturbed().await;
            for broker in 1..=3 {
                stack.kill(Service::Kafka(broker)).await.unwrap();
                scene.kills += 1;
            }
            for broker in 1..=3 {
                stack.restart(Service::Kafka(broker)).await.unwrap();
            }
        }
        Disturbance::BrokersRolled => {
            scene.start();
            scene.settles().await;
            scene.disturbed().await;
            for broker in 1..=3 {
                stack.restart(Service::Kafka(broker)).await.unwrap();
            }
        }
        Disturbance::RegistryDown => registry_down(stack, scene).await,
        Disturbance::RegistrySlow => {
            scene.published().await;
            scene.published().await;
            signal(stack.process_id(Service::Registry).unwrap(), "STOP");
            scene.disturbed().await;
            scene.start();
            tokio::time::sleep(TROUBLE).await;
            signal(stack.process_id(Service::Registry).unwrap(), "CONT");
        }
        Disturbance::UnknownIds => {
            let first = scene.start();
            scene.settles().await;
            scene.disturbed().await;
            scene.kill(first);
            scene.start();
        }
        Disturbance::OffsetsDeleted => offsets_deleted(scene).await,
        Disturbance::OffsetsSetBack => offsets_set_back(scene).await,
        Disturbance::RetentionPassed => retention_passed(scene).await,
        Disturbance::TopicRecreated => topic_recreated(scene).await,
        Disturbance::Fight => fight(scene).await,
    }
}

async fn killed(scene: &mut Scene) {
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

async fn killed_taking_up(scene: &mut Scene) {
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

async fn setup_killed(scene: &mut Scene) {
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

async fn join(scene: &mut Scene) {
    scene.start_armed(Action::Hold);
    scene.reached().await;
    scene.disturbed().await;
    scene.start();
    scene
        .until("another joins", || async {
            let (state, members) = scene.membership().await;
            members == 2 || state != "Stable"
        })
        .await;
    scene.release();
    scene.members(2).await;
}

async fn leave(scene: &mut Scene) {
    let other = scene.start();
    scene.settles().await;
    scene.start_armed(Action::Hold);
    scene.reached().await;
    scene.disturbed().await;
    signal(scene.consumers[other].id(), "TERM");
    scene
        .until("the other leaves", || async {
            let (state, members) = scene.membership().await;
            members == 1 || state != "Stable"
        })
        .await;
    scene.release();
    assert_eq!(scene.consumers[other].ended(), Some(0));
    scene.members(1).await;
}

async fn zombie(scene: &mut Scene) {
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

async fn engine_killed(stack: &mut Stack, scene: &mut Scene) {
    scene.start_armed(Action::Hold);
    scene.reached().await;
    scene.disturbed().await;
    stack.kill(Service::ClickHouse).await.unwrap();
    scene.kills += 1;
    scene.release();
    stack.restart(Service::ClickHouse).await.unwrap();
}

/// The log line of a token is on disk before its part: an engine killed between the two remembers rows that are not there.
async fn engine_killed_at_its_log(stack: &mut Stack, scene: &mut Scene) {
    let consumer = scene.start();
    for kill in 1..=AIMED_KILLS_MAX {
        scene.settles().await;
        let logs = deduplication_logs(&scene.world, "clicks").await;
        let engine = stack.process_id(Service::ClickHouse).unwrap();
        let aimed = tokio::task::spawn_blocking(move || kill_when_grown(&logs, engine));
        aimed.await.unwrap();
        scene.kills += 1;
        scene.disturbed().await;
        stack.kill(Service::ClickHouse).await.unwrap();
        stack.restart(Service::ClickHouse).await.unwrap();
        scene.recovered().await;
        let hit = scene.consumers[consumer].log().contains(REPAIRED);
        if hit && kill >= AIMED_KILLS {
            return;
        }
    }
    panic!("no kill fell between the log and the part");
}

#[derive(Deserialize)]
struct DataPath {
    path: PathBuf,
}

async fn deduplication_logs(world: &World, table: &str) -> PathBuf {
    let sql = format!(
        "SELECT arrayJoin(data_paths) AS path FROM system.tables WHERE database = '{}' AND name = '{table}'",
        world.name
    );
    let mut found: Vec<DataPath> = world.database().rows(&sql).await.unwrap();
    found.remove(0).path.join("deduplication_logs")
}

fn kill_when_grown(logs: &Path, engine: u32) {
    let size = || {
        let files = fs::read_dir(logs).into_iter().flatten().flatten();
        files
            .filter_map(|file| file.metadata().ok())
            .map(|file| file.len())
            .sum::<u64>()
    };
    let engine = Pid::from_raw(i32::try_from(engine).unwrap());
    let (before, began) = (size(), Instant::now());
    while size() == before {
        assert!(began.elapsed() < PATIENCE, "no insert comes");
    }
    // Within microseconds: a `kill` command would come too late.
    kill(engine, Signal::SIGKILL).unwrap();
}

async fn hung(stack: &Stack, scene: &mut Scene, service: Service, length: Duration) {
    let consumer = scene.start();
    scene.settles().await;
    signal(stack.process_id(service).unwrap(), "STOP");
    scene.disturbed().await;
    // The outage's length is what is tested.
    tokio::time::sleep(length).await;
    signal(stack.process_id(service).unwrap(), "CONT");
    scene.says(consumer, UNSETTLED).await;
}

async fn troubled(stack: &mut Stack, scene: &mut Scene, trouble: EngineTrouble) {
    let consumer = scene.start();
    scene.settles().await;
    stack.restart_engine(trouble).await.unwrap();
    scene.disturbed().await;
    scene.says(consumer, UNSETTLED).await;
    tokio::time::sleep(TROUBLE).await;
    stack.restart_engine(EngineTrouble::None).await.unwrap();
}

async fn disk_full(scene: &mut Scene) {
    let consumer = scene.start();
    scene.settles().await;
    let needed = "min_free_disk_bytes_to_perform_insert";
    let database = scene.world.database();
    let alter = async |change: &str| {
        for table in ["clicks", "watches"] {
            let sql = format!("ALTER TABLE {{database}}.{table} {change}");
            database.execute(&sql).await.unwrap();
        }
    };
    alter(&format!("MODIFY SETTING {needed} = {}", 1_u64 << 60)).await;
    scene.disturbed().await;
    scene.says(consumer, UNSETTLED).await;
    tokio::time::sleep(TROUBLE).await;
    alter(&format!("RESET SETTING {needed}")).await;
}

async fn file_size(stack: &mut Stack, scene: &mut Scene) {
    let consumer = scene.start();
    scene.settles().await;
    let engine = stack.process_id(Service::ClickHouse).unwrap();
    let limited = Command::new("prlimit")
        .args(["--pid", &engine.to_string(), "--fsize=0:unlimited"])
        .status()
        .unwrap();
    assert!(limited.success());
    scene.disturbed().await;
    scene.says(consumer, UNSETTLED).await;
    tokio::time::sleep(TROUBLE).await;
    // The signal that comes with the limit may have ended it.
    stack.kill(Service::ClickHouse).await.unwrap();
    scene.kills += 1;
    stack.restart(Service::ClickHouse).await.unwrap();
}

async fn registry_down(stack: &mut Stack, scene: &mut Scene) {
    scene.published().await;
    stack.kill(Service::Registry).await.unwrap();
    scene.kills += 1;
    scene.disturbed().await;
    let consumer = scene.start();
    scene.says(consumer, "waiting for a schema").await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    stack.restart(Service::Registry).await.unwrap();
}

fn group_id(scene: &Scene) -> String {
    format!(
        "{}{}",
        scene.world.targets.kafka.group_prefix, scene.cell.group
    )
}

fn admin(scene: &Scene) -> AdminClient<DefaultClientContext> {
    AdminClient::from_config(&kafka::client_config(&scene.world.targets.kafka).unwrap()).unwrap()
}

/// Some of it is in, and nobody is there.
async fn stop_half_way(scene: &mut Scene) {
    let first = scene.start();
    scene.settles().await;
    assert_eq!(scene.consumers[first].terminate(), Some(0));
    scene
        .until("the group is empty", || async {
            scene.membership().await.1 == 0
        })
        .await;
}

async fn offsets_deleted(scene: &mut Scene) {
    stop_half_way(scene).await;
    let id = group_id(scene);
    let deleted = admin(scene)
        .delete_groups(&[&id], &AdminOptions::new())
        .await
        .unwrap();
    assert!(deleted.iter().all(Result::is_ok), "{deleted:?}");
    scene.disturbed().await;
    scene.start();
}

async fn offsets_set_back(scene: &mut Scene) {
    stop_half_way(scene).await;
    let lags = scene.world.lag(&[scene.group()]).await;
    let (kafka, id) = (scene.world.targets.kafka.clone(), group_id(scene));
    tokio::task::spawn_blocking(move || {
        let mut config = kafka::client_config(&kafka).unwrap();
        config.set("group.id", id);
        let client: BaseConsumer = BaseConsumer::from_config(&config).unwrap();
        let mut list = TopicPartitionList::new();
        for lag in &lags {
            list.add_partition_offset(&lag.topic, lag.partition, Offset::Offset(0))
                .unwrap();
        }
        client.commit(&list, CommitMode::Sync).unwrap();
    })
    .await
    .unwrap();
    scene.disturbed().await;
    scene.start();
}

async fn retention_passed(scene: &mut Scene) {
    match scene.cell.at {
        Some(_) => {
            let first = scene.start_armed(Action::Kill);
            scene.died(first).await;
        }
        None => stop_half_way(scene).await,
    }
    let unread = |lag: &PartitionLag| lag.end - lag.committed.unwrap_or(0);
    scene
        .until("there is something to take", || async {
            let lags = scene.world.lag(&[scene.group()]).await;
            lags.iter().all(|lag| lag.end == 0 || unread(lag) > 1_000)
        })
        .await;
    let mut list = TopicPartitionList::new();
    for lag in scene.world.lag(&[scene.group()]).await {
        let first = lag.committed.unwrap_or(0) + unread(&lag) / 2;
        list.add_partition_offset(&lag.topic, lag.partition, Offset::Offset(first))
            .unwrap();
    }
    admin(scene)
        .delete_records(&list, &AdminOptions::new())
        .await
        .unwrap();
    scene.loses();
    scene.disturbed().await;
    let consumer = scene.start();
    scene
        .says(
            consumer,
            "the log no longer has messages that this group has not read",
        )
        .await;
}

/// What an hour would show: it pauses, it stays small, it lives, and it catches up without help.
async fn engine_down(stack: &mut Stack, scene: &mut Scene) {
    let consumer = scene.start();
    scene.settles().await;
    stack.kill(Service::ClickHouse).await.unwrap();
    scene.kills += 1;
    scene.disturbed().await;
    tokio::time::sleep(DOWN).await;
    assert!(scene.consumers[consumer].is_running());
    let peak = scene.consumers[consumer].peak_memory_bytes();
    assert!(peak < PROCESS_BYTES_MAX, "{peak} bytes");
    stack.restart(Service::ClickHouse).await.unwrap();
}

async fn topic_recreated(scene: &mut Scene) {
    stop_half_way(scene).await;
    scene.stop_traffic().await;
    let topic = format!("{}clicks", scene.world.targets.kafka.topic_prefix);
    let deleted = admin(scene)
        .delete_topics(&[&topic], &AdminOptions::new())
        .await
        .unwrap();
    assert!(deleted.iter().all(Result::is_ok), "{deleted:?}");
    let began = Instant::now();
    loop {
        // The old topic is gone a moment after it was deleted.
        let report = setup::run(&scene.world.targets, 2).await.unwrap();
        if report.topics_created.contains(&topic) {
            break;
        }
        assert!(began.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let stopped = scene.start();
    scene.says(stopped, "the topic was made anew").await;
    scene.says(stopped, "activity setup").await;
    assert!(scene.consumers[stopped].is_running());
    scene.kill(stopped);
    // What the message says.
    scene.world.targets.clickhouse.database += "_anew";
    scene.world.targets.kafka.group_prefix = "anew.".to_owned() + &scene.world.name + ".";
    setup::run(&scene.world.targets, 2).await.unwrap();
    scene.forget_published();
    scene.start_traffic(2);
    scene.disturbed().await;
    scene.start();
}

/// Each takes the other's partitions, again and again, and each wakes up as one that was replaced.
async fn fight(scene: &mut Scene) {
    let both = [scene.start(), scene.start()];
    scene.members(2).await;
    let began = Instant::now();
    let mut turn = 0;
    while began.elapsed() < FIGHT {
        let stopped = both[turn % 2];
        turn += 1;
        signal(scene.consumers[stopped].id(), "STOP");
        tokio::time::sleep(ZOMBIE_PAUSE).await;
        signal(scene.consumers[stopped].id(), "CONT");
        scene.disturbed().await;
        scene.recovered().await;
    }
    scene.members(2).await;
}
