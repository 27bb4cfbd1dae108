//! `docs/schema-evolution.md`, made on the real registry: each change that is shown there gets the answer that is written over it.

use activity_schemas::{EventKind, avro};
use serde_json::{Value, json};

use crate::in_world;
use crate::schemas::register;

const PAGE: &str = include_str!("../../../docs/schema-evolution.md");

/// A block of the page: ```` ```json accepted: click, add field ````.
#[derive(Debug)]
struct Change<'a> {
    accepted: bool,
    kind: EventKind,
    what: &'a str,
    value: Value,
}

fn changes() -> Vec<Change<'static>> {
    let blocks = PAGE.split("```json ").skip(1);
    let changes = blocks.map(|block| {
        let (head, rest) = block.split_once('\n').unwrap();
        let (verdict, of) = head.split_once(": ").unwrap();
        let (event, what) = of.split_once(", ").unwrap();
        let (text, _) = rest.split_once("```").unwrap();
        let mut kinds = EventKind::ALL.into_iter();
        Change {
            accepted: match verdict {
                "accepted" => true,
                "refused" => false,
                other => panic!("{other}: neither accepted nor refused"),
            },
            kind: kinds.find(|kind| kind.name() == event).unwrap(),
            what,
            value: serde_json::from_str(text).unwrap(),
        }
    });
    changes.collect()
}

fn changed(schema: &Value, change: &Change<'_>) -> Value {
    let mut schema = schema.clone();
    let fields = schema["fields"].as_array_mut().unwrap();
    let value = &change.value;
    let place = |name: &Value| {
        let found = fields.iter().position(|field| field["name"] == *name);
        found.unwrap_or_else(|| panic!("{change:?}: no such field"))
    };
    match change.what {
        "add field" => fields.insert(0, value.clone()),
        "remove field" => drop(fields.remove(place(&value["name"]))),
        "replace field" => {
            let at = place(&value["name"]);
            fields[at] = value.clone();
        }
        "rename field" => {
            let at = place(&value["from"]);
            fields[at]["name"] = value["to"].clone();
        }
        "add symbol" => {
            let at = place(&json!("action"));
            let symbols = fields[at]["type"]["symbols"].as_array_mut().unwrap();
            symbols.push(value.clone());
        }
        other => panic!("{other}: not a kind of change"),
    }
    schema
}

#[test]
fn the_registry_says_of_each_change_what_the_page_says_of_it() {
    in_world("evolution", 1, |world| async move {
        let changes = changes();
        assert!(changes.iter().any(|change| change.accepted));
        assert!(changes.iter().any(|change| !change.accepted));
        for (kind, topic) in [(EventKind::Click, "clicks"), (EventKind::Watch, "watches")] {
            let mut newest: Value = serde_json::from_str(avro::newest(kind).json).unwrap();
            for change in changes.iter().filter(|change| change.kind == kind) {
                let next = changed(&newest, change);
                let answer = register(&world, topic, &next).await;
                let status = answer.status().as_u16();
                let said = answer.text().await.unwrap();
                assert_eq!(
                    status,
                    if change.accepted { 200 } else { 409 },
                    "{change:?}: {said}"
                );
                if change.accepted {
                    newest = next;
                }
            }
        }
    });
}
