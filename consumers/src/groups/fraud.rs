//! A score in [0, 1] for every click: how much the user's behaviour up to this click looks like a script's. Scored from what there is: a field that is null
//! says nothing, except where the rest of the traffic has it.
//!
//! Each sign of a script gives a strength from 0 to 1, rising evenly between two bounds, and has a weight: the score that it gives alone at full strength.
//! Signs are combined as independent causes are (noisy or): `1 - Π (1 - weight × strength)`. So one sign alone rarely convicts (an innocent power user is
//! fast, or repetitive, or up all night), and two or three together do. Bounds and weights are set on general grounds, written beside each, not fitted.
//!
//! State is kept per user, about 250 bytes each; clocks are the collecting service's (`received_at`), because a script sets its own clock as it likes.
//! Addresses and devices, which need the clicks in another key's order, are further stages and come later.

use activity_schemas::{CLICKS, ClickEvent, Event, Topic};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{event_id, time};
use crate::fingerprint::{fingerprint, fingerprint_of_kind};
use crate::lru::Lru;
use crate::windows::{ActiveHours, LastGaps, LastTargets, REMEMBERED, SlidingCount};
use crate::{
    ConsumerGroup, Input, Millis, Output, Received, Reject, Row, Settings, StaleSnapshot,
    TableSpec, snapshot,
};

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
    }
}

/// Width of the short window: a burst of a person's clicks lasts about that long.
const SHORT_MS: i64 = 10_000;
/// Width of the long window: nobody clicks without a pause for as long.
const LONG_MS: i64 = 600_000;
/// A longer silence ends a visit and is no gap between clicks: the bound that sessions have too.
const GAP_MS_MAX: i64 = 1_800_000;
/// Fewer gaps do not show whether they are regular.
const GAPS_MIN: usize = 8;
/// Clicks after which what a user does counts as much as what everybody does.
const PRIOR_CLICKS: f32 = 4.0;
/// A sign that raises a score by less than that is not worth a reader's time.
const REASON_MIN: f32 = 0.1;

/// The group `fraud`.
pub struct Fraud {
    state: State,
    actors_max: usize,
}

#[derive(Serialize, Deserialize)]
struct State {
    users: Lru<Behaviour>,
    /// Clicks of all users, and those of them that name no page.
    clicks: u64,
    clicks_without_page: u64,
}

/// What one user did lately.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
struct Behaviour {
    latest_ms: Option<i64>,
    clicks: u32,
    clicks_without_page: u32,
    short: SlidingCount<SHORT_MS>,
    long: SlidingCount<LONG_MS>,
    gaps: LastGaps,
    targets: LastTargets,
    hours: ActiveHours,
    user_agent: u64,
    declared_bot: bool,
}

impl ConsumerGroup for Fraud {
    const NAME: &'static str = "fraud";
    const ABOUT: &'static str = "a score with reasons for every click, from its user's behaviour";
    const READS: &'static [Topic] = &[CLICKS];
    const TABLES: &'static [&'static TableSpec] = &[FraudScoreRow::TABLE];
    const STATE_VERSION: u32 = 1;

    fn new(settings: &Settings, _topic: Topic) -> Self {
        Fraud {
            state: State {
                users: Lru::new(settings.actors_max),
                clicks: 0,
                clicks_without_page: 0,
            },
            actors_max: settings.actors_max,
        }
    }

    fn process(&mut self, received: &Received<'_>, out: &mut Output) -> Result<(), Reject> {
        let Input::Event(Event::Click(click)) = &received.input else {
            return Ok(());
        };
        let event_id = event_id(click.event_id)?;
        let occurred_at = time("occurred_at", click.occurred_at)?;
        let received_at = time("received_at", click.received_at)?;
        let verdict = self.state.judge(click, received_at.0);
        let reasons: Vec<&str> = verdict.reasons.iter().map(String::as_str).collect();
        out.insert(&FraudScoreRow {
            event_id,
            user_id: click.user_id,
            ip: click.ip,
            device_id: click.device_id,
            occurred_at,
            score: verdict.score(),
            reasons: &reasons,
        });
        Ok(())
    }

    fn snapshot(&self, into: &mut Vec<u8>) {
        snapshot::write(&self.state, into);
    }

    fn restore(&mut self, from: &[u8]) -> Result<(), StaleSnapshot> {
        let mut state: State = snapshot::read(from)?;
        state.users = state.users.bounded(self.actors_max);
        self.state = state;
        Ok(())
    }
}

impl State {
    fn judge(&mut self, click: &ClickEvent<'_>, at_ms: i64) -> Verdict {
        let user = self.users.touch(fingerprint(click.user_id));
        let mut verdict = Verdict::innocent();
        user.note_speed(at_ms, &mut verdict);
        user.note_hours(at_ms, &mut verdict);
        user.note_target(click, &mut verdict);
        user.note_user_agent(click, &mut verdict);
        let without_page_of_all =
            (self.clicks_without_page as f32 + 1.0) / (self.clicks as f32 + 2.0);
        user.note_page(click, without_page_of_all, &mut verdict);
        self.clicks += 1;
        self.clicks_without_page += u64::from(click.page.is_none());
        verdict
    }
}

impl Behaviour {
    /// Rate and regularity. A person's burst is some ten clicks in ten seconds, and reading comes between bursts; a person's gaps spread at least as widely
    /// as those of random arrivals (coefficient of variation 1), a timer's do not spread, and a timer with a jitter of ± 50 % still stays below .3.
    fn note_speed(&mut self, at_ms: i64, verdict: &mut Verdict) {
        let in_short = self.short.add(at_ms);
        verdict.sign(0.5, rising(in_short, 15.0, 50.0), || {
            format!("fast: {in_short:.0} clicks in 10 seconds")
        });
        let in_long = self.long.add(at_ms);
        verdict.sign(0.5, rising(in_long, 300.0, 1200.0), || {
            format!("without a pause: {in_long:.0} clicks in 10 minutes")
        });
        if let Some(latest_ms) = self.latest_ms {
            let gap_ms = (at_ms - latest_ms).max(0);
            if gap_ms <= GAP_MS_MAX {
                self.gaps.add(gap_ms as u32);
            }
        }
        self.latest_ms = Some(self.latest_ms.map_or(at_ms, |latest| latest.max(at_ms)));
        if let Some((gaps, mean_ms, spread)) = self.gaps.spread()
            && gaps >= GAPS_MIN
        {
            let confidence = gaps as f32 / REMEMBERED as f32;
            let regular = 1.0 - rising(spread, 0.05, 0.4);
            verdict.sign(0.75, regular * confidence, || {
                format!(
                    "like a clock: a click every {:.1} seconds ± {:.0} %",
                    mean_ms / 1000.0,
                    spread * 100.0
                )
            });
        }
    }

    /// People sleep.
    fn note_hours(&mut self, at_ms: i64, verdict: &mut Verdict) {
        let hours = self.hours.add(at_ms);
        verdict.sign(0.6, rising(hours as f32, 16.0, 23.0), || {
            format!("sleepless: active in {hours} of the last 24 hours")
        });
    }

    /// The same few targets over and over. Weak alone: a person presses "next" and "like" many times.
    fn note_target(&mut self, click: &ClickEvent<'_>, verdict: &mut Verdict) {
        let Some(target) = click.item_id.or(click.element).or(click.page) else {
            return;
        };
        self.targets.add(fingerprint(target));
        let (targets, distinct) = self.targets.distinct();
        if targets == REMEMBERED {
            let repetitive = 1.0 - rising(distinct as f32, 1.0, 5.0);
            verdict.sign(0.35, repetitive, || match distinct {
                1 => format!("repetitive: one target in {targets} clicks"),
                _ => format!("repetitive: {distinct} targets in {targets} clicks"),
            });
        }
    }

    /// Who says to be a script is one.
    fn note_user_agent(&mut self, click: &ClickEvent<'_>, verdict: &mut Verdict) {
        let Some(user_agent) = click.user_agent else {
            return;
        };
        let seen = fingerprint_of_kind(1, user_agent);
        if seen != self.user_agent {
            self.user_agent = seen;
            self.declared_bot = declares_a_script(user_agent);
        }
        verdict.sign(0.8, f32::from(u8::from(self.declared_bot)), || {
            "declared: the user agent says that it is a script".to_owned()
        });
    }

    /// A person clicks on a page; a script calls the target. Compared with the share of all clicks without a page, so that it says nothing about traffic
    /// that never names one; a user of few clicks is taken to be like everybody.
    fn note_page(
        &mut self,
        click: &ClickEvent<'_>,
        without_page_of_all: f32,
        verdict: &mut Verdict,
    ) {
        self.clicks = self.clicks.saturating_add(1);
        self.clicks_without_page = self
            .clicks_without_page
            .saturating_add(u32::from(click.page.is_none()));
        let (clicks, without) = (self.clicks, self.clicks_without_page);
        let share =
            (without as f32 + PRIOR_CLICKS * without_page_of_all) / (clicks as f32 + PRIOR_CLICKS);
        verdict.sign(0.5, rising(share, without_page_of_all, 1.0), || {
            format!(
                "no page: {without} of {clicks} clicks name none, of all clicks {:.0} % do not",
                without_page_of_all * 100.0
            )
        });
    }
}

/// 0 at `from` and below, 1 at `to` and above, evenly between.
fn rising(value: f32, from: f32, to: f32) -> f32 {
    if value <= from {
        0.0
    } else if value >= to {
        1.0
    } else {
        (value - from) / (to - from)
    }
}

/// Words that scripts put into their user agent, lower case.
const SCRIPTS: &[&str] = &[
    "crawl",
    "spider",
    "headless",
    "phantomjs",
    "selenium",
    "scrapy",
    "curl/",
    "wget/",
    "libwww",
    "python-",
    "python/",
    "go-http-client",
    "java/",
];

/// Whether a user agent names a script, or a word that ends in `bot` (but for the phones named Cubot).
fn declares_a_script(user_agent: &str) -> bool {
    let lower = user_agent.to_ascii_lowercase();
    SCRIPTS.iter().any(|word| lower.contains(word))
        || lower.match_indices("bot").any(|(at, word)| {
            let ends = !lower[at + word.len()..].starts_with(|next: char| next.is_alphabetic());
            ends && !lower[..at].ends_with("cu")
        })
}

/// A score as it comes together.
struct Verdict {
    /// Probability that none of the signs so far means a script.
    innocence: f32,
    reasons: Vec<String>,
}

impl Verdict {
    fn innocent() -> Self {
        Self {
            innocence: 1.0,
            reasons: Vec::new(),
        }
    }

    fn sign(&mut self, weight: f32, strength: f32, reason: impl FnOnce() -> String) {
        let part = weight * strength;
        self.innocence *= 1.0 - part;
        if part >= REASON_MIN {
            self.reasons.push(reason());
        }
    }

    fn score(&self) -> f32 {
        1.0 - self.innocence
    }
}
