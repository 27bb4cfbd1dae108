//! Claims: what a committed offset says. The offset is S, "all before S is in ClickHouse"; the metadata is `v1;E;epoch;claimed_at`, "[S, E) may be in flight".

use std::fmt;

/// A range of offsets, first to one past the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// First offset.
    pub start: i64,
    /// Offset after the last.
    pub end: i64,
}

/// Stands for the time of a claim that is gone. Whoever takes the range over finds it in the claim's metadata: its rows may have been sent under another token.
pub const CLAIMED_AT_UNKNOWN: i64 = 0;

/// The metadata of a committed offset of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// E: end of the claimed range; equal to the committed offset where nothing is in flight.
    pub end: i64,
    /// The group's epoch.
    pub epoch: u32,
    /// When it was claimed, milliseconds since 1970-01-01 UTC; or [`CLAIMED_AT_UNKNOWN`].
    pub claimed_at_ms: i64,
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v1;{};{};{}", self.end, self.epoch, self.claimed_at_ms)
    }
}

impl Claim {
    /// Reads metadata back; None for metadata that is not ours (an offset that was reset by a tool has none).
    pub fn parse(metadata: &str) -> Option<Self> {
        let mut parts = metadata.split(';');
        if parts.next()? != "v1" {
            return None;
        }
        let claim = Self {
            end: parts.next()?.parse().ok()?,
            epoch: parts.next()?.parse().ok()?,
            claimed_at_ms: parts.next()?.parse().ok()?,
        };
        parts.next().is_none().then_some(claim)
    }
}

/// The name under which ClickHouse remembers that a batch was inserted.
pub fn token(group: &str, topic: &str, partition: i32, range: Range, epoch: u32) -> String {
    format!(
        "{group}/{topic}/{partition}/{}/{}/{epoch}",
        range.start, range.end
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_claim_reads_back_as_it_was_written(end: i64, epoch: u32, claimed_at_ms: i64) {
            let claim = Claim { end, epoch, claimed_at_ms };
            prop_assert_eq!(Claim::parse(&claim.to_string()), Some(claim));
        }

        #[test]
        fn foreign_metadata_is_no_claim_and_no_panic(metadata in ".{0,40}") {
            let _ = Claim::parse(&metadata);
        }
    }

    #[test]
    fn metadata_of_tools_is_no_claim() {
        for foreign in ["", "v1", "v1;1;2", "v1;1;2;3;4", "v2;1;2;3", "v1;a;2;3"] {
            assert_eq!(Claim::parse(foreign), None, "{foreign}");
        }
    }
}
