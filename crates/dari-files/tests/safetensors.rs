//! Writing and reading safetensors: round trips, shards, and headers that lie.

use dari_files::{Checkpoint, Dtype, Error, safetensors};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

type Tensor = (&'static str, Dtype, Vec<usize>, Vec<u8>);

fn tensors() -> Vec<Tensor> {
    vec![
        ("odd", Dtype::U8, vec![3], vec![7, 8, 9]),
        ("a.weight", Dtype::F32, vec![2, 2], (0..16).collect()),
        ("empty", Dtype::F16, vec![0, 4], vec![]),
        ("scalar", Dtype::I64, vec![], vec![1, 0, 0, 0, 0, 0, 0, 0]),
        ("half", Dtype::BF16, vec![1, 2], vec![0, 1, 2, 3]),
        ("flag", Dtype::Bool, vec![1], vec![1]),
    ]
}

fn metadata(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let owned = |&(k, v): &(&str, &str)| (k.to_owned(), v.to_owned());
    pairs.iter().map(owned).collect()
}

fn written(folder: &Path) -> PathBuf {
    let path = folder.join("model.safetensors");
    safetensors::write(&path, &tensors(), &metadata(&[("step", "3")])).unwrap();
    path
}

#[test]
fn threads_may_share_a_checkpoint() {
    fn shared<T: Send + Sync>() {}
    shared::<Checkpoint>();
    shared::<dari_files::Folder>();
    shared::<Error>();
}

#[test]
fn round_trip() {
    let folder = tempfile::tempdir().unwrap();
    let path = written(folder.path());
    let c = Checkpoint::open(&path).unwrap();
    assert_eq!(c.len(), 6);
    for (name, dtype, shape, bytes) in tensors() {
        assert_eq!(c.dtype(name), Some(dtype));
        assert_eq!(c.shape(name), Some(&shape[..]));
        let tensor = c.tensor(name).unwrap();
        assert_eq!((tensor.shape, &tensor.data[..]), (shape, &bytes[..]));
        assert!(matches!(tensor.data, Cow::Borrowed(_)));
        assert_eq!(c.file_of(name), Some(path.as_path()));
    }
    assert_eq!(*c.metadata(), metadata(&[("format", "pt"), ("step", "3")]));
    assert!(c.tensor("weight").is_err() && c.shape("weight").is_none());
    assert_eq!(c.files().collect::<Vec<_>>(), [path.as_path()]);

    // The same input, the same bytes; and over a file that is open.
    let first = std::fs::read(&path).unwrap();
    written(folder.path());
    assert_eq!(std::fs::read(&path).unwrap(), first);
    assert_eq!(c.tensor("odd").unwrap().data[..], [7, 8, 9]);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);

    // Every tensor lies aligned to its element.
    let length = u64::from_le_bytes(first[..8].try_into().unwrap());
    assert_eq!(length % 8, 0);
}

#[test]
fn the_reference_library_agrees() {
    // {"b": bf16 [0, 1], "f": f32 0..6 of shape (2, 3), "i": i64 [0]}
    let bytes = include_bytes!("fixtures/python.safetensors");
    let c = Checkpoint::from_bytes("python", bytes).unwrap();
    assert_eq!(c.names().collect::<Vec<_>>(), ["b", "f", "i"]);
    assert_eq!(c.tensor("b").unwrap().data[..], [0, 0, 0x80, 0x3f]);
    assert_eq!(c.shape("f"), Some(&[2, 3][..]));
    let last = &c.tensor("f").unwrap().data[20..];
    assert_eq!(*last, 5f32.to_le_bytes());
    // Written by us, the file is the same but for the order of words in the header.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ours.safetensors");
    let list: Vec<_> = c
        .names()
        .map(|name| {
            let t = c.tensor(name).unwrap();
            (name, t.dtype, t.shape, t.data)
        })
        .collect();
    safetensors::write(&path, &list, &metadata(&[])).unwrap();
    let ours = std::fs::read(&path).unwrap();
    assert_eq!(ours[ours.len() - 36..], bytes[bytes.len() - 36..]);
}

#[test]
fn what_cannot_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    let write = |list: &[Tensor]| {
        let error = safetensors::write(&path, list, &metadata(&[])).unwrap_err();
        assert!(!path.exists());
        error
    };
    let short = write(&[("x", Dtype::F32, vec![2], vec![0; 7])]).to_string();
    assert!(short.contains("`x` of type F32 and shape [2] cannot be 7 bytes"));
    write(&[("x", Dtype::F32, vec![usize::MAX, 2], vec![])]);
    let one: Tensor = ("x", Dtype::U8, vec![1], vec![0]);
    assert!(matches!(write(&[one.clone(), one.clone()]), Error::Duplicate { .. }));
    let reserved: Tensor = ("__metadata__", Dtype::U8, vec![1], vec![0]);
    assert!(matches!(write(&[reserved]), Error::Duplicate { .. }));
    let nowhere = folder.path().join("none/a.safetensors");
    let error = safetensors::write(&nowhere, &[one], &metadata(&[])).unwrap_err();
    assert!(error.to_string().contains("none/a.safetensors"));
}

/// A file of this header and so many bytes of data.
fn file(header: &[u8], data: usize) -> Vec<u8> {
    let length = (header.len() as u64).to_le_bytes();
    [&length[..], header, &vec![0; data]].concat()
}

fn refusal(bytes: Vec<u8>) -> String {
    let error = Checkpoint::from_vec("m.safetensors", bytes).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("m.safetensors") && !text.contains('\n'), "{text}");
    text
}

#[test]
fn lying_headers() {
    let f32s =
        |start: u64, end: u64| format!(r#"{{"dtype":"F32","shape":[2],"data_offsets":[{start},{end}]}}"#);
    let one = |info: &str, data| refusal(file(format!(r#"{{"a":{info}}}"#).as_bytes(), data));
    let two = |first: &str, second: &str, data| {
        refusal(file(format!(r#"{{"a":{first},"b":{second}}}"#).as_bytes(), data))
    };
    assert!(one(&f32s(0, 8), 7).contains("lies at bytes 0..8 of 7"));
    assert!(one(&f32s(0, 8), 9).contains("not fully covered"));
    assert!(one(&f32s(1, 9), 9).contains("invalid offset for tensor `a`"));
    assert!(one(&f32s(8, 0), 8).contains("lies at bytes 8..0"));
    assert!(one(&f32s(0, 4), 4).contains("shape [2] cannot be 4 bytes"));
    assert!(one(&f32s(u64::MAX - 8, u64::MAX), 8).contains("lies at"));
    // Overlapping, and with a hole.
    assert!(two(&f32s(0, 8), &f32s(4, 12), 12).contains("invalid offset"));
    assert!(two(&f32s(0, 8), &f32s(0, 8), 8).contains("invalid offset"));
    assert!(two(&f32s(0, 8), &f32s(9, 17), 17).contains("invalid offset"));
    // One name twice, of which a map would lose one.
    let none = r#"{"dtype":"F32","shape":[0],"data_offsets":[0,0]}"#;
    let twice = format!(r#"{{"a":{none},"a":{none}}}"#);
    assert!(refusal(file(twice.as_bytes(), 0)).contains("again in the same header"));
    let twice = r#"{"__metadata__":{},"__metadata__":{}}"#;
    assert!(refusal(file(twice.as_bytes(), 0)).contains("duplicate field"));

    let info = |dtype: &str, shape: &str| {
        one(&format!(r#"{{"dtype":"{dtype}","shape":{shape},"data_offsets":[0,8]}}"#), 8)
    };
    assert!(info("F64", "[2]").contains("cannot be 8 bytes"));
    assert!(info("F31", "[2]").contains("`a` has the type F31, which is not read"));
    assert!(info("C64", "[1]").contains("C64, which is not read"));
    assert!(info("F32", "[-2]").contains("line 1, column"));
    assert!(info("F32", "[2.0]").contains("line 1, column"));
    assert!(info("U8", "[4294967296,4294967296,8]").contains("cannot be 8 bytes"));
    let deep = format!("[{}8]", "1,".repeat(40));
    assert!(info("U8", &deep).contains("at most 32 sizes"));
    // 16 tensors of 2^60 bytes: their sum, with the header's length, wraps around.
    let huge: Vec<String> = (0..16u64)
        .map(|i| {
            let (start, size) = (i << 60, (1u64 << 60) - u64::from(i == 15));
            let end = start + size;
            format!(r#""t{i}":{{"dtype":"U8","shape":[{size}],"data_offsets":[{start},{end}]}}"#)
        })
        .collect();
    let huge = format!("{{{}}}", huge.join(","));
    assert!(refusal(file(huge.as_bytes(), 0)).contains("lies at"));
}

#[test]
fn lying_lengths() {
    assert!(refusal(vec![]).contains("is 0 bytes long"));
    assert!(refusal(vec![0; 7]).contains("is 7 bytes long"));
    for length in [3u64, 1 << 32, 1 << 62, u64::MAX] {
        let bytes = [&length.to_le_bytes()[..], b"{}"].concat();
        let text = refusal(bytes);
        assert!(text.contains(&format!("declares a header of {length} bytes, but 2 follow")), "{text}");
    }
    assert!(refusal(file(b"{\"\xff\":1}", 0)).contains("not UTF-8"));
    assert!(refusal(file(b"[]", 0)).contains("does not begin with {"));
    assert!(refusal(file(b"", 0)).contains("does not begin with {"));
    let nested = [b"{\"a\":".as_slice(), &b"[".repeat(100_000)].concat();
    refusal(file(&nested, 0));
    assert!(Checkpoint::from_vec("m.safetensors", file(b"{}", 0)).is_ok());
}

#[test]
fn truncation_at_every_length() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = std::fs::read(written(folder.path())).unwrap();
    for length in 0..bytes.len() {
        refusal(bytes[..length].to_vec());
    }
    refusal([&bytes[..], &[0]].concat());
    // And through the memory map.
    let path = folder.path().join("cut.safetensors");
    for length in [0, 1, 8, 9, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..length]).unwrap();
        assert!(Checkpoint::open(&path).is_err());
    }
}

fn sharded(index: &str) -> (tempfile::TempDir, Result<Checkpoint, Error>) {
    let folder = tempfile::tempdir().unwrap();
    let shard = |file: &str, names: &[&'static str]| {
        let list: Vec<Tensor> =
            names.iter().map(|name| (*name, Dtype::U8, vec![1], vec![name.as_bytes()[0]])).collect();
        safetensors::write(&folder.path().join(file), &list, &metadata(&[])).unwrap();
    };
    shard("1.safetensors", &["a", "b"]);
    shard("2.safetensors", &["c"]);
    shard("3.safetensors", &["c"]);
    let path = folder.path().join("model.safetensors.index.json");
    std::fs::write(&path, index).unwrap();
    let result = Checkpoint::open(&path);
    (folder, result)
}

#[test]
fn shards() {
    let (folder, c) = sharded(
        r#"{"metadata": {"total_size": 3},
        "weight_map": {"a": "1.safetensors", "b": "1.safetensors", "c": "2.safetensors"}}"#,
    );
    let c = c.unwrap();
    assert_eq!(c.names().collect::<Vec<_>>(), ["a", "b", "c"]);
    assert_eq!(c.tensor("c").unwrap().data[..], *b"c");
    let second = folder.path().join("2.safetensors");
    assert_eq!(c.file_of("c"), Some(second.as_path()));
    assert_eq!(c.files().count(), 2);

    let refused = |map: &str| {
        let (_, result) = sharded(&format!(r#"{{"weight_map": {map}}}"#));
        result.unwrap_err().to_string()
    };
    let missing = refused(r#"{"a": "1.safetensors", "d": "4.safetensors"}"#);
    assert!(missing.contains("4.safetensors: is named in"), "{missing}");
    let elsewhere = refused(r#"{"a": "2.safetensors", "b": "1.safetensors"}"#);
    assert!(elsewhere.contains("`a` is said to be in 2.safetensors"));
    let twice = refused(r#"{"a": "2.safetensors", "c": "3.safetensors"}"#);
    assert!(twice.contains("`c` is in") && twice.contains("again in"));
    for outside in ["../1.safetensors", "/1.safetensors", "x/../../y", "a\\\\b", ""] {
        let text = refused(&format!(r#"{{"a": "{outside}"}}"#));
        assert!(text.contains("may leave its folder"), "{text}");
    }
    let index = refused(r#"{"a": "model.safetensors.index.json"}"#);
    assert!(index.contains("names another index"));
    let (_, result) = sharded("{\n\"weight_map\": 3}");
    let text = result.unwrap_err().to_string();
    assert!(text.contains("index.json, line 2, column"), "{text}");
}

#[test]
fn paths_that_are_no_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let text = Checkpoint::open(folder.path()).unwrap_err().to_string();
    assert!(text.contains("not a regular file"), "{text}");
    let text = Checkpoint::open(&folder.path().join("no.safetensors"));
    assert!(text.unwrap_err().to_string().contains("no.safetensors"));
    let other = folder.path().join("weights.gguf");
    std::fs::write(&other, "GGUF 123456789").unwrap();
    let text = Checkpoint::open(&other).unwrap_err().to_string();
    assert!(text.contains("give a .safetensors, .bin"), "{text}");
}
