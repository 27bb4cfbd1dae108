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
/// Clicks of all users after which what they do counts as much as the assumption that every other click names no page.
const PRIOR_TRAFFIC: f32 = 100.0;
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
        user.note_rate(at_ms, &mut verdict);
        user.note_rhythm(at_ms, &mut verdict);
        user.note_hours(at_ms, &mut verdict);
        user.note_target(click, &mut verdict);
        user.note_user_agent(click, &mut verdict);
        let without_page_of_all = (self.clicks_without_page as f32 + PRIOR_TRAFFIC / 2.0)
            / (self.clicks as f32 + PRIOR_TRAFFIC);
        user.note_page(click, without_page_of_all, &mut verdict);
        self.clicks += 1;
        self.clicks_without_page += u64::from(click.page.is_none());
        verdict
    }
}

impl Behaviour {
    /// Rate. A person's burst is some ten clicks in ten seconds; a click every five seconds is much for ten minutes, one every second is not done by hand.
    fn note_rate(&mut self, at_ms: i64, verdict: &mut Verdict) {
        let in_short = self.short.add(at_ms);
        verdict.sign(0.5, rising(in_short, 15.0, 50.0), || {
            format!("fast: {in_short:.0} clicks in 10 seconds")
        });
        let in_long = self.long.add(at_ms);
        verdict.sign(0.5, rising(in_long, 120.0, 600.0), || {
            format!("tireless: {in_long:.0} clicks in 10 minutes")
        });
    }

    /// Regularity. A person's gaps spread as widely as those of random arrivals (coefficient of variation 1) or wider, and about a tenth of them lie within a
    /// tenth of the median. A timer's do not spread; with a jitter of ± 50 % their variation is .3, and where the network delays some, most are still near the median.
    fn note_rhythm(&mut self, at_ms: i64, verdict: &mut Verdict) {
        if let Some(latest_ms) = self.latest_ms {
            let gap_ms = (at_ms - latest_ms).max(0);
            if gap_ms <= GAP_MS_MAX {
                self.gaps.add(gap_ms as u32);
            }
        }
        self.latest_ms = Some(self.latest_ms.map_or(at_ms, |latest| latest.max(at_ms)));
        let Some(rhythm) = self.gaps.rhythm().filter(|rhythm| rhythm.gaps >= GAPS_MIN) else {
            return;
        };
        let even = 1.0 - rising(rhythm.variation, 0.05, 0.4);
        let clustered = rising(rhythm.near_median, 0.4, 0.8);
        let enough = rhythm.gaps as f32 / REMEMBERED as f32;
        verdict.sign(0.75, even.max(clustered) * enough, || {
            let (gaps, seconds) = (rhythm.gaps, rhythm.median_ms as f32 / 1000.0);
            if even > clustered {
                let spread = rhythm.variation * 100.0;
                format!("like a clock: {gaps} gaps of {seconds:.1} seconds ± {spread:.0} %")
            } else {
                let share = rhythm.near_median * 100.0;
                format!("like a clock: {share:.0} % of {gaps} gaps are about {seconds:.1} seconds")
            }
        });
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

    /// A person clicks on a page; a script calls the target. What counts is by how much a user exceeds the share of all clicks without a page, so that it
    /// says nothing about traffic that never names one; a user of few clicks is taken to be like everybody.
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
        verdict.sign(0.5, (share - without_page_of_all).max(0.0), || {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        State {
            users: Lru::new(100),
            clicks: 0,
            clicks_without_page: 0,
        }
    }

    fn click<'a>(user_id: &'a str, item_id: &'a str) -> ClickEvent<'a> {
        ClickEvent {
            user_id,
            item_id: Some(item_id),
            page: Some("/films"),
            user_agent: Some(
                "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
            ),
            ..ClickEvent::default()
        }
    }

    /// Scores of one user's clicks with these gaps, each on another item of `items`.
    fn scores(gaps_ms: impl IntoIterator<Item = i64>, items: usize) -> Vec<f32> {
        let mut state = state();
        let mut at_ms = 1_763_812_800_000;
        gaps_ms
            .into_iter()
            .enumerate()
            .map(|(index, gap_ms)| {
                at_ms += gap_ms;
                let item = format!("item-{}", index % items);
                state.judge(&click("u", &item), at_ms).score()
            })
            .collect()
    }

    /// Gaps as people have them: mostly some seconds, now and then minutes. A fixed sequence, heavy-tailed: 0.4 s divided by an even share.
    fn human_gaps(count: i64) -> impl Iterator<Item = i64> {
        (1..=count).map(|index| 400_000 / (1 + index * 619 % 997))
    }

    #[test]
    fn a_script_that_clicks_like_a_clock_scores_high_within_twenty_clicks() {
        let scores = scores((0..60).map(|_| 1_500), 1);
        assert!(scores[20] > 0.7, "{scores:?}");
        assert!(scores[0] < 0.1);
    }

    #[test]
    fn a_script_with_jitter_and_a_network_between_still_scores() {
        let gaps = (0..60).map(|index| {
            if index % 9 == 0 {
                9_000
            } else {
                1_400 + index * 37 % 200
            }
        });
        let scores = scores(gaps, 1);
        assert!(scores[40] > 0.6, "{scores:?}");
    }

    #[test]
    fn an_innocent_power_user_scores_low_all_day() {
        let scores = scores(human_gaps(2_000), 40);
        let worst = scores.iter().copied().fold(0.0, f32::max);
        let mean = scores.iter().sum::<f32>() / scores.len() as f32;
        assert!(worst < 0.3 && mean < 0.15, "worst {worst}, mean {mean}");
    }

    #[test]
    fn every_reason_begins_with_its_sign_and_a_colon() {
        let mut state = state();
        let mut reasons = Vec::new();
        for index in 0..40_000 {
            let at_ms = 1_763_812_800_000 + index * 2_000;
            let click = ClickEvent {
                page: None,
                user_agent: Some("curl/8.14"),
                ..click("u", "item")
            };
            let other = state.judge(
                &ClickEvent {
                    user_id: "other",
                    ..self::click("", "item")
                },
                at_ms,
            );
            assert!(other.score() < 0.999);
            reasons = state.judge(&click, at_ms).reasons;
        }
        let signs: Vec<&str> = reasons
            .iter()
            .filter_map(|reason| Some(reason.split_once(": ")?.0))
            .collect();
        assert_eq!(
            signs,
            [
                "tireless",
                "like a clock",
                "sleepless",
                "repetitive",
                "declared",
                "no page"
            ]
        );
    }

    #[test]
    fn scripts_that_say_so_are_told_from_phones_and_browsers() {
        for script in [
            "Mozilla/5.0 (compatible; ExampleBot/2.1; +https://bot.example)",
            "curl/8.14.1",
            "python-requests/2.32",
            "HeadlessChrome/140.0",
        ] {
            assert!(declares_a_script(script), "{script}");
        }
        for person in [
            "Mozilla/5.0 (Linux; Android 14; CUBOT P80) AppleWebKit/537.36",
            "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0 Bottega",
            "",
        ] {
            assert!(!declares_a_script(person), "{person}");
        }
    }

    #[test]
    fn traffic_that_never_names_a_page_is_not_blamed_for_it() {
        let mut state = state();
        for index in 0..5_000_i64 {
            let user = format!("u{}", index % 50);
            let click = ClickEvent {
                page: None,
                ..click(&user, "item")
            };
            let reasons = state.judge(&click, index * 1_000).reasons;
            assert!(index < 500 || !reasons.iter().any(|reason| reason.starts_with("no page")));
        }
    }
}
