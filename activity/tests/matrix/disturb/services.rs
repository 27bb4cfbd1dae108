//! The services are killed, halted and filled up.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use activity_devstack::{EngineTrouble, Service, Stack, TROUBLED_USER};
use activity_platform::fault::Action;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Deserialize;

use super::{TROUBLE, UNSETTLED};
use crate::bench::Scene;
use crate::support::{PATIENCE, World, signal};

const DOWN: Duration = Duration::from_secs(60);
/// Its batches (192 MiB), what the client fetched ahead (16 MB), and itself.
const PROCESS_BYTES_MAX: u64 = 512 << 20;
/// Kills aimed at the moment between log and part; most hit.
const AIMED_KILLS: u32 = 5;
const AIMED_KILLS_MAX: u32 = 15;
const REPAIRED: &str = "rows are missing after an uncertain insert";

pub async fn engine_killed(stack: &mut Stack, scene: &mut Scene) {
    scene.start_armed(Action::Hold);
    scene.reached().await;
    scene.disturbed().await;
    stack.kill(Service::ClickHouse).await.unwrap();
    scene.kills += 1;
    scene.release();
    stack.restart(Service::ClickHouse).await.unwrap();
}

/// The log line of a token is on disk before its part: an engine killed between the two remembers rows that are not there.
pub async fn engine_killed_at_its_log(stack: &mut Stack, scene: &mut Scene) {
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

pub async fn hung(stack: &Stack, scene: &mut Scene, service: Service, length: Duration) {
    let consumer = scene.start();
    scene.settles().await;
    signal(stack.process_id(service).unwrap(), "STOP");
    scene.disturbed().await;
    // On a busy machine it can take the whole outage until something is sent.
    scene.says(consumer, UNSETTLED).await;
    // The outage's length is what is tested.
    tokio::time::sleep(length).await;
    signal(stack.process_id(service).unwrap(), "CONT");
}

/// `code`: the error that ClickHouse gives and counts; the restart alone would make inserts fail for a while, too.
pub async fn troubled(stack: &mut Stack, scene: &mut Scene, trouble: EngineTrouble, code: u32) {
    let consumer = scene.start_with(&["--clickhouse-user", TROUBLED_USER]);
    scene.settles().await;
    stack.restart_engine(trouble).await.unwrap();
    scene.disturbed().await;
    let refused =
        format!("SELECT toInt64(sum(value)) AS number FROM system.errors WHERE code = {code}");
    let is_refused = async || scene.world.number(&refused).await > 0;
    scene.until("clickhouse refuses inserts", is_refused).await;
    scene.says(consumer, UNSETTLED).await;
    tokio::time::sleep(TROUBLE).await;
    stack.restart_engine(EngineTrouble::None).await.unwrap();
}

pub async fn disk_full(scene: &mut Scene) {
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

pub async fn file_size(stack: &mut Stack, scene: &mut Scene) {
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

/// What an hour would show: it pauses, it stays small, it lives, and it catches up without help.
pub async fn engine_down(stack: &mut Stack, scene: &mut Scene) {
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

pub async fn registry_down(stack: &mut Stack, scene: &mut Scene) {
    scene.published().await;
    stack.kill(Service::Registry).await.unwrap();
    scene.kills += 1;
    scene.disturbed().await;
    let consumer = scene.start();
    scene.says(consumer, "waiting for a schema").await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    stack.restart(Service::Registry).await.unwrap();
}

pub async fn engine_restarted(stack: &mut Stack, scene: &mut Scene) {
    scene.start();
    scene.settles().await;
    scene.disturbed().await;
    stack.restart(Service::ClickHouse).await.unwrap();
}

pub async fn broker_killed(stack: &mut Stack, scene: &mut Scene) {
    scene.start();
    scene.settles().await;
    scene.disturbed().await;
    stack.kill(Service::Kafka(1)).await.unwrap();
    scene.kills += 1;
    stack.restart(Service::Kafka(1)).await.unwrap();
}

pub async fn one_of_three_brokers_killed(stack: &mut Stack, scene: &mut Scene) {
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

pub async fn all_brokers_killed(stack: &mut Stack, scene: &mut Scene) {
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

pub async fn brokers_rolled(stack: &mut Stack, scene: &mut Scene) {
    scene.start();
    scene.settles().await;
    scene.disturbed().await;
    for broker in 1..=3 {
        stack.restart(Service::Kafka(broker)).await.unwrap();
    }
}

pub async fn registry_slow(stack: &mut Stack, scene: &mut Scene) {
    scene.published().await;
    signal(stack.process_id(Service::Registry).unwrap(), "STOP");
    scene.disturbed().await;
    let consumer = scene.start();
    scene.says(consumer, "waiting for a schema").await;
    tokio::time::sleep(TROUBLE).await;
    signal(stack.process_id(Service::Registry).unwrap(), "CONT");
}
