//! What an address, and what a device, did lately, and who its other users are.
//!
//! About 430 bytes a place. Many users behind one address say little: a carrier's gateway has thousands. What counts is what these users are like.

use serde::{Deserialize, Serialize};

use super::Passing;
use super::habits::{Clock, Distinct, Latest, Sequence, Targets};
use super::judge::Readings;
use super::norms::Norms;
use super::signs::{Id, PLACE_SIGNS};
use super::users::{GAPS_MIN, gap_ms, sample};
use crate::StaleSnapshot;
use crate::fingerprint::fingerprint;
use crate::lru::Lru;
use crate::windows::{LastGaps, SlidingCount};

/// Fewer other users do not show what a place's users are like.
const OTHERS_MIN: u32 = 2;

/// Addresses, or devices.
#[derive(Serialize, Deserialize)]
pub(super) struct Places {
    places: Lru<Place>,
    norms: Norms,
    clock: Clock,
    first: usize,
}

#[derive(Clone, Default, Serialize, Deserialize)]
struct Place {
    latest_ms: i64,
    sampled_hour: i64,
    sampled: u32,
    ten_minutes: SlidingCount<600_000>,
    users: Distinct<4>,
    counterparts: Distinct<4>,
    gaps: LastGaps,
    targets: Targets,
    sequence: Sequence,
    latest: Latest,
}

impl Places {
    /// Places whose signs begin at `first`.
    pub(super) fn new(first: Id, actors_max: usize) -> Self {
        Self {
            places: Lru::new(actors_max),
            norms: Norms::new(first as usize, PLACE_SIGNS),
            clock: Clock::default(),
            first: first as usize,
        }
    }

    pub(super) fn bounded(mut self, first: Id, actors_max: usize) -> Result<Self, StaleSnapshot> {
        if self.first != first as usize || !self.norms.fit(first as usize, PLACE_SIGNS) {
            return Err(StaleSnapshot("norms of other signs".to_owned()));
        }
        self.places = self.places.bounded(actors_max);
        Ok(self)
    }

    /// Takes one click at a place by a user of such suspicion; `counterpart` is the device where the place is an address, and the address where it is a device.
    pub(super) fn note(
        &mut self,
        place: &str,
        counterpart: Option<&str>,
        click: &Passing<'_>,
        suspicion: f32,
        readings: &mut Readings,
    ) {
        let at_ms = click.received_at_ms;
        self.clock.note(at_ms);
        let place = self.places.touch(fingerprint(place));
        let (values, figures) =
            place.note(counterpart.map(fingerprint), click, suspicion, self.clock);
        for (sign, surprise) in self.norms.surprises(&values) {
            readings.note(sign, surprise, figures[sign - self.first]);
        }
        if sample(&mut place.sampled_hour, &mut place.sampled, at_ms) {
            self.norms.learn(&values);
        }
    }
}

type Values = [Option<f32>; PLACE_SIGNS];

impl Place {
    fn note(
        &mut self,
        counterpart: Option<u64>,
        click: &Passing<'_>,
        suspicion: f32,
        clock: Clock,
    ) -> (Values, [[f32; 2]; PLACE_SIGNS]) {
        let at_ms = click.received_at_ms;
        let mut values = [None; PLACE_SIGNS];
        let mut figures = [[0.0; 2]; PLACE_SIGNS];
        // The order of the signs of an address, and that of the signs of a device.
        let mut note = |sign: Id, value: f32, of| {
            let index = sign as usize - Id::AddressUsers as usize;
            values[index] = Some(value);
            figures[index] = of;
        };
        let user = fingerprint(click.user_id);
        self.users.add(user, at_ms);
        let users = self.users.count().max(1.0);
        note(Id::AddressUsers, users.ln(), [users, 0.0]);
        if let Some(counterpart) = counterpart {
            self.counterparts.add(counterpart, at_ms);
            let counterparts = self.counterparts.count().max(1.0);
            note(Id::AddressDevices, counterparts.ln(), [counterparts, 0.0]);
        }
        let clicks = (self.ten_minutes.add(at_ms) / users).max(1.0);
        if clock.tells(600_000) {
            note(Id::AddressBusy, clicks.ln(), [clicks, 0.0]);
        }
        let gap_ms = gap_ms(&mut self.latest_ms, at_ms);
        if let Some(gap_ms) = gap_ms.filter(|_| clock.tells(10_000)) {
            self.gaps.add(gap_ms);
        }
        if let Some(rhythm) = self.gaps.rhythm().filter(|rhythm| rhythm.gaps >= GAPS_MIN) {
            let seconds = rhythm.median_ms as f32 / 1000.0;
            note(
                Id::AddressEven,
                -(rhythm.variation + 0.02).ln(),
                [seconds, rhythm.variation * 100.0],
            );
        }
        if let Some(target) = click.seen.target {
            self.targets.add(target);
        }
        if let Some((fewness, distinct)) = self.targets.fewness() {
            note(Id::AddressFew, fewness, [distinct, 16.0]);
        }
        if let Some(number) = click.seen.number {
            self.sequence.add(number);
        }
        if let Some(share) = self.sequence.share() {
            note(Id::AddressSequence, share, [share * 100.0, 0.0]);
        }
        let others = self.latest.add(user, suspicion, click.seen.is_new);
        if let Some(others) = others.filter(|others| others.count >= OTHERS_MIN) {
            let count = others.count as f32;
            note(
                Id::AddressCompany,
                others.suspicion,
                [others.suspicion * 100.0, count],
            );
            note(
                Id::AddressNew,
                others.newcomers,
                [others.newcomers * 100.0, count],
            );
        }
        (values, figures)
    }
}
