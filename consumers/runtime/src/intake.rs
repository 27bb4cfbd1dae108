//! From Kafka into the lanes: what was fetched is handed over run by run; what a message needs first is asked for, and not waited for long.

use std::sync::Arc;
use std::time::{Duration, Instant};

use activity_platform::fault::{self, Point};
use activity_platform::registry::{self, Registry};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use tokio::runtime::Handle;

use crate::burst::Burst;
use crate::decoding::Schemas;
use crate::driver::Driver;
use crate::fetched::Fetched;
use crate::hole;
use crate::lane::{Handled, Lane, Message, PANICKED, Phase};
use crate::reject_limit::RejectLimit;

/// How long one poll waits for a message: bounds how late a finished cycle is noticed.
const POLL_TIMEOUT: Duration = Duration::from_millis(10);
/// How long the loop waits for the registry before the partition is paused and others go on.
const REGISTRY_WAIT: Duration = Duration::from_secs(1);
/// How long the loop waits for a broker's answer before the partition is paused and others go on.
const BROKER_WAIT: Duration = Duration::from_secs(1);
/// A registry that gave no answer is not waited for again in this time.
const REGISTRY_SILENT_FOR: Duration = Duration::from_secs(2);

impl Driver {
    /// Takes a bounded number of messages and feeds them to their lanes.
    pub(crate) fn poll(&mut self) {
        let mut burst = Burst::default();
        self.serve_events(&mut burst);
        let fetched = self.fetched.clone();
        let mut timeout = if self.cycle_began.is_some() {
            Duration::from_millis(1)
        } else {
            POLL_TIMEOUT
        };
        while !burst.is_over() {
            let count = burst.next_count();
            let batch = fetched.take(count, timeout);
            // One look at the clock for all: they are fed within a millisecond.
            let now = Instant::now();
            for run in batch.chunk_by(Fetched::is_of_same_partition) {
                run.iter().for_each(|message| burst.count(message.bytes()));
                match run.first().and_then(Fetched::error) {
                    Some(error) => self.poll_failed(&error),
                    None => self.receive(run, now),
                }
            }
            if std::mem::take(&mut self.limit_passed) || batch.len() < count {
                break;
            }
            timeout = Duration::ZERO;
        }
        self.send_derived();
    }

    /// Rebalances, statistics and errors, of which the consumer's own queue tells.
    fn serve_events(&mut self, burst: &mut Burst) {
        let consumer = self.consumer.clone();
        while !burst.is_over()
            && let Some(event) = consumer.poll(Duration::ZERO)
        {
            burst.count(0);
            match event {
                Err(error) => self.poll_failed(&error),
                // Its partition was not routed yet, so that the next one may have come the other way.
                Ok(message) => {
                    let lane = self.running_lane(message.topic(), message.partition());
                    if let Some(lane) = lane.and_then(|number| self.lanes.get_mut(&number)) {
                        lane.give_back(Instant::now());
                    }
                }
            }
        }
    }

    fn poll_failed(&mut self, error: &KafkaError) {
        let (group, now) = (self.group.name, Instant::now());
        tracing::debug!(group, %error, "poll");
        if let Some(why) = self.read_trouble.note(error, now) {
            tracing::warn!(group, "{why}");
            // Whether it lasts is asked for at once.
            self.watermarks_at = now;
        }
    }

    fn running_lane(&self, topic: &str, partition: i32) -> Option<u64> {
        let is_it = |lane: &Lane| {
            lane.partition == partition && *lane.name == *topic && lane.phase == Phase::Running
        };
        let found = self.lanes.iter().find(|(_, lane)| is_it(lane));
        found.map(|(number, _)| *number)
    }

    /// Feeds messages of one partition to their lane, until it takes no more: what is left of them is fetched again from there on.
    fn receive(&mut self, run: &[Fetched<'_>], now: Instant) {
        let number =
            (run.first()).and_then(|first| self.running_lane(first.topic(), first.partition()));
        let Some(number) = number else {
            return;
        };
        for message in run {
            let running = |lane: &&mut Lane| lane.phase == Phase::Running;
            let Some(lane) = self.lanes.get_mut(&number).filter(running) else {
                return;
            };
            if self.limit_passed {
                return lane.give_back(now);
            }
            self.feed(number, message, now);
        }
    }

    fn feed(&mut self, number: u64, message: &Fetched<'_>, now: Instant) {
        let Some(lane) = self.lanes.get_mut(&number) else {
            return;
        };
        let offset = message.offset();
        let received = Message {
            offset,
            appended_at_ms: message.appended_at_ms(),
            key: message.key(),
            payload: message.payload(),
            headers: message,
        };
        let Some(log_first) = hole::log_first(&self.consumer, lane, offset, BROKER_WAIT) else {
            let why = "kafka: no answer".to_owned();
            return lane.stall(lane.next(), "the log's start", why, now);
        };
        loop {
            match lane.handle(&received, &self.schemas, log_first, now) {
                Handled::Taken(reason) => {
                    lane.waiting_for = None;
                    // What is built again was counted in an earlier life.
                    if !lane.is_redoing() {
                        count_taken(&mut self.limits, &lane.name, reason.is_some(), now).inspect(
                            |why| {
                                self.limit_passed = true;
                                tracing::error!(group = self.group.name, "{why}");
                            },
                        );
                    }
                    if let Some(reason) = reason {
                        self.rejected(message.topic(), message.partition(), offset, reason);
                    }
                    return;
                }
                Handled::Replayed => {
                    fault::reach(Point::Replaying);
                    lane.waiting_for = None;
                    return;
                }
                handled @ (Handled::Repeated | Handled::RangeLost | Handled::Panicked) => {
                    if handled == Handled::Repeated {
                        let (group, next) = (self.group.name, lane.next());
                        let (topic, partition) = (message.topic(), message.partition());
                        tracing::warn!(
                            group,
                            topic,
                            partition,
                            offset,
                            next,
                            "a message came whose offset was handled before: looking whose log it is"
                        );
                    }
                    let assignment = lane.assignment;
                    return self.open_lane(assignment);
                }
                Handled::UnknownSchema(id) => {
                    if let Err(why) = resolve(
                        id,
                        &self.runtime,
                        &self.registry,
                        &mut self.schemas,
                        &mut self.registry_silent_until,
                    ) {
                        return lane.stall(offset, "a schema", why, now);
                    }
                }
            }
        }
    }

    fn rejected(&mut self, topic: &str, partition: i32, offset: i64, reason: &str) {
        let group = self.group.name;
        self.sink
            .metrics
            .events_rejected
            .with_label_values(&[group, topic, &partition.to_string(), reason])
            .inc();
        if reason == PANICKED && !std::mem::replace(&mut self.panic_said, true) {
            tracing::error!(
                group,
                topic,
                partition,
                offset,
                "the group panicked over a message, which is a dead letter now: this is a fault of the group's code"
            );
        }
    }
}

/// Counts a message of a topic; says why nothing more of it is taken if it is the one too many.
fn count_taken(
    limits: &mut [(Arc<str>, RejectLimit)],
    topic: &Arc<str>,
    rejected: bool,
    now: Instant,
) -> Option<String> {
    let (name, limit) = limits
        .iter_mut()
        .find(|(name, _)| Arc::ptr_eq(name, topic))?;
    limit
        .count(rejected, now)
        .then(|| limit.why_stopped(name))?
}

/// Fetches a writer's schema; the error says why it must be waited for.
fn resolve(
    id: u32,
    runtime: &Handle,
    registry: &Registry,
    schemas: &mut Schemas,
    silent_until: &mut Instant,
) -> Result<(), String> {
    if Instant::now() < *silent_until {
        return Err("schema registry: no answer".to_owned());
    }
    let asked =
        runtime.block_on(async { tokio::time::timeout(REGISTRY_WAIT, registry.schema(id)).await });
    match asked {
        Ok(Ok(json)) => schemas.add(id, &json),
        Ok(Err(registry::Error::NoSuchSchema { .. })) => schemas.add_missing(id, Instant::now()),
        silent => {
            *silent_until = Instant::now() + REGISTRY_SILENT_FOR;
            return Err(
                silent.map_or("schema registry: no answer".to_owned(), |answer| {
                    answer.map_or_else(|error| error.to_string(), |_| String::new())
                }),
            );
        }
    }
    Ok(())
}
