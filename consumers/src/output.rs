//! Where a group's rows and derived messages go: columns of one batch for each table, filled without an allocation per row.
//!
//! Each row gets, beside the group's own columns, `_topic`, `_partition`, `_offset`, `_n` (which row of that event in that table), `_epoch` and
//! `_appended_at` (the broker's append time), so that every row can be traced to its event and counted against it.

use activity_schemas::Topic;

use crate::column::{ColumnBuffer, Layout, Value, push_string, push_varint};

/// A table that a group writes.
#[derive(Debug, PartialEq, Eq)]
pub struct TableSpec {
    /// Name without the database: `clicks`.
    pub name: &'static str,
    /// Columns that the group fills, in order.
    pub columns: &'static [ColumnSpec],
}

/// A column that a group fills.
#[derive(Debug, PartialEq, Eq)]
pub struct ColumnSpec {
    /// Its name.
    pub name: &'static str,
    /// The type that is sent; the table's own type may be one that it converts to (LowCardinality).
    pub sent_as: &'static str,
    /// How it lies in memory.
    pub layout: Layout,
}

/// A row of one table. Made by the macro [`rows!`](crate::rows).
pub trait Row {
    /// The table that it belongs to.
    const TABLE: &'static TableSpec;
    /// Appends each field to its column.
    fn push(&self, columns: &mut [ColumnBuffer]);
}

/// Declares row types: a struct whose fields are the columns of a table, in order.
///
/// ```
/// activity_consumers::rows! {
///     /// One greeting.
///     pub struct Greeting<'a> in "greetings" {
///         user_id: &'a str,
///         said_at: activity_consumers::Millis,
///     }
/// }
/// ```
#[macro_export]
macro_rules! rows {
    ($($(#[$meta:meta])* $visibility:vis struct $name:ident $(<$life:lifetime>)? in $table:literal { $($(#[$field_meta:meta])* $field:ident: $type:ty),+ $(,)? })+) => {$(
        $(#[$meta])*
        #[allow(missing_docs, reason = "columns are documented in the migration that creates the table")]
        $visibility struct $name $(<$life>)? { $($(#[$field_meta])* pub $field: $type),+ }

        impl $(<$life>)? $crate::Row for $name $(<$life>)? {
            const TABLE: &'static $crate::TableSpec = &$crate::TableSpec {
                name: $table,
                columns: &[$($crate::ColumnSpec {
                    name: stringify!($field),
                    sent_as: <$type as $crate::Value>::TYPE,
                    layout: <$type as $crate::Value>::LAYOUT,
                }),+],
            };

            fn push(&self, columns: &mut [$crate::ColumnBuffer]) {
                let mut columns = columns.iter_mut();
                $(if let Some(column) = columns.next() {
                    $crate::Value::push(&self.$field, column);
                })+
            }
        }
    )+};
}

/// A message for the next stage of the same group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Derived {
    /// The internal topic.
    pub topic: Topic,
    /// Decides the partition.
    pub key: Vec<u8>,
    /// What [`Output::send`] was given, in postcard's encoding.
    pub payload: Vec<u8>,
    /// Offset of the event that it was derived from.
    pub offset: i64,
    /// Which message of that event: 0, 1, …
    pub n: u32,
}

/// The rows of one table in one batch.
#[derive(Clone, Debug)]
pub struct Rows {
    table: &'static TableSpec,
    columns: Vec<ColumnBuffer>,
    offsets: Vec<i64>,
    ns: Vec<u32>,
    appended_at_ms: Vec<i64>,
    rows_before_event: usize,
}

/// What the same for all rows of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// Full topic name.
    pub topic: &'a str,
    /// Partition.
    pub partition: i32,
    /// The group's epoch.
    pub epoch: u32,
}

impl Rows {
    fn new(table: &'static TableSpec) -> Self {
        let columns = vec![ColumnBuffer::default(); table.columns.len()];
        Self {
            table,
            columns,
            offsets: Vec::new(),
            ns: Vec::new(),
            appended_at_ms: Vec::new(),
            rows_before_event: 0,
        }
    }

    /// The table.
    pub fn table(&self) -> &'static TableSpec {
        self.table
    }

    /// How many rows.
    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    fn bytes(&self) -> usize {
        self.columns.iter().map(ColumnBuffer::bytes).sum::<usize>() + self.offsets.len() * 20
    }

    fn truncate(&mut self, rows: usize) {
        for (column, spec) in self.columns.iter_mut().zip(self.table.columns) {
            column.truncate(spec.layout, rows);
        }
        self.offsets.truncate(rows);
        self.ns.truncate(rows);
        self.appended_at_ms.truncate(rows);
    }

    /// One Native block: the group's columns, then the origin's. The same rows give the same bytes.
    pub fn native_block(&self, origin: &Origin<'_>) -> Vec<u8> {
        let mut block =
            Vec::with_capacity(self.bytes() + self.len() * (origin.topic.len() + 9) + 1024);
        push_varint(&mut block, self.columns.len() as u64 + 6);
        push_varint(&mut block, self.len() as u64);
        for (column, spec) in self.columns.iter().zip(self.table.columns) {
            push_string(&mut block, spec.name);
            push_string(&mut block, spec.sent_as);
            column.write_native(&mut block);
        }
        let rows = self.len();
        origin_column(
            &mut block,
            "_topic",
            std::iter::repeat_n(origin.topic, rows),
        );
        origin_column(
            &mut block,
            "_partition",
            std::iter::repeat_n(origin.partition, rows),
        );
        origin_column(&mut block, "_offset", self.offsets.iter().copied());
        origin_column(&mut block, "_n", self.ns.iter().copied());
        origin_column(
            &mut block,
            "_epoch",
            std::iter::repeat_n(origin.epoch, rows),
        );
        origin_column(
            &mut block,
            "_appended_at",
            self.appended_at_ms.iter().map(|at| crate::Millis(*at)),
        );
        block
    }
}

fn origin_column<V: Value>(block: &mut Vec<u8>, name: &str, values: impl Iterator<Item = V>) {
    push_string(block, name);
    push_string(block, V::TYPE);
    let mut column = ColumnBuffer::default();
    values.for_each(|value| value.push(&mut column));
    column.write_native(block);
}

/// Rows and derived messages of the batch that is being built.
pub struct Output {
    tables: Vec<Rows>,
    derived: Vec<Derived>,
    derived_before_event: usize,
    offset: i64,
    appended_at_ms: i64,
}

impl Output {
    /// An empty output for the tables of one group.
    pub fn new(tables: &[&'static TableSpec]) -> Self {
        let tables = tables.iter().map(|table| Rows::new(table)).collect();
        Self {
            tables,
            derived: Vec::new(),
            derived_before_event: 0,
            offset: 0,
            appended_at_ms: 0,
        }
    }

    /// Appends a row to its table.
    ///
    /// # Panics
    /// If the table is not among the group's `TABLES`.
    pub fn insert<R: Row>(&mut self, row: &R) {
        let Some(rows) = self
            .tables
            .iter_mut()
            .find(|rows| std::ptr::eq(rows.table, R::TABLE) || rows.table.name == R::TABLE.name)
        else {
            panic!("table {} is not among the group's TABLES", R::TABLE.name);
        };
        row.push(&mut rows.columns);
        rows.ns
            .push((rows.offsets.len() - rows.rows_before_event) as u32);
        rows.offsets.push(self.offset);
        rows.appended_at_ms.push(self.appended_at_ms);
    }

    /// Sends a message to the next stage of the same group; `key` decides the partition.
    ///
    /// # Panics
    /// If the payload cannot be serialized, which a derived `Serialize` excludes.
    pub fn send<T: serde::Serialize>(&mut self, topic: Topic, key: &str, payload: &T) {
        let payload = match postcard::to_stdvec(payload) {
            Ok(payload) => payload,
            Err(error) => panic!(
                "a derived message for {} cannot be serialized: {error}",
                topic.name
            ),
        };
        let n = (self.derived.len() - self.derived_before_event) as u32;
        self.derived.push(Derived {
            topic,
            key: key.as_bytes().to_vec(),
            payload,
            offset: self.offset,
            n,
        });
    }

    /// The runtime's side: what follows belongs to the event at `offset`.
    pub fn begin_event(&mut self, offset: i64, appended_at_ms: i64) {
        self.offset = offset;
        self.appended_at_ms = appended_at_ms;
        self.derived_before_event = self.derived.len();
        for rows in &mut self.tables {
            rows.rows_before_event = rows.offsets.len();
        }
    }

    /// The runtime's side: takes back what was appended since [`begin_event`](Self::begin_event).
    pub fn take_back_event(&mut self) {
        self.derived.truncate(self.derived_before_event);
        for rows in &mut self.tables {
            if rows.len() > rows.rows_before_event {
                rows.truncate(rows.rows_before_event);
            }
        }
    }

    /// The runtime's side: as [`take_back_event`](Self::take_back_event), where the group ended in the middle of a row.
    pub fn take_back_half_event(&mut self) {
        self.derived.truncate(self.derived_before_event);
        for rows in &mut self.tables {
            rows.truncate(rows.rows_before_event);
        }
    }

    /// The runtime's side: bytes of key and payload of the largest message that was sent since [`begin_event`](Self::begin_event).
    pub fn largest_sent_bytes(&self) -> usize {
        let sent = self.derived.iter().skip(self.derived_before_event);
        sent.map(|derived| derived.key.len() + derived.payload.len())
            .max()
            .unwrap_or(0)
    }

    /// Rows so far, over all tables.
    pub fn rows(&self) -> usize {
        self.tables.iter().map(Rows::len).sum()
    }

    /// Tables that have at least one row.
    pub fn tables_in_use(&self) -> usize {
        self.tables.iter().filter(|rows| !rows.is_empty()).count()
    }

    /// Memory held, roughly.
    pub fn bytes(&self) -> usize {
        self.tables.iter().map(Rows::bytes).sum::<usize>()
            + self
                .derived
                .iter()
                .map(|derived| derived.key.len() + derived.payload.len() + 64)
                .sum::<usize>()
    }

    /// Ends the batch: hands out its rows and derived messages and begins an empty one.
    pub fn take(&mut self) -> (Vec<Rows>, Vec<Derived>) {
        let fresh = self
            .tables
            .iter()
            .map(|rows| Rows::new(rows.table))
            .collect();
        self.derived_before_event = 0;
        (
            std::mem::replace(&mut self.tables, fresh),
            std::mem::take(&mut self.derived),
        )
    }

    /// Forgets everything: outputs of events that are only read again to rebuild state.
    pub fn discard(&mut self) {
        self.derived.clear();
        self.derived_before_event = 0;
        for rows in &mut self.tables {
            rows.truncate(0);
            rows.rows_before_event = 0;
        }
    }
}
