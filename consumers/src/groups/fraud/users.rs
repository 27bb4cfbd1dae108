//! Stage 1, beside the partitions of `clicks`: what a user did lately, and what the targets are like that the user goes to.
//!
//! About 760 bytes a user and 60 bytes a target. Clocks are the collecting service's (`received_at`), because a script sets its own as it likes.

use activity_schemas::ClickEvent;
use serde::{Deserialize, Serialize};

use super::habits::{Clock, DAY_MS, Distinct, Mean, Repeats, Sequence, Targets, number};
use super::judge::{Readings, suspicion};
use super::norms::{Norms, counts};
use super::signs::{Figures, Id, USER_SIGNS};
use crate::StaleSnapshot;
use crate::fingerprint::{fingerprint, fingerprint_of_kind};
use crate::lru::Lru;
use crate::windows::{ActiveHours, LastGaps, SlidingCount};

/// A longer silence ends a visit and is no gap between clicks: the bound that sessions have too.
pub(super) const GAP_MS_MAX: i64 = 1_800_000;
/// Fewer gaps do not show whether they are regular.
pub(super) const GAPS_MIN: usize = 8;
/// A user is new for that long.
const NEW_MS: i64 = 3_600_000;
/// A change of device within that time is a switch.
const SWITCH_MS_MAX: u32 = 600_000;
/// As many clicks of everybody stand before a user's first.
const PRIOR_CLICKS: f32 = 3.0;

/// Stage 1 of one partition.
#[derive(Serialize, Deserialize)]
pub(super) struct Users {
    users: Lru<User>,
    targets: Lru<Target>,
    norms: Norms,
    clock: Clock,
    /// Users that were new so far.
    users_seen: u64,
    without_page: Mean<255>,
    jumping: Mean<255>,
    suspicion: Mean<255>,
}

/// What one user did lately.
#[derive(Clone, Default, Serialize, Deserialize)]
struct User {
    first_ms: i64,
    latest_ms: i64,
    burst: SlidingCount<10_000>,
    minute: SlidingCount<60_000>,
    ten_minutes: SlidingCount<600_000>,
    hour: SlidingCount<3_600_000>,
    day: SlidingCount<DAY_MS>,
    visits: SlidingCount<DAY_MS>,
    sampled_hour: i64,
    sampled: u32,
    gaps: LastGaps,
    rhythm: Repeats,
    path: Repeats,
    targets: Targets,
    pages: Targets,
    distinct: Distinct<4>,
    sequence: Sequence,
    hours: ActiveHours,
    without_page: Mean<64>,
    jumping: Mean<64>,
    rarity: Mean<32>,
    company: Mean<32>,
    surge: Mean<16>,
    switching: Mean<16>,
    addresses: Distinct<1>,
    devices: Distinct<1>,
    device: u64,
    user_agent: u64,
    declared: bool,
    visits_today: f32,
}

/// What a target is like.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Target {
    first_ms: i64,
    users: f32,
    clicks: f32,
    lately: SlidingCount<600_000>,
    suspicion: Mean<64>,
}

/// What stage 1 finds of one click.
pub(super) struct Found {
    pub(super) readings: Readings,
    /// How suspicious the user is by itself, 0 to 1.
    pub(super) suspicion: f32,
    pub(super) is_new: bool,
    pub(super) target: Option<u64>,
    pub(super) number: Option<i64>,
}

type Values = [Option<f32>; USER_SIGNS];

impl Users {
    pub(super) fn new(actors_max: usize) -> Self {
        Self {
            users: Lru::new(actors_max),
            targets: Lru::new(actors_max),
            norms: Norms::new(0, USER_SIGNS),
            clock: Clock::default(),
            users_seen: 0,
            without_page: Mean::default(),
            jumping: Mean::default(),
            suspicion: Mean::default(),
        }
    }

    pub(super) fn bounded(mut self, actors_max: usize) -> Result<Self, StaleSnapshot> {
        if !self.norms.fit(0, USER_SIGNS) {
            return Err(StaleSnapshot("norms of other signs".to_owned()));
        }
        self.users = self.users.bounded(actors_max);
        self.targets = self.targets.bounded(actors_max);
        Ok(self)
    }

    /// Takes one click.
    pub(super) fn note(&mut self, click: &ClickEvent<'_>, at_ms: i64) -> Found {
        let filled = |field: Option<&str>| field.filter(|text| !text.is_empty()).map(fingerprint);
        let target_name = [click.item_id, click.element, click.page]
            .into_iter()
            .flatten()
            .find(|text| !text.is_empty());
        let target = target_name.map(fingerprint);
        let user = self.users.touch(fingerprint(click.user_id));
        if user.first_ms == 0 {
            user.first_ms = at_ms.max(1);
            self.users_seen += 1;
        }
        let number = click.item_id.and_then(number);
        let mut figures = [[0.0; 2]; USER_SIGNS];
        let mut values: Values = [None; USER_SIGNS];
        let mut note = |id: Id, value: Option<f32>, of: Figures| {
            values[id as usize] = value;
            figures[id as usize] = of;
        };
        self.clock.note(at_ms);
        user.note_rate(at_ms, &self.clock, &mut note);
        let gap_ms = user.note_rhythm(at_ms, &self.clock, &mut note);
        user.note_address(filled(click.ip), at_ms, &mut note);
        user.note_device(filled(click.device_id), gap_ms, at_ms, &mut note);
        user.note_page(click, (&self.without_page, &self.jumping), &mut note);
        let mut first_visit = None;
        if let Some(target) = target {
            user.note_path(target, number, &mut note);
            let is_first = user.distinct.add(target, at_ms);
            let entry = self.targets.touch(target);
            user.note_target(
                entry,
                is_first,
                (self.users_seen, at_ms),
                &self.suspicion,
                &mut note,
            );
            first_visit = is_first.then_some(entry);
        }
        user.note_user_agent(click, &mut note);
        let mut readings = Readings::default();
        for (sign, surprise) in self.norms.surprises(&values) {
            readings.note(sign, surprise, figures[sign]);
        }
        let suspicion = suspicion(&readings, Id::Company);
        if let Some(target) = first_visit {
            target.suspicion.add(suspicion);
        }
        if user.is_sample(at_ms) {
            self.norms.learn(&values);
            self.suspicion.add(suspicion);
            self.without_page
                .add(user.without_page.with_prior(0.0, 0.0));
            self.jumping.add(user.jumping.with_prior(0.0, 0.0));
        }
        Found {
            readings,
            suspicion,
            is_new: at_ms - user.first_ms < NEW_MS,
            target,
            number,
        }
    }
}

impl User {
    fn note_rate(
        &mut self,
        at_ms: i64,
        clock: &Clock,
        note: &mut impl FnMut(Id, Option<f32>, Figures),
    ) {
        let day = self.day.add(at_ms);
        let counts = [
            (Id::Burst, self.burst.add(at_ms), 10_000),
            (Id::Minute, self.minute.add(at_ms), 60_000),
            (Id::TenMinutes, self.ten_minutes.add(at_ms), 600_000),
            (Id::Hour, self.hour.add(at_ms), 3_600_000),
            (Id::Day, day, DAY_MS),
        ];
        for (id, count, within_ms) in counts {
            note(id, clock.tells(within_ms).then(|| count.ln()), [count, 0.0]);
        }
        let hours = self.hours.add(at_ms) as f32;
        note(Id::Hours, Some(hours), [hours, 0.0]);
        if self.latest_ms == 0 || at_ms - self.latest_ms > GAP_MS_MAX {
            self.visits_today = self.visits.add(at_ms);
        }
        let visits = self.visits_today.max(1.0);
        note(Id::Visits, Some(visits.ln()), [visits, 0.0]);
        let shallow = (visits >= 3.0).then_some(visits / day.max(1.0));
        note(Id::Shallow, shallow, [day / visits, visits]);
    }

    /// Tells the gap before this click, where it is one.
    fn note_rhythm(
        &mut self,
        at_ms: i64,
        clock: &Clock,
        note: &mut impl FnMut(Id, Option<f32>, Figures),
    ) -> Option<u32> {
        let gap_ms = gap_ms(&mut self.latest_ms, at_ms);
        if let Some(gap_ms) = gap_ms.filter(|_| clock.tells(10_000)) {
            self.gaps.add(gap_ms);
            // Within a tenth of each other, since a network delays what a script repeats.
            self.rhythm
                .add(1 + ((gap_ms as f32 + 1.0).ln() * 10.0) as u64);
        }
        if let Some(rhythm) = self.gaps.rhythm().filter(|rhythm| rhythm.gaps >= GAPS_MIN) {
            let seconds = rhythm.median_ms as f32 / 1000.0;
            note(
                Id::Even,
                Some(-(rhythm.variation + 0.02).ln()),
                [seconds, rhythm.variation * 100.0],
            );
            note(
                Id::Tame,
                Some(-(rhythm.spread + 0.02).ln()),
                [seconds, rhythm.spread.exp()],
            );
            note(
                Id::Clustered,
                Some(rhythm.near_median),
                [seconds, rhythm.near_median * 100.0],
            );
            let share = self.rhythm.share();
            note(Id::Rhythm, share, [share.unwrap_or(0.0) * 100.0, 0.0]);
        }
        gap_ms
    }

    fn note_path(
        &mut self,
        target: u64,
        number: Option<i64>,
        note: &mut impl FnMut(Id, Option<f32>, Figures),
    ) {
        self.targets.add(target);
        self.path.add(target);
        let path = self.path.share();
        note(Id::Path, path, [path.unwrap_or(0.0) * 100.0, 0.0]);
        if let Some((fewness, distinct)) = self.targets.fewness() {
            note(Id::Few, Some(fewness), [distinct, 16.0]);
        }
        if let Some(number) = number {
            self.sequence.add(number);
        }
        let sequence = self.sequence.share();
        note(
            Id::Sequence,
            sequence,
            [sequence.unwrap_or(0.0) * 100.0, 0.0],
        );
    }

    fn note_target(
        &mut self,
        target: &mut Target,
        is_first: bool,
        (users_seen, at_ms): (u64, i64),
        usual_suspicion: &Mean<255>,
        note: &mut impl FnMut(Id, Option<f32>, Figures),
    ) {
        if target.first_ms == 0 {
            target.first_ms = at_ms.max(1);
        }
        let lately = target.lately.add(at_ms);
        let age = ((at_ms - target.first_ms) as f32 / 600_000.0).max(1.0);
        let factor = (lately + 2.0) / (target.clicks / age + 2.0);
        target.clicks += 1.0;
        self.surge.add(factor.ln());
        let surge = self.surge.of_at_least(4);
        note(Id::Surge, surge, [surge.unwrap_or(0.0).exp(), 0.0]);
        if is_first {
            let odds = (users_seen as f32 + 1.0) / (target.users + 0.5);
            self.rarity.add(odds.ln());
            // What was said of the target before this user came.
            let usual = usual_suspicion.with_prior(0.05, 4.0);
            self.company.add(target.suspicion.with_prior(usual, 3.0));
            target.users += 1.0;
        }
        let distinct = self.distinct.count();
        note(Id::Many, Some(distinct.max(1.0).ln()), [distinct, 0.0]);
        let rarity = self.rarity.of_at_least(1);
        note(Id::Rare, rarity, [rarity.unwrap_or(0.0).exp(), 0.0]);
        let company = self.company.of_at_least(1);
        note(Id::Company, company, [company.unwrap_or(0.0) * 100.0, 0.0]);
    }

    /// A person clicks on a page, and came there by a click on it or a click that led to it; a script calls targets. A user of few clicks is taken to be like
    /// everybody.
    fn note_page(
        &mut self,
        click: &ClickEvent<'_>,
        (without_page, jumping): (&Mean<255>, &Mean<255>),
        note: &mut impl FnMut(Id, Option<f32>, Figures),
    ) {
        let page = click.page.filter(|page| !page.is_empty());
        self.without_page.add(f32::from(u8::from(page.is_none())));
        let names = page.map(place_names);
        let leads = names.is_some_and(|names| names.iter().any(|name| self.pages.contains(*name)));
        self.jumping.add(f32::from(u8::from(!leads)));
        if let Some([whole, path, _]) = names {
            self.pages.add_new(whole);
            self.pages.add_new(path);
        }
        if let Some(item) = click.item_id {
            self.pages.add_new(fingerprint(item));
        }
        let of = f32::from(self.without_page.values());
        let share = |own: &Mean<64>, all: &Mean<255>| {
            own.with_prior(all.with_prior(0.3, 8.0), PRIOR_CLICKS)
        };
        let count = |own: &Mean<64>| (own.with_prior(0.0, 0.0) * of).round();
        note(
            Id::NoPage,
            Some(share(&self.without_page, without_page)),
            [count(&self.without_page), of],
        );
        note(
            Id::Jumps,
            Some(share(&self.jumping, jumping)),
            [count(&self.jumping), of],
        );
    }

    fn note_address(
        &mut self,
        ip: Option<u64>,
        at_ms: i64,
        note: &mut impl FnMut(Id, Option<f32>, Figures),
    ) {
        if let Some(ip) = ip {
            self.addresses.add(ip, at_ms);
            let addresses = self.addresses.count();
            note(
                Id::Addresses,
                Some(addresses.max(1.0).ln()),
                [addresses, 0.0],
            );
        }
    }

    fn note_device(
        &mut self,
        device: Option<u64>,
        gap_ms: Option<u32>,
        at_ms: i64,
        note: &mut impl FnMut(Id, Option<f32>, Figures),
    ) {
        let Some(device) = device else {
            return;
        };
        self.devices.add(device, at_ms);
        let devices = self.devices.count();
        note(Id::Devices, Some(devices.max(1.0).ln()), [devices, 0.0]);
        if self.device != 0 {
            let soon = gap_ms.is_some_and(|gap_ms| gap_ms <= SWITCH_MS_MAX);
            self.switching
                .add(f32::from(u8::from(device != self.device && soon)));
        }
        self.device = device;
        let switching = self.switching.of_at_least(6);
        note(
            Id::Switching,
            switching,
            [switching.unwrap_or(0.0) * 100.0, 0.0],
        );
    }

    fn note_user_agent(
        &mut self,
        click: &ClickEvent<'_>,
        note: &mut impl FnMut(Id, Option<f32>, Figures),
    ) {
        let Some(user_agent) = click.user_agent else {
            return;
        };
        let seen = fingerprint_of_kind(1, user_agent);
        if seen != self.user_agent {
            self.user_agent = seen;
            self.declared = declares_a_script(user_agent);
        }
        note(
            Id::Declared,
            Some(f32::from(u8::from(self.declared))),
            [0.0; 2],
        );
    }

    /// Whether the user counts for the norms at this click.
    fn is_sample(&mut self, at_ms: i64) -> bool {
        sample(&mut self.sampled_hour, &mut self.sampled, at_ms)
    }
}

/// The gap before an actor's click; none before its first, after a silence that ends a visit, and where time steps back.
pub(super) fn gap_ms(latest_ms: &mut i64, at_ms: i64) -> Option<u32> {
    let gap_ms = at_ms - *latest_ms;
    let follows = *latest_ms != 0;
    *latest_ms = at_ms.max(*latest_ms);
    (follows && (0..=GAP_MS_MAX).contains(&gap_ms)).then_some(gap_ms as u32)
}

/// Whether an actor counts for the norms at this click.
pub(super) fn sample(hour: &mut i64, clicks: &mut u32, at_ms: i64) -> bool {
    let now = at_ms.div_euclid(3_600_000);
    if now > *hour {
        (*hour, *clicks) = (now, 0);
    }
    *clicks = clicks.saturating_add(1);
    counts(*clicks)
}

/// A page's names: the whole, its path, and the last part of the path, by which a click may have led to it.
fn place_names(page: &str) -> [u64; 3] {
    let path = match page.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("/", |at| &rest[at..]),
        None => page,
    };
    let last = path
        .trim_end_matches('/')
        .rsplit('/')
        .next()
        .unwrap_or(path);
    [page, path, last].map(fingerprint)
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

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_click_leads_to_the_page_that_is_named_after_its_target() {
        let [whole, path, last] = place_names("https://shop.example/item/i42/");
        assert_eq!(whole, fingerprint("https://shop.example/item/i42/"));
        assert_eq!(path, fingerprint("/item/i42/"));
        assert_eq!(last, fingerprint("i42"));
    }
}
