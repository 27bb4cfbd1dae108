//! What is kept of an actor's past, each in a few bytes and constant time a click: distinct keys of a day, repeated sequences, numbered targets, running means,
//! the latest users of a place. Time comes from the clicks and may step back; then it stands still.

use serde::{Deserialize, Serialize};

/// A day, milliseconds.
pub(super) const DAY_MS: i64 = 86_400_000;
/// A longer silence ends a visit and is no gap between clicks: the bound that sessions have too.
pub(super) const GAP_MS_MAX: i64 = 1_800_000;
/// The latest users of a place that are remembered.
const COMPANY: usize = 12;
/// A sequence of three is forgotten after between one and two times as many others.
const SEQUENCES: u8 = 48;

/// How many different keys came up in a day: a bitmap of this day's keys and one of the day before's (linear counting; within some percent up to three keys
/// a bit, beyond that it stays at its highest).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Distinct<const WORDS: usize>
where
    [u64; WORDS]: Default + Serialize + for<'a> Deserialize<'a>,
{
    day: i64,
    today: [u64; WORDS],
    before: [u64; WORDS],
}

impl<const WORDS: usize> Distinct<WORDS>
where
    [u64; WORDS]: Default + Serialize + for<'a> Deserialize<'a>,
{
    /// Notes a key; tells whether it is new as far as can be seen.
    pub(super) fn add(&mut self, key: u64, at_ms: i64) -> bool {
        let day = at_ms.div_euclid(DAY_MS).max(self.day);
        if day != self.day {
            let follows = day == self.day + 1;
            self.before = if follows {
                self.today
            } else {
                <[u64; WORDS]>::default()
            };
            self.today = <[u64; WORDS]>::default();
            self.day = day;
        }
        let at = (key >> 20) as usize % (WORDS * 64);
        let bit = 1 << (at % 64);
        let known = (self.today[at / 64] | self.before[at / 64]) & bit != 0;
        self.today[at / 64] |= bit;
        !known
    }

    /// How many there were since the day before began.
    pub(super) fn count(&self) -> f32 {
        let bits = (WORDS * 64) as f32;
        let both = self.today.iter().zip(&self.before);
        let taken: u32 = both
            .map(|(today, before)| (today | before).count_ones())
            .sum();
        let vacant = (bits - taken as f32).max(0.5);
        bits * (bits / vacant).ln()
    }
}

/// A mean that forgets: plain over the first values, then each new one weighs as one of `MEMORY`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Mean<const MEMORY: u8> {
    mean: f32,
    values: u8,
}

impl<const MEMORY: u8> Mean<MEMORY> {
    pub(super) fn add(&mut self, value: f32) {
        self.values = self.values.saturating_add(1).min(MEMORY);
        self.mean += (value - self.mean) / f32::from(self.values);
    }

    /// The mean; 0 without values.
    pub(super) fn mean(&self) -> f32 {
        self.mean
    }

    /// The mean, once there are so many values.
    pub(super) fn of_at_least(&self, values: u8) -> Option<f32> {
        (self.values >= values).then_some(self.mean)
    }

    /// The mean, with so many values of `prior` before the first.
    pub(super) fn with_prior(&self, prior: f32, values: f32) -> f32 {
        let own = f32::from(self.values);
        (self.mean * own + prior * values) / (own + values)
    }

    pub(super) fn values(&self) -> u8 {
        self.values
    }
}

/// How much of what an actor does repeats an earlier sequence of three.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Repeats {
    latest: [u32; 2],
    seen: [[u64; 4]; 2],
    noted: u8,
    share: Mean<16>,
}

impl Repeats {
    /// Notes the next of the sequence.
    pub(super) fn add(&mut self, next: u64) {
        let [older, newer] = self.latest;
        let next = (next ^ (next >> 32)) as u32;
        self.latest = [newer, next];
        if older == 0 {
            return;
        }
        let mut hash = u64::from(older).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(newer);
        hash = hash.wrapping_mul(0xc2b2_ae3d_27d4_eb4f).rotate_left(29) ^ u64::from(next);
        hash = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        let (word, bit) = ((hash >> 6) as usize % 4, 1_u64 << (hash & 63));
        let second = (hash >> 9) as usize % 4;
        let other = 1_u64 << (hash >> 12 & 63);
        let known = |seen: &[u64; 4]| seen[word] & bit != 0 && seen[second] & other != 0;
        self.share
            .add(f32::from(u8::from(self.seen.iter().any(known))));
        if self.noted >= SEQUENCES {
            self.seen = [[0; 4], self.seen[0]];
            self.noted = 0;
        }
        self.seen[0][word] |= bit;
        self.seen[0][second] |= other;
        self.noted += 1;
    }

    /// The share of the latest that repeats.
    pub(super) fn share(&self) -> Option<f32> {
        self.share.of_at_least(8)
    }
}

/// How much of the numbered targets go on by the same small step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Sequence {
    latest: i64,
    step: i64,
    share: Mean<16>,
}

impl Sequence {
    /// Notes the number in a target's name.
    pub(super) fn add(&mut self, number: i64) {
        let step = number - self.latest;
        let goes_on = step == self.step && step != 0 && step.abs() <= 8;
        self.share.add(f32::from(u8::from(goes_on)));
        (self.latest, self.step) = (number, step);
    }

    /// The share that goes on.
    pub(super) fn share(&self) -> Option<f32> {
        self.share.of_at_least(8)
    }
}

/// The way from item to item, within a visit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Way {
    item: u64,
    item_at_ms: i64,
    /// 0: none.
    before: u64,
}

/// An item that follows another sooner was loaded with it, not chosen.
const CHOICE_MS_MIN: i64 = 1_000;

impl Way {
    /// Goes to an item; tells from which other it was chosen.
    pub(super) fn to(&mut self, item: u64, at_ms: i64) -> Option<u64> {
        if item != self.item {
            let gap_ms = at_ms - self.item_at_ms;
            let follows = self.item != 0 && (CHOICE_MS_MIN..=GAP_MS_MAX).contains(&gap_ms);
            self.before = if follows { self.item } else { 0 };
            (self.item, self.item_at_ms) = (item, at_ms);
        }
        (self.before != 0).then_some(self.before)
    }
}

/// How fine the clock of the clicks is: recorded traffic may know the second or the hour only, and what happens within that says nothing. It is taken to be as
/// coarse as all times so far allow.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Clock {
    coarse_ms: i64,
}

impl Default for Clock {
    fn default() -> Self {
        Self {
            coarse_ms: 3_600_000,
        }
    }
}

impl Clock {
    /// Notes a time.
    pub(super) fn note(&mut self, at_ms: i64) {
        while self.coarse_ms > 1 && at_ms % self.coarse_ms != 0 {
            self.coarse_ms = match self.coarse_ms {
                3_600_000 => 60_000,
                60_000 => 1_000,
                _ => 1,
            };
        }
    }

    /// Whether it tells apart what happens within such a time.
    pub(super) fn tells(&self, within_ms: i64) -> bool {
        within_ms >= 5 * self.coarse_ms
    }
}

/// The number that a target's name ends with, its extension aside: 42 for `/title/t00042.html`.
pub(super) fn number(target: &str) -> Option<i64> {
    let stem = target.rsplit_once('.').map_or(target, |(stem, extension)| {
        if extension.bytes().all(|byte| byte.is_ascii_alphabetic()) {
            stem
        } else {
            target
        }
    });
    let digits = stem.bytes().rev().take_while(u8::is_ascii_digit).count();
    stem.get(stem.len() - digits.min(15)..)
        .and_then(|digits| digits.parse().ok())
}

/// The latest targets, exact up to collisions of 32 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Targets {
    latest: [u32; 16],
    next: u8,
    seen: u8,
}

impl Targets {
    pub(super) fn add(&mut self, target: u64) {
        self.latest[usize::from(self.next) % 16] = target as u32;
        self.next = (self.next + 1) % 16;
        self.seen = (self.seen + 1).min(16);
    }

    /// Adds one that is not there.
    pub(super) fn add_new(&mut self, target: u64) {
        if !self.contains(target) {
            self.add(target);
        }
    }

    pub(super) fn contains(&self, target: u64) -> bool {
        self.latest[..usize::from(self.seen)].contains(&(target as u32))
    }

    /// How few there are, from 0 (all different) to 1 (always the same), and how many; `None` until sixteen are known.
    pub(super) fn fewness(&self) -> Option<(f32, f32)> {
        if self.seen < 16 {
            return None;
        }
        let mut sorted = self.latest;
        sorted.sort_unstable();
        let (mut entropy, mut distinct) = (0.0, 0.0);
        for same in sorted.chunk_by(|a, b| a == b) {
            let share = same.len() as f32 / 16.0;
            entropy -= share * share.ln();
            distinct += 1.0;
        }
        Some((1.0 - entropy / 16_f32.ln(), distinct))
    }
}

/// The latest users of a place, each with how suspicious they were last: what is known of the others where one of them clicks. An address behind which many
/// ordinary people are is ordinary, however many they are and whatever one of them does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Latest {
    users: [u32; COMPANY],
    suspicion: [u8; COMPANY],
    newcomers: u16,
    next: u8,
}

/// What the others are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Others {
    pub(super) count: u32,
    /// Mean, 0 to 1.
    pub(super) suspicion: f32,
    pub(super) newcomers: f32,
}

impl Latest {
    /// Notes a user; tells what the others are, if there are any.
    pub(super) fn add(&mut self, user: u64, suspicion: f32, is_new: bool) -> Option<Others> {
        let user = (user as u32).max(1);
        let known = self.users.iter().position(|other| *other == user);
        let slot = known.unwrap_or_else(|| {
            let slot = usize::from(self.next) % COMPANY;
            self.next = ((slot + 1) % COMPANY) as u8;
            slot
        });
        self.users[slot] = user;
        self.suspicion[slot] = (suspicion.clamp(0.0, 1.0) * 255.0) as u8;
        self.newcomers = self.newcomers & !(1 << slot) | u16::from(is_new) << slot;
        self.summary(Some(slot))
    }

    /// What all of them are.
    pub(super) fn all(&self) -> Option<Others> {
        self.summary(None)
    }

    fn summary(&self, without: Option<usize>) -> Option<Others> {
        let others = (0..COMPANY).filter(|slot| self.users[*slot] != 0 && Some(*slot) != without);
        let (mut count, mut suspicion, mut newcomers) = (0, 0.0, 0);
        for slot in others {
            count += 1;
            suspicion += f32::from(self.suspicion[slot]) / 255.0;
            newcomers += u32::from(self.newcomers >> slot & 1);
        }
        (count > 0).then(|| Others {
            count,
            suspicion: suspicion / count as f32,
            newcomers: newcomers as f32 / count as f32,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fingerprint::fingerprint;

    #[test]
    fn distinct_keys_are_counted_within_a_tenth_and_forgotten_after_a_day() {
        let mut distinct = Distinct::<4>::default();
        for index in 0..300 {
            distinct.add(fingerprint(&format!("{}", index % 150)), 0);
        }
        assert!(
            (distinct.count() - 150.0).abs() < 20.0,
            "{}",
            distinct.count()
        );
        distinct.add(1, DAY_MS * 2);
        assert!(distinct.count() < 1.1);
    }

    #[test]
    fn a_session_that_is_replayed_repeats_and_one_of_a_person_does_not() {
        let (mut replayed, mut human) = (Repeats::default(), Repeats::default());
        for index in 0_u64..200 {
            replayed.add(fingerprint(&format!("{}", index % 20)));
            human.add(fingerprint(&format!("{}", index * index * 7919 % 101)));
        }
        assert!(replayed.share().unwrap() > 0.99, "{replayed:?}");
        assert!(human.share().unwrap() < 0.6, "{human:?}");
    }

    #[test]
    fn a_way_leads_from_the_item_before_unless_both_came_at_once_or_in_two_visits() {
        let mut way = Way::default();
        assert_eq!(way.to(1, 10_000), None, "the first");
        assert_eq!(way.to(2, 12_000), Some(1));
        assert_eq!(way.to(2, 13_000), Some(1), "still there");
        assert_eq!(way.to(3, 12_500), None, "loaded with the one before");
        assert_eq!(way.to(4, 12_500 + GAP_MS_MAX + 1), None, "another visit");
    }

    #[test]
    fn numbers_are_read_from_the_ends_of_names() {
        assert_eq!(number("/item/i00412"), Some(412));
        assert_eq!(number("/page-7.html"), Some(7));
        assert_eq!(number("/films"), None);
        assert_eq!(number(""), None);
        assert_eq!(number("9999999999999999999999"), Some(999_999_999_999_999));
        let mut sequence = Sequence::default();
        (0..20).for_each(|index| sequence.add(100 + index * 2));
        assert!(sequence.share().unwrap() > 0.9);
    }

    #[test]
    fn others_at_a_place_are_the_others() {
        let mut latest = Latest::default();
        assert_eq!(latest.add(1, 1.0, true), None);
        let others = latest.add(2, 0.0, false).unwrap();
        assert_eq!(
            (others.count, others.suspicion, others.newcomers),
            (1, 1.0, 1.0)
        );
        for user in 3..100 {
            latest.add(user, 0.0, false);
        }
        assert_eq!(latest.all().unwrap().suspicion, 0.0);
    }
}
