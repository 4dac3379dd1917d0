//! Which files of a folder are pictures, and what can be told of a file without decoding it.

use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use walkdir::{DirEntry, WalkDir};

/// Endings of the names of pictures, without regard to case.
const EXTENSIONS: [&str; 10] = ["jpg", "jpeg", "jfif", "png", "apng", "webp", "gif", "bmp", "tif", "tiff"];
/// A file changed this shortly before it was looked at (ns) may change again without a new time:
/// the coarsest common file system counts in steps of two seconds.
const COARSE: i64 = 2_000_000_000;

/// Size and time of a file, by which a change is told without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    /// Bytes.
    pub size: i64,
    /// Time of the last change, ns since 1970.
    pub mtime: i64,
}

impl Stamp {
    fn of(metadata: &Metadata) -> Stamp {
        Stamp {
            size: i64::try_from(metadata.len()).unwrap_or(i64::MAX),
            mtime: metadata.modified().map_or(0, nanoseconds),
        }
    }

    /// Reads the stamp of the file at `path`.
    ///
    /// # Errors
    /// What the system answers.
    pub fn read(path: &Path) -> io::Result<Stamp> {
        std::fs::metadata(path).map(|metadata| Stamp::of(&metadata))
    }

    /// Whether an equal stamp later on proves that the file, looked at at `seen`, has not changed.
    pub fn is_proof(self, seen: i64) -> bool {
        // A time in the future comes from a wrong clock, not from a change just now.
        self.mtime.saturating_add(COARSE) < seen || self.mtime > seen.saturating_add(COARSE)
    }
}

/// A time as ns since 1970.
fn nanoseconds(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_nanos()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |before| -before),
    }
}

/// The time now, ns since 1970.
pub(super) fn now() -> i64 {
    nanoseconds(SystemTime::now())
}

/// A picture that the walk met.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    /// Its path as the database keeps it.
    pub key: Vec<u8>,
    /// Size and time.
    pub stamp: Stamp,
    /// When the stamp was taken, ns since 1970.
    pub seen: i64,
}

impl Candidate {
    /// Its path.
    pub fn path(&self) -> PathBuf {
        path_of(&self.key)
    }
}

/// What lies in a folder.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// All pictures, sorted by key.
    pub pictures: Vec<Candidate>,
    /// Folders and pictures that could not be looked at, and why.
    pub failed: Vec<(PathBuf, String)>,
    /// Keys whose contents, or what lies below them, stay unknown.
    pub unknown: Vec<Vec<u8>>,
    /// Whether the walk was ended early.
    pub stopped: bool,
}

/// The first key of a range, and the first one after it.
pub(super) type KeyRange = (Vec<u8>, Vec<u8>);

/// A path as the database keeps it: its very bytes on Unix, UTF-8 elsewhere.
///
/// Nothing is returned for a name that is not Unicode where names are not bytes.
pub(super) fn key_of(path: &Path) -> Option<Vec<u8>> {
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt;
        Some(path.as_os_str().as_bytes().to_vec())
    }
    #[cfg(not(unix))]
    {
        path.to_str().map(|path| path.as_bytes().to_vec())
    }
}

/// The path that a key stands for.
pub(super) fn path_of(key: &[u8]) -> PathBuf {
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt;
        PathBuf::from(OsStr::from_bytes(key))
    }
    #[cfg(not(unix))]
    {
        PathBuf::from(String::from_utf8_lossy(key).into_owned())
    }
}

/// The keys of all that lies below `folder`.
pub(super) fn range_below(folder: &Path) -> Option<KeyRange> {
    let separator = u8::try_from(std::path::MAIN_SEPARATOR).ok()?;
    let mut from = key_of(folder)?;
    if from.last() != Some(&separator) {
        from.push(separator);
    }
    let mut to = from.clone();
    *to.last_mut()? = separator.checked_add(1)?;
    Some((from, to))
}

fn is_picture(name: &OsStr) -> bool {
    Path::new(name)
        .extension()
        .and_then(OsStr::to_str)
        .is_some_and(|extension| EXTENSIONS.iter().any(|known| extension.eq_ignore_ascii_case(known)))
}

/// Finds all pictures below `root`.
///
/// Hidden files and folders (a leading dot) are passed over, as search tools do. Links to files
/// are followed, links to folders are not: so there are no loops, and no link leads out of the
/// tree that was asked for.
pub(super) fn find(root: &Path, found: &mut dyn FnMut(usize), stop: &AtomicBool) -> Walk {
    let mut walk = Walk::default();
    let shown =
        |entry: &DirEntry| entry.depth() == 0 || !entry.file_name().as_encoded_bytes().starts_with(b".");
    for entry in WalkDir::new(root).into_iter().filter_entry(shown) {
        if stop.load(Ordering::Relaxed) {
            walk.stopped = true;
            break;
        }
        match entry {
            Ok(entry) if !entry.file_type().is_dir() && is_picture(entry.file_name()) => {
                look(entry.path(), entry.path_is_symlink(), &mut walk);
                found(walk.pictures.len());
            }
            Ok(_) => {}
            Err(error) => {
                let path = error.path().unwrap_or(root).to_path_buf();
                let reason = error.io_error().map_or_else(|| error.to_string(), ToString::to_string);
                let gone = error.io_error().is_some_and(|error| error.kind() == io::ErrorKind::NotFound);
                if !gone {
                    walk.unknown.extend(key_of(&path));
                    walk.failed.push((path, reason));
                }
            }
        }
    }
    walk.pictures.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    walk
}

/// Looks at one entry that is named like a picture.
fn look(path: &Path, link: bool, walk: &mut Walk) {
    let seen = now();
    let Some(key) = key_of(path) else {
        let reason = "its name is not Unicode: rename it".to_owned();
        walk.failed.push((path.to_path_buf(), reason));
        return;
    };
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => {
            walk.pictures.push(Candidate { key, stamp: Stamp::of(&metadata), seen })
        }
        // A link to a folder, whatever it is called, is no picture.
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) => walk.failed.push((path.to_path_buf(), "it is not a regular file".to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // Without a link the file vanished just now, which needs no word.
            if link {
                walk.failed.push((path.to_path_buf(), "the link leads to nothing".to_owned()));
            }
        }
        Err(error) => {
            walk.unknown.push(key);
            walk.failed.push((path.to_path_buf(), error.to_string()));
        }
    }
}

/// The BLAKE3 hash of a file's content; nothing when `stop` was set meanwhile.
///
/// # Errors
/// What the system answers.
pub(super) fn hash(path: &Path, stop: &AtomicBool) -> io::Result<Option<[u8; 32]>> {
    let mut file = File::open(path)?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        match file.read(&mut buffer) {
            Ok(0) => return Ok(Some(*hasher.finalize().as_bytes())),
            Ok(count) => {
                hasher.update(buffer.get(..count).unwrap_or_default());
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn names(root: &Path) -> Vec<String> {
        find(root, &mut |_| {}, &AtomicBool::new(false))
            .pictures
            .iter()
            .map(|picture| {
                let path = picture.path();
                path.strip_prefix(root).unwrap().display().to_string()
            })
            .collect()
    }

    #[test]
    fn finds_pictures_by_name_and_passes_over_the_rest() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join(".hidden root");
        std::fs::create_dir_all(root.join("b/c")).unwrap();
        std::fs::create_dir_all(root.join(".git")).unwrap();
        std::fs::create_dir_all(root.join("folder.png")).unwrap();
        for name in [
            "a.JPG",
            "b/c/d.jpeg",
            "b/e.jfif",
            "f.Png",
            "g.apng",
            "h.webp",
            "i.gif",
            "j.bmp",
            "k.tif",
            "l.tiff",
            "no.txt",
            "jpg",
            ".m.png",
            ".git/n.png",
            "folder.png/o.png",
            "p.svg",
        ] {
            std::fs::write(root.join(name), name).unwrap();
        }
        assert_eq!(
            names(&root),
            [
                "a.JPG",
                "b/c/d.jpeg",
                "b/e.jfif",
                "f.Png",
                "folder.png/o.png",
                "g.apng",
                "h.webp",
                "i.gif",
                "j.bmp",
                "k.tif",
                "l.tiff"
            ]
        );
    }

    #[cfg(unix)]
    #[test]
    fn links_loops_and_odd_names_do_no_harm() {
        use std::os::unix::ffi::OsStrExt;
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        std::fs::create_dir(root.join("in")).unwrap();
        std::fs::write(root.join("in/a.png"), "a").unwrap();
        symlink(root, root.join("in/up")).unwrap();
        symlink(root, root.join("in/up.png")).unwrap();
        symlink("self.png", root.join("self.png")).unwrap();
        symlink("nothing.png", root.join("dangling.png")).unwrap();
        symlink("in/a.png", root.join("link.png")).unwrap();
        let odd = root.join(OsStr::from_bytes(b"\xff\xfe \n.jpg"));
        std::fs::write(&odd, "odd").unwrap();
        let walk = find(root, &mut |_| {}, &AtomicBool::new(false));
        let paths: Vec<PathBuf> = walk.pictures.iter().map(Candidate::path).collect();
        assert_eq!(paths, [root.join("in/a.png"), root.join("link.png"), odd]);
        let mut failed: Vec<&Path> = walk.failed.iter().map(|(path, _)| path.as_path()).collect();
        failed.sort();
        assert_eq!(failed, [root.join("dangling.png"), root.join("self.png")]);
    }

    #[test]
    fn ranges_hold_a_folder_and_nothing_beside_it() {
        if cfg!(unix) {
            let (from, to) = range_below(Path::new("/a/b")).unwrap();
            let inside = |path: &str| {
                let key = key_of(Path::new(path)).unwrap();
                from <= key && key < to
            };
            assert!(inside("/a/b/c.png") && inside("/a/b/\u{10ffff}/x.png"));
            assert!(!inside("/a/b.png") && !inside("/a/bc/d.png") && !inside("/a/b0"));
            assert_eq!(range_below(Path::new("/")).unwrap().0, b"/");
        }
    }

    #[test]
    fn a_stamp_is_proof_only_when_the_clock_has_moved_on() {
        let stamp = Stamp { size: 1, mtime: 0 };
        assert!(!stamp.is_proof(0));
        assert!(!stamp.is_proof(COARSE));
        assert!(stamp.is_proof(COARSE + 1));
        assert!(stamp.is_proof(-COARSE - 1), "a clock that runs behind");
        let late = Stamp { size: 1, mtime: i64::MAX };
        assert!(late.is_proof(0));
        assert_eq!(nanoseconds(UNIX_EPOCH + Duration::from_nanos(5)), 5);
        assert_eq!(nanoseconds(UNIX_EPOCH - Duration::from_nanos(5)), -5);
    }

    #[test]
    fn hashes_content_and_heeds_stop() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let content = vec![3; 200_000];
        std::fs::write(&path, &content).unwrap();
        let hashed = hash(&path, &AtomicBool::new(false)).unwrap();
        assert_eq!(hashed, Some(*blake3::hash(&content).as_bytes()));
        assert_eq!(hash(&path, &AtomicBool::new(true)).unwrap(), None);
        assert!(hash(folder.path().join("y").as_path(), &AtomicBool::new(false)).is_err());
    }
}
