//! What nobody can be cheaper than on this machine: librdkafka reads the topic and discards it, and the engine takes ready-made Native blocks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use activity_consumers::{Headers, Input, NoHeaders, Origin, Output, Received, Settings};
use activity_platform::clickhouse::Insert;
use activity_platform::kafka;
use activity_platform::registry::Registry;
use activity_schemas::{CLICKS, Decoders, EventKind};
use anyhow::{Context, ensure};
use bytes::Bytes;
use rdkafka::ClientConfig;
use rdkafka::config::FromClientConfig as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Message as _;
use rdkafka::{Offset, TopicPartitionList};

use crate::plain::PLAIN;
use crate::scene::{Sample, Scene};

/// Rows of a block: those of a full batch of ours.
const BLOCK_ROWS: usize = 131_072;
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// The topic as blocks that ClickHouse takes as they are.
pub struct Blocks(Vec<Arc<[Bytes]>>);

/// Makes the blocks, which nobody is charged for.
pub async fn prepare(scene: &Scene) -> anyhow::Result<Blocks> {
    let registry = Registry::new(&scene.targets.registry)?;
    let id = registry.register(EventKind::Click, &scene.topic()).await?;
    let mut decoders = Decoders::new(EventKind::Click);
    decoders.add(id, &registry.schema(id).await?);
    let (reading, events) = (Reading::of(scene)?, scene.events);
    tokio::task::spawn_blocking(move || blocks(&reading, &decoders, events)).await?
}

fn blocks(reading: &Reading, decoders: &Decoders, events: u64) -> anyhow::Result<Blocks> {
    let headers: &dyn Headers = &NoHeaders;
    let mut group = PLAIN.instance(&Settings::default(), CLICKS);
    let mut outputs: Vec<Output> = (0..reading.partitions)
        .map(|_| Output::new(PLAIN.tables))
        .collect();
    let mut done = Vec::new();
    let topic = reading.topic.clone();
    let mut seal = |output: &mut Output, partition: usize| {
        let origin = Origin {
            topic: &topic,
            partition: partition as i32,
            epoch: 1,
        };
        let (tables, _) = output.take();
        done.extend(
            tables
                .into_iter()
                .filter(|rows| !rows.is_empty())
                .map(|rows| rows.into_native_block(&origin))
                .map(|pieces| pieces.into_iter().map(Bytes::from).collect()),
        );
    };
    reading.each(events, |message| {
        let partition = message.partition() as usize;
        let output = &mut outputs[partition];
        let appended_at_ms = message.timestamp().to_millis().unwrap_or(0);
        output.begin_event(message.offset(), appended_at_ms);
        let event = decoders.decode(message.payload().unwrap_or_default())?;
        let received = Received {
            topic: CLICKS,
            partition: message.partition(),
            offset: message.offset(),
            appended_at_ms,
            headers,
            input: Input::Event(event),
        };
        group.process(&received, output)?;
        if output.rows() == BLOCK_ROWS {
            seal(output, partition);
        }
        Ok(())
    })?;
    for (partition, output) in outputs.iter_mut().enumerate() {
        seal(output, partition);
    }
    Ok(Blocks(done))
}

/// Reads all and discards it, then inserts the blocks.
pub async fn run(scene: &Scene, blocks: &Blocks, round: usize) -> anyhow::Result<Sample> {
    let us = BTreeMap::from([("consumer", std::process::id())]);
    let reading = Reading::of(scene)?;
    let events = scene.events;
    scene
        .measure(us, async {
            tokio::task::spawn_blocking(move || reading.each(events, |_| Ok(()))).await??;
            for (index, block) in blocks.0.iter().enumerate() {
                let token = format!("floor/{round}/{index}");
                let insert = Insert {
                    table: "plain_clicks",
                    block: block.clone(),
                    token: &token,
                    timeout: SILENCE_MAX,
                };
                scene.database.insert(&insert).await?;
            }
            Ok(())
        })
        .await
}

/// Reads the topic from its start, outside of any group.
struct Reading {
    config: ClientConfig,
    topic: String,
    partitions: i32,
}

impl Reading {
    fn of(scene: &Scene) -> anyhow::Result<Self> {
        let mut config = kafka::client_config(&scene.targets.kafka)?;
        config
            .set("group.id", "bench.floor")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("fetch.message.max.bytes", "4194304")
            .set("queued.max.messages.kbytes", "16384")
            .set("fetch.queue.backoff.ms", "10")
            .set("check.crcs", "true");
        Ok(Self {
            config,
            topic: scene.topic(),
            partitions: i32::from(scene.partitions),
        })
    }

    fn each(
        &self,
        events: u64,
        mut handle: impl FnMut(&rdkafka::message::BorrowedMessage<'_>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let consumer: BaseConsumer = BaseConsumer::from_config(&self.config)?;
        let mut list = TopicPartitionList::new();
        for partition in 0..self.partitions {
            list.add_partition_offset(&self.topic, partition, Offset::Beginning)?;
        }
        consumer.assign(&list)?;
        let (mut read, mut heard) = (0, Instant::now());
        while read < events {
            match consumer.poll(Duration::from_millis(100)) {
                Some(message) => {
                    handle(&message.context("reading")?)?;
                    read += 1;
                    if read % 1024 == 0 {
                        heard = Instant::now();
                    }
                }
                None => ensure!(
                    heard.elapsed() < SILENCE_MAX,
                    "kafka is silent after {read} messages"
                ),
            }
        }
        Ok(())
    }
}
