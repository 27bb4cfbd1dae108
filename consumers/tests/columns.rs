//! Columns against a reader that knows nothing of them: whatever rows go in come out of the Native block, and rows of an event that is taken back do not.

#![allow(clippy::expect_used, reason = "helpers of tests")]

mod support;

use activity_consumers::{LowCardinality, Millis, Origin, Output, Row};
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use uuid::Uuid;

activity_consumers::rows! {
    /// One column of each shape and element.
    struct Mixed<'a> in "mixed" {
        text: &'a str,
        maybe_text: Option<&'a str>,
        texts: &'a [&'a str],
        symbol: LowCardinality<&'a str>,
        maybe_symbol: LowCardinality<Option<&'a str>>,
        id: Uuid,
        maybe_id: Option<Uuid>,
        at: Millis,
        maybe_at: Option<Millis>,
        yes: bool,
        tiny: u8,
        short: u16,
        word: Option<u32>,
        long: u64,
        signed: i32,
        maybe_signed: Option<i64>,
        single: f32,
        singles: &'a [f32],
        double: f64,
        longs: &'a [u64],
    }
}

#[derive(Clone, Debug)]
struct Sample {
    text: String,
    maybe_text: Option<String>,
    texts: Vec<String>,
    id: u128,
    number: u64,
    maybe_number: Option<i64>,
    numbers: Vec<u16>,
}

fn samples() -> impl Strategy<Value = Vec<(Sample, bool)>> {
    // Around 128 bytes a length takes a second byte.
    let text = || prop_oneof![".{0,4}", "é{60,70}", "[a-z]{120,140}"];
    let sample = (
        text(),
        prop::option::of(text()),
        prop::collection::vec(text(), 0..4),
        any::<u128>(),
        any::<u64>(),
        prop::option::of(any::<i64>()),
        prop::collection::vec(any::<u16>(), 0..5),
    )
        .prop_map(
            |(text, maybe_text, texts, id, number, maybe_number, numbers)| Sample {
                text,
                maybe_text,
                texts,
                id,
                number,
                maybe_number,
                numbers,
            },
        );
    prop::collection::vec((sample, prop::bool::weighted(0.8)), 0..40)
}

impl Sample {
    fn insert(&self, out: &mut Output) {
        let texts: Vec<&str> = self.texts.iter().map(String::as_str).collect();
        let singles: Vec<f32> = self
            .numbers
            .iter()
            .map(|number| f32::from(*number))
            .collect();
        let longs: Vec<u64> = self
            .numbers
            .iter()
            .map(|number| u64::from(*number))
            .collect();
        out.insert(&Mixed {
            text: &self.text,
            maybe_text: self.maybe_text.as_deref(),
            texts: &texts,
            symbol: LowCardinality(&self.text),
            maybe_symbol: LowCardinality(self.maybe_text.as_deref()),
            id: Uuid::from_u128(self.id),
            maybe_id: self.maybe_number.map(|_| Uuid::from_u128(self.id)),
            at: Millis(self.number as u32 as i64),
            maybe_at: self.maybe_number.map(|number| Millis(number as i32 as i64)),
            yes: self.number % 2 == 1,
            tiny: self.number as u8,
            short: self.number as u16,
            word: self.maybe_number.map(|number| number as u32),
            long: self.number,
            signed: self.number as i32,
            maybe_signed: self.maybe_number,
            single: self.number as u8 as f32,
            singles: &singles,
            double: self.number as f64,
            longs: &longs,
        });
    }

    fn expected(&self) -> Map<String, Value> {
        let time = |at_ms: i64| {
            let at = jiff::Timestamp::from_millisecond(at_ms).expect("a time of some year");
            format!("{at:.3}")
        };
        let id = Uuid::from_u128(self.id).to_string();
        let row = json!({
            "text": self.text,
            "maybe_text": self.maybe_text,
            "symbol": self.text,
            "maybe_symbol": self.maybe_text,
            "texts": self.texts,
            "id": id,
            "maybe_id": self.maybe_number.map(|_| id.clone()),
            "at": time(self.number as u32 as i64),
            "maybe_at": self.maybe_number.map(|number| time(number as i32 as i64)),
            "yes": self.number % 2 == 1,
            "tiny": self.number as u8,
            "short": self.number as u16,
            "word": self.maybe_number.map(|number| number as u32),
            "long": self.number,
            "signed": self.number as i32,
            "maybe_signed": self.maybe_number,
            "single": f64::from(self.number as u8),
            "singles": self.numbers.iter().map(|number| f64::from(*number)).collect::<Vec<_>>(),
            "double": self.number as f64,
            "longs": self.numbers,
        });
        match row {
            Value::Object(row) => row,
            _ => Map::new(),
        }
    }
}

proptest! {
    #[test]
    fn what_goes_into_the_columns_comes_out_of_the_block_and_what_is_taken_back_does_not(samples in samples()) {
        let mut out = Output::new(&[Mixed::TABLE]);
        let mut expected = Vec::new();
        for (offset, (sample, taken)) in samples.iter().enumerate() {
            out.begin_event(offset as i64, 5);
            for n in 0..offset % 3 {
                sample.insert(&mut out);
                if *taken {
                    let mut row = sample.expected();
                    row.extend([
                        ("_topic".to_owned(), json!("activity.mixed")),
                        ("_partition".to_owned(), json!(3)),
                        ("_offset".to_owned(), json!(offset)),
                        ("_n".to_owned(), json!(n)),
                        ("_epoch".to_owned(), json!(7)),
                        ("_appended_at".to_owned(), json!("1970-01-01T00:00:00.005Z")),
                    ]);
                    expected.push(row);
                }
            }
            if !taken {
                out.take_back_event();
            }
        }
        let (tables, _) = out.take();
        let origin = Origin { topic: "activity.mixed", partition: 3, epoch: 7 };
        let block = tables[0].native_block(&origin);
        let rows: Vec<Map<String, Value>> = support::native::rows(&block)
            .into_iter()
            .map(Map::from_iter)
            .collect();
        prop_assert_eq!(rows, expected);
        prop_assert_eq!(tables[0].native_block(&origin), block);
        prop_assert_eq!(out.rows(), 0);
    }
}

activity_consumers::rows! {
    /// A column with a dictionary.
    struct Symbol<'a> in "symbols" {
        symbol: LowCardinality<Option<&'a str>>,
    }
}

#[test]
fn a_dictionary_may_have_more_strings_than_a_byte_or_two_can_number() {
    for different in [1, 255, 256, 65_535, 65_536, 70_000] {
        let mut out = Output::new(&[Symbol::TABLE]);
        let symbol = |row: usize| (!row.is_multiple_of(3)).then(|| (row % different).to_string());
        for row in 0..different + 10 {
            out.begin_event(row as i64, 5);
            out.insert(&Symbol {
                symbol: LowCardinality(symbol(row).as_deref()),
            });
        }
        let origin = Origin {
            topic: "activity.symbols",
            partition: 0,
            epoch: 1,
        };
        let block = out.take().0[0].native_block(&origin);
        for (row, found) in support::native::rows(&block).iter().enumerate() {
            let found = support::native::field(found, "symbol");
            assert_eq!(*found, json!(symbol(row)), "row {row} of {different}");
        }
    }
}
