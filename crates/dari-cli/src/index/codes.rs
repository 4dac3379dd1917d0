//! The file of codes: what lets a search of many vectors read a quarter of their bytes.
//!
//! Everything in it follows from the file of vectors, so it is made anew whenever anything about it
//! is in doubt, and nothing is told. The database says how many slots have codes, and which of them
//! got another vector since (its triggers do, whichever version of the program writes); both change
//! in the transaction that follows the flush of the codes. So an end at any moment leaves either
//! codes that hold or a nonce that does not.
//!
//! A header of one page, then blocks of [`BLOCK`] slots: a page with the block's check sum, the
//! slots' scales and errors as little-endian f32, and their codes, `[slots, dim]` i8. The bytes of
//! a slot that counts are never written again while it counts, so a search may read them while
//! others are written. The file is never shortened, only replaced by rename.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use dari_kernels::scan::{self, Codes, Piece};
use memmap2::{Mmap, MmapOptions};
use rayon::prelude::*;

use super::vectors::{Identity, Vectors};

const MAGIC: [u8; 8] = *b"DARICOD\0";
const VERSION: u32 = 1;
/// Bytes of the header, and of what stands before each block.
const PAGE: usize = 4096;
/// Slots in a block.
pub(super) const BLOCK: usize = if cfg!(test) { 8 } else { 4096 };
/// The widest vectors that get codes: beyond it a block would be very large.
pub(super) const WIDEST: u32 = 1 << 14;
/// Bytes of a scale or an error.
const NUMBER: usize = size_of::<f32>();

/// What the database says of a model's codes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct State {
    /// What the header must say; drawn anew whenever the file changes.
    pub nonce: [u8; 16],
    /// Slots that have codes, from the first on.
    pub slots: usize,
    /// Those of them whose codes do not hold any more, in order.
    pub stale: Vec<usize>,
}

/// An open file of codes.
#[derive(Debug)]
pub(super) struct CodeFile {
    file: File,
    identity: Identity,
}

fn header(identity: &Identity, nonce: [u8; 16]) -> Vec<u8> {
    let parts: [&[u8]; 6] = [
        &MAGIC,
        &VERSION.to_le_bytes(),
        &identity.dim.to_le_bytes(),
        &identity.model,
        &identity.nonce,
        &nonce,
    ];
    parts.concat()
}

/// Where the parts of a block lie in it.
#[derive(Debug, Clone, Copy)]
struct Layout {
    dim: usize,
}

impl Layout {
    fn scales(slots: &Range<usize>) -> Range<usize> {
        PAGE + slots.start * NUMBER..PAGE + slots.end * NUMBER
    }

    fn errors(slots: &Range<usize>) -> Range<usize> {
        let range = Layout::scales(slots);
        range.start + BLOCK * NUMBER..range.end + BLOCK * NUMBER
    }

    fn codes(self, slots: &Range<usize>) -> Range<usize> {
        let before = PAGE + 2 * BLOCK * NUMBER;
        before + slots.start * self.dim..before + slots.end * self.dim
    }

    /// Bytes of a block.
    fn block(self) -> usize {
        PAGE + 2 * BLOCK * NUMBER + BLOCK * self.dim
    }

    /// Bytes of a file with codes for this many slots.
    fn file(self, slots: usize) -> usize {
        slots.div_ceil(BLOCK).saturating_mul(self.block()).saturating_add(PAGE)
    }
}

/// The check sum of a block.
fn sum(block: &[u8]) -> [u8; 32] {
    *blake3::hash(block.get(PAGE..).unwrap_or_default()).as_bytes()
}

impl CodeFile {
    /// Makes an empty file at `path`, in place of whatever lies there.
    ///
    /// # Errors
    /// What the system answers.
    pub fn create(path: &Path, identity: &Identity, nonce: [u8; 16]) -> io::Result<CodeFile> {
        let mut name = path.as_os_str().to_owned();
        name.push(".new");
        let new = PathBuf::from(name);
        let make = || -> io::Result<File> {
            let mut file =
                OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&new)?;
            file.write_all(&header(identity, nonce))?;
            file.set_len(PAGE as u64)?;
            file.sync_all()?;
            std::fs::rename(&new, path)?;
            Ok(file)
        };
        match make() {
            Ok(file) => Ok(CodeFile { file, identity: identity.clone() }),
            Err(source) => {
                // Only tidies up; the first error is the one to tell.
                let _ = std::fs::remove_file(&new);
                Err(source)
            }
        }
    }

    /// Opens the file at `path`; nothing unless it is the one that `identity` and `state` describe.
    pub fn open(path: &Path, identity: &Identity, state: &State, write: bool) -> Option<CodeFile> {
        let mut file = OpenOptions::new().read(true).write(write).open(path).ok()?;
        let kind = file.metadata().ok()?;
        let expected = header(identity, state.nonce);
        let mut found = vec![0; expected.len()];
        let sound = kind.is_file() && file.read_exact(&mut found).is_ok() && found == expected;
        let whole = usize::try_from(kind.len()).unwrap_or(usize::MAX);
        let layout = Layout { dim: identity.dim as usize };
        (sound && layout.file(state.slots) <= whole).then(|| CodeFile { file, identity: identity.clone() })
    }

    fn layout(&self) -> Layout {
        Layout { dim: self.identity.dim as usize }
    }

    fn write_at(&self, offset: usize, bytes: &[u8]) -> io::Result<()> {
        let mut file = &self.file;
        file.seek(SeekFrom::Start(offset as u64))?;
        file.write_all(bytes)
    }

    /// Maps the codes of all slots that `state` counts; nothing where that cannot be done.
    pub fn map(&self, state: &State) -> Option<CodeMap> {
        let length = self.layout().file(state.slots);
        // SAFETY: the mapping is read-only and lies within the file, as `open` checked, which dari
        // never shortens: it only grows, or is replaced by rename, which leaves this mapping alone.
        // What a writer may be filling belongs to slots that do not count, so it is not read.
        let map = unsafe { MmapOptions::new().len(length).map(&self.file) }.ok()?;
        Some(CodeMap { map, layout: self.layout(), state: state.clone() })
    }

    /// Makes codes for the slots of one block that are named, all within it and in order, and
    /// writes them with the block's new check sum.
    ///
    /// # Errors
    /// What the system answers.
    pub fn write(&self, block: usize, slots: &[Range<usize>], vectors: &Vectors) -> io::Result<()> {
        let layout = self.layout();
        let start = PAGE + block * layout.block();
        let end = (start + layout.block()) as u64;
        if self.file.metadata()?.len() < end {
            self.file.set_len(end)?;
        }
        let mut bytes = vec![0; layout.block()];
        let mut file = &self.file;
        file.seek(SeekFrom::Start(start as u64))?;
        file.read_exact(&mut bytes)?;
        let mut put = |range: Range<usize>, new: &[u8]| -> io::Result<()> {
            if let Some(old) = bytes.get_mut(range.clone()) {
                old.copy_from_slice(new);
            }
            self.write_at(start + range.start, new)
        };
        for slots in slots {
            let stride = layout.dim * NUMBER;
            let vectors = vectors.bytes().get(slots.start * stride..slots.end * stride);
            let vectors = vectors.ok_or(io::ErrorKind::UnexpectedEof)?;
            let count = slots.len();
            let (mut codes, mut scales, mut errors) =
                (vec![0; count * layout.dim], vec![0.0; count], vec![0.0; count]);
            scan::quantise(vectors, layout.dim, &mut codes, &mut scales, &mut errors);
            let within = slots.start - block * BLOCK..slots.end - block * BLOCK;
            let little =
                |numbers: &[f32]| -> Vec<u8> { numbers.iter().flat_map(|x| x.to_le_bytes()).collect() };
            put(layout.codes(&within), scan::as_bytes(&codes))?;
            put(Layout::scales(&within), &little(&scales))?;
            put(Layout::errors(&within), &little(&errors))?;
        }
        self.write_at(start, &sum(&bytes))
    }

    /// Gives the file its new nonce, and waits until all that was written lies on the disk.
    ///
    /// # Errors
    /// What the system answers.
    pub fn seal(&self, nonce: [u8; 16]) -> io::Result<()> {
        self.write_at(0, &header(&self.identity, nonce))?;
        self.file.sync_data()
    }
}

/// The codes of a model, mapped.
#[derive(Debug)]
pub(super) struct CodeMap {
    map: Mmap,
    layout: Layout,
    state: State,
}

impl CodeMap {
    fn block(&self, block: usize) -> Option<&[u8]> {
        let start = PAGE + block * self.layout.block();
        self.map.get(start..start + self.layout.block())
    }

    /// Whether every block has its check sum.
    pub fn is_sound(&self) -> bool {
        let blocks = self.state.slots.div_ceil(BLOCK);
        (0..blocks).into_par_iter().all(|block| {
            self.block(block).is_some_and(|block| block.get(..32) == Some(sum(block).as_slice()))
        })
    }

    /// The codes that hold, in the order of their slots.
    pub fn pieces(&self) -> Vec<Piece<'_>> {
        let mut pieces = Vec::new();
        let mut add = |slots: Range<usize>| {
            let first = slots.start;
            let block = first / BLOCK;
            let within = first % BLOCK..first % BLOCK + slots.len();
            let bytes = self.block(block)?;
            let codes = Codes {
                codes: scan::as_codes(bytes.get(self.layout.codes(&within))?),
                scales: scan::as_numbers(bytes.get(Layout::scales(&within))?)?,
                errors: scan::as_numbers(bytes.get(Layout::errors(&within))?)?,
                dim: self.layout.dim,
            };
            pieces.push(Piece { first, codes });
            Some(())
        };
        let mut done = 0;
        let slots = self.state.slots;
        let stale = self.state.stale.iter().copied().filter(|&slot| slot < slots);
        for stop in stale.chain([slots]) {
            // From `done` to `stop`, block by block.
            while done < stop {
                let end = stop.min((done / BLOCK + 1) * BLOCK);
                // What cannot be seen as numbers is scored as it is.
                let _ = add(done..end);
                done = end;
            }
            done = done.max(stop + 1);
        }
        pieces
    }
}
