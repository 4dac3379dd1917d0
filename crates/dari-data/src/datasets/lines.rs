//! Pairs in a JSON Lines file: `{"image": path, "caption": ...}` a line.

use std::path::Path;

use serde_json::Value;

use super::captions::{decode, from_json};
use super::error::Error;
use super::pairs::{Caption, Pair, Pairs, check_usable};
use super::records::RecordFile;
use crate::image::Limits;

const PICTURE: [&str; 5] = ["picture", "image", "filepath", "file", "file_name"];

pub(super) struct JsonLines {
    records: RecordFile,
    limits: Limits,
}

impl JsonLines {
    pub fn open(path: &Path, limits: &Limits) -> Result<JsonLines, Error> {
        let records = RecordFile::index(path, None)?;
        let lines = JsonLines { records, limits: limits.clone() };
        check_usable(lines, path, "the file is empty; expected one JSON object a line")
    }
}

impl Pairs for JsonLines {
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
        format!("JSON Lines {}: {} records", self.records.path().display(), self.records.len())
    }
}

impl JsonLines {
    /// The picture's path and the captions of one record.
    fn words(&self, index: usize) -> Result<(String, Vec<Caption>), Error> {
        let bytes = self.records.read(index)?;
        let refuse = |problem: String| self.records.error(index, problem);
        let text = decode(&bytes).map_err(refuse)?;
        let record: Value = serde_json::from_str(text)
            .map_err(|error| refuse(format!("column {}: not JSON: {error}", error.column())))?;
        let captions = from_json(&record).map_err(refuse)?;
        let name = PICTURE
            .iter()
            .find_map(|name| record.get(name))
            .and_then(Value::as_str)
            .ok_or_else(|| refuse("no \"picture\" or \"image\"; expected the path of one".into()))?;
        Ok((name.to_owned(), captions))
    }
}
