//! `docs/data-dictionary.md` says what the sources say: the docs of the Avro schemas, and the comments of tables and columns as the real engine has them.
//! `INSTA_UPDATE=always cargo test -p activity --test services data_dictionary` writes it anew.

use std::fmt::Write as _;
use std::path::Path;

use activity_consumers::GROUPS;
use activity_schemas::avro::newest;
use activity_schemas::{CLICKS, Content, WATCHES};
use serde::Deserialize;
use serde_json::Value;

use crate::in_world;
use crate::support::World;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/data-dictionary.md");

#[derive(Deserialize)]
struct Table {
    name: String,
    engine: String,
    comment: String,
    sorting_key: String,
    partition_key: String,
}

#[derive(Deserialize)]
struct Column {
    table: String,
    name: String,
    r#type: String,
    comment: String,
}

/// Text within a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

fn events(page: &mut String) {
    for topic in [CLICKS, WATCHES] {
        let Content::Events(kind) = topic.content else {
            continue;
        };
        let version = newest(kind);
        let schema: Value = serde_json::from_str(version.json).unwrap();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (name, doc) = (text(&schema["name"]), text(&schema["doc"]));
        writeln!(
            page,
            "\n### {name} v{}\n\nTopic `activity.{}`. {doc}\n\n| field | type | what it is |\n|---|---|---|",
            version.number, topic.name
        )
        .unwrap();
        for field in schema["fields"].as_array().unwrap() {
            writeln!(
                page,
                "| `{}` | {} | {} |",
                text(&field["name"]),
                cell(&avro_type(&field["type"])),
                cell(&text(&field["doc"]))
            )
            .unwrap();
        }
    }
}

/// `string (uuid)`, `enum of start, stop`, `string, or null`.
fn avro_type(r#type: &Value) -> String {
    match r#type {
        Value::String(name) => name.clone(),
        Value::Array(union) => {
            let (nulls, others): (Vec<_>, Vec<_>) =
                union.iter().partition(|one| one.as_str() == Some("null"));
            let others: Vec<String> = others.into_iter().map(avro_type).collect();
            let or_null = if nulls.is_empty() { "" } else { ", or null" };
            format!("{}{or_null}", others.join(" or "))
        }
        named => match (named["symbols"].as_array(), named["logicalType"].as_str()) {
            (Some(symbols), _) => {
                let symbols: Vec<&str> = symbols.iter().filter_map(Value::as_str).collect();
                format!("enum: {}", symbols.join(", "))
            }
            (None, Some(logical)) => format!("{} ({logical})", avro_type(&named["type"])),
            (None, None) => avro_type(&named["type"]),
        },
    }
}

async fn tables(page: &mut String, world: &World) {
    // A refreshable view is told of with the table that it fills; a table that begins with a dot is about to take that one's place.
    let sql = format!(
        "SELECT name, engine, comment, sorting_key, partition_key FROM system.tables \
         WHERE database = '{}' AND NOT startsWith(name, '.') AND engine != 'MaterializedView' ORDER BY engine = 'View', name",
        world.name
    );
    let tables: Vec<Table> = world.database().rows(&sql).await.unwrap();
    let sql = format!(
        "SELECT table, name, type, comment FROM system.columns WHERE database = '{}' ORDER BY table, position",
        world.name
    );
    let columns: Vec<Column> = world.database().rows(&sql).await.unwrap();
    let mut is_view = false;
    for table in &tables {
        if table.engine == "View" && !is_view {
            is_view = true;
            page.push_str("\n## Views\n");
        }
        writeln!(
            page,
            "\n### {}\n\n{}.{}",
            table.name,
            table.comment,
            storage(table)
        )
        .unwrap();
        let mut header = "\n| column | type | what it is |\n|---|---|---|\n";
        for column in columns.iter().filter(|column| column.table == table.name) {
            page.push_str(header);
            header = "";
            let Column {
                name,
                r#type,
                comment,
                ..
            } = column;
            writeln!(
                page,
                "| `{name}` | `{}` | {} |",
                cell(r#type),
                cell(comment)
            )
            .unwrap();
        }
    }
}

/// Who writes a table and in what order its rows lie.
fn storage(table: &Table) -> String {
    let writers: Vec<&str> = GROUPS
        .iter()
        .filter(|group| group.tables.iter().any(|spec| spec.name == table.name))
        .map(|group| group.name)
        .collect();
    let mut text = String::new();
    if !writers.is_empty() {
        write!(text, " Written by the group {}.", writers.join(", ")).unwrap();
    }
    if table.engine != "View" {
        write!(text, " {}, sorted by `{}`", table.engine, table.sorting_key).unwrap();
        if !table.partition_key.is_empty() {
            write!(text, ", in partitions by `{}`", table.partition_key).unwrap();
        }
        text.push('.');
    }
    text
}

#[test]
fn the_data_dictionary_is_what_schemas_and_tables_say() {
    in_world("dictionary", 1, |world| async move {
        let mut page = "# Data dictionary\n\nWhat events and tables hold, generated from the Avro schemas and from the comments in ClickHouse \
            (`INSTA_UPDATE=always cargo test -p activity --test services data_dictionary`); a test fails when this page is not what they say. \
            Tables and views are in the database `activity`.\n\n## Events\n"
            .to_owned();
        events(&mut page);
        page.push_str("\n## Tables\n");
        tables(&mut page, &world).await;
        if std::env::var("INSTA_UPDATE").is_ok_and(|update| update == "always") {
            std::fs::write(PAGE, &page).unwrap();
        }
        let written = std::fs::read_to_string(Path::new(PAGE)).unwrap_or_default();
        let differs = page
            .lines()
            .zip(written.lines())
            .find(|(is, was)| is != was);
        assert!(
            page == written,
            "docs/data-dictionary.md is stale; write it anew with INSTA_UPDATE=always. First difference: {differs:?}"
        );
    });
}
