//! What a program, or a person paid by the click, does in a visit: its targets, and the gaps between its clicks.

use super::{
    cast::{Appearance, Role},
    catalogue::Catalogue,
    journey::{Around, Fact, Page, Thing},
    random::mix,
};

/// Targets of one campaign.
const TARGETS: u64 = 3;

/// A visit that follows a plan.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Script {
    role: Role,
    campaign: u64,
    page: Page,
    target: u32,
    period_ms: i64,
    clicks_left: u32,
}

impl Script {
    /// The plan of a visit, for the roles that have one.
    pub(crate) fn of(appearance: &Appearance, around: &mut Around<'_>) -> Option<Self> {
        let random = &mut *around.random;
        let pace = mix(appearance.campaign ^ 4) as i64 & 0x7ff;
        let (clicks, period_ms) = match appearance.role {
            Role::AdClicks => (60 + random.below(180), 600 + pace),
            Role::ItemSweep => (80 + random.below(200), 500 + pace / 2),
            Role::ClickFarm => (8 + random.below(13), 3_500 + pace),
            Role::ScriptedClicker => (60 + random.below(120), 2_000 + pace),
            Role::DistributedBot => (3 + random.below(5), 2_500 + pace),
            Role::SlowCrawler => (150, 35_000 + 10 * pace),
            Role::TestTraffic => (60, 60_000),
            _ => return None,
        };
        let items = around.catalogue.items();
        Some(Self {
            role: appearance.role,
            campaign: appearance.campaign,
            page: Page::Home,
            target: match appearance.role {
                Role::ItemSweep => random.below(items),
                // Goes on where its last visit ended.
                Role::SlowCrawler => (appearance.turn * clicks) % items,
                _ => 0,
            },
            period_ms,
            clicks_left: clicks,
        })
    }

    /// The next click, and how long until the one after it (none: the visit is over).
    pub(crate) fn step(&mut self, around: &mut Around<'_>) -> (Fact, Option<i64>) {
        let page = self.page;
        let (element, thing, next) = self.choose(around);
        self.page = next;
        self.clicks_left = self.clicks_left.saturating_sub(1);
        let fact = Fact::Click {
            page,
            element,
            thing,
        };
        (fact, (self.clicks_left > 0).then(|| self.gap_ms(around)))
    }

    fn gap_ms(&self, around: &mut Around<'_>) -> i64 {
        let random = &mut *around.random;
        match self.role {
            // A timer, and the network's jitter.
            Role::AdClicks | Role::ItemSweep => {
                let jitter_ms = self.period_ms / 50;
                self.period_ms + random.between(-jitter_ms, jitter_ms + 1)
            }
            Role::TestTraffic => self.period_ms + random.between(-150, 151),
            // What its author took for human.
            Role::ScriptedClicker => random.log_normal(self.period_ms, 10).max(250),
            Role::SlowCrawler => random.log_normal(self.period_ms, 5),
            // People, or a good likeness of them.
            _ => random.log_normal(self.period_ms, 14).max(300),
        }
    }

    /// One of the campaign's targets: things that are promoted on the day.
    fn aim(&self, around: &mut Around<'_>) -> u32 {
        let which = u64::from(around.random.below(TARGETS as u32));
        match self.role {
            Role::ClickFarm | Role::AdClicks => {
                let mut of_campaign = super::random::Random::new(self.campaign, which);
                around
                    .catalogue
                    .any_promoted(around.now_ms, &mut of_campaign)
            }
            _ => (mix(self.campaign ^ which) % u64::from(around.catalogue.items())) as u32,
        }
    }

    fn choose(&mut self, around: &mut Around<'_>) -> (&'static str, Thing, Page) {
        match self.role {
            Role::AdClicks => {
                let target = self.aim(around);
                ("banner", Thing::Item(target), Page::Home)
            }
            Role::ItemSweep | Role::SlowCrawler => {
                let target = self.target;
                self.target = (target + 1) % around.catalogue.items();
                let next = Page::List(Catalogue::genre(self.target));
                ("card", Thing::Item(target), next)
            }
            Role::ClickFarm => self.click_for_pay(around),
            Role::ScriptedClicker => {
                let target = self.aim(around);
                let element = match self.page {
                    Page::Item(_) => "related",
                    _ => "card",
                };
                (element, Thing::Item(target), Page::Item(target))
            }
            Role::DistributedBot => match self.page {
                Page::Item(target) if around.random.chance(600) => {
                    ("add-to-cart", Thing::Item(target), self.page)
                }
                Page::Item(_) => ("home", Thing::Nothing, Page::Home),
                _ => {
                    let target = self.aim(around);
                    ("card", Thing::Item(target), Page::Item(target))
                }
            },
            _ => self.look_after_the_site(),
        }
    }

    fn click_for_pay(&self, around: &mut Around<'_>) -> (&'static str, Thing, Page) {
        match self.page {
            Page::Item(item) if around.random.chance(350) => {
                ("gallery", Thing::Item(item), self.page)
            }
            Page::Item(_) => ("home", Thing::Nothing, Page::Home),
            _ => {
                let target = self.aim(around);
                ("banner", Thing::Item(target), Page::Item(target))
            }
        }
    }

    /// Home, search, a result, and back: the same every time.
    fn look_after_the_site(&self) -> (&'static str, Thing, Page) {
        match self.page {
            Page::Home => ("search", Thing::Nothing, Page::Search),
            Page::Search => ("result", Thing::Item(0), Page::Item(0)),
            _ => ("home", Thing::Nothing, Page::Home),
        }
    }
}
