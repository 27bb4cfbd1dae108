//! Columns in ClickHouse's Native layout, filled value by value.
//!
//! Layouts (source: ClickHouse's documentation of the Native format): numbers little-endian; a String is its length as a varint, then its bytes; a UUID is
//! two little-endian u64, high half first; Nullable is a byte per row (1 = null), then the values with a default where null; Array is the end position of
//! each row as u64, then all elements; LowCardinality is a dictionary of the block's own and each row's place in it ([`dictionary`](crate::dictionary)).
//! A LowCardinality column may also be sent as its inner type: the server then makes the dictionary.

use uuid::Uuid;

use crate::dictionary::Dictionary;

/// One column of one batch.
#[derive(Clone, Debug, Default)]
pub struct ColumnBuffer {
    /// Null map (one byte a row) or array ends (u64 a row); empty for plain types.
    shape: Vec<u8>,
    values: Vec<u8>,
    /// Elements so far, of an array column.
    elements: u64,
    /// Of a LowCardinality column.
    dictionary: Option<Box<Dictionary>>,
}

impl ColumnBuffer {
    /// Bytes held.
    pub fn bytes(&self) -> usize {
        let dictionary = self.dictionary.as_ref().map_or(0, |keys| keys.bytes());
        self.shape.len() + self.values.len() + dictionary
    }

    /// The column of these values.
    pub(crate) fn of<V: Value>(values: impl ExactSizeIterator<Item = V>) -> Self {
        let bytes = match V::LAYOUT.element {
            Element::Fixed(bytes) => bytes * values.len(),
            Element::String => 0,
        };
        let mut column = Self {
            values: Vec::with_capacity(bytes),
            ..Self::default()
        };
        values.for_each(|value| value.push(&mut column));
        column
    }

    /// A LowCardinality column of the same text in all rows.
    pub(crate) fn of_one_text(text: &str, rows: usize) -> Self {
        Self {
            dictionary: Some(Box::new(Dictionary::of_one(text, rows))),
            ..Self::default()
        }
    }

    /// An empty column with room for a little more than this one holds.
    pub(crate) fn fresh(&self) -> Self {
        let rows = |dictionary: &Dictionary| {
            Box::new(Dictionary::with_capacity(a_little_more(dictionary.rows())))
        };
        Self {
            shape: Vec::with_capacity(a_little_more(self.shape.len())),
            values: Vec::with_capacity(a_little_more(self.values.len())),
            elements: 0,
            dictionary: self.dictionary.as_deref().map(rows),
        }
    }

    /// The column's data as the Native format has it, in parts.
    pub(crate) fn into_native(self) -> [Vec<u8>; 2] {
        match self.dictionary {
            Some(dictionary) => [dictionary.native(), Vec::new()],
            None => [self.shape, self.values],
        }
    }

    /// Keeps the first `rows` rows. Walks the column: for the rare event that is rejected after it had appended rows.
    pub(crate) fn truncate(&mut self, layout: Layout, rows: usize) {
        if let Some(dictionary) = &mut self.dictionary {
            return dictionary.truncate(rows);
        }
        let elements = match layout.shape {
            Shape::Plain | Shape::Dictionary => rows,
            Shape::Nullable => {
                self.shape.truncate(rows);
                rows
            }
            Shape::Array => {
                self.shape.truncate(rows * 8);
                self.elements = self
                    .shape
                    .last_chunk()
                    .map_or(0, |end| u64::from_le_bytes(*end));
                self.elements as usize
            }
        };
        let keep = match layout.element {
            Element::Fixed(bytes) => elements * bytes,
            Element::String => (0..elements).fold(0, |at, _| at + string_bytes(&self.values[at..])),
        };
        self.values.truncate(keep);
    }
}

/// Room for a batch like the last one: of two batches of as many rows every other is the larger one, if by a few bytes, and a buffer that is too small by one
/// byte is copied into one of twice the size.
pub(crate) fn a_little_more(than: usize) -> usize {
    than + than / 16
}

/// Length of the String at the start of `values`, its length prefix included.
fn string_bytes(values: &[u8]) -> usize {
    let mut length = 0;
    for (index, byte) in values.iter().enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return index + 1 + length;
        }
    }
    0
}

/// How a type lies in a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    shape: Shape,
    element: Element,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Plain,
    Nullable,
    Array,
    Dictionary,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Element {
    Fixed(usize),
    String,
}

/// A Rust type that fills a ClickHouse column.
pub trait Value {
    /// The ClickHouse type that is sent: `Nullable(String)`.
    const TYPE: &'static str;
    /// How it lies in a column.
    const LAYOUT: Layout;
    /// Appends one row.
    fn push(&self, column: &mut ColumnBuffer);
}

/// Appends a varint (LEB128), as the Native format uses it for lengths.
pub(crate) fn push_varint(into: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        into.push(value as u8 | 0x80);
        value >>= 7;
    }
    into.push(value as u8);
}

/// Appends a String.
pub(crate) fn push_string(into: &mut Vec<u8>, value: &str) {
    push_varint(into, value.len() as u64);
    into.extend_from_slice(value.as_bytes());
}

/// A point in time, milliseconds since 1970-01-01 UTC: `DateTime64(3, 'UTC')`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Millis(pub i64);

/// A string of few different ones, or null: sent with a dictionary, so that each of them is sent once a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LowCardinality<T>(pub T);

impl Value for LowCardinality<&str> {
    const TYPE: &'static str = "LowCardinality(String)";
    const LAYOUT: Layout = Layout {
        shape: Shape::Dictionary,
        element: Element::String,
    };
    fn push(&self, column: &mut ColumnBuffer) {
        let dictionary = column.dictionary.get_or_insert_default();
        // The first key is what stands for null where there can be one; here it is the empty string that it holds.
        if self.0.is_empty() {
            dictionary.push_first();
        } else {
            dictionary.push(self.0);
        }
    }
}

impl Value for LowCardinality<Option<&str>> {
    const TYPE: &'static str = "LowCardinality(Nullable(String))";
    const LAYOUT: Layout = LowCardinality::<&str>::LAYOUT;
    fn push(&self, column: &mut ColumnBuffer) {
        let dictionary = column.dictionary.get_or_insert_default();
        match self.0 {
            Some(text) => dictionary.push(text),
            None => dictionary.push_first(),
        }
    }
}

/// How one element is written; null and array columns build on it.
trait Plain {
    const ELEMENT: Element;
    fn put(&self, values: &mut Vec<u8>);
    fn put_default(values: &mut Vec<u8>) {
        match Self::ELEMENT {
            Element::Fixed(bytes) => values.resize(values.len() + bytes, 0),
            Element::String => values.push(0),
        }
    }
}

macro_rules! plain {
    ($($rust:ty => $clickhouse:literal, $element:expr, |$value:ident, $into:ident| $put:expr;)*) => {$(
        impl Plain for $rust {
            const ELEMENT: Element = $element;
            fn put(&self, $into: &mut Vec<u8>) {
                let $value = self;
                $put;
            }
        }
        impl Value for $rust {
            const TYPE: &'static str = $clickhouse;
            const LAYOUT: Layout = Layout { shape: Shape::Plain, element: $element };
            fn push(&self, column: &mut ColumnBuffer) {
                self.put(&mut column.values);
            }
        }
        impl Value for Option<$rust> {
            const TYPE: &'static str = concat!("Nullable(", $clickhouse, ")");
            const LAYOUT: Layout = Layout { shape: Shape::Nullable, element: $element };
            fn push(&self, column: &mut ColumnBuffer) {
                column.shape.push(u8::from(self.is_none()));
                match self {
                    Some(value) => value.put(&mut column.values),
                    None => <$rust as Plain>::put_default(&mut column.values),
                }
            }
        }
        impl Value for &[$rust] {
            const TYPE: &'static str = concat!("Array(", $clickhouse, ")");
            const LAYOUT: Layout = Layout { shape: Shape::Array, element: $element };
            fn push(&self, column: &mut ColumnBuffer) {
                column.elements += self.len() as u64;
                column.shape.extend_from_slice(&column.elements.to_le_bytes());
                for value in *self {
                    value.put(&mut column.values);
                }
            }
        }
    )*};
}

plain! {
    &str => "String", Element::String, |value, into| push_string(into, value);
    Uuid => "UUID", Element::Fixed(16), |value, into| {
        let (high, low) = value.as_u64_pair();
        into.extend_from_slice(&high.to_le_bytes());
        into.extend_from_slice(&low.to_le_bytes())
    };
    Millis => "DateTime64(3, 'UTC')", Element::Fixed(8), |value, into| into.extend_from_slice(&value.0.to_le_bytes());
    bool => "Bool", Element::Fixed(1), |value, into| into.push(u8::from(*value));
    u8 => "UInt8", Element::Fixed(1), |value, into| into.push(*value);
    u16 => "UInt16", Element::Fixed(2), |value, into| into.extend_from_slice(&value.to_le_bytes());
    u32 => "UInt32", Element::Fixed(4), |value, into| into.extend_from_slice(&value.to_le_bytes());
    u64 => "UInt64", Element::Fixed(8), |value, into| into.extend_from_slice(&value.to_le_bytes());
    i32 => "Int32", Element::Fixed(4), |value, into| into.extend_from_slice(&value.to_le_bytes());
    i64 => "Int64", Element::Fixed(8), |value, into| into.extend_from_slice(&value.to_le_bytes());
    f32 => "Float32", Element::Fixed(4), |value, into| into.extend_from_slice(&value.to_le_bytes());
    f64 => "Float64", Element::Fixed(8), |value, into| into.extend_from_slice(&value.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_a_little_larger_than_the_last_one_has_room() {
        let column = ColumnBuffer::of(std::iter::repeat_n("/item/i000042", 1_000));
        let mut next = column.fresh();
        let place = next.values.as_ptr();
        (0..1_050).for_each(|_| "/item/i000042".push(&mut next));
        assert_eq!(next.values.as_ptr(), place);
    }
}
