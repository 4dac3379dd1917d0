#![no_main]
//! Any bytes, read as a picture: decoding must end in a picture or an error, never a panic, and a picture
//! must keep to its limits.

use dari_data::image::{Limits, decode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits {
        max_width: 4096,
        max_height: 4096,
        max_pixels: 1 << 20,
        max_file_bytes: 1 << 20,
    };
    match decode("input", bytes, &limits) {
        Ok(picture) => {
            let (width, height) = (picture.width(), picture.height());
            // Turning it upright may exchange the sides.
            assert!(width.max(height) <= 4096);
            let pixels = u64::from(width) * u64::from(height);
            assert!(pixels <= limits.max_pixels);
            assert_eq!(picture.rgb().len() as u64, pixels * 3);
        }
        Err(error) => {
            let text = error.to_string();
            assert!(!text.contains('\n'), "{text}");
        }
    }
});
