//! How far a verification is, for whoever looks.

use std::sync::atomic::{AtomicU64, Ordering};

/// How far a verification is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Messages whose ranges were compared.
    pub messages: u64,
    /// Messages that there are to compare, as far as it is known by now.
    pub total: u64,
    /// What is being looked at.
    pub now: String,
}

/// Counts, and tells it whoever wants to hear.
pub struct Meter {
    messages: AtomicU64,
    total: AtomicU64,
    tell: Box<dyn Fn(&Progress) + Send + Sync>,
}

impl Meter {
    /// Nothing is done yet.
    pub fn new(tell: impl Fn(&Progress) + Send + Sync + 'static) -> Self {
        Self {
            messages: AtomicU64::new(0),
            total: AtomicU64::new(0),
            tell: Box::new(tell),
        }
    }

    /// There are so many messages more to compare.
    pub fn expect(&self, messages: u64) {
        self.total.fetch_add(messages, Ordering::Relaxed);
    }

    /// So many messages more were compared.
    pub fn advance(&self, messages: u64) {
        self.messages.fetch_add(messages, Ordering::Relaxed);
    }

    /// Says what is being looked at.
    pub fn now(&self, what: impl FnOnce() -> String) {
        (self.tell)(&Progress {
            messages: self.messages.load(Ordering::Relaxed),
            total: self.total.load(Ordering::Relaxed),
            now: what(),
        });
    }
}
