//! Snapshots of state, in postcard's encoding: compact, and the same bytes for the same state.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::StaleSnapshot;

/// Appends `state` to `into`.
///
/// # Panics
/// If the state cannot be serialized, which a derived `Serialize` over sequences of known length excludes.
pub(crate) fn write<T: Serialize>(state: &T, into: &mut Vec<u8>) {
    if let Err(error) = postcard::to_io(state, into) {
        panic!("a snapshot cannot be serialized: {error}");
    }
}

/// Reads what [`write`] wrote, all of it.
///
/// # Errors
/// [`StaleSnapshot`] if the bytes are something else, or more than that.
pub(crate) fn read<T: DeserializeOwned>(from: &[u8]) -> Result<T, StaleSnapshot> {
    match postcard::take_from_bytes(from) {
        Ok((state, [])) => Ok(state),
        Ok((_, rest)) => Err(StaleSnapshot(format!(
            "{} bytes are left after the state",
            rest.len()
        ))),
        Err(error) => Err(StaleSnapshot(error.to_string())),
    }
}
