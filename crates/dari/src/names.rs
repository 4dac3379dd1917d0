//! From what a person types to a model folder.

use std::path::Path;
use std::sync::LazyLock;

use dari_files::{Folder, gguf, hub};
use dari_models::adapter;

use crate::{EMBEDDED, EMBEDDED_VOICE, Error, Result};

/// A short name for a public checkpoint.
#[derive(Clone, Copy, Debug)]
pub struct Named {
    /// What to type.
    pub name: &'static str,
    /// Where it lies on the hub.
    pub id: &'static str,
    /// What it is.
    pub what: &'static str,
}

/// The short names, the commonest checkpoints of each kind.
pub const SHORT_NAMES: [Named; 10] = [
    Named { name: "clip-b32", id: "openai/clip-vit-base-patch32", what: "CLIP ViT-B/32, English" },
    Named { name: "clip-b16", id: "openai/clip-vit-base-patch16", what: "CLIP ViT-B/16, English" },
    Named { name: "clip-l14", id: "openai/clip-vit-large-patch14", what: "CLIP ViT-L/14, English" },
    Named {
        name: "clip-laion-b32",
        id: "laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
        what: "CLIP ViT-B/32 of LAION, English",
    },
    Named { name: "siglip-b16", id: "google/siglip-base-patch16-224", what: "SigLIP base, English" },
    Named {
        name: "siglip2-b16",
        id: "google/siglip2-base-patch16-224",
        what: "SigLIP 2 base, many languages, Korean among them",
    },
    Named {
        name: "siglip2-so400m",
        id: "google/siglip2-so400m-patch14-384",
        what: "SigLIP 2 so400m, many languages",
    },
    Named { name: "vit-b16", id: "google/vit-base-patch16-224", what: "ViT-B/16, 1000 ImageNet labels" },
    Named { name: "minilm", id: "sentence-transformers/all-MiniLM-L6-v2", what: "MiniLM, English sentences" },
    Named { name: "bert-base", id: "google-bert/bert-base-uncased", what: "BERT base, English" },
];

macro_rules! embedded {
    ($folder:literal, $($file:literal),*) => {
        [$(($file, include_bytes!(concat!("../../../models/", $folder, "/", $file)))),*]
    };
}

type File = (&'static str, &'static [u8]);

static MINI: [File; 5] = embedded!(
    "mini",
    "config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "model.safetensors"
);

static VOICE: [File; 6] = embedded!(
    "mini-voice",
    "config.json",
    "model.safetensors",
    "language/config.json",
    "language/tokenizer.json",
    "language/tokenizer_config.json",
    "language/model.safetensors"
);

/// The voice's eyes are `mini`'s, which are there once.
static SPEAKING: LazyLock<Vec<File>> = LazyLock::new(|| {
    let eyes = MINI.iter().zip(EYES).map(|((_, bytes), name)| (name, *bytes));
    VOICE.iter().copied().chain(eyes).collect()
});

/// The names of [`MINI`]'s files within the voice.
const EYES: [&str; 5] = [
    "vision/config.json",
    "vision/preprocessor_config.json",
    "vision/tokenizer.json",
    "vision/tokenizer_config.json",
    "vision/model.safetensors",
];

/// Opens a model: an embedded one, a folder, a short name, or a hub id. `progress` is told of
/// files being fetched: name, bytes done, bytes in all.
pub fn open_folder(model: &str, progress: &mut dyn FnMut(&str, u64, u64)) -> Result<Folder> {
    if model == EMBEDDED {
        return Ok(Folder::embedded(EMBEDDED, &MINI));
    }
    if model == EMBEDDED_VOICE {
        return Ok(Folder::embedded(EMBEDDED_VOICE, SPEAKING.as_slice()));
    }
    let path = Path::new(model);
    if path.is_dir() || gguf::is_one(path) {
        let folder = Folder::open(path)?;
        return match adapter::base(&folder)? {
            Some(base) => Ok(beside(path, &base, progress)?.with_adapter(folder)),
            None => Ok(folder),
        };
    }
    let id = match SHORT_NAMES.iter().find(|named| named.name == model) {
        Some(named) => named.id,
        None if hub::is_id(model) => model,
        None => {
            let expected = "no such folder, short name or hub id; see `dari models list`".to_owned();
            return Err(Error::Option { option: "model", found: model.to_owned(), expected });
        }
    };
    let options = hub::Options::from_env();
    let folder = hub::fetch(id, &options, &mut |p: hub::Progress<'_>| progress(p.file, p.done, p.total))?;
    Ok(Folder::open(&folder)?)
}

/// The model that an adapter stands beside: a folder by its own path, or as seen from the adapter's; or a name.
fn beside(adapter: &Path, base: &str, progress: &mut dyn FnMut(&str, u64, u64)) -> Result<Folder> {
    let near = adapter.join(base);
    let path = Path::new(base);
    match [path, &near].into_iter().find(|path| path.is_dir() || gguf::is_one(path)) {
        // An adapter beside an adapter is none.
        Some(path) => Ok(Folder::open(path)?),
        None => open_folder(base, progress),
    }
}
