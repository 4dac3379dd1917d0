//! The file of vectors: a header of 64 bytes, then `[slots, dim]` little-endian f32.
//!
//! A slot means something only while a row of the database names it. The file grows by plain
//! writes, so a full disk is an error and not a signal; it is mapped for reading, and only as far
//! as whole slots reach. It is never shortened, only replaced by rename.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use memmap2::{Mmap, MmapOptions};

use super::Error;

const MAGIC: [u8; 8] = *b"DARIVEC\0";
const VERSION: u32 = 1;
const HEADER: usize = 64;

/// What the header of a file must say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    /// Numbers in a vector.
    pub dim: u32,
    /// Digest of the model's fingerprint.
    pub model: [u8; 32],
    /// Drawn when the file was made; the database names it, so that an older copy is not mistaken.
    pub nonce: [u8; 16],
}

impl Identity {
    fn header(&self) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        let parts: [&[u8]; 5] =
            [&MAGIC, &VERSION.to_le_bytes(), &self.dim.to_le_bytes(), &self.model, &self.nonce];
        for (to, from) in header.iter_mut().zip(parts.into_iter().flatten()) {
            *to = *from;
        }
        header
    }

    /// Bytes of one slot.
    fn stride(&self) -> usize {
        (self.dim as usize).saturating_mul(size_of::<f32>())
    }
}

/// An open file of vectors whose header was checked.
#[derive(Debug)]
pub(super) struct VectorFile {
    path: PathBuf,
    file: File,
    identity: Identity,
}

impl VectorFile {
    /// Makes an empty file at `path`, in place of whatever lies there.
    ///
    /// # Errors
    /// What the system answers; a full disk is [`Error::Full`].
    pub fn create(path: &Path, identity: Identity) -> Result<VectorFile, Error> {
        let mut name = path.as_os_str().to_owned();
        name.push(".new");
        let new = PathBuf::from(name);
        let make = || -> io::Result<File> {
            let mut file =
                OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&new)?;
            file.write_all(&identity.header())?;
            file.sync_all()?;
            std::fs::rename(&new, path)?;
            // The name itself must outlast a power cut; folders cannot be synced everywhere.
            #[cfg(unix)]
            if let Some(folder) = path.parent() {
                File::open(folder)?.sync_all()?;
            }
            Ok(file)
        };
        match make() {
            Ok(file) => Ok(VectorFile { path: path.to_path_buf(), file, identity }),
            Err(source) => {
                // Only tidies up; the first error is the one to tell.
                let _ = std::fs::remove_file(&new);
                Err(Error::io("make", path, source))
            }
        }
    }

    /// Opens the file at `path`, which must be the one that `identity` describes.
    ///
    /// # Errors
    /// [`Error::Vectors`] for a missing, foreign or damaged file, else what the system answers.
    pub fn open(path: &Path, identity: &Identity, write: bool) -> Result<VectorFile, Error> {
        let damaged = |found: String| Error::Vectors { path: path.to_path_buf(), found };
        let mut file = match OpenOptions::new().read(true).write(write).open(path) {
            Ok(file) => file,
            Err(source) if source.kind() == io::ErrorKind::NotFound => {
                return Err(damaged("the file is missing".to_owned()));
            }
            Err(source) => return Err(Error::io("open", path, source)),
        };
        let kind = file.metadata().map_err(|source| Error::io("open", path, source))?;
        if !kind.is_file() {
            return Err(damaged("it is not a regular file".to_owned()));
        }
        let mut header = [0; HEADER];
        match file.read_exact(&mut header) {
            Ok(()) => {}
            Err(source) if source.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(damaged(format!("{} bytes, its header alone has {HEADER}", kind.len())));
            }
            Err(source) => return Err(Error::io("read", path, source)),
        }
        let expected = identity.header();
        // What each range of the header says, in the order in which a difference tells most.
        let parts = [
            (0..8, "it is not a dari vector file"),
            (8..12, "its format version is not the one of this dari"),
            (12..16, "its vectors have another width"),
            (16..48, "it belongs to another model"),
            (48..64, "it is not the copy that the database was written with"),
        ];
        for (range, found) in parts {
            if header.get(range.clone()) != expected.get(range) {
                return Err(damaged(found.to_owned()));
            }
        }
        Ok(VectorFile { path: path.to_path_buf(), file, identity: identity.clone() })
    }

    /// Whether this is the file that `identity` describes.
    pub fn is(&self, identity: &Identity) -> bool {
        self.identity == *identity
    }

    fn offset(&self, slot: usize) -> Option<u64> {
        let start = slot.checked_mul(self.identity.stride())?.checked_add(HEADER)?;
        u64::try_from(start).ok()
    }

    /// Writes one vector; [`VectorFile::flush`] makes it durable.
    ///
    /// # Errors
    /// What the system answers; a full disk is [`Error::Full`].
    pub fn write(&self, slot: usize, vector: &[u8]) -> Result<(), Error> {
        let write = || -> io::Result<()> {
            let offset = self
                .offset(slot)
                .filter(|_| vector.len() == self.identity.stride())
                .ok_or(io::ErrorKind::InvalidInput)?;
            let mut file = &self.file;
            file.seek(SeekFrom::Start(offset))?;
            file.write_all(vector)
        };
        write().map_err(|source| Error::io("write", &self.path, source))
    }

    /// Waits until all that was written lies on the disk.
    ///
    /// # Errors
    /// What the system answers; a full disk is [`Error::Full`].
    pub fn flush(&self) -> Result<(), Error> {
        self.file.sync_data().map_err(|source| Error::io("write", &self.path, source))
    }

    /// The bytes of one slot, or nothing where the file ends before it.
    ///
    /// # Errors
    /// What the system answers.
    pub fn read(&self, slot: usize) -> Result<Option<Vec<u8>>, Error> {
        let Some(offset) = self.offset(slot) else {
            return Ok(None);
        };
        let mut bytes = vec![0; self.identity.stride()];
        let mut file = &self.file;
        let read = file.seek(SeekFrom::Start(offset)).and_then(|_| file.read_exact(&mut bytes));
        match read {
            Ok(()) => Ok(Some(bytes)),
            Err(source) if source.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(source) => Err(Error::io("read", &self.path, source)),
        }
    }

    /// Maps all whole slots for reading.
    ///
    /// # Errors
    /// What the system answers.
    pub fn map(&self) -> Result<Vectors, Error> {
        let fail = |source| Error::io("map", &self.path, source);
        let length = self.file.metadata().map_err(fail)?.len();
        let stride = self.identity.stride().max(1);
        let slots = usize::try_from(length).unwrap_or(usize::MAX).saturating_sub(HEADER) / stride;
        // Cannot overflow: it is at most the file's length.
        let bytes = HEADER + slots * stride;
        if (bytes as u64) > length {
            return Err(fail(io::ErrorKind::UnexpectedEof.into()));
        }
        // SAFETY: the mapping is read-only and lies within the file, which dari never shortens:
        // it is only appended to, or replaced by rename, which leaves this mapping alone. Slots
        // that a writer may be filling are named by no row yet, so they are not read.
        let map = unsafe { MmapOptions::new().len(bytes).map(&self.file) }.map_err(fail)?;
        Ok(Vectors { map, stride, slots })
    }
}

/// All vectors of a file, mapped.
#[derive(Debug)]
pub(super) struct Vectors {
    map: Mmap,
    stride: usize,
    slots: usize,
}

impl Vectors {
    /// The number of whole slots.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// All slots, `[slots, dim]` little-endian f32.
    pub fn bytes(&self) -> &[u8] {
        self.map.get(HEADER..).unwrap_or_default()
    }

    /// The bytes of one slot, or nothing where there is none.
    pub fn slot(&self, slot: usize) -> Option<&[u8]> {
        let start = slot.checked_mul(self.stride)?;
        self.bytes().get(start..start.checked_add(self.stride)?)
    }
}

/// The check sum of a vector's bytes that the database keeps: 8 bytes of BLAKE3.
pub(super) fn sum(vector: &[u8]) -> i64 {
    let hash = blake3::hash(vector);
    let mut first = [0; 8];
    for (to, from) in first.iter_mut().zip(hash.as_bytes()) {
        *to = *from;
    }
    i64::from_le_bytes(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity { dim: 3, model: [7; 32], nonce: [9; 16] }
    }

    #[test]
    fn reads_back_what_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("v.f32");
        let file = VectorFile::create(&path, identity()).unwrap();
        assert_eq!(file.map().unwrap().slots(), 0);
        file.write(2, &[5; 12]).unwrap();
        file.write(0, &[6; 12]).unwrap();
        file.flush().unwrap();
        let again = VectorFile::open(&path, &identity(), false).unwrap();
        let map = again.map().unwrap();
        assert_eq!(map.slots(), 3);
        assert_eq!(map.slot(2), Some(&[5; 12][..]));
        assert_eq!(map.slot(3), None);
        assert_eq!(map.slot(usize::MAX), None);
        assert_eq!(again.read(0).unwrap(), Some(vec![6; 12]));
        assert_eq!(again.read(3).unwrap(), None);
        assert_eq!(again.read(usize::MAX).unwrap(), None);
        assert!(file.write(1, &[0; 11]).is_err());
        assert!(file.write(usize::MAX, &[0; 12]).is_err());
        assert!(!path.with_extension("f32.new").exists());
    }

    #[test]
    fn tells_every_kind_of_wrong_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("v.f32");
        let found = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            match VectorFile::open(&path, &identity(), true) {
                Err(Error::Vectors { found, .. }) => found,
                other => panic!("{other:?}"),
            }
        };
        let good = identity().header();
        assert!(found(b"").contains("0 bytes"));
        assert!(found(&good[..63]).contains("63 bytes"));
        for (at, expected) in
            [(0, "not a dari vector file"), (8, "version"), (12, "width"), (20, "model"), (63, "copy")]
        {
            let mut bad = good;
            bad[at] ^= 1;
            assert!(found(&bad).contains(expected), "byte {at}");
        }
        std::fs::remove_file(&path).unwrap();
        let error = VectorFile::open(&path, &identity(), false).unwrap_err();
        assert!(error.to_string().contains("missing"));
        std::fs::create_dir(&path).unwrap();
        assert!(VectorFile::open(&path, &identity(), false).is_err());
        assert!(VectorFile::create(&path, identity()).is_err());
    }

    #[test]
    fn a_torn_slot_at_the_end_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("v.f32");
        let mut bytes = identity().header().to_vec();
        bytes.extend([1; 12 + 11]);
        std::fs::write(&path, &bytes).unwrap();
        let file = VectorFile::open(&path, &identity(), false).unwrap();
        let map = file.map().unwrap();
        assert_eq!(map.slots(), 1);
        assert_eq!(map.bytes().len(), 12);
        assert_eq!(file.read(1).unwrap(), None);
    }
}
