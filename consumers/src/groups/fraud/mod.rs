//! A score in [0, 1] for every click: how much what happens looks like a script's doing, by what the click's user, address and device did lately. Scored from
//! what there is: a field that is null says nothing.
//!
//! A chain, because each key needs the clicks in its own order:
//! 1. beside each partition of `clicks` ([`users`]): the signs of the user and of the targets; sent on by address;
//! 2. by address ([`places`]): those of the address; sent on by device;
//! 3. by device: those of the device; then the score ([`judge`]), one row for each click, and episodes ([`episodes`]).
//!
//! A click without address or device goes on by what it has, at last by its user. Every sign is documented in [`SIGNS`]; how a value becomes a surprise, by the
//! site's own traffic, in [`norms`]. Only clicks are read: what a player sends by itself every ten seconds says nothing about a person.
//!
//! Memory of one partition, at most, for `actors_max` actors of each kind: 820 bytes a user and a target, 430 bytes an address or a device, 130 bytes for each
//! of a user's, an address's and a device's episodes.

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
mod places;
mod signs;
mod users;

pub use episodes::ALERT_SCORE;
pub use judge::Weights;
pub use signs::{SIGNS, Sign};

use episodes::Episodes;
use judge::{Judge, Readings};
use places::Places;
use signs::Id;
use users::Users;

/// Clicks with what their users did, by address.
pub const CLICKS_BY_IP: Topic = Topic::derived("fraud.clicks-by-ip", Partitions::Configured);
/// Clicks with what their users and addresses did, by device.
pub const CLICKS_BY_DEVICE: Topic =
    Topic::derived("fraud.clicks-by-device", Partitions::Configured);

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

/// A click on its way through the stages.
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
    target: Option<u64>,
    number: Option<i64>,
    /// How suspicious the user is by itself.
    suspicion: f32,
    /// Whether the user came up a short while ago.
    is_new: bool,
    readings: Readings,
}

impl<'a> Passing<'a> {
    fn read(message: &'a [u8]) -> Result<Self, Reject> {
        let malformed = |detail: String| Reject::new("malformed_derived_message", detail);
        let click: Self =
            postcard::from_bytes(message).map_err(|error| malformed(error.to_string()))?;
        if click.readings.fit() {
            Ok(click)
        } else {
            Err(malformed("readings of other signs".to_owned()))
        }
    }
}

/// The group `fraud`: one of its stages, by the topic that it reads.
pub struct Fraud {
    stage: Stage,
    actors_max: usize,
}

enum Stage {
    Users(Box<Users>),
    Addresses(Box<Places>),
    Devices(Box<Last>),
}

/// The last stage.
struct Last {
    state: LastState,
    judge: Judge,
}

#[derive(Serialize, Deserialize)]
struct LastState {
    devices: Places,
    episodes: Episodes,
}

impl ConsumerGroup for Fraud {
    const NAME: &'static str = "fraud";
    const ABOUT: &'static str =
        "a score with reasons for every click, from its user, address and device";
    const READS: &'static [Topic] = &[CLICKS, CLICKS_BY_IP, CLICKS_BY_DEVICE];
    const TABLES: &'static [&'static TableSpec] = &[FraudScoreRow::TABLE, AlertRow::TABLE];
    const STATE_VERSION: u32 = 2;

    fn new(settings: &Settings, topic: Topic) -> Self {
        let actors_max = settings.actors_max;
        let stage = if topic == CLICKS_BY_IP {
            Stage::Addresses(Box::new(Places::new(Id::AddressUsers, actors_max)))
        } else if topic == CLICKS_BY_DEVICE {
            Stage::Devices(Box::new(Last {
                state: LastState {
                    devices: Places::new(Id::DeviceUsers, actors_max),
                    episodes: Episodes::new(actors_max),
                },
                judge: Judge::new(settings.models.clone()),
            }))
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
            (Stage::Addresses(addresses), Input::Derived(message)) => {
                by_ip(addresses, message, out)
            }
            (Stage::Devices(last), Input::Derived(message)) => last.take(message, out),
            _ => Ok(()),
        }
    }

    fn snapshot(&self, into: &mut Vec<u8>) {
        match &self.stage {
            Stage::Users(users) => snapshot::write(users, into),
            Stage::Addresses(addresses) => snapshot::write(addresses, into),
            Stage::Devices(last) => snapshot::write(&last.state, into),
        }
    }

    fn restore(&mut self, from: &[u8]) -> Result<(), StaleSnapshot> {
        let actors_max = self.actors_max;
        match &mut self.stage {
            Stage::Users(users) => **users = snapshot::read::<Users>(from)?.bounded(actors_max)?,
            Stage::Addresses(addresses) => {
                **addresses =
                    snapshot::read::<Places>(from)?.bounded(Id::AddressUsers, actors_max)?;
            }
            Stage::Devices(last) => {
                let state: LastState = snapshot::read(from)?;
                last.state = LastState {
                    devices: state.devices.bounded(Id::DeviceUsers, actors_max)?,
                    episodes: state.episodes.bounded(actors_max),
                };
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
    let found = users.note(click, received_at.0);
    let passing = Passing {
        event_id,
        user_id: click.user_id,
        ip: click.ip,
        device_id: click.device_id,
        occurred_at_ms: occurred_at.0,
        received_at_ms: received_at.0,
        appended_at_ms,
        target: found.target,
        number: found.number,
        suspicion: found.suspicion,
        is_new: found.is_new,
        readings: found.readings,
    };
    let key = filled(click.ip).unwrap_or(click.user_id);
    out.send(CLICKS_BY_IP, key, &passing);
    Ok(())
}

/// Stage 2: one message of stage 1.
fn by_ip(addresses: &mut Places, message: &[u8], out: &mut Output) -> Result<(), Reject> {
    let mut click = Passing::read(message)?;
    let mut readings = std::mem::take(&mut click.readings);
    if let Some(ip) = filled(click.ip) {
        addresses.note(ip, filled(click.device_id), &click, &mut readings);
    }
    click.readings = readings;
    let key = filled(click.device_id).unwrap_or(click.user_id);
    out.send(CLICKS_BY_DEVICE, key, &click);
    Ok(())
}

impl Last {
    /// Stage 3: one message of stage 2.
    fn take(&mut self, message: &[u8], out: &mut Output) -> Result<(), Reject> {
        let mut click = Passing::read(message)?;
        let mut readings = std::mem::take(&mut click.readings);
        if let Some(device) = filled(click.device_id) {
            self.state
                .devices
                .note(device, filled(click.ip), &click, &mut readings);
        }
        let verdict = self.judge.judge(&readings, click.appended_at_ms);
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
        self.state
            .episodes
            .note(&click, verdict.score, &reasons, out);
        Ok(())
    }
}

/// What says something.
fn filled(field: Option<&str>) -> Option<&str> {
    field.filter(|text| !text.is_empty())
}
