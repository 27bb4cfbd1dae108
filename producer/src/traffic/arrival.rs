//! When people come: by the hour of the day and the day of the week, where they live.
//!
//! Time zones are fixed offsets without daylight saving time. All in integers; a level is in thousandths of the mean over a week.

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// How many are there at each hour of the local day: few at night, a plateau over the day, a peak in the evening.
const HOURS: [i64; 24] = [
    45, 28, 18, 13, 12, 16, 28, 48, 66, 78, 84, 88, 96, 95, 92, 93, 98, 112, 132, 158, 176, 172,
    132, 80,
];
/// From Monday on.
const WEEKDAYS: [i64; 7] = [92, 91, 93, 95, 103, 116, 110];

/// The highest level of any hour.
pub(crate) const LEVEL_MAX: i64 = 2_500;

/// Hours since Monday 00:00, and milliseconds into the hour, of a moment that is local already.
fn hour_of_week(local_ms: i64) -> (usize, i64) {
    // 1970 began on a Thursday.
    let since_monday_ms = (local_ms + 3 * DAY_MS).rem_euclid(7 * DAY_MS);
    (
        (since_monday_ms / HOUR_MS) as usize,
        since_monday_ms % HOUR_MS,
    )
}

fn level_of_hour(hour_of_week: usize) -> i64 {
    let hours: i64 = HOURS.iter().sum();
    let weekdays: i64 = WEEKDAYS.iter().sum();
    let weight = HOURS[hour_of_week % 24] * WEEKDAYS[hour_of_week / 24 % 7];
    weight * 1000 * 24 * 7 / (hours * weekdays)
}

/// How many come at this local moment, in thousandths of the mean; it changes evenly from the middle of an hour to the middle of the next.
pub(crate) fn level(local_ms: i64) -> i64 {
    let (hour, into_ms) = hour_of_week(local_ms - HOUR_MS / 2);
    let (this, next) = (level_of_hour(hour), level_of_hour((hour + 1) % 168));
    this + (next - this) * into_ms / HOUR_MS
}

/// What part of the local week it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PartOfWeek {
    /// 9 to 17, Monday to Friday.
    OfficeHours,
    /// From 18 to midnight.
    Evening,
    /// Any other time.
    Other,
}

pub(crate) fn part_of_week(local_ms: i64) -> PartOfWeek {
    let (hour, _) = hour_of_week(local_ms);
    let (day, hour) = (hour / 24, hour % 24);
    if day < 5 && (9..17).contains(&hour) {
        PartOfWeek::OfficeHours
    } else if hour >= 18 {
        PartOfWeek::Evening
    } else {
        PartOfWeek::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Monday, 5 January 2026, 00:00.
    const MONDAY_MS: i64 = 1_767_571_200_000;

    #[test]
    fn a_week_has_the_mean_level() {
        let total: i64 = (0..7 * 24 * 60)
            .map(|minute| level(MONDAY_MS + minute * 60_000))
            .sum();
        let mean = total / (7 * 24 * 60);
        assert!((990..=1000).contains(&mean), "{mean}");
    }

    #[test]
    fn evenings_are_busier_than_nights_and_saturdays_busier_than_tuesdays() {
        let at = |day: i64, hour: i64| level(MONDAY_MS + day * DAY_MS + hour * HOUR_MS);
        assert!(at(0, 20) > 8 * at(0, 4));
        assert!(at(5, 20) > at(1, 20));
        assert!((0..168).all(|hour| at(0, hour) < LEVEL_MAX));
    }

    #[test]
    fn monday_morning_is_office_hours_and_sunday_morning_is_not() {
        let at = |day: i64, hour: i64| part_of_week(MONDAY_MS + day * DAY_MS + hour * HOUR_MS);
        assert_eq!(at(0, 10), PartOfWeek::OfficeHours);
        assert_eq!(at(6, 10), PartOfWeek::Other);
        assert_eq!(at(2, 21), PartOfWeek::Evening);
    }
}
