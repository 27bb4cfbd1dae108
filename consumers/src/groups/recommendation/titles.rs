//! Titles: their ids as small numbers, how often each was completed, and their order by that; which are completed most of late, and which are new.

use hashbrown::HashTable;

use crate::fingerprint::fingerprint;

/// A title's number: its place in the arrays of one model. Numbers change when titles are forgotten.
pub(super) type Title = u32;

/// Completions after which one counts half for what is watched of late. On recorded ratings users without a completed title were served with recall@20 .227
/// by this, and with .183 by completions counted for ever.
const RECENT_COMPLETIONS: u32 = 2_000;
/// Units of one completion in what is counted of late, so that halves count.
const RECENT_UNITS: u32 = 256;
/// The titles that came last are new as long as they have fewer completions than [`NEW_COMPLETIONS_MAX`].
const NEW_TITLES_MAX: usize = 64;
/// Completions with which a title is not new any more: by then others' completions speak for it.
const NEW_COMPLETIONS_MAX: u32 = 5;

/// Every title that the model knows.
#[derive(Default)]
pub(super) struct Titles {
    by_name: HashTable<Title>,
    names: Vec<Box<str>>,
    completions: Vec<u32>,
    completions_of_all: u64,
    /// Completions of late of each, in units: all are halved whenever they come to twice [`RECENT_COMPLETIONS`] together.
    recent: Vec<u32>,
    recent_of_all: u32,
    /// received_at of the message that each came with, milliseconds since 1970.
    first_seen_at_ms: Vec<i64>,
    /// When each was last begun or completed, in messages so far.
    last_seen: Vec<u64>,
    /// Titles by completions, most first; among equals the one that got there first.
    ranking: Vec<Title>,
    /// Place of each title in `ranking`.
    place: Vec<u32>,
}

/// What a snapshot holds of one title, in the order of the titles' numbers.
pub(super) type TitleSnapshot = (Box<str>, u32, u32, i64, u64);

impl Titles {
    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    pub(super) fn name(&self, title: Title) -> &str {
        &self.names[title as usize]
    }

    pub(super) fn completions(&self, title: Title) -> u32 {
        self.completions[title as usize]
    }

    /// received_at of the message that the title came with, milliseconds since 1970.
    pub(super) fn first_seen_at_ms(&self, title: Title) -> i64 {
        self.first_seen_at_ms[title as usize]
    }

    /// Completions of all titles that are known.
    pub(super) fn completions_of_all(&self) -> u64 {
        self.completions_of_all
    }

    /// Titles by completions, most first.
    pub(super) fn ranking(&self) -> &[Title] {
        &self.ranking
    }

    /// The titles completed most of late, best first, each with its share of all completions of late.
    pub(super) fn trending(&self, items_max: usize) -> Vec<(Title, f32)> {
        let of_late = |title: &Title| self.recent[*title as usize];
        let mut titles: Vec<Title> = (0..self.len() as Title)
            .filter(|title| of_late(title) > 0)
            .collect();
        let order = |title: &Title| (std::cmp::Reverse(of_late(title)), *title);
        if titles.len() > items_max {
            titles.select_nth_unstable_by_key(items_max, order);
            titles.truncate(items_max);
        }
        titles.sort_unstable_by_key(order);
        let all = self.recent_of_all as f32;
        let share = |title| (title, of_late(&title) as f32 / all);
        titles.into_iter().map(share).collect()
    }

    /// The titles that came last, of which few completions are known. Numbers are given, and stay, in the order in which titles came.
    pub(super) fn new_titles(&self) -> impl Iterator<Item = Title> {
        let first = self.len().saturating_sub(NEW_TITLES_MAX) as Title;
        (first..self.len() as Title).filter(|title| self.is_new(*title))
    }

    /// Whether a title is one of them.
    pub(super) fn is_new(&self, title: Title) -> bool {
        title as usize + NEW_TITLES_MAX >= self.len()
            && self.completions(title) < NEW_COMPLETIONS_MAX
    }

    /// Place in the ranking, from 0.
    pub(super) fn place(&self, title: Title) -> u32 {
        self.place[title as usize]
    }

    /// The number of a title that is known.
    pub(super) fn find(&self, name: &str) -> Option<Title> {
        self.by_name
            .find(fingerprint(name), |title| {
                &*self.names[*title as usize] == name
            })
            .copied()
    }

    /// Gives the next number to a title that is not known yet.
    pub(super) fn add(&mut self, name: &str, received_at_ms: i64) -> Title {
        let title = self.len() as Title;
        self.names.push(name.into());
        self.completions.push(0);
        self.recent.push(0);
        self.first_seen_at_ms.push(received_at_ms);
        self.last_seen.push(0);
        self.place.push(self.ranking.len() as u32);
        self.ranking.push(title);
        let names = &self.names;
        self.by_name
            .insert_unique(fingerprint(name), title, |title| {
                fingerprint(&names[*title as usize])
            });
        title
    }

    pub(super) fn seen(&mut self, title: Title, now: u64) {
        self.last_seen[title as usize] = now;
    }

    /// Counts a completion and moves the title to its new place: it changes places with the first of those that it had been level with.
    pub(super) fn complete(&mut self, title: Title) {
        let count = self.completions[title as usize];
        let completions = &self.completions;
        let first_equal = self
            .ranking
            .partition_point(|other| completions[*other as usize] > count);
        let place = self.place[title as usize] as usize;
        let displaced = self.ranking[first_equal];
        self.ranking.swap(first_equal, place);
        self.place[title as usize] = first_equal as u32;
        self.place[displaced as usize] = place as u32;
        self.completions[title as usize] = count + 1;
        self.completions_of_all += 1;
        self.recent[title as usize] += RECENT_UNITS;
        self.recent_of_all += RECENT_UNITS;
        if self.recent_of_all >= 2 * RECENT_COMPLETIONS * RECENT_UNITS {
            self.recent.iter_mut().for_each(|recent| *recent /= 2);
            self.recent_of_all = self.recent.iter().sum();
        }
    }

    /// Forgets all but the `keep` titles seen last and tells the others' new numbers (`None`: forgotten), by old number.
    pub(super) fn forget(&mut self, keep: usize) -> Vec<Option<Title>> {
        let mut by_age: Vec<Title> = (0..self.len() as Title).collect();
        by_age.sort_by_key(|title| (std::cmp::Reverse(self.last_seen[*title as usize]), *title));
        let mut kept = vec![false; self.len()];
        by_age
            .iter()
            .take(keep)
            .for_each(|title| kept[*title as usize] = true);
        let mut next = 0;
        let renumbered: Vec<Option<Title>> = kept
            .iter()
            .map(|kept| {
                kept.then(|| {
                    next += 1;
                    next - 1
                })
            })
            .collect();
        let ranking = self
            .ranking
            .iter()
            .filter_map(|title| renumbered[*title as usize])
            .collect();
        let rows: Vec<TitleSnapshot> = self
            .snapshot()
            .into_iter()
            .zip(&kept)
            .filter_map(|(row, kept)| kept.then_some(row))
            .collect();
        *self = Self::rebuilt(rows, ranking);
        renumbered
    }

    pub(super) fn snapshot(&self) -> Vec<TitleSnapshot> {
        let row = |at: usize| {
            (
                self.names[at].clone(),
                self.completions[at],
                self.recent[at],
                self.first_seen_at_ms[at],
                self.last_seen[at],
            )
        };
        (0..self.len()).map(row).collect()
    }

    /// From a snapshot; `None` if the ranking is not one of these titles.
    pub(super) fn restored(rows: Vec<TitleSnapshot>, ranking: Vec<Title>) -> Option<Self> {
        let mut seen = vec![false; rows.len()];
        for title in &ranking {
            let seen = seen.get_mut(*title as usize)?;
            if std::mem::replace(seen, true) {
                return None;
            }
        }
        let ordered = ranking
            .windows(2)
            .all(|pair| rows[pair[0] as usize].1 >= rows[pair[1] as usize].1);
        (ranking.len() == rows.len() && ordered).then(|| Self::rebuilt(rows, ranking))
    }

    fn rebuilt(rows: Vec<TitleSnapshot>, ranking: Vec<Title>) -> Self {
        let mut titles = Self::default();
        for (name, completions, recent, first_seen_at_ms, last_seen) in rows {
            let title = titles.add(&name, first_seen_at_ms) as usize;
            titles.completions[title] = completions;
            titles.completions_of_all += u64::from(completions);
            titles.recent[title] = recent;
            titles.recent_of_all = titles.recent_of_all.saturating_add(recent);
            titles.last_seen[title] = last_seen;
        }
        for (place, title) in ranking.iter().enumerate() {
            titles.place[*title as usize] = place as u32;
        }
        titles.ranking = ranking;
        titles
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_ranking_is_in_the_order_of_completions(completed in prop::collection::vec(0_u32..9, 0..80), keep in 1_usize..9) {
            let mut titles = Titles::default();
            for name in 0..9 {
                titles.add(&name.to_string(), name);
            }
            for (now, title) in completed.iter().enumerate() {
                titles.complete(*title);
                titles.seen(*title, now as u64 + 1);
            }
            check(&titles);
            let restored = Titles::restored(titles.snapshot(), titles.ranking().to_vec()).unwrap();
            prop_assert_eq!(restored.ranking(), titles.ranking());
            let before = titles.snapshot();
            let renumbered = titles.forget(keep);
            prop_assert_eq!(titles.len(), keep);
            check(&titles);
            for (row, new) in before.iter().zip(&renumbered) {
                prop_assert_eq!(titles.find(&row.0), *new);
            }
        }
    }

    #[test]
    fn what_is_completed_of_late_passes_what_was_once() {
        let mut titles = Titles::default();
        for name in ["old", "young", "never"] {
            titles.add(name, 7);
        }
        for title in [0, 1] {
            (0..3 * RECENT_COMPLETIONS).for_each(|_| titles.complete(title));
            titles.complete(0);
        }
        assert_eq!(titles.ranking()[0], 0);
        let trending = titles.trending(20);
        assert_eq!(
            trending.iter().map(|(title, _)| *title).collect::<Vec<_>>(),
            [1, 0]
        );
        assert_eq!(titles.trending(1).len(), 1);
        assert_eq!(titles.new_titles().collect::<Vec<_>>(), [2]);
    }

    fn check(titles: &Titles) {
        for (place, title) in titles.ranking().iter().enumerate() {
            assert_eq!(titles.place(*title) as usize, place);
        }
        assert!(
            titles
                .ranking()
                .is_sorted_by(|a, b| titles.completions(*a) >= titles.completions(*b))
        );
    }
}
