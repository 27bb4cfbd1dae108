//! Headers of a Kafka message, by name and by place: names may come twice, and what stands at the front of a dead letter or a resubmitted message is ours.

use activity_consumers::Headers;

use crate::panics::caught;

/// Stands, without a value, for a header whose name is not UTF-8: the Kafka client gives out neither its name nor its value.
pub const UNREADABLE: &str = "unreadable-header-name";

/// Headers that can be looked up by place and copied.
pub trait MessageHeaders: Headers {
    /// Name and value of the header at a place, counted from 0; None behind the last.
    fn at(&self, place: usize) -> Option<(&str, Option<&[u8]>)>;

    /// All headers from a place on, copied, in order.
    fn copied_from(&self, place: usize) -> Vec<(String, Option<Vec<u8>>)> {
        (place..)
            .map_while(|place| self.at(place))
            .map(|(name, value)| (name.to_owned(), value.map(<[u8]>::to_vec)))
            .collect()
    }
}

/// The headers of a message of the Kafka client, if it has any.
pub struct KafkaHeaders<'a, H>(pub Option<&'a H>);

impl<H: rdkafka::message::Headers> Headers for KafkaHeaders<'_, H> {
    fn get(&self, name: &str) -> Option<&[u8]> {
        first_of(self, 0, name)
    }
}

impl<H: rdkafka::message::Headers> MessageHeaders for KafkaHeaders<'_, H> {
    fn at(&self, place: usize) -> Option<(&str, Option<&[u8]>)> {
        header_at(self.0?, place)
    }
}

fn header_at<H: rdkafka::message::Headers>(
    headers: &H,
    place: usize,
) -> Option<(&str, Option<&[u8]>)> {
    // The client panics over a name that is not UTF-8, which anybody may send.
    match caught(|| headers.try_get(place)) {
        Ok(header) => header.map(|header| (header.key, header.value)),
        Err(_) => Some((UNREADABLE, None)),
    }
}

/// The headers from a place on: what the message had before ours were put in front.
pub struct Tail<'a> {
    /// All headers.
    pub headers: &'a dyn MessageHeaders,
    /// Place of the first that counts.
    pub from: usize,
}

impl Headers for Tail<'_> {
    fn get(&self, name: &str) -> Option<&[u8]> {
        first_of(self.headers, self.from, name)
    }
}

/// The value of the first header of that name from a place on.
pub(crate) fn first_of<'a, H: MessageHeaders + ?Sized>(
    headers: &'a H,
    from: usize,
    name: &str,
) -> Option<&'a [u8]> {
    (from..)
        .map_while(|place| headers.at(place))
        .find(|(key, _)| *key == name)?
        .1
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdkafka::message::Header;

    /// The client's headers, of which the second has a name in Latin-1.
    struct Latin1;

    impl rdkafka::message::Headers for Latin1 {
        fn count(&self) -> usize {
            3
        }

        fn try_get(&self, place: usize) -> Option<Header<'_, &[u8]>> {
            let names: [&[u8]; 3] = [b"first", b"gr\xf6\xdfe", b"last"];
            // As the client does it.
            let key = std::str::from_utf8(names.get(place)?).unwrap();
            let value = Some(&b"value"[..]);
            Some(Header { key, value })
        }
    }

    #[test]
    fn a_header_whose_name_is_not_utf_8_hides_no_other_and_ends_nothing() {
        let headers = KafkaHeaders(Some(&Latin1));
        let value = Some(b"value".to_vec());
        let copied = [
            ("first".to_owned(), value.clone()),
            (UNREADABLE.to_owned(), None),
            ("last".to_owned(), value),
        ];
        assert_eq!(headers.copied_from(0), copied);
        assert_eq!(headers.get("last"), Some(&b"value"[..]));
        assert_eq!(headers.get("absent"), None);
    }

    #[test]
    fn a_group_that_panics_after_it_met_such_a_header_is_still_caught() {
        let panicked = caught(|| {
            assert!(KafkaHeaders(Some(&Latin1)).at(1).is_some());
            panic!("after the header")
        });
        let error: String = panicked.map(|()| String::new()).unwrap_err();
        assert!(
            error.contains("after the header") && error.contains("headers.rs"),
            "{error}"
        );
    }
}
