//! What the loop tells the outside: metrics and readiness, from the lanes' state, a few times a second.

use std::time::{Duration, Instant};

use activity_platform::metrics::{Metrics, RestorePhase};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::metadata::MetadataTopic;

use crate::cycle::now_ms;
use crate::driver::Driver;
use crate::lane::{Lane, Phase, Rebuilding};
use crate::membership::Membership;
use crate::trouble::says_once;

/// Metrics and readiness are brought up to date this often.
const INTERVAL: Duration = Duration::from_millis(200);
/// The client learns the end of a log from what it fetches; of a partition that is paused it is asked for this often.
const WATERMARKS_INTERVAL: Duration = Duration::from_secs(5);
/// How long messages of a topic that was made anew may be taken for those of the old one.
const TOPICS_INTERVAL: Duration = Duration::from_secs(10);

impl Driver {
    /// How long a part of getting a partition's state back took.
    pub(crate) fn observe_restore(&self, topic: &str, phase: RestorePhase, took: Duration) {
        let labels = [self.group.name, topic, phase.label()];
        let seconds = &self.sink.metrics.restore_seconds;
        seconds
            .with_label_values(&labels)
            .observe(took.as_secs_f64());
    }

    /// Says of states that are whole again how long it took.
    fn note_rebuilt(&mut self, now: Instant) {
        let mut rebuilt = Vec::new();
        for lane in self.lanes.values_mut() {
            if lane.phase == Phase::Running && !lane.is_replaying() {
                let taken = lane.rebuilding.take();
                rebuilt.extend(taken.map(|rebuilding| (lane.name.clone(), rebuilding)));
            }
        }
        for (topic, Rebuilding { began, restored }) in rebuilt {
            let replay = now.saturating_duration_since(restored);
            self.observe_restore(&topic, RestorePhase::Replay, replay);
            let total = now.saturating_duration_since(began);
            self.observe_restore(&topic, RestorePhase::Total, total);
        }
    }

    pub(crate) fn housekeep(&mut self, now: Instant) {
        self.note_rebuilt(now);
        if now < self.housekeeping_at {
            return;
        }
        self.housekeeping_at = now + INTERVAL;
        self.schemas.tidy(now);
        let shows = self.consumer.context().is_unreadable();
        self.read_trouble.goes_on(shows, now);
        self.report_readiness(now);
        self.report_metrics(now);
        self.report_look_up();
        if now >= self.watermarks_at {
            self.watermarks_at = now + WATERMARKS_INTERVAL;
            self.ask_for_watermarks();
            if self.read_trouble.is_said_once(now) {
                self.ask_for_topics();
            }
        }
        if now >= self.topics_at {
            self.topics_at = now + TOPICS_INTERVAL;
            self.look_at_topics();
        }
    }

    fn report_readiness(&self, now: Instant) {
        let insert_timeout = Duration::from_millis(self.settings.insert_timeout_ms);
        let is_long = |since: Option<Instant>, limit: Duration| {
            since.is_some_and(|since| now.saturating_duration_since(since) > limit)
        };
        if !self.joined {
            let refused = self.consumer.context().refused();
            let why = refused.unwrap_or_else(|| "joining the group".to_owned());
            self.readiness.not_ready(self.group.name, why);
        } else if let Some(why) = self.commit_trouble.why(now) {
            self.readiness.not_ready(self.group.name, why);
        } else if let Some(why) = self.read_trouble.why(now) {
            self.readiness.not_ready(self.group.name, why);
        } else if let Some(why) = self
            .limits
            .iter()
            .find_map(|(topic, limit)| limit.why_stopped(topic))
        {
            self.readiness.not_ready(self.group.name, why);
        } else if is_long(self.cycle_began, insert_timeout) {
            self.readiness.not_ready(self.group.name, "a flush takes longer than an insert may: waiting for clickhouse or for kafka's acknowledgements");
        } else {
            self.readiness.ready(self.group.name);
        }
        let is_ready = !self.readiness.reasons().contains_key(self.group.name);
        let ready = &self.sink.metrics.ready;
        ready
            .with_label_values(&[self.group.name])
            .set(i64::from(is_ready));
        for (partition, assignment) in &self.by_partition {
            match self.lanes.get(assignment).and_then(why_not_ready) {
                Some(why) => self.readiness.not_ready(&self.part(partition), why),
                None => self.readiness.ready(&self.part(partition)),
            }
        }
    }

    fn report_metrics(&mut self, now: Instant) {
        let metrics = self.sink.metrics.clone();
        metrics
            .buffered_bytes
            .with_label_values(&[self.group.name])
            .set(self.bytes() as i64);
        for (topic, limit) in &self.limits {
            metrics
                .reject_limit_passed
                .with_label_values(&[self.group.name, topic])
                .set(i64::from(limit.is_passed()));
        }
        for (partition, assignment) in &self.by_partition {
            let Some(lane) = self.lanes.get_mut(assignment) else {
                continue;
            };
            tell_counts(&metrics, self.group.name, lane);
            let labels = [
                self.group.name,
                partition.0.as_str(),
                &partition.1.to_string(),
            ];
            metrics
                .paused
                .with_label_values(&labels)
                .set(i64::from(lane.paused));
            metrics
                .batch_unsettled
                .with_label_values(&labels)
                .set(i64::from(lane.unsettled_why.is_some()));
            // From zero on: what is counted first would not be seen to grow.
            metrics.events_lost.with_label_values(&labels).inc_by(0);
            let Some(committed) = lane.committed.or(lane.told.found_committed) else {
                continue;
            };
            metrics
                .current_offset
                .with_label_values(&labels)
                .set(committed);
            let ends = self
                .consumer
                .context()
                .log_ends(partition)
                .filter(|ends| ends.next >= 0);
            let behind = ends.map(|ends| (ends.next - committed).max(0));
            if let Some(behind) = behind {
                metrics.lag.with_label_values(&labels).set(behind);
            }
            let age_ms = lane
                .oldest_unsettled_ms()
                .map(|appended_at_ms| now_ms() - appended_at_ms);
            // The last offset of a log may be a marker that no lane ever gets: one that runs is behind by what it has in hand.
            let stands_still = behind.is_some_and(|behind| behind > 0)
                && (lane.paused || lane.phase != Phase::Running);
            let waited_ms = lane.told.waited_ms(age_ms, stands_still, now);
            metrics.lag_ms.with_label_values(&labels).set(waited_ms);
        }
    }

    /// The client says only once that a topic is not available, and nothing when it is again.
    fn ask_for_topics(&self) {
        let (consumer, topics) = (self.consumer.clone(), self.topics.clone());
        self.runtime.spawn_blocking(move || {
            let asked = topics
                .iter()
                .map(|(_, name)| is_unavailable(&consumer, name))
                .collect::<Result<Vec<bool>, _>>();
            if let Ok(found) = asked {
                consumer.context().note_topics(found.contains(&true));
            }
        });
    }

    /// Beside the loop: a broker that does not answer must not stop it.
    fn ask_for_watermarks(&self) {
        let paused: Vec<_> = self
            .lanes
            .values()
            .filter(|lane| lane.paused)
            .map(|lane| (lane.name.to_string(), lane.partition))
            .collect();
        if paused.is_empty() {
            return;
        }
        let consumer = self.consumer.clone();
        self.runtime.spawn_blocking(move || {
            for (topic, partition) in paused {
                if let Ok((first, next)) =
                    consumer.fetch_watermarks(&topic, partition, WATERMARKS_INTERVAL)
                {
                    consumer
                        .context()
                        .note_log_ends((topic, partition), first, next);
                }
            }
        });
    }
}

/// Whether a topic is not there, or not for us.
fn is_unavailable(consumer: &BaseConsumer<Membership>, topic: &str) -> Result<bool, KafkaError> {
    let metadata = consumer.fetch_metadata(Some(topic), WATERMARKS_INTERVAL)?;
    let error = metadata.topics().first().and_then(MetadataTopic::error);
    Ok(error.is_some_and(|error| says_once(error.into())))
}

/// Counts what became of a lane's messages since it was told last; to be told once more before a lane is dropped.
pub(crate) fn tell_counts(metrics: &Metrics, group: &str, lane: &mut Lane) {
    let labels = [group, &*lane.name, &lane.partition.to_string()];
    let (read, processed, replayed) = lane.told.take_counts();
    for (metric, count) in [
        (&metrics.events_read, read),
        (&metrics.events_processed, processed),
        (&metrics.events_replayed, replayed),
    ] {
        metric.with_label_values(&labels).inc_by(count);
    }
}

/// Why a partition does not do its work; None: it does.
pub(crate) fn why_not_ready(lane: &Lane) -> Option<String> {
    if let Some(why) = lane.unsettled_why.as_ref().or(lane.waiting_for.as_ref()) {
        return Some(why.clone());
    }
    match lane.phase {
        Phase::Opening | Phase::Seeking { .. } => Some("finding its place".to_owned()),
        Phase::Stopped { .. } => Some("stopped".to_owned()),
        Phase::Running if lane.is_replaying() => {
            let left = lane.replay_left();
            Some(format!("rebuilding its state: {left} offsets to go"))
        }
        Phase::Running => None,
    }
}
