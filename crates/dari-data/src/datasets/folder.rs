//! A folder of pictures with captions beside them: `a.jpg` with `a.txt`, one caption a line, and
//! `a.ko.txt`, `a.en.txt` for captions in a language. Without any captions, a folder a class: the name of
//! a picture's folder is what is said of it.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use super::captions::{TEXT_LIMIT, add_lines, decode, language};
use super::error::Error;
use super::pairs::{Caption, Pair, Pairs, check_usable};
use super::read_at_most;
use crate::image::{self, Limits};

const PICTURES: [&str; 9] = ["jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "jpe"];

struct Sidecar {
    file: PathBuf,
    language: Option<String>,
}

struct Entry {
    key: String,
    picture: PathBuf,
    sidecars: Vec<Sidecar>,
    class: Option<String>,
}

pub(super) struct PictureFolder {
    root: PathBuf,
    entries: Vec<Entry>,
    without_captions: usize,
    limits: Limits,
}

impl PictureFolder {
    /// Lists the folder and all below, in the order of their names; links are followed, but not in
    /// circles.
    pub fn open(root: &Path, limits: &Limits) -> Result<PictureFolder, Error> {
        let mut pictures = Vec::new();
        let mut texts = Vec::new();
        for entry in WalkDir::new(root).follow_links(true) {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) if error.loop_ancestor().is_some() => continue,
                // A link to nowhere is no picture.
                Err(error) if error.path().is_some_and(Path::is_symlink) => continue,
                Err(error) => {
                    let file = error.path().unwrap_or(root).to_owned();
                    return Err(Error::Io { file, source: error.into() });
                }
            };
            if !entry.file_type().is_file() {
                continue;
            }
            let extension = entry.path().extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase);
            match extension.as_deref() {
                Some("txt") => texts.push(entry.into_path()),
                Some(other) if PICTURES.contains(&other) => pictures.push(entry.into_path()),
                _ => {}
            }
        }
        pictures.sort();
        texts.sort();
        let sidecars = assign(&pictures, texts);
        let classes = sidecars.is_empty();

        let found = pictures.len();
        let mut entries = Vec::new();
        for picture in pictures {
            let stem = picture.with_extension("");
            let class = if classes { class_of(root, &picture) } else { None };
            if class.is_none() && !sidecars.contains_key(&stem) {
                continue;
            }
            let files = sidecars.get(&stem).map(Vec::as_slice).unwrap_or_default();
            // Two pictures of one stem share their captions.
            let sidecars = files
                .iter()
                .map(|s| Sidecar { file: s.file.clone(), language: s.language.clone() })
                .collect();
            let key = stem.strip_prefix(root).unwrap_or(&stem).to_string_lossy().into_owned();
            let key = key.replace(std::path::MAIN_SEPARATOR, "/");
            entries.push(Entry { key, picture, sidecars, class });
        }
        let without_captions = found - entries.len();
        let folder =
            PictureFolder { root: root.to_owned(), entries, without_captions, limits: limits.clone() };
        let sought = format!(
            "{found} pictures, none with a text file of its name; expected a.txt or a.ko.txt beside a.jpg, or a folder a class"
        );
        check_usable(folder, root, &sought)
    }
}

/// The folder directly below `root` in which a picture lies.
fn class_of(root: &Path, picture: &Path) -> Option<String> {
    let mut parts = picture.strip_prefix(root).ok()?.components();
    let first = parts.next()?.as_os_str().to_str()?.trim();
    parts.next()?;
    (!first.is_empty()).then(|| first.to_owned())
}

/// Which texts belong to which picture's path without extension.
fn assign(pictures: &[PathBuf], texts: Vec<PathBuf>) -> BTreeMap<PathBuf, Vec<Sidecar>> {
    let stems: HashSet<PathBuf> = pictures.iter().map(|picture| picture.with_extension("")).collect();
    let mut sidecars: BTreeMap<PathBuf, Vec<Sidecar>> = BTreeMap::new();
    for file in texts {
        let stem = file.with_extension("");
        let (stem, language) = if stems.contains(&stem) {
            (stem, None)
        } else {
            let code = stem.extension().and_then(|code| code.to_str()).and_then(language);
            let base: OsString = stem.with_extension("").into();
            match code {
                Some(code) if stems.contains(Path::new(&base)) => (base.into(), Some(code)),
                _ => continue,
            }
        };
        sidecars.entry(stem).or_default().push(Sidecar { file, language });
    }
    sidecars
}

impl PictureFolder {
    fn entry(&self, index: usize) -> Result<&Entry, Error> {
        self.entries.get(index).ok_or(Error::Index { index, length: self.entries.len() })
    }
}

impl Pairs for PictureFolder {
    fn len(&self) -> usize {
        self.entries.len()
    }

    fn get(&self, index: usize) -> Result<Pair, Error> {
        let captions = self.captions(index)?;
        let entry = self.entry(index)?;
        let picture = image::open(&entry.picture, &self.limits).map_err(|source| Error::Picture {
            file: self.root.clone(),
            record: format!("picture {:?}", entry.key),
            source: Box::new(source),
        })?;
        Ok(Pair { key: entry.key.clone(), picture, captions })
    }

    fn captions(&self, index: usize) -> Result<Vec<Caption>, Error> {
        let entry = self.entry(index)?;
        let mut captions = Vec::new();
        if let Some(class) = &entry.class {
            captions.push(Caption { text: class.clone(), language: None });
        }
        for sidecar in &entry.sidecars {
            let bytes = read_at_most(&sidecar.file, TEXT_LIMIT)?;
            let text = decode(&bytes).map_err(|problem| Error::record(&sidecar.file, "captions", problem))?;
            add_lines(&mut captions, text, sidecar.language.as_deref());
        }
        if captions.is_empty() {
            let file = entry.sidecars.first().map_or(&entry.picture, |sidecar| &sidecar.file);
            return Err(Error::record(file, "captions", "empty; expected one caption a line"));
        }
        Ok(captions)
    }

    fn describe(&self) -> String {
        let alone = match self.without_captions {
            0 => String::new(),
            count => format!(", {count} more without captions"),
        };
        format!("folder {}: {} pictures with captions{alone}", self.root.display(), self.entries.len())
    }
}
