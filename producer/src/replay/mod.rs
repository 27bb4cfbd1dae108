//! Recorded data, line by line, as events.
//!
//! - `fields`: what an event's fields take; [`mapping`]: mapping files; [`convert`]: one record into one event; this file: lines of a file, plain or
//!   gzipped, streamed.
//!
//! A line that is no event is reported with its number and does not end the replay.

pub mod convert;
mod fields;
pub mod mapping;

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
};

use flate2::bufread::MultiGzDecoder;

use crate::source::{EventSource, Outgoing, SourceError};
use convert::Converter;
use mapping::Mapping;

/// The first bytes of gzipped data.
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
/// Longer lines are not mapped; it is also the limit of a message.
const LINE_BYTES_MAX: u64 = 1024 * 1024;

const REASON_CHARS_MAX: usize = 300;

/// A recording, mapped.
pub struct Replay<R> {
    lines: R,
    line: Vec<u8>,
    number: u64,
    converter: Converter,
}

/// Opens a recording; whether it is gzipped is told by its content.
///
/// # Errors
/// If the file cannot be read.
pub fn open(path: &Path, mapping: Mapping) -> io::Result<Replay<Box<dyn BufRead + Send>>> {
    let file = BufReader::with_capacity(1 << 16, File::open(path)?);
    Ok(Replay::new(decompressed(file)?, mapping))
}

fn decompressed(mut file: impl BufRead + Send + 'static) -> io::Result<Box<dyn BufRead + Send>> {
    Ok(if file.fill_buf()?.starts_with(&GZIP_MAGIC) {
        let decoder = MultiGzDecoder::new(file);
        Box::new(BufReader::with_capacity(1 << 16, decoder))
    } else {
        Box::new(file)
    })
}

enum Line {
    End,
    Blank,
    Text,
    TooLong,
}

impl<R: BufRead> Replay<R> {
    /// Events of these lines.
    pub fn new(lines: R, mapping: Mapping) -> Self {
        Self {
            lines,
            line: Vec::new(),
            number: 0,
            converter: Converter::new(mapping),
        }
    }

    fn read_line(&mut self) -> io::Result<Line> {
        self.line.clear();
        let mut limited = self.lines.by_ref().take(LINE_BYTES_MAX + 1);
        if limited.read_until(b'\n', &mut self.line)? == 0 {
            return Ok(Line::End);
        }
        self.number += 1;
        if self.line.len() as u64 > LINE_BYTES_MAX && !self.line.ends_with(b"\n") {
            self.lines.skip_until(b'\n')?;
            return Ok(Line::TooLong);
        }
        Ok(if self.line.trim_ascii().is_empty() {
            Line::Blank
        } else {
            Line::Text
        })
    }

    /// Reads up to the next record and maps it. None: the end.
    fn advance(&mut self) -> Option<Result<(), SourceError>> {
        let outcome = loop {
            match self.read_line() {
                Ok(Line::End) => return None,
                Ok(Line::Blank) => (),
                Ok(Line::TooLong) => break Err(format!("longer than {LINE_BYTES_MAX} bytes")),
                Ok(Line::Text) => break self.converter.read(&self.line),
                Err(cause) => {
                    let line = self.number;
                    return Some(Err(SourceError::Broken { line, cause }));
                }
            }
        };
        let line = self.number;
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
