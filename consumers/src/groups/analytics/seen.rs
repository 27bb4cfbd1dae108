//! Which event ids of a user came lately, so that an event that is sent twice is counted once.
//!
//! A client that got no answer sends again: at once, or with the next of its events, or a whole batch of them after a tunnel. What is sent twice therefore
//! follows its first sending within a few dozen events of the same user, and bears the same id. So a user's last ids are kept, and no more: the same events in
//! the same order give the same marks, on any number of partitions, because all events of a user are in one of them.
//!
//! An id is kept as 32 bits of its fingerprint. An event is then taken for one that was sent twice, though it was not, once in 130 million events of users
//! whose window is full; it has a row all the same. About 160 bytes of memory a user, 11 and 4 for each id in a snapshot.

use std::fmt;

use serde::de::{Deserializer, Error, Visitor};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::fingerprint::{fingerprint, fingerprint_of_bytes};
use crate::lru::Lru;

/// Event ids that are kept of a user.
const IDS_PER_USER: usize = 32;
/// Users of one partition whose ids are kept: 32 MB, a snapshot of at most 28 MB.
const USERS_MAX: usize = 200_000;
/// Bytes of an id in a snapshot.
const ID_BYTES: usize = size_of::<u32>();

/// The latest ids of the users of one partition.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Seen {
    users: Lru<LatestIds>,
}

impl Seen {
    /// Nothing seen yet; of at most so many users.
    pub(super) fn new(actors_max: usize) -> Self {
        Self {
            users: Lru::new(actors_max.min(USERS_MAX)),
        }
    }

    /// The same under another bound: users seen longest ago give way.
    pub(super) fn bounded(self, actors_max: usize) -> Self {
        Self {
            users: self.users.bounded(actors_max.min(USERS_MAX)),
        }
    }

    /// Notes an event. True: its id is among the user's latest, so that it is one that was sent twice.
    pub(super) fn note(&mut self, user_id: &str, event_id: Uuid) -> bool {
        let id = fingerprint_of_bytes(event_id.as_bytes()) as u32;
        self.users.touch(fingerprint(user_id)).note(id)
    }
}

/// The latest ids of one user: a ring, without allocation.
#[derive(Clone, Copy, Default)]
struct LatestIds {
    ids: [u32; IDS_PER_USER],
    /// Ids in the ring.
    count: u8,
    /// Where the next one goes: in the place of the oldest, once the ring is full.
    next: u8,
}

impl LatestIds {
    fn note(&mut self, id: u32) -> bool {
        let known = self.ids[..usize::from(self.count)].contains(&id);
        if !known {
            self.ids[usize::from(self.next)] = id;
            self.next = (self.next + 1) % IDS_PER_USER as u8;
            self.count = (self.count + 1).min(IDS_PER_USER as u8);
        }
        known
    }

    fn oldest_first(&self) -> impl Iterator<Item = u32> {
        let (newer, older) = self.ids[..usize::from(self.count)]
            .split_at(usize::from(self.next).min(usize::from(self.count)));
        older.iter().chain(newer).copied()
    }
}

/// As bytes: a fingerprint's bits are random, which a variable-length number makes longer.
impl Serialize for LatestIds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut bytes = [0; IDS_PER_USER * ID_BYTES];
        for (place, id) in bytes.chunks_exact_mut(ID_BYTES).zip(self.oldest_first()) {
            place.copy_from_slice(&id.to_le_bytes());
        }
        serializer.serialize_bytes(&bytes[..usize::from(self.count) * ID_BYTES])
    }
}

impl<'de> Deserialize<'de> for LatestIds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Ids;

        impl Visitor<'_> for Ids {
            type Value = LatestIds;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "at most {IDS_PER_USER} ids of {ID_BYTES} bytes")
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<LatestIds, E> {
                let (ids, rest) = bytes.as_chunks::<ID_BYTES>();
                if ids.len() > IDS_PER_USER || !rest.is_empty() {
                    return Err(E::invalid_length(bytes.len(), &self));
                }
                let mut latest = LatestIds {
                    count: ids.len() as u8,
                    next: (ids.len() % IDS_PER_USER) as u8,
                    ..LatestIds::default()
                };
                for (place, id) in latest.ids.iter_mut().zip(ids) {
                    *place = u32::from_le_bytes(*id);
                }
                Ok(latest)
            }
        }

        deserializer.deserialize_bytes(Ids)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_id_is_forgotten_after_as_many_others_of_the_same_user_and_no_sooner() {
        let mut seen = Seen::new(10);
        for number in 0..=IDS_PER_USER as u128 {
            assert!(!seen.note("a", Uuid::from_u128(number)));
            assert!(!seen.note("b", Uuid::from_u128(1000 + number)));
        }
        for number in 1..=IDS_PER_USER as u128 {
            assert!(seen.note("a", Uuid::from_u128(number)), "{number}");
        }
        assert!(!seen.note("a", Uuid::from_u128(0)));
        assert!(!seen.note("b", Uuid::from_u128(1)), "an id of another user");
    }

    #[test]
    fn a_user_takes_as_much_memory_and_room_in_a_snapshot_as_is_said() {
        // Beside that a slot of the map has a key of 8 bytes, two neighbours of 4 and its place in the index, 5 to 11.
        assert_eq!(size_of::<LatestIds>(), 132);
        let mut seen = Seen::new(USERS_MAX);
        for user in 0..1000 {
            for number in 0..=IDS_PER_USER as u128 {
                seen.note(&user.to_string(), Uuid::from_u128(number));
            }
        }
        let bytes = postcard::to_stdvec(&seen).unwrap();
        assert!(bytes.len() <= 1000 * 140, "{}", bytes.len());
    }

    proptest! {
        #[test]
        fn it_knows_what_a_list_of_the_last_ids_knows_also_after_a_snapshot(
            notes in prop::collection::vec((0_usize..3, 0_u128..60), 0..400),
            snapshot_after in 0_usize..400,
        ) {
            let mut seen = Seen::new(3);
            let mut lists = vec![VecDeque::new(); 3];
            for (index, (user, number)) in notes.into_iter().enumerate() {
                let known = lists[user].contains(&number);
                if !known {
                    lists[user].push_back(number);
                    if lists[user].len() > IDS_PER_USER {
                        lists[user].pop_front();
                    }
                }
                prop_assert_eq!(seen.note(&user.to_string(), Uuid::from_u128(number)), known);
                if index == snapshot_after {
                    let bytes = postcard::to_stdvec(&seen).unwrap();
                    seen = postcard::from_bytes::<Seen>(&bytes).unwrap().bounded(3);
                    prop_assert_eq!(postcard::to_stdvec(&seen).unwrap(), bytes);
                }
            }
        }
    }
}
