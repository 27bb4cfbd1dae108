//! What this process asks of the C library's allocator, which librdkafka's buffers come from as well as ours.

/// More than is fetched of a partition at once (4 MiB), and than most columns of a batch have; twice as much is what glibc then keeps at a heap's end.
const KEPT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Has glibc keep buffers up to [`KEPT_BYTES_MAX`] that are given back, for the next batch. By itself it maps each buffer from 128 kB on from the kernel and returns
/// it at once, until one as large was returned: the first batches are then mapped, page by page, several times over (of a million clicks: 28,000 page faults
/// instead of 40,000 to 60,000).
///
/// It learns that by a buffer of this size, which no page is ever made for (source: mallopt(3), the dynamic threshold of `M_MMAP_THRESHOLD`). Other allocators do
/// not mind.
pub(crate) fn keep_buffers() {
    drop(std::hint::black_box(Vec::<u8>::with_capacity(
        KEPT_BYTES_MAX,
    )));
}

#[cfg(test)]
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod tests {
    use super::*;
    use nix::sys::resource::{UsageWho, getrusage};

    const BUFFER_BYTES: usize = 8 * 1024 * 1024;

    /// Page faults of filling a buffer of some MB.
    fn faults_of_a_buffer() -> i64 {
        let before = getrusage(UsageWho::RUSAGE_THREAD).unwrap();
        drop(std::hint::black_box(vec![1_u8; BUFFER_BYTES]));
        let after = getrusage(UsageWho::RUSAGE_THREAD).unwrap();
        after.minor_page_faults() - before.minor_page_faults()
    }

    #[test]
    fn a_buffer_that_was_given_back_is_there_for_the_next_one() {
        keep_buffers();
        let (first, second) = (faults_of_a_buffer(), faults_of_a_buffer());
        assert!(second < first / 10, "{first}, then {second}");
    }
}
