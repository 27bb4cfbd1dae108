//! What there is to see: titles to watch, items to buy, the pages of the site.
//!
//! Titles and items belong to genres, and within a genre to styles. Within a genre popularity follows Zipf, and genres differ in popularity too. A title has a
//! life: it rises within two days of its release, falls to what its rank gives it, fades, and is taken off; its place in the ranking then goes to a new title.
//! All of it is computed from the moment, so that any moment can be had again.
//!
//! Every string is made at the beginning or when a title is released: events borrow them.

use super::random::{Random, Weighted, mix, times_exp2, zipf_weight};

/// Genres, the most popular first.
pub(crate) const GENRES: [&str; 12] = [
    "drama",
    "comedy",
    "crime",
    "documentary",
    "scifi",
    "romance",
    "thriller",
    "animation",
    "sport",
    "music",
    "kids",
    "horror",
];
/// The first genre is some five times as popular as the last.
const GENRES_FLATTER: u32 = 2;
/// Styles within each genre.
pub(crate) const STYLES: u32 = 4;
/// Items that banners on the home page stand for, on any one day.
const PROMOTED: u32 = 20;

const DAY_MS: i64 = 86_400_000;
/// So long popularities stay as they are.
pub(crate) const RENEWED_EVERY_MS: i64 = DAY_MS / 4;

/// Something with a page of its own: a title or an item.
pub(crate) struct Article {
    /// `t000042`, `i000042`: says nothing about popularity or genre.
    pub(crate) id: String,
    /// `/title/t000042`
    pub(crate) page: String,
}

impl Article {
    fn new(folder: &str, prefix: char, number: u64) -> Self {
        let id = format!("{prefix}{number:06}");
        let page = format!("/{folder}/{id}");
        Self { id, page }
    }
}

/// A title in its place of the ranking.
struct Title {
    article: Article,
    duration_ms: i64,
    /// Which title it is that has this place.
    release: i64,
    /// How often it is chosen within its genre, beside others.
    weight: u32,
}

/// Titles and items with their popularity.
pub(crate) struct Catalogue {
    titles: Vec<Title>,
    /// Numbers of ids, in an order that has nothing to do with popularity: a model that breaks ties by id must not profit.
    numbers: Vec<u32>,
    items: Vec<Article>,
    lists: Vec<String>,
    genres: Weighted,
    by_genre: Vec<Weighted>,
    by_style: Vec<Weighted>,
    item_ranks: Weighted,
    period: i64,
}

impl Catalogue {
    /// So many titles and items (at least one title of every style, and one item of every genre) at this moment.
    pub(crate) fn new(titles: u32, items: u32, at_ms: i64) -> Self {
        let genres = GENRES.len() as u32;
        let titles_each = titles.div_ceil(genres).max(STYLES);
        let items_each = items.div_ceil(genres).max(1);
        let mut catalogue = Self {
            titles: Vec::new(),
            numbers: shuffled(titles_each * genres),
            items: shuffled(items_each * genres)
                .into_iter()
                .map(|number| Article::new("item", 'i', u64::from(number)))
                .collect(),
            lists: GENRES.map(|genre| format!("/browse/{genre}")).to_vec(),
            genres: Weighted::zipf(genres, GENRES_FLATTER),
            by_genre: Vec::new(),
            by_style: Vec::new(),
            item_ranks: Weighted::zipf(items_each, 0),
            period: i64::MIN,
        };
        catalogue.renew(at_ms, |_| ());
        catalogue
    }

    /// Brings releases and popularities up to this moment; tells which places have a new title.
    pub(crate) fn renew(&mut self, at_ms: i64, mut released: impl FnMut(u32)) {
        let period = at_ms.div_euclid(RENEWED_EVERY_MS);
        if period == self.period {
            return;
        }
        self.period = period;
        let at_ms = period * RENEWED_EVERY_MS;
        for place in 0..self.numbers.len() as u32 {
            let life = Life::of(place, at_ms);
            let rank = place / GENRES.len() as u32;
            let weight = (u64::from(ZIPF_UNIT / (rank + 5)) * life.level_1024() / 1024) as u32;
            match self.titles.get_mut(place as usize) {
                Some(title) if title.release == life.release => title.weight = weight,
                had => {
                    let number = u64::from(self.numbers[place as usize])
                        + life.release.unsigned_abs() * self.numbers.len() as u64;
                    let title = Title {
                        article: Article::new("title", 't', number),
                        duration_ms: duration_ms(mix(
                            (u64::from(place) << 32) | life.release as u64
                        )),
                        release: life.release,
                        weight,
                    };
                    match had {
                        Some(had) => *had = title,
                        None => self.titles.push(title),
                    }
                    released(place);
                }
            }
        }
        let genres = GENRES.len() as u32;
        let table = |of: &dyn Fn(u32) -> bool| {
            let places = (0..self.titles.len() as u32).filter(|place| of(*place));
            let weights: Vec<u32> = places
                .map(|place| self.titles[place as usize].weight)
                .collect();
            Weighted::new(weights.iter().map(|weight| (*weight).max(1)))
        };
        self.by_genre = (0..genres)
            .map(|genre| table(&|place| place % genres == genre))
            .collect();
        self.by_style = (0..genres * STYLES)
            .map(|both| {
                table(&|place| {
                    place % genres == both / STYLES
                        && u32::from(Self::style(place)) == both % STYLES
                })
            })
            .collect();
    }

    /// How many titles there are.
    pub(crate) fn titles(&self) -> u32 {
        self.titles.len() as u32
    }

    pub(crate) fn title(&self, index: u32) -> &Article {
        &self.titles[index as usize].article
    }

    pub(crate) fn duration_ms(&self, title: u32) -> i64 {
        self.titles[title as usize].duration_ms
    }

    /// How often a title is chosen within its genre, and within its style, beside others.
    pub(crate) fn weight(&self, title: u32) -> u32 {
        self.titles[title as usize].weight.max(1)
    }

    /// Which title it is that has a place in the ranking.
    pub(crate) fn release(&self, title: u32) -> i64 {
        self.titles[title as usize].release
    }

    /// How often each genre is chosen by somebody who takes what there is.
    pub(crate) fn genre_shares(&self) -> [f64; GENRES.len()] {
        let weights: [f64; GENRES.len()] =
            std::array::from_fn(|genre| f64::from(zipf_weight(genre as u32, GENRES_FLATTER)));
        let total: f64 = weights.iter().sum();
        weights.map(|weight| weight / total)
    }

    pub(crate) fn item(&self, index: u32) -> &Article {
        &self.items[index as usize]
    }

    pub(crate) fn items(&self) -> u32 {
        self.items.len() as u32
    }

    /// The page that lists a genre.
    pub(crate) fn list(&self, genre: u8) -> &str {
        &self.lists[usize::from(genre)]
    }

    /// Any genre, by popularity.
    pub(crate) fn any_genre(&self, random: &mut Random) -> u8 {
        self.genres.draw(random) as u8
    }

    /// A title of a genre, by popularity.
    pub(crate) fn any_title(&self, genre: u8, random: &mut Random) -> u32 {
        let rank = self.by_genre[usize::from(genre)].draw(random);
        rank * GENRES.len() as u32 + u32::from(genre)
    }

    /// A title of a genre and a style, by popularity.
    pub(crate) fn any_title_of_style(&self, genre: u8, style: u8, random: &mut Random) -> u32 {
        let table = u32::from(genre) * STYLES + u32::from(style);
        let sibling = self.by_style[table as usize].draw(random);
        let rank = sibling * STYLES + u32::from(style);
        rank * GENRES.len() as u32 + u32::from(genre)
    }

    /// An item of a genre, by popularity.
    pub(crate) fn any_item(&self, genre: u8, random: &mut Random) -> u32 {
        self.item_ranks.draw(random) * GENRES.len() as u32 + u32::from(genre)
    }

    /// The item that is shown first beside another of its genre, as what goes with it: whoever comes to it has mostly been at the other.
    pub(crate) fn goes_with(&self, item: u32) -> u32 {
        let genres = GENRES.len() as u32;
        let ranks = self.items() / genres;
        let rank = mix(u64::from(item) ^ 0xacce) % u64::from(ranks);
        rank as u32 * genres + u32::from(Self::genre(item))
    }

    /// An item that is advertised on the day of this moment.
    pub(crate) fn any_promoted(&self, at_ms: i64, random: &mut Random) -> u32 {
        let day = at_ms.div_euclid(DAY_MS).rem_euclid(1 << 20) as u32;
        (day * 7 + random.below(PROMOTED)) % self.items()
    }

    /// The style of a title within its genre.
    pub(crate) fn style(title: u32) -> u8 {
        (title / GENRES.len() as u32 % STYLES) as u8
    }

    /// The genre of a title or an item.
    pub(crate) fn genre(index: u32) -> u8 {
        (index % GENRES.len() as u32) as u8
    }
}

/// Weight of rank 0 times five: Zipf-Mandelbrot, as the head of a catalogue is flatter than Zipf. Times the highest level it fits into 32 bits.
const ZIPF_UNIT: u32 = 1 << 22;

fn shuffled(count: u32) -> Vec<u32> {
    let mut order: Vec<u32> = (0..count).collect();
    order.sort_by_key(|&index| mix(u64::from(index)));
    order
}

/// Half are clips of one to six minutes, a third episodes, the rest films.
fn duration_ms(bits: u64) -> i64 {
    let (low_s, high_s) = match bits % 100 {
        0..50 => (60, 360),
        50..85 => (8 * 60, 25 * 60),
        _ => (70 * 60, 125 * 60),
    };
    1000 * (low_s + (bits >> 32) as i64 % (high_s - low_s))
}

/// Where the title in a place is in its life.
struct Life {
    /// Counts the titles that the place has had.
    release: i64,
    age_ms: i64,
    span_ms: i64,
}

impl Life {
    fn of(place: u32, at_ms: i64) -> Self {
        let bits = mix(u64::from(place) ^ 0x11fe);
        let span_ms = (60 + (bits % 300) as i64) * DAY_MS;
        let shifted_ms = at_ms + (bits >> 20) as i64 % span_ms;
        Self {
            release: shifted_ms.div_euclid(span_ms),
            age_ms: shifted_ms.rem_euclid(span_ms),
            span_ms,
        }
    }

    /// Popularity beside what the rank alone would give, in 1/1024.
    fn level_1024(&self) -> u64 {
        let (rises_ms, ends_ms) = (2 * DAY_MS, self.span_ms - 2 * DAY_MS);
        if self.age_ms < rises_ms {
            return (256 + 3_840 * self.age_ms / rises_ms) as u64;
        }
        // Nobody begins it any more, so that nobody is in the midst of it when it goes.
        if self.age_ms >= ends_ms {
            return 0;
        }
        let falls = times_exp2(3_072, -(self.age_ms - rises_ms) * 256 / (6 * DAY_MS));
        let fades_from_ms = self.span_ms / 2;
        let fades = (self.age_ms - fades_from_ms).max(0) * 768 / (ends_ms - fades_from_ms);
        (1_024 + falls - fades) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT_MS: i64 = 1_767_225_600_000;

    #[test]
    fn a_title_has_its_genre_and_popular_titles_are_drawn_more_often() {
        let catalogue = Catalogue::new(1_200, 1_200, AT_MS);
        let mut random = Random::new(1, 0);
        let mut counts = vec![0u32; 1_200];
        for _ in 0..40_000 {
            let title = catalogue.any_title(4, &mut random);
            assert_eq!(Catalogue::genre(title), 4);
            counts[title as usize] += 1;
        }
        let of_ranks = |ranks: std::ops::Range<usize>| -> u32 {
            ranks.map(|rank| counts[4 + 12 * rank]).sum()
        };
        assert!(of_ranks(0..20) > 3 * of_ranks(60..80));
    }

    #[test]
    fn a_title_of_a_style_has_it() {
        let catalogue = Catalogue::new(1_200, 10, AT_MS);
        let mut random = Random::new(1, 0);
        for style in 0..4 {
            let title = catalogue.any_title_of_style(7, style, &mut random);
            assert_eq!(
                (Catalogue::genre(title), Catalogue::style(title)),
                (7, style)
            );
        }
    }

    #[test]
    fn new_titles_rise_and_old_ones_fade_and_go() {
        let levels = |place| {
            let life = Life::of(place, AT_MS);
            let released_ms = AT_MS - life.age_ms;
            let at = |day: i64| Life::of(place, released_ms + day * DAY_MS).level_1024();
            let last_day = life.span_ms / DAY_MS - 1;
            [at(0), at(2), at(12), at(last_day / 2 - 1), at(last_day)]
        };
        for place in 0..200 {
            let [new, risen, later, grown, gone] = levels(place);
            assert!(new < risen && risen > later && later > grown, "{place}");
            assert!((900..1_400).contains(&grown) && gone == 0, "{grown}");
        }
    }

    #[test]
    fn a_released_title_has_an_id_that_no_other_ever_had() {
        let mut catalogue = Catalogue::new(1_200, 10, AT_MS);
        let mut ids: std::collections::BTreeSet<String> = (0..catalogue.titles())
            .map(|title| catalogue.title(title).id.clone())
            .collect();
        let mut releases = 0;
        for day in 1..60 {
            let mut places = Vec::new();
            catalogue.renew(AT_MS + day * DAY_MS, |place| places.push(place));
            for place in places {
                releases += 1;
                assert!(ids.insert(catalogue.title(place).id.clone()));
            }
        }
        // Some six a day.
        assert!((200..500).contains(&releases), "{releases}");
    }

    #[test]
    fn a_moment_has_the_same_catalogue_however_it_was_reached() {
        let mut reached = Catalogue::new(120, 10, AT_MS);
        for day in 1..=40 {
            reached.renew(AT_MS + day * DAY_MS, |_| ());
        }
        let fresh = Catalogue::new(120, 10, AT_MS + 40 * DAY_MS);
        for title in 0..fresh.titles() {
            assert_eq!(fresh.title(title).id, reached.title(title).id);
            assert_eq!(fresh.weight(title), reached.weight(title));
        }
    }
}
