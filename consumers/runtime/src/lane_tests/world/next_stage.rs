//! What the owners send to the next stage, and what that makes of it.

use activity_consumers::Derived;

use super::{Owner, Settled, World};
use crate::lane_tests::Row;

impl World {
    /// As `Driver::send_derived`, with a client whose queue has so much room.
    pub(super) fn send(&mut self, mut room: usize) {
        let Some(Owner { lane, .. }) = &mut self.owner else {
            return;
        };
        lane.drain_derived(|derived, _| {
            let is_taken = room > 0;
            if is_taken {
                room -= 1;
                self.sent.push(message_of(derived));
            }
            is_taken
        });
    }

    /// What the next stage takes of all that came: as `Marks`.
    pub(in crate::lane_tests) fn seen_by_the_next_stage(&self) -> Vec<Row> {
        let mut seen: Vec<Row> = Vec::new();
        for message in &self.sent {
            let is_above = |last: &Row| (last.0, last.1) < (message.0, message.1);
            if seen.last().is_none_or(is_above) {
                seen.push(*message);
            }
        }
        seen
    }

    /// As `activity verify`: wherever the ledger says how many messages a range has for the next stage, so many came.
    pub(super) fn count_derived(&self) {
        let seen = self.seen_by_the_next_stage();
        for (start, Settled { end, derived, .. }) in &self.ledger {
            let range = *start..*end;
            let found = seen.iter().filter(|message| range.contains(&message.0));
            let found = found.count() as u64;
            assert_eq!(derived.unwrap_or(found), found, "{range:?}");
        }
    }
}

/// (offset, n, sum) of a message for the next stage.
pub(super) fn message_of(derived: &Derived) -> Row {
    let sum = postcard::from_bytes(&derived.payload).unwrap();
    (derived.offset, derived.n, sum)
}
