//! One visit: where it came from, the pages it walks through, what it clicks and watches.
//!
//! A session decides one event at a time ([`Session::step`]) and says how long until its next one; merging the sessions by time is the
//! business of `Traffic`. Sessions are reused with their strings, so that an event costs no allocation.

use super::{
    cast::{Appearance, Role},
    catalogue::Catalogue,
    identity::Identity,
    people::{Network, Origin, Person, Taste, clock_skew_ms},
    playback::{Playback, Quality, Report},
    random::{Random, Weighted, mix},
    scenario::Scenario,
    script::Script,
};

/// Where visits come from, with the campaign that paid for it; weights in the order of [`SOURCE_WEIGHTS`].
const SOURCES: [(Option<&str>, Option<&str>); 7] = [
    (None, None),
    (Some("https://www.google.com/"), None),
    (Some("https://www.google.com/"), Some("search-brand")),
    (Some("https://www.youtube.com/"), Some("trailers")),
    (Some("https://www.facebook.com/"), Some("autumn-sale")),
    (Some("https://news.ycombinator.com/"), None),
    (None, Some("newsletter")),
];
const SOURCE_WEIGHTS: [u32; 7] = [40, 25, 12, 8, 8, 3, 4];

/// After a title a viewer goes on to another one in so many of a thousand cases.
const GOES_ON_PER_THOUSAND: u32 = 350;

/// A page of the site.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Page {
    #[default]
    Home,
    Search,
    List(u8),
    Title(u32),
    Item(u32),
}

/// What an element stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Thing {
    Nothing,
    Title(u32),
    Item(u32),
}

/// What happened, without the words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fact {
    Click {
        page: Page,
        element: &'static str,
        thing: Thing,
    },
    Watch(Report),
}

impl Default for Fact {
    fn default() -> Self {
        Fact::Click {
            page: Page::Home,
            element: "",
            thing: Thing::Nothing,
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
enum Doing {
    #[default]
    Browsing,
    Watching(Playback),
    Scripted(Script),
}

/// Titles that somebody has begun, a bit for each: people rarely watch the same title again.
pub(crate) fn has_begun(begun: &[u64], title: u32) -> bool {
    begun[title as usize / 64] & (1 << (title % 64)) != 0
}

/// What a session needs of the world around it to decide its next event.
pub(crate) struct Around<'a> {
    pub(crate) catalogue: &'a Catalogue,
    pub(crate) scenario: &'a Scenario,
    pub(crate) sources: &'a Sources,
    pub(crate) random: &'a mut Random,
    pub(crate) begun: &'a mut [u64],
    pub(crate) now_ms: i64,
}

impl Around<'_> {
    fn title(&mut self, taste: Taste) -> u32 {
        let genre = taste.genre(self.catalogue, self.random);
        self.title_of(genre, taste)
    }

    /// A title of a genre that was not begun, if that is found soon.
    fn title_of(&mut self, genre: u8, taste: Taste) -> u32 {
        let mut title = 0;
        for _ in 0..8 {
            title = taste.title_of(genre, self.catalogue, self.random);
            if !has_begun(self.begun, title) {
                break;
            }
        }
        title
    }

    fn item(&mut self, taste: Taste) -> u32 {
        let genre = taste.genre(self.catalogue, self.random);
        self.catalogue.any_item(genre, self.random)
    }
}

/// One visit of one user on one device.
#[derive(Default)]
pub(crate) struct Session {
    pub(crate) identity: Identity,
    /// The user's place among the people; none for the cast, and for a visit whose user goes on elsewhere meanwhile.
    pub(crate) user: Option<u32>,
    /// When its latest event occurred.
    pub(crate) last_at_ms: i64,
    /// When its next event occurs if nothing delays it.
    pub(crate) next_at_ms: i64,
    /// What occurs before arrives only then.
    pub(crate) online_at_ms: i64,
    pub(crate) events: u32,
    /// Of a session without a place among the people.
    pub(crate) begun: Vec<u64>,
    pub(crate) network: Network,
    /// Decides instead of the world's: a visit that is sent again decides the same every time.
    recorded: Option<Box<Random>>,
    taste: Taste,
    doing: Doing,
    page: Page,
    clicks_left: u32,
    playbacks: u64,
    session_bits: u64,
    /// Came to buy, not to watch.
    shops: bool,
    /// Think time, in hundredths of the usual.
    pace_percent: i64,
}

/// Who comes.
pub(crate) struct Visitor {
    pub(crate) person: Person,
    pub(crate) origin: Origin,
    /// Of the cast only.
    pub(crate) appearance: Option<Appearance>,
}

impl Session {
    /// Begins a visit.
    pub(crate) fn open(&mut self, visitor: &Visitor, around: &mut Around<'_>) {
        let Visitor {
            person,
            origin,
            appearance,
        } = visitor;
        let role = appearance.map_or(Role::Plain, |appearance| appearance.role);
        // A recording shows the taste of who was recorded, whatever account sends it.
        self.taste = match appearance {
            Some(appearance) if role == Role::ReplayedSession => Taste::of(appearance.campaign),
            _ => person.taste,
        };
        self.network = origin.network;
        self.online_at_ms = i64::MIN;
        self.events = 0;
        self.playbacks = 0;
        self.session_bits = around.random.bits();
        let skew_ms = clock_skew_ms(origin.device, around.scenario.skewed_clocks_per_thousand);
        self.identity
            .begin(*person, origin, role, self.session_bits, skew_ms);
        self.recorded = appearance
            .filter(|_| role == Role::ReplayedSession)
            .map(|appearance| Box::new(Random::new(appearance.campaign, 3)));
        let script = appearance.and_then(|appearance| Script::of(&appearance, around));
        self.doing = script.map_or(Doing::Browsing, Doing::Scripted);
        self.pace_percent = if role == Role::PowerUser { 25 } else { 100 };
        self.decide(around, |session, around| session.plan(role, around));
    }

    /// Where the visit begins, what for, and how long it may be.
    fn plan(&mut self, role: Role, around: &mut Around<'_>) {
        (self.identity.referrer, self.identity.campaign) = around.sources.draw(around.random);
        let came_from = (self.identity.referrer, self.identity.campaign);
        let shoppers_per_thousand = match role {
            // Clicks much: who watches clicks little.
            Role::PowerUser => 1_000,
            _ => around.scenario.shoppers_per_thousand,
        };
        self.shops = around.random.chance(shoppers_per_thousand);
        self.clicks_left = match role {
            Role::PowerUser => 70 + around.random.below(100),
            Role::ReplayedSession => 14 + around.random.below(16),
            Role::CredentialSharing => 20,
            _ if came_from != (None, None)
                && around.random.chance(around.scenario.bounces_per_thousand) =>
            {
                1
            }
            _ => 2 + around.random.skewed(0, 30) as u32,
        };
        self.page = match came_from {
            _ if role == Role::CredentialSharing => {
                self.shops = false;
                Page::Title(around.title(self.taste))
            }
            (_, Some("trailers")) => Page::Title(around.title(self.taste)),
            (_, Some(_)) => Page::Item(around.item(self.taste)),
            // A search engine's result leads to what was searched for.
            (Some(_), None) if !self.shops => Page::Title(around.title(self.taste)),
            (Some(_), None) => Page::Item(around.item(self.taste)),
            (None, None) => Page::Home,
        };
    }

    /// Lets a recorded visit decide by its own randomness.
    fn decide<T>(
        &mut self,
        around: &mut Around<'_>,
        decide: impl FnOnce(&mut Self, &mut Around<'_>) -> T,
    ) -> T {
        let Some(mut own) = self.recorded.take() else {
            return decide(self, around);
        };
        let outcome = decide(
            self,
            &mut Around {
                catalogue: around.catalogue,
                scenario: around.scenario,
                sources: around.sources,
                random: &mut own,
                begun: &mut *around.begun,
                now_ms: around.now_ms,
            },
        );
        self.recorded = Some(own);
        outcome
    }

    /// The event that occurs now, and how long until the next one (none: the visit is over).
    pub(crate) fn step(&mut self, at_ms: i64, around: &mut Around<'_>) -> (Fact, Option<i64>) {
        let elapsed_ms = at_ms - self.last_at_ms;
        self.last_at_ms = at_ms;
        self.events += 1;
        self.decide(around, |session, around| session.act(elapsed_ms, around))
    }

    fn act(&mut self, elapsed_ms: i64, around: &mut Around<'_>) -> (Fact, Option<i64>) {
        match &mut self.doing {
            Doing::Scripted(script) => script.step(around),
            Doing::Watching(playback) => {
                let (report, next) = playback.step(elapsed_ms, around.random);
                let next = next.or_else(|| self.after_watching(around));
                (Fact::Watch(report), next)
            }
            Doing::Browsing => self.click(around),
        }
    }

    fn think_ms(&self, median_ms: i64, around: &mut Around<'_>) -> i64 {
        let think_ms = around.random.log_normal(median_ms, 20);
        (think_ms * self.pace_percent / 100).clamp(350, 1_200_000)
    }

    fn after_watching(&mut self, around: &mut Around<'_>) -> Option<i64> {
        self.doing = Doing::Browsing;
        // The player closes onto more of the same genre; the title just seen is not offered again.
        if let Page::Title(title) = self.page {
            self.page = Page::List(Catalogue::genre(title));
        }
        if around.random.chance(GOES_ON_PER_THOUSAND) {
            self.clicks_left = self.clicks_left.max(2);
        }
        (self.clicks_left > 0).then(|| self.think_ms(7_000, around))
    }

    fn click(&mut self, around: &mut Around<'_>) -> (Fact, Option<i64>) {
        let page = self.page;
        let (element, thing, next_page) = self.choose(around);
        let fact = Fact::Click {
            page,
            element,
            thing,
        };
        self.page = next_page;
        self.clicks_left = self.clicks_left.saturating_sub(1);
        if let ("play", Thing::Title(title)) = (element, thing) {
            self.begin_playback(title, around);
            return (fact, Some(around.random.between(200, 1_500)));
        }
        let gap_ms = self.think_ms(8_000, around);
        (fact, (self.clicks_left > 0).then_some(gap_ms))
    }

    fn begin_playback(&mut self, title: u32, around: &mut Around<'_>) {
        around.begun[title as usize / 64] |= 1 << (title % 64);
        self.playbacks += 1;
        self.identity
            .begin_playback(mix(self.session_bits ^ self.playbacks));
        let duration_ms = around.catalogue.duration_ms(title);
        let completes = self.taste.completes_per_thousand(title, duration_ms);
        let quality = Quality::of(self.network, self.identity.country, around.now_ms);
        let playback = Playback::new(title, duration_ms, completes, quality, around.random);
        self.doing = Doing::Watching(playback);
    }

    /// Which element of the present page is clicked, what it stands for, and the page that follows.
    fn choose(&self, around: &mut Around<'_>) -> (&'static str, Thing, Page) {
        let to_title = |element, title| (element, Thing::Title(title), Page::Title(title));
        let to_item = |element, item| (element, Thing::Item(item), Page::Item(item));
        let roll = around.random.below(100);
        match (self.page, self.shops) {
            (Page::Home, _) if roll < 25 => {
                let genre = self.taste.genre(around.catalogue, around.random);
                ("menu", Thing::Nothing, Page::List(genre))
            }
            (Page::Home, _) if roll < 37 => ("search", Thing::Nothing, Page::Search),
            (Page::Home, false) => match roll {
                37..92 => to_title("hero", around.title(self.taste)),
                _ => to_item("card", around.item(self.taste)),
            },
            (Page::Home, true) => match roll {
                37..80 => to_item("card", around.item(self.taste)),
                80..94 => {
                    let promoted = around.catalogue.any_promoted(around.now_ms, around.random);
                    to_item("banner", promoted)
                }
                _ => to_title("hero", around.title(self.taste)),
            },
            (Page::Search, shops) => match roll {
                0..85 if shops => to_item("result", around.item(self.taste)),
                0..85 => to_title("result", around.title(self.taste)),
                _ => ("refine", Thing::Nothing, Page::Search),
            },
            (Page::List(genre), shops) => match roll {
                0..75 if shops => to_item("card", around.catalogue.any_item(genre, around.random)),
                0..75 => to_title("card", around.title_of(genre, self.taste)),
                75..90 => ("next-page", Thing::Nothing, self.page),
                _ => ("filter", Thing::Nothing, self.page),
            },
            (Page::Title(title), _) => match roll {
                0..60 => ("play", Thing::Title(title), self.page),
                60..68 => ("trailer", Thing::Title(title), self.page),
                68..90 => to_title("related", around.title(self.taste)),
                _ => ("back", Thing::Nothing, Page::List(Catalogue::genre(title))),
            },
            (Page::Item(item), _) => match roll {
                0..20 => ("add-to-cart", Thing::Item(item), self.page),
                20..45 => ("gallery", Thing::Item(item), self.page),
                45..55 => ("reviews", Thing::Item(item), self.page),
                55..68 => to_item("related", around.catalogue.goes_with(item)),
                68..80 => {
                    let genre = Catalogue::genre(item);
                    to_item("related", around.catalogue.any_item(genre, around.random))
                }
                _ => ("home", Thing::Nothing, Page::Home),
            },
        }
    }
}

impl Page {
    pub(crate) fn path(self, catalogue: &Catalogue) -> &str {
        match self {
            Page::Home => "/",
            Page::Search => "/search",
            Page::List(genre) => catalogue.list(genre),
            Page::Title(title) => &catalogue.title(title).page,
            Page::Item(item) => &catalogue.item(item).page,
        }
    }
}

impl Thing {
    pub(crate) fn id(self, catalogue: &Catalogue) -> Option<&str> {
        match self {
            Thing::Nothing => None,
            Thing::Title(title) => Some(&catalogue.title(title).id),
            Thing::Item(item) => Some(&catalogue.item(item).id),
        }
    }
}

/// Where visits come from.
pub(crate) struct Sources(Weighted);

impl Sources {
    pub(crate) fn new() -> Self {
        Self(Weighted::new(SOURCE_WEIGHTS))
    }

    fn draw(&self, random: &mut Random) -> (Option<&'static str>, Option<&'static str>) {
        SOURCES[self.0.draw(random) as usize]
    }
}
