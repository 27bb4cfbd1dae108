//! How many messages of one batch Kafka has not acknowledged yet, and whether one of them never will be. No I/O.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use rdkafka::error::KafkaError;
use tokio::sync::Notify;

/// What is outstanding of one batch.
#[derive(Debug, Default)]
pub struct Outstanding {
    messages: AtomicUsize,
    /// The first error.
    failed: OnceLock<KafkaError>,
    changed: Notify,
}

impl Outstanding {
    /// A message goes to the client.
    pub fn one_more(&self) {
        self.messages.fetch_add(1, Ordering::Relaxed);
    }

    /// A message was acknowledged, or failed, or the client did not take it.
    pub fn one_less(&self) {
        // The last one wakes whoever waits; Release pairs with the Acquire there.
        if self.messages.fetch_sub(1, Ordering::Release) == 1 {
            self.changed.notify_one();
        }
    }

    /// A message will never be acknowledged. Only the first failure is kept.
    pub fn fail(&self, error: KafkaError) {
        let _ = self.failed.set(error);
    }

    /// Whether a message of the batch has failed.
    pub fn has_failed(&self) -> bool {
        self.failed.get().is_some()
    }

    /// Waits until no message is on its way any more; none may be added meanwhile.
    ///
    /// # Errors
    /// The first failure.
    pub async fn ended(&self) -> Result<(), KafkaError> {
        while self.messages.load(Ordering::Acquire) > 0 {
            self.changed.notified().await;
        }
        self.failed.get().cloned().map_or(Ok(()), Err)
    }
}
