//! State of a bounded number of actors: beyond the bound, the one seen longest ago is forgotten.
//!
//! Deterministic: what is forgotten depends only on the order of the calls, and iteration goes from the one seen longest ago to the one seen last, so that
//! the same history gives the same snapshot. Every operation takes constant time. Keys are fingerprints, already spread evenly: they are their own hash.

use std::fmt;
use std::marker::PhantomData;

use hashbrown::HashTable;
use serde::de::{Deserializer, SeqAccess, Visitor};
use serde::ser::{SerializeSeq, Serializer};
use serde::{Deserialize, Serialize};

/// Stands for "no neighbour" in the list of slots.
const NONE: u32 = u32::MAX;

/// A map that holds at most `entries_max` entries.
pub(crate) struct Lru<V> {
    index: HashTable<u32>,
    slots: Vec<Slot<V>>,
    /// Slots without an entry.
    vacant: Vec<u32>,
    oldest: u32,
    newest: u32,
    entries_max: usize,
}

struct Slot<V> {
    key: u64,
    older: u32,
    newer: u32,
    value: V,
}

impl<V: Default> Lru<V> {
    /// An empty map. Memory is taken as entries come.
    pub(crate) fn new(entries_max: usize) -> Self {
        Self {
            index: HashTable::new(),
            slots: Vec::new(),
            vacant: Vec::new(),
            oldest: NONE,
            newest: NONE,
            entries_max: entries_max.clamp(1, NONE as usize),
        }
    }

    /// Entries held.
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.vacant.len()
    }

    /// The entry of `key`, made if it is not there, now the one seen last.
    pub(crate) fn touch(&mut self, key: u64) -> &mut V {
        let found = self
            .index
            .find(key, |slot| self.slots[*slot as usize].key == key)
            .copied();
        let slot = match found {
            Some(slot) => {
                self.unlink(slot);
                slot
            }
            None => self.claim(key),
        };
        self.link_newest(slot);
        &mut self.slots[slot as usize].value
    }

    /// Entries from the one seen longest ago to the one seen last.
    pub(crate) fn oldest_first(&self) -> impl Iterator<Item = (u64, &V)> {
        let mut at = self.oldest;
        std::iter::from_fn(move || {
            let slot = self.slots.get(at as usize)?;
            at = slot.newer;
            Some((slot.key, &slot.value))
        })
    }

    /// Every entry, in no meaningful order; and some empty ones that were forgotten.
    pub(crate) fn entries_mut(&mut self) -> impl Iterator<Item = (u64, &mut V)> {
        self.slots
            .iter_mut()
            .map(|slot| (slot.key, &mut slot.value))
    }

    /// Forgets the entry seen longest ago if there is no room for `key`, and hands it out.
    pub(crate) fn make_room(&mut self, key: u64) -> Option<(u64, V)> {
        let known = self
            .index
            .find(key, |slot| self.slots[*slot as usize].key == key);
        if known.is_none() && self.len() == self.entries_max {
            self.forget_oldest()
        } else {
            None
        }
    }

    /// Forgets the entry seen longest ago and hands it out.
    pub(crate) fn forget_oldest(&mut self) -> Option<(u64, V)> {
        let slot = self.oldest;
        let entry = self.slots.get_mut(slot as usize)?;
        let (key, value) = (entry.key, std::mem::take(&mut entry.value));
        self.unlink(slot);
        if let Ok(entry) = self.index.find_entry(key, |other| *other == slot) {
            entry.remove();
        }
        self.vacant.push(slot);
        Some((key, value))
    }

    /// A slot for a new key: a fresh one, or that of the entry seen longest ago. Not linked.
    fn claim(&mut self, key: u64) -> u32 {
        if self.len() == self.entries_max {
            self.forget_oldest();
        }
        let slot = self.vacant.pop().unwrap_or_else(|| {
            self.slots.push(Slot {
                key,
                older: NONE,
                newer: NONE,
                value: V::default(),
            });
            (self.slots.len() - 1) as u32
        });
        self.slots[slot as usize].key = key;
        let slots = &self.slots;
        self.index
            .insert_unique(key, slot, |slot| slots[*slot as usize].key);
        slot
    }

    fn unlink(&mut self, slot: u32) {
        let (older, newer) = {
            let slot = &self.slots[slot as usize];
            (slot.older, slot.newer)
        };
        match self.slots.get_mut(older as usize) {
            Some(older) => older.newer = newer,
            None => self.oldest = newer,
        }
        match self.slots.get_mut(newer as usize) {
            Some(newer) => newer.older = older,
            None => self.newest = older,
        }
    }

    fn link_newest(&mut self, slot: u32) {
        let newest = self.newest;
        {
            let slot = &mut self.slots[slot as usize];
            slot.older = newest;
            slot.newer = NONE;
        }
        match self.slots.get_mut(newest as usize) {
            Some(newest) => newest.newer = slot,
            None => self.oldest = slot,
        }
        self.newest = slot;
    }
}

impl<V: Serialize + Default> Serialize for Lru<V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut entries = serializer.serialize_seq(Some(self.len()))?;
        for entry in self.oldest_first() {
            entries.serialize_element(&entry)?;
        }
        entries.end()
    }
}

/// Takes over as many entries as the snapshot holds; [`Lru::bounded`] applies this instance's own bound.
impl<'de, V: Deserialize<'de> + Default> Deserialize<'de> for Lru<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<V>(PhantomData<V>);

        impl<'de, V: Deserialize<'de> + Default> Visitor<'de> for Entries<V> {
            type Value = Lru<V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("entries from the one seen longest ago to the one seen last")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Lru<V>, A::Error> {
                let mut lru = Lru::new(NONE as usize);
                while let Some((key, value)) = entries.next_element::<(u64, V)>()? {
                    *lru.touch(key) = value;
                }
                Ok(lru)
            }
        }

        deserializer.deserialize_seq(Entries(PhantomData))
    }
}

impl<V: Default> Lru<V> {
    /// The same entries under another bound: the ones seen longest ago give way.
    pub(crate) fn bounded(mut self, entries_max: usize) -> Self {
        let mut bounded = Self::new(entries_max);
        let mut at = self.oldest;
        while let Some(slot) = self.slots.get_mut(at as usize) {
            *bounded.touch(slot.key) = std::mem::take(&mut slot.value);
            at = slot.newer;
        }
        bounded
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_holds_what_a_list_moved_to_the_front_would_hold(keys in prop::collection::vec(0_u64..12, 0..200), entries_max in 1_usize..10) {
            let mut lru = Lru::<u32>::new(entries_max);
            let mut model: Vec<(u64, u32)> = Vec::new();
            for key in keys {
                *lru.touch(key) += 1;
                let seen = model.iter().position(|entry| entry.0 == key).map_or(0, |at| model.remove(at).1);
                model.push((key, seen + 1));
                if model.len() > entries_max {
                    model.remove(0);
                }
                prop_assert!(lru.oldest_first().map(|(key, value)| (key, *value)).eq(model.iter().copied()));
            }
            let bytes = postcard::to_stdvec(&lru).unwrap();
            let restored: Lru<u32> = postcard::from_bytes(&bytes).unwrap();
            prop_assert_eq!(postcard::to_stdvec(&restored.bounded(entries_max)).unwrap(), bytes);
        }
    }
}
