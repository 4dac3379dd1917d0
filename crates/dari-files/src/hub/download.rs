//! Bringing a snapshot into the cache, through hf-hub.
//!
//! hf-hub 0.5 itself reads neither `HF_HUB_CACHE` nor `HF_TOKEN` nor `HF_HUB_OFFLINE`, compares
//! no sizes and trusts the server's names; so all of this is done here.

use super::cache::{Model, is_complete};
use super::{Id, Options, Progress, is_commit};
use crate::checkpoint::{is_inside, read_index};
use crate::error::{Error, shown};
use crate::folder::{CONFIGS, WEIGHTS};
use hf_hub::api::sync::{Api, ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Tries again, for connections that break.
const RETRIES: usize = 3;

pub(super) enum Failure {
    /// The hub answered, and no cache can help.
    Refused(Error),
    /// No answer, or none that is the hub's.
    Unreachable(String),
}

/// Fetches what is missing of the revision's newest snapshot.
pub(super) fn snapshot(
    id: &Id,
    model: &Model,
    options: &Options,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<PathBuf, Failure> {
    let api = connect(options)?;
    let repo = |revision: &str| Repo::with_revision(id.name.clone(), RepoType::Model, revision.to_owned());
    let info = guarded(|| api.repo(repo(&id.revision)).info());
    let info = info.map_err(|problem| classify(id, options, problem))?;
    if !is_commit(&info.sha) {
        let sha = shown(&info.sha);
        return Err(Failure::Unreachable(format!("`{sha}` is no commit")));
    }
    let offered: BTreeSet<&str> = info.siblings.iter().map(|file| file.rfilename.as_str()).collect();
    let folder = model.snapshot(&info.sha);
    // From here on by commit: the branch may move while files come.
    let source = Source {
        id,
        options,
        folder: &folder,
        blobs: model.folder.join("blobs"),
        repo: api.repo(repo(&info.sha)),
        api: &api,
    };
    for config in CONFIGS {
        if offered.contains(config) {
            source.bring(config, progress)?;
        }
    }
    let Some(weights) = WEIGHTS.into_iter().find(|name| offered.contains(name)) else {
        return Err(Failure::Refused(id.error(
            format!("has no weights; looked for {}", WEIGHTS.join(", ")),
            "choose a model with safetensors or PyTorch weights",
        )));
    };
    source.bring(weights, progress)?;
    if weights.ends_with(".index.json") {
        let index = read_index(&folder.join(weights)).map_err(Failure::Refused)?;
        let shards: BTreeSet<&str> = index.iter().map(|(_, shard)| shard.as_str()).collect();
        for shard in shards {
            source.bring(shard, progress)?;
        }
    }
    if !is_complete(&folder) {
        return Err(Failure::Refused(
            id.error("has no config.json", "choose a model in the Hugging Face layout"),
        ));
    }
    point(model, &id.revision, &info.sha).map_err(Failure::Refused)?;
    Ok(folder)
}

/// The revision's reference is written last, when everything it promises is there.
fn point(model: &Model, revision: &str, commit: &str) -> Result<(), Error> {
    if revision == commit {
        return Ok(());
    }
    let reference = model.reference();
    if let Some(parent) = reference.parent() {
        fs::create_dir_all(parent).map_err(Error::io(parent, "make the folder"))?;
    }
    crate::write_atomically(&reference, commit.as_bytes())?;
    // hf-hub makes one for the commit itself, which the layout does not have.
    let _ = fs::remove_file(model.folder.join("refs").join(commit));
    Ok(())
}

/// One commit of one model.
struct Source<'a> {
    id: &'a Id,
    options: &'a Options,
    folder: &'a Path,
    blobs: PathBuf,
    repo: ApiRepo,
    api: &'a Api,
}

impl Source<'_> {
    fn bring(&self, name: &str, progress: &mut dyn FnMut(Progress<'_>)) -> Result<(), Failure> {
        if !is_inside(name) {
            return Err(Failure::Refused(Error::Escape { file: self.id.name.clone(), name: shown(name) }));
        }
        let path = self.folder.join(name);
        if path.is_file() {
            return Ok(());
        }
        let fail = |problem| classify(self.id, self.options, problem);
        let about = guarded(|| self.api.metadata(&self.repo.url(name))).map_err(fail)?;
        // hf-hub makes a path of the etag.
        let blob = about.etag();
        if blob.is_empty() || !blob.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            let problem = format!("gives {name} the unusable etag `{}`", shown(blob));
            return Err(Failure::Unreachable(problem));
        }
        let size = about.size() as u64;
        // A part of the full size was left when the last run ended just before its renaming;
        // hf-hub would ask for the bytes behind its end and fail for ever.
        let part = self.blobs.join(blob).with_extension("part");
        if fs::metadata(&part).is_ok_and(|part| part.len() >= size) {
            fs::remove_file(&part).map_err(Error::io(&part, "remove")).map_err(Failure::Refused)?;
        }
        let relay = Relay { file: name, done: 0, total: size, report: progress };
        let got = guarded(|| self.repo.download_with_progress(name, relay)).map_err(fail)?;
        let length = fs::metadata(&got).map_or(0, |about| about.len());
        if got != path || length != size {
            // Nothing of it may stay: the next run would take it as whole.
            let _ = fs::remove_file(&got);
            let _ = fs::remove_file(self.blobs.join(blob));
            return Err(Failure::Unreachable(format!("{name} came with {length} of {size} bytes")));
        }
        Ok(())
    }
}

/// From hf-hub's notices to ours.
struct Relay<'a, 'b> {
    file: &'a str,
    done: u64,
    total: u64,
    report: &'b mut dyn FnMut(Progress<'_>),
}

impl Relay<'_, '_> {
    fn tell(&mut self) {
        (self.report)(Progress { file: self.file, done: self.done.min(self.total), total: self.total });
    }
}

impl hf_hub::api::Progress for Relay<'_, '_> {
    fn init(&mut self, _size: usize, _filename: &str) {
        // Again after every broken connection.
        self.done = 0;
    }

    fn update(&mut self, size: usize) {
        self.done = self.done.saturating_add(size as u64);
        self.tell();
    }

    fn finish(&mut self) {
        self.done = self.total;
        self.tell();
    }
}

fn connect(options: &Options) -> Result<Api, Failure> {
    ApiBuilder::from_cache(Cache::new(options.cache.clone()))
        .with_endpoint(options.endpoint.clone())
        .with_token(options.token.clone())
        .with_progress(false)
        .with_retries(RETRIES)
        .with_user_agent("dari", env!("CARGO_PKG_VERSION"))
        .build()
        .map_err(|error| Failure::Unreachable(shown(&error.to_string())))
}

/// hf-hub asserts where a server misbehaves; the text of its error or of its panic.
fn guarded<T>(call: impl FnOnce() -> Result<T, ApiError>) -> Result<T, String> {
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(|error| shown(&error.to_string())),
        Err(_) => Err("an answer that is not the hub's".to_owned()),
    }
}

/// The hub's own refusals by their status, which hf-hub gives only in words.
fn classify(id: &Id, options: &Options, problem: String) -> Failure {
    let status = problem.rsplit_once("http status: ").and_then(|(_, status)| status.parse::<u16>().ok());
    let token = match options.token {
        Some(_) => "the token",
        None => "no token (HF_TOKEN)",
    };
    match status {
        Some(401 | 403) => Failure::Refused(id.error(
            format!("{} refuses it with {token}: it is private, gated or misspelt", options.endpoint),
            "accept its terms on its page, and set HF_TOKEN to a token of that account",
        )),
        Some(404) => Failure::Refused(id.error(
            format!("{} has no such model, revision or file", options.endpoint),
            "check the spelling of owner/name@revision",
        )),
        _ if problem.starts_with("Lock acquisition failed") => Failure::Refused(
            id.error("another process is fetching it", "wait for that one to end, then run this again"),
        ),
        _ => Failure::Unreachable(problem),
    }
}
