//! Stage 2: the site as a whole. What is usual here; what the targets are like that users go to; addresses, devices, and episodes of suspicion.
//!
//! About 110 bytes a user, 170 bytes a target, 430 bytes an address or a device.

use serde::{Deserialize, Serialize};

use super::episodes::Episodes;
use super::habits::Mean;
use super::judge::{Readings, suspicion};
use super::norms::{Norms, counts};
use super::origins::Origins;
use super::places::Places;
use super::signs::{Figures, Id, USER_SIGNS};
use super::users::{Seen, Values};
use super::{Passing, filled};
use crate::StaleSnapshot;
use crate::fingerprint::fingerprint;
use crate::lru::Lru;

/// "Now", in clicks of the whole site. Not in time: while one source partition is behind, its clicks lack at every target alike, so that shares stay right.
const LATELY_CLICKS: f32 = 4_000.0;
/// As many clicks of everybody stand before a user's first.
const PRIOR_CLICKS: f32 = 3.0;

/// What is known of the site.
#[derive(Serialize, Deserialize)]
pub(super) struct Site {
    norms: Norms,
    clicks_seen: u64,
    /// Users that were new so far.
    users_seen: u64,
    without_page: Mean<255>,
    jumping: Mean<255>,
    suspicion: Mean<255>,
    visitors: Lru<Visitor>,
    targets: Lru<Target>,
    addresses: Places,
    devices: Places,
    pub(super) episodes: Episodes,
}

/// What the targets of a user are like.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Visitor {
    is_known: bool,
    rarity: Mean<32>,
    company: Mean<32>,
    surge: Mean<16>,
    circle: Mean<16>,
    same_path: Mean<16>,
}

/// What a target is like.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Target {
    /// Clicks of the site when the first of the target came, and when the latest did.
    first_at: u64,
    latest_at: u64,
    users: f32,
    clicks: f32,
    /// Clicks of the target, each the less the more clicks of the site came since.
    lately: f32,
    suspicion: Mean<64>,
    origins: Origins,
}

impl Site {
    pub(super) fn new(actors_max: usize) -> Self {
        Self {
            norms: Norms::new(0, USER_SIGNS),
            clicks_seen: 0,
            users_seen: 0,
            without_page: Mean::default(),
            jumping: Mean::default(),
            suspicion: Mean::default(),
            visitors: Lru::new(actors_max),
            targets: Lru::new(actors_max),
            addresses: Places::new(Id::AddressUsers, actors_max),
            devices: Places::new(Id::DeviceUsers, actors_max),
            episodes: Episodes::new(actors_max),
        }
    }

    pub(super) fn bounded(mut self, actors_max: usize) -> Result<Self, StaleSnapshot> {
        if !self.norms.fit(0, USER_SIGNS) {
            return Err(StaleSnapshot("norms of other signs".to_owned()));
        }
        self.visitors = self.visitors.bounded(actors_max);
        self.targets = self.targets.bounded(actors_max);
        self.addresses = self.addresses.bounded(Id::AddressUsers, actors_max)?;
        self.devices = self.devices.bounded(Id::DeviceUsers, actors_max)?;
        self.episodes = self.episodes.bounded(actors_max);
        Ok(self)
    }

    /// Takes one click; tells what is odd about it.
    pub(super) fn read(&mut self, click: &Passing<'_>) -> Readings {
        let mut readings = Readings::default();
        let suspicion = self.note_user(click, &mut readings);
        let (ip, device) = (filled(click.ip), filled(click.device_id));
        if let Some(ip) = ip {
            self.addresses
                .note(ip, device, click, suspicion, &mut readings);
        }
        if let Some(device) = device {
            self.devices
                .note(device, ip, click, suspicion, &mut readings);
        }
        readings
    }

    /// Tells how suspicious the user is by itself, from 0 to 1.
    fn note_user(&mut self, click: &Passing<'_>, readings: &mut Readings) -> f32 {
        let seen = &click.seen;
        let (mut values, mut figures) = seen.signs();
        let mut note = |id: Id, value: Option<f32>, of: Figures| {
            values[id as usize] = value;
            figures[id as usize] = of;
        };
        self.note_pages(seen, &mut note);
        let way = self.way(seen);
        let visitor = self.visitors.touch(fingerprint(click.user_id));
        if !visitor.is_known {
            visitor.is_known = true;
            self.users_seen += 1;
        }
        self.clicks_seen += 1;
        let mut circle = None;
        let mut target = seen.target.map(|target| self.targets.touch(target));
        if let Some(target) = &mut target {
            let surge = visitor.surge(target.note(self.clicks_seen));
            note(Id::Surge, surge, [surge.unwrap_or(0.0).exp(), 0.0]);
            if seen.is_first_visit {
                // What was said of the target before this user came.
                visitor.rarity.add(target.odds(self.users_seen).ln());
                let usual = self.suspicion.with_prior(0.05, 4.0);
                visitor.company.add(target.suspicion.with_prior(usual, 3.0));
                target.users += 1.0;
                circle = visitor.come(&mut target.origins, way);
            }
            let rarity = visitor.rarity.of_at_least(1);
            note(Id::Rare, rarity, [rarity.unwrap_or(0.0).exp(), 0.0]);
            let shares = [
                (Id::Company, visitor.company.of_at_least(1)),
                (Id::Circle, visitor.circle.of_at_least(1)),
                (Id::SamePath, visitor.same_path.of_at_least(1)),
            ];
            for (id, share) in shares {
                note(id, share, [share.unwrap_or(0.0) * 100.0, 0.0]);
            }
        }
        for (sign, surprise) in self.norms.surprises(&values) {
            readings.note(sign, surprise, figures[sign]);
        }
        let suspicion = suspicion(readings, Id::Company);
        if let Some(target) = target.filter(|_| seen.is_first_visit) {
            target.suspicion.add(suspicion);
        }
        self.learn(seen, values, suspicion, circle);
        suspicion
    }

    /// The target that a user came from, and which share of that one's users came to it from here.
    fn way(&mut self, seen: &Seen) -> Option<(u64, Option<f32>)> {
        let way = seen.came_from.zip(seen.target);
        let (origin, target) = way.filter(|_| seen.is_first_visit)?;
        let share_there = self.targets.touch(origin).origins.share(target);
        Some((origin, share_there))
    }

    /// A user of few clicks is taken to be like everybody.
    fn note_pages(&self, seen: &Seen, note: &mut impl FnMut(Id, Option<f32>, Figures)) {
        let clicks = f32::from(seen.page_clicks);
        let signs = [
            (Id::NoPage, seen.without_page, &self.without_page),
            (Id::Jumps, seen.jumping, &self.jumping),
        ];
        for (id, own, everybody) in signs {
            let prior = everybody.with_prior(0.3, 8.0) * PRIOR_CLICKS;
            let share = (own * clicks + prior) / (clicks + PRIOR_CLICKS);
            note(id, Some(share), [(own * clicks).round(), clicks]);
        }
    }

    /// What is usual is learned from users, but for circles: a campaign has many accounts and few targets, so that every target counts alike.
    fn learn(&mut self, seen: &Seen, mut values: Values, suspicion: f32, circle: Option<f32>) {
        let mut of_target = [None; USER_SIGNS];
        for id in [Id::Circle, Id::SamePath] {
            values[id as usize] = None;
            of_target[id as usize] = circle;
        }
        self.norms.learn(&of_target);
        if seen.is_sample {
            self.norms.learn(&values);
            self.suspicion.add(suspicion);
            self.without_page.add(seen.without_page);
            self.jumping.add(seen.jumping);
        }
    }
}

impl Visitor {
    /// Comes to a target that had such origins before, by a way as [`Site::way`] tells it; tells now and then how far the target is in a circle.
    fn come(&mut self, origins: &mut Origins, way: Option<(u64, Option<f32>)>) -> Option<f32> {
        if let Some(circle) = origins.circle() {
            self.circle.add(circle);
        }
        let (origin, share_there) = way?;
        if let Some(closeness) = origins.add(origin, share_there) {
            self.same_path.add(closeness);
        }
        counts(origins.users()).then(|| origins.circle().unwrap_or(0.0))
    }

    /// Mean of the logarithm of how much more the user's targets are clicked than usually.
    fn surge(&mut self, factor: f32) -> Option<f32> {
        self.surge.add(factor.ln());
        self.surge.of_at_least(4)
    }
}

impl Target {
    /// Takes the site's `now`-th click; tells how many times as much as usual the target is clicked now, by its share of all clicks.
    fn note(&mut self, now: u64) -> f32 {
        if self.first_at == 0 {
            (self.first_at, self.latest_at) = (now, now);
        }
        let passed = |since: u64| (now - since) as f32 / LATELY_CLICKS;
        self.lately = self.lately * (-passed(self.latest_at)).exp() + 1.0;
        self.latest_at = now;
        let age = passed(self.first_at);
        // Its clicks as they would count if they had come evenly since the first.
        let usual = self.clicks * (1.0 - (-age).exp()) / age.max(f32::MIN_POSITIVE);
        self.clicks += 1.0;
        (self.lately + 2.0) / (usual + 2.0)
    }

    /// One in how many users goes there.
    fn odds(&self, users_seen: u64) -> f32 {
        (users_seen as f32 + 1.0) / (self.users + 0.5)
    }
}
