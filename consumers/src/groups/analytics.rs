//! Every click and every watch event as a row, for whoever asks questions. Stateless: what is counted, grouped or joined is ClickHouse's work
//! (`schemas/clickhouse/0003_analytics.sql`: per-minute projections, the view `sessions`).

use activity_schemas::{CLICKS, ClickEvent, Event, Topic, WATCHES, WatchEvent};
use uuid::Uuid;

use super::{event_id, time};
use crate::{ConsumerGroup, Input, Millis, Output, Received, Reject, Row, Settings, TableSpec};

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
        country: Option<&'a str>,
        user_agent: Option<&'a str>,
        page: Option<&'a str>,
        element: Option<&'a str>,
        item_id: Option<&'a str>,
        referrer: Option<&'a str>,
        campaign: Option<&'a str>,
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
        country: Option<&'a str>,
        video_id: &'a str,
        playback_id: Option<&'a str>,
        action: &'a str,
        position_ms: Option<i64>,
        duration_ms: Option<i64>,
        rebuffer_ms: Option<i64>,
    }
}

/// The group `analytics`.
pub struct Analytics;

impl ConsumerGroup for Analytics {
    const NAME: &'static str = "analytics";
    const ABOUT: &'static str = "every click and watch event as a row";
    const READS: &'static [Topic] = &[CLICKS, WATCHES];
    const TABLES: &'static [&'static TableSpec] = &[ClickRow::TABLE, WatchRow::TABLE];

    fn new(_settings: &Settings, _topic: Topic) -> Self {
        Analytics
    }

    fn process(&mut self, received: &Received<'_>, out: &mut Output) -> Result<(), Reject> {
        match &received.input {
            Input::Event(Event::Click(click)) => out.insert(&click_row(click)?),
            Input::Event(Event::Watch(watch)) => out.insert(&watch_row(watch)?),
            Input::Derived(_) => (),
        }
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
        country: click.country,
        user_agent: click.user_agent,
        page: click.page,
        element: click.element,
        item_id: click.item_id,
        referrer: click.referrer,
        campaign: click.campaign,
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
        country: watch.country,
        video_id: watch.video_id,
        playback_id: watch.playback_id,
        action: watch.action.name(),
        position_ms: watch.position_ms,
        duration_ms: watch.duration_ms,
        rebuffer_ms: watch.rebuffer_ms,
    })
}
