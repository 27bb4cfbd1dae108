//! From the batch that is built to the batch under way: when it is closed, how, and what is sent to the next stage before that.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use activity_consumers::Derived;

use super::{Lane, Phase};
use crate::batch::{Mode, Sealed};
use crate::outstanding::Outstanding;
use crate::settings::RuntimeSettings;

impl Lane {
    /// Closes a range that is built again as soon as it is whole.
    pub fn close_redo(&mut self, now: Instant) {
        if let Some(redo) = self
            .redo
            .filter(|redo| self.next >= redo.end || redo.first_read >= redo.end)
        {
            self.seal_at(redo.end, now);
        }
    }

    /// Whether the batch that is built should be closed now.
    pub fn is_due(
        &self,
        settings: &RuntimeSettings,
        age: Duration,
        pressure: bool,
        now: Instant,
    ) -> bool {
        self.can_be_closed()
            && (pressure || self.is_full(settings) || self.building.age(now) >= age)
    }

    /// Whether the batch that is built has reached a limit.
    pub fn is_full(&self, settings: &RuntimeSettings) -> bool {
        self.is_filled(settings, 1)
    }

    /// Whether it has come half way to a limit: it may then go with one that is full, so that inserts come in few bursts.
    pub fn is_half_full(&self, settings: &RuntimeSettings) -> bool {
        self.can_be_closed() && self.is_filled(settings, 2)
    }

    fn is_filled(&self, settings: &RuntimeSettings, part: usize) -> bool {
        self.redo.is_none()
            && (self.building.rows() * part >= settings.batch_rows_max as usize
                || self.building.bytes() * part >= settings.batch_bytes_max)
    }

    fn can_be_closed(&self) -> bool {
        !matches!(self.phase, Phase::Opening | Phase::Stopped { .. })
            && self.sealed.is_none()
            && self.redo.is_none()
            && !self.building.is_empty()
    }

    /// Closes the batch that is built.
    pub fn seal(&mut self, now: Instant) {
        self.seal_at(self.building.next, now);
    }

    pub(super) fn seal_at(&mut self, end: i64, now: Instant) {
        let redo = self.redo.take();
        let mut sealed = self.building.seal(
            end,
            &self.name,
            self.partition,
            self.rewinds.epoch(),
            redo.map_or(Mode::First, |redo| redo.mode),
        );
        if let Some(redo) = redo {
            sealed.first_read = redo.first_read;
            sealed.first_claimed_at_ms = redo.first_claimed_at_ms.into();
        }
        if self.next > end {
            // The log begins behind the range that was claimed: what lies between is lost.
            self.building.lose(self.next, (self.next - end) as u64, now);
        }
        self.next = self.next.max(end);
        self.attempt = 0;
        self.retry_at = None;
        self.sealed = Some(Arc::new(sealed));
    }

    /// Drains what there is for the next stage, as [`Building::drain_derived`] does, unless something of the batch under way still waits to be sent: what is behind
    /// it must not overtake it.
    pub fn drain_derived(&mut self, take: impl FnMut(&Derived, &Arc<Outstanding>) -> bool) {
        let nothing_waits = |sealed: &Arc<Sealed>| {
            let is_sent = sealed.derived.is_empty() && !sealed.outstanding.has_failed();
            is_sent || sealed.delivered.load(Ordering::Acquire)
        };
        if self.phase == Phase::Running && self.sealed.as_ref().is_none_or(nothing_waits) {
            self.building.drain_derived(take);
        }
    }
}
