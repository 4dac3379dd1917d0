//! Writing one batch: the vectors, a flush, and only then the rows that name them.

use std::path::Path;
use std::rc::Rc;

use super::vectors::{self, VectorFile};
use super::view::{Hash, Known, Model, PROGRAM, State};
use super::walk::{self, Candidate};
use super::{Error, Step, Store};

/// What is to be written of a picture.
#[derive(Debug)]
pub(super) struct Entry {
    /// The picture.
    pub candidate: Candidate,
    /// Hash of its content.
    pub hash: Hash,
    /// What became of it.
    pub outcome: Outcome,
    /// Whether its vector was damaged.
    pub damaged: bool,
}

/// What became of a picture.
#[derive(Debug, Clone)]
pub(super) enum Outcome {
    /// Its content was as the database had it for this path.
    Same,
    /// Its content has a vector already.
    Known,
    /// Its new vector, and whether this very file was embedded rather than a copy of it.
    Vector(Rc<[u8]>, bool),
    /// It cannot be embedded.
    Failed(String),
    /// What the database has of this path does not hold any more.
    Outdated,
}

impl Store {
    /// Opens the model's file of vectors for writing; a missing or damaged one is made anew, and
    /// the reason returned.
    ///
    /// # Errors
    /// What the system or SQLite answers.
    pub(super) fn prepare(&mut self) -> Result<(Model, Option<String>), Error> {
        let path = self.vectors_path();
        let digest = *self.digest().as_bytes();
        let view = self.database.write()?;
        let mut rebuilt = None;
        if let Some(model) = view.model(&self.fingerprint, self.dim)? {
            let identity = vectors::Identity { dim: self.dim, model: digest, nonce: model.nonce };
            match VectorFile::open(&path, &identity, true) {
                Ok(file) => {
                    self.vectors = Some(file);
                    return Ok((model, None));
                }
                Err(Error::Vectors { found, .. }) => rebuilt = Some(found),
                Err(error) => return Err(error),
            }
        }
        let nonce = new_nonce(&path);
        let identity = vectors::Identity { dim: self.dim, model: digest, nonce };
        // The file first: should this end here, the next update finds the wrong nonce and begins anew.
        self.vectors = Some(VectorFile::create(&path, identity)?);
        let model = view.put_model(&self.fingerprint, self.dim, nonce)?;
        view.commit()?;
        Ok((model, rebuilt))
    }

    /// Writes vectors, flushes them, then commits the rows that name them.
    ///
    /// Entries whose vector has gone meanwhile are returned.
    ///
    /// # Errors
    /// What the system or SQLite answers; then nothing of it holds.
    pub(super) fn commit(&mut self, model: Model, entries: &[Entry]) -> Result<Vec<usize>, Error> {
        let path = self.vectors_path();
        let identity = self.identity(model);
        let view = self.database.write()?;
        if view.model(&self.fingerprint, self.dim)? != Some(model) {
            // Another process found the file damaged and began anew.
            return Err(Error::Vectors {
                path,
                found: "another dari has just made the file anew".to_owned(),
            });
        }
        let file = match &mut self.vectors {
            Some(file) if file.is(&identity) => file,
            vectors => vectors.insert(VectorFile::open(&path, &identity, true)?),
        };
        self.fault.at(Step::Begun, &path)?;
        let mut lost = Vec::new();
        let mut wrote = false;
        let mut rows: Vec<(&Candidate, Hash, State)> = Vec::with_capacity(entries.len());
        for (index, entry) in entries.iter().enumerate() {
            let hash = entry.hash;
            let mut vector = view.vector(model, &hash)?;
            if let Outcome::Vector(bytes, _) = &entry.outcome {
                let sum = vectors::sum(bytes);
                let stands = match vector {
                    // Another picture or another process brought it in before.
                    Some((slot, sum)) => file.read(slot)?.is_some_and(|b| vectors::sum(&b) == sum),
                    None => false,
                };
                if !stands {
                    let slot = match vector {
                        Some((slot, _)) => slot,
                        None => view.free_slot(model)?,
                    };
                    file.write(slot, bytes)?;
                    self.fault.at(Step::VectorWritten, &path)?;
                    view.put_vector(model, slot, &hash, sum)?;
                    vector = Some((slot, sum));
                    wrote = true;
                }
            }
            let state = match (&entry.outcome, vector) {
                (Outcome::Failed(error), _) => {
                    State::Failed { error: error.clone(), program: PROGRAM.to_owned() }
                }
                (Outcome::Outdated, _) => State::Lost,
                (_, Some((slot, sum))) => State::Embedded { slot, sum },
                (_, None) => {
                    lost.push(index);
                    continue;
                }
            };
            rows.push((&entry.candidate, hash, state));
        }
        if wrote {
            file.flush()?;
            self.fault.at(Step::VectorsFlushed, &path)?;
        }
        for (candidate, hash, state) in rows {
            let known = Known { stamp: candidate.stamp, seen: candidate.seen, hash, state };
            view.put_picture(model, &candidate.key, &known)?;
        }
        self.fault.at(Step::RowsWritten, &path)?;
        view.commit()?;
        self.fault.at(Step::Committed, &path)?;
        Ok(lost)
    }
}

/// A number that no earlier file had.
pub(super) fn new_nonce(path: &Path) -> [u8; 16] {
    let text = format!("{} {} {}", walk::now(), std::process::id(), path.display());
    let mut nonce = [0; 16];
    for (to, from) in nonce.iter_mut().zip(blake3::hash(text.as_bytes()).as_bytes()) {
        *to = *from;
    }
    nonce
}
