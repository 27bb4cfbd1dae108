//! The records of a file: lines of NDJSON, or rows of CSV whose header names the fields. Streamed; a record has a limit.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
};

use flate2::bufread::MultiGzDecoder;
use serde_json::{Map, Value};

use super::{Recording, convert::Converter};

/// The first bytes of gzipped data.
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
/// Longer records are not mapped; it is also the limit of a message.
pub(super) const RECORD_BYTES_MAX: u64 = 1024 * 1024;
/// What the reader of CSV reads at once.
const CSV_BUFFER_BYTES: usize = 1 << 16;

/// How records are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// A JSON object a line.
    Ndjson,
    /// Rows of text behind a header.
    Csv,
}

impl Form {
    /// By the file's name.
    pub(super) fn of(path: &Path) -> Self {
        let name = path.to_string_lossy().to_ascii_lowercase();
        if name.ends_with(".csv") || name.ends_with(".csv.gz") {
            Form::Csv
        } else {
            Form::Ndjson
        }
    }
}

/// The records of something to read from.
pub(super) enum Records<R> {
    Ndjson(Lines<R>),
    Csv(Box<Rows<R>>),
}

impl Records<Recording> {
    /// Opens a file; whether it is gzipped is told by its content.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = BufReader::with_capacity(1 << 16, File::open(path)?);
        Ok(Records::new(decompressed(file)?, Form::of(path)))
    }
}

pub(super) fn decompressed(mut file: impl BufRead + Send + 'static) -> io::Result<Recording> {
    Ok(if file.fill_buf()?.starts_with(&GZIP_MAGIC) {
        let decoder = MultiGzDecoder::new(file);
        Box::new(BufReader::with_capacity(1 << 16, decoder))
    } else {
        Box::new(file)
    })
}

impl<R: BufRead> Records<R> {
    pub(super) fn new(from: R, form: Form) -> Self {
        match form {
            Form::Ndjson => Records::Ndjson(Lines {
                from,
                line: Vec::new(),
                number: 0,
            }),
            Form::Csv => Records::Csv(Box::new(Rows::new(from))),
        }
    }

    /// Where the latest record begins, counted from 1.
    pub(super) fn line(&self) -> u64 {
        match self {
            Records::Ndjson(lines) => lines.number,
            Records::Csv(rows) => rows.line,
        }
    }

    /// Lets the converter read the next record; none at the end. The inner error is what is wrong with the record.
    pub(super) fn next(
        &mut self,
        converter: &mut Converter,
    ) -> io::Result<Option<Result<(), String>>> {
        match self {
            Records::Ndjson(lines) => lines.next(converter),
            Records::Csv(rows) => rows.next(converter),
        }
    }
}

/// NDJSON.
pub(super) struct Lines<R> {
    from: R,
    line: Vec<u8>,
    number: u64,
}

impl<R: BufRead> Lines<R> {
    fn next(&mut self, converter: &mut Converter) -> io::Result<Option<Result<(), String>>> {
        loop {
            self.line.clear();
            let mut limited = self.from.by_ref().take(RECORD_BYTES_MAX + 1);
            if limited.read_until(b'\n', &mut self.line)? == 0 {
                return Ok(None);
            }
            self.number += 1;
            if self.line.len() as u64 > RECORD_BYTES_MAX && !self.line.ends_with(b"\n") {
                self.from.skip_until(b'\n')?;
                return Ok(Some(Err(format!("longer than {RECORD_BYTES_MAX} bytes"))));
            }
            if !self.line.trim_ascii().is_empty() {
                return Ok(Some(converter.read(&self.line)));
            }
        }
    }
}

/// CSV.
pub(super) struct Rows<R> {
    reader: csv::Reader<Limited<R>>,
    /// From the header, once that has been read.
    names: Option<csv::StringRecord>,
    row: csv::StringRecord,
    line: u64,
}

impl<R: BufRead> Rows<R> {
    fn new(from: R) -> Self {
        let reader = csv::ReaderBuilder::new()
            .buffer_capacity(CSV_BUFFER_BYTES)
            .from_reader(Limited {
                from,
                left: u64::MAX,
            });
        Self {
            reader,
            names: None,
            row: csv::StringRecord::new(),
            line: 0,
        }
    }

    fn next(&mut self, converter: &mut Converter) -> io::Result<Option<Result<(), String>>> {
        self.line = self.reader.position().line();
        // A quote that is never closed would make one record of the rest of the file.
        self.reader.get_mut().left = RECORD_BYTES_MAX + CSV_BUFFER_BYTES as u64;
        let names = match &self.names {
            Some(names) => names,
            None => {
                let names = self.reader.headers().map_err(into_io)?.clone();
                self.names.insert(names)
            }
        };
        self.line = self.reader.position().line();
        match self.reader.read_record(&mut self.row) {
            Ok(false) => return Ok(None),
            Ok(true) => (),
            Err(error) if error.is_io_error() => return Err(into_io(error)),
            Err(error) => return Ok(Some(Err(error.to_string()))),
        }
        let record: Map<String, Value> = names
            .iter()
            .zip(&self.row)
            .map(|(name, text)| (name.to_owned(), Value::from(text)))
            .collect();
        Ok(Some(converter.read_record(&Value::Object(record))))
    }
}

fn into_io(error: csv::Error) -> io::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(cause) => cause,
        other => io::Error::new(io::ErrorKind::InvalidData, format!("header: {other:?}")),
    }
}

/// Ends in an error where a record goes on for too long.
struct Limited<R> {
    from: R,
    left: u64,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            let why =
                format!("a row is longer than {RECORD_BYTES_MAX} bytes: is a quote not closed?");
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        let bytes = self.from.read(into)?;
        self.left = self.left.saturating_sub(bytes as u64);
        Ok(bytes)
    }
}
