//! Who is not one of the plain people: attackers, and the innocents who look like them, with the truth about them.
//!
//! Each role has a share of all events. It acts in campaigns: for some hours or days a fixed set of accounts, devices and addresses with one purpose, computed
//! from seed, role and time. As many campaigns run side by side as its share of the rate needs. The truth travels in headers only, so that no group but `truth`
//! can learn from it; ids, addresses and user agents are made just as those of people.

use super::{
    people::Origin,
    random::{Random, mix},
};

/// Numbers of accounts from here on belong to the cast, a block for each campaign.
const NUMBERS_FROM: u32 = 500_000_000;
const BLOCK: u32 = 1_000;
const BLOCKS_PER_ROLE: u64 = 33_000;

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;
const DAY_MS: i64 = 24 * HOUR_MS;

/// A part that is played.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Role {
    /// A person like most.
    #[default]
    Plain,
    /// Clicks on one advertisement over and over, at an even pace.
    AdClicks,
    /// Opens one item's page after the other, fast.
    ItemSweep,
    /// People in shifts, with a few devices and many accounts, click on what is promoted.
    ClickFarm,
    /// One account, scripted, with the gaps of a human.
    ScriptedClicker,
    /// One account, watched by many people in many places at once.
    CredentialSharing,
    /// One campaign over hundreds of accounts, devices and addresses, with little traffic each.
    DistributedBot,
    /// A recorded visit of a person, sent again and again.
    ReplayedSession,
    /// Opens every item in its order, for hours, with long gaps.
    SlowCrawler,
    /// Innocent: clicks much and fast.
    PowerUser,
    /// Innocent: many people behind one address.
    SharedAddress,
    /// Innocent: one device that many people use.
    Kiosk,
    /// Innocent: a monitor that looks politely whether the site works.
    TestTraffic,
}

/// What a role needs.
pub(crate) struct Habits {
    pub(crate) role: Role,
    /// In the header, and in scenario files.
    pub(crate) name: &'static str,
    pub(crate) is_attack: bool,
    /// So long accounts, devices, addresses and purpose stay the same.
    campaign_ms: i64,
    accounts: u32,
    /// How many devices and addresses a campaign has; none: each account has its own.
    devices: Option<u32>,
    addresses: Option<u32>,
    /// Events of a visit, roughly.
    visit_events: u32,
    /// Events of one campaign in a thousand seconds, as many as are plausible.
    events_per_1000_s: u64,
}

/// The roles beside plain people, in the order of [`Role`].
#[rustfmt::skip]
pub(crate) const CAST: [Habits; 12] = [
    habits(Role::AdClicks, "ad-clicks", true, 6 * HOUR_MS, 12, Some(6), Some(4), 150, 500),
    habits(Role::ItemSweep, "item-sweep", true, 6 * HOUR_MS, 6, Some(2), Some(1), 180, 500),
    habits(Role::ClickFarm, "click-farm", true, 7 * DAY_MS, 120, Some(6), Some(2), 14, 600),
    habits(Role::ScriptedClicker, "scripted-clicker", true, DAY_MS, 1, Some(1), Some(1), 120, 100),
    habits(Role::CredentialSharing, "credential-sharing", true, 14 * DAY_MS, 1, Some(8), Some(8), 30, 150),
    habits(Role::DistributedBot, "distributed-bot", true, 8 * HOUR_MS, 600, None, None, 5, 2_000),
    habits(Role::ReplayedSession, "replayed-session", true, 6 * HOUR_MS, 8, Some(3), Some(3), 25, 300),
    habits(Role::SlowCrawler, "slow-crawler", true, 3 * DAY_MS, 1, Some(1), Some(1), 150, 20),
    habits(Role::PowerUser, "power-user", false, 30 * DAY_MS, 1, Some(1), Some(1), 120, 60),
    habits(Role::SharedAddress, "shared-address", false, 60 * DAY_MS, 150, None, Some(1), 14, 1_000),
    habits(Role::Kiosk, "kiosk", false, 60 * DAY_MS, 250, Some(1), Some(1), 9, 80),
    habits(Role::TestTraffic, "test-traffic", false, 60 * DAY_MS, 1, Some(1), Some(1), 60, 20),
];

#[allow(clippy::too_many_arguments, reason = "a row of the table above")]
const fn habits(
    role: Role,
    name: &'static str,
    is_attack: bool,
    campaign_ms: i64,
    accounts: u32,
    devices: Option<u32>,
    addresses: Option<u32>,
    visit_events: u32,
    events_per_1000_s: u64,
) -> Habits {
    Habits {
        role,
        name,
        is_attack,
        campaign_ms,
        accounts,
        devices,
        addresses,
        visit_events,
        events_per_1000_s,
    }
}

impl Role {
    fn habits(self) -> Option<&'static Habits> {
        CAST.get((self as usize).checked_sub(1)?)
    }

    /// Value of the header that names the kind; empty for plain people.
    pub(crate) fn name(self) -> &'static str {
        self.habits().map_or("", |habits| habits.name)
    }

    /// Whether it is an attack.
    pub(crate) fn is_attack(self) -> bool {
        self.habits().is_some_and(|habits| habits.is_attack)
    }

    /// Whether this role does anything at this moment: attackers have breaks.
    fn is_awake(self, at_ms: i64) -> bool {
        let (every_ms, awake_ms) = self.duty();
        // Awake at the full hour.
        at_ms.rem_euclid(every_ms) < awake_ms
    }

    /// How long a round of work and rest is, and the work in it.
    fn duty(self) -> (i64, i64) {
        match self {
            // A shift's breaks.
            Role::ClickFarm => (HOUR_MS, 50 * MINUTE_MS),
            // Waves, so that no address is seen for long.
            Role::DistributedBot => (20 * MINUTE_MS, 10 * MINUTE_MS),
            _ => (1, 1),
        }
    }
}

/// One visit of a member of a campaign.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Appearance {
    pub(crate) role: Role,
    /// Same for all visits of the campaign: what it is after.
    pub(crate) campaign: u64,
    /// Which visit it is of those that this campaign's place in the world has seen.
    pub(crate) turn: u32,
    /// The account: number of a person.
    pub(crate) account: u32,
    pub(crate) origin: Origin,
}

#[derive(Clone, Copy)]
struct Part {
    per_million: u64,
    campaigns: u64,
    /// Events, in millionths, that are owed to the role's share (below zero: it had more).
    owed: i64,
    visits: u64,
}

/// Gives each role its share of the events.
pub(crate) struct Cast {
    seed: u64,
    parts: [Part; CAST.len()],
    events_since: u64,
    /// Which role is asked first next time.
    turn: usize,
}

impl Cast {
    /// Shares in millionths of all events, in the order of [`CAST`], in a world of so many events per 1000 s.
    pub(crate) fn new(seed: u64, shares: &[u32; CAST.len()], events_per_1000_s: u64) -> Self {
        let part = |index: usize| {
            let (habits, per_million) = (&CAST[index], u64::from(shares[index]));
            let needed = events_per_1000_s * per_million / 1_000_000;
            // They begin at different times, not all of them with the world.
            let visit = i64::from(habits.visit_events) * 1_000_000;
            let wait = mix(seed ^ mix(index as u64)) >> 1;
            Part {
                per_million,
                campaigns: needed.div_ceil(habits.events_per_1000_s).max(1),
                owed: -(wait as i64 % visit),
                visits: 0,
            }
        };
        Self {
            seed,
            parts: std::array::from_fn(part),
            events_since: 0,
            turn: 0,
        }
    }

    /// An event more, of whatever role.
    pub(crate) fn count(&mut self) {
        self.events_since += 1;
    }

    /// The visit that begins now to keep the shares, if one has to; `attacks_per_thousand` raises or lowers those of attackers.
    pub(crate) fn next(
        &mut self,
        at_ms: i64,
        attacks_per_thousand: u32,
        random: &mut Random,
    ) -> Option<Appearance> {
        let events = std::mem::take(&mut self.events_since);
        for (part, habits) in self.parts.iter_mut().zip(&CAST) {
            if !habits.role.is_awake(at_ms) {
                continue;
            }
            let (every_ms, awake_ms) = habits.role.duty();
            let level = if habits.is_attack {
                u64::from(attacks_per_thousand)
            } else {
                1_000
            };
            let share = part.per_million * level / 1_000 * every_ms as u64 / awake_ms as u64;
            part.owed += (events * share) as i64;
        }
        let roles = CAST.len();
        let turn = self.turn;
        let index = (0..roles)
            .map(|step| (turn + step) % roles)
            .find(|&index| {
                let part = &self.parts[index];
                part.per_million > 0 && part.owed > 0 && CAST[index].role.is_awake(at_ms)
            })?;
        self.turn = index + 1;
        let (part, habits) = (&mut self.parts[index], &CAST[index]);
        part.owed -= i64::from(habits.visit_events) * 1_000_000;
        let visit = part.visits;
        part.visits += 1;
        let campaigns = part.campaigns;
        Some(self.appearance(habits, visit, campaigns, at_ms, random))
    }

    /// A visit had its event of this number; it was charged for a usual visit when it began.
    pub(crate) fn spend(&mut self, role: Role, events: u32) {
        if let Some(habits) = role.habits()
            && events > habits.visit_events
        {
            self.parts[role as usize - 1].owed -= 1_000_000;
        }
    }

    /// A visit ended after so many events: what is left of its charge is given back.
    pub(crate) fn settle(&mut self, role: Role, events: u32) {
        if let Some(habits) = role.habits() {
            let unspent = habits.visit_events.saturating_sub(events);
            self.parts[role as usize - 1].owed += i64::from(unspent) * 1_000_000;
        }
    }

    fn appearance(
        &self,
        habits: &Habits,
        visit: u64,
        campaigns: u64,
        at_ms: i64,
        random: &mut Random,
    ) -> Appearance {
        let role = habits.role as u64;
        let lane = visit % campaigns;
        // Campaigns of one role do not all change at the same moment.
        let shift_ms = (mix((role << 32) ^ lane) >> 20) as i64 % habits.campaign_ms;
        let shift_ms = if habits.role == Role::ReplayedSession {
            // A recording fits the catalogue of its time.
            0
        } else {
            shift_ms
        };
        let period = (at_ms + shift_ms).div_euclid(habits.campaign_ms) as u64;
        let block = (period * campaigns + lane) % BLOCKS_PER_ROLE + (role - 1) * BLOCKS_PER_ROLE;
        let campaign = mix(mix(self.seed) ^ mix(block));
        let turn = (visit / campaigns) as u32;
        let member = match habits.role {
            // Whoever is on shift: a third of the accounts for eight hours.
            Role::ClickFarm => {
                let third = habits.accounts / 3;
                let shift = at_ms.div_euclid(8 * HOUR_MS).rem_euclid(3) as u32;
                shift * third + random.below(third)
            }
            Role::DistributedBot | Role::SharedAddress | Role::Kiosk => {
                random.below(habits.accounts)
            }
            _ => turn % habits.accounts,
        };
        let device = match habits.devices {
            Some(devices) => random.below(devices),
            None => BLOCK + member,
        };
        let address = match habits.addresses {
            // A device that is one of several stays where it is.
            Some(addresses) => device % addresses,
            None => BLOCK + member,
        };
        let bits = |what: u64, which: u32| mix(campaign ^ (what << 56) ^ mix(u64::from(which)));
        let address = bits(2, address);
        let country = match habits.role {
            Role::CredentialSharing | Role::DistributedBot => address,
            _ => campaign,
        };
        Appearance {
            role: habits.role,
            campaign,
            turn,
            account: NUMBERS_FROM + block as u32 * BLOCK + member,
            origin: Origin::of(bits(1, device), address, country),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_table_is_in_the_order_of_the_roles_and_names_are_unique() {
        let mut names = BTreeSet::new();
        for (index, habits) in CAST.iter().enumerate() {
            assert_eq!(habits.role as usize, index + 1);
            assert!(names.insert(habits.name));
            assert!(habits.accounts <= BLOCK);
        }
        assert_eq!(Role::Plain.name(), "");
        assert_eq!(Role::ClickFarm.name(), "click-farm");
        assert!(Role::SlowCrawler.is_attack() && !Role::Kiosk.is_attack());
    }

    /// Visits of one role alone, each as long as it is planned.
    fn visits(role: Role, count: usize) -> Vec<Appearance> {
        let mut shares = [0; CAST.len()];
        shares[role as usize - 1] = 500_000;
        let mut cast = Cast::new(3, &shares, 1_000);
        let mut random = Random::new(3, 0);
        let mut appearances = Vec::new();
        while appearances.len() < count {
            cast.count();
            appearances.extend(cast.next(1_767_225_600_000, 1_000, &mut random));
        }
        appearances
    }

    /// How many different accounts, devices and addresses one campaign has.
    fn spread(role: Role) -> [usize; 3] {
        let all = visits(role, 4_000);
        let of_first = all.iter().filter(|one| one.campaign == all[0].campaign);
        let (mut accounts, mut devices, mut addresses) =
            (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for one in of_first {
            accounts.insert(one.account);
            devices.insert(one.origin.device);
            addresses.insert(one.origin.address);
        }
        [accounts.len(), devices.len(), addresses.len()]
    }

    #[test]
    fn a_farm_has_few_devices_and_a_shift_of_accounts() {
        assert_eq!(spread(Role::ClickFarm), [40, 6, 2]);
    }

    #[test]
    fn a_distributed_bot_has_hundreds_of_everything() {
        for count in spread(Role::DistributedBot) {
            assert!(count > 300, "{count}");
        }
    }

    #[test]
    fn a_shared_account_is_watched_from_several_countries() {
        let countries: BTreeSet<&str> = visits(Role::CredentialSharing, 400)
            .iter()
            .map(|one| one.origin.country)
            .collect();
        assert!(countries.len() >= 3);
        assert_eq!(spread(Role::CredentialSharing), [1, 8, 8]);
    }

    #[test]
    fn a_kiosk_is_one_device_of_many_and_a_shared_address_one_address_of_many() {
        let [accounts, devices, addresses] = spread(Role::Kiosk);
        assert!(accounts > 100 && devices == 1 && addresses == 1);
        let [accounts, devices, addresses] = spread(Role::SharedAddress);
        assert!(accounts > 100 && devices > 100 && addresses == 1);
    }

    #[test]
    fn no_two_campaigns_share_an_account() {
        let mut owner = std::collections::BTreeMap::new();
        for habits in &CAST {
            for one in visits(habits.role, 500) {
                let before = owner.insert(one.account, one.campaign);
                assert!(before.is_none_or(|before| before == one.campaign));
            }
        }
    }
}
