//! What the database knows, read and written within one transaction: which picture, as it was then,
//! has its vector in which slot.

use std::collections::HashMap;
use std::path::Path;

use rusqlite::{OptionalExtension, Row, Transaction, params};

use super::Error;
use super::codes;
use super::walk::{KeyRange, Stamp};

/// The program that tried a picture which could not be embedded: a later one tries again.
pub(super) const PROGRAM: &str = env!("CARGO_PKG_VERSION");

/// The hash of a picture's content.
pub(super) type Hash = [u8; 32];

/// A model that has vectors in this index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Model {
    /// Its number in the tables.
    pub id: i64,
    /// What its file of vectors must say.
    pub nonce: [u8; 16],
}

/// What became of a picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// Its vector lies in this slot, and has this check sum.
    Embedded {
        /// Slot in the file of vectors.
        slot: usize,
        /// Check sum of the vector's bytes.
        sum: i64,
    },
    /// It could not be embedded.
    Failed {
        /// Why.
        error: String,
        /// The version of the program that tried.
        program: String,
    },
    /// The tables contradict each other about it.
    Lost,
}

/// What the database knows of a picture.
#[derive(Debug, Clone)]
pub(super) struct Known {
    /// Size and time when it was looked at.
    pub stamp: Stamp,
    /// When that was, ns since 1970.
    pub seen: i64,
    /// Hash of its content.
    pub hash: Hash,
    /// What became of it.
    pub state: State,
}

/// Pictures to search, in the order of their paths.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// The slots of their vectors.
    pub slots: Vec<usize>,
    /// Their paths, one after the other.
    keys: Vec<u8>,
    /// Where each path ends in `keys`.
    ends: Vec<usize>,
}

impl Listing {
    /// The path of a row.
    pub fn key(&self, row: usize) -> &[u8] {
        let start = row.checked_sub(1).map_or(0, |before| self.ends.get(before).copied().unwrap_or(0));
        let end = self.ends.get(row).copied().unwrap_or(start);
        self.keys.get(start..end).unwrap_or_default()
    }
}

/// The database within one transaction.
#[derive(Debug)]
pub(super) struct View<'a> {
    path: &'a Path,
    transaction: Transaction<'a>,
}

impl<'a> View<'a> {
    /// The database at `path` within `transaction`.
    pub fn new(path: &'a Path, transaction: Transaction<'a>) -> View<'a> {
        View { path, transaction }
    }

    /// Runs several statements.
    ///
    /// # Errors
    /// What SQLite answers.
    pub fn batch(&self, sql: &str) -> Result<(), Error> {
        self.transaction.execute_batch(sql).map_err(|source| self.fail(&source))
    }

    fn fail(&self, source: &rusqlite::Error) -> Error {
        Error::sqlite(self.path, source)
    }

    fn damaged(&self, found: &str) -> Error {
        Error::Database { path: self.path.to_path_buf(), found: found.to_owned() }
    }

    /// Runs one statement that gives no rows back.
    fn run(&self, sql: &str, values: impl rusqlite::Params) -> Result<usize, Error> {
        self.transaction
            .prepare_cached(sql)
            .and_then(|mut statement| statement.execute(values))
            .map_err(|source| self.fail(&source))
    }

    /// Runs one statement that gives at most one row back.
    fn one<T>(
        &self,
        sql: &str,
        values: impl rusqlite::Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, Error> {
        self.transaction
            .prepare_cached(sql)
            .and_then(|mut statement| statement.query_row(values, read).optional())
            .map_err(|source| self.fail(&source))
    }

    /// The number of tables and indices.
    ///
    /// # Errors
    /// What SQLite answers.
    pub fn tables(&self) -> Result<i64, Error> {
        let count = self.one("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        Ok(count.unwrap_or(0))
    }

    /// The model with this fingerprint and width, if it has been here.
    ///
    /// # Errors
    /// What SQLite answers.
    pub fn model(&self, fingerprint: &str, dim: u32) -> Result<Option<Model>, Error> {
        self.one(
            "SELECT id, nonce FROM models WHERE fingerprint = ?1 AND dim = ?2",
            params![fingerprint, dim],
            |row| Ok(Model { id: row.get(0)?, nonce: row.get(1)? }),
        )
    }

    /// Enters a model whose new file of vectors has this nonce, and forgets all it had.
    ///
    /// # Errors
    /// What SQLite answers.
    pub fn put_model(&self, fingerprint: &str, dim: u32, nonce: [u8; 16]) -> Result<Model, Error> {
        self.run(
            "INSERT INTO models (fingerprint, dim, nonce) VALUES (?1, ?2, ?3)
             ON CONFLICT (fingerprint, dim) DO UPDATE SET nonce = excluded.nonce",
            params![fingerprint, dim, nonce],
        )?;
        let model = self
            .model(fingerprint, dim)?
            .ok_or_else(|| self.damaged("a model that was just entered is missing"))?;
        self.run("DELETE FROM pictures WHERE model = ?1", [model.id])?;
        self.run("DELETE FROM vectors WHERE model = ?1", [model.id])?;
        Ok(model)
    }

    /// All that is known of the pictures whose keys lie in `range`.
    ///
    /// # Errors
    /// What SQLite answers.
    pub fn known(&self, model: Model, range: &KeyRange) -> Result<HashMap<Vec<u8>, Known>, Error> {
        let read = |row: &Row<'_>| -> rusqlite::Result<(Vec<u8>, Known)> {
            let hash: Hash = row.get(4)?;
            let slot: Option<i64> = row.get(5)?;
            let error: Option<String> = row.get(6)?;
            let program: Option<String> = row.get(7)?;
            let vector: Option<Hash> = row.get(8)?;
            let sum: Option<i64> = row.get(9)?;
            let state = match (slot.map(usize::try_from), sum, error) {
                (Some(Ok(slot)), Some(sum), None) if vector == Some(hash) => State::Embedded { slot, sum },
                (None, None, Some(error)) => State::Failed { error, program: program.unwrap_or_default() },
                _ => State::Lost,
            };
            let known = Known {
                stamp: Stamp { size: row.get(1)?, mtime: row.get(2)? },
                seen: row.get(3)?,
                hash,
                state,
            };
            Ok((row.get(0)?, known))
        };
        let query = || -> rusqlite::Result<HashMap<Vec<u8>, Known>> {
            self.transaction
                .prepare_cached(
                    "SELECT p.path, p.size, p.mtime, p.seen, p.hash, p.slot, p.error, p.program,
                            v.hash, v.sum
                     FROM pictures p
                     LEFT JOIN vectors v ON v.model = p.model AND v.slot = p.slot
                     WHERE p.model = ?1 AND p.path >= ?2 AND p.path < ?3",
                )?
                .query_map(params![model.id, range.0, range.1], read)?
                .collect()
        };
        query().map_err(|source| self.fail(&source))
    }

    /// The pictures that have a vector, of all folders or of those whose keys lie in `range`.
    ///
    /// # Errors
    /// What SQLite answers.
    pub fn list(&self, model: Model, range: Option<&KeyRange>) -> Result<Listing, Error> {
        let (from, to) = match range {
            Some((from, to)) => (from.as_slice(), Some(to.as_slice())),
            None => (&[][..], None),
        };
        let query = || -> rusqlite::Result<Option<Listing>> {
            let mut listing = Listing::default();
            let mut statement = self.transaction.prepare_cached(
                "SELECT path, slot FROM pictures
                 WHERE model = ?1 AND path >= ?2 AND (?3 IS NULL OR path < ?3)
                   AND slot IS NOT NULL
                 ORDER BY path",
            )?;
            let mut rows = statement.query(params![model.id, from, to])?;
            while let Some(row) = rows.next()? {
                let slot: i64 = row.get(1)?;
                let Ok(slot) = usize::try_from(slot) else {
                    return Ok(None);
                };
                let key = row.get_ref(0)?.as_blob()?;
                listing.keys.extend_from_slice(key);
                listing.ends.push(listing.keys.len());
                listing.slots.push(slot);
            }
            Ok(Some(listing))
        };
        query().map_err(|source| self.fail(&source))?.ok_or_else(|| self.damaged("a slot below zero"))
    }

    /// The number of pictures that [`View::list`] lists.
    ///
    /// # Errors
    /// What SQLite answers.
    pub fn count(&self, model: Model, range: Option<&KeyRange>) -> Result<usize, Error> {
        let (from, to) = match range {
            Some((from, to)) => (from.as_slice(), Some(to.as_slice())),
            None => (&[][..], None),
        };
        let count: Option<i64> = self.one(
            "SELECT count(*) FROM pictures
             WHERE model = ?1 AND path >= ?2 AND (?3 IS NULL OR path < ?3) AND slot IS NOT NULL",
            params![model.id, from, to],
            |row| row.get(0),
        )?;
        Ok(usize::try_from(count.unwrap_or(0)).unwrap_or(0))
    }

    /// The slot, and the check sum, of the vector of a content.
    ///
    /// # Errors
    /// What SQLite answers.
    pub fn vector(&self, model: Model, hash: &Hash) -> Result<Option<(usize, i64)>, Error> {
        let found: Option<(i64, i64)> = self.one(
            "SELECT slot, sum FROM vectors WHERE model = ?1 AND hash = ?2",
            params![model.id, hash],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        found
            .map(|(slot, sum)| match usize::try_from(slot) {
                Ok(slot) => Ok((slot, sum)),
                Err(_) => Err(self.damaged("a slot below zero")),
            })
            .transpose()
    }

    /// The check sum of the vector in a slot.
    ///
    /// # Errors
    /// What SQLite answers.
    pub fn sum(&self, model: Model, slot: usize) -> Result<Option<i64>, Error> {
        self.one(
            "SELECT sum FROM vectors WHERE model = ?1 AND slot = ?2 AND hash IS NOT NULL",
            params![model.id, slot as i64],
            |row| row.get(0),
        )
    }

    /// A slot that no content has: a freed one, else the one after the last.
    ///
    /// # Errors
    /// What SQLite answers.
    pub fn free_slot(&self, model: Model) -> Result<usize, Error> {
        let free: Option<i64> = self.one(
            "SELECT slot FROM vectors INDEXED BY vectors_free
             WHERE model = ?1 AND hash IS NULL ORDER BY slot LIMIT 1",
            [model.id],
            |row| row.get(0),
        )?;
        let slot = match free {
            Some(slot) => Some(slot),
            None => self
                .one(
                    "SELECT slot FROM vectors WHERE model = ?1 ORDER BY slot DESC LIMIT 1",
                    [model.id],
                    |row| row.get::<_, i64>(0),
                )?
                .map_or(Some(0), |last| last.checked_add(1)),
        };
        slot.and_then(|slot| usize::try_from(slot).ok()).ok_or_else(|| self.damaged("a slot out of range"))
    }

    /// Gives a slot to a content.
    ///
    /// # Errors
    /// What SQLite answers.
    pub fn put_vector(&self, model: Model, slot: usize, hash: &Hash, sum: i64) -> Result<(), Error> {
        self.run(
            "INSERT INTO vectors (model, slot, hash, sum) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (model, slot) DO UPDATE SET hash = excluded.hash, sum = excluded.sum",
            params![model.id, slot as i64, hash, sum],
        )?;
        Ok(())
    }

    /// Enters a picture, in place of what was known of its path.
    ///
    /// # Errors
    /// What SQLite answers.
    pub fn put_picture(&self, model: Model, key: &[u8], known: &Known) -> Result<(), Error> {
        let (slot, error, program) = match &known.state {
            State::Embedded { slot, .. } => (Some(*slot as i64), None, None),
            State::Failed { error, program } => (None, Some(error), Some(program)),
            State::Lost => return self.remove(model, key),
        };
        let Stamp { size, mtime } = known.stamp;
        self.run(
            "INSERT OR REPLACE INTO pictures
             (model, path, size, mtime, seen, hash, slot, error, program)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            params![model.id, key, size, mtime, known.seen, known.hash, slot, error, program],
        )?;
        Ok(())
    }

    /// Forgets a picture. Its vector stays until [`View::free_spare`] takes its slot.
    ///
    /// # Errors
    /// What SQLite answers.
    pub fn remove(&self, model: Model, key: &[u8]) -> Result<(), Error> {
        self.run("DELETE FROM pictures WHERE model = ?1 AND path = ?2", params![model.id, key])?;
        Ok(())
    }

    /// Frees the slots that no picture has any more, once they are more than `spare` and more
    /// than those in use. Until then, a picture that comes back is not embedded again.
    ///
    /// # Errors
    /// What SQLite answers.
    pub fn free_spare(&self, model: Model, spare: usize) -> Result<(), Error> {
        let counts: Option<(i64, i64)> = self.one(
            "SELECT (SELECT count(DISTINCT slot) FROM pictures
                     WHERE model = ?1 AND slot IS NOT NULL),
                    (SELECT count(*) FROM vectors WHERE model = ?1 AND hash IS NOT NULL)",
            [model.id],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        let (used, all) = counts.unwrap_or((0, 0));
        let unused = usize::try_from(all.saturating_sub(used)).unwrap_or(0);
        if unused > spare.max(usize::try_from(used).unwrap_or(0)) {
            self.run(
                "UPDATE vectors SET hash = NULL WHERE model = ?1 AND hash IS NOT NULL
                 AND NOT EXISTS (SELECT 1 FROM pictures p
                                 WHERE p.model = ?1 AND p.slot = vectors.slot)",
                [model.id],
            )?;
        }
        Ok(())
    }

    /// The paths of the pictures whose vector lies in a slot, in their order.
    ///
    /// # Errors
    /// What SQLite answers.
    pub fn keys(&self, model: Model, slot: usize) -> Result<Vec<Vec<u8>>, Error> {
        let query = || -> rusqlite::Result<Vec<Vec<u8>>> {
            self.transaction
                .prepare_cached("SELECT path FROM pictures WHERE model = ?1 AND slot = ?2 ORDER BY path")?
                .query_map(params![model.id, slot as i64], |row| row.get(0))?
                .collect()
        };
        query().map_err(|source| self.fail(&source))
    }

    /// The last slot that any picture has.
    ///
    /// # Errors
    /// What SQLite answers, and a slot below zero.
    pub fn last_slot(&self, model: Model) -> Result<Option<usize>, Error> {
        let ends: Option<(Option<i64>, Option<i64>)> = self.one(
            "SELECT (SELECT slot FROM pictures WHERE model = ?1 AND slot IS NOT NULL ORDER BY slot LIMIT 1),
                    (SELECT slot FROM pictures WHERE model = ?1 AND slot IS NOT NULL
                     ORDER BY slot DESC LIMIT 1)",
            [model.id],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        let Some((Some(first), Some(last))) = ends else {
            return Ok(None);
        };
        match (usize::try_from(first), usize::try_from(last)) {
            (Ok(_), Ok(last)) => Ok(Some(last)),
            _ => Err(self.damaged("a slot below zero")),
        }
    }

    /// The number of slots, free ones among them, and which are free.
    ///
    /// # Errors
    /// What SQLite answers.
    pub fn slots(&self, model: Model) -> Result<(usize, Vec<usize>), Error> {
        let last: Option<i64> = self.one(
            "SELECT slot FROM vectors WHERE model = ?1 ORDER BY slot DESC LIMIT 1",
            [model.id],
            |row| row.get(0),
        )?;
        let free = self.column(
            "SELECT slot FROM vectors INDEXED BY vectors_free
             WHERE model = ?1 AND hash IS NULL ORDER BY slot",
            model,
        )?;
        let slots = last.map_or(Some(0), |last| usize::try_from(last).ok()?.checked_add(1));
        Ok((slots.ok_or_else(|| self.damaged("a slot out of range"))?, free))
    }

    /// A statement's column of slots.
    fn column(&self, sql: &str, model: Model) -> Result<Vec<usize>, Error> {
        let query = || -> rusqlite::Result<Vec<i64>> {
            self.transaction.prepare_cached(sql)?.query_map([model.id], |row| row.get(0))?.collect()
        };
        let slots = query().map_err(|source| self.fail(&source))?;
        let slots: Option<Vec<usize>> = slots.into_iter().map(|slot| usize::try_from(slot).ok()).collect();
        slots.ok_or_else(|| self.damaged("a slot below zero"))
    }

    /// What is known of a model's codes; nothing where it never had any.
    ///
    /// # Errors
    /// What SQLite answers.
    pub fn codes(&self, model: Model) -> Result<Option<codes::State>, Error> {
        let table = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'codes'";
        if self.one(table, [], |_| Ok(()))?.is_none() {
            return Ok(None);
        }
        let row: Option<([u8; 16], i64)> =
            self.one("SELECT nonce, slots FROM codes WHERE model = ?1", [model.id], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?;
        let Some((nonce, slots)) = row else {
            return Ok(None);
        };
        let slots = usize::try_from(slots).map_err(|_| self.damaged("a number of slots below zero"))?;
        let stale = self.column("SELECT slot FROM stale WHERE model = ?1 ORDER BY slot", model)?;
        Ok(Some(codes::State { nonce, slots, stale }))
    }

    /// Enters what holds of a model's codes from now on; the first call makes the tables for it.
    ///
    /// # Errors
    /// What SQLite answers.
    pub fn put_codes(&self, model: Model, state: &codes::State) -> Result<(), Error> {
        self.batch(super::database::CODES)?;
        self.run(
            "INSERT OR REPLACE INTO codes (model, nonce, slots) VALUES (?1, ?2, ?3)",
            params![model.id, state.nonce, state.slots as i64],
        )?;
        self.run("DELETE FROM stale WHERE model = ?1", [model.id])?;
        for &slot in &state.stale {
            self.run("INSERT INTO stale (model, slot) VALUES (?1, ?2)", params![model.id, slot as i64])?;
        }
        Ok(())
    }

    /// Makes all that was written in this view last.
    ///
    /// # Errors
    /// What SQLite answers; then nothing of it was written.
    pub fn commit(self) -> Result<(), Error> {
        let path = self.path;
        self.transaction.commit().map_err(|source| Error::sqlite(path, &source))
    }
}
