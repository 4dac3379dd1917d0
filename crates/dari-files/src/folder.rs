//! A model folder in the Hugging Face layout: `config.json`, tokenizer files, weights; on disk or
//! embedded in the binary.

use crate::checkpoint::{Checkpoint, is_inside, read_index};
use crate::error::{Error, shown};
use crate::gguf::{self, Gguf};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The largest tokenizers of this field have some 40 MB.
const MAX_READ_BYTES: u64 = 256 << 20;

/// The names of weights, in the order they are looked for.
pub(crate) const WEIGHTS: [&str; 6] = [
    "model.safetensors",
    "model.safetensors.index.json",
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.bin",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
];

/// The files that a model may need beside its weights.
pub const CONFIGS: [&str; 23] = [
    "1_Pooling/config.json",
    "added_tokens.json",
    "additional_chat_templates/default.jinja",
    "chat_template.jinja",
    "chat_template.json",
    "chat_templates/default.jinja",
    "config.json",
    "generation_config.json",
    "merges.txt",
    "modules.json",
    "open_clip_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "sentence_bert_config.json",
    "sentencepiece.bpe.model",
    "special_tokens_map.json",
    "spiece.model",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "video_preprocessor_config.json",
    "vocab.json",
    "vocab.txt",
];

/// A model folder, on disk or embedded in the binary.
#[derive(Clone)]
pub struct Folder {
    place: Place,
    adapter: Option<Box<Folder>>,
}

#[derive(Clone)]
enum Place {
    Disk(PathBuf),
    Embedded {
        name: &'static str,
        files: &'static [(&'static str, &'static [u8])],
        /// What the names of its own files begin with.
        below: String,
    },
    /// A file that holds config, tokenizer and weights in one.
    Gguf(Arc<Gguf>),
}

impl Folder {
    /// A folder on disk, or a GGUF file in its place.
    ///
    /// # Errors
    /// When there is none, or a file that is no GGUF.
    pub fn open(path: &Path) -> Result<Folder, Error> {
        if gguf::is_one(path) {
            return Ok(Folder::at(Place::Gguf(Arc::new(Gguf::open(path)?))));
        }
        let about = std::fs::metadata(path).map_err(Error::io(path, "open the model folder"))?;
        if !about.is_dir() {
            return Err(Error::WrongKind {
                file: path.to_owned(),
                problem: "is no folder".to_owned(),
                remedy: "give the folder that holds config.json",
            });
        }
        Ok(Folder::at(Place::Disk(path.to_owned())))
    }

    /// A folder whose files, (name, bytes), are part of the binary.
    pub fn embedded(name: &'static str, files: &'static [(&'static str, &'static [u8])]) -> Folder {
        Folder::at(Place::Embedded { name, files, below: String::new() })
    }

    fn at(place: Place) -> Folder {
        Folder { place, adapter: None }
    }

    /// The same with low-rank factors that lie in another folder.
    #[must_use]
    pub fn with_adapter(self, adapter: Folder) -> Folder {
        Folder { adapter: Some(Box::new(adapter)), ..self }
    }

    /// The folder of its low-rank factors, where it is not the same.
    pub fn adapter(&self) -> Option<&Folder> {
        self.adapter.as_deref()
    }

    /// A folder within this one, or the one GGUF file that it holds in place of a config; `None` where there is no
    /// such folder.
    ///
    /// # Errors
    /// A GGUF file that is damaged, more than one, or what the system refuses.
    pub fn below(&self, name: &str) -> Result<Option<Folder>, Error> {
        match &self.place {
            Place::Disk(path) if is_inside(name) && path.join(name).is_dir() => {
                let folder = path.join(name);
                if folder.join("config.json").is_file() {
                    return Ok(Some(Folder::at(Place::Disk(folder))));
                }
                let mut files = Vec::new();
                for entry in std::fs::read_dir(&folder).map_err(Error::io(&folder, "list"))? {
                    let path = entry.map_err(Error::io(&folder, "list"))?.path();
                    if path.extension().is_some_and(|end| end.eq_ignore_ascii_case("gguf")) {
                        files.push(path);
                    }
                }
                match &files[..] {
                    [file] => Folder::open(file).map(Some),
                    [] => Ok(Some(Folder::at(Place::Disk(folder)))),
                    _ => Err(Error::WrongKind {
                        file: folder,
                        problem: format!("holds {} GGUF files", files.len()),
                        remedy: "leave the one that is meant",
                    }),
                }
            }
            Place::Embedded { name: label, files, below } => {
                let below = format!("{below}{name}/");
                let is_there = files.iter().any(|(file, _)| file.starts_with(&below));
                Ok(is_there.then(|| Folder::at(Place::Embedded { name: label, files, below })))
            }
            Place::Disk(_) | Place::Gguf(_) => Ok(None),
        }
    }

    /// Copies all that a model needs of it into a folder on disk, byte for byte.
    ///
    /// # Errors
    /// What the system refuses.
    pub fn copy_to(&self, to: &Path) -> Result<(), Error> {
        let made = |path: &Path| -> Result<(), Error> {
            let above = path.parent().unwrap_or(path);
            std::fs::create_dir_all(above).map_err(Error::io(above, "create"))
        };
        if let Place::Gguf(file) = &self.place {
            let name = file.path().file_name().unwrap_or("model.gguf".as_ref());
            made(&to.join(name))?;
            return std::fs::copy(file.path(), to.join(name))
                .map(drop)
                .map_err(Error::io(file.path(), "copy"));
        }
        let mut names: BTreeSet<String> =
            CONFIGS.into_iter().filter(|name| self.has(name)).map(str::to_owned).collect();
        if let Ok(weights) = self.weights_name() {
            names.insert(weights.to_owned());
            if let Place::Disk(path) = &self.place
                && weights.ends_with(".index.json")
            {
                names.extend(read_index(&path.join(weights))?.into_iter().map(|(_, shard)| shard));
            }
        }
        for name in names {
            let target = to.join(&name);
            made(&target)?;
            match &self.place {
                Place::Disk(path) => {
                    let from = path.join(&name);
                    std::fs::copy(&from, &target).map(drop).map_err(Error::io(&from, "copy"))?;
                }
                Place::Embedded { .. } | Place::Gguf(_) => {
                    let bytes = self.find(&name).unwrap_or_default();
                    std::fs::write(&target, bytes).map_err(Error::io(&target, "write"))?;
                }
            }
        }
        Ok(())
    }

    /// Whether it has weights.
    pub fn has_weights(&self) -> bool {
        self.gguf().is_some() || self.weights_name().is_ok()
    }

    /// What errors and listings call it: the path, or "mini (embedded)".
    pub fn label(&self) -> String {
        match &self.place {
            Place::Disk(path) => path.display().to_string(),
            Place::Embedded { name, below, .. } => match below.trim_end_matches('/') {
                "" => format!("{name} (embedded)"),
                below => format!("{name}/{below} (embedded)"),
            },
            Place::Gguf(file) => file.path().display().to_string(),
        }
    }

    /// The path, if it is a folder on disk.
    pub fn path(&self) -> Option<&Path> {
        match &self.place {
            Place::Disk(path) => Some(path),
            Place::Embedded { .. } | Place::Gguf(_) => None,
        }
    }

    /// The GGUF file, where one stands in a folder's place.
    pub fn gguf(&self) -> Option<&Arc<Gguf>> {
        match &self.place {
            Place::Gguf(file) => Some(file),
            Place::Disk(_) | Place::Embedded { .. } => None,
        }
    }

    /// True if there is such a file.
    pub fn has(&self, file: &str) -> bool {
        match &self.place {
            Place::Disk(path) => is_inside(file) && path.join(file).is_file(),
            Place::Embedded { .. } => self.find(file).is_some(),
            Place::Gguf(_) => false,
        }
    }

    /// The file's bytes; None when there is no such file.
    ///
    /// # Errors
    /// A file of more than 256 MiB, a name that may leave the folder, what the system refuses.
    pub fn read(&self, file: &str) -> Result<Option<Cow<'static, [u8]>>, Error> {
        if !is_inside(file) {
            return Err(Error::Escape { file: self.label(), name: shown(file) });
        }
        match &self.place {
            Place::Disk(path) if self.has(file) => {
                let bytes = read_bounded(&path.join(file), MAX_READ_BYTES)?;
                Ok(Some(Cow::Owned(bytes)))
            }
            Place::Disk(_) | Place::Gguf(_) => Ok(None),
            Place::Embedded { .. } => Ok(self.find(file).map(Cow::Borrowed)),
        }
    }

    /// The file as JSON; None when there is no such file.
    ///
    /// # Errors
    /// As [`Folder::read`], and [`Error::Json`] with the line and the column.
    pub fn json(&self, file: &str) -> Result<Option<serde_json::Value>, Error> {
        let Some(bytes) = self.read(file)? else {
            return Ok(None);
        };
        match serde_json::from_slice(&bytes) {
            Ok(value) => Ok(Some(value)),
            Err(error) => Err(Error::json(&self.name_of(file), &error)),
        }
    }

    /// The weights, by the first of the usual names that is there: `model.safetensors`, its
    /// index, those of OpenCLIP, those of PyTorch.
    ///
    /// # Errors
    /// [`Error::NoWeights`] with the names looked for, or as [`Checkpoint::open`].
    pub fn weights(&self) -> Result<Checkpoint, Error> {
        let name = self.weights_name()?;
        match &self.place {
            Place::Disk(path) => Checkpoint::open(&path.join(name)),
            Place::Embedded { .. } | Place::Gguf(_) => {
                let bytes = self.find(name).unwrap_or_default();
                Checkpoint::from_bytes(&self.name_of(name), bytes)
            }
        }
    }

    /// Weights in a file of this name.
    ///
    /// # Errors
    /// No such file, or as [`Checkpoint::open`].
    pub fn file(&self, name: &str) -> Result<Checkpoint, Error> {
        match &self.place {
            Place::Disk(path) if self.has(name) => Checkpoint::open(&path.join(name)),
            Place::Embedded { .. } if self.has(name) => {
                Checkpoint::from_bytes(&self.name_of(name), self.find(name).unwrap_or_default())
            }
            _ => Err(Error::NoWeights { folder: self.label(), looked_for: name.to_owned() }),
        }
    }

    /// A hash of all that decides what the model computes: the bytes of its configs, tokenizer
    /// files and weights with their names. BLAKE3, the first 16 bytes, in hex; the same on disk
    /// and embedded.
    ///
    /// # Errors
    /// As [`Folder::weights`].
    pub fn fingerprint(&self) -> Result<String, Error> {
        if let Place::Gguf(file) = &self.place {
            return Ok(hash_file(file.path())?.to_hex()[..32].to_owned());
        }
        let weights = self.weights_name()?;
        let mut names: BTreeSet<String> =
            CONFIGS.into_iter().filter(|name| self.has(name)).map(str::to_owned).collect();
        names.insert(weights.to_owned());
        if let Place::Disk(path) = &self.place
            && weights.ends_with(".index.json")
        {
            let shards = read_index(&path.join(weights))?;
            names.extend(shards.into_iter().map(|(_, shard)| shard));
        }
        let mut hasher = blake3::Hasher::new();
        for name in &names {
            let contents = match &self.place {
                Place::Disk(path) => hash_file(&path.join(name))?,
                Place::Embedded { .. } | Place::Gguf(_) => blake3::hash(self.find(name).unwrap_or_default()),
            };
            // Of known lengths, so that no two folders give the same stream.
            hasher.update(&(name.len() as u64).to_le_bytes());
            hasher.update(name.as_bytes());
            hasher.update(contents.as_bytes());
        }
        let mut bytes = [0; 16];
        hasher.finalize_xof().fill(&mut bytes);
        Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// What tells these weights from others that were here before: name, size and time of change of
    /// each file. `None` for what is part of the binary.
    ///
    /// # Errors
    /// As [`Folder::weights`].
    pub fn weights_stamp(&self) -> Result<Option<String>, Error> {
        let Some(folder) = self.path() else {
            return Ok(None);
        };
        let name = self.weights_name()?;
        let mut files = BTreeSet::from([name.to_owned()]);
        if name.ends_with(".index.json") {
            files.extend(read_index(&folder.join(name))?.into_iter().map(|(_, shard)| shard));
        }
        let mut stamp = String::new();
        for file in files {
            let path = folder.join(&file);
            let about = std::fs::metadata(&path).map_err(Error::io(&path, "open"))?;
            let changed = about.modified().ok().and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
            let changed = changed.map_or(0, |since| since.as_nanos());
            stamp.push_str(&format!("{file} {} {changed};", about.len()));
        }
        Ok(Some(stamp))
    }

    fn weights_name(&self) -> Result<&'static str, Error> {
        let embedded = self.path().is_none();
        WEIGHTS
            .into_iter()
            // Shards are for the disk.
            .filter(|name| !(embedded && name.ends_with(".index.json")))
            .find(|name| self.has(name))
            .ok_or_else(|| Error::NoWeights { folder: self.label(), looked_for: WEIGHTS.join(", ") })
    }

    fn find(&self, file: &str) -> Option<&'static [u8]> {
        match &self.place {
            Place::Disk(_) | Place::Gguf(_) => None,
            Place::Embedded { files, below, .. } => files
                .iter()
                .find(|(name, _)| name.strip_prefix(below.as_str()) == Some(file))
                .map(|(_, bytes)| *bytes),
        }
    }

    fn name_of(&self, file: &str) -> String {
        match &self.place {
            Place::Disk(path) => path.join(file).display().to_string(),
            Place::Embedded { name, below, .. } => format!("{name}/{below}{file} (embedded)"),
            Place::Gguf(_) => format!("{}: {file}", self.label()),
        }
    }
}

impl std::fmt::Debug for Folder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Folder({})", self.label())
    }
}

/// A whole file, if it is no longer than `limit`.
pub(crate) fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>, Error> {
    let file = File::open(path).map_err(Error::io(path, "open"))?;
    let about = file.metadata().map_err(Error::io(path, "open"))?;
    let too_large = |bytes| Error::TooLarge { file: path.display().to_string(), bytes, limit };
    if about.len() > limit {
        return Err(too_large(about.len()));
    }
    let mut bytes = Vec::new();
    // It may have grown meanwhile, or not be a regular file.
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(Error::io(path, "read"))?;
    match bytes.len() as u64 {
        length if length > limit => Err(too_large(length)),
        _ => Ok(bytes),
    }
}

fn hash_file(path: &Path) -> Result<blake3::Hash, Error> {
    let file = File::open(path).map_err(Error::io(path, "open"))?;
    let mut hasher = blake3::Hasher::new();
    std::io::copy(&mut BufReader::with_capacity(1 << 20, file), &mut hasher)
        .map_err(Error::io(path, "read"))?;
    Ok(hasher.finalize())
}
