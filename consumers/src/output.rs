//! Where a group's rows and derived messages go: columns of one batch for each table, filled without an allocation per row.
//!
//! Each row gets, beside the group's own columns, `_topic`, `_partition`, `_offset`, `_n` (which row of that event in that table), `_epoch` and
//! `_appended_at` (the broker's append time), so that every row can be traced to its event and counted against it.

use activity_schemas::Topic;

use crate::column::{
    ColumnBuffer, Layout, LowCardinality, Millis, Value, push_string, push_varint,
};

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

impl Derived {
    /// Memory held, roughly.
    pub fn bytes(&self) -> usize {
        self.key.len() + self.payload.len() + 96
    }
}

/// The rows of one table in one batch.
#[derive(Clone, Debug)]
pub struct Rows {
    table: &'static TableSpec,
    columns: Vec<ColumnBuffer>,
    offsets: ColumnBuffer,
    ns: ColumnBuffer,
    appended_at: ColumnBuffer,
    rows: usize,
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
        Self {
            table,
            columns: vec![ColumnBuffer::default(); table.columns.len()],
            offsets: ColumnBuffer::default(),
            ns: ColumnBuffer::default(),
            appended_at: ColumnBuffer::default(),
            rows: 0,
            rows_before_event: 0,
        }
    }

    /// No rows, and room for as many as these: the next batch is often of the same size, and a buffer that grows is copied each time.
    fn fresh(&self) -> Self {
        Self {
            table: self.table,
            columns: self.columns.iter().map(ColumnBuffer::fresh).collect(),
            offsets: self.offsets.fresh(),
            ns: self.ns.fresh(),
            appended_at: self.appended_at.fresh(),
            rows: 0,
            rows_before_event: 0,
        }
    }

    /// The table.
    pub fn table(&self) -> &'static TableSpec {
        self.table
    }

    /// How many rows.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    fn bytes(&self) -> usize {
        let of_origin = [&self.offsets, &self.ns, &self.appended_at];
        let columns = self.columns.iter().chain(of_origin);
        columns.map(ColumnBuffer::bytes).sum()
    }

    fn push<R: Row>(&mut self, row: &R, offset: i64, appended_at: Millis) {
        row.push(&mut self.columns);
        offset.push(&mut self.offsets);
        ((self.rows - self.rows_before_event) as u32).push(&mut self.ns);
        appended_at.push(&mut self.appended_at);
        self.rows += 1;
    }

    fn truncate(&mut self, rows: usize) {
        for (column, spec) in self.columns.iter_mut().zip(self.table.columns) {
            column.truncate(spec.layout, rows);
        }
        self.offsets.truncate(i64::LAYOUT, rows);
        self.ns.truncate(u32::LAYOUT, rows);
        self.appended_at.truncate(Millis::LAYOUT, rows);
        self.rows = rows;
    }

    /// [`into_native_block`](Self::into_native_block) in one piece, a copy: for those who read it.
    pub fn native_block(&self, origin: &Origin<'_>) -> Vec<u8> {
        self.clone().into_native_block(origin).concat()
    }

    /// One Native block in pieces, which are sent one after the other: the group's columns, then the origin's. Columns of some size go out as they are, without
    /// a copy. The same rows give the same bytes.
    pub fn into_native_block(self, origin: &Origin<'_>) -> Vec<Vec<u8>> {
        let rows = self.len();
        let mut pieces = Pieces::default();
        push_varint(&mut pieces.open, (self.columns.len() + ORIGIN.len()) as u64);
        push_varint(&mut pieces.open, rows as u64);
        for (column, spec) in self.columns.into_iter().zip(self.table.columns) {
            pieces.column(spec.name, spec.sent_as, column);
        }
        let of_origin = [
            ColumnBuffer::of_one_text(origin.topic, rows),
            ColumnBuffer::of(std::iter::repeat_n(origin.partition, rows)),
            self.offsets,
            self.ns,
            ColumnBuffer::of(std::iter::repeat_n(origin.epoch, rows)),
            self.appended_at,
        ];
        for ((name, sent_as), column) in ORIGIN.into_iter().zip(of_origin) {
            pieces.column(name, sent_as, column);
        }
        pieces.end()
    }
}

/// What stands behind the group's own columns: names, and the types that are sent.
pub const ORIGIN: [(&str, &str); 6] = [
    ("_topic", LowCardinality::<&str>::TYPE),
    ("_partition", i32::TYPE),
    ("_offset", i64::TYPE),
    ("_n", u32::TYPE),
    ("_epoch", u32::TYPE),
    ("_appended_at", Millis::TYPE),
];

/// A buffer below this size is copied: a piece of its own costs more than so many bytes.
const PIECE_BYTES_MIN: usize = 16 * 1024;

/// A block that is put together.
#[derive(Default)]
struct Pieces {
    done: Vec<Vec<u8>>,
    open: Vec<u8>,
}

impl Pieces {
    fn column(&mut self, name: &str, sent_as: &str, column: ColumnBuffer) {
        push_string(&mut self.open, name);
        push_string(&mut self.open, sent_as);
        for part in column.into_native() {
            if part.len() < PIECE_BYTES_MIN {
                self.open.extend_from_slice(&part);
            } else {
                self.done.extend([std::mem::take(&mut self.open), part]);
            }
        }
    }

    fn end(mut self) -> Vec<Vec<u8>> {
        self.done.push(self.open);
        self.done.retain(|piece| !piece.is_empty());
        self.done
    }
}

/// Rows and derived messages of the batch that is being built.
pub struct Output {
    tables: Vec<Rows>,
    /// Those that were not drained yet.
    derived: Vec<Derived>,
    derived_before_event: usize,
    /// Bytes of the batch's derived messages, drained or not, and of those before the event: asked for too often to be counted anew.
    derived_bytes: usize,
    derived_bytes_before_event: usize,
    offset: i64,
    appended_at: Millis,
}

impl Output {
    /// An empty output for the tables of one group.
    pub fn new(tables: &[&'static TableSpec]) -> Self {
        let tables = tables.iter().map(|table| Rows::new(table)).collect();
        Self {
            tables,
            derived: Vec::new(),
            derived_before_event: 0,
            derived_bytes: 0,
            derived_bytes_before_event: 0,
            offset: 0,
            appended_at: Millis(0),
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
        rows.push(row, self.offset, self.appended_at);
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
        let derived = Derived {
            topic,
            key: key.as_bytes().to_vec(),
            payload,
            offset: self.offset,
            n,
        };
        self.derived_bytes += derived.bytes();
        self.derived.push(derived);
    }

    /// The runtime's side: what follows belongs to the event at `offset`.
    pub fn begin_event(&mut self, offset: i64, appended_at_ms: i64) {
        self.offset = offset;
        self.appended_at = Millis(appended_at_ms);
        self.derived_before_event = self.derived.len();
        self.derived_bytes_before_event = self.derived_bytes;
        for rows in &mut self.tables {
            rows.rows_before_event = rows.len();
        }
    }

    /// The runtime's side: takes back what was appended since [`begin_event`](Self::begin_event).
    pub fn take_back_event(&mut self) {
        self.take_back_derived();
        for rows in &mut self.tables {
            if rows.len() > rows.rows_before_event {
                rows.truncate(rows.rows_before_event);
            }
        }
    }

    /// The runtime's side: as [`take_back_event`](Self::take_back_event), where the group ended in the middle of a row.
    pub fn take_back_half_event(&mut self) {
        self.take_back_derived();
        for rows in &mut self.tables {
            rows.truncate(rows.rows_before_event);
        }
    }

    fn take_back_derived(&mut self) {
        self.derived.truncate(self.derived_before_event);
        self.derived_bytes = self.derived_bytes_before_event;
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
        self.tables.iter().map(Rows::bytes).sum::<usize>() + self.derived_bytes
    }

    /// The runtime's side, between two events: drains derived messages in order, until one is not taken; that and those behind it stay. The bytes of all count
    /// until the batch ends, or a batch of a stage without rows would have no limit.
    pub fn drain_derived(&mut self, take: impl FnMut(&Derived) -> bool) {
        let taken = self.derived.iter().map(take).take_while(|taken| *taken);
        let taken = taken.count();
        self.derived.drain(..taken);
        self.derived_before_event = self.derived.len();
        self.derived_bytes_before_event = self.derived_bytes;
    }

    /// Ends the batch: hands out its rows, and the derived messages that were not drained before, and begins an empty one.
    pub fn take(&mut self) -> (Vec<Rows>, Vec<Derived>) {
        let fresh = self.tables.iter().map(Rows::fresh).collect();
        self.begin_derived_anew();
        (
            std::mem::replace(&mut self.tables, fresh),
            std::mem::take(&mut self.derived),
        )
    }

    fn begin_derived_anew(&mut self) {
        self.derived_before_event = 0;
        self.derived_bytes = 0;
        self.derived_bytes_before_event = 0;
    }

    /// Forgets everything: outputs of events that are only read again to rebuild state.
    pub fn discard(&mut self) {
        self.derived.clear();
        self.begin_derived_anew();
        for rows in &mut self.tables {
            rows.truncate(0);
            rows.rows_before_event = 0;
        }
    }
}
