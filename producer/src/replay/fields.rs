//! The fields that a mapping can fill, and the event that comes of them.
//!
//! The tables follow the newest schema of each event; a test compares them with it.

use activity_schemas::{ClickEvent, Event, EventKind, WatchAction, WatchEvent};
use uuid::Uuid;

use super::convert::write_uuid;

/// What a field takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// A UUID, as text.
    Uuid,
    /// Text.
    Text,
    /// A moment.
    Time,
    /// A span, in milliseconds.
    Millis,
    /// A [`WatchAction`] by name.
    Action,
}

/// One field of an event.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) shape: Shape,
    pub(super) required: bool,
}

const fn field(name: &'static str, shape: Shape, required: bool) -> Field {
    Field {
        name,
        shape,
        required,
    }
}

const CLICK: &[Field] = &[
    field("event_id", Shape::Uuid, true),
    field("occurred_at", Shape::Time, true),
    field("received_at", Shape::Time, true),
    field("user_id", Shape::Text, true),
    field("session_id", Shape::Text, false),
    field("device_id", Shape::Text, false),
    field("ip", Shape::Text, false),
    field("country", Shape::Text, false),
    field("user_agent", Shape::Text, false),
    field("page", Shape::Text, false),
    field("element", Shape::Text, false),
    field("item_id", Shape::Text, false),
    field("referrer", Shape::Text, false),
    field("campaign", Shape::Text, false),
];

const WATCH: &[Field] = &[
    field("event_id", Shape::Uuid, true),
    field("occurred_at", Shape::Time, true),
    field("received_at", Shape::Time, true),
    field("user_id", Shape::Text, true),
    field("session_id", Shape::Text, false),
    field("device_id", Shape::Text, false),
    field("ip", Shape::Text, false),
    field("country", Shape::Text, false),
    field("video_id", Shape::Text, true),
    field("playback_id", Shape::Text, false),
    field("action", Shape::Action, true),
    field("position_ms", Shape::Millis, false),
    field("duration_ms", Shape::Millis, false),
    field("rebuffer_ms", Shape::Millis, false),
];

/// Position of `event_id` in both tables.
const EVENT_ID: usize = 0;
/// Position of `occurred_at` in both tables.
pub(super) const OCCURRED_AT: usize = 1;
/// Position of `received_at` in both tables.
pub(super) const RECEIVED_AT: usize = 2;

/// The fields of a kind of event.
pub(super) const fn fields(kind: EventKind) -> &'static [Field] {
    match kind {
        EventKind::Click => CLICK,
        EventKind::Watch => WATCH,
    }
}

/// The values of one event's fields, in the order of [`fields`]. Reused from line to line with the memory of its strings.
pub(super) struct Values {
    kind: EventKind,
    cells: Vec<Cell>,
}

/// One value.
#[derive(Clone, Debug, Default)]
pub(super) struct Cell {
    pub(super) present: bool,
    /// Of [`Shape::Uuid`] and [`Shape::Text`].
    pub(super) text: String,
    /// Of [`Shape::Time`] and [`Shape::Millis`]: milliseconds.
    pub(super) number: i64,
    /// Of [`Shape::Action`].
    pub(super) action: WatchAction,
}

impl Values {
    pub(super) fn new(kind: EventKind) -> Self {
        Self {
            kind,
            cells: vec![Cell::default(); fields(kind).len()],
        }
    }

    pub(super) fn clear(&mut self) {
        for cell in &mut self.cells {
            cell.present = false;
        }
    }

    pub(super) fn cell_mut(&mut self, index: usize) -> &mut Cell {
        &mut self.cells[index]
    }

    /// When the collecting service took the event, milliseconds since 1970.
    pub(super) fn received_at(&self) -> i64 {
        self.cells[RECEIVED_AT].number
    }

    /// Moves both clocks.
    pub(super) fn move_by(&mut self, shift_ms: i64) {
        for clock in [OCCURRED_AT, RECEIVED_AT] {
            let moment = &mut self.cells[clock].number;
            *moment = moment.saturating_add(shift_ms);
        }
    }

    /// Gives the event another id.
    pub(super) fn change_id(&mut self, change: impl FnOnce(Uuid) -> Uuid) {
        let id = &mut self.cells[EVENT_ID].text;
        // What stands there has been checked to be a UUID.
        if let Ok(had) = id.parse() {
            write_uuid(change(had), id);
        }
    }

    fn text(&self, index: usize) -> Option<&str> {
        let cell = &self.cells[index];
        cell.present.then_some(cell.text.as_str())
    }

    fn number(&self, index: usize) -> Option<i64> {
        let cell = &self.cells[index];
        cell.present.then_some(cell.number)
    }

    /// The event; fields that are required have been checked.
    pub(super) fn event(&self) -> Event<'_> {
        let event_id = &self.cells[EVENT_ID].text;
        let occurred_at = self.cells[OCCURRED_AT].number;
        let received_at = self.cells[RECEIVED_AT].number;
        let user_id = &self.cells[3].text;
        match self.kind {
            EventKind::Click => Event::Click(ClickEvent {
                event_id,
                occurred_at,
                received_at,
                user_id,
                session_id: self.text(4),
                device_id: self.text(5),
                ip: self.text(6),
                country: self.text(7),
                user_agent: self.text(8),
                page: self.text(9),
                element: self.text(10),
                item_id: self.text(11),
                referrer: self.text(12),
                campaign: self.text(13),
            }),
            EventKind::Watch => Event::Watch(WatchEvent {
                event_id,
                occurred_at,
                received_at,
                user_id,
                session_id: self.text(4),
                device_id: self.text(5),
                ip: self.text(6),
                country: self.text(7),
                video_id: &self.cells[8].text,
                playback_id: self.text(9),
                action: self.cells[10].action,
                position_ms: self.number(11),
                duration_ms: self.number(12),
                rebuffer_ms: self.number(13),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use activity_schemas::avro;

    #[test]
    fn the_tables_are_the_newest_schemas() {
        for kind in EventKind::ALL {
            let schema: serde_json::Value = serde_json::from_str(avro::newest(kind).json).unwrap();
            let in_schema: Vec<(String, bool)> = schema["fields"]
                .as_array()
                .unwrap()
                .iter()
                .map(|field| {
                    let name = field["name"].as_str().unwrap().to_owned();
                    (name, field.get("default").is_none())
                })
                .collect();
            let in_table: Vec<(String, bool)> = fields(kind)
                .iter()
                .map(|field| (field.name.to_owned(), field.required))
                .collect();
            assert_eq!(in_table, in_schema);
        }
    }

    #[test]
    fn every_field_lands_in_its_own_place() {
        for kind in EventKind::ALL {
            let mut values = Values::new(kind);
            for (index, field) in fields(kind).iter().enumerate() {
                let cell = values.cell_mut(index);
                cell.present = true;
                cell.text = field.name.to_owned();
                cell.number = index as i64;
                cell.action = WatchAction::Seek;
            }
            let json = match values.event() {
                Event::Click(click) => serde_json::to_value(click).unwrap(),
                Event::Watch(watch) => serde_json::to_value(watch).unwrap(),
            };
            for (index, field) in fields(kind).iter().enumerate() {
                let expected: serde_json::Value = match field.shape {
                    Shape::Uuid | Shape::Text => field.name.into(),
                    Shape::Time | Shape::Millis => index.into(),
                    Shape::Action => "seek".into(),
                };
                assert_eq!(json[field.name], expected, "{}", field.name);
            }
        }
    }
}
