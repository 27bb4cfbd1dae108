//! Models: what a command fits from labelled traffic and a group then works by, in versions. Their content is the group's own text; nobody else looks into it.
//!
//! An event is handled by the highest version whose `effective_at` is at or before the event's append time. Append times are the log's, so whoever handles an
//! event, at whatever time, takes the same version, and a range that is built again has the same bytes. A new version begins to hold somewhat later than it
//! is stored, so that every process has loaded it by then.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

/// One version of a group's model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// From 1; a later one is higher.
    pub version: u32,
    /// It holds for events that the broker appended at this time and later, milliseconds since 1970-01-01 UTC.
    pub effective_at_ms: i64,
    /// The group's own text.
    pub content: Arc<str>,
}

/// Every version of one group's model, shared by its instances in one process. The runtime fills it.
#[derive(Clone, Default)]
pub struct Models(Arc<RwLock<Vec<Model>>>);

impl Models {
    /// Takes over the versions that there are.
    pub fn replace(&self, mut models: Vec<Model>) {
        models.sort_by_key(|model| model.version);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = models;
    }

    /// What an event appended at that time is handled by, unless that is `known`: then there is nothing to tell.
    pub(crate) fn other_than(&self, known: u32, appended_at_ms: i64) -> Option<Option<Model>> {
        let models = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let held = models
            .iter()
            .rev()
            .find(|model| model.effective_at_ms <= appended_at_ms);
        let version = held.map_or(0, |model| model.version);
        (version != known).then(|| held.cloned())
    }
}

/// Says nothing of the content: a snapshot fits whatever versions there are.
impl fmt::Debug for Models {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Models")
    }
}

/// As a setting they are a place to look at, not what lies there.
impl PartialEq for Models {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

impl Eq for Models {}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(version: u32, effective_at_ms: i64) -> Model {
        Model {
            version,
            effective_at_ms,
            content: Arc::from("{}"),
        }
    }

    #[test]
    fn an_event_is_handled_by_the_highest_version_that_holds_at_its_append_time() {
        let models = Models::default();
        let version = |at_ms| {
            models
                .other_than(u32::MAX, at_ms)
                .unwrap()
                .map(|held| held.version)
        };
        assert_eq!(version(10), None);
        models.replace(vec![model(2, 200), model(1, 100)]);
        assert_eq!(
            [99, 100, 199, 200].map(version),
            [None, Some(1), Some(1), Some(2)]
        );
        models.replace(vec![model(1, 100), model(2, 200), model(3, 0)]);
        assert_eq!(version(250), Some(3), "one that holds from the beginning");
        assert_eq!(models.other_than(3, 250), None);
    }
}
