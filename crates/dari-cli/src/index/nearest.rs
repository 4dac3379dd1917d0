//! Searching a large index by its codes, and keeping them up to date.

use std::cmp;
use std::collections::HashMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use dari_kernels::scan;

use super::codes::{self, BLOCK, CodeFile, CodeMap};
use super::commit::new_nonce;
use super::scan as rows;
use super::vectors::{self, VectorFile, Vectors};
use super::view::{Model, View};
use super::walk::KeyRange;
use super::{Error, Step, Store};

/// Blocks that get their codes in one transaction: others wait no longer than that takes.
const STEP: usize = if cfg!(test) { 2 } else { 32 };
/// Pictures wanted from which on listing all of them costs no more than looking the found ones up.
const MANY: usize = 1000;
/// Vectors looked up beyond those wanted.
const SLACK: usize = if cfg!(test) { 1 } else { 16 };

/// The higher score first; zeros of either sign are one score. None is NaN.
fn higher(a: f32, b: f32) -> cmp::Ordering {
    b.partial_cmp(&a).unwrap_or(cmp::Ordering::Equal)
}

/// A picture found.
#[derive(Debug)]
pub(super) struct Near {
    /// Its score.
    pub score: f32,
    /// Its path as the database keeps it.
    pub key: Vec<u8>,
    /// The slot of its vector.
    pub slot: usize,
    /// The check sum of what lies there.
    pub sum: i64,
}

impl Near {
    fn new(score: f32, key: Vec<u8>, slot: usize, vectors: &Vectors) -> Near {
        Near { score, key, slot, sum: vectors::sum(vectors.slot(slot).unwrap_or_default()) }
    }
}

impl Store {
    pub(super) fn codes_path(&self) -> PathBuf {
        let mut name = self.digest().to_hex().to_string();
        name.truncate(16);
        self.folder.join(format!("codes-{name}.i8"))
    }

    /// The model's codes, where it has any that can be used.
    pub(super) fn codes(&self, view: &View<'_>, model: Model) -> Result<Option<CodeMap>, Error> {
        let Some(state) = view.codes(model)?.filter(|state| state.slots >= self.codes_from) else {
            return Ok(None);
        };
        let file = CodeFile::open(&self.codes_path(), &self.identity(model), &state, false);
        Ok(file.and_then(|file| file.map(&state)))
    }

    /// The model's vectors, of which the database names `last`.
    fn mapped(&self, model: Model, last: usize) -> Result<Vectors, Error> {
        let path = self.vectors_path();
        let vectors = VectorFile::open(&path, &self.identity(model), false)?.map()?;
        if last >= vectors.slots() {
            let found = format!("it has {} vectors, the database names vector {last}", vectors.slots());
            return Err(Error::Vectors { path, found });
        }
        Ok(vectors)
    }

    /// The `k` pictures nearest to `query` below a folder or of all, found in the list of them.
    pub(super) fn listed(
        &self,
        view: &View<'_>,
        model: Model,
        range: Option<&KeyRange>,
        query: &[f32],
        k: usize,
    ) -> Result<Vec<Near>, Error> {
        let listing = view.list(model, range)?;
        let Some(&last) = listing.slots.iter().max() else {
            return Ok(Vec::new());
        };
        let vectors = self.mapped(model, last)?;
        let near = |row: usize, score: f32| {
            let slot = listing.slots.get(row).copied().unwrap_or(usize::MAX);
            Near::new(score, listing.key(row).to_vec(), slot, &vectors)
        };
        // Few of many are quicker looked at one by one than left out of a scan of all.
        let most = listing.slots.len() >= self.codes_from && listing.slots.len() >= vectors.slots() / 4;
        let codes = if most { self.codes(view, model)? } else { None };
        let Some(codes) = codes else {
            let found = rows::best(vectors.bytes(), &listing.slots, query, k);
            return Ok(found.into_iter().map(|found| near(found.row, found.score)).collect());
        };
        // A slot counts by its first picture; the copies come in for those found.
        let mut first = vec![usize::MAX; last.saturating_add(1)];
        let mut copies: Vec<(usize, usize)> = Vec::new();
        for (row, &slot) in listing.slots.iter().enumerate() {
            match first.get_mut(slot) {
                Some(first) if *first == usize::MAX => *first = row,
                _ => copies.push((slot, row)),
            }
        }
        let bytes = vectors.bytes().get(..first.len().saturating_mul(size_of_val(query)));
        let id = |slot| first.get(slot).copied().filter(|&row| row != usize::MAX);
        let best = scan::best(bytes.unwrap_or_default(), &codes.pieces(), query, k, &id).found;
        let scores: HashMap<usize, f32> = best.iter().map(|found| (found.row, found.score)).collect();
        let copies = copies.iter().filter_map(|(slot, row)| Some((*row, *scores.get(slot)?)));
        let mut rows: Vec<(usize, f32)> = best.iter().map(|found| (found.id, found.score)).collect();
        rows.extend(copies);
        rows.sort_by(|a, b| higher(a.1, b.1).then(a.0.cmp(&b.0)));
        rows.truncate(k);
        Ok(rows.into_iter().map(|(row, score)| near(row, score)).collect())
    }

    /// The `k` pictures nearest to `query`, of all that the model has, without listing them all;
    /// nothing where there are no codes, or where so many are wanted, or equally near, that a list
    /// is the quicker way.
    pub(super) fn nearest(
        &self,
        view: &View<'_>,
        model: Model,
        query: &[f32],
        k: usize,
    ) -> Result<Option<Vec<Near>>, Error> {
        let Some(codes) = self.codes(view, model)? else {
            return Ok(None);
        };
        let Some(last) = view.last_slot(model)? else {
            return Ok(Some(Vec::new()));
        };
        let vectors = self.mapped(model, last)?;
        // What lies in a free slot, or behind the last, may be in a writer's hands.
        let mut used = vec![true; last.saturating_add(1)];
        for slot in view.slots(model)?.1 {
            if let Some(used) = used.get_mut(slot) {
                *used = false;
            }
        }
        let bytes = vectors.bytes().get(..used.len().saturating_mul(size_of_val(query))).unwrap_or_default();
        let id = |slot| used.get(slot).is_some_and(|&used| used).then_some(slot);
        let pieces = codes.pieces();
        // Some of those found may have no picture any more.
        let mut wanted = k.saturating_add(SLACK);
        while wanted <= MANY {
            let found = scan::best(bytes, &pieces, query, wanted, &id).found;
            let mut near: Vec<(f32, Vec<u8>, usize)> = Vec::new();
            for found in &found {
                let keys = view.keys(model, found.row)?;
                near.extend(keys.into_iter().map(|key| (found.score, key, found.row)));
            }
            // Others with the last score may have been left out, but none above it.
            let complete = match found.last() {
                Some(last) if found.len() == wanted => {
                    near.iter().filter(|near| near.0 > last.score).count() >= k
                }
                _ => true,
            };
            if complete {
                near.sort_by(|a, b| higher(a.0, b.0).then_with(|| a.1.cmp(&b.1)));
                near.truncate(k);
                let near = near.into_iter();
                return Ok(Some(
                    near.map(|(score, key, slot)| Near::new(score, key, slot, &vectors)).collect(),
                ));
            }
            wanted = wanted.saturating_mul(4);
        }
        Ok(None)
    }

    /// Brings the codes up to date, where there are so many vectors that they are worth it; after
    /// an update that looked at most of them (`seen`), checks those that were there as well.
    ///
    /// Whatever goes wrong, a search does without codes, or with as many as there are.
    pub(super) fn code(&mut self, model: Model, seen: usize, stop: &AtomicBool) {
        let mut seen = Some(seen);
        while !stop.load(Ordering::Relaxed) {
            match self.code_some(model, seen) {
                // What was written just now needs no check.
                Ok(true) => seen = None,
                Ok(false) | Err(_) => break,
            }
        }
    }

    /// Makes some of the codes that are missing; tells whether more are.
    fn code_some(&mut self, model: Model, seen: Option<usize>) -> Result<bool, Error> {
        let path = self.codes_path();
        let fail = |source| Error::io("write", &path, source);
        let identity = self.identity(model);
        let vectors_path = self.vectors_path();
        let view = self.database.write()?;
        if view.model(&self.fingerprint, self.dim)? != Some(model) || self.dim > codes::WIDEST {
            return Ok(false);
        }
        let vectors = VectorFile::open(&vectors_path, &identity, false)?.map()?;
        let slots = view.slots(model)?.0.min(vectors.slots());
        if slots < self.codes_from {
            return Ok(false);
        }
        let nonce = new_nonce(&path);
        let mut old = None;
        if let Some(state) = view.codes(model)?
            && let Some(file) = CodeFile::open(&path, &identity, &state, true)
            && (seen.is_none_or(|seen| seen < slots / 4)
                || file.map(&state).is_some_and(|map| map.is_sound()))
        {
            old = Some((file, state));
        }
        let (file, state) = match old {
            Some(old) => old,
            None => {
                let file = CodeFile::create(&path, &identity, nonce).map_err(fail)?;
                (file, codes::State { nonce, slots: 0, stale: Vec::new() })
            }
        };
        let mut work = runs(&state.stale, state.slots..slots);
        if work.is_empty() {
            return Ok(false);
        }
        let later = work.split_off(STEP.min(work.len()));
        for (block, slots) in &work {
            file.write(*block, slots, &vectors).map_err(fail)?;
        }
        file.seal(nonce).map_err(fail)?;
        self.fault.at(Step::CodesSealed, &path)?;
        // Blocks come in order, so whatever is left either lies behind or was covered before.
        let done = work.last().and_then(|(_, slots)| slots.last()).map_or(0, |slots| slots.end);
        let stale = later.iter().flat_map(|(_, slots)| slots.iter().cloned().flatten());
        let slots = state.slots.max(done);
        let stale = stale.filter(|&slot| slot < slots).collect();
        view.put_codes(model, &codes::State { nonce, slots, stale })?;
        view.commit()?;
        Ok(!later.is_empty())
    }
}

/// Slots to be coded, in order, by their blocks.
fn runs(stale: &[usize], new: Range<usize>) -> Vec<(usize, Vec<Range<usize>>)> {
    let mut blocks: Vec<(usize, Vec<Range<usize>>)> = Vec::new();
    for slot in stale.iter().copied().filter(|&slot| slot < new.start).chain(new.clone()) {
        let (block, run) = (slot / BLOCK, slot..slot + 1);
        match blocks.last_mut() {
            Some((last, runs)) if *last == block => match runs.last_mut() {
                Some(last) if last.end == slot => last.end = run.end,
                _ => runs.push(run),
            },
            _ => blocks.push((block, Vec::from([run]))),
        }
    }
    blocks
}
