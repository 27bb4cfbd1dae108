//! How much is polled before everything else gets its turn. Pure.

/// Messages, or errors, between two looks at everything else.
const MESSAGES_MAX: usize = 1_000;
/// Messages that are taken at once: more gain nothing.
const TAKEN_MAX: usize = 250;
/// Bytes of messages between two looks at everything else, the limits on memory among it: large messages must not carry a batch far beyond them.
const BYTES_MAX: usize = 4 * 1024 * 1024;

/// What was polled since everything else had its turn.
#[derive(Debug, Default)]
pub(crate) struct Burst {
    messages: usize,
    bytes: usize,
}

impl Burst {
    /// Something came, of so many bytes.
    pub fn count(&mut self, bytes: usize) {
        self.messages += 1;
        self.bytes += bytes;
    }

    /// How many messages to take next: fewer where those before were large.
    pub fn next_count(&self) -> usize {
        let mean_bytes = (self.bytes / self.messages.max(1)).max(1);
        let room = (BYTES_MAX.saturating_sub(self.bytes) / mean_bytes)
            .min(MESSAGES_MAX.saturating_sub(self.messages));
        room.clamp(1, TAKEN_MAX)
    }

    /// Whether it is everything else's turn.
    pub fn is_over(&self) -> bool {
        self.messages >= MESSAGES_MAX || self.bytes >= BYTES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many messages of a size come in one burst.
    fn messages_of(bytes: usize) -> usize {
        let mut burst = Burst::default();
        while !burst.is_over() {
            burst.count(bytes);
        }
        burst.messages
    }

    #[test]
    fn a_burst_of_large_messages_ends_by_their_bytes_and_one_of_small_ones_by_their_number() {
        assert_eq!(messages_of(1024 * 1024), 4);
        assert_eq!(messages_of(20 * 1024 * 1024), 1);
        assert_eq!(messages_of(350), MESSAGES_MAX);
        assert_eq!(messages_of(0), MESSAGES_MAX);
    }

    #[test]
    fn fewer_messages_are_taken_at_once_where_those_before_were_large() {
        let mut burst = Burst::default();
        assert_eq!(burst.next_count(), TAKEN_MAX);
        burst.count(BYTES_MAX / 4);
        assert_eq!(burst.next_count(), 3);
        burst.count(20 * BYTES_MAX);
        assert_eq!(burst.next_count(), 1);
        let mut small = Burst::default();
        (0..MESSAGES_MAX - 10).for_each(|_| small.count(350));
        assert_eq!(small.next_count(), 10);
    }
}
