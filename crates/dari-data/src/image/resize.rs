//! Pillow's `Image.resize` on RGB bytes, bit for bit.
//!
//! A horizontal and a vertical pass, each rounding to 8 bits; the filter widens with the
//! reduction (antialias), its weights are computed in f64, scaled to 22-bit fixed point and summed in
//! 32-bit integers. Source: `Resample.c` and `Geometry.c` of Pillow 13.

use dari_kernels::resample::{FRACTION_BITS, Plane, Taps, along_rows, down_columns};

use super::{Error, Picture};

/// The longest side a resized picture may be asked to have.
pub const MAX_SIDE: u32 = 65_535;

/// A resampling filter, with Pillow's number for it (`PIL.Image.Resampling`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// The pixel under the target pixel's centre; no antialias.
    Nearest,
    /// Mean over the area.
    Box,
    /// Triangle.
    Bilinear,
    /// Hamming-windowed sinc of support 1.
    Hamming,
    /// Cubic convolution with a = -0.5 (Keys, 1981).
    Bicubic,
    /// Sinc windowed by sinc, support 3.
    Lanczos,
}

impl Filter {
    /// All six.
    pub const ALL: [Filter; 6] =
        [Filter::Nearest, Filter::Lanczos, Filter::Bilinear, Filter::Bicubic, Filter::Box, Filter::Hamming];

    /// The filter of Pillow's number 0 to 5.
    pub fn from_pillow(number: u64) -> Option<Filter> {
        Filter::ALL.get(usize::try_from(number).ok()?).copied()
    }

    /// Pillow's number.
    pub fn to_pillow(self) -> u64 {
        match self {
            Filter::Nearest => 0,
            Filter::Lanczos => 1,
            Filter::Bilinear => 2,
            Filter::Bicubic => 3,
            Filter::Box => 4,
            Filter::Hamming => 5,
        }
    }

    /// Half the filter's width at scale 1, in pixels.
    fn support(self) -> f64 {
        match self {
            Filter::Nearest => 0.0,
            Filter::Box => 0.5,
            Filter::Bilinear | Filter::Hamming => 1.0,
            Filter::Bicubic => 2.0,
            Filter::Lanczos => 3.0,
        }
    }

    fn weight(self, x: f64) -> f64 {
        use std::f64::consts::PI;
        let sinc = |x: f64| {
            if x == 0.0 { 1.0 } else { (x * PI).sin() / (x * PI) }
        };
        let distance = x.abs();
        match self {
            Filter::Nearest => 0.0,
            Filter::Box => f64::from(u8::from(x > -0.5 && x <= 0.5)),
            Filter::Bilinear => (1.0 - distance).max(0.0),
            Filter::Hamming if distance == 0.0 => 1.0,
            Filter::Hamming if distance >= 1.0 => 0.0,
            Filter::Hamming => {
                // The two constants are single precision in the reference.
                let angle = distance * PI;
                angle.sin() / angle * (f64::from(0.54_f32) + f64::from(0.46_f32) * angle.cos())
            }
            Filter::Bicubic if distance < 1.0 => (1.5 * distance - 2.5) * distance * distance + 1.0,
            Filter::Bicubic if distance < 2.0 => {
                (((distance - 5.0) * distance + 8.0) * distance - 4.0) * -0.5
            }
            Filter::Bicubic => 0.0,
            Filter::Lanczos if (-3.0..3.0).contains(&x) => sinc(x) * sinc(x / 3.0),
            Filter::Lanczos => 0.0,
        }
    }
}

/// The part of a resized picture that is wanted, in the resized picture's pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// First column.
    pub left: u32,
    /// First row.
    pub top: u32,
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

/// The picture at `width` x `height` pixels, as Pillow's `Image.resize((width, height), filter)`.
///
/// # Errors
/// [`Error::Config`] when a side is 0 or above [`MAX_SIDE`].
pub fn resize(picture: &Picture, width: u32, height: u32, filter: Filter) -> Result<Picture, Error> {
    for (field, side) in [("width", width), ("height", height)] {
        if side == 0 || side > MAX_SIDE {
            return Err(Error::Config {
                field: format!("the {field} to resize to"),
                found: side.to_string(),
                expected: format!("1 to {MAX_SIDE} pixels"),
            });
        }
    }
    let whole = Window { left: 0, top: 0, width, height };
    Picture::from_rgb(width, height, resize_window(picture, width, height, filter, whole))
}

/// The bytes `[window.height, window.width, 3]` of the window of `picture` resized to
/// `width` x `height`: the same bytes as resizing whole and cropping, without the work and the memory
/// of what the crop discards. The window lies within the resized picture.
pub(super) fn resize_window(
    picture: &Picture,
    width: u32,
    height: u32,
    filter: Filter,
    window: Window,
) -> Vec<u8> {
    let columns = window.width as usize;
    let rows = window.height as usize;
    let mut out = vec![0u8; columns * rows * 3];
    if out.is_empty() {
        return out;
    }
    if filter == Filter::Nearest || (width, height) == (picture.width(), picture.height()) {
        pick(picture, width, height, window, &mut out);
        return out;
    }
    let across = taps(filter, picture.width(), width, window.left, window.width);
    let down = taps(filter, picture.height(), height, window.top, window.height);
    let source = Plane { bytes: picture.rgb(), columns: picture.width() as usize };
    // As the reference does, a pass is skipped where the size does not change.
    if width == picture.width() {
        let left = window.left as usize;
        down_columns(source, left, columns, &down, 0, &mut out);
    } else if height == picture.height() {
        along_rows(source, window.top as usize, &across, &mut out);
    } else if vertical_first(picture, width, height) {
        let (first, last) = across.reach();
        let mut low = vec![0u8; rows * (last - first) * 3];
        down_columns(source, first, last - first, &down, 0, &mut low);
        let low = Plane { bytes: &low, columns: last - first };
        along_rows(low, 0, &across.from(first), &mut out);
    } else {
        let (first, last) = down.reach();
        let mut narrow = vec![0u8; (last - first) * columns * 3];
        along_rows(source, first, &across, &mut narrow);
        let narrow = Plane { bytes: &narrow, columns };
        down_columns(narrow, 0, columns, &down, first, &mut out);
    }
    out
}

/// Which pass comes first, and so rounds first: since version 13 Pillow begins with the vertical one
/// when the height shrinks by more than twice as many pixels as the width does (its pull request 9549;
/// the bound is as measured on Pillow 13.0.0). Before, the horizontal pass always came first.
fn vertical_first(picture: &Picture, width: u32, height: u32) -> bool {
    let saved = i64::from(picture.height()) - i64::from(height);
    let narrowed = i64::from(picture.width()) - i64::from(width);
    saved > 0 && saved > 2 * narrowed
}

/// Weights for the output pixels `from..from + count` of an axis going from `input` to `output`
/// pixels.
fn taps(filter: Filter, input: u32, output: u32, from: u32, count: u32) -> Taps {
    let mut taps = Taps::default();
    if input == output {
        for pixel in from..from + count {
            taps.push(pixel as usize, [1 << FRACTION_BITS]);
        }
        return taps;
    }
    let scale = f64::from(input) / f64::from(output);
    let filter_scale = scale.max(1.0);
    let support = filter.support() * filter_scale;
    let inverse = 1.0 / filter_scale;
    let mut exact: Vec<f64> = Vec::new();
    for pixel in from..from + count {
        let center = (f64::from(pixel) + 0.5) * scale;
        // `as` cuts towards zero as a C cast does.
        let start = ((center - support + 0.5) as i64).max(0);
        let end = ((center + support + 0.5) as i64).min(i64::from(input));
        exact.clear();
        exact.extend((start..end).map(|x| filter.weight((x as f64 - center + 0.5) * inverse)));
        let sum: f64 = exact.iter().fold(0.0, |sum, weight| sum + weight);
        let fixed = exact.iter().map(|&weight| {
            let share = if sum == 0.0 { weight } else { weight / sum };
            let scaled = share * f64::from(1 << FRACTION_BITS);
            (scaled + if share < 0.0 { -0.5 } else { 0.5 }) as i32
        });
        taps.push(start as usize, fixed);
    }
    taps
}

/// Nearest neighbour. The reference walks the axis by adding the scale, so the rounding of that sum is
/// part of the result.
fn pick(picture: &Picture, width: u32, height: u32, window: Window, out: &mut [u8]) {
    let places = |input: u32, output: u32, from: u32, count: u32| -> Vec<Option<usize>> {
        let scale = f64::from(input) / f64::from(output);
        let mut place = scale * 0.5;
        let mut places = Vec::with_capacity(count as usize);
        for pixel in 0..from.saturating_add(count) {
            if pixel >= from {
                let inside = place >= 0.0 && place < f64::from(input);
                places.push(inside.then_some(place as usize));
            }
            place += scale;
        }
        places
    };
    let across = places(picture.width(), width, window.left, window.width);
    let down = places(picture.height(), height, window.top, window.height);
    let source = Plane { bytes: picture.rgb(), columns: picture.width() as usize };
    for (row, out) in down.iter().zip(out.chunks_exact_mut(across.len() * 3)) {
        let Some(row) = row else { continue };
        let line = source.row(*row);
        for (column, out) in across.iter().zip(out.chunks_exact_mut(3)) {
            if let Some(column) = column {
                out.copy_from_slice(&line[column * 3..column * 3 + 3]);
            }
        }
    }
}
