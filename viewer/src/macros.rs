//! The macros of Grafana's ClickHouse data source, expanded to the very text that its backend makes of them.
//!
//! Macros are expanded in the dashboard's own text, before variables: what a reader of a page types is never read as a macro.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::sql::{arguments, without_comments, word_len};
use crate::time::{Range, duration_ms};

const PREFIX: &str = "$__";

/// The macros, as a reader writes them. Names that Grafana itself replaces are among the variables.
pub const MACROS: [&str; 16] = [
    "$__timeFilter(column)",
    "$__timeFilter_ms(column)",
    "$__timeFrom(column)",
    "$__timeTo(column)",
    "$__fromTime",
    "$__toTime",
    "$__fromTime_ms",
    "$__toTime_ms",
    "$__dateFilter(column)",
    "$__dateTimeFilter(dateColumn, timeColumn)",
    "$__dt(dateColumn, timeColumn)",
    "$__timeInterval(column)",
    "$__timeInterval_ms(column)",
    "$__timeGroup(column, interval)",
    "$__interval_s",
    "$__conditionalAll(condition, $variable)",
];

/// A macro that is used wrongly.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum MacroError {
    /// It takes another number of arguments.
    #[error("{name} takes {expected} argument(s), found {found}")]
    Arguments {
        /// The macro.
        name: String,
        /// How many it takes.
        expected: usize,
        /// How many it was given.
        found: usize,
    },
    /// Its interval cannot be read.
    #[error("$__timeGroup: {0:?} is no interval such as 5m")]
    Interval(String),
}

/// What macros are expanded from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MacroContext<'a> {
    pub(crate) range: Range,
    pub(crate) interval_ms: i64,
    /// By variable: whether everything is selected, or nothing is given.
    pub(crate) is_all: &'a BTreeMap<&'a str, bool>,
}

/// Takes comments out and expands macros; those that are not known stay.
///
/// # Errors
/// [`MacroError`]
pub(crate) fn expand(sql: &str, context: &MacroContext<'_>) -> Result<String, MacroError> {
    expand_text(&without_comments(sql), context)
}

fn expand_text(text: &str, context: &MacroContext<'_>) -> Result<String, MacroError> {
    let mut expanded = String::with_capacity(text.len() * 2);
    let mut rest = text;
    while let Some(at) = rest.find(PREFIX) {
        let (before, token) = rest.split_at(at);
        expanded.push_str(before);
        let name_end = PREFIX.len() + word_len(&token[PREFIX.len()..]);
        let (name, behind) = token.split_at(name_end);
        let called = behind.starts_with('(').then(|| arguments(behind)).flatten();
        let (given, behind_call) = called.unwrap_or((Vec::new(), behind));
        let mut inner = Vec::with_capacity(given.len());
        for argument in given {
            inner.push(expand_text(argument, context)?);
        }
        match replacement(name, &inner, context)? {
            Some(replacement) => {
                expanded.push_str(&replacement);
                rest = behind_call;
            }
            None => {
                expanded.push_str(name);
                rest = behind;
            }
        }
    }
    expanded.push_str(rest);
    Ok(expanded)
}

/// None: not a macro of the data source.
fn replacement(
    name: &str,
    arguments: &[String],
    context: &MacroContext<'_>,
) -> Result<Option<String>, MacroError> {
    let MacroContext {
        range, interval_ms, ..
    } = *context;
    let seconds_at = |millis: i64| format!("toDateTime({})", millis.div_euclid(1000));
    let millis_at = |millis: i64| format!("fromUnixTimestamp64Milli({millis})");
    let between = |column: &str, end: &dyn Fn(i64) -> String| {
        let (from, to) = (end(range.from), end(range.to));
        format!("{column} >= {from} AND {column} <= {to}")
    };
    let expect = |expected: usize| match arguments.len() == expected {
        true => Ok(arguments),
        false => Err(MacroError::Arguments {
            name: name.to_owned(),
            expected,
            found: arguments.len(),
        }),
    };
    let interval_s = (interval_ms / 1000).max(1);
    let interval_ms = interval_ms.max(1);
    Ok(Some(match &name[PREFIX.len()..] {
        "fromTime" => seconds_at(range.from),
        "toTime" => seconds_at(range.to),
        "fromTime_ms" => millis_at(range.from),
        "toTime_ms" => millis_at(range.to),
        "timeFilter" => between(&expect(1)?[0], &seconds_at),
        "timeFilter_ms" => between(&expect(1)?[0], &millis_at),
        "timeFrom" => format!("{} >= {}", expect(1)?[0], seconds_at(range.from)),
        "timeTo" => format!("{} <= {}", expect(1)?[0], seconds_at(range.to)),
        "dateFilter" => between(&expect(1)?[0], &date),
        "dateTimeFilter" | "dt" => {
            let columns = expect(2)?;
            let (days, times) = (
                between(&columns[0], &date),
                between(&columns[1], &seconds_at),
            );
            format!("({days}) AND ({times})")
        }
        "timeInterval" => {
            let column = &expect(1)?[0];
            format!("toStartOfInterval(toDateTime({column}), INTERVAL {interval_s} second)")
        }
        "timeInterval_ms" => {
            let column = &expect(1)?[0];
            format!(
                "toStartOfInterval(toDateTime64({column}, 3), INTERVAL {interval_ms} millisecond)"
            )
        }
        "timeGroup" => time_group(expect(2)?)?,
        "interval_s" => interval_s.to_string(),
        "conditionalAll" => conditional(expect(2)?, context),
        _ => return Ok(None),
    }))
}

fn date(millis: i64) -> String {
    let day = Timestamp::from_millisecond(millis).unwrap_or_default();
    format!("toDate('{}')", day.strftime("%Y-%m-%d"))
}

fn time_group(arguments: &[String]) -> Result<String, MacroError> {
    let interval = arguments[1].trim_matches(['\'', '"']);
    let seconds = duration_ms(interval).map(|millis| millis / 1000);
    match seconds {
        Some(seconds) if seconds > 0 => Ok(format!(
            "toStartOfInterval(toDateTime({}), INTERVAL {seconds} second)",
            arguments[0]
        )),
        _ => Err(MacroError::Interval(interval.to_owned())),
    }
}

/// The condition, or what is always true where the variable that it hangs on selects everything.
fn conditional(arguments: &[String], context: &MacroContext<'_>) -> String {
    let variable = arguments[1]
        .trim()
        .trim_start_matches('$')
        .trim_start_matches('{');
    let variable = &variable[..word_len(variable)];
    match context.is_all.get(variable) {
        Some(true) => "1=1".to_owned(),
        _ => arguments[0].clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(sql: &str) -> Result<String, MacroError> {
        let is_all = BTreeMap::from([("country", true), ("group", false)]);
        let context = MacroContext {
            range: Range {
                from: 1_700_000_000_500,
                to: 1_700_003_600_500,
            },
            interval_ms: 30_000,
            is_all: &is_all,
        };
        expand(sql, &context)
    }

    #[test]
    fn each_macro_becomes_what_the_data_source_makes_of_it() {
        let cases = [
            ("$__fromTime", "toDateTime(1700000000)"),
            ("$__toTime", "toDateTime(1700003600)"),
            ("$__fromTime_ms", "fromUnixTimestamp64Milli(1700000000500)"),
            ("$__toTime_ms", "fromUnixTimestamp64Milli(1700003600500)"),
            (
                "$__timeFilter(t)",
                "t >= toDateTime(1700000000) AND t <= toDateTime(1700003600)",
            ),
            (
                "$__timeFilter_ms(f(a, b))",
                "f(a, b) >= fromUnixTimestamp64Milli(1700000000500) AND f(a, b) <= fromUnixTimestamp64Milli(1700003600500)",
            ),
            ("$__timeFrom(t)", "t >= toDateTime(1700000000)"),
            ("$__timeTo(t)", "t <= toDateTime(1700003600)"),
            (
                "$__dateFilter(d)",
                "d >= toDate('2023-11-14') AND d <= toDate('2023-11-14')",
            ),
            (
                "$__dateTimeFilter(d, t)",
                "(d >= toDate('2023-11-14') AND d <= toDate('2023-11-14')) AND (t >= toDateTime(1700000000) AND t <= toDateTime(1700003600))",
            ),
            (
                "$__timeInterval(t)",
                "toStartOfInterval(toDateTime(t), INTERVAL 30 second)",
            ),
            (
                "$__timeInterval_ms(t)",
                "toStartOfInterval(toDateTime64(t, 3), INTERVAL 30000 millisecond)",
            ),
            (
                "$__timeGroup(t, '5m')",
                "toStartOfInterval(toDateTime(t), INTERVAL 300 second)",
            ),
            ("count() / $__interval_s", "count() / 30"),
            (
                "$__conditionalAll(c IN (${country:singlequote}), $country)",
                "1=1",
            ),
            (
                "$__conditionalAll(g IN ($group), ${group})",
                "g IN ($group)",
            ),
            (
                "$__conditionalAll($__timeFrom(t), $group)",
                "t >= toDateTime(1700000000)",
            ),
        ];
        for (sql, expected) in cases {
            assert_eq!(expanded(sql).as_deref(), Ok(expected), "{sql}");
        }
    }

    #[test]
    fn names_of_grafana_itself_and_unknown_ones_stay() {
        for sql in [
            "$__interval",
            "$__interval_ms",
            "${__from}",
            "$__all",
            "$__other(a)",
        ] {
            assert_eq!(expanded(sql).as_deref(), Ok(sql));
        }
    }

    #[test]
    fn a_macro_in_a_comment_is_none() {
        assert_eq!(expanded("1 -- $__timeFilter()\n").as_deref(), Ok("1  \n"));
    }

    #[test]
    fn what_a_macro_was_given_wrongly_is_said() {
        let error = expanded("WHERE $__timeFilter(a, b)").unwrap_err();
        assert_eq!(
            error.to_string(),
            "$__timeFilter takes 1 argument(s), found 2"
        );
        assert!(expanded("$__timeGroup(t, often)").is_err());
    }
}
