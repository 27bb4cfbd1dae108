//! Headers of a Kafka message, by name and by place: names may come twice, and what stands at the front of a dead letter or a resubmitted message is ours.

use activity_consumers::Headers;

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
        let header = self.0?.try_get(place)?;
        Some((header.key, header.value))
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
fn first_of<'a, H: MessageHeaders + ?Sized>(
    headers: &'a H,
    from: usize,
    name: &str,
) -> Option<&'a [u8]> {
    (from..)
        .map_while(|place| headers.at(place))
        .find(|(key, _)| *key == name)?
        .1
}
