//! What can go wrong in the index, each in one line with the way out.

use std::io;
use std::path::{Path, PathBuf};

/// An error of the search index.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no place to keep the index.
    #[error(
        "no folder for the index: neither DARI_DATA_HOME nor a home folder is set; set DARI_DATA_HOME to a folder"
    )]
    NoDataFolder,
    /// The folder to index cannot be used.
    #[error("cannot index {}: {found}; name a folder that you can read", path.display())]
    Folder {
        /// The folder that was asked for.
        path: PathBuf,
        /// What was found in its place.
        found: String,
    },
    /// A file of the index could not be read, written or made.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// The disk, the quota or the largest file size is reached.
    #[error("no space left to write {}: what was indexed before stays; free some space and run `dari index` again", path.display())]
    Full {
        /// The file that could not grow.
        path: PathBuf,
    },
    /// Another process holds the database.
    #[error("another dari is writing to {}: wait until it ends, then run this again", path.display())]
    Busy {
        /// The database.
        path: PathBuf,
    },
    /// The database is damaged, or is not one of ours.
    #[error("{} is not a sound dari index ({found}): move it away and run `dari index` again, which makes a new one", path.display())]
    Database {
        /// The database.
        path: PathBuf,
        /// What was found.
        found: String,
    },
    /// The database comes from a later version.
    #[error("{} has index format {found}, this dari reads format {expected}: use the newer dari, or move the file away and index again", path.display())]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its format.
        found: i64,
        /// The format of this program.
        expected: i64,
    },
    /// The file of vectors is missing, damaged, or not the one the database means.
    #[error("the vectors in {} are damaged ({found}): run `dari index` on your folder again, which makes them anew", path.display())]
    Vectors {
        /// The file of vectors.
        path: PathBuf,
        /// What was found, and what was expected.
        found: String,
    },
    /// The vectors have an impossible width.
    #[error(
        "vectors of {found} numbers cannot be indexed: expected 1 to 1048576; use a model that embeds pictures"
    )]
    Width {
        /// The width that was asked for.
        found: usize,
    },
    /// The query cannot be searched for.
    #[error(
        "the query's vector {found}; expected {expected} finite numbers from the model that made the index"
    )]
    Query {
        /// What was found.
        found: String,
        /// The width of the index.
        expected: usize,
    },
    /// The caller's embedding function broke its contract.
    #[error(
        "the model gave {found} for a batch of {expected} pictures: this is a defect of dari, please report it"
    )]
    Embedding {
        /// What was given.
        found: String,
        /// How many pictures were asked for.
        expected: usize,
    },
}

impl Error {
    /// Wraps what the system answered; a full disk gets its own kind.
    pub(super) fn io(action: &'static str, path: &Path, source: io::Error) -> Error {
        let path = path.to_path_buf();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Error::Full { path }
            }
            _ => Error::Io { action, path, source },
        }
    }

    /// Wraps what SQLite answered about the database at `path`.
    pub(super) fn sqlite(path: &Path, source: &rusqlite::Error) -> Error {
        use rusqlite::ErrorCode;
        let path = path.to_path_buf();
        match source.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Error::Full { path },
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Error::Busy { path },
            Some(
                ErrorCode::ReadOnly
                | ErrorCode::CannotOpen
                | ErrorCode::PermissionDenied
                | ErrorCode::AuthorizationForStatementDenied
                | ErrorCode::SystemIoFailure
                | ErrorCode::OutOfMemory
                | ErrorCode::NoLargeFileSupport,
            ) => Error::Io { action: "use", path, source: io::Error::other(source.to_string()) },
            _ => Error::Database { path, found: source.to_string() },
        }
    }
}
