//! A message that comes behind a hole: the offsets between were lost to retention, or were never there (compaction, markers of transactions). Pure but for the
//! question to the broker.

use rdkafka::consumer::{BaseConsumer, Consumer as _};

use crate::lane::Lane;
use crate::membership::{LogEnds, Membership};

/// First offset of the log, for a message at `offset` that comes next to a lane; 0 where there is no hole. None: only the broker knows, and gives no answer.
pub(crate) fn log_first(
    consumer: &BaseConsumer<Membership>,
    lane: &Lane,
    offset: i64,
    timeout: std::time::Duration,
) -> Option<i64> {
    let jumped = offset - lane.next();
    if jumped <= 0 {
        return Some(0);
    }
    let (topic, partition) = (lane.name.to_string(), lane.partition);
    let ask = || {
        let asked = consumer.fetch_watermarks(&topic, partition, timeout);
        asked.map(|(first, _)| first).ok()
    };
    let known = consumer.context().log_ends(&(topic.clone(), partition));
    first_behind(jumped, lane.is_redoing(), known, ask)
}

/// The client's own figure may be a second old: where more than one offset is jumped (one is the marker of a transaction, which may come with every message) the
/// broker is asked. So it is for a range that is built again, which must be the same to the offset. An old figure would make compaction of a loss.
fn first_behind(
    jumped: i64,
    is_redoing: bool,
    known: Option<LogEnds>,
    ask: impl FnOnce() -> Option<i64>,
) -> Option<i64> {
    if jumped > 1 || is_redoing {
        return ask();
    }
    Some(known.map_or(0, |ends| ends.first))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: Option<LogEnds> = Some(LogEnds { first: 3, next: 90 });

    #[test]
    fn without_an_answer_nothing_is_said_of_a_hole_that_may_be_a_loss() {
        assert_eq!(first_behind(2, false, OLD, || None), None);
        assert_eq!(first_behind(2, false, OLD, || Some(40)), Some(40));
    }

    #[test]
    fn the_marker_of_a_transaction_is_not_asked_for_but_in_a_range_that_is_built_again() {
        let unasked = || panic!("asked");
        assert_eq!(first_behind(1, false, OLD, unasked), Some(3));
        assert_eq!(first_behind(1, false, None, unasked), Some(0));
        assert_eq!(first_behind(1, true, OLD, || Some(40)), Some(40));
        assert_eq!(first_behind(1, true, OLD, || None), None);
    }
}
