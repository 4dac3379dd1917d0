//! Pillow's `Image.resize` on RGB bytes, bit for bit.
//!
//! A horizontal and a vertical pass, each rounding to 8 bits; the filter widens with the
//! reduction (antialias), its weights are computed in f64, scaled to 22-bit fixed point and summed in
//! 32-bit integers. Source: `Resample.c` and `Geometry.c` of Pillow 13.

use super::{Error, Picture};

/// Fraction bits of a weight: 32 less 8 for the sample and 2 for a filter's overshoot.
const PRECISION_BITS: u32 = 32 - 8 - 2;
/// Rows filtered together in the horizontal pass, so that the inner loop runs over `ROWS * 3` lanes.
const ROWS: usize = 8;
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
        vertical(&source, left, columns, &down, 0, &mut out);
    } else if height == picture.height() {
        horizontal(&source, window.top as usize, &across, columns, &mut out);
    } else if vertical_first(picture, width, height) {
        let (first, last) = across.reach();
        let mut low = vec![0u8; rows * (last - first) * 3];
        vertical(&source, first, last - first, &down, 0, &mut low);
        let low = Plane { bytes: &low, columns: last - first };
        horizontal(&low, 0, &across.from(first), columns, &mut out);
    } else {
        let (first, last) = down.reach();
        let mut narrow = vec![0u8; (last - first) * columns * 3];
        horizontal(&source, first, &across, columns, &mut narrow);
        let narrow = Plane { bytes: &narrow, columns };
        vertical(&narrow, 0, columns, &down, first, &mut out);
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

/// RGB rows.
struct Plane<'a> {
    bytes: &'a [u8],
    columns: usize,
}

impl Plane<'_> {
    fn row(&self, row: usize) -> &[u8] {
        let bytes = self.columns * 3;
        &self.bytes[row * bytes..(row + 1) * bytes]
    }
}

/// The input pixels and weights behind each output pixel along one axis.
struct Taps {
    /// `(first input pixel, first weight, number of weights)`.
    spans: Vec<(usize, usize, usize)>,
    weights: Vec<i32>,
}

impl Taps {
    fn iter(&self) -> impl Iterator<Item = (usize, &[i32])> {
        self.spans.iter().map(|&(start, at, len)| (start, &self.weights[at..at + len]))
    }

    /// The first input pixel used, and the one behind the last.
    fn reach(&self) -> (usize, usize) {
        let starts = self.spans.iter().map(|&(start, _, _)| start);
        let ends = self.spans.iter().map(|&(start, _, len)| start + len);
        (starts.min().unwrap_or(0), ends.max().unwrap_or(0))
    }

    /// The same for an input that begins at `first`, which is within reach.
    fn from(mut self, first: usize) -> Taps {
        for (start, _, _) in &mut self.spans {
            *start -= first;
        }
        self
    }
}

/// Weights for the output pixels `from..from + count` of an axis going from `input` to `output`
/// pixels.
fn taps(filter: Filter, input: u32, output: u32, from: u32, count: u32) -> Taps {
    let mut spans = Vec::with_capacity(count as usize);
    let mut weights = Vec::new();
    if input == output {
        for pixel in from..from + count {
            spans.push((pixel as usize, weights.len(), 1));
            weights.push(1 << PRECISION_BITS);
        }
        return Taps { spans, weights };
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
        spans.push((start as usize, weights.len(), exact.len()));
        weights.extend(exact.iter().map(|&weight| {
            let share = if sum == 0.0 { weight } else { weight / sum };
            let scaled = share * f64::from(1 << PRECISION_BITS);
            (scaled + if share < 0.0 { -0.5 } else { 0.5 }) as i32
        }));
    }
    Taps { spans, weights }
}

fn clip(sum: i32) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}

/// Filters the rows from `first` on into `out`, `[rows, columns, 3]`.
fn horizontal(source: &Plane, first: usize, taps: &Taps, columns: usize, out: &mut [u8]) {
    // Input columns that any output column needs, gathered column by column for ROWS rows at once:
    // the sum over taps then runs over contiguous lanes.
    let (low, high) = taps.reach();
    let mut gathered = vec![[0u8; ROWS * 3]; high - low];
    for (block, out) in out.chunks_mut(columns * 3 * ROWS).enumerate() {
        let rows = out.len() / (columns * 3);
        for row in 0..rows {
            let line = &source.row(first + block * ROWS + row)[low * 3..high * 3];
            for (column, pixel) in gathered.iter_mut().zip(line.chunks_exact(3)) {
                column[row * 3..row * 3 + 3].copy_from_slice(pixel);
            }
        }
        for (column, (start, weights)) in taps.iter().enumerate() {
            let mut sums = [1i32 << (PRECISION_BITS - 1); ROWS * 3];
            let pixels = &gathered[start - low..start - low + weights.len()];
            for (pixel, &weight) in pixels.iter().zip(weights) {
                for (sum, &sample) in sums.iter_mut().zip(pixel) {
                    *sum = sum.wrapping_add(i32::from(sample).wrapping_mul(weight));
                }
            }
            for (row, sums) in sums.chunks_exact(3).take(rows).enumerate() {
                let at = (row * columns + column) * 3;
                for (out, &sum) in out[at..at + 3].iter_mut().zip(sums) {
                    *out = clip(sum);
                }
            }
        }
    }
}

/// Filters the columns `left..left + columns` into `out`, `[rows, columns, 3]`; `source`'s first row
/// is the picture's row `offset`.
fn vertical(source: &Plane, left: usize, columns: usize, taps: &Taps, offset: usize, out: &mut [u8]) {
    let mut sums = vec![0i32; columns * 3];
    for ((start, weights), out) in taps.iter().zip(out.chunks_exact_mut(columns * 3)) {
        sums.fill(1 << (PRECISION_BITS - 1));
        for (row, &weight) in (start - offset..).zip(weights) {
            let line = &source.row(row)[left * 3..(left + columns) * 3];
            for (sum, &sample) in sums.iter_mut().zip(line) {
                *sum = sum.wrapping_add(i32::from(sample).wrapping_mul(weight));
            }
        }
        for (out, &sum) in out.iter_mut().zip(&sums) {
            *out = clip(sum);
        }
    }
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
