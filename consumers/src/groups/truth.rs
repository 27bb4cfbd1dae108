//! Ground truth of synthetic or labelled traffic, from the headers of events into `truth`. Only quality measures and the fraud dashboard read that table:
//! no other group reads headers.

use activity_schemas::truth::{ATTACK_HEADER, LABEL_HEADER};
use activity_schemas::{CLICKS, Event, Topic, WATCHES};
use uuid::Uuid;

use crate::{ConsumerGroup, Input, Output, Received, Reject, Row, Settings, TableSpec};

crate::rows! {
    /// What is known of one event.
    pub struct TruthRow<'a> in "truth" {
        event_id: Uuid,
        label: u8,
        attack: &'a str,
    }
}

/// The group `truth`.
pub struct Truth;

impl ConsumerGroup for Truth {
    const NAME: &'static str = "truth";
    const ABOUT: &'static str = "ground truth of labelled traffic, for quality measures only";
    const READS: &'static [Topic] = &[CLICKS, WATCHES];
    const TABLES: &'static [&'static TableSpec] = &[TruthRow::TABLE];

    fn new(_settings: &Settings, _topic: Topic) -> Self {
        Truth
    }

    fn process(&mut self, received: &Received<'_>, out: &mut Output) -> Result<(), Reject> {
        let Some(label) = received.headers.get(LABEL_HEADER) else {
            return Ok(());
        };
        let event_id = match &received.input {
            Input::Event(Event::Click(click)) => click.event_id,
            Input::Event(Event::Watch(watch)) => watch.event_id,
            Input::Derived(_) => return Ok(()),
        };
        let event_id = super::event_id(event_id)?;
        let label = match label {
            b"0" => 0,
            b"1" => 1,
            other => {
                return Err(Reject::new(
                    "invalid_label",
                    format!(
                        "header {LABEL_HEADER} is neither 0 nor 1 but {}",
                        other.escape_ascii()
                    ),
                ));
            }
        };
        let attack = received
            .headers
            .get(ATTACK_HEADER)
            .and_then(|attack| std::str::from_utf8(attack).ok())
            .unwrap_or_default();
        out.insert(&TruthRow {
            event_id,
            label,
            attack,
        });
        Ok(())
    }
}
