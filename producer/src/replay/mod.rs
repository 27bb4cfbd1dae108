//! Recorded data, record by record, as events.
//!
//! - `fields`: what an event's fields take; [`mapping`]: mapping files; [`convert`]: one record into one event; `records`: records of a file, NDJSON or CSV,
//!   plain or gzipped, streamed; `course`: when in time a recording lies, and its rounds.
//!
//! A record that is no event is reported with its line and does not end the replay.

pub mod convert;
mod course;
mod fields;
pub mod mapping;
mod records;

use std::{
    io::{self, BufRead},
    path::Path,
};

use crate::source::{EventSource, Outgoing, SourceError};
use convert::Converter;
use course::Course;
use mapping::Mapping;
use records::{Form, Records};

const REASON_CHARS_MAX: usize = 300;

/// A recording, mapped.
pub struct Replay<R> {
    records: Records<R>,
    converter: Converter,
    course: Course,
    /// Opens the recording for the next round.
    again: Option<Again<R>>,
}

type Again<R> = Box<dyn FnMut() -> io::Result<Records<R>> + Send>;

/// A file that is read as it is, or unpacked.
pub type Recording = Box<dyn BufRead + Send>;

/// How a recording is replayed, beside its pace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The first event is received then, milliseconds since 1970; the others keep their distance from it.
    pub shift_to_ms: Option<i64>,
    /// From its end the recording begins anew, for ever.
    pub repeats: bool,
}

/// Opens a recording. Whether it is gzipped is told by its content; it is CSV if its name ends with `.csv` or `.csv.gz`.
///
/// # Errors
/// If the file cannot be read.
pub fn open(path: &Path, mapping: Mapping, options: Options) -> io::Result<Replay<Recording>> {
    let path = path.to_owned();
    let open = move || Records::open(&path);
    Ok(Replay {
        records: open()?,
        converter: Converter::new(mapping),
        course: Course::new(options.shift_to_ms),
        again: options.repeats.then(|| Box::new(open) as Again<Recording>),
    })
}

impl<R: BufRead> Replay<R> {
    /// Events of these lines of NDJSON.
    pub fn new(lines: R, mapping: Mapping) -> Self {
        Self {
            records: Records::new(lines, Form::Ndjson),
            converter: Converter::new(mapping),
            course: Course::new(None),
            again: None,
        }
    }

    /// Reads up to the next record and maps it. None: the end.
    fn advance(&mut self) -> Option<Result<(), SourceError>> {
        let read = loop {
            let read = self.records.next(&mut self.converter);
            // A recording without an event would begin anew for ever, and never give one.
            if !matches!(read, Ok(None)) || !self.course.next_round() {
                break read;
            }
            match self.again.as_mut()?() {
                Ok(records) => self.records = records,
                Err(cause) => break Err(cause),
            }
        };
        let line = self.records.line();
        let outcome = match read {
            Ok(None) => return None,
            Ok(Some(outcome)) => outcome,
            Err(cause) => return Some(Err(SourceError::Broken { line, cause })),
        };
        if outcome.is_ok() {
            self.course.apply(self.converter.values_mut());
        }
        Some(outcome.map_err(|mut why| {
            // It quotes the record, which may be long.
            if let Some((at, _)) = why.char_indices().nth(REASON_CHARS_MAX) {
                why.truncate(at);
            }
            SourceError::Unmappable { line, why }
        }))
    }
}

impl<R: BufRead> EventSource for Replay<R> {
    fn next_event(&mut self) -> Option<Result<Outgoing<'_>, SourceError>> {
        let outcome = self.advance()?;
        Some(outcome.map(|()| self.converter.outgoing()))
    }
}

#[cfg(test)]
mod tests;
