//! What the picture tests share: the fixtures, the formula of their inputs, and CRC-32.
#![allow(dead_code)]

use std::path::PathBuf;

use dari_data::image::Picture;
use serde_json::Value;

/// A file among the fixtures.
pub fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/image").join(name)
}

pub fn json(name: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(fixture(name)).expect("the fixture is there");
    serde_json::from_str(&text).expect("the fixture is JSON")
}

/// `formula` of make.py: noise, gradients, and hard black and white blocks.
pub fn formula(width: u32, height: u32, seed: u64) -> Picture {
    let mut rgb = Vec::new();
    for y in 0..u64::from(height) {
        for x in 0..u64::from(width) {
            for c in 0..3u64 {
                let mut n = (x * 7919 + y * 104_729 + c * 1_299_709 + seed * 15_485_863) & 0xffff_ffff;
                n ^= n >> 13;
                n = (n * 1_274_126_177) & 0xffff_ffff;
                n ^= n >> 16;
                rgb.push(match (x / 6 + y / 5 + c) % 5 {
                    0 => 0,
                    1 => 255,
                    2 => ((x * 3 + y * 5 + c * 40) & 255) as u8,
                    _ => (n & 255) as u8,
                });
            }
        }
    }
    Picture::from_rgb(width, height, rgb).expect("the formula fills the picture")
}

/// CRC-32 as zlib computes it.
pub fn crc(bytes: impl IntoIterator<Item = u8>) -> u32 {
    let mut table = [0u32; 256];
    for (n, entry) in table.iter_mut().enumerate() {
        *entry =
            (0..8).fold(n as u32, |value, _| (value >> 1) ^ if value & 1 == 1 { 0xedb8_8320 } else { 0 });
    }
    !bytes.into_iter().fold(!0u32, |sum, byte| table[((sum ^ u32::from(byte)) & 255) as usize] ^ (sum >> 8))
}

/// Fixed-seed xorshift64.
pub struct Xorshift(pub u64);

impl Xorshift {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}
