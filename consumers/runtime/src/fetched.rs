//! A message as librdkafka hands it over: read in place, freed when it is dropped.
//!
//! Why not the crate's own message: it comes by polls, one for each, which cost two allocations, three looks at the clock and an event of their own; a
//! quarter of what a message cost us at all. Here they come by the hundred (`fetch_queue`), which the crate does not know of.
//!
//! This is one of the few places with `unsafe`: pointers into librdkafka's memory become slices that live no longer than the message. What is asked of
//! librdkafka stands in [`Native`], so that the tests, with memory of Rust's own, can run under Miri, which runs no C:
//! `cargo +nightly miri test -p activity-runtime fetched`.

#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_void};
use std::marker::PhantomData;
use std::ptr::{NonNull, null, null_mut};
use std::slice;

use activity_consumers::Headers;
use rdkafka::bindings as native;
use rdkafka::bindings::{rd_kafka_headers_t, rd_kafka_message_t, rd_kafka_topic_t};
use rdkafka::error::KafkaError;

use crate::headers::{MessageHeaders, UNREADABLE, first_of};

/// What is asked of librdkafka about a message.
pub(crate) trait Native {
    /// # Safety
    /// `topic` is that of a message that is not freed.
    unsafe fn topic_name(topic: *mut rd_kafka_topic_t) -> *const c_char;
    /// Milliseconds since 1970-01-01 UTC, -1 where there is none.
    ///
    /// # Safety
    /// `message` is not freed.
    unsafe fn timestamp_ms(message: *const rd_kafka_message_t) -> i64;
    /// Null where it has none.
    ///
    /// # Safety
    /// `message` is not freed, and nobody else asks at the same time: its headers are parsed now.
    unsafe fn headers(message: *const rd_kafka_message_t) -> *mut rd_kafka_headers_t;
    /// Name, value and its length of the header at a place; None behind the last.
    ///
    /// # Safety
    /// `headers` are those of a message that is not freed.
    unsafe fn header_at(
        headers: *const rd_kafka_headers_t,
        place: usize,
    ) -> Option<(*const c_char, *const c_void, usize)>;
    /// # Safety
    /// `message` is not freed, and nothing of it is looked at afterwards.
    unsafe fn free(message: *mut rd_kafka_message_t);
}

/// librdkafka itself.
pub(crate) struct Librdkafka;

impl Native for Librdkafka {
    unsafe fn topic_name(topic: *mut rd_kafka_topic_t) -> *const c_char {
        // SAFETY: the caller's.
        unsafe { native::rd_kafka_topic_name(topic) }
    }

    unsafe fn timestamp_ms(message: *const rd_kafka_message_t) -> i64 {
        // SAFETY: the caller's; of which kind the time is nobody asks.
        unsafe { native::rd_kafka_message_timestamp(message, null_mut()) }
    }

    unsafe fn headers(message: *const rd_kafka_message_t) -> *mut rd_kafka_headers_t {
        let mut headers = null_mut();
        // SAFETY: the caller's. After an error nothing was written.
        unsafe { native::rd_kafka_message_headers(message, &mut headers) };
        headers
    }

    unsafe fn header_at(
        headers: *const rd_kafka_headers_t,
        place: usize,
    ) -> Option<(*const c_char, *const c_void, usize)> {
        let (mut name, mut value, mut length) = (null(), null(), 0);
        // SAFETY: the caller's.
        let answer = unsafe {
            native::rd_kafka_header_get_all(headers, place, &mut name, &mut value, &mut length)
        };
        (answer == native::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR)
            .then_some((name, value, length))
    }

    unsafe fn free(message: *mut rd_kafka_message_t) {
        // SAFETY: the caller's.
        unsafe { native::rd_kafka_message_destroy(message) }
    }
}

/// A message, or an error that came in the place of one. It must not outlive the queue that it came from.
#[repr(transparent)]
pub(crate) struct Fetched<'q, N: Native = Librdkafka> {
    message: NonNull<rd_kafka_message_t>,
    queue: PhantomData<&'q N>,
}

impl<N: Native> Fetched<'_, N> {
    fn raw(&self) -> &rd_kafka_message_t {
        // SAFETY: it is ours and freed only when this is dropped; librdkafka does not write what is read here.
        unsafe { self.message.as_ref() }
    }

    /// What came instead of a message.
    pub fn error(&self) -> Option<KafkaError> {
        let code = self.raw().err;
        (code != native::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR)
            .then(|| KafkaError::MessageConsumption(code.into()))
    }

    /// Whether both are messages of one partition.
    pub fn is_of_same_partition(&self, other: &Self) -> bool {
        let (one, other) = (self.raw(), other.raw());
        let both_good = one.err == native::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
            && other.err == one.err;
        // The client has one object for each topic.
        both_good && one.partition == other.partition && one.rkt == other.rkt
    }

    /// Full name of the topic.
    pub fn topic(&self) -> &str {
        // SAFETY: the topic's name lives as long as the message holds it.
        let name = unsafe { CStr::from_ptr(N::topic_name(self.raw().rkt)) };
        name.to_str().unwrap_or_default()
    }

    /// Partition.
    pub fn partition(&self) -> i32 {
        self.raw().partition
    }

    /// Offset.
    pub fn offset(&self) -> i64 {
        self.raw().offset
    }

    /// Append time, milliseconds since 1970-01-01 UTC; 0 where there is none.
    pub fn appended_at_ms(&self) -> i64 {
        // SAFETY: as in `raw`.
        unsafe { N::timestamp_ms(self.message.as_ptr()) }.max(0)
    }

    /// Key.
    pub fn key(&self) -> Option<&[u8]> {
        // SAFETY: librdkafka's pointer and length belong together and live as long as the message.
        unsafe { bytes(self.raw().key, self.raw().key_len) }
    }

    /// Payload.
    pub fn payload(&self) -> Option<&[u8]> {
        // SAFETY: as in `key`.
        unsafe { bytes(self.raw().payload, self.raw().len) }
    }

    /// Bytes of key and payload.
    pub fn bytes(&self) -> usize {
        self.raw().len + self.raw().key_len
    }
}

impl<N: Native> Headers for Fetched<'_, N> {
    fn get(&self, name: &str) -> Option<&[u8]> {
        first_of(self, 0, name)
    }
}

/// Parsed when they are asked for: most groups never do.
impl<N: Native> MessageHeaders for Fetched<'_, N> {
    fn at(&self, place: usize) -> Option<(&str, Option<&[u8]>)> {
        // SAFETY: as in `raw`; a message is not shared between threads, and its headers live as long as it does.
        unsafe {
            let headers = NonNull::new(N::headers(self.message.as_ptr()))?;
            let (name, value, length) = N::header_at(headers.as_ptr(), place)?;
            let readable = CStr::from_ptr(name).to_str();
            Some(readable.map_or((UNREADABLE, None), |name| (name, bytes(value, length))))
        }
    }
}

impl<N: Native> Drop for Fetched<'_, N> {
    fn drop(&mut self) {
        // SAFETY: once, and last.
        unsafe { N::free(self.message.as_ptr()) }
    }
}

/// # Safety
/// `start` is null, or that many bytes are there for as long as the slice lives.
unsafe fn bytes<'a>(start: *const c_void, length: usize) -> Option<&'a [u8]> {
    // SAFETY: the caller's.
    (!start.is_null()).then(|| unsafe { slice::from_raw_parts(start.cast(), length) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdkafka::bindings::rd_kafka_resp_err_t as Code;
    use std::cell::Cell;
    use std::ffi::CString;

    thread_local! {
        static FREED: Cell<usize> = const { Cell::new(0) };
    }

    /// What the fake keeps behind a message, where librdkafka has its own.
    struct Owned {
        payload: Vec<u8>,
        headers: Vec<(CString, Option<Vec<u8>>)>,
    }

    /// Memory of Rust's own in the place of librdkafka's.
    struct Fake;

    impl Native for Fake {
        unsafe fn topic_name(topic: *mut rd_kafka_topic_t) -> *const c_char {
            topic.cast()
        }

        unsafe fn timestamp_ms(_: *const rd_kafka_message_t) -> i64 {
            -1
        }

        unsafe fn headers(message: *const rd_kafka_message_t) -> *mut rd_kafka_headers_t {
            unsafe { (*message)._private.cast() }
        }

        unsafe fn header_at(
            headers: *const rd_kafka_headers_t,
            place: usize,
        ) -> Option<(*const c_char, *const c_void, usize)> {
            let owned = unsafe { &*headers.cast::<Owned>() };
            let (name, value) = owned.headers.get(place)?;
            let (start, length) = value.as_ref().map_or((null(), 0), |value| {
                (value.as_ptr().cast::<c_void>(), value.len())
            });
            Some((name.as_ptr(), start, length))
        }

        unsafe fn free(message: *mut rd_kafka_message_t) {
            FREED.set(FREED.get() + 1);
            unsafe {
                let message = Box::from_raw(message);
                drop(Box::from_raw(message._private.cast::<Owned>()));
            }
        }
    }

    const TOPIC: &CStr = c"activity.clicks";

    fn message(
        partition: i32,
        err: Code,
        headers: &[(&[u8], Option<&[u8]>)],
    ) -> Fetched<'static, Fake> {
        let headers = headers
            .iter()
            .map(|(name, value)| (CString::new(*name).unwrap(), value.map(<[u8]>::to_vec)));
        let owned = Box::into_raw(Box::new(Owned {
            payload: b"payload".to_vec(),
            headers: headers.collect(),
        }));
        let payload = unsafe { &mut (*owned).payload };
        let message = Box::new(rd_kafka_message_t {
            err,
            rkt: TOPIC.as_ptr().cast_mut().cast(),
            partition,
            payload: payload.as_mut_ptr().cast(),
            len: payload.len(),
            key: null_mut(),
            key_len: 0,
            offset: 7,
            _private: owned.cast(),
        });
        Fetched {
            message: NonNull::from(Box::leak(message)),
            queue: PhantomData,
        }
    }

    #[test]
    fn fetched_messages_are_read_in_place_and_freed_once() {
        let before = FREED.get();
        let batch = vec![
            message(1, Code::RD_KAFKA_RESP_ERR_NO_ERROR, &[]),
            message(1, Code::RD_KAFKA_RESP_ERR_NO_ERROR, &[]),
        ];
        assert_eq!(batch[0].payload(), Some(&b"payload"[..]));
        assert_eq!(batch[0].key(), None);
        assert_eq!(
            (batch[1].topic(), batch[1].offset()),
            ("activity.clicks", 7)
        );
        assert_eq!((batch[1].bytes(), batch[1].appended_at_ms()), (7, 0));
        assert_eq!(FREED.get(), before);
        drop(batch);
        assert_eq!(FREED.get(), before + 2);
    }

    #[test]
    fn fetched_messages_of_one_partition_make_a_run_and_an_error_stands_alone() {
        let failed = Code::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
        let of = |(partition, code)| message(partition, code, &[]);
        let good = Code::RD_KAFKA_RESP_ERR_NO_ERROR;
        let batch: Vec<_> = [
            (0, good),
            (0, good),
            (1, good),
            (1, failed),
            (1, failed),
            (1, good),
        ]
        .map(of)
        .into();
        let runs: Vec<(usize, bool)> = batch
            .chunk_by(Fetched::is_of_same_partition)
            .map(|run| (run.len(), run[0].error().is_some()))
            .collect();
        assert_eq!(
            runs,
            [(2, false), (1, false), (1, true), (1, true), (1, false)]
        );
    }

    #[test]
    fn a_fetched_header_whose_name_is_not_utf_8_hides_no_other() {
        let value = Some(&b"value"[..]);
        let good = Code::RD_KAFKA_RESP_ERR_NO_ERROR;
        let message = message(
            0,
            good,
            &[(b"first", None), (b"gr\xf6\xdfe", value), (b"last", value)],
        );
        assert_eq!(message.at(0), Some(("first", None)));
        assert_eq!(message.at(1), Some((UNREADABLE, None)));
        assert_eq!(message.get("last"), value);
        assert_eq!(message.at(3), None);
        assert_eq!(message.get("absent"), None);
    }
}
