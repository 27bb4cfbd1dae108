//! Threads that answer people, and must not wait behind those that work through a backlog.

/// Asks the kernel to let the calling thread in as soon as it wakes, for at most a tenth of a millisecond.
///
/// Linux since 6.12 lets a thread ask for a time slice of its own (sched_setattr(2): `sched_runtime`, 0.1 ms at least), and lets one with a shorter slice
/// in before one with a longer slice has used up its own, which may take until the next tick, 4 ms at 250 Hz; niceness does not do that. Before 6.12, on other
/// systems, and where it is forbidden, nothing changes: it was a wish.
pub fn wish_for_short_slices() {
    #[cfg(target_os = "linux")]
    linux::set(SLICE_NS);
}

#[cfg(target_os = "linux")]
const SLICE_NS: u64 = 100_000;

#[cfg(target_os = "linux")]
#[allow(
    unsafe_code,
    reason = "there is no safe wrapper of these calls; they read or write one struct that outlives them"
)]
mod linux {
    use nix::libc::{SYS_sched_getattr, SYS_sched_setattr, sched_attr, syscall};

    const SIZE: u32 = size_of::<sched_attr>() as u32;

    /// What the kernel goes by for the calling thread; None where it does not say.
    pub fn get() -> Option<sched_attr> {
        // SAFETY: of integers only, for which zero is a value.
        let mut attributes: sched_attr = unsafe { std::mem::zeroed() };
        // SAFETY: there are `SIZE` bytes to write to. 0 is this thread.
        let answer = unsafe { syscall(SYS_sched_getattr, 0, &raw mut attributes, SIZE, 0) };
        (answer == 0).then_some(attributes)
    }

    /// Policy and niceness stay as they are.
    pub fn set(slice_ns: u64) {
        let Some(mut attributes) = get() else {
            return;
        };
        attributes.size = SIZE;
        attributes.sched_runtime = slice_ns;
        // SAFETY: the struct outlives the call, which reads it. 0 is this thread.
        unsafe { syscall(SYS_sched_setattr, 0, &raw const attributes, 0) };
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_wishes_for_short_slices_keeps_its_policy_and_niceness() {
        let before = linux::get().unwrap();
        wish_for_short_slices();
        let after = linux::get().unwrap();
        assert_eq!(
            (after.sched_policy, after.sched_nice),
            (before.sched_policy, before.sched_nice)
        );
        // A kernel before 6.12 tells of no slice.
        if before.sched_runtime > 0 {
            assert_eq!(after.sched_runtime, SLICE_NS);
        }
    }
}
