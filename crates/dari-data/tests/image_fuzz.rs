//! Mutated files: whatever the bytes, decoding ends in a picture or an error.

mod image_common;

use dari_data::image::{Limits, Need, decode_for};
use image_common::{Xorshift, fixture};

/// Small files of every format and its variants.
const SEEDS: [&str; 30] = [
    "rgb.png",
    "palette4.png",
    "interlaced.png",
    "grey16-trns.png",
    "animated.png",
    "turned6.png",
    "plain.gif",
    "interlaced.gif",
    "animated.gif",
    "inset-transparent.gif",
    "rgb.bmp",
    "palette.bmp",
    "rle8.bmp",
    "rgb565.bmp",
    "top-down.bmp",
    "tiff_lzw.tiff",
    "palette-lzw.tiff",
    "packbits.tiff",
    "planar.tiff",
    "group4.tiff",
    "jpeg.tiff",
    "premultiplied-MM.tiff",
    "rgb.webp",
    "lossy-alpha.webp",
    "animated.webp",
    "turned6.webp",
    "progressive-q80.jpg",
    "restart-q85.jpg",
    "ycck-q90.jpg",
    "turned6.jpg",
];

/// Rounds a seed; `DARI_FUZZ_ROUNDS` asks for more.
fn rounds() -> usize {
    std::env::var("DARI_FUZZ_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(1000)
}

#[test]
fn mutated_files_never_panic() {
    let limits = Limits { max_width: 2000, max_height: 2000, max_pixels: 100_000, max_file_bytes: 1 << 20 };
    // Panics inside decoder crates are caught; they are counted here, so keep them quiet.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let mut random = Xorshift(0x0dd_ba11);
    let (mut tried, mut pictures, mut caught, mut long) = (0, 0, Vec::new(), Vec::new());
    for name in SEEDS {
        let seed = std::fs::read(fixture("files").join(name)).expect("the fixture is there");
        for round in 0..rounds() {
            let mut file = seed.clone();
            for _ in 0..1 + random.below(6) {
                mutate(&mut file, &mut random);
            }
            tried += 1;
            // At a part of the size every second time.
            let small = |height: u32, width: u32| (height / 9, width / 9);
            let need: Option<Need<'_>> = if round % 2 == 0 { None } else { Some(&small) };
            match decode_for(name, &file, &limits, need) {
                Ok(_) => pictures += 1,
                Err(error) => {
                    let text = error.to_string();
                    if text.contains('\n') || text.len() > 400 {
                        long.push(text);
                    } else if text.contains("its decoder gave up") {
                        caught.push(text);
                    }
                }
            }
        }
    }
    std::panic::set_hook(hook);
    assert!(long.is_empty(), "not one line each: {long:#?}");
    assert_eq!(tried, SEEDS.len() * rounds());
    // Mutations that leave no picture, and mutations that leave one, must both have been met.
    assert!(pictures > tried / 20 && pictures < tried, "{pictures} of {tried}");
    // None is known; one that appears is a fault of a decoder crate, to be reported there.
    assert!(caught.is_empty(), "{} caught: {caught:#?}", caught.len());
}

fn mutate(file: &mut Vec<u8>, random: &mut Xorshift) {
    if file.is_empty() {
        return;
    }
    // Headers are where a reader decides: half of all changes fall in the first 64 bytes.
    let end = if random.below(2) == 0 { file.len().min(64) } else { file.len() };
    let at = random.below(end);
    match random.below(7) {
        0 => file[at] ^= 1 << random.below(8),
        1 => file[at] = random.next() as u8,
        2 => file[at] = [0, 0xff, 0x7f, 0x80][random.below(4)],
        3 => file.truncate(at.max(1)),
        4 => {
            file.remove(at);
        }
        5 => file.insert(at, random.next() as u8),
        _ => {
            let from = random.below(file.len());
            let len = random.below(16).min(file.len() - from);
            let part = file[from..from + len].to_vec();
            for (n, byte) in part.into_iter().enumerate() {
                if let Some(place) = file.get_mut(at + n) {
                    *place = byte;
                }
            }
        }
    }
}
