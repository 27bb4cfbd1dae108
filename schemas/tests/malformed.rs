//! Whatever the bytes: no panic, and no allocation that the length of the message does not justify. In a binary of its own, because it counts allocations.
#![allow(
    clippy::unwrap_used,
    unsafe_code,
    reason = "a counting allocator cannot be written without it"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use activity_schemas::{ClickEvent, Decoders, Encoder, EventKind, WatchEvent, avro};
use proptest::prelude::*;

struct Counting;

thread_local! {
    static ALLOCATED: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: forwards every call unchanged to the system's allocator; the counter is a thread-local Cell without destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.with(|allocated| allocated.set(allocated.get() + layout.size()));
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATED.with(|allocated| allocated.set(allocated.get() + size));
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// An error's text, and what quotes the message in it.
const ERROR_BYTES_MAX: usize = 2048;

fn decoders(kind: EventKind) -> Decoders {
    let mut decoders = Decoders::new(kind);
    decoders.add(1, avro::newest(kind).json);
    // A schema with what ours do not have: arrays and maps of things that take no bytes, and nesting.
    let hostile = avro::newest(kind).json.replacen(
        "\"fields\": [",
        r#""fields": [{"name": "nothings", "type": {"type": "array", "items": "null"}}, {"name": "names", "type": {"type": "map", "values": "bytes"}},
           {"name": "nested", "type": ["null", {"type": "record", "name": "Nested", "fields": [{"name": "deeper", "type": ["null", "Nested"]}]}]},"#,
        1,
    );
    decoders.add(2, &hostile);
    decoders
}

fn check(decoders: &Decoders, message: &[u8]) {
    let before = ALLOCATED.with(Cell::get);
    let outcome = decoders.decode(message);
    let allocated = ALLOCATED.with(Cell::get) - before;
    drop(outcome);
    let allowed = ERROR_BYTES_MAX + 4 * message.len();
    assert!(
        allocated <= allowed,
        "{allocated} bytes allocated for a message of {}",
        message.len()
    );
}

fn encoded(kind: EventKind) -> Vec<u8> {
    let encoder = Encoder::new(kind, 1);
    let mut message = Vec::new();
    let id = "0190a3f4-0000-7000-8000-000000000002";
    match kind {
        EventKind::Click => encoder.encode(
            &ClickEvent {
                event_id: id,
                user_id: "user",
                page: Some("/page"),
                ..ClickEvent::default()
            },
            &mut message,
        ),
        EventKind::Watch => encoder.encode(
            &WatchEvent {
                event_id: id,
                user_id: "user",
                video_id: "video",
                duration_ms: Some(1 << 40),
                ..WatchEvent::default()
            },
            &mut message,
        ),
    }
    .unwrap();
    message
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn random_bytes_behind_a_known_schema_do_no_harm(id in 1_u8..=2, datum in prop::collection::vec(any::<u8>(), 0..200)) {
        let message = [&[0, 0, 0, 0, id], &datum[..]].concat();
        for kind in EventKind::ALL {
            check(&decoders(kind), &message);
        }
    }

    #[test]
    fn a_good_message_with_bytes_changed_cut_or_added_does_no_harm(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
        added in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        for kind in EventKind::ALL {
            let mut message = encoded(kind);
            for (index, byte) in &changes {
                let index = index.index(message.len());
                message[index] = *byte;
            }
            message.truncate(cut.index(message.len() + 1));
            message.extend_from_slice(&added);
            check(&decoders(kind), &message);
        }
    }

    #[test]
    fn a_length_that_the_message_does_not_have_allocates_nothing(length in any::<u64>(), position in 5_usize..40) {
        for kind in EventKind::ALL {
            let mut message = encoded(kind);
            message.truncate(position.min(message.len()));
            let mut rest = length;
            for _ in 0..10 {
                message.push((rest as u8 & 0x7f) | 0x80);
                rest >>= 7;
            }
            message.push(1);
            check(&decoders(kind), &message);
        }
    }
}
