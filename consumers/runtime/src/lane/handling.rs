//! What a lane does with a message: the group processes it, or it is rejected, or it only rebuilds state.

use std::time::Instant;

use activity_consumers::{Received, Reject};

use super::{Handled, Lane, Message, PANICKED};
use crate::dead_letter;
use crate::decoding::Schemas;
use crate::headers::Tail;
use crate::input::{Reading, Unreadable};
use crate::panics::caught;
use crate::source::can_be_sent;

/// Why a group did not take a message.
enum Failure {
    Rejected(Reject),
    Panicked,
}

impl Lane {
    /// Handles one message; `log_first` is the first offset of the log as last known.
    pub fn handle(
        &mut self,
        message: &Message<'_>,
        schemas: &Schemas,
        log_first: i64,
        now: Instant,
    ) -> Handled {
        if message.offset < self.next {
            return Handled::Repeated;
        }
        if self
            .redo
            .is_some_and(|redo| log_first > self.next && self.next < redo.end)
        {
            return Handled::RangeLost;
        }
        let is_replay = message.offset < self.replay_until;
        let reading = match self.reader.read(message, schemas, is_replay, now) {
            Err(Unreadable::Schema(id)) => return Handled::UnknownSchema(id),
            Err(Unreadable::Reject(reject)) => Err(reject),
            Ok(reading) => Ok(reading),
        };
        self.told.read += 1;
        if is_replay {
            return self.replay(message, reading);
        }
        if let Some(redo) = self.redo.filter(|redo| message.offset >= redo.end) {
            self.seal_at(redo.end, now);
        }
        // What only rebuilds state is settled: it cannot be lost.
        let unsettled = self.next.max(self.replay_until);
        let lost_end = log_first.min(message.offset);
        if lost_end > unsettled {
            self.building
                .lose(lost_end, (lost_end - unsettled) as u64, now);
        }
        self.next = message.offset + 1;
        self.building
            .count(message.offset, message.appended_at_ms, now);
        self.building
            .output
            .begin_event(message.offset, message.appended_at_ms);
        let outcome = match reading {
            Ok(reading) => self.process(message, reading),
            Err(reject) => Err(Failure::Rejected(reject)),
        };
        match outcome {
            Ok(()) => {
                self.told.processed += 1;
                Handled::Taken(None)
            }
            Err(Failure::Rejected(reject)) => {
                let reason = reject.reason;
                self.building.reject(dead_letter::of(message, reject));
                Handled::Taken(Some(reason))
            }
            Err(Failure::Panicked) => Handled::Panicked,
        }
    }

    /// Hands a message to the group. A group without state that panics has rejected it; one with state must be rebuilt.
    fn process(&mut self, message: &Message<'_>, reading: Reading<'_>) -> Result<(), Failure> {
        let Some(input) = reading.input else {
            return Ok(());
        };
        if let Some(why) = self.poisonous.get(&message.offset) {
            return Err(Failure::Rejected(Reject::new(PANICKED, why.clone())));
        }
        let headers = Tail {
            headers: message.headers,
            from: reading.headers_from,
        };
        let received = Received {
            topic: reading.topic,
            partition: self.partition,
            offset: message.offset,
            appended_at_ms: message.appended_at_ms,
            headers: &headers,
            input,
        };
        let fresh = || self.group.instance(&self.group_settings, reading.topic);
        let output = &mut self.building.output;
        let outcome = match &mut self.instance {
            Some(instance) => caught(|| instance.process(&received, output)),
            None => {
                let mut instance = fresh();
                caught(|| instance.process(&received, output))
            }
        };
        let why = match outcome {
            Ok(taken) => {
                let taken = taken.and_then(|()| can_be_sent(&self.building.output));
                return taken.map_err(Failure::Rejected);
            }
            Err(why) => why,
        };
        if self.keeps_state() {
            self.poisonous.insert(message.offset, why);
            return Err(Failure::Panicked);
        }
        self.instance = self.instance.is_some().then(fresh);
        self.building.output.take_back_half_event();
        Err(Failure::Rejected(Reject::new(PANICKED, why)))
    }

    fn replay(&mut self, message: &Message<'_>, reading: Result<Reading<'_>, Reject>) -> Handled {
        self.told.replayed += 1;
        self.next = message.offset + 1;
        let mut handled = Handled::Replayed;
        if let Ok(reading) = reading {
            self.building
                .output
                .begin_event(message.offset, message.appended_at_ms);
            // Rejected then, rejected now: its dead letter is written.
            if let Err(Failure::Panicked) = self.process(message, reading) {
                handled = Handled::Panicked;
            }
            self.building.output.discard();
        }
        handled
    }
}
