//! What an actor did lately, in a few bytes and constant time an event: counts in a sliding window, the latest gaps, hours of a day.
//!
//! Time comes from the events and may step back (late events, another collector's clock, a source partition that is read behind the others).

use serde::{Deserialize, Serialize};

/// Gaps that are remembered of an actor.
pub(crate) const REMEMBERED: usize = 16;

/// Events in the last `WIDTH_MS` milliseconds, from two buckets of that width: the older one counts by the part that the window still covers,
/// as if its events had come evenly. Wrong by less than the older bucket's count, right for steady traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SlidingCount<const WIDTH_MS: i64> {
    bucket: i64,
    current: u32,
    previous: u32,
}

impl<const WIDTH_MS: i64> SlidingCount<WIDTH_MS> {
    /// Counts one event and tells how many the window holds that ends with it, this one included. A late event counts where it belongs, and of the time before
    /// both buckets nothing is known any more: counted as of now, a backlog would look like a rush.
    pub(crate) fn add(&mut self, at_ms: i64) -> f32 {
        let bucket = at_ms.div_euclid(WIDTH_MS);
        if bucket < self.bucket {
            if bucket + 1 < self.bucket {
                return 1.0;
            }
            self.previous = self.previous.saturating_add(1);
            return self.previous as f32;
        }
        if bucket > self.bucket {
            let follows = bucket == self.bucket + 1;
            self.previous = if follows { self.current } else { 0 };
            self.current = 0;
            self.bucket = bucket;
        }
        self.current = self.current.saturating_add(1);
        let into_bucket_ms = (at_ms - bucket * WIDTH_MS).max(0);
        let still_covered = 1.0 - into_bucket_ms as f32 / WIDTH_MS as f32;
        self.current as f32 + self.previous as f32 * still_covered
    }
}

/// The latest gaps between an actor's events, milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LastGaps {
    gaps_ms: [u32; REMEMBERED],
    seen: u8,
    next: u8,
}

impl LastGaps {
    /// Remembers one gap.
    pub(crate) fn add(&mut self, gap_ms: u32) {
        push(&mut self.gaps_ms, &mut self.seen, &mut self.next, gap_ms);
    }

    /// How regular they are; `None` without a gap above zero, for a clock without resolution says nothing.
    pub(crate) fn rhythm(&self) -> Option<Rhythm> {
        let mut gaps_ms = self.gaps_ms;
        let gaps_ms = &mut gaps_ms[..usize::from(self.seen)];
        gaps_ms.sort_unstable();
        let sum: u64 = gaps_ms.iter().map(|gap| u64::from(*gap)).sum();
        if sum == 0 {
            return None;
        }
        let count = gaps_ms.len() as f32;
        let mean_ms = sum as f32 / count;
        let deviations = gaps_ms.iter().map(|gap| *gap as f32 - mean_ms);
        let variance = deviations.map(|gap| gap * gap).sum::<f32>() / count;
        let median_ms = gaps_ms[gaps_ms.len() / 2];
        let near = gaps_ms
            .iter()
            .filter(|gap| gap.abs_diff(median_ms) <= median_ms / 10);
        Some(Rhythm {
            gaps: gaps_ms.len(),
            median_ms,
            variation: variance.sqrt() / mean_ms,
            near_median: near.count() as f32 / count,
            spread: log_spread(gaps_ms),
        })
    }
}

/// Standard deviation of the gaps' logarithms, the shortest and the longest aside: one late click does not spoil it.
fn log_spread(sorted_ms: &[u32]) -> f32 {
    let inner = match sorted_ms {
        [_, inner @ .., _] if inner.len() >= 2 => inner,
        all => all,
    };
    let logs = || inner.iter().map(|gap| (*gap as f32 + 1.0).ln());
    let count = inner.len() as f32;
    let mean = logs().sum::<f32>() / count;
    let squares = logs().map(|log| (log - mean) * (log - mean));
    (squares.sum::<f32>() / count).sqrt()
}

/// How regular the latest gaps are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rhythm {
    /// Gaps remembered.
    pub(crate) gaps: usize,
    /// The middle one, milliseconds.
    pub(crate) median_ms: u32,
    /// Coefficient of variation: standard deviation by mean. Random arrivals have 1.
    pub(crate) variation: f32,
    /// Share of the gaps within a tenth of the median. One late click spoils the variation, not this.
    pub(crate) near_median: f32,
    /// Standard deviation of their logarithms, without the shortest and the longest. People's spread by a factor of two and more, 0.7.
    pub(crate) spread: f32,
}

fn push<T>(ring: &mut [T; REMEMBERED], seen: &mut u8, next: &mut u8, value: T) {
    ring[usize::from(*next) % REMEMBERED] = value;
    *next = (*next + 1) % REMEMBERED as u8;
    *seen = (*seen + 1).min(REMEMBERED as u8);
}

/// In which of the last 24 hours an actor was active.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ActiveHours {
    hour: i64,
    active: u32,
}

impl ActiveHours {
    /// Notes an event and tells in how many of the 24 hours up to it there was one.
    pub(crate) fn add(&mut self, at_ms: i64) -> u32 {
        let hour = at_ms.div_euclid(3_600_000).max(self.hour);
        let passed = hour.abs_diff(self.hour);
        self.active = if passed < 24 {
            self.active << passed & 0xff_ffff
        } else {
            0
        };
        self.active |= 1;
        self.hour = hour;
        self.active.count_ones()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sliding_window_forgets_what_left_it() {
        let mut count = SlidingCount::<1000>::default();
        for at_ms in [0, 100, 900] {
            count.add(at_ms);
        }
        assert_eq!(count.add(1000), 4.0);
        assert_eq!(count.add(1500), 3.5);
        assert_eq!(count.add(9000), 1.0);
        assert_eq!(count.add(8500), 1.0, "a late event counts where it belongs");
        assert_eq!(count.add(9000), 3.0);
        assert_eq!(count.add(2000), 1.0, "nothing is known of that time");
        assert_eq!(count.add(9000), 4.0);
    }

    #[test]
    fn equal_gaps_are_regular_even_if_one_of_them_is_long() {
        let mut gaps = LastGaps::default();
        assert_eq!(gaps.rhythm(), None);
        gaps.add(0);
        assert_eq!(gaps.rhythm(), None, "a clock without resolution");
        for _ in 0..REMEMBERED {
            gaps.add(1000);
        }
        let regular = Rhythm {
            gaps: REMEMBERED,
            median_ms: 1000,
            variation: 0.0,
            near_median: 1.0,
            spread: 0.0,
        };
        assert_eq!(gaps.rhythm(), Some(regular));
        gaps.add(60_000);
        let delayed = gaps.rhythm().unwrap();
        assert!(delayed.variation > 1.0 && delayed.near_median > 0.9);
    }

    #[test]
    fn hours_of_activity_are_counted_over_one_day() {
        let mut hours = ActiveHours::default();
        for hour in 0..40 {
            assert_eq!(hours.add(hour * 3_600_000), (hour + 1).min(24) as u32);
        }
        assert_eq!(
            hours.add(41 * 3_600_000),
            23,
            "one hour of the last 24 was idle"
        );
        assert_eq!(hours.add(100 * 3_600_000), 1);
    }
}
