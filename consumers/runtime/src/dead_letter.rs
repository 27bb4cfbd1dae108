//! The form of a dead letter in Kafka, both ways. Pure.
//!
//! Key: `group/topic/partition/offset`, so that one which is written again after a crash is known as the same. Value: the message's bytes. Headers: always the
//! nine of [`NAMES`], in that order, then the message's own headers as they were, duplicates included: a header of the message that bears one of our names
//! stands behind ours and cannot be taken for it.
//!
//! A message that is larger than [`DEAD_LETTER_BYTES_MAX`] (Kafka's limits hold for compressed batches, so that there can be one) is cut, and says so.

use activity_consumers::Reject;
use rdkafka::message::{Header, OwnedHeaders};

use crate::batch::DeadLetter;
use crate::delivery::BatchSource;
use crate::headers::MessageHeaders;
use crate::lane::Message;

/// Largest dead letter that is written, with all its headers: four times what Kafka takes as a message by default.
pub const DEAD_LETTER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// What the topics of dead letters and resubmits must take: a letter, the framing of its batch, and the headers that resubmissions add.
pub const TOPIC_BYTES_MAX: usize = DEAD_LETTER_BYTES_MAX + 256 * 1024;
/// Longest text of an error.
const ERROR_BYTES_MAX: usize = 2048;
/// What our headers, the letter's key and Kafka's framing take at most, without the message's key.
const OURS_BYTES_MAX: usize = ERROR_BYTES_MAX + 2048;
/// What Kafka's framing of one header takes at most.
const HEADER_FRAMING_BYTES_MAX: usize = 16;

/// Our headers, in their order.
pub const NAMES: [&str; 9] = [
    "dead-letter-reason",
    "dead-letter-error",
    "dead-letter-topic",
    "dead-letter-partition",
    "dead-letter-offset",
    "dead-letter-appended-at-ms",
    "dead-letter-epoch",
    "dead-letter-key",
    "dead-letter-cut",
];

/// The topic of a group's dead letters, without prefix.
pub fn dead_letter_topic(group: &str) -> String {
    format!("dead-letters.{group}")
}

/// What our headers say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter<'a> {
    /// One word of few.
    pub reason: &'a str,
    /// What exactly is wrong.
    pub error: &'a str,
    /// Full name of the topic that the message was read from.
    pub topic: &'a str,
    /// Its partition there.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
    /// When the broker appended it there, milliseconds since 1970-01-01 UTC.
    pub appended_at_ms: i64,
    /// Epoch of the group that rejected it.
    pub epoch: u32,
    /// The message's key.
    pub key: Option<&'a [u8]>,
    /// What the message had before it was cut; None: it is whole.
    pub cut: Option<Cut>,
}

/// What a message had before it was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Cut {
    /// Bytes of its value.
    pub payload_bytes: usize,
    /// Bytes of its key.
    pub key_bytes: usize,
    /// Number of its headers.
    pub headers: usize,
}

impl<'a> Letter<'a> {
    /// Reads our headers; None where a message is not a dead letter of this form.
    pub fn parse(headers: &'a dyn MessageHeaders) -> Option<Self> {
        let value = |place: usize| {
            let (name, value) = headers.at(place)?;
            (name == NAMES[place]).then_some(value)
        };
        let text = |place: usize| std::str::from_utf8(value(place)??).ok();
        let cut = match value(8)? {
            None => None,
            Some(bytes) => Some(Cut::parse(bytes)?),
        };
        Some(Self {
            reason: text(0)?,
            error: text(1)?,
            topic: text(2)?,
            partition: text(3)?.parse().ok()?,
            offset: text(4)?.parse().ok()?,
            appended_at_ms: text(5)?.parse().ok()?,
            epoch: text(6)?.parse().ok()?,
            key: value(7)?,
            cut,
        })
    }

    /// Its key in the topic of dead letters.
    pub fn letter_key(&self, group: &str) -> String {
        letter_key(group, self.topic, self.partition, self.offset)
    }
}

impl Cut {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut parts = std::str::from_utf8(bytes).ok()?.split(';');
        let mut number = || parts.next()?.parse().ok();
        Some(Self {
            payload_bytes: number()?,
            key_bytes: number()?,
            headers: number()?,
        })
    }
}

/// The key of a dead letter.
pub fn letter_key(group: &str, topic: &str, partition: i32, offset: i64) -> String {
    format!("{group}/{topic}/{partition}/{offset}")
}

/// A message that is not taken, as it waits to be written. It is counted against the limits on memory: what could not be written is not kept.
pub(crate) fn of(message: &Message<'_>, reject: Reject) -> DeadLetter {
    let kept = |payload: &[u8]| payload[..payload.len().min(DEAD_LETTER_BYTES_MAX)].to_vec();
    DeadLetter {
        offset: message.offset,
        appended_at_ms: message.appended_at_ms,
        reason: reject.reason,
        error: reject.detail,
        key: message.key.map(<[u8]>::to_vec),
        payload: message.payload.map(kept),
        payload_bytes: message.payload.map_or(0, <[u8]>::len),
        headers: message.headers.copied_from(0),
    }
}

/// A dead letter as it is written, but for its key.
pub(crate) struct Written<'a> {
    /// Our headers and the message's own.
    pub headers: OwnedHeaders,
    /// The message's bytes, or the beginning of them.
    pub payload: Option<&'a [u8]>,
}

/// The form of a dead letter in Kafka.
pub(crate) fn write<'a>(letter: &'a DeadLetter, source: BatchSource<'_>) -> Written<'a> {
    let fit = fit(letter, DEAD_LETTER_BYTES_MAX - OURS_BYTES_MAX);
    let text = [
        letter.reason.to_owned(),
        beginning(&letter.error, ERROR_BYTES_MAX).to_owned(),
        source.topic.to_owned(),
        source.partition.to_string(),
        letter.offset.to_string(),
        letter.appended_at_ms.to_string(),
        source.epoch.to_string(),
    ];
    let cut = fit
        .cut
        .map(|cut| format!("{};{};{}", cut.payload_bytes, cut.key_bytes, cut.headers));
    let ours = text
        .iter()
        .map(|text| Some(text.as_bytes()))
        .chain([fit.key, cut.as_ref().map(String::as_bytes)]);
    let own = fit
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_deref()));
    let headers = NAMES
        .into_iter()
        .zip(ours)
        .chain(own)
        .fold(OwnedHeaders::new(), |headers, (key, value)| {
            headers.insert(Header { key, value })
        });
    Written {
        headers,
        payload: fit.payload,
    }
}

/// What of a message is written.
#[derive(Debug, PartialEq, Eq)]
struct Fit<'a> {
    key: Option<&'a [u8]>,
    payload: Option<&'a [u8]>,
    headers: &'a [(String, Option<Vec<u8>>)],
    cut: Option<Cut>,
}

/// As much of a message as fits: all of it; else its key up to a quarter, all of its headers if they stay below half, and its value's beginning in the rest.
fn fit(letter: &DeadLetter, bytes_max: usize) -> Fit<'_> {
    let (key, payload) = (letter.key.as_deref(), letter.payload.as_deref());
    let (key_bytes, payload_bytes) = (key.map_or(0, <[u8]>::len), letter.payload_bytes);
    let header_bytes: usize = letter
        .headers
        .iter()
        .map(|(name, value)| {
            name.len() + value.as_ref().map_or(0, Vec::len) + HEADER_FRAMING_BYTES_MAX
        })
        .sum();
    if key_bytes + payload_bytes + header_bytes <= bytes_max {
        return Fit {
            key,
            payload,
            headers: &letter.headers,
            cut: None,
        };
    }
    let cut = Cut {
        payload_bytes,
        key_bytes,
        headers: letter.headers.len(),
    };
    let key = key.map(|key| &key[..key.len().min(bytes_max / 4)]);
    let keeps_headers = header_bytes <= bytes_max / 2;
    let headers = if keeps_headers {
        &letter.headers[..]
    } else {
        &[]
    };
    let rest =
        bytes_max - key.map_or(0, <[u8]>::len) - if keeps_headers { header_bytes } else { 0 };
    Fit {
        key,
        payload: payload.map(|payload| &payload[..payload.len().min(rest)]),
        headers,
        cut: Some(cut),
    }
}

/// The beginning of a text, cut between two characters.
fn beginning(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::headers::KafkaHeaders;
    use proptest::prelude::*;

    const SOURCE: BatchSource<'_> = BatchSource {
        topic: "activity.clicks",
        partition: 3,
        epoch: 7,
    };

    fn letter(
        key: Option<Vec<u8>>,
        payload: Option<Vec<u8>>,
        headers: Vec<(String, Option<Vec<u8>>)>,
    ) -> DeadLetter {
        DeadLetter {
            offset: 42,
            appended_at_ms: 1_700_000_000_000,
            reason: "truncated",
            error: "the datum ends too early".to_owned(),
            key,
            payload_bytes: payload.as_ref().map_or(0, Vec::len),
            payload,
            headers,
        }
    }

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(any::<u8>(), 0..40)
    }

    /// Headers, some of which bear our names.
    fn headers() -> impl Strategy<Value = Vec<(String, Option<Vec<u8>>)>> {
        let name = prop_oneof![
            "[a-z-]{0,12}",
            prop::sample::select(&NAMES[..]).prop_map(str::to_owned)
        ];
        prop::collection::vec((name, prop::option::of(bytes())), 0..12)
    }

    proptest! {
        #[test]
        fn a_message_comes_back_as_it_was_whatever_its_headers_are_called(
            key in prop::option::of(bytes()), payload in prop::option::of(bytes()), headers in headers(),
        ) {
            let letter = letter(key, payload, headers);
            let written = write(&letter, SOURCE);
            let read = KafkaHeaders(Some(&written.headers));
            let parsed = Letter::parse(&read).unwrap();
            prop_assert_eq!(parsed.key, letter.key.as_deref());
            prop_assert_eq!(written.payload, letter.payload.as_deref());
            prop_assert_eq!(read.copied_from(NAMES.len()), letter.headers.clone());
            prop_assert_eq!((parsed.topic, parsed.partition, parsed.offset, parsed.epoch), (SOURCE.topic, 3, 42, 7));
            prop_assert_eq!((parsed.reason, parsed.error, parsed.cut), ("truncated", letter.error.as_str(), None));
            prop_assert_eq!(parsed.letter_key("analytics"), "analytics/activity.clicks/3/42");
        }

        #[test]
        fn what_is_written_never_passes_the_limit_and_is_only_cut_where_it_must(
            key in prop::option::of(bytes()), payload in prop::option::of(bytes()), headers in headers(), limit in 0_usize..400,
        ) {
            let letter = letter(key, payload, headers);
            let fit = fit(&letter, limit);
            let of_headers = |headers: &[(String, Option<Vec<u8>>)]| headers.iter()
                .map(|(name, value)| name.len() + value.as_ref().map_or(0, Vec::len) + HEADER_FRAMING_BYTES_MAX).sum::<usize>();
            let bytes = |part: Option<&[u8]>| part.map_or(0, <[u8]>::len);
            prop_assert!(bytes(fit.key) + bytes(fit.payload) + of_headers(fit.headers) <= limit);
            let whole = bytes(letter.key.as_deref()) + bytes(letter.payload.as_deref()) + of_headers(&letter.headers);
            prop_assert_eq!(fit.cut.is_none(), whole <= limit);
            prop_assert_eq!(fit.payload.is_none(), letter.payload.is_none());
        }
    }

    #[test]
    fn a_message_that_is_too_large_says_how_large_it_was() {
        let headers = OwnedHeaders::new().insert(Header {
            key: "h",
            value: None::<&[u8]>,
        });
        let payload = vec![1; 9_000_000];
        let message = Message {
            offset: 42,
            appended_at_ms: 1_700_000_000_000,
            key: None,
            payload: Some(&payload),
            headers: &KafkaHeaders(Some(&headers)),
        };
        let letter = of(
            &message,
            Reject::new("truncated", "the datum ends too early"),
        );
        let kept = letter.payload.as_ref().map(Vec::len);
        assert_eq!(kept, Some(DEAD_LETTER_BYTES_MAX));
        let written = write(&letter, SOURCE);
        let read = KafkaHeaders(Some(&written.headers));
        let cut = Letter::parse(&read).unwrap().cut.unwrap();
        assert_eq!(
            (cut.payload_bytes, cut.key_bytes, cut.headers),
            (9_000_000, 0, 1)
        );
        assert!(written.payload.unwrap().len() < DEAD_LETTER_BYTES_MAX);
        assert_eq!(read.copied_from(NAMES.len()), letter.headers);
    }

    #[test]
    fn an_error_is_cut_between_characters() {
        assert_eq!(beginning("aäöü", 4), "aä");
        assert_eq!(beginning("short", 2048), "short");
    }

    #[test]
    fn a_message_without_our_headers_is_not_a_dead_letter() {
        let headers = OwnedHeaders::new().insert(Header {
            key: "dead-letter-reason",
            value: Some("truncated"),
        });
        assert_eq!(Letter::parse(&KafkaHeaders(Some(&headers))), None);
        assert_eq!(Letter::parse(&KafkaHeaders::<OwnedHeaders>(None)), None);
    }
}
