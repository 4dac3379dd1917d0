//! HEIC and AVIF, where built with those features, beside what Pillow decodes; and what is said where not.
//! `cargo test -p dari-data --features heic,avif --test image_modern`

use std::path::PathBuf;

use dari_data::image::{self, Limits};

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/modern").join(name)
}

#[cfg(any(feature = "heic", feature = "avif"))]
fn check(name: &str, mean: f64, most: u8) {
    let found = image::open(&fixture(name), &Limits::default()).unwrap_or_else(|error| panic!("{error}"));
    let expected = image::open(&fixture(&format!("{name}.png")), &Limits::default()).expect("Pillow's");
    assert_eq!((found.width(), found.height()), (expected.width(), expected.height()), "{name}");
    let off: Vec<u8> = found.rgb().iter().zip(expected.rgb()).map(|(a, b)| a.abs_diff(*b)).collect();
    let average = off.iter().map(|&v| f64::from(v)).sum::<f64>() / off.len() as f64;
    let worst = off.iter().max().copied().unwrap_or(0);
    assert!(average <= mean && worst <= most, "{name}: off by {average:.2} on average, {worst} at most");
    // Cut short at any length it is an error, or the picture without its last refinements; never a panic.
    let whole = std::fs::read(fixture(name)).expect("read");
    for length in 0..whole.len() {
        let _ = image::decode::decode(name, &whole[..length], &Limits::default());
    }
    let small = Limits { max_pixels: 100, ..Limits::default() };
    let error = image::open(&fixture(name), &small).expect_err("too large");
    assert!(error.to_string().contains("over the limit"), "{error}");
}

#[cfg(feature = "heic")]
#[test]
fn heic_is_what_pillow_sees() {
    check("full.heic", 0.6, 3);
    // Chroma of fewer places is spread otherwise.
    check("flower.heic", 2.5, 128);
    check("turned.heic", 2.5, 128);
}

#[cfg(feature = "avif")]
#[test]
fn avif_is_what_pillow_sees() {
    check("full.avif", 0.6, 3);
    check("grey.avif", 0.6, 3);
    // Chroma of fewer places is spread otherwise.
    check("flower.avif", 2.5, 60);
    check("limited.avif", 2.5, 60);
}

#[cfg(not(feature = "heic"))]
#[test]
fn heic_says_how_it_can_be_read() {
    let error = image::open(&fixture("flower.heic"), &Limits::default()).expect_err("not read");
    assert!(error.to_string().contains("--features heic"), "{error}");
}

#[cfg(not(feature = "avif"))]
#[test]
fn avif_says_how_it_can_be_read() {
    let error = image::open(&fixture("flower.avif"), &Limits::default()).expect_err("not read");
    assert!(error.to_string().contains("--features avif"), "{error}");
}
