//! The cache's layout: `models--owner--name/{blobs,refs,snapshots}`, a snapshot's files being
//! links into the blobs.

use super::{Id, Options, is_commit, is_name};
use crate::checkpoint::read_index;
use crate::folder::{WEIGHTS, read_bounded};
use std::fs;
use std::path::{Path, PathBuf};

/// A model whose snapshot in the cache is complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedModel {
    /// `owner/name`.
    pub id: String,
    /// The snapshot's folder, fit for [`crate::Folder::open`].
    pub path: PathBuf,
    /// The size of the snapshot's files.
    pub bytes: u64,
}

/// The models in the cache that the environment names, by id; what cannot be read is left out.
pub fn cached() -> Vec<CachedModel> {
    cached_in(&Options::from_env().cache)
}

/// The models in this cache, by id; what cannot be read is left out.
pub fn cached_in(cache: &Path) -> Vec<CachedModel> {
    let mut models: Vec<CachedModel> = children(cache)
        .into_iter()
        .filter_map(|(folder, path)| {
            let (owner, name) = folder.strip_prefix("models--")?.split_once("--")?;
            (is_name(owner) && is_name(name)).then_some(())?;
            let path = newest_snapshot(&path)?;
            let bytes = children(&path)
                .into_iter()
                .filter_map(|(_, file)| fs::metadata(file).ok())
                .filter(fs::Metadata::is_file)
                .map(|about| about.len())
                .sum();
            Some(CachedModel { id: format!("{owner}/{name}"), path, bytes })
        })
        .collect();
    models.sort_by(|a, b| a.id.cmp(&b.id));
    models
}

/// That of `main` if it is complete, else the newest complete one.
fn newest_snapshot(model: &Path) -> Option<PathBuf> {
    let main = read_ref(&model.join("refs/main"))
        .map(|commit| model.join("snapshots").join(commit))
        .filter(|snapshot| is_complete(snapshot));
    main.or_else(|| {
        children(&model.join("snapshots"))
            .into_iter()
            .filter(|(name, path)| is_commit(name) && is_complete(path))
            .max_by_key(|(_, path)| fs::metadata(path).and_then(|about| about.modified()).ok())
            .map(|(_, path)| path)
    })
}

/// One model's place in the cache.
pub(super) struct Model {
    pub folder: PathBuf,
    revision: String,
}

impl Model {
    pub(super) fn new(cache: &Path, id: &Id) -> Model {
        Model {
            folder: cache.join(format!("models--{}", id.name.replace('/', "--"))),
            revision: id.revision.clone(),
        }
    }

    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    pub(super) fn reference(&self) -> PathBuf {
        self.folder.join("refs").join(&self.revision)
    }

    /// The revision's snapshot, if all that a model needs is there.
    pub(super) fn complete_snapshot(&self) -> Option<PathBuf> {
        let commit = match is_commit(&self.revision) {
            true => self.revision.clone(),
            false => read_ref(&self.reference())?,
        };
        Some(self.snapshot(&commit)).filter(|snapshot| is_complete(snapshot))
    }
}

fn read_ref(file: &Path) -> Option<String> {
    let text = String::from_utf8(read_bounded(file, 64).ok()?).ok()?;
    let commit = text.trim();
    is_commit(commit).then(|| commit.to_owned())
}

/// A config and one set of weights with all its shards; links must lead to files.
pub(super) fn is_complete(snapshot: &Path) -> bool {
    let has = |name: &str| snapshot.join(name).is_file();
    let Some(weights) = WEIGHTS.into_iter().find(|name| has(name)) else {
        return false;
    };
    let sharded = weights.ends_with(".index.json");
    (has("config.json") || has("open_clip_config.json"))
        && (!sharded
            || read_index(&snapshot.join(weights))
                .is_ok_and(|shards| shards.iter().all(|(_, shard)| has(shard))))
}

fn children(folder: &Path) -> Vec<(String, PathBuf)> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())))
        .collect()
}
