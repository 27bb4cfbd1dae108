//! How good a recommender can be at best. The model knows each user's taste and what there is at each moment, so it knows how likely each title is to be the
//! next one that the user completes. Whoever lists the twenty likeliest is right as often as anybody can be: the measure of what is reachable.
//!
//! Beside it stands plain popularity, counted on the same events as they come. Titles that a user has begun before are left out of both, and not asked for.

use std::collections::HashMap;

use activity_schemas::WatchAction;
use serde::Serialize;

use super::{
    Traffic,
    catalogue::{Catalogue, GENRES, STYLES},
    journey::{Fact, has_begun},
    people::{FAVOURITE_PER_HUNDRED, Person, SECOND_PER_HUNDRED, STYLE_PER_THOUSAND, Taste},
};

/// Length of a list.
const LIST: usize = 20;

/// What is reachable on these events, and what popularity reaches.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Oracle {
    /// The seed: the same events can be published with it.
    pub seed: u64,
    /// Events looked at.
    pub events: u64,
    /// Playbacks seen to the end of titles that their user had not begun before, those that only train left out.
    pub completed_playbacks: u64,
    /// Share of them whose title was among the twenty likeliest.
    pub recall_at_20: f64,
    /// What the model's own probabilities make that share on average: both agree if it knows itself.
    pub expected_recall_at_20: f64,
    /// Share of them whose title was among the twenty most often completed so far.
    pub popularity_recall_at_20: f64,
}

/// One completed playback.
struct Answer {
    likely: bool,
    expected: f64,
    popular: bool,
}

/// What one user has done, a bit for each title.
#[derive(Clone)]
struct Known {
    begun: Vec<u64>,
    /// Completed, or begun a second time.
    done: Vec<u64>,
}

/// Looks at so many events; the completed playbacks of the first `skip_share` of them all only train.
pub fn oracle(mut traffic: Traffic, events: u64, skip_share: f64) -> Oracle {
    let mut observer = Observer::default();
    for _ in 0..events {
        traffic.next_event();
        observer.observe(&traffic);
    }
    let skipped = (observer.answers.len() as f64 * skip_share) as usize;
    let scored = &observer.answers[skipped.min(observer.answers.len())..];
    let mean = |value: fn(&Answer) -> f64| {
        scored.iter().map(value).sum::<f64>() / (scored.len() as f64).max(1.0)
    };
    Oracle {
        seed: traffic.seed,
        events,
        completed_playbacks: scored.len() as u64,
        recall_at_20: mean(|answer| f64::from(u8::from(answer.likely))),
        expected_recall_at_20: mean(|answer| answer.expected),
        popularity_recall_at_20: mean(|answer| f64::from(u8::from(answer.popular))),
    }
}

#[derive(Default)]
struct Observer {
    users: HashMap<u32, Known>,
    completions: Vec<u32>,
    releases: Vec<i64>,
    answers: Vec<Answer>,
    odds: Vec<f64>,
}

impl Observer {
    fn observe(&mut self, traffic: &Traffic) {
        let (identity, Fact::Watch(report)) = traffic.latest() else {
            return;
        };
        let catalogue = &traffic.catalogue;
        self.forget_titles_that_are_gone(catalogue);
        let known = self.users.entry(identity.person).or_insert_with(|| {
            let empty = vec![0; catalogue.titles().div_ceil(64) as usize];
            Known {
                begun: empty.clone(),
                done: empty,
            }
        });
        let (word, bit) = (report.title as usize / 64, 1 << (report.title % 64));
        match report.action {
            WatchAction::Start if known.begun[word] & bit != 0 => known.done[word] |= bit,
            WatchAction::Complete if known.done[word] & bit == 0 => {
                known.done[word] |= bit;
                known.begun[word] &= !bit;
                let begun = known.begun.clone();
                known.begun[word] |= bit;
                let taste = Person::new(traffic.seed, identity.person).taste;
                self.answer(catalogue, taste, &begun, report.title);
                self.completions[report.title as usize] += 1;
            }
            _ => known.begun[word] |= bit,
        }
    }

    fn answer(&mut self, catalogue: &Catalogue, taste: Taste, begun: &[u64], title: u32) {
        odds_of_completion(catalogue, taste, &mut self.odds);
        let open = |other: &u32| !has_begun(begun, *other);
        let above = |value: &dyn Fn(u32) -> f64| {
            let own = value(title);
            (0..catalogue.titles())
                .filter(open)
                .filter(|other| value(*other) > own)
                .count()
        };
        let (odds, completions) = (&self.odds, &self.completions);
        let likely = above(&|other| odds[other as usize]) < LIST;
        let popular = above(&|other| f64::from(completions[other as usize])) < LIST;
        let mut of_open: Vec<f64> = (0..catalogue.titles())
            .filter(open)
            .map(|other| odds[other as usize])
            .collect();
        let total: f64 = of_open.iter().sum();
        of_open.sort_unstable_by(|one, other| other.total_cmp(one));
        let listed: f64 = of_open.iter().take(LIST).sum();
        self.answers.push(Answer {
            likely,
            expected: listed / total,
            popular,
        });
    }

    /// A place in the ranking that has a new title begins anew.
    fn forget_titles_that_are_gone(&mut self, catalogue: &Catalogue) {
        let titles = catalogue.titles() as usize;
        self.completions.resize(titles, 0);
        self.releases.resize(titles, i64::MIN);
        for title in 0..catalogue.titles() {
            let release = catalogue.release(title);
            if std::mem::replace(&mut self.releases[title as usize], release) == release {
                continue;
            }
            self.completions[title as usize] = 0;
            let (word, bit) = (title as usize / 64, 1u64 << (title % 64));
            for known in self.users.values_mut() {
                known.begun[word] &= !bit;
                known.done[word] &= !bit;
            }
        }
    }
}

/// How likely each title is to be chosen and completed by somebody of this taste, up to a factor that is the same for all.
fn odds_of_completion(catalogue: &Catalogue, taste: Taste, odds: &mut Vec<f64>) {
    let mut of_genre = [0.0; GENRES.len()];
    let mut of_style = [[0.0; STYLES as usize]; GENRES.len()];
    let place = |title: u32| {
        let (genre, style) = (Catalogue::genre(title), Catalogue::style(title));
        (usize::from(genre), usize::from(style))
    };
    for title in 0..catalogue.titles() {
        let (genre, style) = place(title);
        of_genre[genre] += f64::from(catalogue.weight(title));
        of_style[genre][style] += f64::from(catalogue.weight(title));
    }
    let all = catalogue.genre_shares();
    let (favourite, second) = (
        f64::from(FAVOURITE_PER_HUNDRED) / 100.0,
        f64::from(SECOND_PER_HUNDRED) / 100.0,
    );
    let in_style = f64::from(STYLE_PER_THOUSAND) / 1000.0;
    odds.clear();
    odds.extend((0..catalogue.titles()).map(|title| {
        let (genre, style) = place(title);
        let mut of_taste = (1.0 - favourite - second) * all[genre];
        if genre == usize::from(taste.favourite) {
            of_taste += favourite;
        } else if genre == usize::from(taste.second) {
            of_taste += second;
        }
        let weight = f64::from(catalogue.weight(title));
        let mut within = (1.0 - in_style) * weight / of_genre[genre];
        if style == usize::from(taste.style) {
            within += in_style * weight / of_style[genre][style];
        }
        let completes = taste.completes_per_thousand(title, catalogue.duration_ms(title));
        of_taste * within * f64::from(completes)
    }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::TrafficSettings;

    #[test]
    fn the_oracle_knows_the_model_and_is_far_better_than_popularity() {
        let traffic = Traffic::new(5, TrafficSettings::default());
        let oracle = oracle(traffic, 250_000, 0.2);
        assert!(oracle.completed_playbacks > 3_000, "{oracle:?}");
        let difference = oracle.recall_at_20 - oracle.expected_recall_at_20;
        assert!(difference.abs() < 0.02, "{oracle:?}");
        assert!(
            oracle.recall_at_20 > 1.5 * oracle.popularity_recall_at_20,
            "{oracle:?}"
        );
    }

    #[test]
    fn the_same_seed_has_the_same_answer() {
        let run = || oracle(Traffic::new(6, TrafficSettings::default()), 20_000, 0.2);
        assert_eq!(run(), run());
    }
}
