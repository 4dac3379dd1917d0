//! What a file is, told from its bytes, and a walk over its outer frame: is it complete, and where
//! are its EXIF and XMP blocks. Nothing is decoded here.

use super::Error;

/// A picture format that is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Jpeg,
    Png,
    WebP,
    Gif,
    Bmp,
    Tiff,
    #[cfg(feature = "heic")]
    Heic,
    #[cfg(feature = "avif")]
    Avif,
}

impl Format {
    pub(super) fn name(self) -> &'static str {
        match self {
            Format::Jpeg => "JPEG",
            Format::Png => "PNG",
            Format::WebP => "WebP",
            Format::Gif => "GIF",
            Format::Bmp => "BMP",
            Format::Tiff => "TIFF",
            #[cfg(feature = "heic")]
            Format::Heic => "HEIC",
            #[cfg(feature = "avif")]
            Format::Avif => "AVIF",
        }
    }

    /// The format of a file's first bytes.
    pub(super) fn of(name: &str, bytes: &[u8]) -> Result<Format, Error> {
        const TIFFS: [&[u8]; 4] = [b"II\x2a\0", b"MM\0\x2a", b"II\x2b\0", b"MM\0\x2b"];
        let starts = |mark: &[u8]| bytes.starts_with(mark);
        #[cfg(feature = "avif")]
        if brand(bytes).is_some_and(|brand| AVIF.contains(&brand)) {
            return Ok(Format::Avif);
        }
        #[cfg(feature = "heic")]
        if brand(bytes).is_some_and(|brand| HEIC.contains(&brand)) {
            return Ok(Format::Heic);
        }
        if starts(b"\xff\xd8\xff") {
            Ok(Format::Jpeg)
        } else if starts(b"\x89PNG\r\n\x1a\n") {
            Ok(Format::Png)
        } else if starts(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") {
            Ok(Format::WebP)
        } else if starts(b"GIF87a") || starts(b"GIF89a") {
            Ok(Format::Gif)
        } else if starts(b"BM") && bytes.len() >= 26 {
            Ok(Format::Bmp)
        } else if TIFFS.iter().any(|mark| starts(mark)) {
            Ok(Format::Tiff)
        } else {
            Err(Error::NotPicture { name: name.into(), found: describe(bytes) })
        }
    }
}

/// Brands of an ISO media file that mean these formats.
const AVIF: [&[u8]; 2] = [b"avif", b"avis"];
const HEIC: [&[u8]; 6] = [b"heic", b"heix", b"heim", b"mif1", b"msf1", b"hevc"];

/// The brand of an ISO media file: its major one, or of the general ones' others the first that tells.
fn brand(bytes: &[u8]) -> Option<&[u8]> {
    if bytes.get(4..8) != Some(b"ftyp") {
        return None;
    }
    let major = bytes.get(8..12)?;
    let length = u32::from_be_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let others = bytes.get(16..length.min(bytes.len())).unwrap_or_default();
    match major {
        b"mif1" | b"msf1" => others.chunks_exact(4).find(|brand| AVIF.contains(brand)).or(Some(major)),
        _ => Some(major),
    }
}

/// The first bytes in hexadecimal, and the name of a format known but not read.
fn describe(bytes: &[u8]) -> String {
    let start: Vec<String> = bytes.iter().take(8).map(|b| format!("{b:02x}")).collect();
    let text = String::from_utf8_lossy(bytes.get(..bytes.len().min(512)).unwrap_or_default())
        .trim_start_matches('\u{feff}')
        .trim_start()
        .to_lowercase();
    let kind = if let Some(brand) = brand(bytes) {
        match brand {
            brand if AVIF.contains(&brand) => "AVIF, which a dari built with `--features avif` reads",
            brand if HEIC.contains(&brand) => "HEIC, which a dari built with `--features heic` reads",
            _ => "a video or other ISO media file",
        }
    } else if bytes.starts_with(b"%PDF") {
        "a PDF document"
    } else if bytes.starts_with(b"8BPS") {
        "a Photoshop document"
    } else if bytes.starts_with(b"\0\0\0\x0cJXL ") || bytes.starts_with(b"\xff\x0a") {
        "JPEG XL"
    } else if bytes.starts_with(b"\0\0\0\x0cjP  ") || bytes.starts_with(b"\xff\x4f\xff\x51") {
        "JPEG 2000"
    } else if bytes.starts_with(b"PK\x03\x04") {
        "a ZIP archive"
    } else if bytes.starts_with(b"\x1f\x8b") {
        "gzip data"
    } else if bytes.starts_with(b"\0\0\x01\0") {
        "an icon"
    } else if text.starts_with("<svg") || (text.starts_with("<?xml") && text.contains("<svg")) {
        "an SVG drawing"
    } else if text.starts_with("<!doctype html") || text.starts_with("<html") {
        "a web page, perhaps an error page saved as a picture"
    } else if text.starts_with("version https://git-lfs") {
        "a Git LFS pointer, whose file was not fetched"
    } else {
        return start.join(" ");
    };
    format!("{} ({kind})", start.join(" "))
}

/// What the walk over a file's outer frame found.
#[derive(Default)]
pub(super) struct Frame<'a> {
    pub(super) exif: Option<&'a [u8]>,
    pub(super) xmp: Option<&'a [u8]>,
}

/// Walks a JPEG, PNG or WebP file to its end mark.
pub(super) fn walk<'a>(name: &str, format: Format, bytes: &'a [u8]) -> Result<Frame<'a>, Error> {
    let mut frame = Frame::default();
    let complete = match format {
        Format::Jpeg => jpeg(bytes, &mut frame),
        Format::Png => png(bytes, &mut frame),
        Format::WebP => webp(bytes, &mut frame),
        Format::Gif | Format::Bmp | Format::Tiff => Some(()),
        // Their decoders tell.
        #[cfg(feature = "heic")]
        Format::Heic => Some(()),
        #[cfg(feature = "avif")]
        Format::Avif => Some(()),
    };
    match complete {
        Some(()) => Ok(frame),
        None => Err(Error::Truncated {
            name: name.into(),
            format: format.name(),
            detail: format!("its {} bytes end before its end mark", bytes.len()),
        }),
    }
}

/// Segment by segment to the end-of-image mark; `None` when the bytes end first.
fn jpeg<'a>(bytes: &'a [u8], frame: &mut Frame<'a>) -> Option<()> {
    let mut at = 2;
    loop {
        // To the next mark, over padding and stray bytes.
        at += bytes.get(at..)?.iter().position(|&byte| byte == 0xff)?;
        at += bytes.get(at..)?.iter().position(|&byte| byte != 0xff)?;
        let mark = *bytes.get(at)?;
        at += 1;
        match mark {
            0xd9 => return Some(()),
            0x00 | 0x01 | 0xd0..=0xd8 => continue,
            _ => {}
        }
        let length = usize::from(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
        let segment = bytes.get(at + 2..at + length.max(2))?;
        if mark == 0xe1 {
            if segment.starts_with(b"Exif\0\0") {
                frame.exif.get_or_insert(segment);
            } else if let Some(xmp) = segment.strip_prefix(b"http://ns.adobe.com/xap/1.0/\0") {
                frame.xmp.get_or_insert(xmp);
            }
        }
        at += length.max(2);
    }
}

/// Chunk by chunk to `IEND`; `None` when the bytes end first.
fn png<'a>(bytes: &'a [u8], frame: &mut Frame<'a>) -> Option<()> {
    let mut at = 8usize;
    loop {
        let length = u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?);
        let kind = bytes.get(at + 4..at + 8)?;
        let end = (at + 8).checked_add(usize::try_from(length).ok()?)?;
        let data = bytes.get(at + 8..end)?;
        bytes.get(end..end.checked_add(4)?)?;
        match kind {
            b"IEND" => return Some(()),
            b"eXIf" => frame.exif = Some(data),
            b"iTXt" => {
                // Keyword, then two zeros: not compressed, method 0.
                if let Some(xmp) = data.strip_prefix(b"XML:com.adobe.xmp\0\0\0") {
                    frame.xmp = Some(xmp);
                }
            }
            _ => {}
        }
        at = end + 4;
    }
}

/// Chunk by chunk to the end that the header names; `None` when the bytes end first.
fn webp<'a>(bytes: &'a [u8], frame: &mut Frame<'a>) -> Option<()> {
    let size = usize::try_from(u32::from_le_bytes(bytes.get(4..8)?.try_into().ok()?)).ok()?;
    let body = bytes.get(..size.checked_add(8)?)?;
    let mut at = 12usize;
    while let Some(header) = body.get(at..at + 8) {
        let length = u32::from_le_bytes(header.get(4..8)?.try_into().ok()?);
        let end = (at + 8).checked_add(usize::try_from(length).ok()?)?;
        let data = body.get(at + 8..end)?;
        match &header[..4] {
            b"EXIF" => frame.exif = Some(data),
            b"XMP " => frame.xmp = Some(data),
            _ => {}
        }
        at = end.checked_add(end % 2)?;
    }
    Some(())
}
