//! What is usual on this site: for each sign, how its values are spread over actors, and how surprising a value is against that.
//!
//! An actor counts at its 1st, 2nd, 4th, 8th … click of an hour, so that a thousand clicks of one script weigh as ten clicks of ten people and do not make
//! themselves the norm. Before there is traffic a general assumption
//! stands in for [`ASSUMED`] actors; old traffic fades by halves.

use serde::{Deserialize, Serialize};

use super::signs::{SIGNS, Sign};

/// Values are told apart that finely within a sign's range.
const BINS: usize = 64;
/// As many actors' worth of traffic the general assumption counts.
const ASSUMED: f32 = 40.0;
/// Beyond so many values, all weights are halved: what is usual may change.
const VALUES_MAX: u32 = 50_000;
/// Surprise of a value that one actor in a thousand exceeds, in nats: more surprising than that is as good as certain.
pub(super) const SURPRISE_MAX: f32 = 6.9;

/// The norms of some of the signs, in the order of [`SIGNS`].
#[derive(Serialize, Deserialize)]
pub(super) struct Norms {
    first: usize,
    norms: Vec<Norm>,
}

#[derive(Clone, Default, Serialize, Deserialize)]
struct Norm {
    /// How many values lie in a bin or above it.
    at_least: Vec<u32>,
}

impl Norms {
    /// Norms of `count` signs from `first` on.
    pub(super) fn new(first: usize, count: usize) -> Self {
        let norm = Norm {
            at_least: vec![0; BINS],
        };
        Self {
            first,
            norms: vec![norm; count],
        }
    }

    /// Whether they have the form that this code gives them.
    pub(super) fn fit(&self, first: usize, count: usize) -> bool {
        let whole = |norm: &Norm| norm.at_least.len() == BINS;
        self.first == first && self.norms.len() == count && self.norms.iter().all(whole)
    }

    /// How surprising each value is, in nats from 0 to [`SURPRISE_MAX`]; a value that is not known surprises nobody.
    pub(super) fn surprises<'a>(
        &'a self,
        values: &'a [Option<f32>],
    ) -> impl Iterator<Item = (usize, f32)> + 'a {
        let signs = self.norms.iter().zip(values).enumerate();
        signs.filter_map(move |(index, (norm, value))| {
            let sign = self.first + index;
            Some((sign, norm.surprise(SIGNS.get(sign)?, (*value)?)))
        })
    }

    /// Takes an actor's values into account.
    pub(super) fn learn(&mut self, values: &[Option<f32>]) {
        for (index, (norm, value)) in self.norms.iter_mut().zip(values).enumerate() {
            if let (Some(sign), Some(value)) = (SIGNS.get(self.first + index), value) {
                norm.learn(sign, *value);
            }
        }
    }
}

impl Norm {
    /// What is odd is odd by general grounds and on this site: the root of both surprises. A site where many scripts click does not make them usual at once, and
    /// one whose people are alike does not make a small difference odd.
    fn surprise(&self, sign: &Sign, value: f32) -> f32 {
        // Its whole bin counts as no less odd: many values are counts, and equal.
        let values = |bin: usize| self.at_least.get(bin).copied().unwrap_or(0) as f32;
        let at_least = values(place(sign, value));
        let general = general_surprise(sign, value);
        let tail = (ASSUMED * (-general).exp() + at_least) / (ASSUMED + values(0));
        let here = (-tail.ln()).clamp(0.0, SURPRISE_MAX);
        (general * here).sqrt()
    }

    fn learn(&mut self, sign: &Sign, value: f32) {
        if self
            .at_least
            .first()
            .is_some_and(|values| *values >= VALUES_MAX)
        {
            self.at_least.iter_mut().for_each(|values| *values /= 2);
        }
        let bin = place(sign, value);
        self.at_least
            .iter_mut()
            .take(bin + 1)
            .for_each(|values| *values += 1);
    }
}

/// How surprising a value is by general grounds, in nats.
fn general_surprise(sign: &Sign, value: f32) -> f32 {
    SURPRISE_MAX * ((value - sign.usual) / (sign.rare - sign.usual)).clamp(0.0, 1.0)
}

/// Whether a value may surprise so much, whatever is usual on the site.
pub(super) fn may_surprise(sign: &Sign, value: f32, surprise: f32) -> bool {
    general_surprise(sign, value) * SURPRISE_MAX >= surprise * surprise
}

/// The bin of a value; the ends hold what is beyond them.
fn place(sign: &Sign, value: f32) -> usize {
    let (from, to) = sign.range;
    (((value - from) / (to - from)).clamp(0.0, 1.0) * (BINS - 1) as f32) as usize
}

/// Whether an actor counts at its `clicks`-th click of an hour.
pub(super) fn counts(clicks: u32) -> bool {
    clicks.is_power_of_two()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_most_actors_do_surprises_nobody_and_what_none_does_surprises() {
        let mut norms = Norms::new(0, 1);
        let surprise = |norms: &Norms, value| norms.surprises(&[Some(value)]).next().unwrap().1;
        let (usual, rare) = (SIGNS[0].usual, SIGNS[0].rare);
        assert_eq!(surprise(&norms, usual), 0.0);
        assert!(surprise(&norms, rare) > 6.8, "the general assumption");
        for _ in 0..2_000 {
            norms.learn(&[Some(rare)]);
        }
        assert!(surprise(&norms, rare) < 1.0, "usual here");
        assert!(surprise(&norms, rare + 1.0) > 5.0);
    }

    #[test]
    fn a_thousand_clicks_of_one_script_count_as_ten() {
        assert_eq!((1..=1000).filter(|clicks| counts(*clicks)).count(), 10);
    }
}
