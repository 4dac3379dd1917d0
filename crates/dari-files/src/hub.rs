//! Models of the Hugging Face hub: from an id to a local folder in the standard cache, and what
//! the cache holds.
//!
//! The environment is read as the Python library does
//! (<https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables>);
//! downloads are hf-hub's.

mod cache;
mod download;

use crate::error::{Error, shown};
use std::path::PathBuf;

pub use cache::{CachedModel, cached, cached_in};

/// Where the hub and its cache are, and how to reach them.
#[derive(Clone, PartialEq, Eq)]
pub struct Options {
    /// The cache's folder, the one that holds `models--owner--name`. `HF_HUB_CACHE`, else
    /// `HF_HOME`/hub, else `~/.cache/huggingface/hub`.
    pub cache: PathBuf,
    /// The hub's address. `HF_ENDPOINT`, else `https://huggingface.co`.
    pub endpoint: String,
    /// The access token. `HF_TOKEN`, else the file at `HF_TOKEN_PATH` or `HF_HOME`/token.
    pub token: Option<String>,
    /// No request is made. `HF_HUB_OFFLINE`.
    pub offline: bool,
}

impl Options {
    /// From the process's environment.
    pub fn from_env() -> Options {
        Options::from_variables(|name| std::env::var(name).ok())
    }

    /// From any environment: `variable` gives a variable's value.
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Options {
        let set = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let home = match (set("HF_HOME"), set("XDG_CACHE_HOME")) {
            (Some(home), _) => expand_home(home),
            (None, Some(caches)) => PathBuf::from(caches).join("huggingface"),
            (None, None) => expand_home("~/.cache/huggingface".to_owned()),
        };
        let cache = set("HF_HUB_CACHE")
            .or_else(|| set("HUGGINGFACE_HUB_CACHE"))
            .map_or_else(|| home.join("hub"), expand_home);
        let token_file = set("HF_TOKEN_PATH").map_or_else(|| home.join("token"), expand_home);
        let token = set("HF_TOKEN")
            .or_else(|| set("HUGGING_FACE_HUB_TOKEN"))
            .or_else(|| read_token(&token_file))
            .map(|token| token.trim().to_owned())
            .filter(|token| !token.is_empty());
        let endpoint = set("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned());
        let offline = set("HF_HUB_OFFLINE")
            .is_some_and(|value| ["1", "ON", "YES", "TRUE"].contains(&value.trim().to_uppercase().as_str()));
        Options { cache, endpoint: endpoint.trim().trim_end_matches('/').to_owned(), token, offline }
    }
}

impl Default for Options {
    fn default() -> Options {
        Options::from_env()
    }
}

impl std::fmt::Debug for Options {
    /// Without the token.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("cache", &self.cache)
            .field("endpoint", &self.endpoint)
            .field("token", &self.token.as_ref().map(|_| "set"))
            .field("offline", &self.offline)
            .finish()
    }
}

/// How far one file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress<'a> {
    /// The file's name in the model.
    pub file: &'a str,
    /// Bytes of it that are here.
    pub done: u64,
    /// Its size in bytes.
    pub total: u64,
}

/// True for what [`fetch`] takes as an id, `owner/name` or `owner/name@revision`; says nothing on
/// whether the hub has it.
pub fn is_id(id: &str) -> bool {
    Id::parse(id).is_ok()
}

/// Brings a model, `owner/name` or `owner/name@revision`, into the cache and gives its folder.
///
/// Fetched is what a model needs and [`crate::Folder`] reads: configs, tokenizer files and one set
/// of weights, safetensors where there are any. Without a network, or offline, the cached snapshot
/// is given if it is complete. `progress` is called now and then while a file comes.
///
/// # Errors
/// [`Error::Hub`]: a malformed id, a model that is not there or needs a token, no network and no
/// complete snapshot.
pub fn fetch(id: &str, options: &Options, progress: &mut dyn FnMut(Progress<'_>)) -> Result<PathBuf, Error> {
    let id = Id::parse(id)?;
    let cache = cache::Model::new(&options.cache, &id);
    if options.offline {
        return cache.complete_snapshot().ok_or_else(|| {
            id.error(
                format!("no complete snapshot in {}, and HF_HUB_OFFLINE is set", options.cache.display()),
                "unset it to fetch the model, or give the path of a folder",
            )
        });
    }
    // A commit never changes.
    if is_commit(&id.revision)
        && let Some(snapshot) = cache.complete_snapshot()
    {
        return Ok(snapshot);
    }
    match download::snapshot(&id, &cache, options, progress) {
        Ok(snapshot) => Ok(snapshot),
        Err(download::Failure::Refused(error)) => Err(error),
        Err(download::Failure::Unreachable(problem)) => cache.complete_snapshot().ok_or_else(|| {
            id.error(
                format!(
                    "no complete snapshot in {}, and {} gives: {problem}",
                    options.cache.display(),
                    options.endpoint
                ),
                "check the network, HF_ENDPOINT and the proxy, or give the path of a folder",
            )
        }),
    }
}

/// A checked id: its parts are fit for paths and addresses.
struct Id {
    name: String,
    revision: String,
}

impl Id {
    fn parse(id: &str) -> Result<Id, Error> {
        let malformed = || Error::Hub {
            id: shown(id),
            problem: "is neither an existing path nor a model's id".to_owned(),
            remedy: "ids are owner/name or owner/name@revision, of letters, digits and - _ .".to_owned(),
        };
        let (name, revision) = id.split_once('@').unwrap_or((id, "main"));
        let (owner, model) = name.split_once('/').ok_or_else(malformed)?;
        let fine = is_name(owner)
            && is_name(model)
            && name.len() <= 96
            && revision.len() <= 128
            && !is_reserved(revision)
            && revision.split('/').all(is_name);
        if !fine {
            return Err(malformed());
        }
        Ok(Id { name: name.to_owned(), revision: revision.to_owned() })
    }

    fn error(&self, problem: impl Into<String>, remedy: impl Into<String>) -> Error {
        Error::Hub {
            id: format!("{}@{}", self.name, self.revision),
            problem: problem.into(),
            remedy: remedy.into(),
        }
    }
}

/// The hub's rule for names: no `..` and no `--`, no `-` or `.` at either end.
fn is_name(part: &str) -> bool {
    !part.is_empty()
        && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && !part.contains("..")
        && !part.contains("--")
        && !part.starts_with(['-', '.'])
        && !part.ends_with(['-', '.'])
}

/// Would name a lock or an unfinished file of the cache.
fn is_reserved(revision: &str) -> bool {
    revision.ends_with(".lock") || revision.ends_with(".part")
}

/// 40 hexadecimal digits.
fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|b| b.is_ascii_hexdigit())
}

fn expand_home(path: String) -> PathBuf {
    match (path.strip_prefix("~/"), std::env::home_dir()) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => PathBuf::from(path),
    }
}

fn read_token(file: &std::path::Path) -> Option<String> {
    let bytes = crate::folder::read_bounded(file, 4096).ok()?;
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn ids() {
        for good in ["openai/clip-vit-base-patch32", "a/b@main", "a/b@refs/pr/5", "a_b.c/d.e"] {
            assert!(is_id(good), "{good}");
        }
        for bad in [
            "",
            "/",
            "a",
            "a/",
            "/a",
            "a/b/c",
            "../a",
            "a/..",
            "a/b@",
            "a/b@..",
            "a/b@/x",
            "a/b@x/../y",
            "a/b?c",
            "a/b c",
            "a--b/c",
            "./a",
            "a/.b",
            "a\\b/c",
            "a/b@x\n",
            "가/b",
        ] {
            assert!(!is_id(bad), "{bad}");
        }
        assert!(!is_id(&format!("a/{}", "b".repeat(100))));
        let text = Id::parse("a/b/c").err().map(|e| e.to_string());
        assert!(text.is_some_and(|t| t.contains("owner/name")));
    }

    #[test]
    fn environment() {
        let with = |pairs: &'static [(&str, &str)]| {
            Options::from_variables(|name| {
                pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
            })
        };
        let options = with(&[("HF_HOME", "/h"), ("HF_TOKEN", " secret \n")]);
        assert_eq!(options.cache, Path::new("/h/hub"));
        assert_eq!(options.token.as_deref(), Some("secret"));
        assert_eq!(options.endpoint, "https://huggingface.co");
        assert!(!options.offline);
        assert!(!format!("{options:?}").contains("secret"));

        let options = with(&[
            ("HF_HOME", "/h"),
            ("HF_HUB_CACHE", "/c"),
            ("HF_ENDPOINT", "http://127.0.0.1:9/"),
            ("HF_HUB_OFFLINE", "true"),
        ]);
        assert_eq!(options.cache, Path::new("/c"));
        assert_eq!(options.token, None);
        assert_eq!(options.endpoint, "http://127.0.0.1:9");
        assert!(options.offline);

        assert!(!with(&[("HF_HOME", "/h"), ("HF_HUB_OFFLINE", "0")]).offline);
        let options = with(&[("XDG_CACHE_HOME", "/x")]);
        assert_eq!(options.cache, Path::new("/x/huggingface/hub"));
        assert!(with(&[]).cache.ends_with(".cache/huggingface/hub"));
    }

    #[test]
    fn token_file() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("token"), "from-file\n").unwrap();
        let path = home.path().display().to_string();
        let options = Options::from_variables(|name| (name == "HF_HOME").then(|| path.clone()));
        assert_eq!(options.token.as_deref(), Some("from-file"));
    }
}
