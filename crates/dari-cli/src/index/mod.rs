//! The search index: which pictures lie where, and their vectors under one model.
//!
//! It lives in the user's data folder, never among the pictures: `index.sqlite`, and beside it one
//! file of vectors for each model. A vector is written and flushed before the row that names it is
//! committed, so an end at any moment costs at most the batch in flight. What a picture is goes by
//! its content's hash: a picture that was moved or copied is not embedded again. A large index has
//! int8 codes beside its vectors, which make a search quicker and never another one.

mod codes;
mod commit;
mod database;
mod error;
mod nearest;
mod report;
mod scan;
#[cfg(test)]
mod tests;
mod update;
mod vectors;
mod view;
mod walk;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

pub use error::Error;
pub use report::{Progress, Report};

use database::Database;
use vectors::{Identity, VectorFile};
use view::Model;
use walk::KeyRange;

const DATABASE: &str = "index.sqlite";
/// Vectors without a picture that are kept for its return.
const SPARE: usize = 1024;
/// Slots from which on an index gets codes.
const CODES_FROM: usize = 32_768;

/// The pictures of a folder, in the order of their paths, and what could not be looked at.
#[derive(Debug, Default)]
pub struct Pictures {
    /// The pictures.
    pub pictures: Vec<PathBuf>,
    /// Files and folders that could not be looked at, and why.
    pub problems: Vec<(PathBuf, String)>,
}

/// Finds the pictures below a folder by the index's own rules.
pub fn pictures_in(folder: &Path) -> Pictures {
    let walk = walk::find(folder, &mut |_| {}, &AtomicBool::new(false));
    Pictures { pictures: walk.pictures.iter().map(walk::Candidate::path).collect(), problems: walk.failed }
}

/// A picture found by a search.
#[derive(Debug, Clone, PartialEq)]
pub struct Hit {
    /// Where it lay when it was indexed.
    pub path: PathBuf,
    /// Cosine similarity with the query, -1 to 1.
    pub score: f32,
}

/// The index as one model sees it. Several processes may use it at once.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    database: Database,
    fingerprint: String,
    dim: u32,
    /// The file of vectors, once this store has written to it.
    vectors: Option<VectorFile>,
    spare: usize,
    codes_from: usize,
    fault: Fault,
}

/// Moments of a commit at which the tests let it fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Begun,
    VectorWritten,
    VectorsFlushed,
    RowsWritten,
    Committed,
    CodesSealed,
}

/// Lets a commit fail at a given step, in tests only.
#[derive(Default)]
struct Fault {
    #[cfg(test)]
    hook: Option<Box<dyn FnMut(Step) -> std::io::Result<()> + Send>>,
}

impl std::fmt::Debug for Fault {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Fault")
    }
}

impl Fault {
    #[cfg_attr(not(test), allow(clippy::unused_self, clippy::unnecessary_wraps))]
    fn at(&mut self, step: Step, path: &Path) -> Result<(), Error> {
        #[cfg(test)]
        if let Some(hook) = &mut self.hook {
            hook(step).map_err(|source| Error::io("write", path, source))?;
        }
        let _ = (step, path);
        Ok(())
    }
}

impl Store {
    /// Opens the index in the user's data folder (see [`data_folder`]), and makes it where there is none.
    ///
    /// `model_fingerprint` names everything that a vector depends on: weights, configuration and
    /// precision. `dim` is the width of its vectors. Pictures indexed under another pair are not seen.
    ///
    /// # Errors
    /// Where there is no data folder, and as [`Store::open_at`].
    pub fn open(model_fingerprint: &str, dim: usize) -> Result<Store, Error> {
        Store::open_at(&data_folder()?, model_fingerprint, dim)
    }

    /// Opens the index in `folder`, and makes both where there is none.
    ///
    /// # Errors
    /// [`Error::Database`] for a damaged or foreign database, [`Error::Newer`] for a later format,
    /// else what the system answers.
    pub fn open_at(folder: &Path, model_fingerprint: &str, dim: usize) -> Result<Store, Error> {
        let folder =
            &std::path::absolute(folder).map_err(|source| Error::io("open the folder", folder, source))?;
        let width = u32::try_from(dim)
            .ok()
            .filter(|dim| (1..=1 << 20).contains(dim))
            .ok_or(Error::Width { found: dim })?;
        make_private_folder(folder).map_err(|source| Error::io("make the folder", folder, source))?;
        Ok(Store {
            database: Database::open(&folder.join(DATABASE))?,
            folder: folder.clone(),
            fingerprint: model_fingerprint.to_owned(),
            dim: width,
            vectors: None,
            spare: SPARE,
            codes_from: CODES_FROM,
            fault: Fault::default(),
        })
    }

    /// The number of pictures that a search would look at, in all folders or below `folder`.
    ///
    /// # Errors
    /// What SQLite answers.
    pub fn count(&self, folder: Option<&Path>) -> Result<usize, Error> {
        let view = self.database.read()?;
        match view.model(&self.fingerprint, self.dim)? {
            Some(model) => view.count(model, range(folder)?.as_ref()),
            None => Ok(0),
        }
    }

    /// The `k` pictures nearest to `query`, `[dim]`, best first; ties go by path.
    ///
    /// Every vector below `folder`, or every one of this model, is compared; none is guessed away.
    /// The query need not have length 1.
    ///
    /// # Errors
    /// [`Error::Query`] for a query of another width, without direction or not finite,
    /// [`Error::Vectors`] where the vectors are damaged, else what the system answers.
    pub fn search(&self, query: &[f32], folder: Option<&Path>, k: usize) -> Result<Vec<Hit>, Error> {
        let expected = self.dim as usize;
        let wrong = |found: String| Error::Query { found, expected };
        if query.len() != expected {
            return Err(wrong(format!("has {} numbers", query.len())));
        }
        let query = normalise(query).ok_or_else(|| wrong("is zero or holds what is no number".into()))?;
        // Held to the end, so that no slot gets another picture's vector meanwhile.
        let view = self.database.read()?;
        let Some(model) = view.model(&self.fingerprint, self.dim)? else {
            return Ok(Vec::new());
        };
        let range = range(folder)?;
        let near = match &range {
            Some(_) => None,
            None => self.nearest(&view, model, &query, k)?,
        };
        let near = match near {
            Some(near) => near,
            None => self.listed(&view, model, range.as_ref(), &query, k)?,
        };
        let path = self.vectors_path();
        let mut hits = Vec::new();
        for near in near {
            let slot = near.slot;
            if view.sum(model, slot)? != Some(near.sum) {
                let found = format!("the check sum of vector {slot} is wrong");
                return Err(Error::Vectors { path, found });
            }
            hits.push(Hit { path: walk::path_of(&near.key), score: near.score });
        }
        Ok(hits)
    }

    /// Digest of what the vectors depend on.
    fn digest(&self) -> blake3::Hash {
        blake3::hash(format!("{}\n{}", self.dim, self.fingerprint).as_bytes())
    }

    fn vectors_path(&self) -> PathBuf {
        let mut name = self.digest().to_hex().to_string();
        name.truncate(16);
        self.folder.join(format!("vectors-{name}.f32"))
    }

    fn identity(&self, model: Model) -> Identity {
        Identity { dim: self.dim, model: *self.digest().as_bytes(), nonce: model.nonce }
    }
}

/// The keys below `folder`, as [`walk::range_below`], or nothing for all.
fn range(folder: Option<&Path>) -> Result<Option<KeyRange>, Error> {
    let Some(folder) = folder else {
        return Ok(None);
    };
    // A folder that is gone is still known by the name that it had.
    let full = std::fs::canonicalize(folder)
        .or_else(|_| std::path::absolute(folder))
        .map_err(|source| Error::io("open the folder", folder, source))?;
    let range = walk::range_below(&full)
        .ok_or_else(|| Error::Folder { path: full, found: "its name is not Unicode".to_owned() })?;
    Ok(Some(range))
}

/// `vector` at length 1; nothing where it has no length or is not finite.
fn normalise(vector: &[f32]) -> Option<Vec<f32>> {
    let square: f64 = vector.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    let length = square.sqrt();
    (length.is_finite() && length > 0.0)
        .then(|| vector.iter().map(|&x| (f64::from(x) / length) as f32).collect())
}

/// Makes a folder that only its owner may look into: the index names private files.
fn make_private_folder(folder: &Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// Where dari keeps what it makes for a user: `$DARI_DATA_HOME`, else the system's own place
/// (`$XDG_DATA_HOME/dari` or `~/.local/share/dari`; on macOS `~/Library/Application Support/dari`;
/// on Windows `%LOCALAPPDATA%\dari`).
///
/// # Errors
/// [`Error::NoDataFolder`] where none of them is known.
pub fn data_folder() -> Result<PathBuf, Error> {
    data_folder_from(&|name| std::env::var_os(name), std::env::home_dir())
}

/// The same, made where it is not there yet.
///
/// # Errors
/// As [`data_folder`], and where it cannot be made.
pub fn usable_data_folder() -> Result<PathBuf, Error> {
    let folder = data_folder()?;
    make_private_folder(&folder).map_err(|source| Error::io("make the folder", &folder, source))?;
    Ok(folder)
}

fn data_folder_from(
    variable: &dyn Fn(&str) -> Option<OsString>,
    home: Option<PathBuf>,
) -> Result<PathBuf, Error> {
    let set = |name| variable(name).filter(|value| !value.is_empty());
    if let Some(folder) = set("DARI_DATA_HOME") {
        return Ok(PathBuf::from(folder));
    }
    let home = home.filter(|home| !home.as_os_str().is_empty());
    let base = if cfg!(windows) {
        set("LOCALAPPDATA").map(PathBuf::from).or_else(|| home.map(|home| home.join("AppData").join("Local")))
    } else if cfg!(target_os = "macos") {
        home.map(|home| home.join("Library").join("Application Support"))
    } else {
        // The XDG base directory specification: a relative path is to be ignored.
        set("XDG_DATA_HOME")
            .map(PathBuf::from)
            .filter(|folder| folder.is_absolute())
            .or_else(|| home.map(|home| home.join(".local").join("share")))
    };
    base.map(|base| base.join("dari")).ok_or(Error::NoDataFolder)
}
