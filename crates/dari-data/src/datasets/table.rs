//! Pairs in a CSV or TSV file with a header: a column of pictures and one or more of captions.

use std::path::Path;

use super::captions::{CLASS, add, column_language, decode};
use super::error::Error;
use super::pairs::{Caption, Pair, Pairs, check_usable};
use super::records::RecordFile;
use crate::image::Limits;

const PICTURE: [&str; 5] = ["picture", "image", "filepath", "file", "file_name"];
const CAPTION: [&str; 3] = ["caption", "text", "title"];

pub(super) struct Table {
    records: RecordFile,
    delimiter: u8,
    picture: usize,
    captions: Vec<(usize, Option<String>)>,
    limits: Limits,
}

impl Table {
    /// A `.tsv` is separated by tabs; a `.csv` by what its header is: commas, or else tabs
    /// (open_clip's default) or semicolons.
    pub fn open(path: &Path, limits: &Limits) -> Result<Table, Error> {
        let is_tsv = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("tsv"));
        let refuse = |problem: String| Error::Header { file: path.to_owned(), problem };
        let header = RecordFile::first_line(path)?;
        let delimiter = match &header {
            _ if is_tsv => b'\t',
            bytes if bytes.contains(&b',') => b',',
            bytes if bytes.contains(&b'\t') => b'\t',
            bytes if bytes.contains(&b';') => b';',
            _ => b',',
        };
        let mut records = RecordFile::index(path, Some(delimiter))?;
        if records.len() == 0 {
            return Err(refuse("empty; expected a header and records".into()));
        }
        let bytes = records.read(0)?;
        let text = decode(&bytes).map_err(&refuse)?;
        let names: Vec<String> = fields(text.as_bytes(), delimiter)
            .map_err(&refuse)?
            .iter()
            .map(|name| String::from_utf8_lossy(name).trim().to_ascii_lowercase())
            .collect();
        let picture = PICTURE.iter().find_map(|wanted| names.iter().position(|name| name == wanted));
        let said = |words: &[&str]| -> Vec<(usize, Option<String>)> {
            let columns = names.iter().enumerate();
            columns.filter_map(|(at, name)| Some((at, column_language(name, words)?))).collect()
        };
        let mut captions = said(&CAPTION);
        if captions.is_empty() {
            captions = said(&CLASS);
        }
        let (Some(picture), false) = (picture, captions.is_empty()) else {
            return Err(refuse(format!(
                "columns {names:?}; expected one of {PICTURE:?} and one of {CAPTION:?}, the latter also \
                 with a language as in caption_ko, or one of {CLASS:?}"
            )));
        };
        records.skip_first();
        let table = Table { records, delimiter, picture, captions, limits: limits.clone() };
        check_usable(table, path, "a header and no record")
    }
}

/// The fields of one record.
fn fields(bytes: &[u8], delimiter: u8) -> Result<csv::ByteRecord, String> {
    let mut reader =
        csv::ReaderBuilder::new().delimiter(delimiter).has_headers(false).flexible(true).from_reader(bytes);
    let mut record = csv::ByteRecord::new();
    reader.read_byte_record(&mut record).map_err(|error| error.to_string())?;
    Ok(record)
}

impl Pairs for Table {
    fn len(&self) -> usize {
        self.records.len()
    }

    fn get(&self, index: usize) -> Result<Pair, Error> {
        self.records.pair(index, self.words(index)?, &self.limits)
    }

    fn captions(&self, index: usize) -> Result<Vec<Caption>, Error> {
        Ok(self.words(index)?.1)
    }

    fn describe(&self) -> String {
        format!("table {}: {} records", self.records.path().display(), self.records.len())
    }
}

impl Table {
    /// The picture's path and the captions of one record.
    fn words(&self, index: usize) -> Result<(String, Vec<Caption>), Error> {
        let bytes = self.records.read(index)?;
        let refuse = |problem: String| self.records.error(index, problem);
        let record = fields(&bytes, self.delimiter).map_err(refuse)?;
        let field = |at: usize| {
            let found = record.get(at).ok_or_else(|| {
                let wanted = self.captions.iter().map(|(at, _)| *at).chain([self.picture]).max();
                refuse(format!(
                    "{} fields; expected at least {}",
                    record.len(),
                    wanted.unwrap_or_default() + 1
                ))
            })?;
            decode(found).map_err(refuse)
        };
        let name = field(self.picture)?;
        let mut captions = Vec::new();
        for (at, language) in &self.captions {
            add(&mut captions, field(*at)?, language.as_deref());
        }
        let captions = self.records.not_empty(index, captions)?;
        Ok((name.to_owned(), captions))
    }
}
