//! How far back a group is to be rewound, as people write it. Pure.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;

/// How far back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum To {
    /// All that Kafka still has.
    Beginning,
    /// All that Kafka took since then, by the brokers' clock.
    Time(Timestamp),
    /// These partitions from these offsets on; others keep their place.
    Offsets(Vec<PartitionOffset>),
}

/// An offset of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionOffset {
    /// The topic, as it was written: with or without the prefix.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
}

/// What was written is nothing of all that.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is neither `beginning`, nor a time (2026-11-22T08:00:00Z, or how long ago: 2h), nor offsets (clicks/0=1234,clicks/1=777)"
)]
pub struct NotAPlace(String);

impl To {
    /// Reads what a person wrote at `now`.
    ///
    /// # Errors
    /// [`NotAPlace`]
    pub fn parse(text: &str, now: Timestamp) -> Result<Self, NotAPlace> {
        let not_a_place = || NotAPlace(text.to_owned());
        if text == "beginning" {
            return Ok(To::Beginning);
        }
        if text.contains('=') {
            let offsets = text.split(',').map(partition_offset);
            let offsets = offsets.collect::<Option<Vec<_>>>();
            return offsets.map(To::Offsets).ok_or_else(not_a_place);
        }
        if let Ok(at) = text.parse() {
            return Ok(To::Time(at));
        }
        let ago = humantime::parse_duration(text).map_err(|_| not_a_place())?;
        let ago = jiff::SignedDuration::try_from(ago).map_err(|_| not_a_place())?;
        now.checked_sub(ago)
            .map(To::Time)
            .map_err(|_| not_a_place())
    }
}

fn partition_offset(text: &str) -> Option<PartitionOffset> {
    let (place, offset) = text.trim().split_once('=')?;
    let (topic, partition) = place.rsplit_once('/')?;
    Some(PartitionOffset {
        topic: topic.to_owned(),
        partition: partition.parse().ok().filter(|partition| *partition >= 0)?,
        offset: offset.parse().ok().filter(|offset| *offset >= 0)?,
    })
}

impl FromStr for To {
    type Err = NotAPlace;

    fn from_str(text: &str) -> Result<Self, NotAPlace> {
        Self::parse(text, Timestamp::now())
    }
}

/// Reads back as the same, whenever that is done.
impl fmt::Display for To {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            To::Beginning => f.write_str("beginning"),
            To::Time(at) => write!(f, "{at}"),
            To::Offsets(offsets) => {
                for (index, at) in offsets.iter().enumerate() {
                    let comma = if index == 0 { "" } else { "," };
                    write!(f, "{comma}{}/{}={}", at.topic, at.partition, at.offset)?;
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn now() -> Timestamp {
        Timestamp::from_second(1_790_000_000).unwrap()
    }

    #[test]
    fn a_time_is_an_instant_or_how_long_ago() {
        let at = "2026-09-21T13:33:20Z".parse().unwrap();
        assert_eq!(
            To::parse("2026-09-21T15:33:20+02:00", now()),
            Ok(To::Time(at))
        );
        let two_hours = now() - jiff::SignedDuration::from_hours(2);
        assert_eq!(To::parse("2h", now()), Ok(To::Time(two_hours)));
    }

    #[test]
    fn offsets_name_topic_and_partition() {
        let expected = [("clicks", 0, 1234), ("activity.watches", 1, 777)].map(
            |(topic, partition, offset)| PartitionOffset {
                topic: topic.to_owned(),
                partition,
                offset,
            },
        );
        assert_eq!(
            To::parse("clicks/0=1234, activity.watches/1=777", now()),
            Ok(To::Offsets(expected.to_vec()))
        );
    }

    #[test]
    fn anything_else_is_refused_in_words() {
        for text in [
            "",
            "start",
            "clicks=1",
            "clicks/x=1",
            "clicks/0=-1",
            "clicks/0=1,",
            "-2h",
            "clicks/-1=0",
            "99999999999y",
        ] {
            let error = To::parse(text, now()).unwrap_err();
            assert!(error.to_string().contains("beginning"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_remembered_means_the_same_later(text in "beginning|[0-9]{1,3}(s|min|h|d)|([a-z.]{1,9}/[0-9]{1,3}=[0-9]{1,9},){0,3}[a-z]{1,9}/[0-9]{1,3}=[0-9]{1,9}") {
            let to = To::parse(&text, now()).unwrap();
            let later = now() + jiff::SignedDuration::from_hours(5);
            prop_assert_eq!(To::parse(&to.to_string(), later), Ok(to));
        }

        #[test]
        fn nothing_that_is_written_panics(text in ".{0,40}") {
            let _ = To::parse(&text, now());
        }
    }
}
