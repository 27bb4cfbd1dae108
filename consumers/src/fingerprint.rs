//! Fingerprints of text: state that is kept per user or playback is keyed by them, so that an entry has a fixed size whatever somebody writes into an id.
//!
//! XXH3 with 64 bits, because its value is laid down by its specification: a snapshot written on one machine is read on another, by a later build.
//! Two of a million keys share a fingerprint with a probability of 3 in 100 million; they would then share one user's state, nothing worse.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// The fingerprint of one text.
pub(crate) fn fingerprint(text: &str) -> u64 {
    xxh3_64(text.as_bytes())
}

/// The fingerprint of something that is no text.
pub(crate) fn fingerprint_of_bytes(bytes: &[u8]) -> u64 {
    xxh3_64(bytes)
}

/// The fingerprint of a text of another kind, so that equal texts of two kinds differ.
pub(crate) fn fingerprint_of_kind(kind: u64, text: &str) -> u64 {
    xxh3_64_with_seed(text.as_bytes(), kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_stay_what_they_are_because_snapshots_hold_them() {
        assert_eq!(fingerprint(""), 0x2d06_8005_38d3_94c2);
        assert_ne!(fingerprint("a"), fingerprint_of_kind(1, "a"));
    }
}
