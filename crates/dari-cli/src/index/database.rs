//! The SQLite database: its tables, how it is opened, and how processes share it.
//!
//! A writer holds SQLite's own write lock from the choice of a slot to the commit, so any number
//! of processes may index at once. The rollback journal is kept on purpose (no WAL): a reader then
//! holds off commits, so no slot is given to another picture while a search still reads it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, TransactionBehavior};

use super::Error;
use super::view::View;

/// "DARI", in the header of our databases.
const APPLICATION: i64 = 0x4441_5249;
/// The version of the tables.
const FORMAT: i64 = 1;
/// How long to wait for another process.
const PATIENCE: Duration = Duration::from_secs(30);

const SCHEMA: &str = "
CREATE TABLE models (
    id INTEGER PRIMARY KEY,
    fingerprint TEXT NOT NULL,
    dim INTEGER NOT NULL,
    nonce BLOB NOT NULL,
    UNIQUE (fingerprint, dim)
) STRICT;
-- A slot of the file of vectors; without a hash it is free.
CREATE TABLE vectors (
    model INTEGER NOT NULL,
    slot INTEGER NOT NULL,
    hash BLOB,
    sum INTEGER NOT NULL,
    PRIMARY KEY (model, slot)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX vectors_by_hash ON vectors (model, hash) WHERE hash IS NOT NULL;
CREATE INDEX vectors_free ON vectors (model, slot) WHERE hash IS NULL;
-- A picture either has a slot, or an error and the version of the program that met it.
CREATE TABLE pictures (
    model INTEGER NOT NULL,
    path BLOB NOT NULL,
    size INTEGER NOT NULL,
    mtime INTEGER NOT NULL,
    seen INTEGER NOT NULL,
    hash BLOB NOT NULL,
    slot INTEGER,
    error TEXT,
    program TEXT,
    PRIMARY KEY (model, path)
) STRICT, WITHOUT ROWID;
CREATE INDEX pictures_by_slot ON pictures (model, slot) WHERE slot IS NOT NULL;
";

/// What an index gets on top once it is so large that codes are worth it. The triggers see to it
/// that codes do not outlive their vector, also where a version writes that knows of no codes.
pub(super) const CODES: &str = "
-- The file of codes: what its header must say, and how many slots it covers.
CREATE TABLE IF NOT EXISTS codes (
    model INTEGER PRIMARY KEY,
    nonce BLOB NOT NULL,
    slots INTEGER NOT NULL
) STRICT;
-- Slots covered whose vector is another one now.
CREATE TABLE IF NOT EXISTS stale (
    model INTEGER NOT NULL,
    slot INTEGER NOT NULL,
    PRIMARY KEY (model, slot)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER IF NOT EXISTS vectors_entered AFTER INSERT ON vectors
WHEN NEW.slot < (SELECT slots FROM codes WHERE model = NEW.model)
BEGIN INSERT OR IGNORE INTO stale (model, slot) VALUES (NEW.model, NEW.slot); END;
CREATE TRIGGER IF NOT EXISTS vectors_changed AFTER UPDATE OF sum ON vectors
WHEN NEW.slot < (SELECT slots FROM codes WHERE model = NEW.model)
BEGIN INSERT OR IGNORE INTO stale (model, slot) VALUES (NEW.model, NEW.slot); END;
";

/// An open database.
#[derive(Debug)]
pub(super) struct Database {
    path: PathBuf,
    connection: Connection,
}

impl Database {
    /// Opens the database at `path`, and makes it where there is none.
    ///
    /// # Errors
    /// [`Error::Database`] for a damaged or foreign file, [`Error::Newer`] for a later format,
    /// else what the system answers.
    pub fn open(path: &Path) -> Result<Database, Error> {
        let fail = |source: rusqlite::Error| Error::sqlite(path, &source);
        let connection = Connection::open(path).map_err(fail)?;
        connection.busy_timeout(PATIENCE).map_err(fail)?;
        // EXTRA: a commit outlasts a power cut, before its freed slots are written over.
        connection.execute_batch("PRAGMA synchronous = EXTRA; PRAGMA trusted_schema = OFF;").map_err(fail)?;
        let mut database = Database { path: path.to_path_buf(), connection };
        if database.is_empty()? {
            let write = database.write()?;
            // Another process may have made the tables just now.
            if write.tables()? == 0 {
                let batch = format!(
                    "PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {FORMAT}; {SCHEMA}"
                );
                write.batch(&batch)?;
            }
            write.commit()?;
        }
        let application = database.pragma("application_id")?;
        let format = database.pragma("user_version")?;
        let foreign = |found: String| Error::Database { path: path.to_path_buf(), found };
        if application != APPLICATION {
            return Err(foreign("it belongs to another program".to_owned()));
        }
        if format > FORMAT {
            return Err(Error::Newer { path: path.to_path_buf(), found: format, expected: FORMAT });
        }
        if format < FORMAT {
            return Err(foreign(format!("format {format}, expected {FORMAT}")));
        }
        Ok(database)
    }

    fn fail(&self, source: &rusqlite::Error) -> Error {
        Error::sqlite(&self.path, source)
    }

    fn pragma(&self, name: &str) -> Result<i64, Error> {
        self.connection.pragma_query_value(None, name, |row| row.get(0)).map_err(|source| self.fail(&source))
    }

    fn is_empty(&self) -> Result<bool, Error> {
        let tables: i64 = self
            .connection
            .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
            .map_err(|source| self.fail(&source))?;
        Ok(tables == 0 && self.pragma("application_id")? == 0 && self.pragma("user_version")? == 0)
    }

    /// Begins to read: until the view is dropped, nothing that it shows changes.
    ///
    /// # Errors
    /// What SQLite answers.
    pub fn read(&self) -> Result<View<'_>, Error> {
        let transaction = self.connection.unchecked_transaction().map_err(|source| self.fail(&source))?;
        Ok(View::new(&self.path, transaction))
    }

    /// Begins to write: waits for other writers, and is undone unless committed.
    ///
    /// # Errors
    /// [`Error::Busy`] when another process writes for too long, else what SQLite answers.
    pub fn write(&mut self) -> Result<View<'_>, Error> {
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(|source| Error::sqlite(&self.path, &source))?;
        Ok(View::new(&self.path, transaction))
    }

    /// Forbids the database to grow, as a full disk does.
    #[cfg(test)]
    pub fn forbid_growth(&self) {
        let pages = self.pragma("page_count").unwrap();
        self.connection.pragma_update(None, "max_page_count", pages).unwrap();
    }
}
