//! A checkpoint: one or more weight files, memory-mapped, seen as one set of named tensors.

use crate::dtype::{Dtype, TensorView, byte_length};
use crate::error::{Error, shown};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Component, Path, PathBuf};

/// No tensor of this field has more dimensions than this.
pub(crate) const MAX_RANK: usize = 32;
const MAX_INDEX_BYTES: u64 = 64 << 20;
const MAX_SHARDS: usize = 4096;

/// Where one tensor lies in its file; made by the readers, which have checked it against the file.
#[derive(Debug)]
pub(crate) struct Entry {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    /// The first element's first byte, from the start of the file.
    pub start: usize,
    /// Bytes of the tensor once contiguous.
    pub bytes: usize,
    /// In elements; None where the tensor lies contiguous in the file.
    pub strides: Option<Vec<usize>>,
}

/// One or more weight files, memory-mapped. Names are in alphabetical order.
///
/// Files must not be cut short while they are open: the system ends a process that reads mapped
/// pages which are no more. Files written by this crate are replaced, never cut.
pub struct Checkpoint {
    label: String,
    sources: Vec<Source>,
    entries: BTreeMap<String, (usize, Entry)>,
    metadata: BTreeMap<String, String>,
}

struct Source {
    path: PathBuf,
    bytes: Bytes,
}

pub(crate) enum Bytes {
    Mapped(memmap2::Mmap),
    Embedded(&'static [u8]),
    Owned(Vec<u8>),
}

impl Bytes {
    pub(crate) fn as_slice(&self) -> &[u8] {
        match self {
            Bytes::Mapped(map) => map,
            Bytes::Embedded(bytes) => bytes,
            Bytes::Owned(bytes) => bytes,
        }
    }

    /// Lets the system take back the memory in which some bytes were read; reading them again brings them
    /// back from the file.
    pub(crate) fn release(&self, start: usize, count: usize) {
        #[cfg(unix)]
        if let Bytes::Mapped(map) = self {
            use memmap2::UncheckedAdvice::DontNeed;
            // Only a hint: a refusal changes nothing.
            // SAFETY: the map is read only and of a file, so pages dropped come back as they were.
            let _ = unsafe { map.unchecked_advise_range(DontNeed, start, count) };
        }
        #[cfg(not(unix))]
        let _ = (start, count);
    }
}

impl Checkpoint {
    /// Opens a `.safetensors` file, a PyTorch `.bin`, `.pt`, `.pth` or `.ckpt` file, or the
    /// `.index.json` of a sharded one. Headers are read and checked; weights stay on disk.
    ///
    /// # Errors
    /// What the system refuses, a file that contradicts itself, a pickle that holds more than
    /// tensors, a name twice.
    pub fn open(path: &Path) -> Result<Checkpoint, Error> {
        let mut checkpoint = Checkpoint::empty(path.display().to_string());
        if has_ending(path, ".index.json") {
            checkpoint.add_shards(path)?;
        } else {
            checkpoint.add(path.to_owned(), map(path)?)?;
        }
        Ok(checkpoint)
    }

    /// A checkpoint embedded in the binary; `name` is what errors call it.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub fn from_bytes(name: &str, bytes: &'static [u8]) -> Result<Checkpoint, Error> {
        let mut checkpoint = Checkpoint::empty(name.to_owned());
        checkpoint.add(PathBuf::from(name), Bytes::Embedded(bytes))?;
        Ok(checkpoint)
    }

    /// A checkpoint held in memory; `name` is what errors call it, and its ending tells the format.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub fn from_vec(name: &str, bytes: Vec<u8>) -> Result<Checkpoint, Error> {
        let mut checkpoint = Checkpoint::empty(name.to_owned());
        checkpoint.add(PathBuf::from(name), Bytes::Owned(bytes))?;
        Ok(checkpoint)
    }

    /// The names of the tensors, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// How many tensors.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True without any tensor.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The tensor's shape.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.entries.get(name).map(|(_, entry)| entry.shape.as_slice())
    }

    /// The type of the tensor's elements.
    pub fn dtype(&self, name: &str) -> Option<Dtype> {
        self.entries.get(name).map(|(_, entry)| entry.dtype)
    }

    /// The file the tensor lies in.
    pub fn file_of(&self, name: &str) -> Option<&Path> {
        let (source, _) = self.entries.get(name)?;
        self.sources.get(*source).map(|s| s.path.as_path())
    }

    /// All files, in the order they were opened.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.sources.iter().map(|source| source.path.as_path())
    }

    /// What a safetensors header says about itself (`format: pt`); empty for other files.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// The tensor's type, shape and bytes: borrowed where they lie contiguous, else gathered.
    ///
    /// # Errors
    /// [`Error::NoTensor`].
    pub fn tensor(&self, name: &str) -> Result<TensorView<'_>, Error> {
        let Some((source, entry)) = self.entries.get(name) else {
            return Err(self.no_tensor(name));
        };
        let bytes = self.sources.get(*source).map(|s| s.bytes.as_slice());
        let data = bytes.and_then(|bytes| match &entry.strides {
            None => bytes.get(entry.start..entry.start.checked_add(entry.bytes)?).map(Cow::Borrowed),
            Some(strides) => gather(bytes, entry, strides).map(Cow::Owned),
        });
        match data {
            Some(data) => Ok(TensorView { dtype: entry.dtype, shape: entry.shape.clone(), data }),
            // The readers have checked this; said all the same, rather than trusted.
            None => Err(Error::tensor(&self.label, name, "lies outside of its file; the file is damaged")),
        }
    }

    /// Lets the system take back the memory in which the tensor was read; reading it again brings it
    /// back from its file.
    pub fn release(&self, name: &str) {
        if let Some((source, entry)) = self.entries.get(name)
            && let Some(source) = self.sources.get(*source)
        {
            source.bytes.release(entry.start, entry.bytes);
        }
    }

    fn no_tensor(&self, name: &str) -> Error {
        let held = match self.entries.keys().next() {
            Some(first) => format!("{} tensors, such as `{}`", self.len(), shown(first)),
            None => "no tensors at all".to_owned(),
        };
        Error::NoTensor { file: self.label.clone(), tensor: shown(name), held }
    }

    fn empty(label: String) -> Checkpoint {
        Checkpoint { label, sources: Vec::new(), entries: BTreeMap::new(), metadata: BTreeMap::new() }
    }

    /// Reads one weight file's header and adds its tensors.
    fn add(&mut self, path: PathBuf, bytes: Bytes) -> Result<(), Error> {
        let file = path.display().to_string();
        let entries = match format_of(&path, bytes.as_slice())? {
            Format::Safetensors => {
                let (entries, metadata) = crate::safetensors::read(&file, bytes.as_slice())?;
                self.metadata.extend(metadata);
                entries
            }
            Format::Pickle => crate::pickle::read(&file, bytes.as_slice())?,
        };
        let source = self.sources.len();
        for entry in entries {
            if let Some((first, _)) = self.entries.get(&entry.name) {
                let first = self.sources.get(*first).map_or(&path, |source| &source.path);
                return Err(Error::Duplicate {
                    tensor: shown(&entry.name),
                    first: first.display().to_string(),
                    second: file,
                });
            }
            self.entries.insert(entry.name.clone(), (source, entry));
        }
        self.sources.push(Source { path, bytes });
        Ok(())
    }

    fn add_shards(&mut self, path: &Path) -> Result<(), Error> {
        let index = read_index(path)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let mut shards = BTreeSet::new();
        for (_, shard) in &index {
            if shards.insert(shard.as_str()) && shards.len() > MAX_SHARDS {
                return Err(Error::damaged(&self.label, format!("names more than {MAX_SHARDS} files")));
            }
        }
        for shard in shards {
            let file = folder.join(shard);
            if !file.exists() {
                return Err(Error::WrongKind {
                    file,
                    problem: format!("is named in {} and missing", self.label),
                    remedy: "get the missing file, or fetch the model again",
                });
            }
            self.add(file.clone(), map(&file)?)?;
        }
        for (tensor, shard) in &index {
            let file = folder.join(shard);
            if self.file_of(tensor) != Some(file.as_path()) {
                return Err(Error::tensor(
                    &self.label,
                    tensor,
                    format!("is said to be in {shard} and is not; fetch the model again"),
                ));
            }
        }
        Ok(())
    }
}

impl std::fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Checkpoint({}, {} tensors)", self.label, self.len())
    }
}

enum Format {
    Safetensors,
    Pickle,
}

/// The ending tells; without a known one, the first bytes do.
fn format_of(path: &Path, bytes: &[u8]) -> Result<Format, Error> {
    if has_ending(path, ".safetensors") {
        Ok(Format::Safetensors)
    } else if [".bin", ".pt", ".pth", ".ckpt"].iter().any(|ending| has_ending(path, ending))
        || bytes.starts_with(crate::archive::MAGIC)
    {
        Ok(Format::Pickle)
    } else if bytes.get(8) == Some(&b'{') {
        Ok(Format::Safetensors)
    } else {
        Err(Error::WrongKind {
            file: path.to_owned(),
            problem: "is no weight file by its name or its first bytes".to_owned(),
            remedy: "give a .safetensors, .bin, .pt, .pth, .ckpt or .index.json file",
        })
    }
}

fn has_ending(path: &Path, ending: &str) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.ends_with(ending))
}

pub(crate) fn map(path: &Path) -> Result<Bytes, Error> {
    let file = File::open(path).map_err(Error::io(path, "open"))?;
    let about = file.metadata().map_err(Error::io(path, "open"))?;
    if !about.is_file() {
        return Err(Error::WrongKind {
            file: path.to_owned(),
            problem: "is not a regular file".to_owned(),
            remedy: "give a weight file; a model folder is opened as a folder",
        });
    }
    if about.len() == 0 {
        return Ok(Bytes::Embedded(&[]));
    }
    // SAFETY: the map is private to this process and read only; that no one cuts the file short
    // meanwhile is asked of the user in `Checkpoint`'s documentation.
    let map = unsafe { memmap2::Mmap::map(&file) };
    map.map(Bytes::Mapped).map_err(Error::io(path, "map"))
}

/// The shards of an `.index.json`: (tensor, file), the file checked to stay inside the folder.
pub(crate) fn read_index(path: &Path) -> Result<Vec<(String, String)>, Error> {
    let file = path.display().to_string();
    let bytes = crate::folder::read_bounded(path, MAX_INDEX_BYTES)?;
    let index: Index = serde_json::from_slice(&bytes).map_err(|e| Error::json(&file, &e))?;
    for (_, shard) in &index.weight_map.0 {
        if !is_inside(shard) {
            return Err(Error::Escape { file, name: shown(shard) });
        }
        if shard.ends_with(".index.json") {
            return Err(Error::damaged(&file, format!("names another index, {}", shown(shard))));
        }
    }
    Ok(index.weight_map.0)
}

/// True for a relative name that stays in its folder on every system.
pub(crate) fn is_inside(name: &str) -> bool {
    !name.is_empty()
        && !name.contains(['\\', ':', '\0'])
        && Path::new(name).components().all(|part| matches!(part, Component::Normal(_)))
}

#[derive(Deserialize)]
struct Index {
    weight_map: WeightMap,
}

struct WeightMap(Vec<(String, String)>);

impl<'de> Deserialize<'de> for WeightMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<WeightMap, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = WeightMap;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object from tensor to file")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<WeightMap, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(WeightMap(pairs))
            }
        }
        deserializer.deserialize_map(Names)
    }
}

/// Copies a strided tensor to contiguous bytes; None if it leaves the file.
fn gather(file: &[u8], entry: &Entry, strides: &[usize]) -> Option<Vec<u8>> {
    let width = entry.dtype.size();
    let length = byte_length(entry.dtype, &entry.shape)?;
    let mut out = Vec::with_capacity(length);
    let (&row, outer) = entry.shape.split_last()?;
    let (&step, outer_strides) = strides.split_last()?;
    let step = step.checked_mul(width)?;
    let mut index = vec![0usize; outer.len()];
    while out.len() < length {
        let mut at = index.iter().zip(outer_strides).try_fold(entry.start, |at, (&i, &stride)| {
            at.checked_add(i.checked_mul(stride)?.checked_mul(width)?)
        })?;
        for _ in 0..row {
            out.extend_from_slice(file.get(at..at.checked_add(width)?)?);
            at = at.checked_add(step)?;
        }
        // Count up, the last of the outer dimensions fastest.
        for (i, &size) in index.iter_mut().zip(outer).rev() {
            *i += 1;
            if *i < size {
                break;
            }
            *i = 0;
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_inside_a_folder() {
        for good in ["a.safetensors", "part/a.safetensors", "a..b"] {
            assert!(is_inside(good), "{good}");
        }
        let bad = ["", "..", "../a", "a/../b", "/a", "./a", "C:a", "a\\..\\b"];
        for bad in bad {
            assert!(!is_inside(bad), "{bad}");
        }
    }

    #[test]
    fn gathering_honours_strides() {
        let entry = |shape: &[usize], start| Entry {
            name: String::new(),
            dtype: Dtype::U8,
            shape: shape.to_vec(),
            start,
            bytes: shape.iter().product(),
            strides: None,
        };
        let file = [9, 0, 1, 2, 3, 4, 5];
        let transposed = gather(&file, &entry(&[3, 2], 1), &[1, 3]);
        assert_eq!(transposed, Some(vec![0, 3, 1, 4, 2, 5]));
        let expanded = gather(&file, &entry(&[2, 2], 6), &[0, 0]);
        assert_eq!(expanded, Some(vec![5; 4]));
        assert_eq!(gather(&file, &entry(&[2], 6), &[1]), None);
        let cube = gather(&file, &entry(&[2, 1, 3], 1), &[3, 0, 1]);
        assert_eq!(cube, Some(vec![0, 1, 2, 3, 4, 5]));
    }
}
