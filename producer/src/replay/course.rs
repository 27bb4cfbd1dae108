//! When in time a recording lies that is published: where it was recorded, or moved as a whole; and round after round, each after the one before.
//!
//! A round has the recording's ids changed in a way that depends on nothing but the id and the round, so that the same round always has the same ids.

use uuid::Uuid;

use super::fields::Values;

/// Counts rounds, and moves what is read.
pub(super) struct Course {
    shift_to_ms: Option<i64>,
    shift_ms: i64,
    round: u32,
    /// Earliest and latest `received_at` as recorded.
    span: Option<(i64, i64)>,
}

impl Course {
    /// The first event is received at this moment; none: as recorded.
    pub(super) fn new(shift_to_ms: Option<i64>) -> Self {
        Self {
            shift_to_ms,
            shift_ms: 0,
            round: 0,
            span: None,
        }
    }

    /// Begins another round; false if there was no event so far.
    pub(super) fn next_round(&mut self) -> bool {
        self.round = self.round.saturating_add(1);
        self.span.is_some()
    }

    /// Makes of a recorded event that of this round.
    pub(super) fn apply(&mut self, values: &mut Values) {
        let received_ms = values.received_at();
        if self.span.is_none()
            && let Some(to_ms) = self.shift_to_ms
        {
            self.shift_ms = to_ms.saturating_sub(received_ms);
        }
        let (first_ms, last_ms) = self.span.unwrap_or((received_ms, received_ms));
        if self.round == 0 {
            self.span = Some((first_ms.min(received_ms), last_ms.max(received_ms)));
            values.move_by(self.shift_ms);
            return;
        }
        // A round begins a moment after the one before it ended.
        let length_ms = last_ms.saturating_sub(first_ms).saturating_add(1);
        let rounds_ms = length_ms.saturating_mul(i64::from(self.round));
        values.move_by(self.shift_ms.saturating_add(rounds_ms));
        let round = self.round;
        values.change_id(|id| Uuid::new_v5(&id, &round.to_be_bytes()));
    }
}
