//! One visit: where it came from, the pages it walks through, what it clicks and watches.
//!
//! A session decides one event at a time ([`Session::step`]) and says how long until its next one; merging the sessions by time is the
//! business of `Traffic`. Sessions are reused with their strings, so that an event costs no allocation.

use activity_schemas::{ClickEvent, Event, WatchEvent};

use super::{
    attack::{Attack, Script},
    catalogue::Catalogue,
    people::{Person, Taste, write_hex_id},
    playback::{Playback, Report},
    random::Random,
};

/// Where visits come from, with the campaign that paid for it; the weight is in the order of [`SOURCE_WEIGHTS`].
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Page {
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

#[derive(Clone, Copy, Debug)]
enum Doing {
    Browsing,
    Watching(Playback),
    Scripted(Script),
}

/// The titles that a user has begun, hashed into 128 bits: people rarely watch the same title again.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Begun([u64; 2]);

impl Begun {
    fn bit(title: u32) -> (usize, u64) {
        let hash = title.wrapping_mul(0x9e37_79b1) >> 25;
        ((hash >> 6) as usize, 1 << (hash & 63))
    }

    fn contains(self, title: u32) -> bool {
        let (word, bit) = Self::bit(title);
        self.0[word] & bit != 0
    }

    fn insert(&mut self, title: u32) {
        let (word, bit) = Self::bit(title);
        self.0[word] |= bit;
    }
}

/// What a session needs of the world around it to decide its next event.
pub(crate) struct Around<'a> {
    pub(crate) catalogue: &'a Catalogue,
    pub(crate) random: &'a mut Random,
    pub(crate) begun: &'a mut Begun,
}

impl Around<'_> {
    fn title(&mut self, taste: Taste) -> u32 {
        let mut title = 0;
        for _ in 0..4 {
            title = taste.title(self.catalogue, self.random);
            if !self.begun.contains(title) {
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
pub(crate) struct Session {
    pub(crate) user: u32,
    pub(crate) attack: Option<Attack>,
    /// When its latest event occurred.
    pub(crate) last_at_ms: i64,
    /// When its next event occurs if nothing delays it.
    pub(crate) next_at_ms: i64,
    user_id: String,
    session_id: String,
    device_id: String,
    ip: String,
    playback_id: String,
    country: &'static str,
    user_agent: &'static str,
    referrer: Option<&'static str>,
    campaign: Option<&'static str>,
    taste: Taste,
    doing: Doing,
    page: Page,
    clicks_left: u32,
}

impl Session {
    /// An empty one, to be opened.
    pub(crate) fn closed() -> Self {
        Self {
            user: 0,
            attack: None,
            last_at_ms: 0,
            next_at_ms: 0,
            user_id: String::new(),
            session_id: String::new(),
            device_id: String::new(),
            ip: String::new(),
            playback_id: String::new(),
            country: "",
            user_agent: "",
            referrer: None,
            campaign: None,
            taste: Taste::default(),
            doing: Doing::Browsing,
            page: Page::Home,
            clicks_left: 0,
        }
    }

    /// Begins a visit of this person.
    pub(crate) fn open(
        &mut self,
        user: u32,
        person: Person,
        sources: &Sources,
        around: &mut Around<'_>,
    ) {
        let device = around.random.below(person.devices());
        self.user = user;
        self.attack = person.attack;
        self.taste = person.taste;
        self.country = person.country();
        self.user_agent = person.user_agent(device);
        person.write_user_id(&mut self.user_id);
        person.write_device_id(device, &mut self.device_id);
        person.write_ip(device, &mut self.ip);
        write_hex_id('s', around.random.bits(), &mut self.session_id);
        (self.referrer, self.campaign) = sources.draw(around.random);
        self.clicks_left = 2 + around.random.skewed(0, 30) as u32;
        self.doing = match person.attack {
            Some(attack) => Doing::Scripted(Script::new(attack, around.catalogue, around.random)),
            None => Doing::Browsing,
        };
        self.page = match self.campaign {
            Some("trailers") => Page::Title(around.title(self.taste)),
            Some(_) => Page::Item(around.item(self.taste)),
            None => Page::Home,
        };
    }

    /// The event that occurs now, and how long until the next one (none: the visit is over).
    pub(crate) fn step(&mut self, now_ms: i64, around: &mut Around<'_>) -> (Fact, Option<i64>) {
        let elapsed_ms = now_ms - self.last_at_ms;
        self.last_at_ms = now_ms;
        match &mut self.doing {
            Doing::Scripted(script) => script.step(around.catalogue, around.random),
            Doing::Watching(playback) => {
                let (report, next) = playback.step(elapsed_ms, around.random);
                let next = next.or_else(|| self.after_watching(around));
                (Fact::Watch(report), next)
            }
            Doing::Browsing => self.click(around),
        }
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
        (self.clicks_left > 0).then(|| around.random.skewed(1_500, 60_000))
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
        let gap_ms = around.random.skewed(900, 45_000);
        (fact, (self.clicks_left > 0).then_some(gap_ms))
    }

    fn begin_playback(&mut self, title: u32, around: &mut Around<'_>) {
        around.begun.insert(title);
        write_hex_id('p', around.random.bits(), &mut self.playback_id);
        let duration_ms = around.catalogue.duration_ms(title);
        let completes = self.taste.completes_per_thousand(title, duration_ms);
        self.doing = Doing::Watching(Playback::new(title, duration_ms, completes, around.random));
    }

    /// Which element of the present page is clicked, what it stands for, and the page that follows.
    fn choose(&self, around: &mut Around<'_>) -> (&'static str, Thing, Page) {
        let to_title = |element, title| (element, Thing::Title(title), Page::Title(title));
        let to_item = |element, item| (element, Thing::Item(item), Page::Item(item));
        let roll = around.random.below(100);
        match self.page {
            Page::Home => match roll {
                0..30 => {
                    let genre = self.taste.genre(around.catalogue, around.random);
                    ("menu", Thing::Nothing, Page::List(genre))
                }
                30..60 => to_title("hero", around.title(self.taste)),
                60..78 => to_item("card", around.item(self.taste)),
                78..90 => ("search", Thing::Nothing, Page::Search),
                _ => to_item("banner", around.catalogue.any_promoted(around.random)),
            },
            Page::Search => match roll {
                0..50 => to_title("result", around.title(self.taste)),
                50..85 => to_item("result", around.item(self.taste)),
                _ => ("refine", Thing::Nothing, Page::Search),
            },
            Page::List(genre) => match roll {
                0..45 => to_title("card", around.catalogue.any_title(genre, around.random)),
                45..75 => to_item("card", around.catalogue.any_item(genre, around.random)),
                75..90 => ("next-page", Thing::Nothing, self.page),
                _ => ("filter", Thing::Nothing, self.page),
            },
            Page::Title(title) => match roll {
                0..60 => ("play", Thing::Title(title), self.page),
                60..68 => ("trailer", Thing::Title(title), self.page),
                68..90 => to_title("related", around.title(self.taste)),
                _ => ("back", Thing::Nothing, Page::List(Catalogue::genre(title))),
            },
            Page::Item(item) => match roll {
                0..20 => ("add-to-cart", Thing::Item(item), self.page),
                20..45 => ("gallery", Thing::Item(item), self.page),
                45..55 => ("reviews", Thing::Item(item), self.page),
                55..80 => {
                    let genre = Catalogue::genre(item);
                    to_item("related", around.catalogue.any_item(genre, around.random))
                }
                _ => ("home", Thing::Nothing, Page::Home),
            },
        }
    }

    /// The fact in full, borrowing from session and catalogue.
    pub(crate) fn event<'a>(
        &'a self,
        fact: Fact,
        event_id: &'a str,
        (occurred_at, received_at): (i64, i64),
        catalogue: &'a Catalogue,
    ) -> Event<'a> {
        match fact {
            Fact::Click {
                page,
                element,
                thing,
            } => Event::Click(ClickEvent {
                event_id,
                occurred_at,
                received_at,
                user_id: &self.user_id,
                session_id: Some(&self.session_id),
                device_id: Some(&self.device_id),
                ip: Some(&self.ip),
                country: Some(self.country),
                user_agent: Some(self.user_agent),
                page: Some(page.path(catalogue)),
                element: Some(element),
                item_id: thing.id(catalogue),
                referrer: self.referrer,
                campaign: self.campaign,
            }),
            Fact::Watch(report) => Event::Watch(WatchEvent {
                event_id,
                occurred_at,
                received_at,
                user_id: &self.user_id,
                session_id: Some(&self.session_id),
                device_id: Some(&self.device_id),
                ip: Some(&self.ip),
                country: Some(self.country),
                video_id: &catalogue.title(report.title).id,
                playback_id: Some(&self.playback_id),
                action: report.action,
                position_ms: Some(report.position_ms),
                duration_ms: Some(report.duration_ms),
                rebuffer_ms: Some(report.rebuffer_ms),
            }),
        }
    }
}

impl Page {
    fn path(self, catalogue: &Catalogue) -> &str {
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
    fn id(self, catalogue: &Catalogue) -> Option<&str> {
        match self {
            Thing::Nothing => None,
            Thing::Title(title) => Some(&catalogue.title(title).id),
            Thing::Item(item) => Some(&catalogue.item(item).id),
        }
    }
}

/// Where visits come from.
pub(crate) struct Sources(super::random::Weighted);

impl Sources {
    pub(crate) fn new() -> Self {
        Self(super::random::Weighted::new(SOURCE_WEIGHTS))
    }

    fn draw(&self, random: &mut Random) -> (Option<&'static str>, Option<&'static str>) {
        SOURCES[self.0.draw(random) as usize]
    }
}
