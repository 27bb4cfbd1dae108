//! One publication under way: take an event, wait until it is due, encode and send it; at the end wait for the acknowledgements.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use activity_schemas::truth::{ATTACK_HEADER, LABEL_HEADER};
use rdkafka::{
    error::RDKafkaErrorCode,
    message::{Header, OwnedHeaders},
    producer::{BaseRecord, Producer, PurgeConfig},
};
use tokio_util::sync::CancellationToken;

use super::{Ended, LOGGED_MAX, MalformedShare, Progress, Publisher, Run, client::Deliveries};
use crate::{
    encode::{encode, kind},
    pace::Pacer,
    source::{EventSource, Outgoing, SourceError, received_at, user_id},
    traffic::malformed::{Malformed, malformed},
};

/// So many events between two looks at the clock, the stop signal and the delivery reports.
const LOOK_EVERY: u64 = 256;
/// Time between two reports of progress.
const REPORT_EVERY: Duration = Duration::from_millis(500);
/// Longest wait without a look at the stop signal.
const WAIT_MAX: Duration = Duration::from_millis(100);
/// Pause before a full queue is tried again, or a flush; delivery reports are taken meanwhile.
const FULL_QUEUE_WAIT: Duration = Duration::from_millis(5);
/// After the stop signal, what is queued has this long to be acknowledged.
const STOP_FLUSH_MAX: Duration = Duration::from_secs(10);
/// A gap in the recording that is worth a line in the log.
const LONG_WAIT: Duration = Duration::from_secs(60);

/// Malformed messages, their share kept exactly.
struct Defects {
    malformed: Malformed,
    per_million: u32,
    owed: u64,
    bytes: Vec<u8>,
}

impl Defects {
    fn new(share: MalformedShare) -> Self {
        Self {
            malformed: malformed(share.seed),
            per_million: share.per_million,
            owed: 0,
            bytes: Vec::new(),
        }
    }

    /// After a good message: the malformed one that goes with it, if it is time for one.
    fn after(&mut self, good: &[u8]) -> Option<&[u8]> {
        self.owed += u64::from(self.per_million);
        if self.owed < 1_000_000 {
            return None;
        }
        self.owed -= 1_000_000;
        self.malformed.next_from(good, &mut self.bytes);
        Some(&self.bytes)
    }
}

/// One publication under way.
pub(super) struct Publication<'a, P> {
    publisher: &'a Publisher,
    run: &'a Run,
    stop: &'a CancellationToken,
    report: P,
    started: Instant,
    reported: Instant,
    counts: Progress,
    value: Vec<u8>,
    defects: Option<Defects>,
}

type Record<'a> = BaseRecord<'a, str, [u8]>;

impl<'a, P: FnMut(&Progress)> Publication<'a, P> {
    pub(super) fn new(
        publisher: &'a Publisher,
        run: &'a Run,
        stop: &'a CancellationToken,
        report: P,
    ) -> Self {
        Self {
            publisher,
            run,
            stop,
            report,
            started: Instant::now(),
            reported: Instant::now(),
            counts: Progress::default(),
            value: Vec::with_capacity(1024),
            defects: run.malformed.map(Defects::new),
        }
    }

    pub(super) fn send_all(&mut self, source: &mut impl EventSource) -> Ended {
        let mut pacer = Pacer::new(self.run.pace);
        let mut events = 0;
        loop {
            if self.run.events_max.is_some_and(|max| events >= max) {
                return Ended::LimitReached;
            }
            if (events + self.counts.unmappable).is_multiple_of(LOOK_EVERY) {
                self.look();
                if let Some(ended) = self.interrupted() {
                    return ended;
                }
            }
            let outgoing = match source.next_event() {
                None => return Ended::SourceEnded,
                Some(Ok(outgoing)) => outgoing,
                Some(Err(error @ SourceError::Unmappable { .. })) => {
                    self.count_unmappable(&error);
                    continue;
                }
                Some(Err(error @ SourceError::Broken { .. })) => {
                    return Ended::Broken(error.to_string());
                }
            };
            let received_ms = received_at(&outgoing.event);
            if (self.run.received_before_ms).is_some_and(|before_ms| received_ms >= before_ms) {
                return Ended::LimitReached;
            }
            if let Some(due) = pacer.due(received_ms)
                && let Some(ended) = self.wait_until(due)
            {
                return ended;
            }
            if let Err(ended) = self.send_event(&outgoing) {
                return ended;
            }
            self.counts.received_at_ms = Some(received_ms);
            events += 1;
        }
    }

    fn count_unmappable(&mut self, error: &SourceError) {
        self.counts.unmappable += 1;
        if self.counts.unmappable <= LOGGED_MAX {
            tracing::warn!("{error}");
        }
        if self.counts.unmappable == LOGGED_MAX {
            tracing::warn!("further lines that cannot be mapped are counted, not logged");
        }
    }

    fn send_event(&mut self, outgoing: &Outgoing<'_>) -> Result<(), Ended> {
        let publisher = self.publisher;
        let outlet = publisher.outlet(kind(&outgoing.event));
        let mut value = std::mem::take(&mut self.value);
        value.clear();
        encode(&outlet.encoder, &outgoing.event, &mut value)
            .map_err(|error| Ended::Broken(error.to_string()))?;
        let user = user_id(&outgoing.event);
        let mut record: Record<'_> = BaseRecord::to(&outlet.topic).key(user).payload(&value);
        record.headers = headers(outgoing);
        self.send(record)?;
        if let Some(mut defects) = self.defects.take() {
            if let Some(bad) = defects.after(&value) {
                self.send(BaseRecord::to(&outlet.topic).key(user).payload(bad))?;
                self.counts.malformed += 1;
            }
            self.defects = Some(defects);
        }
        self.value = value;
        Ok(())
    }

    /// Hands one message to the client, however long its queue is full.
    fn send(&mut self, mut record: Record<'_>) -> Result<(), Ended> {
        let bytes = record.key.map_or(0, str::len) + record.payload.map_or(0, <[u8]>::len);
        loop {
            let error = match self.publisher.producer.send(record) {
                Ok(()) => break,
                Err((error, back)) => {
                    record = back;
                    error
                }
            };
            match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::QueueFull) => {
                    self.publisher.producer.poll(FULL_QUEUE_WAIT);
                    self.look();
                    if let Some(ended) = self.interrupted() {
                        return Err(ended);
                    }
                }
                Some(RDKafkaErrorCode::MessageSizeTooLarge) => {
                    self.deliveries().count_failure(record.topic, &error);
                    break;
                }
                _ => return Err(Ended::Broken(format!("kafka refused an event: {error}"))),
            }
        }
        self.counts.sent += 1;
        self.counts.bytes += bytes as u64;
        Ok(())
    }

    /// Waits until an event is due; Some if the run ends before.
    fn wait_until(&mut self, due: Duration) -> Option<Ended> {
        let left = due.saturating_sub(self.started.elapsed());
        // Shorter than that the system cannot wait anyway.
        if left < Duration::from_millis(1) {
            return None;
        }
        if left > LONG_WAIT {
            let left = Duration::from_secs(left.as_secs());
            tracing::info!(next_event_in = %humantime::format_duration(left), "waiting for the next event at this pace");
        }
        loop {
            let left = due.saturating_sub(self.started.elapsed());
            self.counts.next_event_in_s = Some(left.as_secs_f64()).filter(|_| !left.is_zero());
            if left.is_zero() {
                return None;
            }
            self.publisher.producer.poll(left.min(WAIT_MAX));
            self.look();
            if let Some(ended) = self.interrupted() {
                return Some(ended);
            }
        }
    }

    fn interrupted(&self) -> Option<Ended> {
        if self.stop.is_cancelled() {
            Some(Ended::Stopped)
        } else {
            let limit = self.run.duration_max?;
            (self.started.elapsed() >= limit).then_some(Ended::LimitReached)
        }
    }

    /// Takes delivery reports, and reports progress if it is time to.
    fn look(&mut self) {
        self.publisher.producer.poll(Duration::ZERO);
        if self.reported.elapsed() >= REPORT_EVERY {
            self.reported = Instant::now();
            self.count();
            (self.report)(&self.counts);
        }
    }

    fn deliveries(&self) -> &Deliveries {
        self.publisher.producer.context()
    }

    pub(super) fn count(&mut self) -> &Progress {
        // In this order: what fails in between does not count as acknowledged.
        let in_flight = self.publisher.producer.in_flight_count();
        let failed = self.deliveries().failed.load(Ordering::Relaxed);
        self.counts.failed = failed;
        self.counts.acknowledged =
            (self.counts.sent).saturating_sub(failed + u64::try_from(in_flight).unwrap_or(0));
        self.counts.seconds = self.started.elapsed().as_secs_f64();
        &self.counts
    }

    /// Waits until every message is acknowledged or given up: by itself within `message.timeout.ms`, after the stop signal within
    /// [`STOP_FLUSH_MAX`].
    pub(super) fn flush(&mut self) {
        self.counts.next_event_in_s = None;
        let producer = &self.publisher.producer;
        let mut stopped_at = None;
        while producer.in_flight_count() > 0 {
            // Sends at once what lingers; waiting is done here, where the stop signal is seen.
            let _ = producer.flush(Duration::ZERO);
            producer.poll(FULL_QUEUE_WAIT);
            self.look();
            if self.stop.is_cancelled() {
                let since = *stopped_at.get_or_insert_with(Instant::now);
                if since.elapsed() > STOP_FLUSH_MAX {
                    self.give_up();
                    return;
                }
            }
        }
    }

    fn give_up(&self) {
        let producer = &self.publisher.producer;
        producer.purge(PurgeConfig::default().queue().inflight());
        let deadline = Instant::now() + Duration::from_secs(1);
        while producer.in_flight_count() > 0 && Instant::now() < deadline {
            producer.poll(FULL_QUEUE_WAIT);
        }
    }
}

fn headers(outgoing: &Outgoing<'_>) -> Option<OwnedHeaders> {
    let present = [
        (LABEL_HEADER, outgoing.label),
        (ATTACK_HEADER, outgoing.attack),
    ];
    if present.iter().all(|(_, value)| value.is_none()) {
        return None;
    }
    let headers = present
        .into_iter()
        .filter(|(_, value)| value.is_some())
        .fold(
            OwnedHeaders::new_with_capacity(2),
            |headers, (key, value)| headers.insert(Header { key, value }),
        );
    Some(headers)
}
