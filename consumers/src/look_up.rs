//! Look-ups: what a group lets others ask by key while it works. A group names them in its own file; who carries the questions (HTTP, in the runtime) is not
//! its business.

use activity_schemas::Topic;

/// What a group lets others ask: `GET /<path>/{key}`.
#[derive(Clone, Copy, Debug)]
pub struct LookUp {
    /// First part of the path, without slashes: `recommendations`.
    pub path: &'static str,
    /// What a key is, in a word, for help texts: `user`.
    pub key: &'static str,
    /// The topic whose instance answers. It has one partition, so that the one who owns it knows every key.
    pub topic: Topic,
}

/// What one instance answers, from memory that [`process`](crate::ConsumerGroup::process) publishes to and that other threads read meanwhile.
///
/// It is as bounded as the state that it shows, and must not keep `process` waiting for longer than an entry is copied.
pub trait Answers: Send + Sync {
    /// What is known of `key`, as JSON; `None`: nothing. `now_ms`: milliseconds since 1970-01-01 UTC by the wall clock, for ages.
    fn answer(&self, key: &str, now_ms: i64) -> Option<Vec<u8>>;
}
