//! The list of groups. To add one: a file here, its `mod` line and its line in [`GROUPS`], and a migration in `schemas/clickhouse` for its tables.

use crate::{Group, Millis, Reject};

pub mod analytics;
pub mod fraud;
pub mod recommendation;
pub mod truth;

/// Every consumer group there is. No second list of groups anywhere.
pub const GROUPS: &[Group] = &[
    Group::of::<analytics::Analytics>(),
    Group::of::<recommendation::Recommendation>(),
    Group::of::<fraud::Fraud>(),
    Group::of::<truth::Truth>(),
];

/// 1900-01-01T00:00:00.000Z in milliseconds since 1970: the earliest time that ClickHouse's DateTime64 holds.
const EARLIEST_MS: i64 = -2_208_988_800_000;
/// 2299-12-31T23:59:59.999Z in milliseconds since 1970: the latest time that ClickHouse's DateTime64 holds.
const LATEST_MS: i64 = 10_413_791_999_999;

/// An event's id, which is a UUID in every version of every schema.
///
/// # Errors
/// A reject that says what it is instead.
pub fn event_id(text: &str) -> Result<uuid::Uuid, Reject> {
    uuid::Uuid::try_parse(text).map_err(|error| {
        Reject::new(
            "invalid_event_id",
            format!("{text:?} is not a UUID: {error}"),
        )
    })
}

/// A time of an event, milliseconds since 1970. One that ClickHouse cannot hold would be stored as another time without a word.
///
/// # Errors
/// A reject that names the field.
pub fn time(field: &str, at_ms: i64) -> Result<Millis, Reject> {
    if (EARLIEST_MS..=LATEST_MS).contains(&at_ms) {
        Ok(Millis(at_ms))
    } else {
        Err(Reject::new(
            "time_out_of_range",
            format!(
                "{field} is {at_ms} ms since 1970, outside of the years 1900 to 2299 that a table can hold"
            ),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_taken_up_to_the_last_millisecond_that_a_table_holds() {
        assert_eq!(time("occurred_at", LATEST_MS), Ok(Millis(LATEST_MS)));
        assert_eq!(time("occurred_at", EARLIEST_MS), Ok(Millis(EARLIEST_MS)));
        for beyond in [LATEST_MS + 1, EARLIEST_MS - 1, i64::MAX, i64::MIN] {
            assert_eq!(
                time("occurred_at", beyond).map_err(|reject| reject.reason),
                Err("time_out_of_range")
            );
        }
    }

    #[test]
    fn an_event_id_that_is_no_uuid_is_rejected_by_name() {
        assert_eq!(
            event_id("ml-1").map_err(|reject| reject.reason),
            Err("invalid_event_id")
        );
    }
}
