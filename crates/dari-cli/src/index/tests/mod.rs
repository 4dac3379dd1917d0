//! Tests of the index as a whole, with a model that is a hash.

mod codes;
mod crash;
mod damage;
mod update;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use super::view::State;
use super::*;

const DIM: usize = 24;

/// Codes, scale and error of one vector.
type Code = (Vec<i8>, f32, f32);

/// The code of a vector's bytes.
fn code(bytes: &[u8]) -> Code {
    let (mut codes, mut scales, mut errors) = (vec![0; DIM], [0.0], [0.0]);
    dari_kernels::scan::quantise(bytes, DIM, &mut codes, &mut scales, &mut errors);
    (codes, scales[0], errors[0])
}

/// The vector of a content.
fn vector(content: &[u8]) -> Vec<f32> {
    vector_of_hash(blake3::hash(content).as_bytes())
}

/// The vector of the content that has this hash.
fn vector_of_hash(hash: &[u8]) -> Vec<f32> {
    let mut bytes = [0; DIM];
    let mut hasher = blake3::Hasher::new();
    hasher.update(hash);
    hasher.finalize_xof().fill(&mut bytes);
    bytes.iter().map(|&b| f32::from(b) / 128.0 - 1.0).collect()
}

/// Embeds a file; a content that begins with "bad" cannot be embedded.
fn embed_one(path: &Path) -> Result<Vec<f32>, String> {
    let content = std::fs::read(path).map_err(|error| error.to_string())?;
    if content.starts_with(b"bad") {
        return Err("it is bad".to_owned());
    }
    Ok(vector(&content))
}

/// A data folder and a folder of pictures.
struct Room {
    /// Removed when dropped.
    _folder: tempfile::TempDir,
    data: PathBuf,
    pictures: PathBuf,
}

impl Room {
    fn new() -> Room {
        let folder = tempfile::tempdir().unwrap();
        let root = std::fs::canonicalize(folder.path()).unwrap();
        let pictures = root.join("pictures");
        std::fs::create_dir(&pictures).unwrap();
        Room { data: root.join("data"), pictures, _folder: folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.pictures.join(name)
    }

    /// Writes a picture whose time lies `age` seconds back.
    fn put_aged(&self, name: &str, content: &str, age: u64) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        let time = std::time::SystemTime::now() - std::time::Duration::from_secs(age);
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(time).unwrap();
        path
    }

    fn put(&self, name: &str, content: &str) -> PathBuf {
        self.put_aged(name, content, 1000)
    }

    fn open(&self) -> Store {
        self.open_as("model")
    }

    fn open_as(&self, model: &str) -> Store {
        Store::open_at(&self.data, model, DIM).unwrap()
    }

    /// Updates, and returns the report and the paths that were embedded.
    fn update_with(&self, store: &mut Store, batch: usize) -> (Report, Vec<PathBuf>) {
        let mut embedded = Vec::new();
        let report = store
            .update(
                &self.pictures,
                &mut |paths: &[PathBuf]| {
                    assert!(!paths.is_empty() && paths.len() <= batch);
                    embedded.extend_from_slice(paths);
                    paths.iter().map(|path| embed_one(path)).collect()
                },
                batch,
                &mut |_| {},
                &AtomicBool::new(false),
            )
            .unwrap();
        (report, embedded)
    }

    fn update(&self) -> (Report, Vec<PathBuf>) {
        self.update_with(&mut self.open(), 4)
    }

    /// Paths that a search for a content gives with a score of 1.
    fn find(&self, store: &Store, content: &str) -> Vec<PathBuf> {
        let query = vector(content.as_bytes());
        store
            .search(&query, Some(&self.pictures), usize::MAX)
            .unwrap()
            .into_iter()
            .filter(|hit| hit.score > 0.9999)
            .map(|hit| hit.path)
            .collect()
    }

    /// Every row's vector must be the one of its content, bit for bit, and every row that claims
    /// to hold for the file as it is now must do so; returns the number of rows with a vector.
    fn check(&self, store: &Store) -> usize {
        let coded = self.codes(store);
        let view = store.database.read().unwrap();
        let Some(model) = view.model(&store.fingerprint, store.dim).unwrap() else {
            return 0;
        };
        let known = view.known(model, &(Vec::new(), vec![0xff])).unwrap();
        let file = VectorFile::open(&store.vectors_path(), &store.identity(model), false).unwrap();
        let map = file.map().unwrap();
        let mut count = 0;
        for (key, known) in known {
            let path = walk::path_of(&key);
            assert_ne!(known.state, State::Lost, "{}", path.display());
            if walk::Stamp::read(&path).is_ok_and(|stamp| stamp == known.stamp) {
                let content = std::fs::read(&path).unwrap();
                assert_eq!(blake3::hash(&content).as_bytes(), &known.hash);
            }
            let State::Embedded { slot, sum } = known.state else {
                continue;
            };
            let expected: Vec<u8> = normalise(&vector_of_hash(&known.hash))
                .unwrap()
                .iter()
                .flat_map(|x| x.to_le_bytes())
                .collect();
            let bytes = map.slot(slot).expect("the slot is in the file");
            assert_eq!(bytes, expected, "{}", path.display());
            assert_eq!(sum, vectors::sum(bytes), "{}", path.display());
            if let Some(codes) = coded.get(&slot) {
                assert_eq!(codes, &code(bytes), "{}", path.display());
            }
            count += 1;
        }
        count
    }

    /// The codes that a search would trust, by slot.
    fn codes(&self, store: &Store) -> HashMap<usize, Code> {
        let view = store.database.read().unwrap();
        let Some(model) = view.model(&store.fingerprint, store.dim).unwrap() else {
            return HashMap::new();
        };
        let Some(map) = store.codes(&view, model).unwrap() else {
            return HashMap::new();
        };
        let mut all = HashMap::new();
        for piece in map.pieces() {
            for row in 0..piece.codes.rows() {
                let part = piece.codes.part(row, 1);
                let code = (part.codes.to_vec(), part.scales[0], part.errors[0]);
                assert!(all.insert(piece.first + row, code).is_none());
            }
        }
        all
    }
}

#[test]
fn the_data_folder_follows_the_environment() {
    let home = Some(PathBuf::from("/home/u"));
    let none = |_: &str| None;
    assert!(matches!(data_folder_from(&none, None), Err(Error::NoDataFolder)));
    let own = |name: &str| (name == "DARI_DATA_HOME").then(|| OsString::from("/own"));
    assert_eq!(
        data_folder_from(&own, None).unwrap(),
        Path::new("/own"),
        "DARI_DATA_HOME is the folder itself"
    );
    if cfg!(all(unix, not(target_os = "macos"))) {
        let folder = |value: &'static str| {
            data_folder_from(
                &move |name: &str| (name == "XDG_DATA_HOME").then(|| OsString::from(value)),
                home.clone(),
            )
            .unwrap()
        };
        assert_eq!(folder("/xdg"), Path::new("/xdg/dari"));
        let usual = Path::new("/home/u/.local/share/dari");
        assert_eq!(folder(""), usual);
        assert_eq!(folder("relative"), usual);
    }
}

#[test]
fn a_query_of_another_kind_is_refused() {
    let room = Room::new();
    room.put("a.png", "a");
    room.update();
    let store = room.open();
    for query in
        [vec![0.0; DIM], vec![f32::NAN; DIM], vec![f32::INFINITY; DIM], vec![1.0; DIM - 1], Vec::new()]
    {
        let error = store.search(&query, None, 3).unwrap_err();
        assert!(matches!(error, Error::Query { .. }), "{error}");
    }
    assert!(store.search(&[1.0; DIM], None, 0).unwrap().is_empty());
    assert!(Store::open_at(&room.data, "m", 0).is_err());
    assert!(Store::open_at(&room.data, "m", usize::MAX).is_err());
}

#[test]
fn a_search_equals_brute_force_and_keeps_to_its_folder() {
    let room = Room::new();
    for number in 0..300 {
        let folder = ["a", "a b", "b/c"][number % 3];
        room.put(&format!("{folder}/{number}.jpg"), &format!("content {}", number / 2));
    }
    let (report, _) = room.update_with(&mut room.open(), 64);
    assert_eq!((report.seen, report.embedded, report.copied), (300, 150, 150));
    let store = room.open();
    let query = vector(b"query");
    let unit = |v: &[f32]| -> Vec<f64> {
        let length = v.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
        v.iter().map(|&x| f64::from(x) / length).collect()
    };
    for (folder, count) in [("", 300), ("a", 100), ("b", 100), ("b/c", 100), ("none", 0)] {
        let folder = room.path(folder);
        assert_eq!(store.count(Some(&folder)).unwrap(), count);
        let mut expected: Vec<(f64, PathBuf)> = Vec::new();
        for entry in walkdir::WalkDir::new(&folder).into_iter().flatten() {
            if entry.file_type().is_file() {
                let v = unit(&vector(&std::fs::read(entry.path()).unwrap()));
                let score = v.iter().zip(unit(&query)).map(|(a, b)| a * b).sum();
                expected.push((score, entry.path().to_path_buf()));
            }
        }
        expected.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.as_os_str().cmp(b.1.as_os_str())));
        let hits = store.search(&query, Some(&folder), 40).unwrap();
        assert_eq!(hits.len(), count.min(40));
        for (hit, (score, path)) in hits.iter().zip(&expected) {
            assert!((f64::from(hit.score) - score).abs() < 1e-6);
            assert_eq!(&hit.path, path, "equal scores go by path");
        }
    }
    assert_eq!(store.count(None).unwrap(), 300);
    assert_eq!(store.search(&query, None, 1000).unwrap().len(), 300);
}
