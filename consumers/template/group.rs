//! The group `template_group`: clicks per country, one row for each click.

use activity_schemas::{CLICKS, Event, Topic};

use crate::{ConsumerGroup, Input, Millis, Output, Received, Reject, Row, Settings, TableSpec};

crate::rows! {
    /// A click, and where it came from.
    pub struct TemplateGroupClick<'a> in "template_group_clicks" {
        country: &'a str,
        occurred_at: Millis,
    }
}

/// The group `template_group`.
pub struct TemplateGroup;

impl ConsumerGroup for TemplateGroup {
    const NAME: &'static str = "template_group";
    const ABOUT: &'static str = "clicks per country";
    const READS: &'static [Topic] = &[CLICKS];
    const TABLES: &'static [&'static TableSpec] = &[TemplateGroupClick::TABLE];

    fn new(_settings: &Settings, _topic: Topic) -> Self {
        TemplateGroup
    }

    fn process(&mut self, received: &Received<'_>, out: &mut Output) -> Result<(), Reject> {
        if let Input::Event(Event::Click(click)) = &received.input {
            super::event_id(click.event_id)?;
            out.insert(&TemplateGroupClick {
                country: click.country.unwrap_or_default(),
                occurred_at: super::time("occurred_at", click.occurred_at)?,
            });
        }
        Ok(())
    }
}
