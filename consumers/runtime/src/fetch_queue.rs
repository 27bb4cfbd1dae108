//! Where the messages of all partitions of a consumer wait, to be taken by the hundred.
//!
//! librdkafka gives them out so only from a queue of ours: in the consumer's own they stand between rebalances and other events, which the crate takes
//! one by one. So each partition is routed here when it is assigned, and the consumer is still polled, for the events.

#![allow(unsafe_code)]

use std::ffi::CString;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::bindings as native;
use rdkafka::consumer::{BaseConsumer, Consumer as _};

use crate::fetched::Fetched;
use crate::membership::Membership;

/// The queue, and the consumer that it belongs to.
pub(crate) struct FetchQueue {
    queue: NonNull<native::rd_kafka_queue_t>,
    consumer: Arc<BaseConsumer<Membership>>,
}

// SAFETY: librdkafka's queues have a lock of their own and may be used by any thread.
unsafe impl Send for FetchQueue {}
// SAFETY: as above.
unsafe impl Sync for FetchQueue {}

impl FetchQueue {
    /// An empty queue: nothing comes before a partition is routed here.
    pub fn new(consumer: Arc<BaseConsumer<Membership>>) -> Self {
        // SAFETY: the client lives as long as `consumer`, which is kept.
        let queue = unsafe { native::rd_kafka_queue_new(consumer.client().native_ptr()) };
        let queue = NonNull::new(queue);
        Self {
            queue: queue.unwrap_or_else(|| unreachable!("librdkafka aborts where memory is short")),
            consumer,
        }
    }

    /// From now on the partition's messages come here; to be called while it is paused, or some of them come by the consumer's own queue.
    pub fn route(&self, topic: &str, partition: i32) {
        // Kafka lets no topic have such a name.
        let Ok(topic) = CString::new(topic) else {
            return;
        };
        let client = self.consumer.client().native_ptr();
        // SAFETY: client and queues live; what was got of the partition's queue is given back.
        unsafe {
            let queue = native::rd_kafka_queue_get_partition(client, topic.as_ptr(), partition);
            if !queue.is_null() {
                native::rd_kafka_queue_forward(queue, self.queue.as_ptr());
                native::rd_kafka_queue_destroy(queue);
            }
        }
    }

    /// Up to `count` messages, those of a partition in order. Waits until that many are there, at most `timeout`.
    pub fn take(&self, count: usize, timeout: Duration) -> Vec<Fetched<'_>> {
        let mut messages: Vec<Fetched<'_>> = Vec::with_capacity(count);
        let timeout_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: there is room for `count` pointers, as which a `Fetched` is laid out; what librdkafka has written of them are messages that are ours.
        unsafe {
            let taken = native::rd_kafka_consume_batch_queue(
                self.queue.as_ptr(),
                timeout_ms,
                messages.spare_capacity_mut().as_mut_ptr().cast(),
                count,
            );
            messages.set_len(usize::try_from(taken).unwrap_or(0));
        }
        messages
    }
}

impl Drop for FetchQueue {
    fn drop(&mut self) {
        // SAFETY: once; messages that were taken borrow from this, so there are none.
        unsafe { native::rd_kafka_queue_destroy(self.queue.as_ptr()) }
    }
}
