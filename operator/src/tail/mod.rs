//! `activity tail`: what comes in, message by message, as it comes in. Reads beside all groups: no consumer group, no commit, nothing that others notice.
//!
//! Every message is shown: one that cannot be decoded says why, with its bytes. Within a partition messages are in order; partitions are shown as they come.

mod alerts;
mod filter;
mod topics;

use std::ops::ControlFlow;
use std::str::FromStr;

use activity_platform::settings::Targets;
use activity_schemas::{CLICKS, Topic, WATCHES};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

pub use filter::{Condition, Filter};

use crate::Error;
use crate::rewind::To;

/// What can be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Every click.
    Clicks,
    /// Every watch event.
    Watches,
    /// Suspicions of the group fraud, from its table.
    Alerts,
    /// What groups did not take.
    DeadLetters,
}

impl Stream {
    /// The topic of events.
    fn events(self) -> Option<Topic> {
        match self {
            Stream::Clicks => Some(CLICKS),
            Stream::Watches => Some(WATCHES),
            Stream::Alerts | Stream::DeadLetters => None,
        }
    }
}

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// With the first that is still there.
    Beginning,
    /// With the next one that comes in.
    End,
    /// With what was appended then or later, by the brokers' clock.
    Time(Timestamp),
}

impl FromStr for From {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.parse()) {
            ("end", _) => Ok(From::End),
            (_, Ok(To::Beginning)) => Ok(From::Beginning),
            (_, Ok(To::Time(at))) => Ok(From::Time(at)),
            _ => Err(
                "neither `beginning` nor `end` nor a time (2026-11-22T08:00:00Z, or how long ago: 10m)"
                    .to_owned(),
            ),
        }
    }
}

/// One message, or one row of alerts.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Line {
    /// When the broker appended it.
    pub appended_at: Timestamp,
    /// Full name of the topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
    /// What it says; empty where it cannot be decoded.
    #[serde(flatten)]
    pub fields: Map<String, Value>,
    /// Why it cannot be decoded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub undecodable: Option<Undecodable>,
}

/// A message that is none of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Undecodable {
    /// In a word.
    pub reason: String,
    /// In full.
    pub error: String,
    /// The message's key, where it is text.
    pub key: Option<String>,
    /// The message's value, base64.
    pub payload: Option<String>,
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// What to look at.
    pub stream: Stream,
    /// Where to begin.
    pub from: From,
    /// Which of it.
    pub filter: Filter,
    /// So many, then it ends.
    pub lines_max: Option<u64>,
}

/// Hands each matching message to `show`, until it breaks, enough were shown, or `stop`.
///
/// # Errors
/// If Kafka or ClickHouse does not answer, a topic is missing, or the filter names a field that there is not.
pub async fn run(
    targets: &Targets,
    request: Request,
    stop: CancellationToken,
    mut show: impl FnMut(&Line) -> ControlFlow<()> + Send + 'static,
) -> Result<(), Error> {
    request.filter.check(request.stream)?;
    let mut left = request.lines_max;
    let filter = request.filter;
    let each = move |line: &Line| {
        if left == Some(0) {
            return ControlFlow::Break(());
        }
        if !filter.matches(line) {
            return ControlFlow::Continue(());
        }
        show(line)?;
        left = left.map(|left| left - 1);
        if left == Some(0) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    match request.stream {
        Stream::Alerts => alerts::follow(targets, request.from, &stop, each).await,
        Stream::Clicks | Stream::Watches | Stream::DeadLetters => {
            let (targets, handle) = (targets.clone(), tokio::runtime::Handle::current());
            let follow = move || {
                topics::follow(&targets, request.stream, request.from, &handle, &stop, each)
            };
            tokio::task::spawn_blocking(follow).await?
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_to_begin_is_a_word_or_a_time() {
        assert_eq!("beginning".parse(), Ok(From::Beginning));
        assert_eq!("end".parse(), Ok(From::End));
        let at = "2026-11-22T08:00:00Z";
        assert_eq!(at.parse(), Ok(From::Time(at.parse().unwrap())));
        assert!(matches!("10m".parse(), Ok(From::Time(_))));
        for wrong in ["", "start", "clicks/0=5", "-3"] {
            assert!(wrong.parse::<From>().is_err(), "{wrong}");
        }
    }
}
