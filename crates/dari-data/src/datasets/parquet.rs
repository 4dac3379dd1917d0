//! Pairs in Parquet files with the pictures inside, as the hub's datasets have them: a column `image`
//! of bytes, or of `{bytes, path}`, and a column of captions or labels.
//!
//! A Parquet file is read from front to back: its pictures, compressed as they are, go into a temporary
//! file from which each is read by number.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use parquet::schema::types::Type;
use serde_json::Value;

use super::captions::{CLASS, add, column_language};
use super::error::Error;
use super::pairs::{Caption, Pair, Pairs, check_usable};
use crate::image::{self, Limits};

const PICTURE: [&str; 7] = ["image", "picture", "img", "jpg", "jpeg", "png", "webp"];
const WORDS: [&str; 4] = ["captions", "caption", "text", "title"];

struct Entry {
    start: u64,
    length: u64,
    captions: Vec<Caption>,
}

pub(super) struct ParquetFile {
    path: PathBuf,
    pictures: Mutex<File>,
    entries: Vec<Entry>,
    limits: Limits,
}

impl ParquetFile {
    /// Reads the whole file once.
    pub fn open(path: &Path, limits: &Limits) -> Result<ParquetFile, Error> {
        let unknown = |problem: String| Error::Unknown { path: path.to_owned(), problem };
        // The crate checks less than a hostile file asks for.
        let read = catch_unwind(AssertUnwindSafe(|| read(path, limits)));
        let (pictures, entries) = read.map_err(|_| unknown("damaged: its reader gave up".into()))??;
        let parquet = ParquetFile {
            path: path.to_owned(),
            pictures: Mutex::new(pictures),
            entries,
            limits: limits.clone(),
        };
        check_usable(parquet, path, "the file has no rows")
    }

    fn entry(&self, index: usize) -> Result<&Entry, Error> {
        self.entries.get(index).ok_or(Error::Index { index, length: self.entries.len() })
    }
}

fn read(path: &Path, limits: &Limits) -> Result<(File, Vec<Entry>), Error> {
    let unknown = |problem: String| Error::Unknown { path: path.to_owned(), problem };
    let broken = |error: parquet::errors::ParquetError| unknown(format!("no whole Parquet file: {error}"));
    let file = File::open(path).map_err(Error::io(path))?;
    let reader = SerializedFileReader::new(file).map_err(broken)?;
    let about = reader.metadata().file_metadata();
    let fields = about.schema().get_fields();
    let find = |names: &[&str]| {
        names.iter().find_map(|name| fields.iter().find(|field| field.name().eq_ignore_ascii_case(name)))
    };
    let listed = || fields.iter().map(|field| field.name()).collect::<Vec<_>>().join(", ");
    let picture = find(&PICTURE).ok_or_else(|| {
        unknown(format!("no column of pictures ({}), found {}", PICTURE.join(", "), listed()))
    })?;
    let said = |known: &[&str]| {
        let fits = |field: &&Arc<Type>| column_language(field.name(), known).is_some();
        fields.iter().filter(fits).collect::<Vec<_>>()
    };
    let mut known = &WORDS[..];
    if said(known).is_empty() {
        known = &CLASS;
    }
    let words = said(known);
    if words.is_empty() {
        return Err(unknown(format!(
            "no column of words ({}, {}), found {}",
            WORDS.join(", "),
            CLASS.join(", "),
            listed()
        )));
    }
    let names = class_names(
        about
            .key_value_metadata()
            .into_iter()
            .flatten()
            .find(|pair| pair.key == "huggingface")
            .and_then(|pair| pair.value.as_deref()),
    );
    let columns = std::iter::once(picture).chain(words.iter().copied()).cloned().collect();
    let projection = Type::group_type_builder(about.schema().name()).with_fields(columns).build();
    let rows = reader.get_row_iter(Some(projection.map_err(broken)?)).map_err(broken)?;

    let temporary = tempfile::tempfile().map_err(Error::io(path))?;
    let mut out = BufWriter::new(temporary);
    let (mut entries, mut end) = (Vec::new(), 0u64);
    for row in rows {
        let row = row.map_err(broken)?;
        let mut entry = Entry { start: end, length: 0, captions: Vec::new() };
        for (name, field) in row.get_column_iter() {
            if name == picture.name() {
                let bytes = bytes_of(field).unwrap_or_default();
                // One too large is left empty, and refused when it is asked for.
                if bytes.len() as u64 <= limits.max_file_bytes {
                    out.write_all(bytes).map_err(Error::io(path))?;
                    entry.length = bytes.len() as u64;
                    end += entry.length;
                }
            } else if let Some(language) = column_language(name, known) {
                say(&mut entry.captions, field, language.as_deref(), names.get(name.as_str()));
            }
        }
        entries.push(entry);
    }
    let file = out.into_inner().map_err(|error| Error::io(path)(error.into_error()))?;
    Ok((file, entries))
}

/// A picture's bytes: the column's own, or those of its `bytes`.
fn bytes_of(field: &Field) -> Option<&[u8]> {
    match field {
        Field::Bytes(bytes) => Some(bytes.data()),
        Field::Group(row) => {
            row.get_column_iter().find(|(name, _)| *name == "bytes").and_then(|(_, f)| bytes_of(f))
        }
        _ => None,
    }
}

/// Adds what a field says: a string, a list of them, or the number of a class.
fn say(captions: &mut Vec<Caption>, field: &Field, language: Option<&str>, names: Option<&Vec<String>>) {
    let class = |number: i64| match names {
        Some(names) => usize::try_from(number).ok().and_then(|at| names.get(at)).cloned(),
        None => Some(number.to_string()),
    };
    let number = match field {
        Field::Str(text) => {
            add(captions, text, language);
            None
        }
        Field::Bytes(bytes) => {
            if let Ok(text) = std::str::from_utf8(bytes.data()) {
                add(captions, text, language);
            }
            None
        }
        Field::ListInternal(list) => {
            list.elements().iter().for_each(|element| say(captions, element, language, names));
            None
        }
        Field::Byte(n) => Some(i64::from(*n)),
        Field::Short(n) => Some(i64::from(*n)),
        Field::Int(n) => Some(i64::from(*n)),
        Field::Long(n) => Some(*n),
        Field::UInt(n) => Some(i64::from(*n)),
        _ => None,
    };
    if let Some(text) = number.and_then(class) {
        add(captions, &text, language);
    }
}

/// The names of the classes that a column's numbers stand for, by column, as the hub's files keep them.
fn class_names(metadata: Option<&str>) -> HashMap<String, Vec<String>> {
    let value: Value = metadata.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let features = value.pointer("/info/features").and_then(Value::as_object);
    let names = |(column, feature): (&String, &Value)| {
        let names = feature.get("names")?.as_array()?;
        Some((column.clone(), names.iter().filter_map(|name| Some(name.as_str()?.to_owned())).collect()))
    };
    features.into_iter().flatten().filter_map(names).collect()
}

impl Pairs for ParquetFile {
    fn len(&self) -> usize {
        self.entries.len()
    }

    fn get(&self, index: usize) -> Result<Pair, Error> {
        let (captions, entry) = (self.captions(index)?, self.entry(index)?);
        let record = format!("row {}", index + 1);
        if entry.length == 0 {
            return Err(Error::record(&self.path, &record, "no picture in it"));
        }
        let mut bytes = vec![0; entry.length as usize];
        {
            let mut file = self.pictures.lock().unwrap_or_else(PoisonError::into_inner);
            file.seek(SeekFrom::Start(entry.start)).map_err(Error::io(&self.path))?;
            file.read_exact(&mut bytes).map_err(Error::io(&self.path))?;
        }
        let picture = image::decode(&record, &bytes, &self.limits).map_err(|source| Error::Picture {
            file: self.path.clone(),
            record: record.clone(),
            source: Box::new(source),
        })?;
        Ok(Pair { key: record, picture, captions })
    }

    fn captions(&self, index: usize) -> Result<Vec<Caption>, Error> {
        let entry = self.entry(index)?;
        if entry.captions.is_empty() {
            return Err(Error::record(&self.path, format!("row {}", index + 1), "no words in it"));
        }
        Ok(entry.captions.clone())
    }

    fn describe(&self) -> String {
        format!("Parquet {}: {} rows", self.path.display(), self.entries.len())
    }
}
