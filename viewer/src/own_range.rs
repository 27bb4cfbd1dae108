//! Where a dashboard's data is, when the range that it opens on holds none: replayed traffic of last year is looked at last year.
//!
//! A dashboard says it itself, by two hidden variables, `data_from` and `data_to`, whose queries answer milliseconds since 1970; in Grafana they serve a link.

use crate::time::Range;

/// The variables' names.
pub(crate) const NAMES: [&str; 2] = ["data_from", "data_to"];

/// So that the last events do not sit on the edge, milliseconds.
const MARGIN_MS: i64 = 60_000;

/// The range to open on instead of `usual`, if there is data and none of it can be there.
pub(crate) fn instead_of(usual: Range, data: Range) -> Option<Range> {
    let is_empty = data.to <= 0 || data.from > data.to;
    let meets = data.from <= usual.to && data.to >= usual.from;
    (!is_empty && !meets).then_some(Range {
        from: data.from.saturating_sub(MARGIN_MS),
        to: data.to.saturating_add(MARGIN_MS),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_data_that_lies_elsewhere_moves_a_dashboard() {
        let usual = Range {
            from: 900_000,
            to: 1_000_000,
        };
        let of = |from, to| instead_of(usual, Range { from, to });
        assert_eq!(of(0, 0), None);
        assert_eq!(of(0, 900_000), None);
        assert_eq!(of(950_000, 2_000_000), None);
        let moved = Range {
            from: 40_000,
            to: 260_000,
        };
        assert_eq!(of(100_000, 200_000), Some(moved));
    }
}
