//! Results to stdout: a table for people, JSON for programs.

use std::io::{IsTerminal, Write};

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, ContentArrangement, Table};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::cli::Output;

/// Prints a result in the form asked for. A reader that went away (`| head`) is no error.
pub fn result<T: Serialize>(
    output: Output,
    value: &T,
    table: impl FnOnce() -> String,
) -> anyhow::Result<()> {
    let text = match output {
        Output::Json => serde_json::to_string_pretty(value)?,
        Output::Table => table(),
    };
    line(&text).map(drop)
}

/// Prints a text; false: whoever read it went away.
pub fn line(text: &str) -> anyhow::Result<bool> {
    match writeln!(std::io::stdout(), "{}", text.trim_end()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        outcome => Ok(outcome.map(|()| true)?),
    }
}

/// Prints a text in the place of the one before, where a person looks; one after the other elsewhere. Each line wipes what is left of the one that was there, so
/// that nothing flickers. False: whoever read it went away.
pub fn repainted(text: &str) -> anyhow::Result<bool> {
    if !std::io::stdout().is_terminal() {
        return line(text);
    }
    let lines = text.trim_end().replace('\n', "\x1b[K\n");
    line(&format!("\x1b[H{lines}\x1b[K\n\x1b[J"))
}

/// A table: the first `words` columns hold words, the others numbers.
pub fn table(header: &[&str], words: usize, rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let is_number: Vec<bool> = (0..header.len()).map(|column| column >= words).collect();
    columns(header, &is_number, rows)
}

/// A table whose columns hold words or numbers, in any order.
pub fn columns(
    header: &[&str],
    is_number: &[bool],
    rows: impl IntoIterator<Item = Vec<String>>,
) -> String {
    let mut table = Table::new();
    table
        .load_style(NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header);
    for row in rows {
        table.add_row(row);
    }
    for (column, _) in table
        .column_iter_mut()
        .zip(is_number)
        .filter(|(_, is_number)| **is_number)
    {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

/// A count with separators: 1 234 567.
pub fn count(number: impl Into<i128>) -> String {
    let number: i128 = number.into();
    let digits = number.unsigned_abs().to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    if number < 0 { format!("-{text}") } else { text }
}

/// Bytes, in MB.
pub fn megabytes(bytes: u64) -> String {
    format!("{:.0} MB", bytes as f64 / 1e6)
}

/// Whether a person looks at stderr.
pub fn is_terminal() -> bool {
    std::io::stderr().is_terminal()
}

/// A line of progress on stderr, in indicatif's terms; nothing where nobody looks.
pub fn bar(style: &str, length: Option<u64>) -> ProgressBar {
    let target = if is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let bar = ProgressBar::with_draw_target(length, target);
    if let Ok(style) = ProgressStyle::with_template(style) {
        bar.set_style(style);
    }
    bar
}

#[cfg(test)]
mod tests {
    #[test]
    fn counts_are_grouped_by_three() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1 000"),
            (1_234_567, "1 234 567"),
            (-1_000, "-1 000"),
        ] {
            assert_eq!(super::count(number), text);
        }
    }
}
