//! HEIC by the heic-decoder crate (cargo feature `heic`). What the container says of rotation and cropping
//! is followed, EXIF's orientation is not, as in pillow-heif; chroma is interpolated.

use super::decode::check_size;
use super::error::one_line;
use super::sniff::Format;
use super::{Error, Limits, Picture};

pub(super) fn decode(name: &str, bytes: &[u8], limits: &Limits) -> Result<Picture, Error> {
    let damaged = |error: heic_decoder::HeifError| Error::Damaged {
        name: name.into(),
        format: Format::Heic.name(),
        detail: one_line(&error.to_string()),
    };
    let header = heic_decoder::probe(bytes).map_err(damaged)?;
    for (width, height) in [(header.width, header.height), (header.coded_width, header.coded_height)] {
        check_size(name, Format::Heic, width as u64, height as u64, limits)?;
    }
    let rgb = heic_decoder::decode(bytes).and_then(|decoded| decoded.to_rgb8()).map_err(damaged)?;
    let side = |side: usize| u32::try_from(side).unwrap_or(0);
    Picture::from_rgb(side(rgb.width), side(rgb.height), rgb.data)
}
