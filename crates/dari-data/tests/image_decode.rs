//! Decoding against Pillow 13's `exif_transpose(Image.open(f)).convert("RGB")`.

mod image_common;

use dari_data::image::{Limits, Picture, open};
use image_common::{crc, fixture, json};

fn read(name: &str) -> Result<Picture, String> {
    open(&fixture("files").join(name), &Limits::default()).map_err(|error| error.to_string())
}

#[test]
fn lossless_pictures_are_equal() {
    let cases = json("exact.json");
    let mut wrong = Vec::new();
    for case in &cases {
        let name = case[0].as_str().expect("a name");
        match read(name) {
            Ok(picture) => {
                let size = (picture.width().into(), picture.height().into());
                let expected = (case[1].as_u64(), case[2].as_u64());
                if (Some(size.0), Some(size.1)) != expected {
                    wrong.push(format!("{name}: {size:?} for {expected:?}"));
                } else if case[3] != crc(picture.rgb().iter().copied()) {
                    wrong.push(format!("{name}: other pixels"));
                }
            }
            Err(error) => wrong.push(error),
        }
    }
    assert!(cases.len() > 90, "{} cases", cases.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The largest and the mean difference a lossy file may show; measured values stand in `decode.rs`.
fn bounds(name: &str) -> (u8, f64) {
    if name.ends_with(".webp") {
        (0, 0.0)
    } else if name.starts_with("8x8") {
        // Chroma of 4 x 4: nearly all of it is edge, where the two upsample differently.
        (7, 0.9)
    } else {
        (4, 0.6)
    }
}

#[test]
fn lossy_pictures_are_close() {
    let all = open(&fixture("lossy.png"), &Limits::default()).expect("the reference's pixels");
    let mut rest = all.rgb();
    let mut report = Vec::new();
    let mut wrong = false;
    for case in json("lossy.json") {
        let name = case[0].as_str().expect("a name");
        let (width, height) = (case[1].as_u64(), case[2].as_u64());
        let size = (width.expect("a width") * height.expect("a height") * 3) as usize;
        let (expected, next) = rest.split_at(size);
        rest = next;
        let picture = match read(name) {
            Ok(picture) => picture,
            Err(error) => {
                wrong = true;
                report.push(error);
                continue;
            }
        };
        if (Some(picture.width().into()), Some(picture.height().into())) != (width, height) {
            wrong = true;
            report.push(format!("{name}: {picture:?}"));
            continue;
        }
        let pairs = picture.rgb().iter().zip(expected);
        let differences: Vec<u8> = pairs.map(|(a, b)| a.abs_diff(*b)).collect();
        let largest = differences.iter().copied().max().unwrap_or(0);
        let sum: f64 = differences.iter().map(|&d| f64::from(d)).sum();
        let mean = sum / size as f64;
        let (max_largest, max_mean) = bounds(name);
        wrong |= largest > max_largest || mean > max_mean;
        report.push(format!("{name}: largest {largest}, mean {mean:.4}"));
    }
    assert!(!wrong, "\n{}", report.join("\n"));
}
