//! What there is to see: titles to watch, items to buy, the pages of the site.
//!
//! Titles and items belong to genres, and within a genre to styles. Within a genre popularity follows Zipf, and genres differ in popularity too. Every string is made once, here:
//! events borrow them.

use super::random::{Random, Weighted, mix};

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
/// Styles within each genre.
pub(crate) const STYLES: u32 = 4;
/// Items that banners on the home page stand for.
const PROMOTED: u32 = 20;

/// Something with a page of its own: a title or an item.
pub(crate) struct Article {
    /// `t00042`, `i000042`: says nothing about popularity or genre.
    pub(crate) id: String,
    /// `/title/t00042`
    pub(crate) page: String,
}

/// Titles and items with their popularity.
pub(crate) struct Catalogue {
    titles: Vec<Article>,
    durations_ms: Vec<i64>,
    items: Vec<Article>,
    lists: Vec<String>,
    genres: Weighted,
    title_ranks: Weighted,
    item_ranks: Weighted,
}

impl Catalogue {
    /// So many titles and items (at least one of each in every genre).
    pub(crate) fn new(titles: u32, items: u32) -> Self {
        let per_genre = |count: u32| count.div_ceil(GENRES.len() as u32).max(1);
        let (titles_each, items_each) = (per_genre(titles), per_genre(items));
        let title_count = titles_each * GENRES.len() as u32;
        Self {
            titles: articles("title", "t", title_count),
            durations_ms: (0..title_count).map(duration_ms).collect(),
            items: articles("item", "i", items_each * GENRES.len() as u32),
            lists: GENRES.map(|genre| format!("/browse/{genre}")).to_vec(),
            // The first genre is some five times as popular as the last.
            genres: Weighted::zipf(GENRES.len() as u32, 2),
            title_ranks: Weighted::zipf(titles_each, 4),
            item_ranks: Weighted::zipf(items_each, 0),
        }
    }

    pub(crate) fn title(&self, index: u32) -> &Article {
        &self.titles[index as usize]
    }

    pub(crate) fn duration_ms(&self, title: u32) -> i64 {
        self.durations_ms[title as usize]
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
        self.title_ranks.draw(random) * GENRES.len() as u32 + u32::from(genre)
    }

    /// A title of a genre and a style, by popularity.
    pub(crate) fn any_title_of_style(&self, genre: u8, style: u8, random: &mut Random) -> u32 {
        let title = self.any_title(genre, random);
        let rank = title / GENRES.len() as u32;
        let sibling = rank - rank % STYLES + u32::from(style);
        let moved = sibling * GENRES.len() as u32 + u32::from(genre);
        // The last few ranks may lack a sibling of this style.
        if moved < self.titles.len() as u32 {
            moved
        } else {
            title
        }
    }

    /// An item of a genre, by popularity.
    pub(crate) fn any_item(&self, genre: u8, random: &mut Random) -> u32 {
        self.item_ranks.draw(random) * GENRES.len() as u32 + u32::from(genre)
    }

    /// An item that is advertised.
    pub(crate) fn any_promoted(&self, random: &mut Random) -> u32 {
        random.below(PROMOTED.min(self.items()))
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

/// Ids are handed out in an order that has nothing to do with popularity: a model that breaks ties by id must not profit.
fn articles(folder: &str, prefix: &str, count: u32) -> Vec<Article> {
    let mut order: Vec<u32> = (0..count).collect();
    order.sort_by_key(|&index| mix(u64::from(index)));
    order
        .into_iter()
        .map(|number| {
            let id = format!("{prefix}{number:05}");
            let page = format!("/{folder}/{id}");
            Article { id, page }
        })
        .collect()
}

/// Half are clips of one to six minutes, a third episodes, the rest films.
fn duration_ms(title: u32) -> i64 {
    let bits = mix(u64::from(title) << 32);
    let (low_s, high_s) = match bits % 100 {
        0..50 => (60, 360),
        50..85 => (8 * 60, 25 * 60),
        _ => (70 * 60, 125 * 60),
    };
    1000 * (low_s + (bits >> 32) as i64 % (high_s - low_s))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_has_its_genre_and_popular_titles_are_drawn_more_often() {
        let catalogue = Catalogue::new(600, 1200);
        let mut random = Random::new(1, 0);
        let mut counts = vec![0u32; 600];
        for _ in 0..20_000 {
            let title = catalogue.any_title(4, &mut random);
            assert_eq!(Catalogue::genre(title), 4);
            counts[title as usize] += 1;
        }
        assert!(counts[4] > 3 * counts[4 + 12 * 29]);
    }

    #[test]
    fn ids_are_unique() {
        let mut ids: Vec<String> = articles("item", "i", 999)
            .into_iter()
            .map(|item| item.id)
            .collect();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 999);
    }
}
