//! Thousands of damaged files through every reader: an answer or an error, never a panic. The
//! seed is fixed. The targets under fuzz/ enter by the same functions, without an end.

use dari_files::{Checkpoint, Folder};

/// xorshift64* (Vigna, arXiv:1402.6246).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

/// One to eight changes, of the kinds that find most: bits, bytes, extreme numbers, pieces
/// doubled, moved, removed.
fn mutate(seed: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..1 + random.below(8) {
        if bytes.is_empty() {
            break;
        }
        let at = random.below(bytes.len());
        match random.below(7) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.next() as u8,
            2 => {
                let extremes = [0, 1, 0x7f, 0x80, 0xff, b'0', b'9', b'-', b'"', b'{'];
                bytes[at] = extremes[random.below(extremes.len())];
            }
            3 => {
                let width = [2, 4, 8][random.below(3)];
                let value = [0, u64::MAX, 1 << 63, 1 << 31, bytes.len() as u64][random.below(5)];
                for (byte, new) in bytes[at..].iter_mut().zip(value.to_le_bytes()).take(width) {
                    *byte = new;
                }
            }
            4 => bytes.truncate(at),
            5 => {
                let end = (at + 1 + random.below(16)).min(bytes.len());
                let piece = bytes[at..end].to_vec();
                let to = random.below(bytes.len());
                bytes.splice(to..to, piece);
            }
            _ => {
                let end = (at + 1 + random.below(16)).min(bytes.len());
                bytes.drain(at..end);
            }
        }
    }
    bytes
}

/// What a user of a checkpoint does: opens it, asks for everything.
fn read_all(name: &str, bytes: Vec<u8>) -> bool {
    let Ok(checkpoint) = Checkpoint::from_vec(name, bytes) else {
        return false;
    };
    for tensor in checkpoint.names() {
        let view = checkpoint.tensor(tensor).unwrap();
        let elements: usize = view.shape.iter().product();
        assert_eq!(view.data.len(), elements * view.dtype.size());
    }
    true
}

fn seeds(ending: &str) -> Vec<Vec<u8>> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures");
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == ending))
        .collect();
    paths.sort();
    assert!(!paths.is_empty());
    paths.iter().map(|p| std::fs::read(p).unwrap()).collect()
}

/// `rounds` mutated files; `DARI_FUZZ_ROUNDS` asks for more.
fn fuzz(ending: &str, rounds: usize) {
    let asked = std::env::var("DARI_FUZZ_ROUNDS").ok().and_then(|rounds| rounds.parse().ok());
    let rounds = asked.unwrap_or(rounds);
    let name = format!("fuzzed.{ending}");
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let seeds = seeds(ending);
    let mut sound = 0;
    for round in 0..rounds {
        let seed = &seeds[round % seeds.len()];
        sound += usize::from(read_all(&name, mutate(seed, &mut random)));
    }
    // Both kinds must come up, or the changes are too mild or too wild.
    assert!(sound > rounds / 100 && sound < rounds, "{sound}");
}

#[test]
fn safetensors() {
    fuzz("safetensors", 5000);
}

#[test]
fn pickle() {
    fuzz("bin", 8000);
}

/// Changes inside data.pkl only, where random ones would mostly hit storages and padding.
#[test]
fn pickle_opcodes() {
    let mut random = Random(1);
    for seed in seeds("bin") {
        let Some(start) = seed.windows(2).position(|w| w == b"\x80\x02") else {
            continue;
        };
        let end = seed.len().min(start + 500);
        for _ in 0..400 {
            let mut bytes = seed.clone();
            for _ in 0..1 + random.below(4) {
                let at = start + random.below(end - start);
                let opcodes = b"\x80.N\x88\x89JKM\x8a\x8bGXTUqrhj()\x85\x86\x87t]ae}sucQRb";
                bytes[at] = match random.below(2) {
                    0 => opcodes[random.below(opcodes.len())],
                    _ => random.next() as u8,
                };
            }
            read_all("fuzzed.bin", bytes);
        }
    }
}

#[test]
fn index_and_configs() {
    let seed = br#"{"metadata": {"total_size": 9}, "weight_map": {"b": "python.safetensors"}}"#;
    let place = tempfile::tempdir().unwrap();
    let weights = include_bytes!("fixtures/python.safetensors");
    std::fs::write(place.path().join("python.safetensors"), weights).unwrap();
    let mut random = Random(2);
    for _ in 0..1000 {
        let bytes = mutate(seed, &mut random);
        let path = place.path().join("model.safetensors.index.json");
        std::fs::write(&path, &bytes).unwrap();
        std::fs::write(place.path().join("config.json"), &bytes).unwrap();
        let folder = Folder::open(place.path()).unwrap();
        if let Ok(checkpoint) = folder.weights() {
            assert_eq!(checkpoint.len(), 3);
        }
        let _ = folder.json("config.json");
        let _ = folder.fingerprint();
    }
}
