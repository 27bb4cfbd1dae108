//! A list of titles for every active user, from what people watched to the end; and how good the lists were, judged by what people then began to watch.
//!
//! Two stages:
//! 1. beside each partition of `watches` ([`playbacks`]): forwards the little that the model needs, the first event of each playback and its completion;
//! 2. the model ([`model`]), which must be known whole and in order: one partition, one instance.
//!
//! For each playback, the rank that its title had in the list that stood before the playback's first event becomes a row of `recommendation_outcomes`;
//! a row in `recommendation_completions` under the same event id says that the playback was completed. Recall at k is the share of completed
//! playbacks with a rank of 1 to k. The order in which outcomes came about is that of `_offset`, since their topic has one partition.

use std::sync::Arc;

use activity_schemas::{Event, Partitions, Topic, WATCHES, WatchAction, WatchEvent};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{event_id, time};
use crate::{
    Answers, ConsumerGroup, Input, LookUp, Millis, Output, Received, Reject, Row, Settings,
    StaleSnapshot, TableSpec,
};

mod cooccurrence;
mod lists;
mod model;
mod playbacks;
mod published;
mod titles;

use model::{At, Model, NamedList};
use playbacks::{Playbacks, Step};

/// What the model is fed: first events and completions of playbacks, of all partitions of `watches`.
pub const WATCHES_BY_MODEL: Topic =
    Topic::derived("recommendation.watches-by-model", Partitions::One);

/// Longest title id that is modelled, bytes: titles are kept by their id, and memory is bounded.
const TITLE_BYTES_MAX: usize = 256;

/// `user_id` of the list that stands for everybody who has none of their own.
const STRANGER: &str = "";

crate::rows! {
    /// One list, from the moment that it was made until the user's next one.
    pub struct RecommendationRow<'a> in "recommendations" {
        user_id: &'a str,
        made_at: Millis,
        items: &'a [&'a str],
        scores: &'a [f32],
    }

    /// How the list that stood before a playback had ranked its title.
    pub struct OutcomeRow<'a> in "recommendation_outcomes" {
        event_id: Uuid,
        user_id: &'a str,
        item_id: &'a str,
        rank: u16,
        popularity_rank: u16,
        watched_before: bool,
        user_completions: Option<u32>,
        title_completions: Option<u32>,
        title_seen_at: Option<Millis>,
        made_at: Option<Millis>,
        received_at: Millis,
    }

    /// A playback that was completed, under the event id of its first event.
    pub struct CompletionRow<'a> in "recommendation_completions" {
        event_id: Uuid,
        user_id: &'a str,
        item_id: &'a str,
        received_at: Millis,
    }
}

/// What stage 1 sends to stage 2.
#[derive(Serialize, Deserialize)]
struct Watched<'a> {
    user_id: &'a str,
    title: &'a str,
    /// Event id of the playback's first event.
    playback: Uuid,
    /// Whether this is that first event.
    first: bool,
    /// Whether the playback is completed by it.
    completed: bool,
    received_at_ms: i64,
}

/// The group `recommendation`: one of its stages, by the topic that it reads.
pub struct Recommendation(Stage);

enum Stage {
    /// Beside a partition of `watches`.
    Forward(Playbacks),
    /// Behind the internal topic.
    Learn(Box<Model>),
}

impl ConsumerGroup for Recommendation {
    const NAME: &'static str = "recommendation";
    const ABOUT: &'static str =
        "a list of titles for every active user, and how good the lists were";
    const READS: &'static [Topic] = &[WATCHES, WATCHES_BY_MODEL];
    const TABLES: &'static [&'static TableSpec] = &[
        RecommendationRow::TABLE,
        OutcomeRow::TABLE,
        CompletionRow::TABLE,
    ];
    const STATE_VERSION: u32 = 2;
    const LOOK_UP: Option<LookUp> = Some(LookUp {
        path: "recommendations",
        key: "user",
        topic: WATCHES_BY_MODEL,
    });

    fn new(settings: &Settings, topic: Topic) -> Self {
        Recommendation(if topic == WATCHES_BY_MODEL {
            Stage::Learn(Box::new(Model::new(
                settings.actors_max,
                settings.list_items_max,
            )))
        } else {
            Stage::Forward(Playbacks::new(settings.actors_max))
        })
    }

    fn process(&mut self, received: &Received<'_>, out: &mut Output) -> Result<(), Reject> {
        match (&mut self.0, &received.input) {
            (Stage::Forward(playbacks), Input::Event(Event::Watch(watch))) => {
                forward(playbacks, watch, out)
            }
            (Stage::Learn(model), Input::Derived(message)) => {
                learn(model, message, received.appended_at_ms, out)
            }
            _ => Ok(()),
        }
    }

    fn snapshot(&self, into: &mut Vec<u8>) {
        match &self.0 {
            Stage::Forward(playbacks) => playbacks.snapshot(into),
            Stage::Learn(model) => model.snapshot(into),
        }
    }

    fn restore(&mut self, from: &[u8]) -> Result<(), StaleSnapshot> {
        match &mut self.0 {
            Stage::Forward(playbacks) => playbacks.restore(from),
            Stage::Learn(model) => model.restore(from),
        }
    }

    fn answers(&self) -> Option<Arc<dyn Answers>> {
        match &self.0 {
            Stage::Forward(_) => None,
            Stage::Learn(model) => Some(model.published()),
        }
    }
}

/// Stage 1: one event of `watches`.
fn forward(
    playbacks: &mut Playbacks,
    watch: &WatchEvent<'_>,
    out: &mut Output,
) -> Result<(), Reject> {
    let event_id = event_id(watch.event_id)?;
    let received_at = time("received_at", watch.received_at)?;
    if watch.user_id == STRANGER {
        // There is nobody to make a list for.
        return Ok(());
    }
    if watch.video_id.len() > TITLE_BYTES_MAX {
        return Err(Reject::new(
            "title_too_long",
            format!(
                "video_id has {} bytes, a title that is recommended has at most {TITLE_BYTES_MAX}",
                watch.video_id.len()
            ),
        ));
    }
    let Some(Step { playback, first }) = playbacks.step(watch, event_id) else {
        return Ok(());
    };
    out.send(
        WATCHES_BY_MODEL,
        watch.user_id,
        &Watched {
            user_id: watch.user_id,
            title: watch.video_id,
            playback,
            first,
            completed: watch.action == WatchAction::Complete,
            received_at_ms: received_at.0,
        },
    );
    Ok(())
}

/// Stage 2: one message of stage 1.
fn learn(
    model: &mut Model,
    message: &[u8],
    appended_at_ms: i64,
    out: &mut Output,
) -> Result<(), Reject> {
    let watched: Watched<'_> = postcard::from_bytes(message)
        .map_err(|error| Reject::new("malformed_derived_message", error.to_string()))?;
    let received_at = Millis(watched.received_at_ms);
    let user = model.user(watched.user_id);
    let title = model.title(watched.title, watched.received_at_ms);
    if watched.first {
        let standing = model.begin(user, title);
        out.insert(&OutcomeRow {
            event_id: watched.playback,
            user_id: watched.user_id,
            item_id: watched.title,
            rank: standing.rank,
            popularity_rank: standing.popularity_rank,
            watched_before: standing.watched_before,
            user_completions: Some(standing.user_completions),
            title_completions: Some(standing.title_completions),
            title_seen_at: Some(Millis(standing.title_seen_at_ms)),
            made_at: standing.made_at_ms.map(Millis),
            received_at,
        });
    }
    if watched.completed {
        model.complete(user, title);
        out.insert(&CompletionRow {
            event_id: watched.playback,
            user_id: watched.user_id,
            item_id: watched.title,
            received_at,
        });
        let at = At {
            received_at_ms: received_at.0,
            appended_at_ms,
        };
        let list = model.make_list(user, at);
        insert_list(watched.user_id, received_at, &list, out);
        if let Some(list) = model.make_strangers_list(at) {
            insert_list(STRANGER, received_at, &list, out);
        }
    }
    Ok(())
}

fn insert_list(user_id: &str, made_at: Millis, list: &NamedList<'_>, out: &mut Output) {
    if !list.titles.is_empty() {
        out.insert(&RecommendationRow {
            user_id,
            made_at,
            items: &list.titles,
            scores: &list.scores,
        });
    }
}
