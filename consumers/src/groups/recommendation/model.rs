//! The model: what people completed, the list that stands for each of them, and how both change, message by message.
//!
//! Titles that the user has completed are left out of a list; one that was only begun is not: it may be finished another day.
//!
//! Bounds: `users_max` users (some 500 bytes each, and 4 more for each title completed: [`WATCHED_MAX`], [`WATCHED_OF_ALL_MAX`]), [`TITLES_MAX`] titles of
//! some 4 KiB.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::STRANGER;
use super::cooccurrence::{HISTORY, Neighbours, position};
use super::lists::ListMaker;
use super::published::{self, List, Published};
use super::titles::{Title, TitleSnapshot, Titles};
use crate::fingerprint::fingerprint;
use crate::lru::Lru;
use crate::{StaleSnapshot, snapshot};

/// Titles that the model knows at most; then the quarter of them seen longest ago is forgotten.
const TITLES_MAX: usize = 65_536;
/// Completed titles remembered of a user; beyond it the first ones may be recommended again.
const WATCHED_MAX: usize = 4_096;
/// Completed titles remembered of all users, 4 bytes each; beyond it the users seen longest ago are forgotten.
const WATCHED_OF_ALL_MAX: usize = 50_000_000;

/// Completions after which the strangers' list is made anew: it changes slowly.
const STRANGERS_LIST_AGE: u64 = 20;

/// Item-to-item co-occurrence with a list for each user.
pub(super) struct Model {
    titles: Titles,
    /// By title.
    neighbours: Vec<Neighbours>,
    viewers: Lru<Viewer>,
    /// Completed titles remembered of all users.
    watched_of_all: usize,
    strangers: Strangers,
    /// Messages so far.
    now: u64,
    users_max: usize,
    list_items_max: usize,
    lists: ListMaker,
    /// What other threads read.
    published: Arc<Published>,
}

/// What is known of one user.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Viewer {
    /// Titles completed, each once, the last one last.
    watched: Vec<Title>,
    /// The list that stands.
    #[serde(with = "published::shared")]
    list: Option<Arc<List>>,
}

/// The list for users without one of their own: the titles with the most completions of late, made anew now and then.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Strangers {
    #[serde(with = "published::shared")]
    list: Option<Arc<List>>,
    /// Completions of all titles when it was last looked at.
    made_at_completions: u64,
}

/// How a title stood before a playback of it began. Ranks count from 1; 0: not in the list, or no list.
pub(super) struct Standing {
    pub(super) rank: u16,
    /// In the list of the most completed titles, watched ones left out, of the same length.
    pub(super) popularity_rank: u16,
    pub(super) watched_before: bool,
    /// Titles that the user had completed.
    pub(super) user_completions: u32,
    pub(super) title_completions: u32,
    pub(super) title_seen_at_ms: i64,
    pub(super) made_at_ms: Option<i64>,
}

/// A list as a row has it, best first.
pub(super) struct NamedList<'a> {
    pub(super) titles: Vec<&'a str>,
    pub(super) scores: Vec<f32>,
}

/// The message that a list is made after.
#[derive(Clone, Copy)]
pub(super) struct At {
    pub(super) received_at_ms: i64,
    pub(super) appended_at_ms: i64,
}

/// A user as the model knows them.
#[derive(Clone, Copy)]
pub(super) struct User(u64);

type Snapshot = (
    Vec<TitleSnapshot>,
    Vec<Title>,
    Vec<Neighbours>,
    Lru<Viewer>,
    Strangers,
    u64,
);

impl Model {
    pub(super) fn new(users_max: usize, list_items_max: usize) -> Self {
        Self {
            titles: Titles::default(),
            neighbours: Vec::new(),
            viewers: Lru::new(users_max),
            watched_of_all: 0,
            strangers: Strangers::default(),
            now: 0,
            users_max,
            list_items_max,
            lists: ListMaker::default(),
            published: Arc::default(),
        }
    }

    /// The lists, for other threads; to be asked for anew after [`restore`](Self::restore).
    pub(super) fn published(&self) -> Arc<Published> {
        self.published.clone()
    }

    /// The user of that id, from now on known, and seen now.
    pub(super) fn user(&mut self, user_id: &str) -> User {
        let user = User(fingerprint(user_id));
        if let Some(forgotten) = self.viewers.make_room(user.0) {
            self.forgot(forgotten);
        }
        self.viewers.touch(user.0);
        user
    }

    /// The title of that name, from now on known, and seen now.
    pub(super) fn title(&mut self, name: &str, received_at_ms: i64) -> Title {
        self.now += 1;
        let title = match self.titles.find(name) {
            Some(title) => title,
            None => {
                if self.titles.len() == TITLES_MAX {
                    self.forget_titles(TITLES_MAX - TITLES_MAX / 4);
                }
                self.neighbours.push(Neighbours::default());
                let title = self.titles.add(name, received_at_ms);
                self.lists.learn(&self.titles, title);
                self.published.add_title(name);
                title
            }
        };
        self.titles.seen(title, self.now);
        title
    }

    /// A playback begins: how did its title stand until now?
    pub(super) fn begin(&mut self, user: User, title: Title) -> Standing {
        let viewer = self.viewers.touch(user.0);
        let watched_before = position(&viewer.watched, title).is_some();
        let popularity_rank = if watched_before {
            0
        } else {
            popularity_rank(&self.titles, &viewer.watched, title)
        };
        let list = viewer.list.as_ref().or(self.strangers.list.as_ref());
        Standing {
            rank: list.map_or(0, |list| list.rank(title)),
            popularity_rank: if usize::from(popularity_rank) <= self.list_items_max {
                popularity_rank
            } else {
                0
            },
            watched_before,
            user_completions: viewer.watched.len() as u32,
            title_completions: self.titles.completions(title),
            title_seen_at_ms: self.titles.first_seen_at_ms(title),
            made_at_ms: list.map(|list| list.made_at_ms),
        }
    }

    /// A playback is completed: the title and the user's latest ones belong closer together.
    pub(super) fn complete(&mut self, user: User, title: Title) {
        self.titles.complete(title);
        self.lists.learn(&self.titles, title);
        let viewer = self.viewers.touch(user.0);
        match position(&viewer.watched, title) {
            Some(at) => drop(viewer.watched.remove(at)),
            None if viewer.watched.len() == WATCHED_MAX => drop(viewer.watched.remove(0)),
            None => self.watched_of_all += 1,
        }
        for (index, other) in viewer.watched.iter().rev().take(HISTORY).enumerate() {
            self.neighbours[title as usize].strengthen(*other, index + 1);
            self.neighbours[*other as usize].strengthen(title, index + 1);
        }
        viewer.watched.push(title);
        self.forget_users(WATCHED_OF_ALL_MAX);
    }

    /// Makes the user's list anew.
    pub(super) fn make_list(&mut self, user: User, at: At) -> NamedList<'_> {
        let viewer = self.viewers.touch(user.0);
        let best = self.lists.best(
            &self.titles,
            &self.neighbours,
            &viewer.watched,
            self.list_items_max,
        );
        let list = Arc::new(list(&best, at));
        viewer.list = Some(list.clone());
        self.published.publish(user.0, list);
        self.named(&best)
    }

    /// Makes the strangers' list anew if it is time to and it is another one.
    pub(super) fn make_strangers_list(&mut self, at: At) -> Option<NamedList<'_>> {
        let completions = self.titles.completions_of_all();
        if completions < self.strangers.made_at_completions + STRANGERS_LIST_AGE {
            return None;
        }
        self.strangers.made_at_completions = completions;
        let best = self.lists.for_strangers(&self.titles, self.list_items_max);
        let standing = self.strangers.list.iter().flat_map(|list| &list.items);
        if best
            .iter()
            .map(|(title, _)| title)
            .eq(standing.map(|(title, _)| title))
        {
            return None;
        }
        let list = Arc::new(list(&best, at));
        self.strangers.list = Some(list.clone());
        self.published.publish(fingerprint(STRANGER), list);
        Some(self.named(&best))
    }

    fn named(&self, best: &[(Title, f32)]) -> NamedList<'_> {
        let names = best.iter().map(|(title, _)| self.titles.name(*title));
        NamedList {
            titles: names.collect(),
            scores: best.iter().map(|(_, score)| *score).collect(),
        }
    }

    fn forget_users(&mut self, watched_of_all_max: usize) {
        while self.watched_of_all > watched_of_all_max && self.viewers.len() > 1 {
            if let Some(forgotten) = self.viewers.forget_oldest() {
                self.forgot(forgotten);
            }
        }
    }

    fn forgot(&mut self, (user, viewer): (u64, Viewer)) {
        self.watched_of_all -= viewer.watched.len();
        self.published.forget(user);
    }

    fn forget_titles(&mut self, keep: usize) {
        let renumbered = self.titles.forget(keep);
        let mut titles = renumbered.iter();
        self.neighbours
            .retain(|_| titles.next().is_some_and(Option::is_some));
        for neighbours in &mut self.neighbours {
            neighbours.renumber(&renumbered);
        }
        self.lists = ListMaker::of(&self.titles);
        let renumber = |titles: &mut Vec<Title>| {
            titles.retain_mut(|title| {
                let new = renumbered[*title as usize];
                *title = new.unwrap_or_default();
                new.is_some()
            });
        };
        let relist = |list: &mut Option<Arc<List>>| {
            if let Some(list) = list {
                *list = Arc::new(list.renumbered(&renumbered));
            }
        };
        relist(&mut self.strangers.list);
        // Forgotten completions do not count any more, neither here.
        let completions = self.titles.completions_of_all();
        self.strangers.made_at_completions = self.strangers.made_at_completions.min(completions);
        self.watched_of_all = 0;
        for (_, viewer) in self.viewers.entries_mut() {
            renumber(&mut viewer.watched);
            relist(&mut viewer.list);
            self.watched_of_all += viewer.watched.len();
        }
        self.republish(&self.published);
    }

    /// Publishes every title and list that there is, in the place of what was published before.
    fn republish(&self, published: &Published) {
        let names = (0..self.titles.len() as Title).map(|title| self.titles.name(title).into());
        let of_users = self
            .viewers
            .oldest_first()
            .filter_map(|(user, viewer)| Some((user, viewer.list.clone()?)));
        let of_strangers = self.strangers.list.clone();
        let of_strangers = of_strangers.map(|list| (fingerprint(STRANGER), list));
        published.replace(names.collect(), of_users.chain(of_strangers));
    }

    pub(super) fn snapshot(&self, into: &mut Vec<u8>) {
        let titles = self.titles.snapshot();
        let state = (
            titles,
            self.titles.ranking(),
            &self.neighbours,
            &self.viewers,
            &self.strangers,
            self.now,
        );
        snapshot::write(&state, into);
    }

    pub(super) fn restore(&mut self, from: &[u8]) -> Result<(), StaleSnapshot> {
        let (titles, ranking, neighbours, viewers, strangers, now): Snapshot =
            snapshot::read(from)?;
        let known = titles.len();
        let knows = |titles: &[Title]| titles.iter().all(|title| (*title as usize) < known);
        let lists = |list: &Option<Arc<List>>| {
            let mut items = list.iter().flat_map(|list| &list.items);
            items.all(|(title, _)| (*title as usize) < known)
        };
        let fits = neighbours.len() == known
            && lists(&strangers.list)
            && neighbours.iter().all(|neighbours| neighbours.fits(known))
            && viewers
                .oldest_first()
                .all(|(_, viewer)| knows(&viewer.watched) && lists(&viewer.list));
        let titles = Titles::restored(titles, ranking)
            .filter(|_| fits)
            .ok_or_else(|| StaleSnapshot("titles and their numbers do not agree".to_owned()))?;
        let viewers = viewers.bounded(self.users_max);
        self.watched_of_all = viewers
            .oldest_first()
            .map(|(_, viewer)| viewer.watched.len())
            .sum();
        self.lists = ListMaker::of(&titles);
        self.titles = titles;
        self.neighbours = neighbours;
        self.viewers = viewers;
        self.strangers = strangers;
        self.now = now;
        // Fresh, not replaced: an earlier life's lists may still be looked up by somebody.
        self.published = Arc::default();
        self.republish(&self.published);
        Ok(())
    }
}

fn list(best: &[(Title, f32)], at: At) -> List {
    List {
        made_at_ms: at.received_at_ms,
        appended_at_ms: at.appended_at_ms,
        items: best.into(),
    }
}

/// Rank of a title that `watched` does not hold among those that it does not hold, by completions; 0 if it was never completed.
fn popularity_rank(titles: &Titles, watched: &[Title], title: Title) -> u16 {
    if titles.completions(title) == 0 {
        return 0;
    }
    let place = titles.place(title);
    let before = watched
        .iter()
        .filter(|other| titles.place(**other) < place)
        .count();
    (place as usize - before + 1).try_into().unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: At = At {
        received_at_ms: 7,
        appended_at_ms: 8,
    };

    fn complete(model: &mut Model, user: &str, title: &str) -> (Standing, Vec<String>) {
        let user = model.user(user);
        let title = model.title(title, 7);
        let standing = model.begin(user, title);
        model.complete(user, title);
        let list = model.make_list(user, AT);
        let titles = list.titles.iter().map(|title| (*title).to_owned());
        (standing, titles.collect())
    }

    /// Two circles that never watch each other's titles.
    fn two_circles(model: &mut Model) {
        for user in 0..40 {
            for title in 0..6 {
                let circle = user % 2;
                complete(model, &format!("u{user}"), &format!("c{circle}-{title}"));
            }
        }
    }

    #[test]
    fn a_list_holds_what_others_of_the_same_taste_completed_and_nothing_that_the_user_did() {
        let mut model = Model::new(100, 4);
        two_circles(&mut model);
        let (_, list) = complete(&mut model, "newcomer", "c1-0");
        assert_eq!(list, ["c1-1", "c1-2", "c1-3", "c1-4"]);
        let (standing, list) = complete(&mut model, "newcomer", "c1-2");
        assert_eq!(
            (standing.rank, standing.made_at_ms, standing.watched_before),
            (2, Some(7), false)
        );
        assert!(list.iter().all(|title| title.starts_with("c1-")));
        assert!(!list.contains(&"c1-0".to_owned()) && !list.contains(&"c1-2".to_owned()));
        let (standing, _) = complete(&mut model, "newcomer", "c1-2");
        assert_eq!(
            (
                standing.rank,
                standing.popularity_rank,
                standing.watched_before
            ),
            (0, 0, true)
        );
    }

    #[test]
    fn who_has_no_list_is_shown_what_most_people_completed() {
        let mut model = Model::new(100, 3);
        for user in 0..30 {
            let titles = ["everybody's", "many's", "some's"];
            for title in &titles[..1 + user % 3] {
                complete(&mut model, &format!("u{user}"), title);
            }
        }
        assert!(model.make_strangers_list(AT).is_some());
        let (user, title) = (model.user("stranger"), model.title("many's", 7));
        let standing = model.begin(user, title);
        assert_eq!(
            (standing.rank, standing.popularity_rank, standing.made_at_ms),
            (2, 2, Some(7))
        );
        let title = model.title("unheard of", 7);
        let standing = model.begin(user, title);
        assert_eq!((standing.rank, standing.popularity_rank), (0, 0));
    }

    #[test]
    fn forgetting_titles_leaves_the_others_as_they_were() {
        let mut model = Model::new(100, 4);
        two_circles(&mut model);
        for user in ["a", "b", "c"] {
            for title in 0..6 {
                complete(&mut model, user, &format!("c1-{title}"));
            }
        }
        model.forget_titles(6);
        assert!(model.titles.find("c0-0").is_none());
        let (_, list) = complete(&mut model, "newcomer", "c1-0");
        assert_eq!(list, ["c1-1", "c1-2", "c1-3", "c1-4"]);
        let mut bytes = Vec::new();
        model.snapshot(&mut bytes);
        let mut restored = Model::new(100, 4);
        restored.restore(&bytes).unwrap();
        assert_eq!(restored.watched_of_all, model.watched_of_all);
        assert_eq!(
            complete(&mut restored, "newcomer", "c1-3").1,
            complete(&mut model, "newcomer", "c1-3").1
        );
    }

    #[test]
    fn users_seen_longest_ago_give_way_when_too_many_titles_are_remembered() {
        let mut model = Model::new(100, 4);
        two_circles(&mut model);
        assert_eq!(model.watched_of_all, 40 * 6);
        model.forget_users(100);
        assert_eq!((model.viewers.len(), model.watched_of_all), (16, 96));
        let mut few = Model::new(10, 4);
        two_circles(&mut few);
        assert_eq!((few.viewers.len(), few.watched_of_all), (10, 60));
    }
}
