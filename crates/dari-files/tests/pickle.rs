//! Files of real PyTorch (made by fixtures/make_fixtures.py), and hostile ones made of them.

use dari_files::{Checkpoint, Dtype, Error};
use std::path::PathBuf;

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn open(name: &str) -> Checkpoint {
    Checkpoint::open(&fixture(name)).unwrap()
}

fn refusal(name: &str) -> String {
    Checkpoint::open(&fixture(name)).unwrap_err().to_string()
}

fn f32s(checkpoint: &Checkpoint, name: &str) -> Vec<f32> {
    let tensor = checkpoint.tensor(name).unwrap();
    assert_eq!(tensor.dtype, Dtype::F32);
    let (chunks, rest) = tensor.data.as_chunks::<4>();
    assert!(rest.is_empty());
    chunks.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

fn is_borrowed(checkpoint: &Checkpoint, name: &str) -> bool {
    let tensor = checkpoint.tensor(name).unwrap();
    matches!(tensor.data, std::borrow::Cow::Borrowed(_))
}

#[test]
fn state_dict_of_a_module() {
    let c = open("contiguous.bin");
    assert_eq!(c.names().collect::<Vec<_>>(), ["bias", "weight"]);
    assert_eq!(c.shape("weight"), Some(&[2, 3][..]));
    assert_eq!(f32s(&c, "weight"), [0., 1., 2., 3., 4., 5.]);
    assert_eq!(f32s(&c, "bias"), [0., 1.]);
    assert!(is_borrowed(&c, "weight"));
    assert_eq!(c.file_of("bias"), Some(fixture("contiguous.bin").as_path()));
    let text = c.tensor("wieght").unwrap_err().to_string();
    assert!(text.contains("no tensor `wieght`") && text.contains("2 tensors, such as `bias`"));
}

#[test]
fn strides_and_offsets() {
    let c = open("transposed.bin");
    assert_eq!(c.shape("t"), Some(&[3, 2][..]));
    assert_eq!(f32s(&c, "t"), [0., 3., 1., 4., 2., 5.]);
    assert_eq!(f32s(&c, "inner"), [5., 6., 9., 10.]);
    assert_eq!(f32s(&c, "step"), [1., 3., 5.]);
    assert!(!is_borrowed(&c, "t"));
}

#[test]
fn shared_storage() {
    let c = open("shared.bin");
    let whole: Vec<f32> = (0..8u8).map(f32::from).collect();
    assert_eq!(f32s(&c, "whole"), whole);
    assert_eq!(f32s(&c, "again"), whole);
    assert_eq!(f32s(&c, "tail"), [5., 6., 7.]);
    assert_eq!(f32s(&c, "wide"), [0., 0., 0.]);
    assert!(is_borrowed(&c, "tail"));
}

#[test]
fn types() {
    let c = open("bf16.bin");
    let tensor = c.tensor("b").unwrap();
    assert_eq!(tensor.dtype, Dtype::BF16);
    // 1, -2.5 and 3.140625 are exact: the upper halves of their singles.
    assert_eq!(&tensor.data[..], [0x80, 0x3f, 0x20, 0xc0, 0x49, 0x40]);

    let c = open("dtypes.bin");
    let expected: [(&str, Dtype, &[u8]); 9] = [
        ("float16", Dtype::F16, &[0, 0, 0, 0x3c]),
        ("float32", Dtype::F32, &[0, 0, 0, 0, 0, 0, 0x80, 0x3f]),
        ("float64", Dtype::F64, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f]),
        ("int64", Dtype::I64, &[0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]),
        ("int32", Dtype::I32, &[0, 0, 0, 0, 1, 0, 0, 0]),
        ("int16", Dtype::I16, &[0, 0, 1, 0]),
        ("int8", Dtype::I8, &[0, 1]),
        ("uint8", Dtype::U8, &[0, 1]),
        ("bool", Dtype::Bool, &[0, 1]),
    ];
    assert_eq!(c.len(), expected.len());
    for (name, dtype, bytes) in expected {
        let tensor = c.tensor(name).unwrap();
        assert_eq!((tensor.dtype, &tensor.data[..]), (dtype, bytes), "{name}");
    }

    let c = open("rare.bin");
    assert_eq!(c.dtype("uint16"), Some(Dtype::U16));
    assert_eq!(c.tensor("uint16").unwrap().data[..], [0, 0, 1, 0]);
    assert_eq!(c.tensor("float8_e4m3fn").unwrap().data[..], [0, 0x38]);
}

#[test]
fn nested_dicts_parameters_and_empty_tensors() {
    let c = open("nested.bin");
    assert_eq!(c.names().collect::<Vec<_>>(), ["a", "inner.7", "inner.b"]);
    assert_eq!(f32s(&c, "a"), [0., 1.]);

    let c = open("parameter.bin");
    assert_eq!(f32s(&c, "p"), [0., 1., 2., 3.]);
    assert_eq!(f32s(&c, "frozen"), [0.]);

    let c = open("empty.bin");
    assert_eq!(c.shape("none"), Some(&[0, 3][..]));
    assert!(f32s(&c, "none").is_empty());
    assert_eq!(c.shape("scalar"), Some(&[][..]));
    assert_eq!(c.tensor("scalar").unwrap().data[..], 7i64.to_le_bytes());
}

#[test]
fn code_is_refused_by_name() {
    for (file, global) in [
        ("system.bin", "posix.system"),
        ("eval.bin", "builtins.eval"),
        ("module.bin", "torch.nn.modules.activation.ReLU"),
    ] {
        let error = Checkpoint::open(&fixture(file)).unwrap_err();
        assert!(matches!(error, Error::NotOnlyTensors { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains(&format!("{file} holds {global}, not only tensors")), "{text}");
    }
}

#[test]
fn other_forms_are_refused_with_the_way_out() {
    let text = refusal("legacy.bin");
    assert!(text.contains("legacy form") && text.contains("save it again with torch.save"));
    let text = refusal("single.bin");
    assert!(text.contains("holds a single tensor, not tensors by name"));
    let text = refusal("protocol4.bin");
    assert!(text.contains("pickle protocol 4"), "{text}");
    let text = Checkpoint::from_vec("a.bin", Vec::new()).unwrap_err().to_string();
    assert!(text.contains("is empty"), "{text}");
}

/// The file with `from` replaced by `to` everywhere; both of one length, so that the zip holds.
fn with(name: &str, from: &[u8], to: &[u8]) -> Result<Checkpoint, Error> {
    assert_eq!(from.len(), to.len());
    let mut bytes = std::fs::read(fixture(name)).unwrap();
    let mut found = 0;
    for at in 0..bytes.len() - from.len() {
        if &bytes[at..at + from.len()] == from {
            bytes[at..at + to.len()].copy_from_slice(to);
            found += 1;
        }
    }
    assert!(found > 0, "nothing to replace in {name}");
    Checkpoint::from_vec(name, bytes)
}

fn message(result: Result<Checkpoint, Error>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn lies_about_tensors() {
    // weight: 6 elements, offset 0, shape (2, 3), strides (3, 1).
    let view = b"K\x06tq\x08QK\x00K\x02K\x03\x86q\x09K\x03K\x01\x86";
    let changed = |at: usize, value: u8| {
        let mut to = *view;
        to[at] = value;
        message(with("contiguous.bin", view, &to))
    };
    assert!(changed(1, 7).contains("needs 28 bytes of data/0, which has 24"));
    assert!(changed(1, 5).contains("leaves its storage of 5 elements"));
    assert!(changed(7, 1).contains("leaves its storage of 6 elements"));
    assert!(changed(9, 3).contains("leaves its storage"));
    assert!(changed(16, 200).contains("leaves its storage"));
    assert!(changed(18, 2).contains("leaves its storage"));
    assert!(changed(12, 0x85).contains("data.pkl"));
}

#[test]
fn a_view_needs_as_many_strides_as_sizes() {
    let wrong = TENSOR.windows(3).position(|w| w == b"K\x02\x85").unwrap();
    let tensor = [&TENSOR[..wrong], b"K\x02K\x01\x86", &TENSOR[wrong + 3..]].concat();
    let pickle = [b"\x80\x02}X\x01\0\0\0a".as_slice(), &tensor, b"s."].concat();
    let text = message(pickled(&pickle));
    assert!(text.contains("2 sizes and 1 strides"), "{text}");
}

#[test]
fn lies_about_the_archive() {
    let text = message(with("contiguous.bin", b"contiguous/data/0", b"contiguous/data/9"));
    assert!(text.contains("data/0, missing"), "{text}");
    let text = message(with("contiguous.bin", b"contiguous/data/1", b"contiguous/data/0"));
    assert!(text.contains("two zip entries"), "{text}");
    let text = message(with("contiguous.bin", b"little", b"bigxxx"));
    assert!(text.contains("byte order"), "{text}");
    let text = message(with("contiguous.bin", b"contiguous/data.pkl", b"contiguous/gone.pkl"));
    assert!(text.contains("without data.pkl"), "{text}");
    let script = zip(&[("x/data.pkl", b"\x80\x02}."), ("x/constants.pkl", b"")]);
    let text = message(Checkpoint::from_vec("x.pt", script));
    assert!(text.contains("TorchScript program"), "{text}");
    let two = zip(&[("x/data.pkl", b""), ("y/data.pkl", b"")]);
    assert!(message(Checkpoint::from_vec("x.pt", two)).contains("data.pkl twice"));
}

#[test]
fn big_endian_is_refused() {
    // "big" is shorter, so the sizes in both headers are changed too.
    let mut bytes = std::fs::read(fixture("contiguous.bin")).unwrap();
    let at = bytes.windows(6).position(|w| w == b"little").unwrap();
    bytes[at..at + 3].copy_from_slice(b"big");
    let name = b"contiguous/byteorder";
    let central = bytes.windows(name.len()).rposition(|w| w == name).unwrap() - 46;
    bytes[central + 20] = 3;
    bytes[central + 24] = 3;
    let text = message(Checkpoint::from_vec("a.bin", bytes));
    assert!(text.contains("big-endian machine"), "{text}");
}

#[test]
fn truncation_at_every_length() {
    let bytes = std::fs::read(fixture("contiguous.bin")).unwrap();
    for length in 0..bytes.len() {
        let cut = bytes[..length].to_vec();
        assert!(Checkpoint::from_vec("a.bin", cut).is_err(), "{length}");
    }
    assert!(Checkpoint::from_vec("a.bin", bytes).is_ok());
}

/// A zip of stored entries, as torch.save makes it; only what the reader looks at.
fn zip(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut directory = Vec::new();
    for (name, bytes) in entries {
        let start = file.len() as u32;
        let sizes = [bytes.len() as u32, bytes.len() as u32].map(u32::to_le_bytes);
        let head = [&[0; 8][..], &[0; 4], &sizes.concat()].concat();
        let lengths = [(name.len() as u16).to_le_bytes(), [0, 0]].concat();
        file.extend([b"PK\x03\x04\0\0".as_slice(), &head, &lengths].concat());
        file.extend(name.as_bytes());
        file.extend(*bytes);
        directory.extend([b"PK\x01\x02\0\0\0\0".as_slice(), &head, &lengths].concat());
        directory.extend([&[0; 10][..], &start.to_le_bytes()].concat());
        directory.extend(name.as_bytes());
    }
    let count = (entries.len() as u16).to_le_bytes();
    let start = file.len() as u32;
    let size = directory.len() as u32;
    file.extend(&directory);
    file.extend([b"PK\x05\x06\0\0\0\0".as_slice(), &count, &count].concat());
    file.extend([size.to_le_bytes(), start.to_le_bytes()].concat());
    file.extend([0, 0]);
    file
}

/// The same with 64-bit sizes, as torch.save writes files beyond 4 GB.
fn zip_64(name: &str, bytes: &[u8]) -> Vec<u8> {
    let narrow = zip(&[(name, bytes)]);
    let directory = 30 + name.len() + bytes.len();
    let mut file = narrow[..directory].to_vec();
    let mut central = narrow[directory..directory + 46].to_vec();
    central[20..28].fill(0xff);
    central[42..46].fill(0xff);
    central[30] = 28;
    file.extend(central);
    file.extend(name.as_bytes());
    file.extend([1, 0, 24, 0]);
    for number in [bytes.len() as u64, bytes.len() as u64, 0] {
        file.extend(number.to_le_bytes());
    }
    let end = file.len() as u64;
    file.extend([b"PK\x06\x06".as_slice(), &[0; 20], &[1, 0, 0, 0, 0, 0, 0, 0]].concat());
    for number in [1, end - directory as u64, directory as u64] {
        file.extend(number.to_le_bytes());
    }
    file.extend([b"PK\x06\x07\0\0\0\0".as_slice(), &end.to_le_bytes(), &[1, 0, 0, 0]].concat());
    file.extend([b"PK\x05\x06\0\0\0\0\xff\xff\xff\xff".as_slice(), &[0xff; 8], &[0; 2]].concat());
    file
}

#[test]
fn sizes_of_64_bits() {
    let pickle = b"\x80\x02}.";
    let file = zip_64("x/data.pkl", pickle);
    assert!(Checkpoint::from_vec("x.bin", file.clone()).unwrap().is_empty());
    for length in 0..file.len() {
        assert!(Checkpoint::from_vec("x.bin", file[..length].to_vec()).is_err());
    }
    // Each of the sizes, as large as can be.
    let size = 30 + 10 + pickle.len() + 46 + 10 + 4;
    for at in [size, size + 8, size + 16, size + 24 + 40, size + 24 + 48] {
        let mut lie = file.clone();
        lie[at..at + 8].fill(0xff);
        assert!(Checkpoint::from_vec("x.bin", lie).is_err(), "{at}");
    }
}

fn pickled(pickle: &[u8]) -> Result<Checkpoint, Error> {
    Checkpoint::from_vec("x.bin", zip(&[("x/data.pkl", pickle), ("x/data/0", &[0; 8])]))
}

const TENSOR: &[u8] = b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\n\
    FloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x02tQK\0K\x02\x85K\x01\x85\x89NtR";

#[test]
fn the_machine_on_its_own() {
    let c = pickled(&[b"\x80\x02}X\x01\0\0\0a", TENSOR, b"s."].concat()).unwrap();
    assert_eq!(c.shape("a"), Some(&[2][..]));

    let nested = |depth: usize| {
        let mut pickle = b"\x80\x02".to_vec();
        for _ in 0..depth {
            pickle.extend(b"}X\x01\0\0\0a");
        }
        pickle.extend(TENSOR);
        pickle.extend("s".repeat(depth).as_bytes());
        pickle.push(b'.');
        pickled(&pickle)
    };
    assert_eq!(nested(10).unwrap().len(), 1);
    assert!(message(nested(30)).contains("nests dicts"));
    assert!(message(nested(100_000)).contains("nests dicts"));

    // A dict that holds itself.
    let own = b"\x80\x02}q\0X\x01\0\0\0ah\0s.";
    assert!(message(pickled(own)).contains("nests dicts"));

    for (pickle, problem) in [
        (&b""[..], "is cut short"),
        (b"\x80\x02", "is cut short"),
        (b"\x80\x02.", "empty stack"),
        (b"\x80\x02(.", "empty stack"),
        (b"\x80\x02NN.", "left over"),
        (b"\x80\x02h\x05.", "never remembered"),
        (b"\x80\x02t.", "a mark it never set"),
        (b"\x80\x02Na.", "empty stack"),
        (b"\x80\x02NNa.", "no list"),
        (b"\x80\x02}(Nu.", "without a value"),
        (b"\x80\x02X\xff\xff\xff\xffa.", "negative length"),
        (b"\x80\x02X\xff\xff\xff\x7fa.", "is cut short"),
        (b"\x80\x02X\x01\0\0\0\xff.", "not UTF-8"),
        (b"\x80\x02\x8b\xff\xff\xff\x7f.", "is cut short"),
        (b"\x80\x02K\x01).", "left over"),
        (b"\x80\x02K\x01)R.", "calls what is no function"),
        (b"\x80\x02ctorch\nfloat32\n)R.", "calls a type"),
        (b"\x80\x02ccollections\nOrderedDict\nNR.", "no arguments"),
        (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.", "too few"),
        (b"\x80\x02NQ.", "unknown form"),
        (b"\x80\x02i", "opcode 0x69"),
        (b"\x80\x02N.", "holds no dict"),
        (b"\x80\x02cnumpy\nnd\x1b[2J\n", "holds numpy.nd\\u{1b}[2J, not only"),
    ] {
        let text = message(pickled(pickle));
        assert!(text.contains(problem), "{pickle:?}: {text}");
    }
}

/// Dicts `depth` deep, each holding the next one `ways` times; the last holds a tensor.
fn bomb(depth: u8, ways: u8, inside: &[u8]) -> Vec<u8> {
    let mut pickle = b"\x80\x02".to_vec();
    for level in 0..depth {
        pickle.extend([b'}', b'q', level, b'(']);
        pickle.extend(b"X\x01\0\0\0a");
    }
    pickle.extend(inside);
    for level in (0..depth).rev() {
        for way in 1..if level + 1 == depth { 1 } else { ways } {
            pickle.extend([b'X', 1, 0, 0, 0, b'a' + way, b'h', level + 1]);
        }
        pickle.push(b'u');
    }
    pickle.push(b'.');
    pickle
}

#[test]
fn many_ways_to_one_tensor_are_bounded() {
    assert_eq!(pickled(&bomb(4, 3, TENSOR)).unwrap().len(), 27);
    let text = message(pickled(&bomb(16, 9, TENSOR)));
    assert!(text.contains("names too many tensors"), "{text}");
    let text = message(pickled(&bomb(16, 9, b"}")));
    assert!(text.contains("holds more than"), "{text}");
    // The same name by two ways.
    let twice = [b"\x80\x02}(X\x01\0\0\0a".as_slice(), TENSOR, b"q\0X\x01\0\0\0ah\0u."];
    let error = pickled(&twice.concat()).unwrap_err();
    assert!(matches!(error, Error::Duplicate { .. }), "{error}");
}

#[test]
fn copies_are_bounded() {
    // A list of 2^12 pairs made a dict 2^12 times.
    let mut pickle = b"\x80\x02ccollections\nOrderedDict\nq\0](".to_vec();
    for _ in 0..1 << 12 {
        pickle.extend(b"NN\x86");
    }
    pickle.extend(b"e\x85q\x01");
    for _ in 0..1 << 12 {
        pickle.extend(b"h\0h\x01R");
    }
    let text = message(pickled(&pickle));
    assert!(text.contains("copies more than"), "{text}");
}

#[test]
fn expansion_is_bounded() {
    // Shape (2^31 - 1, 2^31 - 1) of stride 0.
    let huge = b"J\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x86K\0K\0\x86";
    let at = TENSOR.windows(3).position(|w| w == b"K\x02\x85").unwrap();
    let tensor = [&TENSOR[..at], huge, &TENSOR[at + 6..]].concat();
    let text = message(pickled(&[b"\x80\x02}X\x01\0\0\0a".as_slice(), &tensor, b"s."].concat()));
    assert!(text.contains("expands 8 bytes"), "{text}");
}
