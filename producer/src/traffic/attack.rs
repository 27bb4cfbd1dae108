//! Who is not a person: scripts, with the truth about them.
//!
//! A script clicks in regular gaps, from few addresses and devices, over many accounts. The truth travels in headers only, so that no group but
//! `truth` can learn from it.

use super::{
    catalogue::Catalogue,
    journey::{Fact, Page, Thing},
    random::Random,
};

/// Kinds of attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attack {
    /// Clicks on one advertisement over and over.
    AdClicks,
    /// Opens one item's page after the other.
    ItemSweep,
}

impl Attack {
    /// One of them.
    pub(crate) fn of(bits: u64) -> Self {
        if bits.is_multiple_of(2) {
            Attack::AdClicks
        } else {
            Attack::ItemSweep
        }
    }

    /// The name in the header.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Attack::AdClicks => "ad-clicks",
            Attack::ItemSweep => "item-sweep",
        }
    }
}

/// A script at work.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Script {
    attack: Attack,
    target: u32,
    period_ms: i64,
    clicks_left: u32,
}

impl Script {
    pub(crate) fn new(attack: Attack, catalogue: &Catalogue, random: &mut Random) -> Self {
        Self {
            attack,
            target: match attack {
                Attack::AdClicks => catalogue.any_promoted(random),
                Attack::ItemSweep => random.below(catalogue.items()),
            },
            period_ms: random.between(600, 2500),
            clicks_left: 60 + random.below(240),
        }
    }

    /// The next click, and how long until the one after it (none: the script is done).
    pub(crate) fn step(
        &mut self,
        catalogue: &Catalogue,
        random: &mut Random,
    ) -> (Fact, Option<i64>) {
        let (page, element) = match self.attack {
            Attack::AdClicks => (Page::Home, "banner"),
            Attack::ItemSweep => (Page::List(Catalogue::genre(self.target)), "card"),
        };
        let fact = Fact::Click {
            page,
            element,
            thing: Thing::Item(self.target),
        };
        if self.attack == Attack::ItemSweep {
            self.target = (self.target + 1) % catalogue.items();
        }
        self.clicks_left = self.clicks_left.saturating_sub(1);
        let jitter_ms = self.period_ms / 50;
        let gap_ms = self.period_ms + random.between(-jitter_ms, jitter_ms + 1);
        (fact, (self.clicks_left > 0).then_some(gap_ms))
    }
}
