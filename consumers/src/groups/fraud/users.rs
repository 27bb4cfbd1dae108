//! Stage 1, beside the partitions of `clicks`: what a user did lately.
//!
//! About 720 bytes a user. Clocks are the collecting service's (`received_at`), because a script sets its own as it likes.

use activity_schemas::ClickEvent;
use serde::{Deserialize, Serialize};

use super::filled;
use super::habits::{
    Clock, DAY_MS, Distinct, GAP_MS_MAX, Mean, Repeats, Sequence, Targets, Way, number,
};
use super::judge::REASON_MIN;
use super::norms::{counts, may_surprise};
use super::signs::{Figures, Id, SIGNS, Sign, USER_SIGNS};
use crate::fingerprint::{fingerprint, fingerprint_of_kind};
use crate::lru::Lru;
use crate::windows::{ActiveHours, LastGaps, SlidingCount};

/// Fewer gaps do not show whether they are regular.
pub(super) const GAPS_MIN: usize = 8;
/// A user is new for that long.
const NEW_MS: i64 = 3_600_000;
/// A change of device within that time is a switch.
const SWITCH_MS_MAX: u32 = 600_000;
/// Steps of a value within its sign's range, on its way to stage 2.
const STEPS: f32 = 254.0;

/// Stage 1 of one partition.
#[derive(Serialize, Deserialize)]
pub(super) struct Users {
    users: Lru<User>,
    clock: Clock,
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
    way: Way,
    distinct: Distinct<4>,
    sequence: Sequence,
    hours: ActiveHours,
    without_page: Mean<64>,
    jumping: Mean<64>,
    switching: Mean<16>,
    addresses: Distinct<1>,
    devices: Distinct<1>,
    device: u64,
    user_agent: u64,
    declared: bool,
    visits_today: f32,
}

/// What stage 1 sees of a click, for stage 2.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Seen {
    /// Each sign's value as its place in the sign's range, from 1 to 255; 0: not known.
    values: [u8; USER_SIGNS],
    /// Figures of what may become a reason.
    figures: Vec<(u8, f32, f32)>,
    pub(super) target: Option<u64>,
    /// The item that the user chose before this one.
    pub(super) came_from: Option<u64>,
    /// In the target's name.
    pub(super) number: Option<i64>,
    /// The user was not seen at the target since the day before.
    pub(super) is_first_visit: bool,
    /// The user came up a short while ago.
    pub(super) is_new: bool,
    /// The user counts for the norms at this click.
    pub(super) is_sample: bool,
    /// Clicks that the two shares are of.
    pub(super) page_clicks: u8,
    /// Share of the user's clicks that name no page.
    pub(super) without_page: f32,
    /// Share of the user's clicks on pages that no earlier click led to.
    pub(super) jumping: f32,
}

/// The value of each of a user's signs, where it is known.
pub(super) type Values = [Option<f32>; USER_SIGNS];

impl Seen {
    fn new(values: &Values, figures: &[Figures; USER_SIGNS]) -> Self {
        let known = || SIGNS.iter().zip(values).enumerate();
        let mut steps = [0; USER_SIGNS];
        for (step, (sign, value)) in steps.iter_mut().zip(SIGNS.iter().zip(values)) {
            *step = value.map_or(0, |value| step_of(sign, value));
        }
        let telling = known().filter_map(|(index, (sign, value))| {
            let [first, second] = figures[index];
            may_surprise(sign, (*value)?, REASON_MIN).then_some((index as u8, first, second))
        });
        Self {
            values: steps,
            figures: telling.collect(),
            target: None,
            came_from: None,
            number: None,
            is_first_visit: false,
            is_new: false,
            is_sample: false,
            page_clicks: 0,
            without_page: 0.0,
            jumping: 0.0,
        }
    }

    /// Values and figures of a user's signs; those that need the site are not known yet.
    pub(super) fn signs(&self) -> (Values, [Figures; USER_SIGNS]) {
        let mut values = [None; USER_SIGNS];
        for (value, (sign, step)) in values.iter_mut().zip(SIGNS.iter().zip(self.values)) {
            let (from, to) = sign.range;
            *value = (step > 0).then(|| from + f32::from(step - 1) / STEPS * (to - from));
        }
        let mut figures = [[0.0; 2]; USER_SIGNS];
        for (sign, first, second) in &self.figures {
            if let Some(figures) = figures.get_mut(usize::from(*sign)) {
                *figures = [*first, *second];
            }
        }
        (values, figures)
    }
}

/// Where a value lies in its sign's range, from 1 to 255.
fn step_of(sign: &Sign, value: f32) -> u8 {
    let (from, to) = sign.range;
    1 + (((value - from) / (to - from)).clamp(0.0, 1.0) * STEPS).round() as u8
}

impl Users {
    pub(super) fn new(actors_max: usize) -> Self {
        Self {
            users: Lru::new(actors_max),
            clock: Clock::default(),
        }
    }

    pub(super) fn bounded(self, actors_max: usize) -> Self {
        Self {
            users: self.users.bounded(actors_max),
            clock: self.clock,
        }
    }

    /// Takes one click.
    pub(super) fn note(&mut self, click: &ClickEvent<'_>, at_ms: i64) -> Seen {
        let target_name = [click.item_id, click.element, click.page]
            .into_iter()
            .find_map(filled);
        let target = target_name.map(fingerprint);
        let number = click.item_id.and_then(number);
        let user = self.users.touch(fingerprint(click.user_id));
        if user.first_ms == 0 {
            user.first_ms = at_ms.max(1);
        }
        let mut figures = [[0.0; 2]; USER_SIGNS];
        let mut values: Values = [None; USER_SIGNS];
        let mut note = |id: Id, value: Option<f32>, of: Figures| {
            values[id as usize] = value;
            figures[id as usize] = of;
        };
        self.clock.note(at_ms);
        user.note_rate(at_ms, &self.clock, &mut note);
        let gap_ms = user.note_rhythm(at_ms, &self.clock, &mut note);
        user.note_address(filled(click.ip).map(fingerprint), at_ms, &mut note);
        let device = filled(click.device_id).map(fingerprint);
        user.note_device(device, gap_ms, at_ms, &mut note);
        user.note_page(click);
        user.note_user_agent(click, &mut note);
        let is_first_visit =
            target.is_some_and(|target| user.note_target(target, number, at_ms, &mut note));
        let came_from = filled(click.item_id)
            .and_then(|item| user.way.to(fingerprint(item), at_ms))
            .filter(|_| self.clock.tells(10_000));
        Seen {
            target,
            came_from,
            number,
            is_first_visit,
            is_new: at_ms - user.first_ms < NEW_MS,
            is_sample: user.is_sample(at_ms),
            page_clicks: user.without_page.values(),
            without_page: user.without_page.mean(),
            jumping: user.jumping.mean(),
            ..Seen::new(&values, &figures)
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

    /// Tells whether the user was not there before.
    fn note_target(
        &mut self,
        target: u64,
        number: Option<i64>,
        at_ms: i64,
        note: &mut impl FnMut(Id, Option<f32>, Figures),
    ) -> bool {
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
        let is_first = self.distinct.add(target, at_ms);
        let distinct = self.distinct.count();
        note(Id::Many, Some(distinct.max(1.0).ln()), [distinct, 0.0]);
        is_first
    }

    /// A person clicks on a page, and came there by a click on it or a click that led to it; a script calls targets.
    fn note_page(&mut self, click: &ClickEvent<'_>) {
        let page = filled(click.page);
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
    fn what_stage_2_is_told_of_a_value_is_right_within_a_step() {
        for (index, sign) in SIGNS.iter().enumerate().take(USER_SIGNS) {
            let (from, to) = sign.range;
            for share in [-0.5, 0.0, 0.013, 0.5, 0.77, 1.0, 1.5] {
                let value = from + share * (to - from);
                let mut values: Values = [None; USER_SIGNS];
                values[index] = Some(value);
                let (told, figures) = Seen::new(&values, &[[3.0, 4.0]; USER_SIGNS]).signs();
                let off = (told[index].unwrap() - value.clamp(from, to)).abs();
                assert!(off <= (to - from) / STEPS, "{}: {off}", sign.name);
                let odd = value >= sign.rare;
                assert!(!odd || figures[index] == [3.0, 4.0], "{}", sign.name);
                assert_eq!(told.iter().flatten().count(), 1);
            }
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
