//! The published Avro schemas, embedded. A version never changes once it is published: tests hold its fingerprint.

use crate::EventKind;

/// One published version of an event's schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// 1 for `v1.avsc`.
    pub number: u32,
    /// The `.avsc`, as it is in the repository.
    pub json: &'static str,
}

const CLICK: &[Version] = &[Version {
    number: 1,
    json: include_str!("../avro/click/v1.avsc"),
}];
const WATCH: &[Version] = &[Version {
    number: 1,
    json: include_str!("../avro/watch/v1.avsc"),
}];

/// All versions of an event's schema, oldest first.
pub const fn versions(kind: EventKind) -> &'static [Version] {
    match kind {
        EventKind::Click => CLICK,
        EventKind::Watch => WATCH,
    }
}

/// The version that producers write today.
pub const fn newest(kind: EventKind) -> Version {
    let all = versions(kind);
    all[all.len() - 1]
}
