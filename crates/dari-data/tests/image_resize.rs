//! Resizing against Pillow 13's `Image.resize`, by checksum: a match is no difference in any byte.

mod image_common;

use dari_data::image::{Filter, resize::resize};
use image_common::{crc, formula, json};

#[test]
fn every_byte_is_pillows() {
    let cases = json("resize.json");
    let mut wrong = Vec::new();
    for case in &cases {
        let n = |at: usize| case[at].as_u64().expect("a number");
        let side = |at: usize| n(at) as u32;
        let picture = formula(side(0), side(1), n(2));
        let filter = Filter::from_pillow(n(5)).expect("a filter");
        let resized = resize(&picture, side(3), side(4), filter).expect("a size in range");
        if u64::from(crc(resized.rgb().iter().copied())) != n(6) {
            wrong.push(format!("{case}"));
        }
    }
    assert!(cases.len() > 1000, "{} cases", cases.len());
    assert!(
        wrong.is_empty(),
        "{} of {} differ: {:?}",
        wrong.len(),
        cases.len(),
        &wrong[..wrong.len().min(20)]
    );
}

#[test]
fn sizes_out_of_range_are_refused() {
    let picture = formula(3, 3, 0);
    for (width, height) in [(0, 3), (3, 0), (65_536, 3), (3, u32::MAX)] {
        let error = resize(&picture, width, height, Filter::Bicubic).expect_err("refused");
        assert!(error.to_string().contains("1 to 65535"), "{error}");
    }
}

#[test]
fn filters_and_their_numbers() {
    for number in 0..6 {
        let filter = Filter::from_pillow(number).expect("a filter");
        assert_eq!(filter.to_pillow(), number);
    }
    assert_eq!(Filter::from_pillow(6), None);
    assert_eq!(Filter::from_pillow(u64::MAX), None);
}
