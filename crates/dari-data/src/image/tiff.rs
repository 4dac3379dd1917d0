//! TIFF through the `tiff` crate directly: `image` turns CMYK into RGB by another rounding than Pillow
//! and reads no palettes.

use std::borrow::Cow;
use std::io::{Cursor, ErrorKind};

use ::tiff::decoder::{Decoder, DecodingResult, Limits as TiffLimits};
use ::tiff::tags::Tag;
use ::tiff::{ColorType, TiffError};

use super::decode::{Limits, check_size};
use super::error::one_line;
use super::orientation;
use super::sniff::Format;
use super::{Error, Picture};

const BLACK_IS_ZERO: u8 = 1;
const PALETTE: u16 = 3;
const PHOTOMETRIC: u16 = 262;
const XMP: u16 = 700;

/// The first page and its orientation.
pub(super) fn decode(name: &str, bytes: &[u8], limits: &Limits) -> Result<(Picture, u16), Error> {
    let fail = |error| convert(name, error);
    let mut bytes = Cow::Borrowed(bytes);
    let mut decoder = Decoder::new(Cursor::new(bytes.as_ref())).map_err(fail)?;
    let (width, height) = decoder.dimensions().map_err(fail)?;
    check_size(name, Format::Tiff, u64::from(width), u64::from(height), limits)?;
    let memory = tiff_limits(limits);
    decoder = decoder.with_limits(memory.clone());
    let photometric: Option<u16> = decoder.find_tag_unsigned(Tag::PhotometricInterpretation).map_err(fail)?;
    let mut palette = None;
    if photometric == Some(PALETTE) {
        palette = Some(decoder.get_tag_u16_vec(Tag::ColorMap).map_err(fail)?);
        // The crate reads palette indices only as grey: say that they are.
        relabel(bytes.to_mut()).ok_or_else(|| unsupported(name, "palette in a BigTIFF"))?;
        decoder = Decoder::new(Cursor::new(bytes.as_ref())).map_err(fail)?.with_limits(memory);
    }
    let orientation = match decoder.find_tag_unsigned::<u16>(Tag::Orientation).map_err(fail)? {
        Some(value) => value,
        None => decoder
            .get_tag_u8_vec(Tag::Unknown(XMP))
            .ok()
            .and_then(|xmp| orientation::from_xmp(&xmp))
            .unwrap_or(1),
    };
    let extra: Vec<u16> = decoder.find_tag_unsigned_vec(Tag::ExtraSamples).map_err(fail)?.unwrap_or_default();
    let color = decoder.colortype().map_err(fail)?;
    let mut samples = DecodingResult::U8(Vec::new());
    let layout = decoder.read_image_to_buffer(&mut samples).map_err(fail)?;
    let pixels = width as usize * height as usize;
    let planes = if layout.planes > 1 { layout.planes } else { 1 };

    let rgb = match (color, palette) {
        (ColorType::Gray(bits @ (1 | 2 | 4 | 8)), palette) => {
            let DecodingResult::U8(packed) = samples else {
                return Err(unsupported(name, &format!("{color:?} with signed samples")));
            };
            let indices = unpack(&packed, bits, width as usize, pixels);
            match palette {
                Some(map) => look_up(&indices, &map, bits),
                None => {
                    let scale = 255 / ((1u16 << bits) - 1);
                    indices.iter().flat_map(|&value| [(u16::from(value) * scale) as u8; 3]).collect()
                }
            }
        }
        (_, Some(_)) => return Err(unsupported(name, &format!("palette of {color:?}"))),
        (ColorType::Gray(_), None) => {
            let grey = clip(samples).ok_or_else(|| unsupported(name, &format!("{color:?}")))?;
            grey.iter().flat_map(|&value| [value; 3]).collect()
        }
        (color, None) => {
            let (channels, kind) = match color {
                ColorType::Multiband { bit_depth: 8, num_samples: 2 } => (2, Kind::Grey),
                ColorType::RGB(8 | 16) => (3, Kind::Rgb),
                ColorType::RGBA(8 | 16) if extra.first() == Some(&1) => (4, Kind::Premultiplied),
                ColorType::RGBA(8 | 16) => (4, Kind::Rgb),
                ColorType::CMYK(8 | 16) => (4, Kind::Cmyk),
                ColorType::CMYKA(8 | 16) => (5, Kind::Cmyk),
                ColorType::YCbCr(8) => (3, Kind::YCbCr),
                other => return Err(unsupported(name, &format!("{other:?}"))),
            };
            let bytes = match samples {
                DecodingResult::U8(bytes) => bytes,
                // Pillow keeps the high byte.
                DecodingResult::U16(words) => words.iter().map(|word| (word >> 8) as u8).collect(),
                _ => return Err(unsupported(name, &format!("{color:?} with signed samples"))),
            };
            to_rgb(&bytes, pixels, channels, planes, kind)
        }
    };
    // A reader that gave fewer samples than the header promised gave a cut picture.
    if rgb.len() != pixels * 3 {
        return Err(Error::Truncated {
            name: name.into(),
            format: "TIFF",
            detail: format!("{} of {pixels} pixels are there", rgb.len() / 3),
        });
    }
    Ok((Picture::from_rgb(width, height, rgb)?, orientation))
}

fn tiff_limits(limits: &Limits) -> TiffLimits {
    let memory = usize::try_from(limits.memory()).unwrap_or(usize::MAX);
    let mut tiff = TiffLimits::default();
    tiff.decoding_buffer_size = memory;
    tiff.intermediate_buffer_size = memory;
    tiff
}

/// Turns photometric interpretation 3 (palette) into 1 (grey) in the first directory.
fn relabel(bytes: &mut [u8]) -> Option<()> {
    let little = match bytes.get(..4)? {
        b"II\x2a\0" => true,
        b"MM\0\x2a" => false,
        _ => return None,
    };
    let number = |bytes: &[u8], at: usize, len: usize| -> Option<usize> {
        let part = bytes.get(at..at.checked_add(len)?)?;
        let fold = |sum: usize, byte: &u8| sum << 8 | usize::from(*byte);
        Some(if little { part.iter().rev().fold(0, fold) } else { part.iter().fold(0, fold) })
    };
    let directory = number(bytes, 4, 4)?;
    let entries = number(bytes, directory, 2)?;
    for entry in 0..entries {
        let at = directory.checked_add(2)?.checked_add(entry * 12)?;
        if number(bytes, at, 2)? == usize::from(PHOTOMETRIC) {
            let value = bytes.get_mut(at + 8..at + 10)?;
            value.copy_from_slice(&if little { [BLACK_IS_ZERO, 0] } else { [0, BLACK_IS_ZERO] });
            return Some(());
        }
    }
    None
}

/// One byte a sample out of rows packed `bits` to a sample, each row beginning on a byte.
fn unpack(packed: &[u8], bits: u8, width: usize, pixels: usize) -> Vec<u8> {
    if bits == 8 {
        return packed.get(..pixels).unwrap_or(packed).to_vec();
    }
    let (bits, mask) = (usize::from(bits), (1u8 << bits) - 1);
    let row_bytes = (width * bits).div_ceil(8);
    let mut out = Vec::with_capacity(pixels);
    for row in packed.chunks_exact(row_bytes).take(pixels / width) {
        out.extend((0..width).map(|column| {
            let bit = column * bits;
            row[bit / 8] >> (8 - bits - bit % 8) & mask
        }));
    }
    out
}

/// Colours from a map of all reds, all greens, all blues, 16 bits each, of which Pillow keeps the high
/// byte; an index past the map is black.
fn look_up(indices: &[u8], map: &[u16], bits: u8) -> Vec<u8> {
    let colours = 1usize << bits;
    let colour = |index: u8, channel: usize| {
        map.get(channel * colours + usize::from(index)).map_or(0, |value| (value >> 8) as u8)
    };
    indices.iter().flat_map(|&index| [colour(index, 0), colour(index, 1), colour(index, 2)]).collect()
}

/// Grey deeper than 8 bits: Pillow cuts it to 0 to 255, it does not scale.
fn clip(samples: DecodingResult) -> Option<Vec<u8>> {
    Some(match samples {
        DecodingResult::U16(v) => v.iter().map(|&x| x.min(255) as u8).collect(),
        DecodingResult::U32(v) => v.iter().map(|&x| x.min(255) as u8).collect(),
        DecodingResult::I16(v) => v.iter().map(|&x| x.clamp(0, 255) as u8).collect(),
        DecodingResult::I32(v) => v.iter().map(|&x| x.clamp(0, 255) as u8).collect(),
        // `as` cuts the fraction and sends what is not a number to 0.
        DecodingResult::F32(v) => v.iter().map(|&x| x as u8).collect(),
        _ => return None,
    })
}

#[derive(Clone, Copy)]
enum Kind {
    Grey,
    Rgb,
    Premultiplied,
    Cmyk,
    YCbCr,
}

fn to_rgb(samples: &[u8], pixels: usize, channels: usize, planes: usize, kind: Kind) -> Vec<u8> {
    if samples.len() < pixels * channels {
        return Vec::new();
    }
    let mut out = Vec::with_capacity(pixels * 3);
    for pixel in 0..pixels {
        let sample = |channel: usize| match planes {
            1 => samples[pixel * channels + channel],
            _ => samples[channel * pixels + pixel],
        };
        let [a, b, c] = [sample(0), sample(1 % channels), sample(2 % channels)];
        out.extend_from_slice(&match kind {
            Kind::Grey => [a; 3],
            Kind::Rgb => [a, b, c],
            Kind::Premultiplied => match sample(3) {
                0 => [0; 3],
                alpha => [a, b, c].map(|x| (u32::from(x) * 255 / u32::from(alpha)).min(255) as u8),
            },
            Kind::Cmyk => {
                let light = 255 - u32::from(sample(3));
                [a, b, c].map(|ink| {
                    let product = u32::from(ink) * light + 128;
                    light.saturating_sub(((product >> 8) + product) >> 8) as u8
                })
            }
            Kind::YCbCr => {
                let (y, cb, cr) = (f32::from(a), f32::from(b) - 128.0, f32::from(c) - 128.0);
                [y + 1.402 * cr, y - 0.344_136 * cb - 0.714_136 * cr, y + 1.772 * cb].map(|x| x.round() as u8)
            }
        });
    }
    out
}

fn unsupported(name: &str, detail: &str) -> Error {
    Error::Unsupported { name: name.into(), format: "TIFF", detail: detail.into() }
}

fn convert(name: &str, error: TiffError) -> Error {
    let (name, format, detail) = (name.to_string(), "TIFF", one_line(&error.to_string()));
    match error {
        TiffError::IoError(error) if error.kind() == ErrorKind::UnexpectedEof => {
            Error::Truncated { name, format, detail: "its data end too soon".into() }
        }
        TiffError::UnsupportedError(_) => Error::Unsupported { name, format, detail },
        TiffError::LimitsExceeded => Error::Damaged {
            name,
            format,
            detail: "decoding it would take more memory than its size in pixels allows".into(),
        },
        _ => Error::Damaged { name, format, detail },
    }
}
