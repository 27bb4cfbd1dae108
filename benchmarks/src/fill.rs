//! A topic full of clicks of the traffic model.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use activity_producer::traffic::{Traffic, TrafficSettings};
use activity_schemas::{Encoder, Event};
use anyhow::{Context, ensure};
use rand::distr::{Alphanumeric, SampleString as _};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;
use rdkafka::ClientConfig;
use rdkafka::config::FromClientConfig as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

const SEED: u64 = 7;
const FLUSH_PATIENCE: Duration = Duration::from_secs(120);

/// What the topic is filled with.
#[derive(Clone, Copy, Debug)]
pub struct Filling {
    /// Clicks.
    pub events: u64,
    /// Partitions.
    pub partitions: u16,
    /// Random letters that are added to each event, in its referrer.
    pub padding_bytes: usize,
    /// Events per second, each received at the moment that it is sent; None: as fast as possible, in the model's own time.
    pub rate: Option<f64>,
}

/// Publishes the clicks, keyed by user, and waits until the broker has all of them; the bytes of their values.
pub fn publish(
    config: &ClientConfig,
    topic: &str,
    encoder: &Encoder,
    filling: Filling,
) -> anyhow::Result<u64> {
    let mut config = config.clone();
    let linger_ms = if filling.rate.is_some() { "5" } else { "20" };
    config
        .set("linger.ms", linger_ms)
        .set("queue.buffering.max.messages", "200000");
    let producer: BaseProducer = BaseProducer::from_config(&config)?;
    let mut traffic = Traffic::new(
        SEED,
        TrafficSettings {
            events_per_second: 20_000.0,
            users: 200_000,
            ..TrafficSettings::default()
        },
    );
    let mut random = ChaCha8Rng::seed_from_u64(SEED);
    let began = Instant::now();
    let (mut sent, mut bytes) = (0, 0);
    let (mut value, mut padding) = (Vec::new(), String::new());
    while sent < filling.events {
        if let Some(rate) = filling.rate {
            wait_until_due(&producer, began, sent as f64 / rate);
        }
        let Event::Click(mut click) = traffic.next_event().event else {
            continue;
        };
        if filling.padding_bytes > 0 {
            padding.clear();
            Alphanumeric.append_string(&mut random, &mut padding, filling.padding_bytes);
            click.referrer = Some(&padding);
        }
        if filling.rate.is_some() {
            click.received_at = now_ms();
        }
        value.clear();
        encoder.encode(&click, &mut value)?;
        send(
            &producer,
            BaseRecord::to(topic).key(click.user_id).payload(&value),
        )?;
        sent += 1;
        bytes += value.len() as u64;
    }
    producer.flush(FLUSH_PATIENCE).context("the last clicks")?;
    ensure!(
        producer.in_flight_count() == 0,
        "{} clicks were not acknowledged",
        producer.in_flight_count()
    );
    Ok(bytes)
}

/// Serves the client until so many seconds have passed.
fn wait_until_due(producer: &BaseProducer, began: Instant, seconds: f64) {
    loop {
        let ahead = seconds - began.elapsed().as_secs_f64();
        // What is due within the linger may as well be sent now: a pause for each event would cost more than the event.
        if ahead <= 0.001 {
            return;
        }
        producer.poll(Duration::from_secs_f64(ahead.min(0.01)));
    }
}

/// Milliseconds since 1970-01-01 UTC.
pub fn now_ms() -> i64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

/// Hands a message to the client, as soon as there is room for it.
fn send(producer: &BaseProducer, record: BaseRecord<'_, str, Vec<u8>>) -> anyhow::Result<()> {
    let mut record = record;
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                record = back;
                producer.poll(Duration::from_millis(10));
            }
            Err((error, _)) => return Err(error.into()),
        }
    }
}
