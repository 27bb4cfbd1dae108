//! The lists that stand, where other threads read them while the model works on.
//!
//! A list is kept once: the model and whoever looks it up share it. Some 300 bytes a user with a list of 20 titles, beside what the model keeps of the user.

use std::sync::{Arc, PoisonError, RwLock};

use dashmap::DashMap;
use foldhash::fast::FixedState;
use serde::{Deserialize, Serialize};

use super::STRANGER;
use super::titles::Title;
use crate::fingerprint::fingerprint;
use crate::look_up::Answers;

/// A list, best first, with each title's score.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct List {
    /// received_at of the event that it was made after, milliseconds since 1970.
    pub(super) made_at_ms: i64,
    /// When the broker appended what it was made after: a list's age, also where old traffic is replayed.
    pub(super) appended_at_ms: i64,
    pub(super) items: Box<[(Title, f32)]>,
}

/// How snapshots hold a list: as such, though others share it.
pub(super) mod shared {
    use super::{Arc, Deserialize, List, Serialize};

    pub(in super::super) fn serialize<S: serde::Serializer>(
        list: &Option<Arc<List>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        list.as_deref().serialize(serializer)
    }

    pub(in super::super) fn deserialize<'de, D: serde::Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Arc<List>>, D::Error> {
        Ok(Option::<List>::deserialize(deserializer)?.map(Arc::new))
    }
}

impl List {
    /// Rank of a title, from 1; 0: it is not on the list.
    pub(super) fn rank(&self, title: Title) -> u16 {
        let at = self.items.iter().position(|(other, _)| *other == title);
        at.map_or(0, |at| at as u16 + 1)
    }

    /// The same list under the titles' new numbers, without forgotten ones.
    pub(super) fn renumbered(&self, renumbered: &[Option<Title>]) -> Self {
        let new = |(title, score): &(Title, f32)| Some((renumbered[*title as usize]?, *score));
        Self {
            items: self.items.iter().filter_map(new).collect(),
            ..*self
        }
    }
}

/// Every list that stands, by the fingerprint of its user, and the names of the titles on them.
#[derive(Default)]
pub(super) struct Published {
    names: RwLock<Vec<Box<str>>>,
    lists: DashMap<u64, Arc<List>, FixedState>,
}

impl Published {
    /// A title got the next number.
    pub(super) fn add_title(&self, name: &str) {
        let mut names = self.names.write().unwrap_or_else(PoisonError::into_inner);
        names.push(name.into());
    }

    /// A user has another list from now on.
    pub(super) fn publish(&self, user: u64, list: Arc<List>) {
        self.lists.insert(user, list);
    }

    /// A user was forgotten.
    pub(super) fn forget(&self, user: u64) {
        self.lists.remove(&user);
    }

    /// Titles got other numbers, and every list was made anew with them. Nobody reads meanwhile: half of it would be wrong names.
    pub(super) fn replace(
        &self,
        names: Vec<Box<str>>,
        lists: impl Iterator<Item = (u64, Arc<List>)>,
    ) {
        let mut standing = self.names.write().unwrap_or_else(PoisonError::into_inner);
        *standing = names;
        self.lists.clear();
        lists.for_each(|(user, list)| drop(self.lists.insert(user, list)));
    }
}

/// What a look-up answers.
#[derive(Serialize)]
struct Answer<'a> {
    user: &'a str,
    /// Whose list it is.
    list: Whose,
    made_at: Option<jiff::Timestamp>,
    /// Since the broker appended the event that it was made after.
    age_seconds: Option<f64>,
    items: Vec<Item<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Whose {
    /// The user's own.
    Own,
    /// The user has none yet: the one for everybody who has none.
    Strangers,
}

#[derive(Serialize)]
struct Item<'a> {
    id: &'a str,
    score: f32,
}

impl Answers for Published {
    fn answer(&self, key: &str, now_ms: i64) -> Option<Vec<u8>> {
        let names = self.names.read().unwrap_or_else(PoisonError::into_inner);
        let of = |user: &str| self.lists.get(&fingerprint(user)).map(|list| list.clone());
        let (list, whose) = match of(key).filter(|_| key != STRANGER) {
            Some(list) => (Some(list), Whose::Own),
            None => (of(STRANGER), Whose::Strangers),
        };
        let named = |(title, score): &(Title, f32)| {
            let id = names.get(*title as usize)?;
            Some(Item { id, score: *score })
        };
        let answer = Answer {
            user: key,
            list: whose,
            made_at: list
                .as_ref()
                .and_then(|list| jiff::Timestamp::from_millisecond(list.made_at_ms).ok()),
            age_seconds: list
                .as_ref()
                .map(|list| (now_ms - list.appended_at_ms).max(0) as f64 / 1000.0),
            items: list
                .iter()
                .flat_map(|list| list.items.iter().filter_map(named))
                .collect(),
        };
        serde_json::to_vec(&answer).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(items: &[(Title, f32)]) -> Arc<List> {
        Arc::new(List {
            made_at_ms: 796_000_000_000,
            appended_at_ms: 1_763_812_800_000,
            items: items.into(),
        })
    }

    fn answer(published: &Published, key: &str) -> String {
        let json = published.answer(key, 1_763_812_801_500).unwrap();
        String::from_utf8(json).unwrap()
    }

    #[test]
    fn a_user_gets_the_own_list_with_its_age_and_a_stranger_the_strangers() {
        let published = Published::default();
        assert_eq!(
            answer(&published, "u"),
            r#"{"user":"u","list":"strangers","made_at":null,"age_seconds":null,"items":[]}"#
        );
        published.add_title("a");
        published.add_title("b");
        published.publish(fingerprint(STRANGER), list(&[(0, 0.25)]));
        published.publish(fingerprint("u"), list(&[(1, 0.5), (0, 0.125)]));
        assert_eq!(
            answer(&published, "u"),
            r#"{"user":"u","list":"own","made_at":"1995-03-23T23:06:40Z","age_seconds":1.5,"items":[{"id":"b","score":0.5},{"id":"a","score":0.125}]}"#
        );
        let strangers = r#""list":"strangers","made_at":"1995-03-23T23:06:40Z","age_seconds":1.5,"items":[{"id":"a","score":0.25}]}"#;
        assert!(answer(&published, "v").ends_with(strangers));
        published.forget(fingerprint("u"));
        assert!(answer(&published, "u").ends_with(strangers));
    }

    #[test]
    fn whoever_looks_while_titles_get_other_numbers_sees_no_wrong_name() {
        let published = Arc::new(Published::default());
        published.add_title("forgotten");
        published.add_title("kept");
        published.publish(fingerprint("u"), list(&[(1, 1.0)]));
        std::thread::scope(|scope| {
            let looking = scope.spawn(|| {
                (0..2_000)
                    .all(|_| answer(&published, "u").contains(r#"[{"id":"kept","score":1.0}]"#))
            });
            for round in 0..500 {
                // "kept" is number 0 and number 1 in turn.
                let number = round % 2;
                let mut names: Vec<Box<str>> = vec!["other".into(), "other".into()];
                names[number as usize] = "kept".into();
                let lists = [(fingerprint("u"), list(&[(number, 1.0)]))];
                published.replace(names, lists.into_iter());
            }
            assert!(looking.join().unwrap());
        });
    }
}
