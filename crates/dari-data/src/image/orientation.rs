//! Which way up a picture is: EXIF's orientation (tag 274), as `PIL.ImageOps.exif_transpose` applies it.

use super::{Error, Picture};

const ORIENTATION: u16 = 274;

/// The orientation 1 to 8 in an EXIF block (with or without its `Exif\0\0` mark).
pub(super) fn from_exif(mut exif: &[u8]) -> Option<u16> {
    while let Some(rest) = exif.strip_prefix(b"Exif\0\0") {
        exif = rest;
    }
    let little = match exif.get(..4)? {
        b"II\x2a\0" => true,
        b"MM\0\x2a" => false,
        _ => return None,
    };
    let u16_at = |at: usize| -> Option<u16> {
        let bytes = exif.get(at..at.checked_add(2)?)?.try_into().ok()?;
        Some(if little { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) })
    };
    let u32_at = |at: usize| -> Option<u32> {
        let bytes = exif.get(at..at.checked_add(4)?)?.try_into().ok()?;
        Some(if little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) })
    };
    let directory = usize::try_from(u32_at(4)?).ok()?;
    for entry in 0..usize::from(u16_at(directory)?) {
        let at = directory.checked_add(2)?.checked_add(entry * 12)?;
        if u16_at(at)? != ORIENTATION {
            continue;
        }
        return match (u16_at(at + 2)?, u32_at(at + 4)?) {
            (3, 1..) => u16_at(at + 8),
            (4, 1..) => u16::try_from(u32_at(at + 8)?).ok(),
            _ => None,
        };
    }
    None
}

/// The orientation in an XMP packet: the digit after `tiff:Orientation="` or `tiff:Orientation>`.
pub(super) fn from_xmp(xmp: &[u8]) -> Option<u16> {
    const NAME: &[u8] = b"tiff:Orientation";
    let mut rest = xmp;
    while let Some(at) = rest.windows(NAME.len()).position(|part| part == NAME) {
        rest = &rest[at + NAME.len()..];
        let value = rest.strip_prefix(b"=\"").or(rest.strip_prefix(b">"));
        if let Some(digit) = value.and_then(|value| value.first())
            && digit.is_ascii_digit()
        {
            return Some(u16::from(digit - b'0'));
        }
    }
    None
}

/// The picture turned upright; values other than 2 to 8 leave it as it is.
pub(super) fn apply(picture: Picture, orientation: u16) -> Result<Picture, Error> {
    let (width, height) = (picture.width(), picture.height());
    let (columns, rows) = (width as isize, height as isize);
    // Where the upright picture's first pixel lies, and the steps to its neighbours right and below.
    let (first, right, below) = match orientation {
        2 => (columns - 1, -1, columns),
        3 => (rows * columns - 1, -1, -columns),
        4 => ((rows - 1) * columns, 1, -columns),
        5 => (0, columns, 1),
        6 => ((rows - 1) * columns, -columns, 1),
        7 => (rows * columns - 1, -columns, -1),
        8 => (columns - 1, columns, -1),
        _ => return Ok(picture),
    };
    let (new_width, new_height) = if orientation >= 5 { (height, width) } else { (width, height) };
    let pixels = picture.rgb();
    let mut upright = Vec::with_capacity(pixels.len());
    for row in 0..new_height as isize {
        for column in 0..new_width as isize {
            let at = (first + row * below + column * right) as usize * 3;
            upright.extend_from_slice(&pixels[at..at + 3]);
        }
    }
    Picture::from_rgb(new_width, new_height, upright)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_eight_ways_round() {
        // 1 2 3
        // 4 5 6
        let picture = || Picture::from_rgb(3, 2, (1..=6).flat_map(|v| [v, v, v]).collect()).unwrap();
        let expected: [(u16, u32, [u8; 6]); 8] = [
            (1, 3, [1, 2, 3, 4, 5, 6]),
            (2, 3, [3, 2, 1, 6, 5, 4]),
            (3, 3, [6, 5, 4, 3, 2, 1]),
            (4, 3, [4, 5, 6, 1, 2, 3]),
            (5, 2, [1, 4, 2, 5, 3, 6]),
            (6, 2, [4, 1, 5, 2, 6, 3]),
            (7, 2, [6, 3, 5, 2, 4, 1]),
            (8, 2, [3, 6, 2, 5, 1, 4]),
        ];
        for (orientation, width, pixels) in expected {
            let upright = apply(picture(), orientation).unwrap();
            let found: Vec<u8> = upright.rgb().iter().step_by(3).copied().collect();
            assert_eq!((upright.width(), found.as_slice()), (width, pixels.as_slice()), "{orientation}");
        }
        assert_eq!(apply(picture(), 9).unwrap(), picture());
    }

    #[test]
    fn broken_exif_says_nothing() {
        let good = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0";
        assert_eq!(from_exif(good), Some(6));
        for end in 0..good.len() - 2 {
            assert_eq!(from_exif(&good[..end]), None, "{end}");
        }
        assert_eq!(from_exif(b"II\x2a\0\xff\xff\xff\xff"), None);
        assert_eq!(from_xmp(b"<x tiff:Orientation=\"8\">"), Some(8));
        assert_eq!(from_xmp(b"<tiff:Orientation>3<"), Some(3));
        assert_eq!(from_xmp(b"tiff:Orientation"), None);
    }
}
