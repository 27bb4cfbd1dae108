//! Weights from labelled clicks: a logistic regression over the features of `fraud_scores`, with a ridge, by Newton's method. Pure; `activity fraud fit` reads
//! the clicks and stores the weights.
//!
//! An actor of a thousand clicks would drown a hundred of ten: a click counts by one over the root of its actor's clicks.

use super::{SIGNS, Weights};

/// Steps of Newton's method; it takes some ten.
const STEPS_MAX: usize = 50;
/// A step that changes no weight by more ends it.
const STEP_MIN: f64 = 1e-6;

/// Share of the other clicks, counted as they are fitted, that may score one half and more: innocents are many, and an alarm about one is dear. How many attacks
/// were among the labelled clicks says nothing about how many there will be.
const CONVICTED_MAX: f64 = 0.0005;

/// One labelled click.
#[derive(Clone, Debug, PartialEq)]
pub struct Example {
    /// As in the column `features`.
    pub features: Vec<f32>,
    /// Whether it belongs to an attack.
    pub is_attack: bool,
    /// How many labelled clicks its actor has.
    pub actor_clicks: u64,
}

/// What is wrong with the labelled clicks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FitError {
    /// Both must be there to be told apart.
    #[error("{attacks} clicks of attacks and {others} others: at least ten of each are needed")]
    TooFew {
        /// Clicks of attacks.
        attacks: usize,
        /// Other clicks.
        others: usize,
    },
    /// The click was scored by other code.
    #[error("a click has {found} features, not {}", SIGNS.len())]
    Features {
        /// How many it has.
        found: usize,
    },
    /// The equations have no solution, which a ridge above zero excludes.
    #[error("the weights cannot be solved for")]
    Singular,
}

/// Finds the weights that make the labels most likely; `ridge` is how many clicks' worth of doubt stands against every weight.
///
/// # Errors
/// [`FitError`]
pub fn fit(examples: &[Example], ridge: f64) -> Result<Weights, FitError> {
    let attacks = examples.iter().filter(|example| example.is_attack).count();
    let others = examples.len() - attacks;
    if attacks < 10 || others < 10 {
        return Err(FitError::TooFew { attacks, others });
    }
    let odd = |example: &&Example| example.features.len() != SIGNS.len();
    if let Some(found) = examples.iter().find(odd) {
        return Err(FitError::Features {
            found: found.features.len(),
        });
    }
    // The last weight is the bias, which no ridge holds down.
    let size = SIGNS.len() + 1;
    let mut weights = vec![0.0; size];
    for _ in 0..STEPS_MAX {
        let (gradient, curvature) = slope(examples, &weights, ridge);
        let step = solve(curvature, gradient).ok_or(FitError::Singular)?;
        let longest = step
            .iter()
            .fold(0.0_f64, |longest, part| longest.max(part.abs()));
        // A long step is cut, so that the curvature where it ends is not nought.
        let cut = (4.0 / longest.max(4.0)).min(1.0);
        for (weight, part) in weights.iter_mut().zip(&step) {
            *weight += cut * part;
        }
        if longest < STEP_MIN {
            break;
        }
    }
    let excess = excess(examples, &weights);
    if let Some(bias) = weights.last_mut() {
        *bias -= excess;
    }
    let named = SIGNS.iter().zip(&weights);
    Ok(Weights {
        bias: weights.last().map_or(0.0, |bias| *bias as f32),
        weights: named
            .map(|(sign, weight)| (sign.name.to_owned(), *weight as f32))
            .collect(),
    })
}

/// The logit that too many of the other clicks exceed, if it is above nought.
fn excess(examples: &[Example], weights: &[f64]) -> f64 {
    let (signs, bias) = weights.split_at(SIGNS.len());
    let logit = |example: &Example| -> f64 {
        let weighed = example.features.iter().zip(signs);
        let sum: f64 = weighed
            .map(|(feature, weight)| f64::from(*feature) * weight)
            .sum();
        sum + bias.iter().sum::<f64>()
    };
    let others = examples.iter().filter(|example| !example.is_attack);
    let mut logits: Vec<(f64, f64)> = others
        .map(|example| (logit(example), counts(example)))
        .collect();
    logits.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut left = CONVICTED_MAX * logits.iter().map(|(_, counts)| counts).sum::<f64>();
    let bound = logits.iter().find(|(_, counts)| {
        left -= counts;
        left < 0.0
    });
    bound.map_or(0.0, |(logit, _)| logit.max(0.0))
}

/// What a click counts.
fn counts(example: &Example) -> f64 {
    1.0 / (example.actor_clicks.max(1) as f64).sqrt()
}

/// Gradient and curvature (its lower half, row by row) of the log-likelihood less the ridge.
fn slope(examples: &[Example], weights: &[f64], ridge: f64) -> (Vec<f64>, Vec<Vec<f64>>) {
    let size = weights.len();
    let mut gradient = vec![0.0; size];
    let mut curvature: Vec<Vec<f64>> = (1..=size).map(|length| vec![0.0; length]).collect();
    let mut inputs = vec![1.0; size];
    for example in examples {
        for (input, feature) in inputs.iter_mut().zip(&example.features) {
            *input = f64::from(*feature);
        }
        let logit: f64 = inputs
            .iter()
            .zip(weights)
            .map(|(input, weight)| input * weight)
            .sum();
        let probability = 1.0 / (1.0 + (-logit).exp());
        let counts = counts(example);
        let miss = counts * (f64::from(u8::from(example.is_attack)) - probability);
        let bend = counts * probability * (1.0 - probability);
        for (row, input) in inputs
            .iter()
            .enumerate()
            .filter(|(_, input)| **input != 0.0)
        {
            gradient[row] += miss * input;
            for (cell, other) in curvature[row].iter_mut().zip(&inputs) {
                *cell += bend * input * other;
            }
        }
    }
    for (index, weight) in weights.iter().enumerate().take(size - 1) {
        gradient[index] -= ridge * weight;
        curvature[index][index] += ridge;
    }
    curvature[size - 1][size - 1] += 1e-9;
    (gradient, curvature)
}

/// Solves a symmetric positive definite system, given by its lower half, by Cholesky's decomposition.
fn solve(mut matrix: Vec<Vec<f64>>, mut right: Vec<f64>) -> Option<Vec<f64>> {
    let size = right.len();
    for row in 0..size {
        for column in 0..=row {
            let dot: f64 = (0..column)
                .map(|at| matrix[row][at] * matrix[column][at])
                .sum();
            let rest = matrix[row][column] - dot;
            if row == column {
                if rest.is_nan() || rest <= 0.0 {
                    return None;
                }
                matrix[row][row] = rest.sqrt();
            } else {
                matrix[row][column] = rest / matrix[column][column];
            }
        }
    }
    for row in 0..size {
        let dot: f64 = (0..row).map(|at| matrix[row][at] * right[at]).sum();
        right[row] = (right[row] - dot) / matrix[row][row];
    }
    for row in (0..size).rev() {
        let dot: f64 = (row + 1..size).map(|at| matrix[at][row] * right[at]).sum();
        right[row] = (right[row] - dot) / matrix[row][row];
    }
    Some(right)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(first: f32, second: f32, is_attack: bool) -> Example {
        let mut features = vec![0.0; SIGNS.len()];
        (features[0], features[1]) = (first, second);
        Example {
            features,
            is_attack,
            actor_clicks: 1,
        }
    }

    #[test]
    fn the_weights_of_a_logistic_world_are_found_again() {
        let mut examples = Vec::new();
        for index in 0..40_000_u64 {
            let part = |shift: u32| {
                (index.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> shift & 0xfff) as f32 / 4096.0
            };
            let (first, second, draw) = (part(8), part(24), part(44));
            let odds = 1.0 / (1.0 + (2.0 - 4.0 * first + second).exp());
            examples.push(example(first, second, draw < odds));
        }
        let weights = fit(&examples, 1.0).unwrap();
        let of = |index: usize| weights.weights[SIGNS[index].name];
        // The true bias is -2; held down by what lies highest among the others, it is about as far below as the signs reach.
        assert!((-4.2..-3.4).contains(&weights.bias), "{weights:?}");
        assert!((of(0) - 4.0).abs() < 0.3 && (of(1) + 1.0).abs() < 0.2);
        assert_eq!(of(2), 0.0, "what is never seen has no weight");
    }

    #[test]
    fn labels_that_can_be_told_apart_perfectly_give_weights_that_stay_small() {
        let examples: Vec<Example> = (0..200)
            .map(|index| example((index % 2) as f32, 0.0, index % 2 == 1))
            .collect();
        let weights = fit(&examples, 1.0).unwrap();
        assert!(
            weights.weights.values().all(|weight| weight.abs() < 20.0),
            "{weights:?}"
        );
    }

    #[test]
    fn labels_of_one_kind_are_not_enough() {
        let examples = vec![example(1.0, 0.0, true); 50];
        assert_eq!(
            fit(&examples, 1.0),
            Err(FitError::TooFew {
                attacks: 50,
                others: 0
            })
        );
    }
}
