//! What is wrong, and where. Pure.
//!
//! Counts are exact however much is wrong; of the places the first [`FINDINGS_MAX`] of each partition are kept, so that a table that is gone altogether
//! cannot fill the memory with its holes.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use serde::Serialize;

/// Places of one partition that are kept.
pub const FINDINGS_MAX: usize = 1_000;

/// In which way something is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// It should be there and is not.
    Missing,
    /// It is there more than once.
    Duplicate,
    /// It is there and nothing says why.
    Unexpected,
}

/// What was compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// The ledger with the offsets of the log.
    Ledger,
    /// A table with the ledger.
    Table,
    /// The dead-letter topic with the ledger.
    DeadLetters,
    /// An internal topic with the ledger.
    Derived,
}

/// What a finding is about: findings of one subject that lie side by side are one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Subject {
    /// In which way it is wrong.
    pub kind: Kind,
    /// What was compared.
    pub what: What,
    /// Its name: of a table, or the full name of a topic; `ledger` for the ledger.
    pub name: String,
    /// What is counted: `missing rows`.
    #[serde(skip)]
    pub note: Cow<'static, str>,
}

impl Subject {
    /// A subject of these parts.
    pub fn new(kind: Kind, what: What, name: &str, note: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind,
            what,
            name: name.to_owned(),
            note: note.into(),
        }
    }
}

/// One place where something is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What is wrong.
    #[serde(flatten)]
    pub subject: Subject,
    /// Full name of the source topic.
    pub topic: String,
    /// Source partition.
    pub partition: i32,
    /// First source offset of the place.
    pub start: i64,
    /// Source offset after the place.
    pub end: i64,
    /// How many offsets, rows or messages of the place are concerned.
    pub count: u64,
    /// All of that in words.
    pub words: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Subject { name, note, .. } = &self.subject;
        let (topic, partition, start) = (&self.topic, self.partition, self.start);
        write!(f, "{name}, {topic}/{partition}, ")?;
        if self.end - start <= 1 {
            write!(f, "offset {start}: ")?;
        } else {
            write!(f, "offsets {start} to {}: ", self.end - 1)?;
        }
        write!(f, "{note}: {}", self.count)
    }
}

/// The findings of one partition, in the order in which they were made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// All that is missing.
    pub missing: u64,
    /// All that is there more than once.
    pub duplicate: u64,
    /// All that is unexpected.
    pub unexpected: u64,
    /// Places beyond those that are kept.
    pub left_out: u64,
    topic: String,
    partition: i32,
    list: Vec<Finding>,
    /// Where each subject was found last.
    last: HashMap<Subject, usize>,
}

impl Findings {
    /// No findings yet about one source partition.
    pub fn new(topic: &str, partition: i32) -> Self {
        Self {
            topic: topic.to_owned(),
            partition,
            ..Self::default()
        }
    }

    /// Counts and keeps a finding about offsets [start, end); a count of 0 is none.
    pub fn add(&mut self, subject: Subject, start: i64, end: i64, count: u64) {
        if count == 0 {
            return;
        }
        *match subject.kind {
            Kind::Missing => &mut self.missing,
            Kind::Duplicate => &mut self.duplicate,
            Kind::Unexpected => &mut self.unexpected,
        } += count;
        if let Some(last) = self.last.get(&subject)
            && let Some(finding) = self.list.get_mut(*last)
            && (finding.start..=finding.end).contains(&start)
        {
            finding.end = finding.end.max(end);
            finding.count += count;
        } else if self.list.len() < FINDINGS_MAX {
            self.last.insert(subject.clone(), self.list.len());
            self.list.push(Finding {
                subject,
                topic: self.topic.clone(),
                partition: self.partition,
                start,
                end,
                count,
                words: String::new(),
            });
        } else {
            self.left_out += 1;
        }
    }

    /// The places, each with its words.
    pub fn into_list(self) -> Vec<Finding> {
        let mut list = self.list;
        for finding in &mut list {
            finding.words = finding.to_string();
        }
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(kind: Kind) -> Subject {
        Subject::new(kind, What::Table, "clicks", "rows")
    }

    #[test]
    fn neighbours_of_one_kind_are_one_finding_and_others_are_not() {
        let mut findings = Findings::new("t", 1);
        findings.add(rows(Kind::Missing), 0, 10, 2);
        findings.add(rows(Kind::Duplicate), 3, 4, 1);
        findings.add(rows(Kind::Missing), 10, 20, 3);
        findings.add(rows(Kind::Missing), 21, 22, 1);
        findings.add(rows(Kind::Missing), 22, 23, 0);
        assert_eq!((findings.missing, findings.duplicate), (6, 1));
        let words: Vec<String> = findings
            .into_list()
            .into_iter()
            .map(|finding| finding.words)
            .collect();
        assert_eq!(
            words,
            [
                "clicks, t/1, offsets 0 to 19: rows: 5",
                "clicks, t/1, offset 3: rows: 1",
                "clicks, t/1, offset 21: rows: 1"
            ]
        );
    }

    #[test]
    fn however_much_is_wrong_the_counts_are_whole_and_the_places_few() {
        let mut findings = Findings::new("t", 0);
        for offset in 0..5_000 {
            findings.add(rows(Kind::Missing), 2 * offset, 2 * offset + 1, 1);
        }
        assert_eq!(findings.missing, 5_000);
        assert_eq!(findings.left_out, 5_000 - FINDINGS_MAX as u64);
        assert_eq!(findings.into_list().len(), FINDINGS_MAX);
    }

    #[test]
    fn a_finding_is_flat_for_programs() {
        let mut findings = Findings::new("activity.clicks", 2);
        findings.add(rows(Kind::Unexpected), 5, 9, 3);
        let json = serde_json::to_value(findings.into_list()).unwrap();
        assert_eq!(
            json,
            serde_json::json!([{
                "kind": "unexpected", "what": "table", "name": "clicks", "topic": "activity.clicks", "partition": 2,
                "start": 5, "end": 9, "count": 3, "words": "clicks, activity.clicks/2, offsets 5 to 8: rows: 3"
            }])
        );
    }
}
