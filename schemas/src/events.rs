//! The typed events. Strings borrow from the message, so that nothing is allocated between poll and column.
//!
//! Each struct is the newest version of its `.avsc`; what an older writer did not know is filled by serde's defaults, which a test holds equal
//! to the schema's. Timestamps are milliseconds since 1970-01-01 UTC.

use serde::{Deserialize, Serialize};

/// Which event a message holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// [`ClickEvent`]
    Click,
    /// [`WatchEvent`]
    Watch,
}

impl EventKind {
    /// Every kind there is.
    pub const ALL: [EventKind; 2] = [EventKind::Click, EventKind::Watch];

    /// The name of its folder under `avro/` and `golden/`.
    pub const fn name(self) -> &'static str {
        match self {
            EventKind::Click => "click",
            EventKind::Watch => "watch",
        }
    }
}

/// A decoded event.
#[derive(Clone, Debug, PartialEq)]
pub enum Event<'a> {
    /// A person clicked on something.
    Click(ClickEvent<'a>),
    /// Something happened while a person watched a video.
    Watch(WatchEvent<'a>),
}

/// A person clicked on something. Fields as documented in `avro/click`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[allow(
    missing_docs,
    reason = "documented in the .avsc, the one truth about an event"
)]
pub struct ClickEvent<'a> {
    pub event_id: &'a str,
    pub occurred_at: i64,
    pub received_at: i64,
    pub user_id: &'a str,
    #[serde(default, borrow)]
    pub session_id: Option<&'a str>,
    #[serde(default, borrow)]
    pub device_id: Option<&'a str>,
    #[serde(default, borrow)]
    pub ip: Option<&'a str>,
    #[serde(default, borrow)]
    pub country: Option<&'a str>,
    #[serde(default, borrow)]
    pub user_agent: Option<&'a str>,
    #[serde(default, borrow)]
    pub page: Option<&'a str>,
    #[serde(default, borrow)]
    pub element: Option<&'a str>,
    #[serde(default, borrow)]
    pub item_id: Option<&'a str>,
    #[serde(default, borrow)]
    pub referrer: Option<&'a str>,
    #[serde(default, borrow)]
    pub campaign: Option<&'a str>,
}

/// Something happened while a person watched a video. Fields as documented in `avro/watch`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[allow(
    missing_docs,
    reason = "documented in the .avsc, the one truth about an event"
)]
pub struct WatchEvent<'a> {
    pub event_id: &'a str,
    pub occurred_at: i64,
    pub received_at: i64,
    pub user_id: &'a str,
    #[serde(default, borrow)]
    pub session_id: Option<&'a str>,
    #[serde(default, borrow)]
    pub device_id: Option<&'a str>,
    #[serde(default, borrow)]
    pub ip: Option<&'a str>,
    #[serde(default, borrow)]
    pub country: Option<&'a str>,
    pub video_id: &'a str,
    #[serde(default, borrow)]
    pub playback_id: Option<&'a str>,
    pub action: WatchAction,
    #[serde(default)]
    pub position_ms: Option<i64>,
    #[serde(default)]
    pub duration_ms: Option<i64>,
    #[serde(default)]
    pub rebuffer_ms: Option<i64>,
}

/// What happened in a playback; the numbers are the places of the schema's symbols.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WatchAction {
    /// The playback began.
    Start = 1,
    /// It goes on.
    Heartbeat = 2,
    /// Paused.
    Pause = 3,
    /// Went on after a pause.
    Resume = 4,
    /// Jumped to another position.
    Seek = 5,
    /// Seen to the end.
    Complete = 6,
    /// Left before the end.
    Stop = 7,
    /// An action of a newer writer; never produced as such. Stands last because serde wants it there.
    #[default]
    #[serde(other)]
    Unknown = 0,
}

impl WatchAction {
    /// Every action there is.
    pub const ALL: [WatchAction; 8] = [
        WatchAction::Unknown,
        WatchAction::Start,
        WatchAction::Heartbeat,
        WatchAction::Pause,
        WatchAction::Resume,
        WatchAction::Seek,
        WatchAction::Complete,
        WatchAction::Stop,
    ];

    /// The action in the schema's words.
    pub const fn name(self) -> &'static str {
        match self {
            WatchAction::Unknown => "unknown",
            WatchAction::Start => "start",
            WatchAction::Heartbeat => "heartbeat",
            WatchAction::Pause => "pause",
            WatchAction::Resume => "resume",
            WatchAction::Seek => "seek",
            WatchAction::Complete => "complete",
            WatchAction::Stop => "stop",
        }
    }
}
