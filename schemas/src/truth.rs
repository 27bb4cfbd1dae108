//! Ground truth of synthetic or labelled traffic travels beside the event, in Kafka headers, so that no group can take it for an input by accident.

/// Says whether the event belongs to an attack: `0` or `1`. Absent where nobody knows.
pub const LABEL_HEADER: &str = "truth-label";
/// Names the kind of attack: `click-farm`. Empty or absent where there is none.
pub const ATTACK_HEADER: &str = "truth-attack";
