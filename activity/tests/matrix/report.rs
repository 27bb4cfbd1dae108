//! The table, for eyes and for docs/.

use std::fmt::Write as _;

use crate::bench::Outcome;
use crate::cells::Cell;

/// One cell, while the matrix runs.
pub fn line(cell: &Cell, outcome: &Outcome) -> String {
    let mut line = format!(
        "{:<46} {:>7} events {:>7} rows  missing {} duplicate {} unexpected {}  {:>5.1} s",
        cell.name(),
        outcome.events,
        outcome.rows,
        outcome.missing,
        outcome.duplicate,
        outcome.unexpected,
        outcome.recovery.as_secs_f64()
    );
    for failure in &outcome.failures {
        let _ = write!(line, "\n    {failure}");
    }
    line
}

/// What all cells come to.
pub fn summary(rows: &[(Cell, Outcome)]) -> String {
    let failed = rows
        .iter()
        .filter(|(_, outcome)| !outcome.is_clean())
        .count();
    let kills: u32 = rows.iter().map(|(_, outcome)| outcome.kills).sum();
    let events: u64 = rows.iter().map(|(_, outcome)| outcome.events).sum();
    let longest = rows
        .iter()
        .max_by_key(|(_, outcome)| outcome.recovery)
        .map_or(String::new(), |(cell, outcome)| {
            format!(
                ", longest recovery {:.1} s ({})",
                outcome.recovery.as_secs_f64(),
                cell.name()
            )
        });
    format!(
        "{kills} kills, {events} events{longest}\ntest result: {}. {} passed; {failed} failed",
        if failed == 0 { "ok" } else { "FAILED" },
        rows.len() - failed
    )
}

/// The document.
pub fn document(rows: &[(Cell, Outcome)]) -> String {
    let kills: u32 = rows.iter().map(|(_, outcome)| outcome.kills).sum();
    let sum = |of: fn(&Outcome) -> u64| rows.iter().map(|(_, outcome)| of(outcome)).sum::<u64>();
    let longest = rows
        .iter()
        .map(|(_, outcome)| outcome.recovery)
        .max()
        .unwrap_or_default();
    let mut text = format!(
        "# What was done to it, and what was lost\n\n\
         Written by `cargo test --release -p activity --test matrix -- --full --write docs/faults.md`, on real Kafka, registry and ClickHouse.\n\
         CI runs the cells with a star. Each cell has topics and tables of its own and traffic that goes on while it is disturbed; at the end `activity verify`\n\
         compares Kafka with ClickHouse. Seconds: from the disturbance until all that was published before it is in ClickHouse and committed, the outage included.\n\n\
         {} cells, {kills} kills (SIGKILL), {} events, missing {}, duplicate {}, unexpected {}; longest recovery {:.1} s.\n\n\
         | cell | group | events | rows | missing | duplicate | seconds |\n|---|---|--:|--:|--:|--:|--:|\n",
        rows.len(),
        sum(|outcome| outcome.events),
        sum(|outcome| outcome.missing),
        sum(|outcome| outcome.duplicate),
        sum(|outcome| outcome.unexpected),
        longest.as_secs_f64()
    );
    for (cell, outcome) in rows {
        let star = if cell.short { " ★" } else { "" };
        let _ = writeln!(
            text,
            "| {}{star} | {} | {} | {} | {} | {} | {:.1} |",
            cell.about(),
            cell.group,
            outcome.events,
            outcome.rows,
            outcome.missing,
            outcome.duplicate,
            outcome.recovery.as_secs_f64()
        );
    }
    text
}
