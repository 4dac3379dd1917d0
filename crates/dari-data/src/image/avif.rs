//! AVIF by avif-parse and a Rust port of dav1d (cargo feature `avif`): single pictures, not grids; what the
//! container says of rotation is passed over. Chroma is taken from the nearest place.

use re_rav1d::dav1d::{self, Decoder, PixelLayout, PlanarImageComponent, Settings, pixel};

use super::decode::check_size;
use super::error::one_line;
use super::sniff::Format;
use super::{Error, Limits, Picture};

pub(super) fn decode(name: &str, bytes: &[u8], limits: &Limits) -> Result<Picture, Error> {
    let damaged = |detail: String| Error::Damaged {
        name: name.into(),
        format: Format::Avif.name(),
        detail: one_line(&detail),
    };
    let parsed = avif_parse::read_avif(&mut &bytes[..]).map_err(|error| damaged(error.to_string()))?;
    let header = parsed.primary_item_metadata().map_err(|error| damaged(error.to_string()))?;
    let (width, height) = (header.max_frame_width.get(), header.max_frame_height.get());
    check_size(name, Format::Avif, width.into(), height.into(), limits)?;
    let frame = frame(&parsed.primary_item, limits).map_err(|error| damaged(error.to_string()))?;
    to_rgb(&frame).ok_or_else(|| damaged("its planes do not fit its size".into()))
}

fn frame(data: &[u8], limits: &Limits) -> Result<dav1d::Picture, dav1d::Error> {
    let mut settings = Settings::new();
    settings.set_n_threads(1);
    settings.set_max_frame_delay(1);
    settings.set_frame_size_limit(u32::try_from(limits.max_pixels).unwrap_or(u32::MAX));
    let mut decoder = Decoder::with_settings(&settings)?;
    match decoder.send_data(data.to_vec(), None, None, None) {
        Ok(()) | Err(dav1d::Error::Again) => {}
        Err(error) => return Err(error),
    }
    loop {
        match decoder.get_picture() {
            Err(dav1d::Error::Again) => match decoder.send_pending_data() {
                Ok(()) | Err(dav1d::Error::Again) => {
                    // Everything was handed over: what does not come now never does.
                    return decoder.get_picture();
                }
                Err(error) => return Err(error),
            },
            other => return other,
        }
    }
}

fn to_rgb(frame: &dav1d::Picture) -> Option<Picture> {
    let (width, height) = (frame.width() as usize, frame.height() as usize);
    let depth = frame.bits_per_component()?.0;
    let layout = frame.pixel_layout();
    let wide = frame.bit_depth() > 8;
    let component = |which| (frame.plane(which), frame.stride(which) as usize);
    let y = component(PlanarImageComponent::Y);
    let colour = match layout {
        PixelLayout::I400 => None,
        _ => Some((component(PlanarImageComponent::U), component(PlanarImageComponent::V))),
    };
    let sample = |(plane, stride): &(dav1d::Plane, usize), x: usize, y: usize| -> Option<f32> {
        Some(match wide {
            true => {
                let at = y * stride + 2 * x;
                f32::from(u16::from_le_bytes([*plane.get(at)?, *plane.get(at + 1)?]))
            }
            false => f32::from(*plane.get(y * stride + x)?),
        })
    };
    let (half_x, half_y) = match layout {
        PixelLayout::I420 => (1, 1),
        PixelLayout::I422 => (1, 0),
        PixelLayout::I400 | PixelLayout::I444 => (0, 0),
    };
    let most = ((1u32 << depth) - 1) as f32;
    let unit = (1u32 << (depth - 8)) as f32;
    let full = frame.color_range() == pixel::YUVRange::Full;
    // Black and the span of brightness; the middle of colour is half of all values.
    let (black, span, colour_span) =
        if full { (0.0, most, most) } else { (16.0 * unit, 219.0 * unit, 224.0 * unit) };
    let middle = 128.0 * unit;
    let matrix = frame.matrix_coefficients();
    let (red, blue) = match matrix {
        pixel::MatrixCoefficients::BT709 => (0.2126, 0.0722),
        pixel::MatrixCoefficients::BT2020NonConstantLuminance
        | pixel::MatrixCoefficients::BT2020ConstantLuminance => (0.2627, 0.0593),
        _ => (0.299, 0.114),
    };
    let green = 1.0 - red - blue;
    let byte = |value: f32| (value * 255.0).round().clamp(0.0, 255.0) as u8;
    let mut rgb = Vec::with_capacity(width * height * 3);
    for row in 0..height {
        for column in 0..width {
            let light = (sample(&y, column, row)? - black) / span;
            let Some((u, v)) = &colour else {
                rgb.extend([byte(light); 3]);
                continue;
            };
            let (cx, cy) = (column >> half_x, row >> half_y);
            let (u, v) = (sample(u, cx, cy)?, sample(v, cx, cy)?);
            if matrix == pixel::MatrixCoefficients::Identity {
                let plain = |value: f32| byte((value - black) / span);
                rgb.extend([plain(v), byte(light), plain(u)]);
                continue;
            }
            let (u, v) = ((u - middle) / colour_span, (v - middle) / colour_span);
            let r = light + 2.0 * (1.0 - red) * v;
            let b = light + 2.0 * (1.0 - blue) * u;
            let g = (light - red * r - blue * b) / green;
            rgb.extend([byte(r), byte(g), byte(b)]);
        }
    }
    Picture::from_rgb(frame.width(), frame.height(), rgb).ok()
}
