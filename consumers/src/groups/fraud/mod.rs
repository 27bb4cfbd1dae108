//! A score in [0, 1] for every click: how much what happens looks like a script's doing, by what the click's user, address and device did lately. Scored from
//! what there is: a field that is null says nothing.
//!
//! Two stages:
//! 1. beside each partition of `clicks` ([`users`]): what the click's user did lately, which needs the clicks of one user in order;
//! 2. the site ([`site`]): what is usual here, what targets, addresses and devices are like, who is under suspicion. It must be known whole, or a click's score
//!    would depend on how the topic is partitioned, and an actor would have several episodes at once: one partition, one instance.
//!
//! An address or a device that is null says nothing. Every sign is documented in [`SIGNS`]; how a value becomes a surprise, by the site's own traffic, in
//! [`norms`]. Only clicks are read: what a player sends by itself every ten seconds says nothing about a person.
//!
//! Memory, at most, for `actors_max` actors of each kind: 720 bytes a user beside each partition of `clicks`; in the site's stage 430 bytes an address or a
//! device, 250 bytes a target, 170 bytes a user, and 130 bytes for each of a user's, an address's and a device's episodes. `cargo run --release -p activity-consumers
//! --example state` measures it, and how many clicks a second each stage takes. Beyond what one instance takes, norms and targets learned from a share of the
//! users would have to be sent to several instances of the second stage.

use activity_schemas::{CLICKS, ClickEvent, Event, Partitions, Topic};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{event_id, time};
use crate::{
    ConsumerGroup, Input, Millis, Output, Received, Reject, Row, Settings, StaleSnapshot,
    TableSpec, snapshot,
};

mod episodes;
pub mod fit;
mod habits;
mod judge;
mod norms;
mod origins;
mod places;
mod signs;
mod site;
mod users;

pub use episodes::ALERT_SCORE;
pub use judge::Weights;
pub use signs::{SIGNS, Sign};

use judge::Judge;
use site::Site;
use users::{Seen, Users};

/// Clicks with what their users did lately.
pub const CLICKS_BY_SITE: Topic = Topic::derived("fraud.clicks-by-site", Partitions::One);

crate::rows! {
    /// The score of one click.
    pub struct FraudScoreRow<'a> in "fraud_scores" {
        event_id: Uuid,
        user_id: &'a str,
        ip: Option<&'a str>,
        device_id: Option<&'a str>,
        occurred_at: Millis,
        score: f32,
        reasons: &'a [&'a str],
        features: &'a [f32],
        model_version: u32,
        clicked_at: Millis,
        received_at: Millis,
    }

    /// An actor that came under suspicion, or still is.
    pub struct AlertRow<'a> in "fraud_alerts" {
        kind: &'a str,
        actor: &'a str,
        state: &'a str,
        event_id: Uuid,
        opened_at: Millis,
        seen_at: Millis,
        clicks: u32,
        score: f32,
        peak_score: f32,
        reasons: &'a [&'a str],
    }
}

/// A click on its way from stage 1 to stage 2.
#[derive(Serialize, Deserialize)]
struct Passing<'a> {
    event_id: Uuid,
    user_id: &'a str,
    ip: Option<&'a str>,
    device_id: Option<&'a str>,
    occurred_at_ms: i64,
    received_at_ms: i64,
    /// When the broker appended the click itself: it decides by which model it is scored.
    appended_at_ms: i64,
    seen: Seen,
}

/// The group `fraud`: one of its stages, by the topic that it reads.
pub struct Fraud {
    stage: Stage,
    actors_max: usize,
}

enum Stage {
    Users(Box<Users>),
    Site(Box<Site>, Judge),
}

impl ConsumerGroup for Fraud {
    const NAME: &'static str = "fraud";
    const ABOUT: &'static str =
        "a score with reasons for every click, from its user, address and device";
    const READS: &'static [Topic] = &[CLICKS, CLICKS_BY_SITE];
    const TABLES: &'static [&'static TableSpec] = &[FraudScoreRow::TABLE, AlertRow::TABLE];
    const STATE_VERSION: u32 = 4;

    fn new(settings: &Settings, topic: Topic) -> Self {
        let actors_max = settings.actors_max;
        let stage = if topic == CLICKS_BY_SITE {
            let judge = Judge::new(settings.models.clone());
            Stage::Site(Box::new(Site::new(actors_max)), judge)
        } else {
            Stage::Users(Box::new(Users::new(actors_max)))
        };
        Fraud { stage, actors_max }
    }

    fn process(&mut self, received: &Received<'_>, out: &mut Output) -> Result<(), Reject> {
        match (&mut self.stage, &received.input) {
            (Stage::Users(users), Input::Event(Event::Click(click))) => {
                by_user(users, click, received.appended_at_ms, out)
            }
            (Stage::Site(site, judge), Input::Derived(message)) => {
                by_site(site, judge, message, out)
            }
            _ => Ok(()),
        }
    }

    fn snapshot(&self, into: &mut Vec<u8>) {
        match &self.stage {
            Stage::Users(users) => snapshot::write(users, into),
            Stage::Site(site, _) => snapshot::write(site, into),
        }
    }

    fn restore(&mut self, from: &[u8]) -> Result<(), StaleSnapshot> {
        match &mut self.stage {
            Stage::Users(users) => {
                **users = snapshot::read::<Users>(from)?.bounded(self.actors_max);
            }
            Stage::Site(site, _) => {
                **site = snapshot::read::<Site>(from)?.bounded(self.actors_max)?;
            }
        }
        Ok(())
    }
}

/// Stage 1: one click.
fn by_user(
    users: &mut Users,
    click: &ClickEvent<'_>,
    appended_at_ms: i64,
    out: &mut Output,
) -> Result<(), Reject> {
    let event_id = event_id(click.event_id)?;
    let occurred_at = time("occurred_at", click.occurred_at)?;
    let received_at = time("received_at", click.received_at)?;
    let passing = Passing {
        event_id,
        user_id: click.user_id,
        ip: click.ip,
        device_id: click.device_id,
        occurred_at_ms: occurred_at.0,
        received_at_ms: received_at.0,
        appended_at_ms,
        seen: users.note(click, received_at.0),
    };
    out.send(CLICKS_BY_SITE, click.user_id, &passing);
    Ok(())
}

/// Stage 2: one message of stage 1.
fn by_site(
    site: &mut Site,
    judge: &mut Judge,
    message: &[u8],
    out: &mut Output,
) -> Result<(), Reject> {
    let click: Passing<'_> = postcard::from_bytes(message)
        .map_err(|error| Reject::new("malformed_derived_message", error.to_string()))?;
    let readings = site.read(&click);
    let verdict = judge.judge(&readings, click.appended_at_ms);
    let reasons: Vec<&str> = verdict.reasons.iter().map(String::as_str).collect();
    out.insert(&FraudScoreRow {
        event_id: click.event_id,
        user_id: click.user_id,
        ip: click.ip,
        device_id: click.device_id,
        occurred_at: Millis(click.occurred_at_ms),
        score: verdict.score,
        reasons: &reasons,
        features: &readings.features(),
        model_version: verdict.version,
        clicked_at: Millis(click.appended_at_ms),
        received_at: Millis(click.received_at_ms),
    });
    site.episodes.note(&click, verdict.score, &reasons, out);
    Ok(())
}

/// What says something.
fn filled(field: Option<&str>) -> Option<&str> {
    field.filter(|text| !text.is_empty())
}
