//! Offsets and topics are meddled with.

use std::time::{Duration, Instant};

use activity_operator::lag::PartitionLag;
use activity_operator::setup;
use activity_platform::fault::Action;
use activity_platform::kafka;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::FromClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::{Offset, TopicPartitionList};

use crate::bench::Scene;
use crate::support::PATIENCE;

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
    scene.stop(first).await;
}

pub async fn offsets_deleted(scene: &mut Scene) {
    match scene.cell.at {
        Some(_) => {
            let first = scene.start_armed(Action::Kill);
            scene.died(first).await;
        }
        None => stop_half_way(scene).await,
    }
    let (admin, id, began) = (admin(scene), group_id(scene), Instant::now());
    // A member that was killed is one until its session ends, and keeps its group from being deleted.
    loop {
        let deleted = admin.delete_groups(&[&id], &AdminOptions::new()).await;
        let deleted = deleted.unwrap();
        if deleted.iter().all(Result::is_ok) {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "{deleted:?}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    scene.disturbed().await;
    scene.start();
}

pub async fn offsets_set_back(scene: &mut Scene) {
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

pub async fn retention_passed(scene: &mut Scene) {
    // What was lost of a partition can be told from where the group was in it: nowhere, and it begins with what there is.
    let first = scene.start();
    scene.settles_everywhere().await;
    scene.stop(first).await;
    if scene.cell.at.is_some() {
        let armed = scene.start_armed(Action::Kill);
        scene.died(armed).await;
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

pub async fn topic_recreated(scene: &mut Scene) {
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
