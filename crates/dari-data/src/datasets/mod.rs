//! Data sets of pictures and captions, in the layouts people have them in, read by number.
//!
//! [`open`] tells the layout from the path:
//!
//! | path | layout |
//! | --- | --- |
//! | a folder | pictures with captions beside them: `a.jpg` and `a.txt` (one caption a line), also `a.ko.txt` |
//! | a folder of folders, without captions | a class each: the folder's name is the caption |
//! | `.csv`, `.tsv` | a header with `picture`, `image`, `filepath` or `file`, and `caption`, `text` or `title`, also `caption_ko`; else `label` or `class` |
//! | `.json` | COCO's captions: `images` and `annotations` |
//! | `.jsonl`, `.ndjson` | `{"image": path, "caption": "..."}`; captions as strings, lists, or by language |
//! | `.parquet` | pictures inside: `image` as bytes or `{bytes, path}`, and captions or labels (the hub's datasets) |
//! | `.tar`, a folder of them, `shards-{000..012}.tar` | WebDataset: `000.jpg` with `000.txt` or `000.json` |
//!
//! Paths in tables and JSON Lines are the user's own: relative to the file, or absolute. Names in
//! tar files are keys and never become paths.

mod captions;
mod coco;
pub mod dialogues;
mod error;
mod folder;
mod lines;
mod pairs;
mod parquet;
mod records;
mod table;
mod tar;
mod webdataset;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

pub use error::Error;
pub use pairs::{Caption, Pair, Pairs};

use crate::image::Limits;

/// Opens a data set and makes sure that at least one pair can be read from it.
///
/// # Errors
///
/// Nothing at the path, no known layout, a table without its columns, or not one usable pair.
pub fn open(path: &Path, limits: &Limits) -> Result<Box<dyn Pairs>, Error> {
    let unknown = |problem: String| Error::Unknown { path: path.to_owned(), problem };
    let about = match std::fs::metadata(path) {
        Ok(about) => about,
        Err(source) => {
            let pattern = path.to_str().map_or(Ok(None), webdataset::expand).map_err(unknown)?;
            let Some(names) = pattern else {
                return Err(Error::io(path)(source));
            };
            let shards = names.into_iter().map(PathBuf::from).collect();
            return Ok(Box::new(webdataset::WebDataset::open(path, shards, limits)?));
        }
    };
    if about.is_dir() {
        let shards = shards_in(path)?;
        return Ok(if shards.is_empty() {
            Box::new(folder::PictureFolder::open(path, limits)?)
        } else {
            Box::new(webdataset::WebDataset::open(path, shards, limits)?)
        });
    }
    let extension = path.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase());
    match extension.as_deref() {
        Some("csv" | "tsv") => Ok(Box::new(table::Table::open(path, limits)?)),
        Some("json") => Ok(Box::new(coco::Coco::open(path, limits)?)),
        Some("jsonl" | "ndjson") => Ok(Box::new(lines::JsonLines::open(path, limits)?)),
        Some("parquet") => Ok(Box::new(parquet::ParquetFile::open(path, limits)?)),
        Some("tar") => Ok(Box::new(webdataset::WebDataset::open(path, vec![path.to_owned()], limits)?)),
        Some("tgz" | "gz" | "zst" | "bz2" | "xz" | "zip") => {
            Err(unknown("a compressed file, which cannot be read by number: unpack it first".into()))
        }
        Some(other) => Err(unknown(format!("a file named .{other}"))),
        None => Err(unknown("a file whose name tells no format".into())),
    }
}

/// The tar files directly in a folder, by name.
fn shards_in(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut shards = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
        let path = entry.map_err(Error::io(folder))?.path();
        if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("tar")) && path.is_file() {
            shards.push(path);
        }
    }
    shards.sort();
    Ok(shards)
}

/// The bytes of a file that has at most `limit`.
fn read_at_most(file: &Path, limit: u64) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let opened = File::open(file).map_err(Error::io(file))?;
    opened.take(limit + 1).read_to_end(&mut bytes).map_err(Error::io(file))?;
    if bytes.len() as u64 > limit {
        let problem = format!("more than {limit} bytes; expected captions, one a line");
        return Err(Error::record(file, "captions", problem));
    }
    Ok(bytes)
}
