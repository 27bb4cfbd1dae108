//! `activity query`: a panel's query by its name, or SQL of one's own, answered as a table or as JSON. It reads only: ClickHouse itself refuses all else.

use activity_platform::advice::clickhouse_code;
use activity_platform::clickhouse::{Database, Error};
use activity_platform::settings::Targets;
use activity_viewer::{Asking, NamedQuery, Reader, ViewError, named_queries};
use anyhow::bail;
use clap::Args;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::Verdict;
use crate::cli::{Output, OutputArgs};
use crate::print;
use crate::verify::Moment;

/// The longest error text that is told.
const ERROR_CHARS_MAX: usize = 300;

/// `activity query`
#[derive(Args, Debug)]
pub struct QueryArgs {
    /// The query of a panel (fraud/top-actors; --list names them all), or SQL: "SELECT count() FROM clicks". Tables are those of the database; macros of
    /// Grafana's ClickHouse data source ($__timeFilter(occurred_at)) stand for the time range.
    #[arg(value_name = "NAME|SQL", required_unless_present = "list")]
    pub query: Option<String>,
    /// Name all queries that stand behind the panels, with the questions that they answer.
    #[arg(long, conflicts_with_all = ["query", "since", "until", "var", "sql"])]
    pub list: bool,
    /// The time range begins then: 2026-01-31T12:00:00Z, or 15m for a quarter of an hour ago. Default: as the dashboard has it, or where its data is if there
    /// is none; for SQL of your own: 24h.
    #[arg(long, value_name = "TIME")]
    pub since: Option<Moment>,
    /// It ends then, in the same forms. Default: now.
    #[arg(long, value_name = "TIME", requires = "since")]
    pub until: Option<Moment>,
    /// A variable of the dashboard: user=u000000001. Several values: name it several times. Default: as the dashboard opens.
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    pub var: Vec<(String, String)>,
    /// Only show the SQL, as ClickHouse would get it.
    #[arg(long)]
    pub sql: bool,
    /// How to print the result.
    #[command(flatten)]
    pub output: OutputArgs,
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("not of the form NAME=VALUE".to_owned()),
    }
}

/// An answer in ClickHouse's format JSONCompact.
#[derive(Deserialize)]
struct Answer {
    meta: Vec<Column>,
    data: Vec<Vec<Value>>,
}

#[derive(Deserialize)]
struct Column {
    name: String,
    r#type: String,
}

/// `activity query`
pub async fn run(args: &QueryArgs, targets: &Targets) -> anyhow::Result<Verdict> {
    let known = named_queries()?;
    let Some(asked) = &args.query else {
        list(args.output, &known)?;
        return Ok(Verdict::Done);
    };
    let reader = Reader::new(Database::new(&targets.clickhouse)?);
    let asking = asking(args);
    let sql = match known.iter().find(|query| query.name == *asked) {
        Some(query) => {
            check_variables(query, &args.var)?;
            reader.sql_of(query, &asking).await
        }
        None if is_name(asked) => bail!(
            "there is no query {asked}{}; `activity query --list` names them all",
            nearest(asked, &known)
        ),
        None => reader.sql(asked, &asking),
    };
    let sql = sql.map_err(in_short)?;
    if args.sql {
        print::result(Output::Table, &(), || sql)?;
        return Ok(Verdict::Done);
    }
    let answer = reader.json(&sql).await.map_err(in_short)?;
    let answer: Answer = serde_json::from_slice(&answer)?;
    print::result(args.output.output, &objects(&answer), || table(&answer))?;
    Ok(Verdict::Done)
}

fn asking(args: &QueryArgs) -> Asking {
    let now_ms = jiff::Timestamp::now().as_millisecond();
    let at = |moment: Option<Moment>| moment.map(|moment| moment.at_ms(now_ms));
    Asking {
        from_ms: at(args.since),
        to_ms: at(args.until),
        values: args.var.clone(),
    }
}

fn check_variables(query: &NamedQuery, given: &[(String, String)]) -> anyhow::Result<()> {
    match given
        .iter()
        .find(|(name, _)| !query.variables.contains(name))
    {
        None => Ok(()),
        Some((name, _)) if query.variables.is_empty() => {
            bail!("{} has no variable {name}; it has none at all", query.name)
        }
        Some((name, _)) => {
            let has = query.variables.join(", ");
            bail!("{} has no variable {name}; it has {has}", query.name)
        }
    }
}

/// One word is no SQL.
fn is_name(text: &str) -> bool {
    !text.trim().contains(char::is_whitespace)
}

/// The query that may have been meant.
fn nearest(asked: &str, known: &[NamedQuery]) -> String {
    let last = asked.rsplit('/').next().unwrap_or(asked);
    let mut like = known
        .iter()
        .filter(|query| query.name.contains(last) && !last.is_empty());
    like.next()
        .map_or(String::new(), |query| format!(" (there is {})", query.name))
}

fn list(output: OutputArgs, known: &[NamedQuery]) -> anyhow::Result<()> {
    print::result(output.output, &known, || {
        let rows = known.iter().map(|query| {
            let variables = query.variables.join(", ");
            vec![query.name.clone(), query.title.clone(), variables]
        });
        print::table(&["name", "question", "variables"], 3, rows)
    })
}

/// A row as an object, for programs.
fn objects(answer: &Answer) -> Vec<Map<String, Value>> {
    let object = |row: &Vec<Value>| {
        let names = answer.meta.iter().map(|column| column.name.clone());
        names.zip(row.iter().cloned()).collect()
    };
    answer.data.iter().map(object).collect()
}

fn table(answer: &Answer) -> String {
    let header: Vec<&str> = answer
        .meta
        .iter()
        .map(|column| column.name.as_str())
        .collect();
    let is_number: Vec<bool> = answer
        .meta
        .iter()
        .map(|column| is_number(&column.r#type))
        .collect();
    let rows = answer.data.iter().map(|row| row.iter().map(cell).collect());
    print::columns(&header, &is_number, rows)
}

fn is_number(r#type: &str) -> bool {
    let inner = r#type
        .trim_start_matches("Nullable(")
        .trim_start_matches("LowCardinality(");
    ["Int", "UInt", "Float", "Decimal"]
        .iter()
        .any(|number| inner.starts_with(number))
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        // Shares and means have more digits than anybody reads.
        Value::Number(number) if number.is_f64() => {
            number.as_f64().map_or(String::new(), |number| {
                let digits = if number.abs() < 1.0 { 4 } else { 2 };
                format!("{number:.digits$}")
            })
        }
        other => other.to_string(),
    }
}

/// What ClickHouse says, without its stack and the query that it repeats, and what to do.
fn in_short(error: ViewError) -> anyhow::Error {
    match error {
        ViewError::Source(activity_viewer::SourceError::ClickHouse(Error::Server(text))) => {
            anyhow::anyhow!(shortened(&text))
        }
        other => other.into(),
    }
}

fn shortened(text: &str) -> String {
    let code = clickhouse_code(text);
    let message = text
        .split_once("DB::Exception: ")
        .map_or(text, |(_, message)| message);
    let end = [
        "(version ",
        " In scope ",
        " in scope ",
        ": In scope ",
        ": while executing",
        "Stack trace",
    ]
    .iter()
    .filter_map(|mark| message.find(mark));
    let message =
        message[..end.min().unwrap_or(message.len())].trim_end_matches([' ', '.', ',', ':', '\n']);
    let message: String = message.chars().take(ERROR_CHARS_MAX).collect();
    format!("clickhouse: {message}{}", what_to_do(code))
}

fn what_to_do(code: Option<u32>) -> &'static str {
    match code {
        // UNKNOWN_IDENTIFIER, NO_SUCH_COLUMN_IN_TABLE
        Some(47 | 16) => {
            "; `activity query \"DESCRIBE TABLE <table>\"` names a table's columns, docs/data-dictionary.md says what they hold"
        }
        // UNKNOWN_TABLE, UNKNOWN_DATABASE
        Some(60 | 81) => {
            "; `activity query \"SHOW TABLES\"` names the tables; where there are none, run `activity setup` first"
        }
        // READONLY
        Some(164) => "; this verb only reads: change data with ClickHouse's own client",
        // TIMEOUT_EXCEEDED, TOO_MANY_ROWS, MEMORY_LIMIT_EXCEEDED, TOO_MANY_ROWS_OR_BYTES
        Some(159 | 158 | 241 | 396) => "; ask for less: a shorter --since, or a LIMIT",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_in_short_and_with_what_to_do() {
        let answer = "Code: 47. DB::Exception: Unknown expression identifier `usr` in scope SELECT usr FROM clicks. Maybe you meant: ['user_id']. (UNKNOWN_IDENTIFIER) (version 26.7.2.1)\n";
        assert_eq!(
            shortened(answer),
            "clickhouse: Unknown expression identifier `usr`; `activity query \"DESCRIBE TABLE <table>\"` names a table's columns, docs/data-dictionary.md says what they hold"
        );
        let answer = "Code: 62. DB::Exception: Syntax error: failed at position 8 (FRM): FRM clicks. Expected one of: token, Comma. (SYNTAX_ERROR) (version 26.7.2.1)";
        assert_eq!(
            shortened(answer),
            "clickhouse: Syntax error: failed at position 8 (FRM): FRM clicks. Expected one of: token, Comma. (SYNTAX_ERROR)"
        );
        assert!(
            shortened(&format!("Code: 1. DB::Exception: {}", "ä".repeat(9999)))
                .chars()
                .count()
                < 400
        );
    }

    #[test]
    fn one_word_is_a_name_and_more_is_sql() {
        assert!(is_name("fraud/top-actors") && is_name("x"));
        assert!(!is_name("SELECT 1"));
        assert!(
            pair("user=a=b") == Ok(("user".to_owned(), "a=b".to_owned())) && pair("user").is_err()
        );
    }

    #[test]
    fn answers_are_objects_for_programs_and_aligned_for_people() {
        let json = r#"{"meta":[{"name":"actor","type":"String"},{"name":"score","type":"Nullable(Float64)"},{"name":"clicks","type":"UInt64"}],
            "data":[["a",0.123456,12],["b",null,3]]}"#;
        let answer: Answer = serde_json::from_str(json).unwrap();
        assert_eq!(objects(&answer)[0]["clicks"], 12);
        let lines = table(&answer);
        let words: Vec<Vec<&str>> = lines
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(
            words,
            [
                ["actor", "score", "clicks"],
                ["a", "0.1235", "12"],
                ["b", "-", "3"]
            ]
        );
    }
}
