//! Model folders, on disk and embedded.

use dari_files::{Checkpoint, Dtype, Error, Folder, safetensors};
use std::collections::BTreeMap;
use std::path::Path;

const WEIGHTS: &[u8] = include_bytes!("fixtures/python.safetensors");
static FILES: [(&str, &[u8]); 3] =
    [("config.json", br#"{"model_type": "clip"}"#), ("model.safetensors", WEIGHTS), ("README.md", b"a card")];

fn on_disk() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in FILES {
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    folder
}

#[test]
fn disk_and_embedded_are_alike() {
    let place = on_disk();
    let disk = Folder::open(place.path()).unwrap();
    let embedded = Folder::embedded("mini", &FILES);
    assert_eq!(disk.label(), place.path().display().to_string());
    assert_eq!(disk.path(), Some(place.path()));
    assert_eq!(embedded.label(), "mini (embedded)");
    assert_eq!(embedded.path(), None);
    for folder in [&disk, &embedded] {
        assert!(folder.has("config.json") && !folder.has("vocab.json"));
        assert!(!folder.has("../config.json"));
        assert_eq!(folder.read("README.md").unwrap().unwrap()[..], *b"a card");
        assert!(folder.read("vocab.json").unwrap().is_none());
        assert!(folder.json("vocab.json").unwrap().is_none());
        let config = folder.json("config.json").unwrap().unwrap();
        assert_eq!(config["model_type"], "clip");
        assert_eq!(folder.weights().unwrap().len(), 3);
        let error = folder.read("../x").unwrap_err();
        assert!(matches!(error, Error::Escape { .. }), "{error}");
        let error = folder.json("README.md").unwrap_err().to_string();
        assert!(error.contains("README.md") && error.contains("line 1, column 1"));
    }
    let prints = [disk.fingerprint().unwrap(), embedded.fingerprint().unwrap()];
    assert_eq!(prints[0], prints[1]);
    assert_eq!(prints[0].len(), 32);
    assert!(prints[0].bytes().all(|b| b.is_ascii_hexdigit()));
}

#[test]
fn fingerprints_follow_what_matters() {
    let place = on_disk();
    let folder = Folder::open(place.path()).unwrap();
    let print = || folder.fingerprint().unwrap();
    let first = print();
    assert_eq!(first, print());
    let write = |name: &str, bytes: &[u8]| std::fs::write(place.path().join(name), bytes).unwrap();
    write("README.md", b"another card");
    assert_eq!(first, print());
    write("config.json", br#"{"model_type": "siglip"}"#);
    let second = print();
    assert_ne!(first, second);
    write("vocab.txt", b"");
    let third = print();
    assert_ne!(second, third);
    let mut weights = WEIGHTS.to_vec();
    *weights.last_mut().unwrap() ^= 1;
    write("model.safetensors", &weights);
    assert_ne!(third, print());
}

fn save(path: &Path, name: &str) {
    safetensors::write(path, &[(name, Dtype::U8, [1], [0])], &BTreeMap::new()).unwrap();
}

#[test]
fn weights_by_their_usual_names() {
    let place = tempfile::tempdir().unwrap();
    let folder = Folder::open(place.path()).unwrap();
    let text = folder.weights().unwrap_err().to_string();
    assert!(
        text.ends_with(
            "has no weights; looked for model.safetensors, model.safetensors.index.json, \
             open_clip_model.safetensors, open_clip_pytorch_model.bin, pytorch_model.bin, \
             pytorch_model.bin.index.json"
        ),
        "{text}"
    );
    assert_eq!(folder.fingerprint().unwrap_err().to_string(), text);

    // From the last to the first, each before those already there.
    let first = |c: Checkpoint| c.names().next().map(str::to_owned);
    let bin = include_bytes!("fixtures/bf16.bin");
    std::fs::write(place.path().join("shard.bin"), bin).unwrap();
    let index = place.path().join("pytorch_model.bin.index.json");
    std::fs::write(index, r#"{"weight_map": {"b": "shard.bin"}}"#).unwrap();
    assert_eq!(first(folder.weights().unwrap()).as_deref(), Some("b"));
    let print = folder.fingerprint().unwrap();
    std::fs::write(place.path().join("shard.bin"), include_bytes!("fixtures/empty.bin")).unwrap();
    assert_ne!(folder.fingerprint().unwrap(), print);
    let empty = include_bytes!("fixtures/empty.bin");
    std::fs::write(place.path().join("pytorch_model.bin"), empty).unwrap();
    assert_eq!(first(folder.weights().unwrap()).as_deref(), Some("none"));
    save(&place.path().join("open_clip_model.safetensors"), "open_clip");
    assert_eq!(first(folder.weights().unwrap()).as_deref(), Some("open_clip"));
    save(&place.path().join("model.safetensors"), "model");
    assert_eq!(first(folder.weights().unwrap()).as_deref(), Some("model"));
}

#[test]
fn no_folder() {
    let place = on_disk();
    let error = Folder::open(&place.path().join("none")).unwrap_err();
    assert!(error.to_string().contains("cannot open the model folder"));
    let error = Folder::open(&place.path().join("config.json")).unwrap_err();
    assert!(error.to_string().contains("is no folder"));
    let text = Folder::embedded("bare", &[]).weights().unwrap_err();
    assert!(text.to_string().contains("bare (embedded) has no weights"));
}

#[test]
fn reading_is_bounded() {
    let place = on_disk();
    let file = std::fs::File::create(place.path().join("tokenizer.json")).unwrap();
    // Sparse: takes no room.
    file.set_len(1 << 40).unwrap();
    let folder = Folder::open(place.path()).unwrap();
    let error = folder.read("tokenizer.json").unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }), "{error}");
}
