//! A LowCardinality column of one batch: each different string once, and where each row's string stands among them.
//!
//! The layout (source: ClickHouse's `SerializationLowCardinality`, the form with keys of the block's own): version 1; flags (the width of an index, "has keys
//! of its own", "needs no other dictionary"); how many keys, the keys as a String column; how many rows, and an index for each. Numbers are little-endian u64
//! but for the indexes. The first key of a nullable column stands for null.

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use std::hash::BuildHasher as _;

use crate::column::push_string;

const VERSION: u64 = 1;
const HAS_KEYS: u64 = 1 << 9;
const NEEDS_NEW_DICTIONARY: u64 = 1 << 10;
/// The same in every process: where a key stands must not depend on it, but a profile that can be repeated is worth having.
const HASHER: FixedState = FixedState::with_seed(0);

/// Keys and indexes.
#[derive(Clone, Debug)]
pub(crate) struct Dictionary {
    /// All keys, as a String column.
    keys: Vec<u8>,
    /// Where the text of each key lies in `keys`.
    spans: Vec<(u32, u32)>,
    by_text: HashTable<u32>,
    indexes: Vec<u32>,
}

impl Default for Dictionary {
    fn default() -> Self {
        Self {
            keys: vec![0],
            spans: vec![(1, 1)],
            by_text: HashTable::new(),
            indexes: Vec::new(),
        }
    }
}

impl Dictionary {
    /// The same text in all rows.
    pub(crate) fn of_one(text: &str, rows: usize) -> Self {
        let mut dictionary = Self::default();
        dictionary.push(text);
        dictionary.indexes.resize(rows, 1);
        dictionary
    }

    /// No row, and room for so many.
    pub(crate) fn with_capacity(rows: usize) -> Self {
        Self {
            indexes: Vec::with_capacity(rows),
            ..Self::default()
        }
    }

    /// How many rows.
    pub(crate) fn rows(&self) -> usize {
        self.indexes.len()
    }

    /// Appends a row with the first key, which is null or the empty string.
    pub(crate) fn push_first(&mut self) {
        self.indexes.push(0);
    }

    /// Appends a row.
    pub(crate) fn push(&mut self, text: &str) {
        let Self {
            keys,
            spans,
            by_text,
            indexes,
        } = self;
        let (hash, wanted) = (HASHER.hash_one(text.as_bytes()), text.as_bytes());
        let is_it = |key: &u32| text_of(keys, spans[*key as usize]) == wanted;
        if let Some(key) = by_text.find(hash, is_it) {
            return indexes.push(*key);
        }
        let key = spans.len() as u32;
        push_string(keys, text);
        let end = keys.len() as u32;
        spans.push((end - text.len() as u32, end));
        let rehash = |key: &u32| HASHER.hash_one(text_of(keys, spans[*key as usize]));
        by_text.insert_unique(hash, key, rehash);
        indexes.push(key);
    }

    /// Keeps the first `rows` rows. Keys that only the others had stay: they cost their bytes.
    pub(crate) fn truncate(&mut self, rows: usize) {
        self.indexes.truncate(rows);
    }

    /// Bytes held, roughly.
    pub(crate) fn bytes(&self) -> usize {
        self.keys.len() + self.spans.len() * 16 + self.indexes.len() * 4
    }

    /// The column; of no row it is nothing.
    pub(crate) fn native(&self) -> Vec<u8> {
        if self.indexes.is_empty() {
            return Vec::new();
        }
        let (width_flag, width) = match self.spans.len() {
            0..=0x100 => (0, 1),
            0x101..=0x1_0000 => (1, 2),
            _ => (2, 4),
        };
        let mut native = Vec::with_capacity(32 + self.keys.len() + self.indexes.len() * width);
        let flags = width_flag | HAS_KEYS | NEEDS_NEW_DICTIONARY;
        for number in [VERSION, flags, self.spans.len() as u64] {
            native.extend_from_slice(&number.to_le_bytes());
        }
        native.extend_from_slice(&self.keys);
        native.extend_from_slice(&(self.indexes.len() as u64).to_le_bytes());
        let indexes = self.indexes.iter();
        match width {
            1 => native.extend(indexes.map(|index| *index as u8)),
            2 => native.extend(indexes.flat_map(|index| (*index as u16).to_le_bytes())),
            _ => native.extend(indexes.flat_map(|index| index.to_le_bytes())),
        }
        native
    }
}

fn text_of(keys: &[u8], (start, end): (u32, u32)) -> &[u8] {
    &keys[start as usize..end as usize]
}
