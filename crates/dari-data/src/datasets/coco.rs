//! COCO's captions: one JSON file with `images` and `annotations` (Lin et al. 2014).

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::captions::add;
use super::error::Error;
use super::pairs::{Caption, Pair, Pairs, check_usable};
use super::read_at_most;
use crate::image::{self, Limits};

/// The whole of COCO's training captions has 90 MB.
const LARGEST: u64 = 1 << 30;

#[derive(Deserialize)]
struct File {
    images: Vec<Image>,
    annotations: Vec<Annotation>,
}

#[derive(Deserialize)]
struct Image {
    id: u64,
    file_name: String,
}

#[derive(Deserialize)]
struct Annotation {
    image_id: u64,
    caption: String,
}

struct Entry {
    picture: String,
    captions: Vec<Caption>,
}

pub(super) struct Coco {
    file: PathBuf,
    /// Where the pictures lie.
    folder: PathBuf,
    entries: Vec<Entry>,
    limits: Limits,
}

impl Coco {
    /// Reads the file; pictures without a caption are left out.
    pub fn open(path: &Path, limits: &Limits) -> Result<Coco, Error> {
        let bytes = read_at_most(path, LARGEST)?;
        let unknown = |problem: String| Error::Unknown { path: path.to_owned(), problem };
        let file: File = serde_json::from_slice(&bytes).map_err(|error| {
            unknown(format!("not COCO's captions, an object with \"images\" and \"annotations\": {error}"))
        })?;
        let mut entries = Vec::with_capacity(file.images.len());
        let mut places = HashMap::with_capacity(file.images.len());
        for image in file.images {
            places.insert(image.id, entries.len());
            entries.push(Entry { picture: image.file_name, captions: Vec::new() });
        }
        for annotation in &file.annotations {
            let entry = places.get(&annotation.image_id).and_then(|&place| entries.get_mut(place));
            let entry = entry.ok_or_else(|| {
                unknown(format!("a caption of image {}, which \"images\" does not list", annotation.image_id))
            })?;
            add(&mut entry.captions, &annotation.caption, None);
        }
        entries.retain(|entry| !entry.captions.is_empty());
        let folder = entries.first().map_or_else(|| path.to_owned(), |entry| folder_of(path, &entry.picture));
        let coco = Coco { file: path.to_owned(), folder, entries, limits: limits.clone() };
        check_usable(coco, path, "no image with a caption")
    }

    fn entry(&self, index: usize) -> Result<&Entry, Error> {
        self.entries.get(index).ok_or(Error::Index { index, length: self.entries.len() })
    }
}

/// Where the pictures of an annotation file lie: beside it, in `images`, or as COCO itself lays them
/// out, `annotations/captions_val2017.json` with `val2017/`.
pub(super) fn folder_of(file: &Path, picture: &str) -> PathBuf {
    let beside = file.parent().unwrap_or(Path::new(""));
    let above = beside.parent().unwrap_or(Path::new(""));
    let stem = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let split = stem.rsplit('_').next().unwrap_or(stem);
    let mut places = Vec::new();
    for at in [beside, above] {
        places.extend([at.to_owned(), at.join("images"), at.join(split), at.join("images").join(split)]);
    }
    let holds = |place: &&PathBuf| place.join(picture).is_file();
    places.iter().find(holds).cloned().unwrap_or_else(|| beside.to_owned())
}

impl Pairs for Coco {
    fn len(&self) -> usize {
        self.entries.len()
    }

    fn get(&self, index: usize) -> Result<Pair, Error> {
        let Entry { picture, captions } = self.entry(index)?;
        let opened = image::open(&self.folder.join(picture), &self.limits);
        let decoded = opened.map_err(|source| Error::Picture {
            file: self.file.clone(),
            record: format!("picture {picture:?}"),
            source: Box::new(source),
        })?;
        Ok(Pair { key: picture.clone(), picture: decoded, captions: captions.clone() })
    }

    fn captions(&self, index: usize) -> Result<Vec<Caption>, Error> {
        Ok(self.entry(index)?.captions.clone())
    }

    fn describe(&self) -> String {
        format!("COCO captions {}: {} pictures", self.file.display(), self.entries.len())
    }
}
