//! How well scores rank what is positive above what is not, from counts of equal scores.

/// Items of one score.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Tier {
    /// The score, or whatever rises with it.
    pub(crate) score: f64,
    /// Items that are positive.
    pub(crate) positives: u64,
    /// Items that are not.
    pub(crate) negatives: u64,
}

/// Area under the ROC curve, and average precision; `None` unless there are both kinds. Equal scores count half, and are taken together.
pub(crate) fn rank(mut tiers: Vec<Tier>) -> Option<(f64, f64)> {
    tiers.sort_by(|a, b| b.score.total_cmp(&a.score));
    let (mut won, mut precision) = (0.0, 0.0);
    let (mut positives, mut negatives) = (0.0, 0.0);
    for same in tiers.chunk_by(|a, b| a.score == b.score) {
        let here = same.iter().map(|tier| tier.positives).sum::<u64>() as f64;
        let others = same.iter().map(|tier| tier.negatives).sum::<u64>() as f64;
        // Positives above win against what comes below them.
        won += others * (positives + here / 2.0);
        positives += here;
        negatives += others;
        if here > 0.0 {
            precision += here * positives / (positives + negatives);
        }
    }
    (positives > 0.0 && negatives > 0.0)
        .then(|| (won / (positives * negatives), precision / positives))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tier(score: f64, positives: u64, negatives: u64) -> Tier {
        Tier {
            score,
            positives,
            negatives,
        }
    }

    #[test]
    fn a_perfect_ranking_has_one_and_a_blind_one_has_half_and_the_share_of_positives() {
        assert_eq!(
            rank(vec![tier(0.9, 10, 0), tier(0.1, 0, 90)]),
            Some((1.0, 1.0))
        );
        assert_eq!(rank(vec![tier(0.5, 10, 90)]), Some((0.5, 0.1)));
        assert_eq!(
            rank(vec![tier(0.5, 5, 0), tier(0.5, 5, 90)]),
            Some((0.5, 0.1))
        );
    }

    #[test]
    fn a_known_ranking_has_the_values_that_were_worked_out_by_hand() {
        // From the top: positive, negative, positive, negative: 3 of 4 pairs are in order; precision is 1 at the first and 2/3 at the second.
        let tiers = vec![
            tier(0.2, 0, 1),
            tier(0.9, 1, 0),
            tier(0.4, 1, 0),
            tier(0.6, 0, 1),
        ];
        let (auc, precision) = rank(tiers).unwrap();
        assert_eq!(auc, 0.75);
        assert!((precision - 5.0 / 6.0).abs() < 1e-12);
    }

    #[test]
    fn without_both_kinds_there_is_nothing_to_tell_apart() {
        assert_eq!(rank(vec![tier(0.5, 3, 0)]), None);
        assert_eq!(rank(Vec::new()), None);
    }
}
