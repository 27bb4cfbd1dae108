//! How a list is made from what a user completed.
//!
//! ```text
//! score(t) = n'(t) · ( Σ over the latest completions c, the a-th latest:  1/√a · w(c, t) · n'(c)   +   P · n(t) · n'(all) )
//!
//! w(c, t)   how strongly t is a neighbour of c (see `cooccurrence`)
//! n(t)      completions of t; n(all): of all titles
//! n'(t)     1/√(n(t) + S)
//! ```
//!
//! The first term is the cosine of the two titles' audiences: what everybody watches is not thereby everybody's neighbour. S ([`SHRINKAGE`]) damps titles too
//! rare to be told from chance. The second term is the same cosine with a title that everybody has completed: it orders a list by popularity as long as there
//! are hardly any neighbours (a young model, a new user, titles that few know), and fades as evidence adds up.
//!
//! One place of twenty, the last, is a new title's ([`Titles::new_titles`]) that would not be on the list by its score: the one that scores best for the user,
//! or else one of them in turn. Nobody completes what nobody is shown.
//!
//! Who has no list of their own is shown what most people completed of late.
//!
//! Computed in an order that the messages alone decide, with additions, multiplications, divisions and square roots, which IEEE 754 rounds alike everywhere.

use super::cooccurrence::{HISTORY, Neighbours, UNITS, closeness};
use super::titles::{Title, Titles};

/// Completions that a title seems to have beyond those that it has. On recorded ratings anything from 3 to 10 did as well.
const SHRINKAGE: f32 = 5.0;
/// How much "everybody" counts beside the user's latest completion, which counts 1. More helps while a model is young and costs later:
/// from 0 to 1, recall@20 rose from .095 to .102 on young simulated traffic and fell from .168 to .164 on recorded ratings.
const POPULARITY: f32 = 0.5;
/// A list has a place for a new title for each so many of its items.
const ITEMS_PER_NEW_TITLE: usize = 20;

/// What lists are made with; no state that a snapshot would hold.
#[derive(Default)]
pub(super) struct ListMaker {
    /// `1/√(n + S)` by title.
    norms: Vec<f32>,
    /// By title, zero between lists.
    scores: Vec<f32>,
    /// Titles with a score, while a list is made; one longer than `scores`.
    touched: Vec<Title>,
    /// New titles with a score, while a list is made.
    new_titles: Vec<(Title, f32)>,
}

impl ListMaker {
    /// For these titles.
    pub(super) fn of(titles: &Titles) -> Self {
        let mut maker = Self::default();
        (0..titles.len() as Title).for_each(|title| maker.learn(titles, title));
        maker
    }

    /// A title is new, or was completed once more.
    pub(super) fn learn(&mut self, titles: &Titles, title: Title) {
        if self.norms.len() <= title as usize {
            self.norms.resize(titles.len(), norm(0));
            self.scores.resize(titles.len(), 0.0);
            self.touched.resize(titles.len() + 1, 0);
        }
        self.norms[title as usize] = norm(titles.completions(title).into());
    }

    /// The best titles that are not `watched`, best first, each with its score; among equals the one come upon first.
    pub(super) fn best(
        &mut self,
        titles: &Titles,
        neighbours: &[Neighbours],
        watched: &[Title],
        items_max: usize,
    ) -> Vec<(Title, f32)> {
        let touched = self.add_up(neighbours, watched);
        let touched = self.add_popular(titles, watched, touched, items_max);
        let popularity = POPULARITY * norm(titles.completions_of_all());
        let mut best: Vec<(Title, f32)> = Vec::with_capacity(items_max + 1);
        let mut least = 0.0;
        for &title in &self.touched[..touched] {
            let sum = std::mem::take(&mut self.scores[title as usize]);
            let common = popularity * titles.completions(title) as f32;
            let score = (sum + common) * self.norms[title as usize];
            if titles.is_new(title) && score > 0.0 {
                self.new_titles.push((title, score));
            }
            if score > least {
                let at = best.partition_point(|(_, better)| *better >= score);
                best.insert(at, (title, score));
                best.truncate(items_max);
                if best.len() == items_max {
                    least = best.last().map_or(0.0, |(_, score)| *score);
                }
            }
        }
        let new_titles = std::mem::take(&mut self.new_titles);
        give_new_titles_a_chance(titles, new_titles, watched, items_max, &mut best);
        best
    }

    /// What is shown to who has no list of their own.
    pub(super) fn for_strangers(&self, titles: &Titles, items_max: usize) -> Vec<(Title, f32)> {
        let mut best = titles.trending(items_max);
        give_new_titles_a_chance(titles, Vec::new(), &[], items_max, &mut best);
        best
    }

    /// Adds up what the neighbours of the latest completions score; watched titles score minus infinity. Returns how many titles were touched.
    ///
    /// Most of what a completion costs is spent here, in thousands of additions.
    fn add_up(&mut self, neighbours: &[Neighbours], watched: &[Title]) -> usize {
        let Self {
            norms,
            scores,
            touched,
            ..
        } = self;
        let mut count = 0;
        for (index, title) in watched.iter().rev().take(HISTORY).enumerate() {
            let part = closeness(index + 1) * norms[*title as usize] / UNITS;
            for (neighbour, weight) in neighbours[*title as usize].iter() {
                let score = &mut scores[neighbour as usize];
                // Written always and kept if it was new: a branch would be guessed wrong half of the time.
                touched[count] = neighbour;
                count += usize::from(*score == 0.0);
                *score += part * weight;
            }
        }
        for title in watched {
            let score = &mut scores[*title as usize];
            touched[count] = *title;
            count += usize::from(*score == 0.0);
            *score = f32::NEG_INFINITY;
        }
        count
    }

    /// Lets the most completed titles in, as many as a list holds, though they be nobody's neighbours.
    fn add_popular(
        &mut self,
        titles: &Titles,
        watched: &[Title],
        mut count: usize,
        items_max: usize,
    ) -> usize {
        for title in titles.ranking().iter().take(items_max + watched.len()) {
            if titles.completions(*title) == 0 {
                break;
            }
            self.touched[count] = *title;
            let score = &mut self.scores[*title as usize];
            if *score == 0.0 {
                count += 1;
                // Not zero any more, so that nothing is touched twice, and too little to count.
                *score = f32::MIN_POSITIVE;
            }
        }
        count
    }
}

/// Gives the last places to new titles that are not on the list: those that score best, then those whose turn it is.
fn give_new_titles_a_chance(
    titles: &Titles,
    mut scored: Vec<(Title, f32)>,
    watched: &[Title],
    items_max: usize,
    best: &mut Vec<(Title, f32)>,
) {
    let places = items_max / ITEMS_PER_NEW_TITLE;
    if places == 0 {
        return;
    }
    let is_shown = |title: Title| best.iter().any(|(other, _)| *other == title);
    scored.retain(|(title, _)| !is_shown(*title));
    scored.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    let has_score = |title: Title| scored.iter().any(|(other, _)| *other == title);
    let mut in_turn: Vec<(Title, f32)> = titles
        .new_titles()
        .filter(|title| !watched.contains(title) && !is_shown(*title) && !has_score(*title))
        .map(|title| (title, 0.0))
        .collect();
    if !in_turn.is_empty() {
        let turn = titles.completions_of_all() % in_turn.len() as u64;
        in_turn.rotate_left(turn as usize);
    }
    let chosen: Vec<_> = scored.into_iter().chain(in_turn).take(places).collect();
    best.truncate(items_max - chosen.len());
    best.extend(chosen);
}

fn norm(completions: u64) -> f32 {
    1.0 / (completions as f32 + SHRINKAGE).sqrt()
}
