//! Text files of one record after another, indexed by where each record lies, so that a file of
//! any size is read record by record.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::captions::TEXT_LIMIT;
use super::error::Error;
use super::pairs::{Caption, Pair};
use crate::image::{self, Limits, Picture};

/// Where a record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    start: u64,
    length: u64,
    /// From 1, in the file.
    line: u64,
}

pub(super) struct RecordFile {
    path: PathBuf,
    places: Vec<Place>,
}

impl RecordFile {
    /// Indexes the file. With a `delimiter`, records are a table's: a line break in quotes belongs
    /// to the record. Blank lines are no records.
    pub fn index(path: &Path, delimiter: Option<u8>) -> Result<RecordFile, Error> {
        let file = File::open(path).map_err(Error::io(path))?;
        let mut reader = BufReader::with_capacity(1 << 16, file);
        let mut scanner = Scanner::new(delimiter);
        if reader.fill_buf().map_err(Error::io(path))?.starts_with(b"\xef\xbb\xbf") {
            reader.consume(3);
            scanner.skip(3);
        }
        loop {
            let bytes = reader.fill_buf().map_err(Error::io(path))?;
            if bytes.is_empty() {
                break;
            }
            bytes.iter().for_each(|&byte| scanner.step(byte));
            let read = bytes.len();
            reader.consume(read);
        }
        Ok(RecordFile { path: path.to_owned(), places: scanner.finish() })
    }

    /// The file's first line, or as much of it as a header may have.
    pub fn first_line(path: &Path) -> Result<Vec<u8>, Error> {
        let file = File::open(path).map_err(Error::io(path))?;
        let mut line = Vec::new();
        BufReader::new(file.take(TEXT_LIMIT)).read_until(b'\n', &mut line).map_err(Error::io(path))?;
        Ok(line)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Leaves the first record (a header) out.
    pub fn skip_first(&mut self) {
        if !self.places.is_empty() {
            self.places.remove(0);
        }
    }

    /// `line 12`, for errors.
    pub fn name(&self, index: usize) -> String {
        self.places.get(index).map_or(String::new(), |place| format!("line {}", place.line))
    }

    pub fn error(&self, index: usize, problem: impl ToString) -> Error {
        Error::record(&self.path, self.name(index), problem)
    }

    /// The record's bytes, with its line break.
    pub fn read(&self, index: usize) -> Result<Vec<u8>, Error> {
        let length = self.places.len();
        let place = *self.places.get(index).ok_or(Error::Index { index, length })?;
        if place.length > TEXT_LIMIT {
            return Err(self.error(
                index,
                format!(
                    "record of {} bytes, at most {TEXT_LIMIT} are read; is a quotation mark not closed?",
                    place.length
                ),
            ));
        }
        let mut file = File::open(&self.path).map_err(Error::io(&self.path))?;
        file.seek(SeekFrom::Start(place.start)).map_err(Error::io(&self.path))?;
        let mut bytes = Vec::new();
        file.take(place.length).read_to_end(&mut bytes).map_err(Error::io(&self.path))?;
        if bytes.len() as u64 != place.length {
            return Err(self.error(index, "the file was cut while it was read; open it again"));
        }
        Ok(bytes)
    }

    /// The picture that the record names, beside the file or at an absolute path.
    fn picture(&self, index: usize, name: &str, limits: &Limits) -> Result<Picture, Error> {
        if name.trim().is_empty() {
            return Err(self.error(index, "no picture; expected the path of one"));
        }
        let folder = self.path.parent().unwrap_or(Path::new(""));
        image::open(&folder.join(name.trim()), limits).map_err(|source| Error::Picture {
            file: self.path.clone(),
            record: self.name(index),
            source: Box::new(source),
        })
    }

    /// The pair of a record's picture and captions.
    pub fn pair(&self, index: usize, words: (String, Vec<Caption>), limits: &Limits) -> Result<Pair, Error> {
        let (name, captions) = words;
        let picture = self.picture(index, &name, limits)?;
        Ok(Pair { key: name.trim().to_owned(), picture, captions })
    }

    pub fn not_empty(&self, index: usize, captions: Vec<Caption>) -> Result<Vec<Caption>, Error> {
        if captions.is_empty() {
            return Err(self.error(index, "empty caption; expected words"));
        }
        Ok(captions)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Within {
    FieldStart,
    Field,
    Quoted,
    /// After a quotation mark in quotes: the end of them, or the first of two.
    QuoteInQuoted,
}

/// Finds the ends of records, byte by byte.
struct Scanner {
    delimiter: Option<u8>,
    within: Within,
    at: u64,
    line: u64,
    start: u64,
    start_line: u64,
    blank: bool,
    after_return: bool,
    places: Vec<Place>,
}

impl Scanner {
    fn new(delimiter: Option<u8>) -> Scanner {
        Scanner {
            delimiter,
            within: Within::FieldStart,
            at: 0,
            line: 1,
            start: 0,
            start_line: 1,
            blank: true,
            after_return: false,
            places: Vec::new(),
        }
    }

    fn skip(&mut self, bytes: u64) {
        self.at += bytes;
        self.start = self.at;
    }

    fn step(&mut self, byte: u8) {
        self.at += 1;
        let second_half = std::mem::take(&mut self.after_return) && byte == b'\n';
        let breaks = byte == b'\n' || (byte == b'\r' && self.delimiter.is_some());
        if breaks && !second_half {
            self.line += 1;
        }
        self.after_return = byte == b'\r' && self.delimiter.is_some();
        if breaks && self.within != Within::Quoted {
            if second_half && self.blank {
                // The line break ended the record before.
                self.start = self.at;
            } else {
                self.end();
            }
            return;
        }
        if !byte.is_ascii_whitespace() {
            self.blank = false;
        }
        let Some(delimiter) = self.delimiter else {
            return;
        };
        self.within = match (self.within, byte) {
            (Within::FieldStart, b'"') => Within::Quoted,
            (Within::Quoted, b'"') => Within::QuoteInQuoted,
            (Within::Quoted, _) => Within::Quoted,
            (Within::QuoteInQuoted, b'"') => Within::Quoted,
            (_, byte) if byte == delimiter => Within::FieldStart,
            _ => Within::Field,
        };
    }

    fn end(&mut self) {
        if !self.blank {
            let length = self.at - self.start;
            self.places.push(Place { start: self.start, length, line: self.start_line });
        }
        self.start = self.at;
        self.start_line = self.line;
        self.blank = true;
        self.within = Within::FieldStart;
    }

    fn finish(mut self) -> Vec<Place> {
        self.end();
        self.places
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(text: &str, delimiter: Option<u8>) -> Vec<(String, u64)> {
        let mut scanner = Scanner::new(delimiter);
        text.bytes().for_each(|byte| scanner.step(byte));
        let piece = |place: &Place| {
            let (start, length) = (place.start as usize, place.length as usize);
            (text[start..start + length].to_owned(), place.line)
        };
        scanner.finish().iter().map(piece).collect()
    }

    fn table(text: &str) -> Vec<(String, u64)> {
        records(text, Some(b','))
    }

    #[test]
    fn lines_of_a_table() {
        let expected = [("a,b\n".to_owned(), 1), ("c,d".to_owned(), 2)];
        assert_eq!(table("a,b\nc,d"), expected);
        assert_eq!(table("a\r\n\r\n  \nb\rc\n"), [("a\r".into(), 1), ("b\r".into(), 4), ("c\n".into(), 5)]);
        assert!(table("\n\r\n \n").is_empty());
    }

    #[test]
    fn line_breaks_in_quotes() {
        let text = "a,\"x\ny\"\nb,\"q\"\"\n\"\"\"\nc,d\"e\nf\n";
        let expected = [("a,\"x\ny\"\n", 1), ("b,\"q\"\"\n\"\"\"\n", 3), ("c,d\"e\n", 5), ("f\n", 6)];
        let expected: Vec<(String, u64)> = expected.iter().map(|(t, l)| ((*t).to_owned(), *l)).collect();
        assert_eq!(table(text), expected);
        assert_eq!(table("a\n\"b\nc\n").len(), 2);
    }

    #[test]
    fn lines_without_a_table() {
        assert_eq!(
            records("\"a\n\"b\r\n\nc", None),
            [("\"a\n".into(), 1), ("\"b\r\n".into(), 2), ("c".into(), 4)]
        );
    }
}
