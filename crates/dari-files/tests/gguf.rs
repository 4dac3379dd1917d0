//! The GGUF reader on sound and hostile files.

use dari_files::Gguf;
use dari_files::gguf::Value;

/// Builds a file piece by piece.
struct Builder(Vec<u8>);

impl Builder {
    fn new(tensors: u64, pairs: u64) -> Builder {
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(3u32.to_le_bytes());
        bytes.extend(tensors.to_le_bytes());
        bytes.extend(pairs.to_le_bytes());
        Builder(bytes)
    }

    fn text(mut self, text: &str) -> Builder {
        self.0.extend((text.len() as u64).to_le_bytes());
        self.0.extend(text.as_bytes());
        self
    }

    fn u32(mut self, value: u32) -> Builder {
        self.0.extend(value.to_le_bytes());
        self
    }

    fn u64(mut self, value: u64) -> Builder {
        self.0.extend(value.to_le_bytes());
        self
    }

    fn data(mut self, count: usize) -> Vec<u8> {
        self.0.resize(self.0.len().next_multiple_of(32), 0);
        self.0.extend((0..count).map(|i| i as u8));
        self.0
    }
}

/// A file with a value of each kind, a plain tensor and one in blocks.
fn sound() -> Vec<u8> {
    Builder::new(2, 4)
        .text("general.architecture")
        .u32(8)
        .text("llama")
        .text("llama.block_count")
        .u32(4)
        .u32(30)
        .text("tokenizer.ggml.tokens")
        .u32(9)
        .u32(8)
        .u64(2)
        .text("a")
        .text("가")
        .text("tokenizer.ggml.scores")
        .u32(9)
        .u32(6)
        .u64(2)
        .u32(1.5f32.to_bits())
        .u32((-2f32).to_bits())
        .text("output_norm.weight")
        .u32(1)
        .u64(8)
        .u32(0)
        .u64(0)
        .text("blk.0.attn_q.weight")
        .u32(2)
        .u64(32)
        .u64(2)
        .u32(8)
        .u64(32)
        .data(32 + 68)
}

fn open(bytes: &[u8]) -> Result<Gguf, String> {
    Gguf::from_vec("m.gguf", bytes.to_vec()).map_err(|error| error.to_string())
}

#[test]
fn a_sound_file_is_read() {
    let file = open(&sound()).expect("sound");
    assert_eq!(file.get("llama.block_count").and_then(Value::as_u64), Some(30));
    assert_eq!(file.get("general.architecture").and_then(Value::as_str), Some("llama"));
    assert_eq!(file.get("tokenizer.ggml.tokens"), Some(&Value::Texts(vec!["a".into(), "가".into()])));
    assert_eq!(file.get("tokenizer.ggml.scores"), Some(&Value::Floats(vec![1.5, -2.0])));
    let blocks = &file.tensors()["blk.0.attn_q.weight"];
    assert_eq!((blocks.kind.name, &blocks.shape[..]), ("Q8_0", &[2, 32][..]));
    let bytes = file.bytes("blk.0.attn_q.weight").expect("bytes");
    assert_eq!((bytes.len(), bytes[0]), (68, 32));
    assert!(file.bytes("nothing").is_err());
}

#[test]
fn a_file_cut_short_anywhere_is_an_error() {
    let whole = sound();
    for length in 0..whole.len() {
        let error = open(&whole[..length]).err().unwrap_or_else(|| panic!("{length} bytes were enough"));
        assert!(error.contains("m.gguf") && !error.contains('\n'), "{error}");
    }
}

#[test]
fn a_header_that_lies_is_an_error_before_it_costs_memory() {
    let most = u64::MAX;
    for (lie, expected) in [
        (Builder::new(most, 0).0, "tensors"),
        (Builder::new(0, most).0, "pairs"),
        (Builder::new(0, 1).u64(most).0, ""),
        (Builder::new(0, 1).text("k").u32(8).u64(most).0, "text"),
        (Builder::new(0, 1).text("k").u32(9).u32(8).u64(most).0, "list"),
        (Builder::new(0, 1).text("k").u32(9).u32(0).u64(1 << 40).0, "list"),
        (Builder::new(0, 1).text("k").u32(9).u32(9).u64(1).0, "list of type 9"),
        (Builder::new(0, 1).text("k").u32(77).u64(0).0, "unknown type 77"),
        (Builder::new(0, 2).text("k").u32(4).u32(1).text("k").u32(4).u32(1).data(0), "twice"),
        (Builder::new(0, 1).text("general.alignment").u32(4).u32(3).data(0), "alignment"),
        (Builder::new(0, 1).text("split.count").u32(4).u32(4).data(0), "parts"),
        (Builder::new(1, 0).text("t").u32(1).u64(4).u32(0).u64(64).data(16), "reaches beyond"),
        (Builder::new(1, 0).text("t").u32(1).u64(4).u32(0).u64(3).data(64), "divide"),
        (Builder::new(1, 0).text("t").u32(1).u64(4).u32(0).u64(most - 31).data(64), "reaches beyond"),
        (Builder::new(1, 0).text("t").u32(2).u64(most / 2).u64(8).u32(0).u64(0).data(64), "no memory"),
        (Builder::new(1, 0).text("t").u32(1).u64(33).u32(8).u64(0).data(64), "blocks of 32"),
        (Builder::new(1, 0).text("t").u32(9).data(64), "9 dimensions"),
        (Builder::new(1, 0).text("t").u32(1).u64(4).u32(4).u64(0).data(64), "type 4"),
        (Builder::new(0, 1).u64(2).0.into_iter().chain([0xff, 0xfe]).chain([0; 8]).collect(), "UTF-8"),
        (b"GGUF\0\0\0\x03\0\0\0\0\0\0\0\0".to_vec(), "big-endian"),
        (b"GGUF\x01\0\0\0\0\0\0\0\0\0\0\0".to_vec(), "version 1"),
        (b"GGML".to_vec(), "does not begin"),
    ] {
        let error = open(&lie).err().unwrap_or_else(|| panic!("taken: {expected}"));
        assert!(error.contains(expected) && !error.contains('\n'), "{expected}: {error}");
    }
}

#[test]
fn changed_bytes_never_panic() {
    let whole = sound();
    let mut state = 7u32;
    for _ in 0..20_000 {
        let mut bytes = whole.clone();
        for _ in 0..3 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let at = state as usize / 256 % bytes.len();
            bytes[at] = (state >> 24) as u8;
        }
        if let Ok(file) = open(&bytes) {
            for name in file.tensors().keys() {
                assert!(file.bytes(name).is_ok());
            }
        }
    }
}

/// Changed at random: an error, or a file all of which can be read.
#[test]
fn damaged_files_are_errors() {
    let seed = sound();
    let (mut state, mut whole) = (0x9e37_79b9_7f4a_7c15_u64, 0);
    let mut next = |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % bound as u64) as usize
    };
    let asked = std::env::var("DARI_FUZZ_ROUNDS").ok().and_then(|rounds| rounds.parse().ok());
    let rounds = asked.unwrap_or(8000);
    for _ in 0..rounds {
        let mut bytes = seed.clone();
        for _ in 0..1 + next(3) {
            let at = next(bytes.len());
            match next(4) {
                0 => bytes[at] = next(256) as u8,
                1 => bytes[at] ^= 1 << next(8),
                2 => {
                    let value = [0, u64::MAX, 1 << 63, 1 << 31, seed.len() as u64][next(5)];
                    for (byte, new) in bytes[at..].iter_mut().zip(value.to_le_bytes()) {
                        *byte = new;
                    }
                }
                _ => bytes.truncate(at.max(1)),
            }
        }
        if let Ok(file) = Gguf::from_vec("fuzzed.gguf", bytes) {
            for name in file.tensors().keys() {
                file.bytes(name).expect("checked when it was opened");
            }
            whole += 1;
        }
    }
    assert!(whole > rounds / 100 && whole < rounds, "{whole}");
}
