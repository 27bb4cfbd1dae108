//! What a lane lets the metrics be told: what became of messages, and how long the oldest one that is not settled has waited. Pure.

use std::time::Instant;

/// Counts since the metrics were told last, and what the lag is reckoned from.
#[derive(Debug, Default)]
pub struct Told {
    /// Messages read.
    pub read: u64,
    /// Messages processed.
    pub processed: u64,
    /// Messages replayed.
    pub replayed: u64,
    /// The committed offset that was found when the lane was opened: what Kafka knows until the lane commits for the first time.
    pub found_committed: Option<i64>,
    /// Since when the lane stands still although the log has messages for it.
    still_since: Option<Instant>,
}

impl Told {
    /// The counts, to be told; they begin anew.
    pub fn take_counts(&mut self) -> (u64, u64, u64) {
        let Self {
            read,
            processed,
            replayed,
            ..
        } = self;
        (
            std::mem::take(read),
            std::mem::take(processed),
            std::mem::take(replayed),
        )
    }

    /// Goes on from what the partition's earlier lane had not told.
    pub fn go_on_from(&mut self, earlier: Told) {
        *self = Told {
            found_committed: self.found_committed,
            ..earlier
        };
    }

    /// How long the oldest message that is not settled has waited, milliseconds: since it was appended, where the lane has it in hand (`age_ms`). A lane that
    /// stands still may have none: its messages have waited at least as long as it stands still while there are some.
    pub fn waited_ms(&mut self, age_ms: Option<i64>, stands_still: bool, now: Instant) -> i64 {
        if !stands_still {
            self.still_since = None;
        }
        let still = stands_still.then(|| *self.still_since.get_or_insert(now));
        let still_ms = still.map_or(0, |since| {
            now.saturating_duration_since(since).as_millis() as i64
        });
        age_ms.unwrap_or(0).max(still_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_lane_that_stands_still_with_nothing_in_hand_falls_behind_by_the_second() {
        let (mut told, now) = (Told::default(), Instant::now());
        let later = now + Duration::from_secs(60);
        assert_eq!(told.waited_ms(None, false, now), 0);
        assert_eq!(told.waited_ms(None, true, now), 0);
        assert_eq!(told.waited_ms(None, true, later), 60_000);
        assert_eq!(told.waited_ms(Some(70_000), true, later), 70_000);
        // It stands still again: from now on, not from then on.
        assert_eq!(told.waited_ms(Some(5), false, later), 5);
        assert_eq!(told.waited_ms(None, true, later), 0);
    }

    #[test]
    fn a_lane_that_takes_another_ones_place_goes_on_counting_for_it() {
        let (mut told, now) = (Told::default(), Instant::now());
        (told.read, told.processed, told.replayed) = (3, 2, 1);
        told.waited_ms(None, true, now);
        let mut next = Told {
            found_committed: Some(9),
            ..Told::default()
        };
        next.go_on_from(told);
        assert_eq!(next.found_committed, Some(9));
        assert_eq!(next.take_counts(), (3, 2, 1));
        assert_eq!(next.take_counts(), (0, 0, 0));
        let later = now + Duration::from_secs(1);
        assert_eq!(next.waited_ms(None, true, later), 1_000);
    }
}
