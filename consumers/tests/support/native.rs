//! Reads a Native block back, by the types that it names: the other side of what `Rows::native_block` writes, written against ClickHouse's description of the
//! format and not against our writer.

use serde_json::{Value, json};
use uuid::Uuid;

/// Each row of a block as a line of JSON. Panics where the bytes are not a Native block of known types, or go on after it.
pub fn json_lines(block: &[u8]) -> Vec<String> {
    rows(block)
        .into_iter()
        .map(|row| {
            let fields = row
                .iter()
                .map(|(name, value)| format!("{}:{value}", json!(name)));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
        })
        .collect()
}

/// Fields by name, in the order of the columns.
pub type NativeRow = Vec<(String, Value)>;

/// A field's value; null if there is none of that name.
pub fn field<'a>(row: &'a NativeRow, name: &str) -> &'a Value {
    row.iter()
        .find(|(field, _)| field == name)
        .map_or(&Value::Null, |(_, value)| value)
}

/// Each row of a block.
pub fn rows(block: &[u8]) -> Vec<NativeRow> {
    let mut reader = Reader(block);
    let columns = reader.varint();
    let count = reader.varint() as usize;
    let mut rows = vec![NativeRow::new(); count];
    for _ in 0..columns {
        let name = reader.string();
        let kind = reader.string();
        for (row, value) in rows.iter_mut().zip(reader.column(&kind, count)) {
            row.push((name.clone(), value));
        }
    }
    assert!(
        reader.0.is_empty(),
        "{} bytes follow the block",
        reader.0.len()
    );
    rows
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let (head, rest) = self.0.split_first_chunk().expect("the block goes on");
        self.0 = rest;
        *head
    }

    fn varint(&mut self) -> u64 {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let [byte] = self.bytes();
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        value
    }

    fn string(&mut self) -> String {
        let length = self.varint() as usize;
        let (head, rest) = self.0.split_at(length);
        self.0 = rest;
        String::from_utf8(head.to_vec()).expect("strings are UTF-8")
    }

    fn column(&mut self, kind: &str, rows: usize) -> Vec<Value> {
        if let Some(kind) = inside(kind, "Nullable(") {
            let nulls: Vec<bool> = (0..rows).map(|_| self.bytes() == [1]).collect();
            let values = self.column(kind, rows);
            return nulls
                .iter()
                .zip(values)
                .map(|(null, value)| if *null { Value::Null } else { value })
                .collect();
        }
        if let Some(kind) = inside(kind, "LowCardinality(") {
            return self.dictionary(kind, rows);
        }
        if let Some(kind) = inside(kind, "Array(") {
            let ends: Vec<usize> = (0..rows)
                .map(|_| u64::from_le_bytes(self.bytes()) as usize)
                .collect();
            let mut elements = self
                .column(kind, ends.last().copied().unwrap_or(0))
                .into_iter();
            let mut start = 0;
            return ends
                .iter()
                .map(|end| {
                    let length = end - std::mem::replace(&mut start, *end);
                    Value::Array(elements.by_ref().take(length).collect())
                })
                .collect();
        }
        (0..rows).map(|_| self.value(kind)).collect()
    }

    /// Version, flags, keys (the first is null where there can be one), indexes.
    fn dictionary(&mut self, kind: &str, rows: usize) -> Vec<Value> {
        if rows == 0 {
            return Vec::new();
        }
        assert_eq!(u64::from_le_bytes(self.bytes()), 1, "version");
        let flags = u64::from_le_bytes(self.bytes());
        assert_eq!(flags >> 8, 0b110, "keys of the block's own, and no others");
        let count = u64::from_le_bytes(self.bytes()) as usize;
        let mut keys = self.column(inside(kind, "Nullable(").unwrap_or(kind), count);
        if kind.starts_with("Nullable(") {
            keys[0] = Value::Null;
        }
        assert_eq!(u64::from_le_bytes(self.bytes()), rows as u64, "rows");
        let index = |reader: &mut Self| match flags & 0xff {
            0 => usize::from(u8::from_le_bytes(reader.bytes())),
            1 => usize::from(u16::from_le_bytes(reader.bytes())),
            2 => u32::from_le_bytes(reader.bytes()) as usize,
            other => panic!("indexes of kind {other}"),
        };
        (0..rows).map(|_| keys[index(self)].clone()).collect()
    }

    fn value(&mut self, kind: &str) -> Value {
        match kind {
            "String" => json!(self.string()),
            "UUID" => {
                let high = u64::from_le_bytes(self.bytes());
                let low = u64::from_le_bytes(self.bytes());
                json!(Uuid::from_u64_pair(high, low).to_string())
            }
            "DateTime64(3, 'UTC')" => {
                let at_ms = i64::from_le_bytes(self.bytes());
                let at = jiff::Timestamp::from_millisecond(at_ms).expect("a time of some year");
                json!(format!("{at:.3}"))
            }
            "Bool" => json!(self.bytes() == [1]),
            "UInt8" => json!(u8::from_le_bytes(self.bytes())),
            "UInt16" => json!(u16::from_le_bytes(self.bytes())),
            "UInt32" => json!(u32::from_le_bytes(self.bytes())),
            "UInt64" => json!(u64::from_le_bytes(self.bytes())),
            "Int32" => json!(i32::from_le_bytes(self.bytes())),
            "Int64" => json!(i64::from_le_bytes(self.bytes())),
            // In the shortest form that reads back as the same number.
            "Float32" => {
                let value = f32::from_le_bytes(self.bytes()).to_string();
                json!(value.parse::<f64>().expect("a number"))
            }
            "Float64" => json!(f64::from_le_bytes(self.bytes())),
            _ => panic!("no reader for the type {kind}"),
        }
    }
}

fn inside<'a>(kind: &'a str, outer: &str) -> Option<&'a str> {
    kind.strip_prefix(outer)?.strip_suffix(')')
}
