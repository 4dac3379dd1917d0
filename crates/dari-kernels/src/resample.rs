//! The two passes of resizing a picture of bytes: weighted sums in fixed point, rounded to bytes, as
//! Pillow's `Resample.c` takes them.

use crate::level::leveled;

/// Fraction bits of a weight: 32 less 8 for the sample and 2 for a filter's overshoot.
pub const FRACTION_BITS: u32 = 32 - 8 - 2;
/// Colours of a pixel.
const COLOURS: usize = 3;
/// Rows filtered together in the pass along rows, so that the inner loop runs over whole vectors.
const ROWS: usize = 16;
const LANES: usize = ROWS * COLOURS;

/// Rows of RGB pixels, `[rows, columns, 3]`.
#[derive(Clone, Copy, Debug)]
pub struct Plane<'a> {
    /// The samples.
    pub bytes: &'a [u8],
    /// Pixels of a row.
    pub columns: usize,
}

impl<'a> Plane<'a> {
    /// One row's samples.
    pub fn row(&self, row: usize) -> &'a [u8] {
        let bytes = self.columns * COLOURS;
        &self.bytes[row * bytes..(row + 1) * bytes]
    }
}

/// The input pixels and weights behind each output pixel along one axis.
#[derive(Clone, Debug, Default)]
pub struct Taps {
    /// `(first input pixel, first weight, number of weights)`.
    spans: Vec<(usize, usize, usize)>,
    weights: Vec<i32>,
}

impl Taps {
    /// Adds an output pixel: the sum of the pixels from `start` on, times `weights`, which have
    /// [`FRACTION_BITS`].
    pub fn push(&mut self, start: usize, weights: impl IntoIterator<Item = i32>) {
        let at = self.weights.len();
        self.weights.extend(weights);
        self.spans.push((start, at, self.weights.len() - at));
    }

    /// The first input pixel used, and the one behind the last.
    pub fn reach(&self) -> (usize, usize) {
        let starts = self.spans.iter().map(|&(start, _, _)| start);
        let ends = self.spans.iter().map(|&(start, _, len)| start + len);
        (starts.min().unwrap_or(0), ends.max().unwrap_or(0))
    }

    /// The same for an input that begins at `first`, which is within reach.
    pub fn from(mut self, first: usize) -> Taps {
        for (start, _, _) in &mut self.spans {
            *start -= first;
        }
        self
    }

    fn iter(&self) -> impl Iterator<Item = (usize, &[i32])> {
        self.spans.iter().map(|&(start, at, len)| (start, &self.weights[at..at + len]))
    }
}

#[inline(always)]
fn clip(sum: i32) -> u8 {
    (sum >> FRACTION_BITS).clamp(0, 255) as u8
}

leveled! {
    /// Filters along the rows from `first` on into `out`, `[rows, columns, 3]`, one column a tap.
    pub fn along_rows(source: Plane<'_>, first: usize, taps: &Taps, out: &mut [u8]) {
        let columns = taps.spans.len();
        // Input columns that any output column needs, gathered column by column for ROWS rows at once:
        // the sum over taps then runs over contiguous lanes.
        let (low, high) = taps.reach();
        let mut gathered = vec![[0u8; LANES]; high - low];
        for (block, out) in out.chunks_mut(columns * COLOURS * ROWS).enumerate() {
            let rows = out.len() / (columns * COLOURS);
            for row in 0..rows {
                let line = &source.row(first + block * ROWS + row)[low * COLOURS..high * COLOURS];
                for (column, pixel) in gathered.iter_mut().zip(line.as_chunks::<COLOURS>().0) {
                    column[row * COLOURS..][..COLOURS].copy_from_slice(pixel);
                }
            }
            for (column, (start, weights)) in taps.iter().enumerate() {
                let mut sums = [1i32 << (FRACTION_BITS - 1); LANES];
                for (pixel, &weight) in gathered[start - low..].iter().zip(weights) {
                    for (sum, &sample) in sums.iter_mut().zip(pixel) {
                        *sum = sum.wrapping_add(i32::from(sample).wrapping_mul(weight));
                    }
                }
                for (row, sums) in sums.as_chunks::<COLOURS>().0.iter().take(rows).enumerate() {
                    let at = (row * columns + column) * COLOURS;
                    out[at..at + COLOURS].copy_from_slice(&sums.map(clip));
                }
            }
        }
    }
}

leveled! {
    /// Filters down the columns `left..left + columns` into `out`, `[rows, columns, 3]`, one row a tap;
    /// `source`'s first row is the picture's row `offset`.
    pub fn down_columns(source: Plane<'_>, left: usize, columns: usize, taps: &Taps, offset: usize, out: &mut [u8]) {
        /// Samples summed in registers at once.
        const STRIP: usize = 64;
        for ((start, weights), out) in taps.iter().zip(out.chunks_exact_mut(columns * COLOURS)) {
            for (strip, out) in out.chunks_mut(STRIP).enumerate() {
                let at = left * COLOURS + strip * STRIP;
                let mut sums = [1i32 << (FRACTION_BITS - 1); STRIP];
                for (row, &weight) in (start - offset..).zip(weights) {
                    let line = &source.row(row)[at..at + out.len()];
                    if let Ok(line) = <&[u8; STRIP]>::try_from(line) {
                        for (sum, &sample) in sums.iter_mut().zip(line) {
                            *sum = sum.wrapping_add(i32::from(sample).wrapping_mul(weight));
                        }
                    } else {
                        for (sum, &sample) in sums.iter_mut().zip(line) {
                            *sum = sum.wrapping_add(i32::from(sample).wrapping_mul(weight));
                        }
                    }
                }
                for (out, &sum) in out.iter_mut().zip(&sums) {
                    *out = clip(sum);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gemm::tests::at_every_level;

    /// Bytes that look like noise.
    fn bytes(count: usize) -> Vec<u8> {
        let mut state = 12_345_u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        (0..count).map(|_| next()).collect()
    }

    fn plain(samples: impl Iterator<Item = u8>, weights: &[i32]) -> u8 {
        let sum: i64 =
            samples.zip(weights).map(|(sample, &weight)| i64::from(sample) * i64::from(weight)).sum();
        ((sum + (1 << (FRACTION_BITS - 1))) >> FRACTION_BITS).clamp(0, 255) as u8
    }

    #[test]
    fn both_passes_are_the_plain_sums_at_every_level() {
        at_every_level(|level| {
            for (width, height) in [(1, 1), (7, 5), (40, 33), (131, 17)] {
                let source = bytes(width * height * COLOURS);
                let plane = Plane { bytes: &source, columns: width };
                for (axis, side) in [(0, width), (1, height)] {
                    // Spans of one to nine pixels, weights of both signs.
                    let spans: Vec<(usize, Vec<i32>)> = (0..23)
                        .map(|i| {
                            let start = i * 5 % side;
                            let len = 1 + i % 9.min(side - start);
                            (start, (0..len).map(|k| ((i * 7 + k * 13) as i32 % 19 - 6) << 16).collect())
                        })
                        .collect();
                    let mut taps = Taps::default();
                    for (start, weights) in &spans {
                        taps.push(*start, weights.iter().copied());
                    }
                    let sample = |row: usize, column: usize, colour: usize| {
                        source[(row * width + column) * COLOURS + colour]
                    };
                    if axis == 0 {
                        let mut out = vec![0; height * spans.len() * COLOURS];
                        along_rows(plane, 0, &taps, &mut out);
                        for (at, &found) in out.iter().enumerate() {
                            let (row, place) = (at / (spans.len() * COLOURS), at / COLOURS % spans.len());
                            let (start, weights) = &spans[place];
                            let samples = (*start..).map(|column| sample(row, column, at % COLOURS));
                            assert_eq!(found, plain(samples.take(weights.len()), weights), "{level:?} {at}");
                        }
                    } else {
                        let mut out = vec![0; spans.len() * width * COLOURS];
                        down_columns(plane, 0, width, &taps, 0, &mut out);
                        for (at, &found) in out.iter().enumerate() {
                            let (place, column) = (at / (width * COLOURS), at / COLOURS % width);
                            let (start, weights) = &spans[place];
                            let samples = (*start..).map(|row| sample(row, column, at % COLOURS));
                            assert_eq!(found, plain(samples.take(weights.len()), weights), "{level:?} {at}");
                        }
                    }
                }
            }
        });
    }
}
