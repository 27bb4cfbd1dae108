//! The events as tables of their fields, in the order of their newest schemas: how they are written, and how what any writer wrote is read.
//!
//! A plan is a decoder made for one writer's schema: one step for each of its fields, in its order, with what the field goes into. It takes the datums that writers of events really send: strings, numbers, enums, and unions of these with null. Whatever else a schema or a datum holds is
//! not taken, and no reason given: serde_avro_fast, which knows all of Avro, then decodes it or says what is wrong. What is taken is the same by both, which a
//! test holds them to.

use apache_avro::Schema;
use apache_avro::schema::{RecordSchema, UuidSchema};

use crate::{ClickEvent, EventKind, WatchAction, WatchEvent};

/// An event that can be written in its newest schema, which has its fields in the same order, and null as the first branch of its unions. Tests hold that.
pub trait Encode {
    /// Which event.
    const KIND: EventKind;
    /// Appends the datum.
    fn write(&self, into: &mut Vec<u8>);
}

/// An event as a table of its fields.
pub(crate) trait Fields: 'static {
    /// The event, borrowed from a message.
    type Of<'a>: Default;
    /// Its fields by name.
    const FIELDS: &'static [Field<Self>];
}

/// One field of an event.
pub(crate) struct Field<E: Fields + ?Sized> {
    name: &'static str,
    is_optional: bool,
    set: Set<E>,
}

/// How a field's value gets into the event.
enum Set<E: Fields + ?Sized> {
    Text(for<'a> fn(&mut E::Of<'a>, &'a str)),
    Number(for<'a> fn(&mut E::Of<'a>, i64)),
    Action(for<'a> fn(&mut E::Of<'a>, WatchAction)),
}

impl<E: Fields + ?Sized> Clone for Set<E> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<E: Fields + ?Sized> Copy for Set<E> {}

/// A table of fields: `required name Kind, optional name Kind, …`.
macro_rules! fields {
    ($event:ident $event_kind:ident: $($need:ident $name:ident $kind:ident),+ $(,)?) => {
        impl Fields for $event<'static> {
            type Of<'a> = $event<'a>;
            const FIELDS: &'static [Field<Self>] = &[$(Field {
                name: stringify!($name),
                is_optional: fields!(@is_optional $need),
                set: Set::$kind(|event, value| event.$name = fields!(@value $need value)),
            }),+];
        }

        impl Encode for $event<'_> {
            const KIND: EventKind = EventKind::$event_kind;

            fn write(&self, into: &mut Vec<u8>) {
                $(fields!(@write $need $kind self.$name, into);)+
            }
        }
    };
    (@write required $kind:ident $value:expr, $into:ident) => { fields!(@put $kind $value, $into) };
    (@write optional $kind:ident $value:expr, $into:ident) => {
        match $value {
            None => $into.push(0),
            Some(value) => {
                // The second branch, in zigzag.
                $into.push(2);
                fields!(@put $kind value, $into);
            }
        }
    };
    (@put Text $value:expr, $into:ident) => { put_text($value, $into) };
    (@put Number $value:expr, $into:ident) => { put_number($value, $into) };
    (@put Action $value:expr, $into:ident) => { put_number($value as i64, $into) };
    (@is_optional required) => { false };
    (@is_optional optional) => { true };
    (@value required $value:ident) => { $value };
    (@value optional $value:ident) => { Some($value) };
}

fields! { ClickEvent Click:
    required event_id Text, required occurred_at Number, required received_at Number, required user_id Text, optional session_id Text,
    optional device_id Text, optional ip Text, optional country Text, optional user_agent Text, optional page Text, optional element Text,
    optional item_id Text, optional referrer Text, optional campaign Text,
}

fields! { WatchEvent Watch:
    required event_id Text, required occurred_at Number, required received_at Number, required user_id Text, optional session_id Text,
    optional device_id Text, optional ip Text, optional country Text, required video_id Text, optional playback_id Text, required action Action,
    optional position_ms Number, optional duration_ms Number, optional rebuffer_ms Number,
}

/// The steps from a datum of one writer to an event.
pub(crate) struct Plan<E: Fields> {
    steps: Vec<Step<E>>,
}

/// One field of the writer.
struct Step<E: Fields> {
    /// Which branch of a union is null; None: the field is no union.
    null_branch: Option<u8>,
    read: Read<E>,
}

enum Read<E: Fields> {
    Text(for<'a> fn(&mut E::Of<'a>, &'a str)),
    Number(for<'a> fn(&mut E::Of<'a>, i64)),
    Action(for<'a> fn(&mut E::Of<'a>, WatchAction), Vec<WatchAction>),
    SkippedText,
    SkippedNumber,
}

impl<E: Fields> Plan<E> {
    /// None: the schema holds something that a plan does not take.
    pub(crate) fn of(writer: &RecordSchema) -> Option<Self> {
        let step = |field: &apache_avro::schema::RecordField| {
            let known = E::FIELDS.iter().find(|known| known.name == field.name);
            let (null_branch, value) = without_null(&field.schema)?;
            let read = match known {
                // Both ways round: a value that cannot be null, and one that must not be.
                Some(known) if known.is_optional != null_branch.is_some() => return None,
                Some(known) => read(known.set, value)?,
                None => skip(value)?,
            };
            Some(Step { null_branch, read })
        };
        let steps = writer.fields.iter().map(step).collect::<Option<_>>()?;
        Some(Self { steps })
    }

    /// None: the datum is malformed, or written in a way that a plan does not take.
    pub(crate) fn decode<'a>(&self, datum: &'a [u8]) -> Option<E::Of<'a>> {
        let (mut event, mut datum) = (E::Of::<'a>::default(), Datum(datum));
        for step in &self.steps {
            if let Some(null_branch) = step.null_branch {
                // Two branches, so that the index is one byte: 0 or 2 in zigzag.
                match datum.byte()? {
                    branch if branch == null_branch << 1 => continue,
                    0 | 2 => (),
                    _ => return None,
                }
            }
            match &step.read {
                Read::Text(set) => set(&mut event, datum.text()?),
                Read::Number(set) => set(&mut event, datum.number()?),
                Read::Action(set, symbols) => {
                    let symbol = usize::try_from(datum.number()?).ok()?;
                    set(&mut event, *symbols.get(symbol)?);
                }
                Read::SkippedText => drop(datum.text()?),
                Read::SkippedNumber => drop(datum.number()?),
            }
        }
        datum.0.is_empty().then_some(event)
    }
}

/// The branch that is null, if the schema is a union of null and one other, and that other; any other union is none of ours.
fn without_null(schema: &Schema) -> Option<(Option<u8>, &Schema)> {
    let Schema::Union(union) = schema else {
        return Some((None, schema));
    };
    match union.variants() {
        [Schema::Null, value] => Some((Some(0), value)),
        [value, Schema::Null] => Some((Some(1), value)),
        _ => None,
    }
}

fn read<E: Fields>(set: Set<E>, value: &Schema) -> Option<Read<E>> {
    match (set, value) {
        (Set::Text(set), Schema::String | Schema::Uuid(UuidSchema::String)) => {
            Some(Read::Text(set))
        }
        (Set::Number(set), Schema::Long | Schema::TimestampMillis) => Some(Read::Number(set)),
        (Set::Action(set), Schema::Enum(written)) => {
            let action = |symbol: &String| {
                let known = WatchAction::ALL.iter();
                known
                    .copied()
                    .find(|action| action.name() == symbol)
                    .unwrap_or_default()
            };
            Some(Read::Action(
                set,
                written.symbols.iter().map(action).collect(),
            ))
        }
        _ => None,
    }
}

/// What the events do not have.
fn skip<E: Fields>(value: &Schema) -> Option<Read<E>> {
    match value {
        Schema::String | Schema::Uuid(UuidSchema::String) => Some(Read::SkippedText),
        Schema::Long | Schema::TimestampMillis | Schema::TimestampMicros => {
            Some(Read::SkippedNumber)
        }
        _ => None,
    }
}

/// A zigzag varint.
fn put_number(number: i64, into: &mut Vec<u8>) {
    let mut rest = (number << 1 ^ number >> 63) as u64;
    while rest >= 0x80 {
        into.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    into.push(rest as u8);
}

fn put_text(text: &str, into: &mut Vec<u8>) {
    put_number(text.len() as i64, into);
    into.extend_from_slice(text.as_bytes());
}

/// What is left of a datum.
struct Datum<'a>(&'a [u8]);

impl<'a> Datum<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// A zigzag varint. Ten bytes can hold more than 64 bits: the last one may say one bit only.
    fn number(&mut self) -> Option<i64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                let fits = shift < 63 || byte <= 1;
                return fits.then_some((value >> 1) as i64 ^ -((value & 1) as i64));
            }
        }
        None
    }

    fn text(&mut self) -> Option<&'a str> {
        let length = usize::try_from(self.number()?).ok()?;
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        utf_8(text)
    }
}

/// Text, where it is UTF-8. Nearly all of it is short and ASCII, which is seen sooner than the standard library has checked it for UTF-8: with some ten
/// texts in a click, a consumer of clicks takes a tenth less time as a whole (`benchmarks catch-up --only-ours`).
#[allow(unsafe_code)]
fn utf_8(bytes: &[u8]) -> Option<&str> {
    if bytes.is_ascii() {
        // SAFETY: ASCII is UTF-8.
        return Some(unsafe { std::str::from_utf8_unchecked(bytes) });
    }
    std::str::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs under Miri, too: `cargo +nightly miri test -p activity-schemas utf_8`.
    #[test]
    fn a_text_is_taken_exactly_where_it_is_utf_8() {
        let long = [b"/pages/".as_slice(), &[b'a'; 90]].concat();
        let broken = [&long, b"\xff".as_slice()].concat();
        let cut = "größe".as_bytes().split_at(3).0;
        let texts: [&[u8]; 5] = [b"", b"DE", &long, "größe".as_bytes(), "日本".as_bytes()];
        for bytes in texts.into_iter().chain([broken.as_slice(), cut, b"\x80"]) {
            assert_eq!(utf_8(bytes), std::str::from_utf8(bytes).ok());
        }
    }
}
