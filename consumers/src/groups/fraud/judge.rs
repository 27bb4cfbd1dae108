//! From signs to a score in [0, 1], with reasons.
//!
//! Without labels: each sign says how surprising the actor is, in nats; the most surprising sign of each family speaks for it, and a family counts by the
//! square of its surprise, so that what is a little odd about everybody adds up to little, one very odd thing is not enough, and two are.
//! With labels: a logistic regression over the surprises of all signs, whose weights `activity fraud fit` finds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::norms::SURPRISE_MAX;
use super::signs::{FAMILIES, Figures, Id, SIGNS};
use crate::{Model, Models};

/// What must be exceeded: the logit of an actor without any surprise.
const NOTHING_ODD: f32 = -5.0;
/// The logit that a family adds at the highest surprise.
const FAMILY_MAX: f32 = 4.0;
/// A sign of less surprise is no reason.
pub(super) const REASON_MIN: f32 = 2.5;
/// Reasons of a click.
const REASONS_MAX: usize = 5;

/// What is odd about one click.
#[derive(Clone, Debug)]
pub(super) struct Readings {
    /// Surprise of each sign, in nats.
    surprises: [f32; SIGNS.len()],
    /// Figures of each sign.
    figures: [Figures; SIGNS.len()],
}

impl Default for Readings {
    fn default() -> Self {
        Self {
            surprises: [0.0; SIGNS.len()],
            figures: [[0.0; 2]; SIGNS.len()],
        }
    }
}

impl Readings {
    pub(super) fn note(&mut self, sign: usize, surprise: f32, figures: Figures) {
        if let (Some(noted), Some(of)) = (self.surprises.get_mut(sign), self.figures.get_mut(sign))
        {
            (*noted, *of) = (surprise, figures);
        }
    }

    /// As they are stored, and weighed: from 0 (nothing odd) to 1 (one actor in a thousand).
    pub(super) fn features(&self) -> [f32; SIGNS.len()] {
        self.surprises.map(|surprise| surprise / SURPRISE_MAX)
    }

    /// What speaks most for a script by these weights, in words.
    fn reasons(&self, weight: impl Fn(usize) -> f32) -> Vec<String> {
        let mut reasons: Vec<(f32, usize)> = self
            .surprises
            .iter()
            .enumerate()
            .filter(|(_, surprise)| **surprise >= REASON_MIN)
            .map(|(sign, surprise)| (weight(sign) * surprise, sign))
            .filter(|(part, _)| *part > 0.0)
            .collect();
        reasons.sort_by(|a, b| b.0.total_cmp(&a.0));
        let words = |sign: usize| {
            let (sign, figures) = (SIGNS.get(sign)?, self.figures.get(sign)?);
            Some(format!("{}: {}", sign.name, (sign.words)(*figures)))
        };
        let parts = reasons.into_iter().take(REASONS_MAX);
        parts.filter_map(|(_, sign)| words(sign)).collect()
    }
}

/// The score without labels; `but` is left out.
fn unsupervised(readings: &Readings, but: Option<Id>) -> f32 {
    let mut families = [0.0_f32; FAMILIES];
    for (index, (sign, surprise)) in SIGNS.iter().zip(readings.surprises).enumerate() {
        if but.is_none_or(|but| but as usize != index) {
            let family = &mut families[sign.family as usize];
            *family = family.max(surprise / SURPRISE_MAX * sign.trust.sqrt());
        }
    }
    let odd: f32 = families.iter().map(|odd| odd * odd).sum();
    sigmoid(NOTHING_ODD + FAMILY_MAX * odd)
}

/// How suspicious a user is by itself; what follows from others' suspicion is left out, or it would feed itself.
pub(super) fn suspicion(readings: &Readings, but: Id) -> f32 {
    unsupervised(readings, Some(but))
}

fn sigmoid(logit: f32) -> f32 {
    1.0 / (1.0 + (-logit).exp())
}

/// The content of a model: what is fitted, by the names of the signs, so that a later sign does not make it wrong.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Weights {
    /// The logit of a click without any sign.
    pub bias: f32,
    /// The logit that each sign adds at its highest surprise.
    pub weights: BTreeMap<String, f32>,
}

impl Weights {
    /// As the content of a model.
    pub fn content(&self) -> String {
        // Names and numbers are always JSON; a number that is not finite reads as none, and the score is then that without labels.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// Scores clicks, by the model that holds for each.
pub(super) struct Judge {
    models: Models,
    version: u32,
    /// Bias, and a weight for each sign; None: without labels.
    fitted: Option<(f32, Vec<f32>)>,
}

/// A scored click.
pub(super) struct Verdict {
    pub(super) score: f32,
    pub(super) reasons: Vec<String>,
    /// Version of the weights; 0: without labels.
    pub(super) version: u32,
}

impl Judge {
    pub(super) fn new(models: Models) -> Self {
        Self {
            models,
            version: 0,
            fitted: None,
        }
    }

    pub(super) fn judge(&mut self, readings: &Readings, appended_at_ms: i64) -> Verdict {
        if let Some(model) = self.models.other_than(self.version, appended_at_ms) {
            self.version = model.as_ref().map_or(0, |model| model.version);
            self.fitted = model.as_ref().and_then(read);
        }
        let (score, reasons) = match &self.fitted {
            None => (
                unsupervised(readings, None),
                readings.reasons(|sign| SIGNS.get(sign).map_or(0.0, |sign| sign.trust)),
            ),
            Some((bias, weights)) => {
                let weighed = readings.surprises.iter().zip(weights);
                let logit: f32 = weighed
                    .map(|(surprise, weight)| surprise / SURPRISE_MAX * weight)
                    .sum();
                let weight = |sign| weights.get(sign).copied().unwrap_or(0.0);
                (sigmoid(bias + logit), readings.reasons(weight))
            }
        };
        Verdict {
            score,
            reasons,
            version: self.version,
        }
    }
}

/// A model that cannot be read is none: the score is then that without labels.
fn read(model: &Model) -> Option<(f32, Vec<f32>)> {
    let content: Weights = serde_json::from_str(&model.content).ok()?;
    let weight = |sign: &super::Sign| content.weights.get(sign.name).copied().unwrap_or(0.0);
    let weights: Vec<f32> = SIGNS.iter().map(weight).collect();
    let finite = content.bias.is_finite() && weights.iter().all(|weight| weight.is_finite());
    finite.then_some((content.bias, weights))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn readings(signs: &[(Id, f32)]) -> Readings {
        let mut readings = Readings::default();
        for (id, surprise) in signs {
            readings.note(*id as usize, *surprise, [1.0, 2.0]);
        }
        readings
    }

    #[test]
    fn one_odd_thing_does_not_convict_and_two_do() {
        let mut judge = Judge::new(Models::default());
        let mut score = |signs: &[(Id, f32)]| judge.judge(&readings(signs), 0).score;
        assert!(score(&[]) < 0.01);
        assert!(
            score(&[(Id::Even, 6.9), (Id::Tame, 6.9), (Id::Clustered, 6.9)]) < 0.4,
            "one family"
        );
        assert!(score(&[(Id::Even, 6.9), (Id::TenMinutes, 6.9)]) > 0.9);
    }

    #[test]
    fn fitted_weights_hold_from_their_time_on_and_give_the_reasons() {
        let models = Models::default();
        let content = r#"{"bias": -3.0, "weights": {"burst": 10.0, "fast": -1.0, "a sign of tomorrow": 5.0}}"#;
        models.replace(vec![Model {
            version: 4,
            effective_at_ms: 100,
            content: Arc::from(content),
        }]);
        let mut judge = Judge::new(models);
        let readings = readings(&[(Id::Burst, 6.9), (Id::Minute, 6.9)]);
        let before = judge.judge(&readings, 99);
        assert_eq!((before.version, before.reasons.len()), (0, 2));
        let after = judge.judge(&readings, 100);
        assert_eq!(
            (after.version, after.reasons),
            (4, vec!["burst: 1 clicks in 10 seconds".to_owned()])
        );
        assert!((after.score - sigmoid(6.0)).abs() < 0.01);
        assert_eq!(
            judge.judge(&readings, 50).version,
            0,
            "an older event, by what held then"
        );
    }
}
