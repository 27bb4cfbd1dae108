//! A group that panics over one event must not take its process down: the panic is caught and told as an error, without a word of the panic hook.
//!
//! What overflows the stack or aborts cannot be caught: it ends the process, and ends it again after each restart.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    static CATCHING: Cell<bool> = const { Cell::new(false) };
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

static HOOK: Once = Once::new();

/// Runs something; a panic of it comes back as its message and place. What it had borrowed may be half changed and is the caller's to throw away.
///
/// # Errors
/// The panic's message.
pub fn caught<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    HOOK.call_once(install_hook);
    // One may run inside of another.
    let before = CATCHING.replace(true);
    let outcome = catch_unwind(AssertUnwindSafe(run));
    CATCHING.set(before);
    outcome.map_err(|panic| {
        let place = PLACE.take().unwrap_or_default();
        format!("panicked at {place}: {}", message(panic.as_ref()))
    })
}

/// The hook that was there goes on telling all panics but those that are caught here.
fn install_hook() {
    let others = take_hook();
    set_hook(Box::new(move |info: &PanicHookInfo<'_>| {
        if CATCHING.get() {
            PLACE.set(info.location().map(ToString::to_string));
        } else {
            others(info);
        }
    }));
}

fn message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without a message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_comes_back_as_its_message_and_place() {
        let (items, index) = (vec![1], std::hint::black_box(3));
        let error = caught(|| items[index]).unwrap_err();
        assert!(
            error.contains("panics.rs") && error.contains("index is 3"),
            "{error}"
        );
        assert_eq!(caught(|| 5), Ok(5));
        assert!(
            caught(|| std::panic::panic_any(5))
                .unwrap_err()
                .ends_with("a panic without a message")
        );
    }
}
