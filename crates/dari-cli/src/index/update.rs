//! Bringing the index up to date with a folder: only what changed is read, only what is new embedded.

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::{io, mem};

use rayon::prelude::*;

use super::commit::{Entry, Outcome};
use super::vectors::{self, VectorFile};
use super::view::{Hash, Known, Model, PROGRAM, State};
use super::walk::{self, Candidate, Stamp, Walk};
use super::{Error, Progress, Report, Store};

/// Rows that are committed together when nothing is embedded between them.
const ROWS: usize = 1000;

/// The model: answers for each path with a vector, `[dim]`, or with the reason why there is none.
pub(super) type Embed<'a> = dyn FnMut(&[PathBuf]) -> Vec<Result<Vec<f32>, String>> + 'a;

/// Pictures of one content that waits to be embedded.
#[derive(Debug)]
struct Group {
    hash: Hash,
    members: Vec<(Candidate, bool)>,
}

/// One update on its way.
struct Update<'a> {
    store: &'a mut Store,
    model: Model,
    known: HashMap<Vec<u8>, Known>,
    /// How many pictures of a content are gone: the first new ones of it were moved.
    gone: HashMap<Hash, usize>,
    entries: Vec<Entry>,
    groups: VecDeque<Group>,
    report: Report,
}

impl Store {
    /// Brings the index up to date with `folder`.
    ///
    /// `embed` gets at most `batch` paths and answers for each with a vector, `[dim]`, or with the
    /// reason why there is none; the reason is kept and told again until the picture changes.
    /// Each batch is committed when `embed` returns. `stop` ends the update after the batch in
    /// flight; reasons given once it is set are not kept.
    ///
    /// # Errors
    /// [`Error::Folder`] where `folder` cannot be read, [`Error::Full`] on a full disk,
    /// [`Error::Busy`] when another process writes for too long, else what the system answers. What
    /// was committed before stays.
    pub fn update(
        &mut self,
        folder: &Path,
        embed: &mut Embed<'_>,
        batch: usize,
        progress: &mut dyn FnMut(Progress),
        stop: &AtomicBool,
    ) -> Result<Report, Error> {
        let unusable = |found: String| Error::Folder { path: folder.to_path_buf(), found };
        let root = std::fs::canonicalize(folder).map_err(|error| unusable(error.to_string()))?;
        std::fs::read_dir(&root).map_err(|error| unusable(error.to_string()))?;
        let range = walk::range_below(&root).ok_or_else(|| unusable("its name is not Unicode".to_owned()))?;
        let look = &mut |found| progress(Progress::Looking { found });
        let walk = walk::find(&root, look, stop);
        if !root.is_dir() {
            return Err(unusable("it vanished".to_owned()));
        }
        let (model, rebuilt) = self.prepare()?;
        let report = Report {
            folder: root,
            seen: walk.pictures.len(),
            failed: walk.failed.clone(),
            rebuilt,
            stopped: walk.stopped,
            ..Report::default()
        };
        if walk.stopped {
            return Ok(report);
        }
        let known = self.database.read()?.known(model, &range)?;
        let mut update = Update {
            store: self,
            model,
            known,
            gone: HashMap::new(),
            entries: Vec::new(),
            groups: VecDeque::new(),
            report,
        };
        update.forget(&walk)?;
        let work = update.sort(walk.pictures)?;
        update.work(work, embed, batch.max(1), progress, stop)?;
        update.finish(stop)
    }
}

impl Update<'_> {
    /// Forgets the pictures that are not there any more.
    fn forget(&mut self, walk: &Walk) -> Result<(), Error> {
        let there: HashSet<&[u8]> = walk.pictures.iter().map(|p| p.key.as_slice()).collect();
        let separator = u8::try_from(std::path::MAIN_SEPARATOR).unwrap_or(b'/');
        let unknown = |key: &[u8]| {
            walk.unknown.iter().any(|closed| {
                key.strip_prefix(closed.as_slice())
                    .is_some_and(|rest| rest.is_empty() || rest.first() == Some(&separator))
            })
        };
        let gone: Vec<Vec<u8>> = self
            .known
            .keys()
            .filter(|key| !there.contains(key.as_slice()) && !unknown(key))
            .cloned()
            .collect();
        self.report.removed = gone.len();
        if gone.is_empty() {
            return Ok(());
        }
        let view = self.store.database.write()?;
        for key in &gone {
            view.remove(self.model, key)?;
        }
        view.commit()?;
        for key in gone {
            if let Some(known) = self.known.remove(&key) {
                *self.gone.entry(known.hash).or_default() += 1;
            }
        }
        Ok(())
    }

    /// Tells the pictures that stayed the same, and returns the others.
    fn sort(&mut self, pictures: Vec<Candidate>) -> Result<Vec<Candidate>, Error> {
        let file = self.store.vectors.as_ref();
        let map = file.map(VectorFile::map).transpose()?;
        let sound = |slot: usize, sum: i64| {
            let bytes = map.as_ref().and_then(|map| map.slot(slot));
            bytes.is_some_and(|bytes| vectors::sum(bytes) == sum)
        };
        // Reading all check sums costs less than looking at the files did.
        let damaged: HashSet<Vec<u8>> = self
            .known
            .par_iter()
            .filter(|(_, known)| match known.state {
                State::Embedded { slot, sum } => !sound(slot, sum),
                State::Failed { .. } => false,
                State::Lost => true,
            })
            .map(|(key, _)| key.clone())
            .collect();
        for key in damaged {
            if let Some(known) = self.known.get_mut(&key) {
                known.state = State::Lost;
            }
        }
        let mut work = Vec::new();
        for picture in pictures {
            match self.known.get(&picture.key) {
                Some(known) if known.stamp == picture.stamp && known.stamp.is_proof(known.seen) => {
                    match &known.state {
                        State::Embedded { .. } => self.report.unchanged += 1,
                        State::Failed { error, program } if program == PROGRAM => {
                            self.report.failed.push((picture.path(), error.clone()));
                        }
                        _ => work.push(picture),
                    }
                }
                _ => work.push(picture),
            }
        }
        Ok(work)
    }

    /// Reads, embeds and commits what is new.
    fn work(
        &mut self,
        work: Vec<Candidate>,
        embed: &mut Embed<'_>,
        batch: usize,
        progress: &mut dyn FnMut(Progress),
        stop: &AtomicBool,
    ) -> Result<(), Error> {
        let total = work.len();
        let mut rest = work.into_iter();
        loop {
            let waiting: usize = self.groups.iter().map(|group| group.members.len()).sum();
            progress(Progress::Indexing {
                done: total.saturating_sub(rest.len() + waiting + self.entries.len()),
                total,
                embedded: self.report.embedded,
            });
            let done = rest.len() == 0 && self.groups.is_empty();
            if stop.load(Ordering::Relaxed) {
                self.report.stopped |= !done;
                break;
            }
            if done {
                self.commit()?;
                // Vectors that another process freed meanwhile have to be made again.
                if self.groups.is_empty() {
                    break;
                }
                continue;
            }
            if self.groups.len() >= batch || rest.len() == 0 {
                self.embed(embed, batch, stop)?;
                self.commit()?;
                continue;
            }
            let chunk: Vec<Candidate> = rest.by_ref().take(batch.min(ROWS)).collect();
            let hashes: Vec<io::Result<Option<Hash>>> =
                chunk.par_iter().map(|picture| walk::hash(&picture.path(), stop)).collect();
            for (picture, hash) in chunk.into_iter().zip(hashes) {
                self.meet(picture, hash)?;
            }
            if self.entries.len() >= ROWS {
                self.commit()?;
            }
        }
        self.commit()
    }

    /// Decides what is to be done with a picture whose content was read.
    fn meet(&mut self, picture: Candidate, hash: io::Result<Option<Hash>>) -> Result<(), Error> {
        let known = self.known.get(&picture.key);
        let hash = match hash {
            Ok(Some(hash)) => hash,
            Ok(None) => {
                self.report.stopped = true;
                return Ok(());
            }
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    let reason = error.to_string();
                    self.report.failed.push((picture.path(), reason));
                }
                if known.is_some() {
                    self.enter(picture, [0; 32], Outcome::Outdated);
                }
                return Ok(());
            }
        };
        let mut damaged = false;
        if let Some(known) = known.filter(|known| known.hash == hash) {
            match &known.state {
                State::Embedded { .. } => {
                    self.enter(picture, hash, Outcome::Same);
                    return Ok(());
                }
                State::Failed { error, program } if known.stamp == picture.stamp && program == PROGRAM => {
                    let outcome = Outcome::Failed(error.clone());
                    self.enter(picture, hash, outcome);
                    return Ok(());
                }
                State::Failed { .. } => {}
                State::Lost => damaged = true,
            }
        }
        if let Some(group) = self.groups.iter_mut().find(|group| group.hash == hash) {
            group.members.push((picture, damaged));
            return Ok(());
        }
        let vector = self.store.database.read()?.vector(self.model, &hash)?;
        let stands = match (vector, &self.store.vectors) {
            (Some((slot, sum)), Some(file)) => file.read(slot)?.is_some_and(|b| vectors::sum(&b) == sum),
            _ => false,
        };
        if stands {
            self.enter(picture, hash, Outcome::Known);
        } else {
            self.groups.push_back(Group { hash, members: vec![(picture, damaged)] });
        }
        Ok(())
    }

    fn enter(&mut self, candidate: Candidate, hash: Hash, outcome: Outcome) {
        self.entries.push(Entry { candidate, hash, outcome, damaged: false });
    }

    /// Embeds the first `batch` groups that wait.
    fn embed(&mut self, embed: &mut Embed<'_>, batch: usize, stop: &AtomicBool) -> Result<(), Error> {
        let count = batch.min(self.groups.len());
        let groups: Vec<Group> = self.groups.drain(..count).collect();
        let paths: Vec<PathBuf> = groups
            .iter()
            .filter_map(|group| group.members.first())
            .map(|(picture, _)| picture.path())
            .collect();
        if paths.is_empty() {
            return Ok(());
        }
        let results = embed(&paths);
        if results.len() != paths.len() {
            return Err(Error::Embedding {
                found: format!("{} answers", results.len()),
                expected: paths.len(),
            });
        }
        let stopped = stop.load(Ordering::Relaxed);
        for (group, result) in groups.into_iter().zip(results) {
            let outcome = self.judge(result, paths.len())?;
            if stopped && matches!(outcome, Outcome::Failed(_)) {
                self.report.stopped = true;
                continue;
            }
            self.spread(group, outcome);
        }
        Ok(())
    }

    /// Checks what the model gave for one picture of a batch of `size`.
    fn judge(&self, result: Result<Vec<f32>, String>, size: usize) -> Result<Outcome, Error> {
        let vector = match result {
            Ok(vector) => vector,
            Err(reason) => return Ok(Outcome::Failed(reason)),
        };
        if vector.len() != self.store.dim as usize {
            return Err(Error::Embedding {
                found: format!("a vector of {} numbers where the index has {}", vector.len(), self.store.dim),
                expected: size,
            });
        }
        Ok(match super::normalise(&vector) {
            Some(unit) => {
                let bytes: Vec<u8> = unit.iter().flat_map(|x| x.to_le_bytes()).collect();
                Outcome::Vector(bytes.into(), true)
            }
            None => Outcome::Failed("the model gave no finite vector for it".to_owned()),
        })
    }

    /// Gives all pictures of one content what became of the first, which was the one embedded.
    fn spread(&mut self, group: Group, mut outcome: Outcome) {
        let hash = group.hash;
        let mut members = group.members.into_iter();
        let mut first = true;
        while let Some((candidate, damaged)) = members.next() {
            if self.stayed(&candidate) {
                self.entries.push(Entry { candidate, hash, outcome: outcome.clone(), damaged });
            } else if first {
                // What was embedded may be another content than the one that the others have.
                let members: Vec<_> = members.collect();
                if !members.is_empty() {
                    self.groups.push_back(Group { hash, members });
                }
                return;
            }
            if let Outcome::Vector(_, embedded) = &mut outcome {
                *embedded = false;
            }
            first = false;
        }
    }

    /// Whether a picture is still the file that was hashed; if not, says so and outdates its row.
    fn stayed(&mut self, picture: &Candidate) -> bool {
        let reason = match Stamp::read(&picture.path()) {
            Ok(stamp) if stamp == picture.stamp => return true,
            Ok(_) => Some("it changed while it was read: index again".to_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => Some(error.to_string()),
        };
        if let Some(reason) = reason {
            self.report.failed.push((picture.path(), reason));
        }
        if self.known.contains_key(&picture.key) {
            self.enter(picture.clone(), [0; 32], Outcome::Outdated);
        }
        false
    }

    /// Commits all entries, then counts them.
    fn commit(&mut self) -> Result<(), Error> {
        if self.entries.is_empty() {
            return Ok(());
        }
        let entries = mem::take(&mut self.entries);
        let lost: HashSet<usize> = self.store.commit(self.model, &entries)?.into_iter().collect();
        for (index, entry) in entries.into_iter().enumerate() {
            if lost.contains(&index) {
                self.groups.push_back(Group { hash: entry.hash, members: vec![(entry.candidate, false)] });
                continue;
            }
            self.count(entry);
        }
        Ok(())
    }

    fn count(&mut self, entry: Entry) {
        let report = &mut self.report;
        match entry.outcome {
            Outcome::Outdated => {}
            Outcome::Same => report.unchanged += 1,
            Outcome::Failed(reason) => report.failed.push((entry.candidate.path(), reason)),
            Outcome::Vector(_, true) => {
                report.embedded += 1;
                report.repaired += usize::from(entry.damaged);
            }
            Outcome::Vector(_, false) | Outcome::Known => match self.gone.get_mut(&entry.hash) {
                Some(left) if *left > 0 => {
                    *left -= 1;
                    report.moved += 1;
                    report.removed = report.removed.saturating_sub(1);
                }
                _ => report.copied += 1,
            },
        }
    }

    /// Frees slots that have long been of no use, brings the codes up to date, and hands over the
    /// report.
    fn finish(mut self, stop: &AtomicBool) -> Result<Report, Error> {
        // A folder found empty may be a disk that is not mounted: its vectors are kept.
        if !self.report.stopped && self.report.seen > 0 {
            let view = self.store.database.write()?;
            view.free_spare(self.model, self.store.spare)?;
            view.commit()?;
        }
        self.store.code(self.model, self.report.seen, stop);
        self.report.failed.sort();
        Ok(self.report)
    }
}
