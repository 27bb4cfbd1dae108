//! Where a group stands: its epoch, the rewinds that led to it, and one that is unfinished, if there is one. Read before a group's process does anything and
//! again whenever a partition is opened, so that a process that slept through a rewind never goes on in the old epoch.

use std::collections::BTreeMap;
use std::fmt;

use activity_platform::clickhouse::{Database, Error, quoted};
use serde::{Deserialize, Serialize};

use crate::rewinds::{FIRST_EPOCH, Points, Rewind, Rewinds};

/// How far a rewind has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// It is announced: the group's processes must step aside.
    Planned,
    /// Rows and ranges before the points are copied.
    Copying,
    /// The group reads again, into the new tables.
    Reading,
    /// The new tables take the place of the old ones.
    Exchanging,
    /// The group is in the new epoch.
    Done,
    /// It was given up: nothing has changed.
    Aborted,
}

impl Phase {
    /// Whether nobody else may write in the group's name.
    pub fn is_unfinished(self) -> bool {
        self < Phase::Done
    }
}

impl Phase {
    /// What a person can do about a rewind of a group that was interrupted in this phase.
    pub fn ways_on(self, group: &str) -> String {
        let resume = format!("finish it with `activity rewind {group} --resume`");
        if self == Phase::Exchanging {
            // Some of the new tables may have their place already.
            return resume;
        }
        format!("{resume} or give it up with `activity rewind {group} --abort`")
    }

    /// The same for a build that brings a migration: what an older one has begun with other columns it can give up, and only perhaps go on with.
    pub fn ways_on_before_migration(self, group: &str) -> String {
        if self == Phase::Exchanging {
            return self.ways_on(group);
        }
        format!(
            "give it up with `activity rewind {group} --abort`, or finish it with the build that began it, with --resume"
        )
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Phase::Planned => "planned",
            Phase::Copying => "copying",
            Phase::Reading => "reading",
            Phase::Exchanging => "exchanging",
            Phase::Done => "done",
            Phase::Aborted => "aborted",
        })
    }
}

/// One rewind, as the table `rewinds` remembers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(
    missing_docs,
    reason = "documented in the migration that creates the table"
)]
pub struct Record {
    pub consumer_group: String,
    pub epoch: u32,
    pub version: u32,
    pub from_epoch: u32,
    pub phase: Phase,
    pub asked: String,
    pub points: Points,
    pub tables: BTreeMap<String, String>,
    pub keep_old: bool,
}

/// All rewinds of a group that were ever begun, the newest last.
///
/// # Errors
/// If ClickHouse does not answer or the set-up was not run.
pub async fn records(database: &Database, group: &str) -> Result<Vec<Record>, Error> {
    let sql = format!(
        "SELECT consumer_group, epoch, version, from_epoch, phase, asked, points, tables, keep_old \
         FROM {{database}}.rewinds FINAL WHERE consumer_group = {} ORDER BY epoch",
        quoted(group)
    );
    database.rows(&sql).await
}

/// Where a group stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    epoch: u32,
    records: Vec<Record>,
}

/// In whose name a process writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The group itself.
    Live,
    /// A rewind of the group, in the rewind's epoch.
    Rewind,
}

impl Standing {
    /// A group in `epoch`, with the rewinds that were ever begun.
    pub fn new(epoch: u32, records: Vec<Record>) -> Self {
        Self { epoch, records }
    }

    /// Asks ClickHouse.
    ///
    /// # Errors
    /// If it does not answer or the set-up was not run.
    pub async fn of(database: &Database, group: &str) -> Result<Self, Error> {
        // In this order: the epoch is raised before its rewind counts as finished.
        let records = records(database, group).await?;
        Ok(Self::new(
            crate::store::epoch(database, group).await?,
            records,
        ))
    }

    /// The group's epoch.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The rewind that is under way, or that was killed.
    pub fn unfinished(&self) -> Option<&Record> {
        self.records
            .iter()
            .rfind(|record| record.phase.is_unfinished())
    }

    /// Above every epoch that there ever was, those of rewinds that were given up among them.
    pub fn next_epoch(&self) -> u32 {
        let tried = self.records.iter().map(|record| record.epoch).max();
        tried.unwrap_or(FIRST_EPOCH).max(self.epoch) + 1
    }

    /// What counts of the group's epoch for whoever only looks, also while a rewind is unfinished.
    pub fn finished(&self) -> Rewinds {
        self.counting(self.epoch)
    }

    /// What counts for a process that writes in this role; None: it must not write.
    pub fn rewinds(&self, role: Role) -> Option<Rewinds> {
        let epoch = match (role, self.unfinished()) {
            (Role::Live, None) => self.epoch,
            (Role::Rewind, Some(record)) if record.phase == Phase::Reading => record.epoch,
            _ => return None,
        };
        Some(self.counting(epoch))
    }

    /// The rewinds that are done, and the one that `epoch` belongs to: it may have been killed after it had raised the group to it.
    fn counting(&self, epoch: u32) -> Rewinds {
        let counts = |record: &&Record| record.phase == Phase::Done || record.epoch == epoch;
        let rewinds = self.records.iter().filter(counts).map(|record| Rewind {
            epoch: record.epoch,
            points: record.points.clone(),
        });
        Rewinds::new(epoch, rewinds)
    }

    /// Why a process that writes in this role must wait.
    pub fn why_not(&self, group: &str) -> String {
        match self.unfinished() {
            Some(record) => format!(
                "a rewind to epoch {} is under way, or was interrupted ({}): wait for its end, {}",
                record.epoch,
                record.phase,
                record.phase.ways_on(group)
            ),
            None => format!("the rewind is over; the group is in epoch {}", self.epoch),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(epoch: u32, phase: Phase) -> Record {
        Record {
            consumer_group: "g".into(),
            epoch,
            version: 1,
            from_epoch: 1,
            phase,
            asked: "beginning".into(),
            points: Points::default(),
            tables: BTreeMap::new(),
            keep_old: false,
        }
    }

    #[test]
    fn a_group_writes_unless_a_rewind_is_unfinished() {
        for phase in [
            Phase::Planned,
            Phase::Copying,
            Phase::Reading,
            Phase::Exchanging,
        ] {
            let standing = Standing::new(1, vec![record(2, phase)]);
            assert_eq!(standing.rewinds(Role::Live), None, "{phase}");
            assert!(standing.why_not("g").contains("--resume"), "{phase}");
        }
        for phase in [Phase::Done, Phase::Aborted] {
            let standing = Standing::new(1, vec![record(2, phase)]);
            assert!(standing.rewinds(Role::Live).is_some(), "{phase}");
        }
    }

    #[test]
    fn before_a_migration_a_rewind_is_given_up_unless_it_is_too_late_for_that() {
        let ways = |phase: Phase| phase.ways_on_before_migration("g");
        for phase in [Phase::Planned, Phase::Copying, Phase::Reading] {
            assert!(ways(phase).starts_with("give it up with `activity rewind g --abort`"));
        }
        assert_eq!(ways(Phase::Exchanging), Phase::Exchanging.ways_on("g"));
    }

    #[test]
    fn a_rewind_writes_only_while_it_reads_and_in_its_own_epoch() {
        let standing = Standing::new(
            1,
            vec![record(2, Phase::Aborted), record(3, Phase::Reading)],
        );
        let rewinds = standing.rewinds(Role::Rewind);
        assert_eq!(rewinds.map(|rewinds| rewinds.epoch()), Some(3));
        let over = Standing::new(3, vec![record(3, Phase::Done)]);
        assert_eq!(over.rewinds(Role::Rewind), None);
    }

    #[test]
    fn an_epoch_is_never_used_twice() {
        let standing = Standing::new(2, vec![record(2, Phase::Done), record(3, Phase::Aborted)]);
        assert_eq!(standing.next_epoch(), 4);
        assert_eq!(Standing::new(1, Vec::new()).next_epoch(), 2);
    }

    #[test]
    fn a_rewind_that_was_killed_after_it_had_raised_the_epoch_counts() {
        let counts = |epoch: u32| {
            let standing = Standing::new(epoch, vec![record(2, Phase::Exchanging)]);
            standing.finished().count(2, "t", 0, 0)
        };
        assert!(counts(2));
        assert!(!counts(1));
    }

    #[test]
    fn a_rewind_that_was_given_up_does_not_count() {
        let standing = Standing::new(1, vec![record(2, Phase::Aborted)]);
        let rewinds = standing.rewinds(Role::Live);
        assert!(rewinds.is_some_and(|rewinds| !rewinds.count(2, "t", 0, 0)));
    }
}
