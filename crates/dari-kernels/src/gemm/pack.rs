//! Weights in the order in which the tiles read them.
//!
//! A packed weight `[outputs, inputs]` lies in panels of [`PANEL`] outputs; a panel holds step after
//! step along the inputs, a step [`Format::step`] inputs of each of its outputs. Missing outputs and
//! inputs are zeros. The layout is the same at every level, so a packed file serves every machine.

use half::bf16;
use rayon::prelude::*;

use super::tile::PANEL;
use super::{Matrix, bf16 as pairs};
use crate::level::leveled;
use crate::memory;

/// How a packed weight keeps its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// Single precision.
    F32,
    /// bf16, two inputs side by side.
    Bf16,
    /// Eight bits with one scale an output, four inputs side by side.
    Int8,
}

impl Format {
    /// Inputs of a step.
    pub fn step(self) -> usize {
        match self {
            Format::F32 => 1,
            Format::Bf16 => 2,
            Format::Int8 => 4,
        }
    }

    /// Bytes of a number.
    pub fn bytes(self) -> usize {
        match self {
            Format::F32 => 4,
            Format::Bf16 => 2,
            Format::Int8 => 1,
        }
    }

    /// Bytes of a packed weight; `None` where no machine could hold it.
    pub fn packed_len(self, outputs: usize, inputs: usize) -> Option<usize> {
        let columns = outputs.div_ceil(PANEL).checked_mul(PANEL)?;
        let depth = inputs.div_ceil(self.step()).checked_mul(self.step())?;
        let panels = columns.checked_mul(depth)?.checked_mul(self.bytes())?;
        let tail = if self == Format::Int8 { columns.checked_mul(8)? } else { 0 };
        panels.checked_add(tail).filter(|&len| len <= isize::MAX as usize)
    }
}

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// Bytes that start at a cache line.
#[derive(Clone)]
pub struct Lines {
    lines: Vec<Line>,
    len: usize,
}

impl Lines {
    /// Zeros.
    pub fn new(len: usize) -> Lines {
        let count = len.div_ceil(64);
        let mut lines = Vec::with_capacity(count);
        // Before it is touched: small pages stay small.
        memory::huge_pages(lines.spare_capacity_mut());
        lines.resize(count, Line([0; 64]));
        Lines { lines, len }
    }

    /// None yet.
    pub(crate) const fn empty() -> Lines {
        Lines { lines: Vec::new(), len: 0 }
    }

    /// Room for so many numbers, whatever they are; what a thread asks for again is there already.
    pub(super) fn room(&mut self, numbers: usize) -> &mut [f32] {
        if self.len < numbers * size_of::<f32>() {
            *self = Lines::new(numbers * size_of::<f32>());
        }
        &mut self.words()[..numbers]
    }

    /// The same bytes as whole words.
    fn words<T: Word>(&mut self) -> &mut [T] {
        // SAFETY: the lines are plain bytes, aligned for every word, there are at least `len` of
        // them, and every pattern of bits is a word.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len / size_of::<T>()) }
    }
}

/// Numbers of four bytes, of which every pattern of bits is one.
trait Word {}
impl Word for f32 {}
impl Word for u32 {}

impl std::ops::Deref for Lines {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the lines are plain bytes, and there are at least `len` of them.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }
}

impl std::ops::DerefMut for Lines {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}

/// A packed weight that lies somewhere: in memory or in a mapped file.
#[derive(Clone, Copy)]
pub struct Packed<'a> {
    pub(super) format: Format,
    pub(super) outputs: usize,
    pub(super) inputs: usize,
    bytes: &'a [u8],
}

impl<'a> Packed<'a> {
    /// Sees packed bytes as a weight; `None` where their number is wrong or they do not start at a
    /// multiple of four.
    pub fn new(format: Format, outputs: usize, inputs: usize, bytes: &'a [u8]) -> Option<Packed<'a>> {
        let fits = format.packed_len(outputs, inputs) == Some(bytes.len());
        (fits && bytes.as_ptr().addr().is_multiple_of(4)).then_some(Packed { format, outputs, inputs, bytes })
    }

    /// The weight as stored, `[outputs, inputs]`, as near as its format keeps it.
    pub fn unpack(&self) -> Vec<f32> {
        let step = self.format.step();
        let depth = self.steps() * step;
        let mut weight = vec![0.0; self.outputs * self.inputs];
        let width = self.format.bytes();
        let each = |(output, row): (usize, &mut [f32])| {
            for (k, value) in row.iter_mut().enumerate() {
                let place = (k / step * PANEL + output % PANEL) * step + k % step;
                let at = (output / PANEL * PANEL * depth + place) * width;
                let bytes = &self.bytes[at..at + width];
                *value = match self.format {
                    Format::F32 => f32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]),
                    Format::Bf16 => bf16::from_ne_bytes([bytes[0], bytes[1]]).to_f32(),
                    Format::Int8 => bytes[0] as i8 as f32 * self.scales()[output],
                };
            }
        };
        if self.inputs > 0 {
            weight.par_chunks_mut(self.inputs).enumerate().for_each(each);
        }
        weight
    }

    /// Steps along the inputs.
    pub(super) fn steps(&self) -> usize {
        self.inputs.div_ceil(self.format.step())
    }

    /// The panels' first element.
    pub(super) fn panels<T>(&self) -> *const T {
        self.bytes.as_ptr().cast()
    }

    /// int8's scale of each output, padded to whole panels.
    pub(super) fn scales(&self) -> &'a [f32] {
        let columns = self.outputs.div_ceil(PANEL) * PANEL;
        let start = self.bytes.len() - 8 * columns;
        let part = &self.bytes[start..start + 4 * columns];
        // SAFETY: the length is that many numbers, every pattern of bits is one, and the start is a
        // multiple of four: the bytes' own start is, and panels are.
        unsafe { std::slice::from_raw_parts(part.as_ptr().cast(), columns) }
    }

    /// int8's sum of each output's whole numbers, padded to whole panels.
    pub(super) fn sums(&self) -> &'a [i32] {
        let columns = self.outputs.div_ceil(PANEL) * PANEL;
        let part = &self.bytes[self.bytes.len() - 4 * columns..];
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts(part.as_ptr().cast(), columns) }
    }
}

/// Packs a weight `[outputs, inputs]`, all threads at work.
pub fn pack(format: Format, weight: &[f32], outputs: usize, inputs: usize) -> Lines {
    assert_eq!(weight.len(), outputs * inputs);
    let mut lines = Lines::new(format.packed_len(outputs, inputs).unwrap_or(0));
    let depth = inputs.div_ceil(format.step()) * format.step();
    let panel = PANEL * depth * format.bytes();
    if outputs == 0 {
        return lines;
    }
    match format {
        // No inputs: nothing but zeros.
        _ if panel == 0 => {}
        Format::Int8 => {
            let (body, tail) = lines.split_at_mut(outputs.div_ceil(PANEL) * panel);
            let (scales, sums) = tail.split_at_mut(tail.len() / 2);
            let tails = scales.par_chunks_mut(4 * PANEL).zip(sums.par_chunks_mut(4 * PANEL));
            body.par_chunks_mut(panel).zip(tails).enumerate().for_each(|(index, (panel, (scales, sums)))| {
                let mut whole = vec![0i8; depth];
                let rows = weight.chunks_exact(inputs).skip(index * PANEL).take(PANEL);
                let tails = scales.chunks_exact_mut(4).zip(sums.chunks_exact_mut(4));
                for (output, (row, (scale, sum))) in rows.zip(tails).enumerate() {
                    let (step, total) = quantise(row, &mut whole);
                    scale.copy_from_slice(&step.to_ne_bytes());
                    sum.copy_from_slice(&total.to_ne_bytes());
                    // Four inputs of an output lie side by side, those of the next output behind them.
                    let places = panel.chunks_exact_mut(4).skip(output).step_by(PANEL);
                    for (to, four) in places.zip(whole.as_chunks::<4>().0) {
                        to.copy_from_slice(&four.map(|whole| whole as u8));
                    }
                }
            });
        }
        Format::F32 => {
            lines.words::<f32>().par_chunks_mut(PANEL * depth).enumerate().for_each(|(index, panel)| {
                panels_of_columns(weight, depth, outputs, inputs, index, panel);
            })
        }
        Format::Bf16 => {
            let panels = lines.words::<u32>().par_chunks_mut(PANEL * depth / 2).enumerate();
            let right = Matrix::new(weight, outputs, inputs).transposed();
            panels.for_each(|(index, panel)| pairs::fill_panel(right, index * PANEL, panel));
        }
    }
    lines
}

leveled! {
    /// An output's weights to whole numbers; gives their step and sum. A weight that is no number makes
    /// its output none, whatever is written here.
    fn quantise(weight: &[f32], out: &mut [i8]) -> (f32, i32) {
        let mut most = [0.0f32; 16];
        let mut sound = [0.0f32; 16];
        for part in weight.chunks(16) {
            for (i, value) in part.iter().enumerate() {
                let size = value.abs();
                most[i] = if size > most[i] { size } else { most[i] };
                sound[i] += value * 0.0; // stays zero for finite values
            }
        }
        let scale = most.into_iter().fold(0.0f32, f32::max) / 127.0;
        let reciprocal = if scale >= f32::MIN_POSITIVE { 1.0 / scale } else { 0.0 };
        let mut sum = 0i32;
        for (out, value) in out.iter_mut().zip(weight) {
            // The nearest whole number, ties to even, in the low bits.
            let whole = (value * reciprocal + 12_582_912.0).to_bits() as i8;
            sum += whole as i32;
            *out = whole;
        }
        (if sound.iter().any(|lane| lane.is_nan()) { f32::NAN } else { scale }, sum)
    }
}

leveled! {
    /// Panels of a row-major `[depth, columns]` matrix whose rows lie `stride` apart.
    pub(super) fn panels_of_rows(b: &[f32], depth: usize, columns: usize, stride: usize, first: usize, panels: &mut [f32]) {
        // Row by row: what lies side by side is read once.
        for k in 0..depth {
            for (index, panel) in panels.chunks_exact_mut(PANEL * depth).enumerate() {
                let column = (first + index) * PANEL;
                let width = PANEL.min(columns - column);
                let to = &mut panel[k * PANEL..][..PANEL];
                if width == PANEL {
                    to.copy_from_slice(&b[k * stride + column..][..PANEL]);
                } else {
                    to[..width].copy_from_slice(&b[k * stride + column..][..width]);
                    to[width..].fill(0.0);
                }
            }
        }
    }
}

leveled! {
    /// Panels of the transpose of a row-major `[columns, depth]` matrix whose rows lie `stride` apart.
    pub(super) fn panels_of_columns(b: &[f32], depth: usize, columns: usize, stride: usize, first: usize, panels: &mut [f32]) {
        for (index, panel) in panels.chunks_exact_mut(PANEL * depth).enumerate() {
            let column = (first + index) * PANEL;
            let width = PANEL.min(columns - column);
            // Eight steps at a time: both sides then move by whole cache lines.
            for (block, part) in panel.chunks_mut(8 * PANEL).enumerate() {
                let k = 8 * block;
                if part.len() == 8 * PANEL && width == PANEL {
                    for half in [0, 8] {
                        let mut square = [[0.0f32; 8]; 8];
                        for (i, row) in square.iter_mut().enumerate() {
                            row.copy_from_slice(&b[(column + half + i) * stride + k..][..8]);
                        }
                        let square = turned(square);
                        for (to, row) in part.chunks_exact_mut(PANEL).zip(&square) {
                            to[half..half + 8].copy_from_slice(row);
                        }
                    }
                } else {
                    for (j, to) in part.chunks_exact_mut(PANEL).enumerate() {
                        for (i, to) in to.iter_mut().enumerate() {
                            *to = if i < width { b[(column + i) * stride + k + j] } else { 0.0 };
                        }
                    }
                }
            }
        }
    }
}

/// Rows and columns exchanged, in three rounds of exchanges between pairs of rows: what compilers make
/// shuffles of, where they take two nested loops apart number by number.
#[inline(always)]
pub(super) fn turned<T: Copy>(mut square: [[T; 8]; 8]) -> [[T; 8]; 8] {
    // After a round of distance d, blocks of d by d have changed places.
    macro_rules! round {
        ($d:literal, $low:expr, $high:expr) => {
            let mut next = square;
            for i in 0..8 {
                if i & $d == 0 {
                    let (a, b) = (square[i], square[i + $d]);
                    let low: [usize; 8] = $low;
                    let high: [usize; 8] = $high;
                    for j in 0..8 {
                        next[i][j] = if low[j] < 8 { a[low[j]] } else { b[low[j] - 8] };
                        next[i + $d][j] = if high[j] < 8 { a[high[j]] } else { b[high[j] - 8] };
                    }
                }
            }
            square = next;
        };
    }
    round!(1, [0, 8, 2, 10, 4, 12, 6, 14], [1, 9, 3, 11, 5, 13, 7, 15]);
    round!(2, [0, 1, 8, 9, 4, 5, 12, 13], [2, 3, 10, 11, 6, 7, 14, 15]);
    round!(4, [0, 1, 2, 3, 8, 9, 10, 11], [4, 5, 6, 7, 12, 13, 14, 15]);
    square
}
