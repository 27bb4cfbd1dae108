//! A lane's state as a snapshot: the marks of what was derived from where, by their length, and the instance's own bytes.

use activity_consumers::StaleSnapshot;

use super::Lane;
use crate::store::Snapshot;

impl Lane {
    /// The state, which must stand exactly at a batch's boundary.
    pub fn snapshot(&self, fingerprint: &str) -> Snapshot {
        let marks = postcard::to_stdvec(&self.reader.marks).unwrap_or_default();
        let mut bytes = (marks.len() as u32).to_le_bytes().to_vec();
        bytes.extend_from_slice(&marks);
        if let Some(instance) = &self.instance {
            instance.snapshot(&mut bytes);
        }
        Snapshot {
            state_offset: self.building.start,
            fingerprint: fingerprint.to_owned(),
            bytes,
        }
    }

    pub(super) fn restore(&mut self, snapshot: &Snapshot) -> Result<(), StaleSnapshot> {
        let stale = |what: &str| StaleSnapshot(what.to_owned());
        let (length, rest) = snapshot
            .bytes
            .split_first_chunk()
            .ok_or_else(|| stale("too short"))?;
        let (marks, state) = rest
            .split_at_checked(u32::from_le_bytes(*length) as usize)
            .ok_or_else(|| stale("too short for its marks"))?;
        self.reader.marks = postcard::from_bytes(marks)
            .map_err(|error| StaleSnapshot(format!("marks: {error}")))?;
        self.instance
            .as_mut()
            .map_or(Ok(()), |instance| instance.restore(state))
    }
}
