//! Pixels are Pillow's, for every file and scale of tests/fixtures/jpeg (made by scripts/jpeg_fixtures.py).

use std::path::Path;

use dari_data::image::jpeg::{Header, Scale, decode, header};

/// CRC-32 as zlib has it.
fn crc32(bytes: &[u8]) -> u32 {
    let mut table = [0u32; 256];
    for (i, entry) in (0u32..).zip(table.iter_mut()) {
        *entry = (0..8).fold(i, |c, _| if c & 1 == 1 { c >> 1 ^ 0xedb8_8320 } else { c >> 1 });
    }
    !bytes.iter().fold(!0u32, |crc, &byte| table[usize::from(crc as u8 ^ byte)] ^ crc >> 8)
}

#[test]
fn pixels_equal_pillows_at_every_scale() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/jpeg");
    let expected = std::fs::read_to_string(folder.join("expected.txt")).unwrap();
    let mut wrong = Vec::new();
    for line in expected.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let [name, width, height, components, crcs @ ..] = fields.as_slice() else { panic!("{line}") };
        let (width, height): (usize, usize) = (width.parse().unwrap(), height.parse().unwrap());
        let bytes = std::fs::read(folder.join(format!("{name}.jpg"))).unwrap();
        let expected =
            Header { width: width as u32, height: height as u32, components: components.parse().unwrap() };
        assert_eq!(header(&bytes), Ok(expected), "{name}");
        for (scale, crc) in Scale::ALL.into_iter().zip(crcs) {
            match decode(&bytes, scale, 64 << 20) {
                Ok(decoded) => {
                    let size = (decoded.width as usize, decoded.height as usize);
                    let n = scale.denominator();
                    assert_eq!(size, (width.div_ceil(n), height.div_ceil(n)), "{name} at {scale:?}");
                    assert_eq!(decoded.pixels.len(), size.0 * size.1 * 3, "{name} at {scale:?}");
                    if format!("{:08x}", crc32(&decoded.pixels)) != *crc {
                        wrong.push(format!("{name} at {scale:?}: other pixels"));
                    }
                }
                Err(error) => wrong.push(format!("{name} at {scale:?}: {error}")),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
