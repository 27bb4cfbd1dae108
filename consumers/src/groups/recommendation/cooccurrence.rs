//! Which titles are completed by the same people, close to each other: for each title its strongest neighbours and how strong they are.
//!
//! A pair counts `1/√d` for every user who completed both, `d` places apart (1: one right after the other): taste drifts and sessions have themes, so what
//! is watched together says more than what the same person watched a year apart, and yet the latter says something. Counts are integers in units of
//! 1/[`UNITS`], so that sums do not depend on a machine's arithmetic.

use serde::{Deserialize, Serialize};

use super::titles::Title;

/// Completions of a user that a new one is paired with, and that a list is made from. Time is spent in proportion to it, and more is not better: on recorded
/// ratings 10, 20 and 30 gave a recall@20 of .160, .168 and .165.
pub(super) const HISTORY: usize = 20;
/// Neighbours kept of a title, 8 bytes each; the weakest gives way to a new one. On recorded ratings 256, 512 and 1024 gave a recall@20 of .163, .168 and .170.
pub(super) const NEIGHBOURS_MAX: usize = 512;
/// Units of a pair's weight.
pub(super) const UNITS: f32 = 256.0;

/// The neighbours of one title, in the order in which they came.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Neighbours {
    titles: Vec<Title>,
    weights: Vec<u32>,
}

/// `1/√d` for the places between two completions of a user: 1 for neighbours in time.
pub(super) fn closeness(distance: usize) -> f32 {
    1.0 / (distance as f32).sqrt()
}

impl Neighbours {
    /// Makes the tie to `title` stronger, for a pair of completions `distance` places apart.
    pub(super) fn strengthen(&mut self, title: Title, distance: usize) {
        let weight = (closeness(distance) * UNITS) as u32;
        if let Some(at) = position(&self.titles, title) {
            self.weights[at] = self.weights[at].saturating_add(weight);
        } else if self.titles.len() < NEIGHBOURS_MAX {
            self.titles.push(title);
            self.weights.push(weight);
        } else {
            let weakest = self
                .weights
                .iter()
                .fold(u32::MAX, |least, weight| least.min(*weight));
            if let Some(at) = position(&self.weights, weakest) {
                self.titles[at] = title;
                self.weights[at] = weight;
            }
        }
    }

    /// Each neighbour with its weight, in units.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Title, f32)> {
        self.titles
            .iter()
            .zip(&self.weights)
            .map(|(title, weight)| (*title, *weight as f32))
    }

    /// Gives titles their new numbers and drops forgotten ones.
    pub(super) fn renumber(&mut self, renumbered: &[Option<Title>]) {
        let (titles, weights) = self
            .titles
            .iter()
            .zip(&self.weights)
            .filter_map(|(title, weight)| Some((renumbered[*title as usize]?, *weight)))
            .unzip();
        self.titles = titles;
        self.weights = weights;
    }

    /// Whether it is one that a model of `titles` titles can hold.
    pub(super) fn fits(&self, titles: usize) -> bool {
        self.titles.len() == self.weights.len()
            && self.titles.len() <= NEIGHBOURS_MAX
            && self.titles.iter().all(|title| (*title as usize) < titles)
    }
}

/// Where `wanted` stands among `numbers`. By blocks without a branch inside, which the compiler turns into vector instructions: these searches are most of
/// what a completion costs.
pub(super) fn position(numbers: &[u32], wanted: u32) -> Option<usize> {
    const BLOCK: usize = 32;
    let mut start = 0;
    for block in numbers.chunks_exact(BLOCK) {
        if block
            .iter()
            .fold(false, |hit, other| hit | (*other == wanted))
        {
            break;
        }
        start += BLOCK;
    }
    numbers[start..]
        .iter()
        .position(|other| *other == wanted)
        .map(|at| start + at)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_title_is_found_wherever_it_stands(titles in prop::collection::vec(0_u32..200, 0..200), wanted in 0_u32..200) {
            prop_assert_eq!(position(&titles, wanted), titles.iter().position(|title| *title == wanted));
        }
    }

    #[test]
    fn a_full_set_of_neighbours_gives_up_its_weakest() {
        let mut neighbours = Neighbours::default();
        for title in 0..NEIGHBOURS_MAX as Title {
            neighbours.strengthen(title, 1);
            neighbours.strengthen(title, 1);
        }
        neighbours.strengthen(7_000, 4);
        neighbours.strengthen(8_000, 1);
        let known: Vec<Title> = neighbours.iter().map(|(title, _)| title).collect();
        assert_eq!(known.len(), NEIGHBOURS_MAX);
        assert!(!known.contains(&7_000) && known.contains(&8_000));
    }
}
