//! Time ranges as Grafana writes them (`now-6h`, `now/d`, milliseconds, ISO 8601) and the interval that a range is cut into.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{RoundMode, Timestamp, ToSpan as _, Unit, Zoned, ZonedRound};
use serde::Serialize;

/// A time that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error(
    "the time {0:?} is none of: now, now-6h, now-1d/d, milliseconds since 1970, 2026-01-31T12:00:00Z"
)]
pub struct TimeError(String);

/// A range, milliseconds since 1970 in UTC, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Range {
    /// From.
    pub from: i64,
    /// To.
    pub to: i64,
}

impl Range {
    /// Reads both ends; `now` also says in which time zone days begin.
    ///
    /// # Errors
    /// If one cannot be read.
    pub fn read(from: &str, to: &str, now: &Zoned) -> Result<Self, TimeError> {
        let from = moment(from, now, false)?;
        let to = moment(to, now, true)?;
        Ok(Self {
            from: from.min(to),
            to: from.max(to),
        })
    }
}

/// One end of a range, milliseconds since 1970; the later end of a rounded unit where it is the range's end.
fn moment(text: &str, now: &Zoned, is_end: bool) -> Result<i64, TimeError> {
    let wrong = || TimeError(text.to_owned());
    let text = text.trim();
    if let Some(rest) = text.strip_prefix("now") {
        let moved = relative(rest, now, is_end).ok_or_else(wrong)?;
        return Ok(moved.timestamp().as_millisecond());
    }
    if let Ok(millis) = text.parse::<i64>() {
        let stamp = Timestamp::from_millisecond(millis).map_err(|_| wrong())?;
        return Ok(stamp.as_millisecond());
    }
    if let Ok(stamp) = text.parse::<Timestamp>() {
        return Ok(stamp.as_millisecond());
    }
    let civil: DateTime = text.parse().map_err(|_| wrong())?;
    let zoned = civil.to_zoned(now.time_zone().clone());
    Ok(zoned.map_err(|_| wrong())?.timestamp().as_millisecond())
}

/// What follows `now`: any number of `-6h`, `+1d`, `/d`.
fn relative(mut rest: &str, now: &Zoned, is_end: bool) -> Option<Zoned> {
    let mut moment = now.clone();
    while let Some(sign) = rest.chars().next() {
        rest = &rest[sign.len_utf8()..];
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let count: i64 = match &rest[..digits] {
            "" => 1,
            digits => digits.parse().ok()?,
        };
        rest = &rest[digits..];
        let unit = rest.chars().next()?;
        rest = &rest[unit.len_utf8()..];
        moment = match sign {
            '-' => moment.checked_sub(span(count, unit)?).ok()?,
            '+' => moment.checked_add(span(count, unit)?).ok()?,
            '/' => rounded(&moment, unit, is_end)?,
            _ => return None,
        };
    }
    Some(moment)
}

fn span(count: i64, unit: char) -> Option<jiff::Span> {
    let zero = jiff::Span::new();
    match unit {
        's' => zero.try_seconds(count),
        'm' => zero.try_minutes(count),
        'h' => zero.try_hours(count),
        'd' => zero.try_days(count),
        'w' => zero.try_weeks(count),
        'M' => zero.try_months(count),
        'y' => zero.try_years(count),
        _ => return None,
    }
    .ok()
}

fn rounded(moment: &Zoned, unit: char, is_end: bool) -> Option<Zoned> {
    let floor = |unit| {
        let round = ZonedRound::new().smallest(unit).mode(RoundMode::Trunc);
        moment.round(round).ok()
    };
    let begin = match unit {
        's' => floor(Unit::Second)?,
        'm' => floor(Unit::Minute)?,
        'h' => floor(Unit::Hour)?,
        'd' => moment.start_of_day().ok()?,
        'w' => {
            let days = i64::from(moment.weekday().to_monday_zero_offset());
            moment.checked_sub(days.days()).ok()?.start_of_day().ok()?
        }
        'M' => moment.first_of_month().ok()?.start_of_day().ok()?,
        'y' => moment.first_of_year().ok()?.start_of_day().ok()?,
        _ => return None,
    };
    if !is_end {
        return Some(begin);
    }
    let next = begin.checked_add(span(1, unit)?).ok()?;
    next.checked_sub(1.millisecond()).ok()
}

/// A duration as Grafana writes it (`30s`, `5m`, `1h`, `250ms`), milliseconds.
pub(crate) fn duration_ms(text: &str) -> Option<i64> {
    let text = text.trim().trim_start_matches('>');
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let count: i64 = text[..digits].parse().ok()?;
    let unit_ms = match &text[digits..] {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "w" => 604_800_000,
        "M" => 2_592_000_000,
        "y" => 31_536_000_000,
        _ => return None,
    };
    count.checked_mul(unit_ms)
}

/// Milliseconds as Grafana writes an interval: in the largest unit that fits without a rest.
pub(crate) fn interval_text(interval_ms: i64) -> String {
    let units = [
        (86_400_000, "d"),
        (3_600_000, "h"),
        (60_000, "m"),
        (1000, "s"),
    ];
    let whole = |(unit_ms, _): &(i64, _)| interval_ms >= *unit_ms && interval_ms % unit_ms == 0;
    match units.into_iter().find(whole) {
        Some((unit_ms, unit)) => format!("{}{unit}", interval_ms / unit_ms),
        None => format!("{interval_ms}ms"),
    }
}

/// The interval for so many points over a range, a round one, milliseconds; never below `min_ms`.
pub(crate) fn interval_ms(range: Range, points: i64, min_ms: i64) -> i64 {
    round_interval((range.to - range.from) / points.max(1)).max(min_ms.max(1))
}

/// The round interval that Grafana takes for one that is not: pairs of the first that is too long for it, and it.
fn round_interval(interval_ms: i64) -> i64 {
    const STEPS: [(i64, i64); 29] = [
        (10, 1),
        (15, 10),
        (35, 20),
        (75, 50),
        (150, 100),
        (350, 200),
        (750, 500),
        (1_500, 1_000),
        (3_500, 2_000),
        (7_500, 5_000),
        (12_500, 10_000),
        (17_500, 15_000),
        (25_000, 20_000),
        (45_000, 30_000),
        (90_000, 60_000),
        (210_000, 120_000),
        (450_000, 300_000),
        (750_000, 600_000),
        (1_050_000, 900_000),
        (1_500_000, 1_200_000),
        (2_700_000, 1_800_000),
        (5_400_000, 3_600_000),
        (9_000_000, 7_200_000),
        (16_200_000, 10_800_000),
        (32_400_000, 21_600_000),
        (86_400_000, 43_200_000),
        (604_800_000, 86_400_000),
        (1_814_400_000, 604_800_000),
        (3_628_800_000, 2_592_000_000),
    ];
    let found = STEPS.iter().find(|(below, _)| interval_ms < *below);
    found.map_or(31_536_000_000, |(_, round)| *round)
}

/// Now, in this time zone (IANA), or in UTC where it is not known here.
pub(crate) fn now_in(zone: Option<&str>) -> Zoned {
    let zone = zone.and_then(|name| TimeZone::get(name).ok());
    Timestamp::now().to_zoned(zone.unwrap_or(TimeZone::UTC))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Zoned {
        "2026-03-11T14:25:36[UTC]".parse().unwrap()
    }

    fn text(millis: i64) -> String {
        Timestamp::from_millisecond(millis).unwrap().to_string()
    }

    #[test]
    fn ranges_are_read_as_grafana_writes_them() {
        let cases = [
            (
                "now-6h",
                "now",
                "2026-03-11T08:25:36Z",
                "2026-03-11T14:25:36Z",
            ),
            (
                "now/d",
                "now/d",
                "2026-03-11T00:00:00Z",
                "2026-03-11T23:59:59.999Z",
            ),
            (
                "now-1d/d",
                "now-1d/d",
                "2026-03-10T00:00:00Z",
                "2026-03-10T23:59:59.999Z",
            ),
            (
                "now/w",
                "now",
                "2026-03-09T00:00:00Z",
                "2026-03-11T14:25:36Z",
            ),
            (
                "now-1M/M",
                "now/y",
                "2026-02-01T00:00:00Z",
                "2026-12-31T23:59:59.999Z",
            ),
            (
                "now-90m",
                "now+5m",
                "2026-03-11T12:55:36Z",
                "2026-03-11T14:30:36Z",
            ),
            ("0", "1000", "1970-01-01T00:00:00Z", "1970-01-01T00:00:01Z"),
            (
                "2026-01-01T00:00:00Z",
                "2026-01-01 01:00:00",
                "2026-01-01T00:00:00Z",
                "2026-01-01T01:00:00Z",
            ),
        ];
        for (from, to, first, last) in cases {
            let range = Range::read(from, to, &now()).unwrap();
            assert_eq!(
                (text(range.from), text(range.to)),
                (first.to_owned(), last.to_owned()),
                "{from} {to}"
            );
        }
    }

    #[test]
    fn days_begin_where_the_reader_is() {
        let now: Zoned = "2026-03-11T00:25:36[Europe/Berlin]".parse().unwrap();
        let range = Range::read("now/d", "now", &now).unwrap();
        assert_eq!(text(range.from), "2026-03-10T23:00:00Z");
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for wrong in [
            "",
            "yesterday",
            "now-",
            "now-6",
            "now-6x",
            "now*6h",
            "now-99999999999999999999h",
            "nowé",
            "now-é",
            "now-1é",
            "99999999999999999",
        ] {
            assert!(Range::read(wrong, "now", &now()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn intervals_are_round() {
        let hours = |hours: i64| Range {
            from: 0,
            to: hours * 3_600_000,
        };
        let of = |range, points, min| interval_text(interval_ms(range, points, min));
        assert_eq!(of(hours(6), 700, 1), "30s");
        assert_eq!(of(hours(1), 3_600, 1), "1s");
        assert_eq!(of(hours(24 * 30), 500, 1), "1h");
        assert_eq!(of(hours(1), 1_000, 60_000), "1m");
        assert_eq!(of(hours(0), 100, 1), "1ms");
        assert_eq!(duration_ms(">10s"), Some(10_000));
        assert_eq!(duration_ms("auto"), None);
    }
}
