//! Every click and every watch event as a row, for whoever asks questions. What is counted, grouped or joined is ClickHouse's work
//! (`schemas/clickhouse/0008_analytics.sql`: projections, and the views that merge them), so that an event that comes late corrects what was there.
//!
//! The one thing that is told here, where the events of a user come by in order, is whether an event was sent twice: its second row is marked, and every view
//! leaves it out.

mod seen;

use activity_schemas::{CLICKS, ClickEvent, Event, Topic, WATCHES, WatchEvent};
use uuid::Uuid;

use self::seen::Seen;
use super::{event_id, time};
use crate::{
    ConsumerGroup, Input, LowCardinality, Millis, Output, Received, Reject, Row, Settings,
    StaleSnapshot, TableSpec, snapshot,
};

crate::rows! {
    /// One click.
    pub struct ClickRow<'a> in "clicks" {
        event_id: Uuid,
        occurred_at: Millis,
        received_at: Millis,
        user_id: &'a str,
        session_id: Option<&'a str>,
        device_id: Option<&'a str>,
        ip: Option<&'a str>,
        country: LowCardinality<Option<&'a str>>,
        user_agent: LowCardinality<Option<&'a str>>,
        page: Option<&'a str>,
        element: LowCardinality<Option<&'a str>>,
        item_id: Option<&'a str>,
        referrer: Option<&'a str>,
        campaign: LowCardinality<Option<&'a str>>,
        is_duplicate: bool,
    }

    /// One watch event.
    pub struct WatchRow<'a> in "watches" {
        event_id: Uuid,
        occurred_at: Millis,
        received_at: Millis,
        user_id: &'a str,
        session_id: Option<&'a str>,
        device_id: Option<&'a str>,
        ip: Option<&'a str>,
        country: LowCardinality<Option<&'a str>>,
        video_id: &'a str,
        playback_id: Option<&'a str>,
        action: LowCardinality<&'a str>,
        position_ms: Option<i64>,
        duration_ms: Option<i64>,
        rebuffer_ms: Option<i64>,
        is_duplicate: bool,
    }
}

/// The group `analytics`.
pub struct Analytics {
    seen: Seen,
    actors_max: usize,
}

impl ConsumerGroup for Analytics {
    const NAME: &'static str = "analytics";
    const ABOUT: &'static str = "every click and watch event as a row";
    const READS: &'static [Topic] = &[CLICKS, WATCHES];
    const TABLES: &'static [&'static TableSpec] = &[ClickRow::TABLE, WatchRow::TABLE];
    const STATE_VERSION: u32 = 1;

    fn new(settings: &Settings, _topic: Topic) -> Self {
        Analytics {
            seen: Seen::new(settings.actors_max),
            actors_max: settings.actors_max,
        }
    }

    fn process(&mut self, received: &Received<'_>, out: &mut Output) -> Result<(), Reject> {
        match &received.input {
            Input::Event(Event::Click(click)) => {
                let mut row = click_row(click)?;
                row.is_duplicate = self.seen.note(row.user_id, row.event_id);
                out.insert(&row);
            }
            Input::Event(Event::Watch(watch)) => {
                let mut row = watch_row(watch)?;
                row.is_duplicate = self.seen.note(row.user_id, row.event_id);
                out.insert(&row);
            }
            Input::Derived(_) => (),
        }
        Ok(())
    }

    fn snapshot(&self, into: &mut Vec<u8>) {
        snapshot::write(&self.seen, into);
    }

    fn restore(&mut self, from: &[u8]) -> Result<(), StaleSnapshot> {
        let seen: Seen = snapshot::read(from)?;
        self.seen = seen.bounded(self.actors_max);
        Ok(())
    }
}

fn click_row<'a>(click: &ClickEvent<'a>) -> Result<ClickRow<'a>, Reject> {
    Ok(ClickRow {
        event_id: event_id(click.event_id)?,
        occurred_at: time("occurred_at", click.occurred_at)?,
        received_at: time("received_at", click.received_at)?,
        user_id: click.user_id,
        session_id: click.session_id,
        device_id: click.device_id,
        ip: click.ip,
        country: LowCardinality(click.country),
        user_agent: LowCardinality(click.user_agent),
        page: click.page,
        element: LowCardinality(click.element),
        item_id: click.item_id,
        referrer: click.referrer,
        campaign: LowCardinality(click.campaign),
        is_duplicate: false,
    })
}

fn watch_row<'a>(watch: &WatchEvent<'a>) -> Result<WatchRow<'a>, Reject> {
    Ok(WatchRow {
        event_id: event_id(watch.event_id)?,
        occurred_at: time("occurred_at", watch.occurred_at)?,
        received_at: time("received_at", watch.received_at)?,
        user_id: watch.user_id,
        session_id: watch.session_id,
        device_id: watch.device_id,
        ip: watch.ip,
        country: LowCardinality(watch.country),
        video_id: watch.video_id,
        playback_id: watch.playback_id,
        action: LowCardinality(watch.action.name()),
        position_ms: watch.position_ms,
        duration_ms: watch.duration_ms,
        rebuffer_ms: watch.rebuffer_ms,
        is_duplicate: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NoHeaders;

    #[test]
    fn the_second_row_of_an_event_that_was_sent_twice_is_marked_and_a_rejected_event_is_not_remembered()
     {
        let mut group = Analytics::new(&Settings::default(), CLICKS);
        let mut out = Output::new(Analytics::TABLES);
        let mut feed = |received_at| {
            let click = ClickEvent {
                event_id: "0190a3f4-0000-7000-8000-000000000001",
                user_id: "u",
                received_at,
                ..ClickEvent::default()
            };
            let received = Received {
                topic: CLICKS,
                partition: 0,
                offset: 0,
                appended_at_ms: 0,
                headers: &NoHeaders,
                input: Input::Event(Event::Click(click)),
            };
            group.process(&received, &mut out)
        };
        assert!(feed(i64::MAX).is_err());
        for received_at in [1, 2, 3] {
            assert_eq!(feed(received_at), Ok(()));
        }
        let (tables, _) = out.take();
        let origin = crate::Origin {
            topic: "t",
            partition: 0,
            epoch: 1,
        };
        let block = tables[0].native_block(&origin);
        let column = b"is_duplicate\x04Bool";
        let at = block.windows(column.len()).position(|at| at == column);
        let values = &block[at.unwrap() + column.len()..][..3];
        assert_eq!(values, [0, 1, 1]);
    }
}
