//! From a file's bytes to a [`Picture`]: what
//! `ImageOps.exif_transpose(Image.open(file)).convert("RGB")` gives in Pillow 13.
//!
//! Pillow's conventions that are kept: alpha and transparent colours are dropped, not blended; of 16
//! bits a channel the high byte is kept, but 16-bit and floating grey is cut to 0 to 255; CMYK in a
//! JPEG is taken as inverted; an animation gives its first frame.
//!
//! All formats give the same bytes as Pillow; JPEG by [`jpeg`], which rounds as libjpeg-turbo does. Not
//! read, unlike in Pillow: arithmetic-coded, lossless and 12-bit JPEG; TIFF as BigTIFF with a palette, in
//! Lab, with 12 bits, or with YCbCr that is subsampled without JPEG; a PNG's orientation in a text chunk.
//! The few kinds of JPEG that [`jpeg`] leaves out (sampling factors whose ratios are no whole numbers,
//! progressive files that end unfinished) are decoded by zune-jpeg, which rounds otherwise.
//!
//! A JPEG, PNG or WebP must be whole to its end mark (of what follows a GIF's first frame nothing is
//! asked).

use std::fs::File;
use std::io::{Cursor, ErrorKind, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use ::image::codecs::bmp::BmpDecoder;
use ::image::codecs::gif::GifDecoder;
use ::image::codecs::jpeg::JpegDecoder;
use ::image::codecs::png::PngDecoder;
use ::image::codecs::webp::WebPDecoder;
use ::image::{ColorType, ImageDecoder, ImageError, Limits as DecoderLimits};

use super::error::one_line;
use super::gif::FirstFrame;
use super::jpeg::{self, Scale};
use super::sniff::{Format, walk};
use super::{Error, Picture, orientation, tiff};

/// How large a picture may be; told from its header before anything is decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Widest picture, in pixels.
    pub max_width: u32,
    /// Tallest picture, in pixels.
    pub max_height: u32,
    /// Most pixels in all; it also bounds the memory a decoder may take, at some 16 bytes a pixel.
    pub max_pixels: u64,
    /// Largest file, in bytes.
    pub max_file_bytes: u64,
}

impl Default for Limits {
    /// 65,535 pixels a side, 89,478,485 pixels (where Pillow warns of a decompression bomb), 512 MiB.
    fn default() -> Limits {
        Limits { max_width: 65_535, max_height: 65_535, max_pixels: 89_478_485, max_file_bytes: 512 << 20 }
    }
}

impl Limits {
    /// Bytes a decoder may allocate.
    pub(super) fn memory(&self) -> u64 {
        self.max_pixels.saturating_mul(16).saturating_add(64 << 20)
    }
}

/// How large a picture of a height and a width, upright, is needed: height and width.
pub type Need<'a> = &'a dyn Fn(u32, u32) -> (u32, u32);

/// Reads and decodes a picture file; the format is told from its content.
///
/// # Errors
/// Any of [`Error`]'s variants about files; each names the file.
pub fn open(path: &Path, limits: &Limits) -> Result<Picture, Error> {
    open_for(path, limits, None)
}

/// The same, where `need` says how large a picture is needed: a JPEG is decoded at a half, a quarter or an
/// eighth of its size as long as it stays at least twice that.
///
/// # Errors
/// As [`open`].
pub fn open_for(path: &Path, limits: &Limits, need: Option<Need<'_>>) -> Result<Picture, Error> {
    let name = path.display().to_string();
    let fail = |source| Error::Read { name: name.clone(), source };
    let file = File::open(path).map_err(fail)?;
    let size = file.metadata().map_err(fail)?.len();
    if size > limits.max_file_bytes {
        return Err(Error::FileTooLarge { name, found: size, limit: limits.max_file_bytes });
    }
    let mut bytes = Vec::new();
    // A file may grow, and a pipe has no size: the limit holds for what is read, too.
    file.take(limits.max_file_bytes.saturating_add(1)).read_to_end(&mut bytes).map_err(fail)?;
    decode_for(&name, &bytes, limits, need)
}

/// Decodes a picture from memory; `name` is for messages.
///
/// A panic inside a decoder crate becomes [`Error::Damaged`] (the process's panic hook still sees it).
///
/// # Errors
/// Any of [`Error`]'s variants about files; each gives `name`.
pub fn decode(name: &str, bytes: &[u8], limits: &Limits) -> Result<Picture, Error> {
    decode_for(name, bytes, limits, None)
}

/// The same, as large as needed; see [`open_for`].
///
/// # Errors
/// As [`decode`].
pub fn decode_for(
    name: &str,
    bytes: &[u8],
    limits: &Limits,
    need: Option<Need<'_>>,
) -> Result<Picture, Error> {
    if bytes.is_empty() {
        return Err(Error::Empty { name: name.into() });
    }
    if bytes.len() as u64 > limits.max_file_bytes {
        return Err(Error::FileTooLarge {
            name: name.into(),
            found: bytes.len() as u64,
            limit: limits.max_file_bytes,
        });
    }
    let format = Format::of(name, bytes)?;
    let attempt = AssertUnwindSafe(|| decode_as(name, format, bytes, limits, need));
    match catch_unwind(attempt) {
        Ok(result) => result,
        Err(panic) => {
            let detail = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or(panic.downcast_ref::<&str>().copied())
                .unwrap_or("no reason given");
            Err(Error::Damaged {
                name: name.into(),
                format: format.name(),
                detail: format!("{PANICKED} ({})", one_line(detail)),
            })
        }
    }
}

/// How the message of a decoder that panicked begins.
const PANICKED: &str = "its decoder gave up";

fn decode_as(
    name: &str,
    format: Format,
    bytes: &[u8],
    limits: &Limits,
    need: Option<Need<'_>>,
) -> Result<Picture, Error> {
    let frame = walk(name, format, bytes)?;
    let orientation = || {
        let exif = frame.exif.and_then(orientation::from_exif);
        exif.or_else(|| frame.xmp.and_then(orientation::from_xmp)).unwrap_or(1)
    };
    let fail = |error| convert(name, format, error);
    let input = || Cursor::new(bytes);
    let picture = match format {
        Format::Jpeg => {
            // From 5 on a picture lies on its side.
            let turned = orientation() >= 5;
            match decode_jpeg(name, bytes, limits, need, turned)? {
                Some(picture) => picture,
                None => {
                    let (width, height, samples) = run(name, format, limits, JpegDecoder::new(input()))?;
                    to_picture(width, height, samples, false)?
                }
            }
        }
        Format::Png => {
            // The header's colour type 0 is grey; a transparent colour makes the decoder add alpha.
            let grey = bytes.get(25) == Some(&0);
            let header: Option<[u8; 8]> = bytes.get(16..24).and_then(|size| size.try_into().ok());
            if let Some([a, b, c, d, e, f, g, h]) = header {
                let width = u32::from_be_bytes([a, b, c, d]);
                let height = u32::from_be_bytes([e, f, g, h]);
                check_size(name, format, width.into(), height.into(), limits)?;
            }
            let decoder = PngDecoder::with_limits(input(), decoder_limits(limits));
            let (width, height, samples) = run(name, format, limits, decoder)?;
            to_picture(width, height, samples, grey)?
        }
        Format::WebP => {
            let (width, height, samples) = run(name, format, limits, WebPDecoder::new(input()))?;
            to_picture(width, height, samples, false)?
        }
        Format::Gif => decode_gif(name, bytes, limits)?,
        Format::Bmp => {
            let decoder = BmpDecoder::new(input()).map_err(fail)?;
            let (width, height, samples) = run(name, format, limits, Ok(decoder))?;
            let mut picture = to_picture(width, height, samples, false)?.into_rgb();
            respread(bytes, &mut picture);
            Picture::from_rgb(width, height, picture)?
        }
        #[cfg(feature = "heic")]
        Format::Heic => return super::heic::decode(name, bytes, limits),
        #[cfg(feature = "avif")]
        Format::Avif => return super::avif::decode(name, bytes, limits),
        Format::Tiff => {
            let (picture, orientation) = tiff::decode(name, bytes, limits)?;
            return orientation::apply(picture, orientation);
        }
    };
    orientation::apply(picture, orientation())
}

/// A JPEG at the smallest scale that serves; nothing where another decoder has to be asked.
fn decode_jpeg(
    name: &str,
    bytes: &[u8],
    limits: &Limits,
    need: Option<Need<'_>>,
    turned: bool,
) -> Result<Option<Picture>, Error> {
    let format = Format::Jpeg;
    let damaged = |detail: String| Error::Damaged { name: name.into(), format: format.name(), detail };
    let header = match jpeg::header(bytes) {
        Ok(header) => header,
        Err(jpeg::Error::Unsupported(_)) => return Ok(None),
        Err(error) => return Err(damaged(error.to_string())),
    };
    let (width, height) = (header.width, header.height);
    check_size(name, format, width.into(), height.into(), limits)?;
    let scale = need.map_or(Scale::Whole, |need| {
        let (down, across) = match turned {
            true => {
                let (across, down) = need(width, height);
                (down, across)
            }
            false => need(height, width),
        };
        let serves = |scale: &Scale| {
            let part = |length: u32| u64::from(length).div_ceil(scale.denominator() as u64);
            part(height) >= 2 * u64::from(down) && part(width) >= 2 * u64::from(across)
        };
        Scale::ALL.into_iter().find(serves).unwrap_or(Scale::Whole)
    });
    let most = usize::try_from(limits.memory()).unwrap_or(usize::MAX);
    match jpeg::decode(bytes, scale, most) {
        Ok(decoded) => Ok(Some(Picture::from_rgb(decoded.width, decoded.height, decoded.pixels)?)),
        Err(jpeg::Error::Unsupported(_)) => Ok(None),
        Err(error) => Err(damaged(error.to_string())),
    }
}

/// The decoder's samples, after its size has been checked.
fn run<D: ImageDecoder>(
    name: &str,
    format: Format,
    limits: &Limits,
    decoder: Result<D, ImageError>,
) -> Result<(u32, u32, Samples), Error> {
    let fail = |error| convert(name, format, error);
    let mut decoder = decoder.map_err(fail)?;
    let (width, height) = decoder.dimensions();
    check_size(name, format, width.into(), height.into(), limits)?;
    decoder.set_limits(decoder_limits(limits)).map_err(fail)?;
    let color = decoder.color_type();
    let size = usize::try_from(decoder.total_bytes().min(limits.memory())).unwrap_or(usize::MAX);
    let mut bytes = vec![0; size];
    decoder.read_image(&mut bytes).map_err(fail)?;
    Ok((width, height, Samples { color, bytes }))
}

/// Decoded samples, 16-bit ones in the machine's byte order.
struct Samples {
    color: ColorType,
    bytes: Vec<u8>,
}

fn to_picture(width: u32, height: u32, samples: Samples, grey: bool) -> Result<Picture, Error> {
    let Samples { color, bytes } = samples;
    let word = |pair: &[u8]| u16::from_ne_bytes([pair[0], pair[1]]);
    let high = |pair: &[u8]| (word(pair) >> 8) as u8;
    let low = |pair: &[u8]| word(pair).min(255) as u8;
    let rgb: Vec<u8> = match color {
        ColorType::L8 => bytes.iter().flat_map(|&v| [v; 3]).collect(),
        ColorType::La8 => bytes.chunks_exact(2).flat_map(|p| [p[0]; 3]).collect(),
        ColorType::Rgb8 => bytes,
        ColorType::Rgba8 => bytes.chunks_exact(4).flat_map(|p| [p[0], p[1], p[2]]).collect(),
        ColorType::L16 => bytes.chunks_exact(2).flat_map(|p| [low(p); 3]).collect(),
        ColorType::La16 if grey => bytes.chunks_exact(4).flat_map(|p| [low(p); 3]).collect(),
        ColorType::La16 => bytes.chunks_exact(4).flat_map(|p| [high(p); 3]).collect(),
        ColorType::Rgb16 => bytes.chunks_exact(2).map(high).collect(),
        ColorType::Rgba16 => {
            bytes.chunks_exact(8).flat_map(|p| [high(&p[..2]), high(&p[2..4]), high(&p[4..6])]).collect()
        }
        // No decoder above yields another type; the length check below would tell.
        _ => Vec::new(),
    };
    Picture::from_rgb(width, height, rgb)
}

fn decode_gif(name: &str, bytes: &[u8], limits: &Limits) -> Result<Picture, Error> {
    let format = Format::Gif;
    let first = FirstFrame::read(bytes).ok_or_else(|| Error::Truncated {
        name: name.into(),
        format: format.name(),
        detail: format!("its {} bytes end before its first frame does", bytes.len()),
    })?;
    let (width, height) = first.size();
    check_size(name, format, width.into(), height.into(), limits)?;
    let mut widened = Vec::new();
    let mut bytes = bytes;
    if (width, height) != first.screen {
        widened.extend_from_slice(bytes);
        for (at, side) in [(6, width), (8, height)] {
            // Each side is at most twice 65,535; past the 16 bits of the header the frame is nonsense.
            let side = u16::try_from(side).map_err(|_| Error::Damaged {
                name: name.into(),
                format: format.name(),
                detail: format!("its first frame reaches to {width} x {height} pixels"),
            })?;
            if let Some(place) = widened.get_mut(at..at + 2) {
                place.copy_from_slice(&side.to_le_bytes());
            }
        }
        bytes = &widened;
    }
    let decoder = GifDecoder::new(Cursor::new(bytes));
    let (width, height, samples) = run(name, format, limits, decoder)?;
    let mut rgb = to_picture(width, height, samples, false)?.into_rgb();
    first.fill_around(width, &mut rgb);
    Picture::from_rgb(width, height, rgb)
}

/// The decoder spreads 5- and 6-bit samples of a 16-bit BMP over 0 to 255 by rounding, Pillow by
/// cutting.
fn respread(bytes: &[u8], rgb: &mut [u8]) {
    if bytes.get(14) == Some(&12) || bytes.get(28..30) != Some(&[16, 0]) {
        return;
    }
    // Compression 3 gives the masks; green has 6 bits in 5-6-5.
    let masks = bytes.get(30) == Some(&3);
    let green_max = if masks && bytes.get(58..62) == Some(&[0xe0, 0x07, 0, 0]) { 63 } else { 31 };
    let spread = |value: &mut u8, max: u32| {
        let level = (u32::from(*value) * max + 127) / 255;
        *value = (level * 255 / max) as u8;
    };
    for pixel in rgb.chunks_exact_mut(3) {
        if let [red, green, blue] = pixel {
            spread(red, 31);
            spread(green, green_max);
            spread(blue, 31);
        }
    }
}

fn decoder_limits(limits: &Limits) -> DecoderLimits {
    let mut decoder = DecoderLimits::default();
    decoder.max_image_width = Some(limits.max_width);
    decoder.max_image_height = Some(limits.max_height);
    decoder.max_alloc = Some(limits.memory());
    decoder
}

/// Refuses a size over the limits, or of no pixels.
pub(super) fn check_size(
    name: &str,
    format: Format,
    width: u64,
    height: u64,
    limits: &Limits,
) -> Result<(), Error> {
    let refuse = |limit: String, option| {
        Err(Error::TooLarge { name: name.into(), format: format.name(), width, height, limit, option })
    };
    if width == 0 || height == 0 {
        Err(Error::Damaged {
            name: name.into(),
            format: format.name(),
            detail: format!("its header gives {width} x {height} pixels"),
        })
    } else if width > u64::from(limits.max_width) {
        refuse(format!("{} across", limits.max_width), "max_width")
    } else if height > u64::from(limits.max_height) {
        refuse(format!("{} down", limits.max_height), "max_height")
    } else if width.saturating_mul(height) > limits.max_pixels {
        refuse(format!("{} pixels in all", limits.max_pixels), "max_pixels")
    } else {
        Ok(())
    }
}

fn convert(name: &str, format: Format, error: ImageError) -> Error {
    let name = name.to_string();
    let mut detail = one_line(&error.to_string());
    let format = format.name();
    let lower = detail.to_lowercase();
    let ended = ["unexpected eof", "unexpected end", "failed to fill", "no more data"]
        .iter()
        .any(|sign| lower.contains(sign));
    match error {
        ImageError::IoError(error) if error.kind() == ErrorKind::UnexpectedEof => {
            Error::Truncated { name, format, detail: "its data end too soon".into() }
        }
        ImageError::Unsupported(_) => Error::Unsupported { name, format, detail },
        ImageError::Limits(_) => {
            detail = "decoding it would take more memory than its size in pixels allows".into();
            Error::Damaged { name, format, detail }
        }
        _ if ended => Error::Truncated { name, format, detail },
        _ => Error::Damaged { name, format, detail },
    }
}
