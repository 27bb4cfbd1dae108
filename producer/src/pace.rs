//! When an event is due on the wall clock. Pure: the clock's time is an argument.

use std::time::Duration;

/// How fast a source is published.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// As fast as Kafka takes it.
    FlatOut,
    /// So many events per second, evenly, whatever their times say.
    PerSecond(f64),
    /// As their `received_at` tell, so many times faster: 1 is the original pace.
    AsReceived(f64),
    /// Each when the wall clock says its `received_at`; what lies in the past, at once.
    OnTime {
        /// What the wall clock says at the start, milliseconds since 1970-01-01 UTC.
        started_at_ms: i64,
    },
}

/// Counts events out against a pace.
#[derive(Debug)]
pub(crate) struct Pacer {
    pace: Pace,
    events: u64,
    first_received_ms: Option<i64>,
}

impl Pacer {
    pub(crate) fn new(pace: Pace) -> Self {
        Self {
            pace,
            events: 0,
            first_received_ms: None,
        }
    }

    /// How long after the start the next event is due; none: at once. A source that fell behind is not slowed down until it has caught up.
    pub(crate) fn due(&mut self, received_ms: i64) -> Option<Duration> {
        let due_s = match self.pace {
            Pace::FlatOut => return None,
            Pace::PerSecond(rate) => self.events as f64 / rate,
            Pace::AsReceived(factor) => {
                let first_ms = *self.first_received_ms.get_or_insert(received_ms);
                received_ms.saturating_sub(first_ms) as f64 / 1000.0 / factor
            }
            Pace::OnTime { started_at_ms } => {
                received_ms.saturating_sub(started_at_ms) as f64 / 1000.0
            }
        };
        self.events += 1;
        // Recorded times may go back; a span beyond all measure is as good as for ever.
        Some(Duration::try_from_secs_f64(due_s.max(0.0)).unwrap_or(Duration::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flat_out_never_waits() {
        assert_eq!(Pacer::new(Pace::FlatOut).due(17), None);
    }

    #[test]
    fn a_rate_spaces_events_evenly() {
        let mut pacer = Pacer::new(Pace::PerSecond(4.0));
        let due: Vec<_> = (0..3).map(|_| pacer.due(99).unwrap()).collect();
        assert_eq!(due, [0, 250, 500].map(Duration::from_millis));
    }

    #[test]
    fn on_time_what_is_past_is_due_at_once_and_the_rest_by_the_clock() {
        let mut pacer = Pacer::new(Pace::OnTime {
            started_at_ms: 60_000,
        });
        let due = [0, 59_999, 60_000, 61_500].map(|received_ms| pacer.due(received_ms).unwrap());
        assert_eq!(due, [0, 0, 0, 1_500].map(Duration::from_millis));
    }

    #[test]
    fn recorded_gaps_are_kept_and_divided_by_the_speed() {
        let mut pacer = Pacer::new(Pace::AsReceived(60.0));
        let due: Vec<_> = [5_000, 65_000, 4_000, i64::MAX]
            .map(|received_ms| pacer.due(received_ms).unwrap().as_secs())
            .to_vec();
        assert_eq!(due[..3], [0, 1, 0]);
        assert!(due[3] > 100_000_000_000);
    }
}
