//! What is asked of the migration of a group's table.

use activity_consumers::TableSpec;

/// Fails unless the statements create the table with each of its columns, explained, and as the delivery promise needs it.
pub fn check(table: &TableSpec, statements: &[String]) {
    let create = format!("CREATE TABLE IF NOT EXISTS activity.{}\n", table.name);
    let statement = statements
        .iter()
        .find_map(|statement| Some(&statement[statement.find(&create)?..]))
        .unwrap_or_else(|| panic!("no migration creates {}", table.name));
    let alter = format!("ALTER TABLE activity.{}", table.name);
    let alters = |statement: &&String| {
        let rest = statement
            .find(&alter)
            .map(|at| &statement[at + alter.len()..]);
        rest.is_some_and(|rest| rest.starts_with(char::is_whitespace))
    };
    let added: Vec<&str> = (statements.iter().filter(alters))
        .flat_map(|statement| statement.lines())
        .filter_map(|line| Some(line.split_once("ADD COLUMN IF NOT EXISTS ")?.1))
        .collect();
    let origin = [
        "_topic",
        "_partition",
        "_offset",
        "_n",
        "_epoch",
        "_appended_at",
    ];
    for column in table.columns.iter().map(|column| column.name).chain(origin) {
        let declaration = format!("{column} ");
        let created = statement
            .lines()
            .filter_map(|line| line.strip_prefix("    "));
        let declared = created
            .chain(added.iter().copied())
            .find(|line| line.starts_with(&declaration));
        assert!(
            declared.is_some_and(|declared| declared.contains(" COMMENT '")),
            "{}: {column} is not declared with a comment",
            table.name
        );
    }
    for promise in [
        "ENGINE = MergeTree\n",
        "non_replicated_deduplication_window = 100000",
        "PARTITION BY toYYYYMM(_appended_at)",
        "PROJECTION by_offset",
    ] {
        assert!(statement.contains(promise), "{}: {promise}", table.name);
    }
}
