//! What the owners do with ClickHouse: blocks under their tokens, counts, the ledger, snapshots, and what arrives late.

use std::collections::BTreeSet;
use std::ops::Range as Offsets;
use std::sync::Arc;

use super::{Fate, Settled, World};
use crate::batch::{Mode, Sealed, TableBlock};
use crate::claim::{CLAIMED_AT_UNKNOWN, Range, token};
use crate::lane_tests::{EPOCH, FIRST, GROUP, Row, TOPIC, rows_in};

impl World {
    /// A token is never sent with other bytes. Where the log has lost messages, the state that they made is lost too.
    pub(super) fn note_built(&mut self, batch: &Sealed) {
        for table in batch.tables.iter().filter(|_| self.log_first == FIRST) {
            let built = self
                .built
                .entry(token_of(batch))
                .or_insert(table.block.concat());
            assert_eq!(*built, table.block.concat(), "{}", token_of(batch));
        }
    }

    /// As `cycle::insert_table`: whether all rows are known to be there.
    pub(super) fn insert_table(
        &mut self,
        batch: &Arc<Sealed>,
        table: &TableBlock,
        attempt: u32,
        fate: Fate,
    ) -> bool {
        let (token, read) = (token_of(batch), batch.first_read..batch.range.end);
        let is_first = batch.mode == Mode::First && attempt == 1;
        let is_short = |world: &Self| world.rows_of(&read) < table.rows as usize;
        // As `cycle::mode`.
        let is_unknown = batch.first_claimed_at_ms.get() == Some(&CLAIMED_AT_UNKNOWN);
        let is_missing_only = batch.mode == Mode::MissingOnly || is_unknown;
        let is_sent_whole = if is_missing_only {
            self.rows_of(&(batch.range.start..batch.range.end)) == 0
        } else {
            is_first || is_short(self)
        };
        if is_sent_whole {
            match fate {
                Fate::Done | Fate::Unheard => self.store(token.clone(), rows_in(table)),
                Fate::Late => self.keep_late(batch),
                Fate::Forgotten => drop(self.tokens.insert(token.clone())),
                Fate::Failed => (),
            }
            if is_first || fate != Fate::Done {
                return fate == Fate::Done;
            }
        }
        if is_short(self) && matches!(fate, Fate::Done | Fate::Unheard) {
            let mut missing = rows_in(table);
            missing.retain(|row| {
                self.rows
                    .iter()
                    .all(|there| (there.0, there.1) != (row.0, row.1))
            });
            self.store(format!("{token}/from/{}/2", read.start), missing);
        }
        assert!(
            self.rows_of(&read) <= table.rows as usize,
            "more rows than events gave"
        );
        fate == Fate::Done
    }

    /// ClickHouse: the first block of a token is stored, others are dropped.
    pub(super) fn store(&mut self, token: String, rows: Vec<Row>) {
        if self.tokens.insert(token) {
            self.rows.extend(rows);
        }
    }

    pub(in crate::lane_tests) fn rows_of(&self, offsets: &Offsets<i64>) -> usize {
        self.rows
            .iter()
            .filter(|row| offsets.contains(&row.0))
            .count()
    }

    /// The offsets that have rows.
    pub(in crate::lane_tests) fn offsets_of(&self, offsets: &Offsets<i64>) -> BTreeSet<i64> {
        let all = self.rows.iter().map(|row| row.0);
        all.filter(|offset| offsets.contains(offset)).collect()
    }

    /// As `cycle::gone` and `cycle::ledger_row`; a range that is written again must say the same.
    pub(super) fn write_ledger(&mut self, batch: &Sealed) {
        let Range { start, end } = batch.range;
        let there = self.offsets_of(&(start..batch.first_read)).len() as u64;
        let row = Settled {
            end,
            events: batch.counts.events + there,
            rejects: batch.counts.rejects,
            lost: batch.counts.lost + (batch.first_read - start) as u64 - there,
            rows: self.rows_of(&(start..end)),
            derived: batch
                .known_derived_counts()
                .map(|counts| counts.values().sum()),
        };
        if let Some(written) = self.ledger.get(&start) {
            assert_eq!(*written, row);
        }
        self.ledger.insert(start, row);
    }

    pub(super) fn store_snapshot(&mut self, which: usize) {
        if which < self.late_snapshots.len() {
            let (slot, snapshot) = self.late_snapshots.remove(which);
            let is_said = |(offset, _)| offset >= snapshot.state_offset;
            assert!(self.committed.is_none_or(is_said));
            self.snapshots[usize::from(slot)] = Some(snapshot);
        }
    }

    pub(super) fn keep_late(&mut self, batch: &Arc<Sealed>) {
        if batch.range.start >= self.late_from {
            self.late_inserts.push(batch.clone());
        }
    }

    /// An insert of an earlier attempt arrives under its token; its owner, if it still is there, may write the ledger.
    pub(super) fn arrive(&mut self, which: usize, ledger: bool) {
        if which >= self.late_inserts.len() {
            return;
        }
        let batch = self.late_inserts.swap_remove(which);
        self.deliver_messages(&batch);
        for table in &batch.tables {
            self.store(token_of(&batch), rows_in(table));
        }
        // Another limit: it believes the answer of an engine that has forgotten the rows of that token. Three faults at once.
        let rows: u64 = batch.tables.iter().map(|table| table.rows).sum();
        if ledger && self.rows_of(&(batch.range.start..batch.range.end)) == rows as usize {
            self.write_ledger(&batch);
        }
    }
}

/// The name of a batch in ClickHouse.
pub(super) fn token_of(batch: &Sealed) -> String {
    token(GROUP.name, TOPIC.name, 0, batch.range, EPOCH)
}
