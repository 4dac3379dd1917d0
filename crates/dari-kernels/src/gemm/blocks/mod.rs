//! Weights in ggml's block formats: a few bits a number, a scale or two for a block of them
//! (<https://github.com/ggml-org/ggml>, `ggml-quants.c`).
//!
//! In a file a row is a run of blocks. Products read them sixteen rows at a time, in panels, into which a weight
//! is put when it is first used; no bit is lost. Activations are given in whole numbers of 16 bits with a scale
//! for each 32 and meet the blocks' own whole numbers: then one row asks no more of memory than the weight's own
//! bytes, many rows make half as many products again as numbers of f32 would, and of what a file has lost already
//! little more is lost. Gradients are rounded so too where it pays. A product's sums depend neither on the other
//! rows nor on the threads.

use std::cell::Cell;
use std::ops::Range;

use half::f16;

use super::pack::Lines;
use super::{Epilogue, Matrix, MatrixMut};
use crate::team::{self, Shared};

mod across;
#[cfg(target_arch = "x86_64")]
mod amx;
mod backward;
mod formats;
mod panel;
mod rows;
mod simd;
mod tile;

pub use backward::backward;
use formats::{Format, PART};
use panel::{Kernels, LANES, Layout};
use rows::{Order, Rows};
use tile::{Open, SIDES, STRETCH};

/// A block format, by ggml's name for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Blocks {
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
}

/// Numbers of a block of the `K` formats.
const SUPER: usize = 256;

thread_local! {
    /// A task's results, or a part of a weight; a thread keeps their memory.
    static NUMBERS: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
    /// A stretch of a few panels; a thread keeps its memory.
    static OPEN: Cell<Open> = Cell::new(Open::default());
}

impl Blocks {
    /// The format of ggml's name.
    pub fn from_name(name: &str) -> Option<Blocks> {
        Some(match name {
            "Q4_0" => Blocks::Q4_0,
            "Q4_1" => Blocks::Q4_1,
            "Q5_0" => Blocks::Q5_0,
            "Q5_1" => Blocks::Q5_1,
            "Q8_0" => Blocks::Q8_0,
            "Q2_K" => Blocks::Q2K,
            "Q3_K" => Blocks::Q3K,
            "Q4_K" => Blocks::Q4K,
            "Q5_K" => Blocks::Q5K,
            "Q6_K" => Blocks::Q6K,
            _ => return None,
        })
    }

    /// ggml's name.
    pub fn name(self) -> &'static str {
        match self {
            Blocks::Q4_0 => "Q4_0",
            Blocks::Q4_1 => "Q4_1",
            Blocks::Q5_0 => "Q5_0",
            Blocks::Q5_1 => "Q5_1",
            Blocks::Q8_0 => "Q8_0",
            Blocks::Q2K => "Q2_K",
            Blocks::Q3K => "Q3_K",
            Blocks::Q4K => "Q4_K",
            Blocks::Q5K => "Q5_K",
            Blocks::Q6K => "Q6_K",
        }
    }

    /// Numbers and bytes of a block.
    pub fn block(self) -> (usize, usize) {
        match self {
            Blocks::Q4_0 => (32, 18),
            Blocks::Q4_1 => (32, 20),
            Blocks::Q5_0 => (32, 22),
            Blocks::Q5_1 => (32, 24),
            Blocks::Q8_0 => (32, 34),
            Blocks::Q2K => (SUPER, 84),
            Blocks::Q3K => (SUPER, 110),
            Blocks::Q4K => (SUPER, 144),
            Blocks::Q5K => (SUPER, 176),
            Blocks::Q6K => (SUPER, 210),
        }
    }

    /// Bytes of a row of so many numbers; `None` where they make no whole blocks.
    pub fn row_bytes(self, numbers: usize) -> Option<usize> {
        let (count, bytes) = self.block();
        numbers.is_multiple_of(count).then_some(numbers / count)?.checked_mul(bytes)
    }

    /// What is written once for every format, of this one.
    fn of(self) -> Kind {
        match self {
            Blocks::Q4_0 => Kind::of::<formats::Q4_0, 18>(),
            Blocks::Q4_1 => Kind::of::<formats::Q4_1, 20>(),
            Blocks::Q5_0 => Kind::of::<formats::Q5_0, 22>(),
            Blocks::Q5_1 => Kind::of::<formats::Q5_1, 24>(),
            Blocks::Q8_0 => Kind::of::<formats::Q8_0, 34>(),
            Blocks::Q2K => Kind::of::<formats::Q2K, 84>(),
            Blocks::Q3K => Kind::of::<formats::Q3K, 110>(),
            Blocks::Q4K => Kind::of::<formats::Q4K, 144>(),
            Blocks::Q5K => Kind::of::<formats::Q5K, 176>(),
            Blocks::Q6K => Kind::of::<formats::Q6K, 210>(),
        }
    }

    /// The numbers that a run of blocks stands for.
    pub fn unpack(self, bytes: &[u8], out: &mut [f32]) {
        assert_eq!(self.row_bytes(out.len()), Some(bytes.len()));
        (self.of().numbers)(bytes, out);
    }
}

/// A format's parts by value.
struct Kind {
    /// Bytes of one block's length of a panel.
    length: usize,
    /// The numbers of a run of blocks.
    numbers: fn(&[u8], &mut [f32]),
    /// One block of each of a panel's outputs into the panel.
    pack: fn(&[Option<&[u8]>; LANES], &mut [u8]),
    kernels: Kernels,
}

impl Kind {
    fn of<F: Format<BYTES>, const BYTES: usize>() -> Kind {
        Kind {
            length: const { Layout::of::<F, BYTES>() }.all,
            numbers: numbers::<F, BYTES>,
            pack: panel::pack::<F, BYTES>,
            kernels: panel::kernels::<F, BYTES>(),
        }
    }
}

fn numbers<F: Format<BYTES>, const BYTES: usize>(bytes: &[u8], out: &mut [f32]) {
    let blocks = bytes.as_chunks::<BYTES>().0;
    for (block, out) in blocks.iter().zip(out.chunks_exact_mut(F::PARTS * PART)) {
        let [scale, least] = F::scales(block).map(|bits| f16::from_bits(bits).to_f32());
        for (part, out) in out.as_chunks_mut::<PART>().0.iter_mut().enumerate() {
            for (run, out) in out.chunks_exact_mut(PART / F::RUNS).enumerate() {
                let [own, own_least] = F::fine(block, part * F::RUNS + run).map(f32::from);
                let wholes = &F::wholes(block, part)[run * (PART / F::RUNS)..];
                for (out, &whole) in out.iter_mut().zip(wholes) {
                    *out = (i32::from(whole) - F::CENTRE) as f32 * (scale * own) + least * own_least;
                }
            }
        }
    }
}

/// A weight `[outputs, inputs]` of blocks as a file has them.
#[derive(Clone, Copy)]
pub struct BlockRows<'a> {
    format: Blocks,
    outputs: usize,
    inputs: usize,
    bytes: &'a [u8],
}

impl<'a> BlockRows<'a> {
    /// Sees bytes as a weight; `None` where their number is wrong.
    pub fn new(format: Blocks, outputs: usize, inputs: usize, bytes: &'a [u8]) -> Option<BlockRows<'a>> {
        let whole = format.row_bytes(inputs)?.checked_mul(outputs)?;
        (whole == bytes.len()).then_some(BlockRows { format, outputs, inputs, bytes })
    }

    /// A row's bytes.
    fn row(&self, output: usize) -> &'a [u8] {
        let size = self.bytes.len() / self.outputs.max(1);
        &self.bytes[output * size..(output + 1) * size]
    }

    /// All of its numbers.
    pub fn unpack(&self) -> Vec<f32> {
        let mut all = vec![0.0; self.outputs * self.inputs];
        if self.inputs > 0 {
            team::chunks(&mut all, self.inputs, |output, row| self.format.unpack(self.row(output), row));
        }
        all
    }
}

/// A weight `[outputs, inputs]` of blocks as products read it.
pub struct Panels {
    format: Blocks,
    outputs: usize,
    inputs: usize,
    lines: Lines,
}

impl Panels {
    /// Turns a file's blocks.
    pub fn pack(rows: BlockRows) -> Panels {
        Panels::pack_by_stretches(rows, || ())
    }

    /// Turns a file's blocks, and calls `read` after each stretch of them: what was read till then is not
    /// needed again, so that a large weight need not lie in memory twice.
    pub fn pack_by_stretches(rows: BlockRows, mut read: impl FnMut()) -> Panels {
        const STRETCH: usize = 8 << 20;
        let BlockRows { format, outputs, inputs, .. } = rows;
        let kind = format.of();
        let (numbers, bytes) = format.block();
        let panel = inputs / numbers * kind.length;
        let mut lines = Lines::new(outputs.div_ceil(LANES) * panel);
        let panels = (STRETCH / panel.max(1)).max(1);
        for (stretch, lines) in lines.chunks_mut((panels * panel).max(1)).enumerate() {
            team::chunks(lines, panel, |index, panel| {
                for (block, out) in panel.chunks_exact_mut(kind.length).enumerate() {
                    let blocks = std::array::from_fn(|lane| {
                        let output = (stretch * panels + index) * LANES + lane;
                        (output < outputs).then(|| &rows.row(output)[block * bytes..][..bytes])
                    });
                    (kind.pack)(&blocks, out);
                }
            });
            read();
        }
        Panels { format, outputs, inputs, lines }
    }

    /// Outputs of the weight.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Bytes that a product reads.
    pub fn bytes(&self) -> usize {
        self.lines.len()
    }

    /// Inputs of the weight.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Panels from one on.
    fn panels(&self, first: usize, count: usize) -> &[u8] {
        let panel = self.lines.len() / self.outputs.div_ceil(LANES).max(1);
        &self.lines[first * panel..][..count * panel]
    }
}

/// A piece of a product: some panels of a weight with some of the rows.
struct Task<'a> {
    weight: &'a Panels,
    panels: Range<usize>,
    /// Of the outputs side by side, the weight's first.
    column: usize,
    /// Blocks of rows, each with its first.
    rows: &'a [(usize, Rows)],
}

/// `out = epilogue(x weights^T)`: `[m, inputs]` by one or more `[outputs, inputs]`, whose results stand side by
/// side: what reads the same activations is one piece of work.
pub fn linear(out: MatrixMut, x: Matrix, weights: &[&Panels], epilogue: &Epilogue) {
    /// Fewest bytes of a task: enough that a thread is worth its call.
    const LEAST: usize = 1 << 14;
    /// Most: what is asked for ahead goes beyond a task's end, and is then often another thread's.
    const MOST: usize = 1 << 17;
    /// Most rows of a task, where there are many: a stretch of them stays in the second cache.
    const ROWS: usize = 192;
    let inputs = x.columns;
    assert_eq!(out.rows, x.rows);
    assert!(weights.iter().all(|weight| weight.inputs == inputs));
    assert_eq!(out.columns, weights.iter().map(|weight| weight.outputs).sum());
    epilogue.check(out.rows, out.columns);
    let Some(first) = weights.first() else { return };
    if out.rows == 0 || out.columns == 0 {
        return;
    }
    // What blocks of rows there are loops for does not depend on the format.
    let Kernels { products, tile, .. } = first.format.of().kernels;
    let few = products.iter().map(|&(rows, _)| rows).find(|&rows| rows >= out.rows);
    let blocks = match few {
        Some(rows) => blocks_of(x, rows, Order::Pairs),
        None => blocks_of(x, tile.rows, tile.order),
    };
    let mut tasks = Vec::new();
    let mut column = 0;
    for &weight in weights {
        let panels = weight.outputs.div_ceil(LANES);
        let bytes = (weight.lines.len() / (8 * team::threads())).clamp(LEAST, MOST);
        let step = (bytes * panels / weight.lines.len().max(1)).max(1).next_multiple_of(tile.side);
        for rows in blocks.chunks(ROWS / tile.rows) {
            for first in (0..panels).step_by(step) {
                tasks.push(Task { weight, panels: first..(first + step).min(panels), column, rows });
            }
        }
        column += weight.outputs;
    }
    let shared = Shared(out.data);
    team::run(tasks.len(), |task| {
        let Task { weight, .. } = tasks[task];
        let put = |row: usize, panel: usize, values: &[[f32; LANES]]| {
            let first = panel * LANES;
            let width = (values.len() * LANES).min(weight.outputs - first);
            if row < out.rows {
                let column = tasks[task].column + first;
                // SAFETY: the columns lie in `out`, which is borrowed mutably, and are this task's own.
                let part = unsafe { shared.part(row * out.row_stride + column, width) };
                // Whole panels by registers.
                let (whole, rest) = part.as_chunks_mut::<LANES>();
                for (to, values) in whole.iter_mut().zip(values) {
                    *to = *values;
                }
                rest.copy_from_slice(&values.as_flattened()[width - rest.len()..width]);
            }
        };
        match few {
            Some(_) => tasks[task].few(put),
            None => tasks[task].many(put),
        }
        if epilogue.is_empty() {
            return;
        }
        let Task { ref panels, column, rows, .. } = tasks[task];
        let first = panels.start * LANES;
        let width = (panels.len() * LANES).min(weight.outputs - first);
        for (start, block) in rows {
            for row in *start..out.rows.min(start + block.count) {
                // SAFETY: as above.
                let part = unsafe { shared.part(row * out.row_stride + column + first, width) };
                epilogue.apply(row, column + first, part);
            }
        }
    });
}

impl Task<'_> {
    /// Of few rows: panels are read as they lie. What comes out goes to `put`, by row and first panel.
    fn few(&self, put: impl Fn(usize, usize, &[[f32; LANES]])) {
        let kernels = self.weight.format.of().kernels;
        let bytes = self.weight.panels(self.panels.start, self.panels.len());
        let mut values = NUMBERS.take();
        for (start, block) in self.rows {
            values.clear();
            values.resize(self.panels.len() * block.count * LANES, 0.0);
            let values = values.as_chunks_mut::<LANES>().0;
            if let Some((_, run)) = kernels.products.iter().find(|(rows, _)| *rows == block.count)
                && self.weight.inputs > 0
            {
                run(bytes, block, values);
            }
            for (panel, values) in self.panels.clone().zip(values.chunks_exact(block.count)) {
                for row in 0..block.count {
                    put(start + row, panel, &values[row..=row]);
                }
            }
        }
        NUMBERS.set(values);
    }

    /// Of many rows: a stretch of a few panels is laid open for all of them.
    fn many(&self, put: impl Fn(usize, usize, &[[f32; LANES]])) {
        let Kind { length, kernels: Kernels { tile, .. }, .. } = self.weight.format.of();
        let (numbers, _) = self.weight.format.block();
        let inputs = self.weight.inputs;
        let (mut open, mut values) = (OPEN.take(), NUMBERS.take());
        for panel in self.panels.clone().step_by(tile.side) {
            values.clear();
            values.resize(self.rows.len() * tile.rows * tile.side * LANES, 0.0);
            let values = values.as_chunks_mut::<LANES>().0;
            let count = tile.side.min(self.panels.end - panel);
            for first in (0..inputs).step_by(STRETCH) {
                let last = inputs.min(first + STRETCH);
                let own = first / numbers * length..last / numbers * length;
                let sides: [&[u8]; SIDES] = std::array::from_fn(|side| {
                    &self.weight.panels(panel + side.min(count - 1), 1)[own.clone()]
                });
                (tile.open)(&sides[..tile.side], &mut open);
                (tile.add)(&open, self.rows, first / PART..last / PART, values);
            }
            for ((start, block), values) in self.rows.iter().zip(values.chunks_exact(tile.rows * tile.side)) {
                for (row, values) in values.chunks_exact(tile.side).enumerate().take(block.count) {
                    put(start + row, panel, &values[..count]);
                }
            }
        }
        OPEN.set(open);
        NUMBERS.set(values);
    }
}

/// Rows in blocks of so many, each with its first row.
fn blocks_of(x: Matrix, size: usize, order: Order) -> Vec<(usize, Rows)> {
    let mut blocks: Vec<Option<(usize, Rows)>> = (0..x.rows.div_ceil(size)).map(|_| None).collect();
    team::chunks(&mut blocks, 1, |index, block| {
        let start = index * size;
        let rows: Vec<&[f32]> = (start..x.rows.min(start + size)).map(|row| x.row(row)).collect();
        block.fill_with(|| Some((start, Rows::new(size, x.columns, order, &rows))));
    });
    blocks.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gemm::tests::{at_every_level, numbers};
    use crate::level::Level;

    const ALL: [Blocks; 10] = [
        Blocks::Q4_0,
        Blocks::Q4_1,
        Blocks::Q5_0,
        Blocks::Q5_1,
        Blocks::Q8_0,
        Blocks::Q2K,
        Blocks::Q3K,
        Blocks::Q4K,
        Blocks::Q5K,
        Blocks::Q6K,
    ];

    /// Blocks of noise whose scales are ordinary numbers.
    fn noise(format: Blocks, blocks: usize) -> Vec<u8> {
        let (_, size) = format.block();
        let mut bytes: Vec<u8> = (0..blocks * size).map(|i| (i * i * 31 + i * 7 + 13) as u8).collect();
        for block in bytes.chunks_exact_mut(size) {
            let scales: &[usize] = match format {
                Blocks::Q4_0 | Blocks::Q5_0 | Blocks::Q8_0 => &[0],
                Blocks::Q2K => &[80, 82],
                Blocks::Q3K => &[108],
                Blocks::Q6K => &[208],
                _ => &[0, 2],
            };
            for &at in scales {
                block[at..at + 2].copy_from_slice(&f16::from_f32(0.011 + at as f32 * 0.001).to_le_bytes());
            }
        }
        bytes
    }

    #[test]
    fn products_are_those_of_the_unpacked_weight_at_every_level() {
        at_every_level(|level| {
            for format in ALL {
                let (outputs, inputs) = (37, 512);
                let bytes = noise(format, outputs * inputs / format.block().0);
                let weight = BlockRows::new(format, outputs, inputs, &bytes).expect("whole blocks");
                let (dense, weight) = (weight.unpack(), Panels::pack(weight));
                assert!(dense.iter().all(|value| value.is_finite()));
                for rows in [1, 3, 17] {
                    let (x, bias) = (numbers(rows * inputs, 5), numbers(outputs, 6));
                    let mut out = vec![f32::NAN; rows * outputs];
                    linear(
                        MatrixMut::new(&mut out, rows, outputs),
                        Matrix::new(&x, rows, inputs),
                        &[&weight],
                        &Epilogue::bias(&bias),
                    );
                    for (at, &found) in out.iter().enumerate() {
                        let (row, output) = (at / outputs, at % outputs);
                        let term =
                            |i: usize| f64::from(x[row * inputs + i]) * f64::from(dense[output * inputs + i]);
                        let exact = (0..inputs).map(term).sum::<f64>() + f64::from(bias[output]);
                        let size = (0..inputs).map(|i| term(i).abs()).sum::<f64>() + 1.0;
                        let off = (f64::from(found) - exact).abs();
                        assert!(off < 1e-5 * size, "{level:?} {format:?}: off by {off} of {size}");
                    }
                }
            }
        });
    }

    #[test]
    fn a_row_gives_the_same_bits_among_any_number_of_rows() {
        at_every_level(|level| {
            for format in ALL {
                // More than a task's rows, a last stretch that is shorter, and panels that are no pairs.
                let (outputs, inputs) = (73, if format.block().0 == 32 { 288 } else { 512 });
                let bytes = noise(format, outputs * inputs / format.block().0);
                let weight =
                    Panels::pack(BlockRows::new(format, outputs, inputs, &bytes).expect("whole blocks"));
                let x = numbers(200 * inputs, 5);
                let given = |rows: Range<usize>| {
                    let mut out = vec![f32::NAN; rows.len() * outputs];
                    let x = Matrix::new(&x[rows.start * inputs..rows.end * inputs], rows.len(), inputs);
                    linear(
                        MatrixMut::new(&mut out, rows.len(), outputs),
                        x,
                        &[&weight],
                        &Epilogue::default(),
                    );
                    out
                };
                let together = given(0..200);
                for rows in [0..1, 1..4, 4..15, 15..28, 100..200] {
                    let own = &together[rows.start * outputs..rows.end * outputs];
                    assert_eq!(given(rows.clone()), own, "{level:?} {format:?} {rows:?}");
                }
            }
        });
    }

    #[test]
    fn gradients_are_those_of_the_unpacked_weight() {
        at_every_level(gradients_of_the_unpacked_weight);
    }

    fn gradients_of_the_unpacked_weight(level: Level) {
        let largest = |values: &[f32]| values.iter().fold(0.0f32, |most, value| most.max(value.abs()));
        let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a pool");
        let three = rayon::ThreadPoolBuilder::new().num_threads(3).build().expect("a pool");
        for format in ALL {
            // To 16 bits, or not at all.
            let in_wholes = level >= Level::Avx512Vnni && format.of().kernels.across.is_some();
            let rounded = if in_wholes { 1.0 / 16384.0 } else { 0.0 };
            for (rows, outputs, inputs) in [(1, 300, 256), (7, 37, 512), (40, 513, 768), (1, 4200, 256)] {
                let bytes = noise(format, outputs * inputs / format.block().0);
                let weight = BlockRows::new(format, outputs, inputs, &bytes).expect("whole blocks");
                let (dense, weight) = (weight.unpack(), Panels::pack(weight));
                let dy = numbers(rows * outputs, 9);
                let term = f64::from(largest(&dy) * largest(&dense)) * (outputs as f64).sqrt();
                let given = |pool: &rayon::ThreadPool| {
                    let mut out = vec![f32::NAN; rows * inputs];
                    pool.install(|| {
                        let to = MatrixMut::new(&mut out, rows, inputs);
                        backward(to, Matrix::new(&dy, rows, outputs), &[&weight]);
                    });
                    out
                };
                let found = given(&three);
                assert_eq!(found, given(&one), "{format:?}");
                let mut last = vec![f32::NAN; inputs];
                let own = Matrix::new(&dy[(rows - 1) * outputs..], 1, outputs);
                backward(MatrixMut::new(&mut last, 1, inputs), own, &[&weight]);
                assert_eq!(found[(rows - 1) * inputs..], last, "{level:?} {format:?}");
                for (at, &found) in found.iter().enumerate() {
                    let (row, input) = (at / inputs, at % inputs);
                    let part =
                        |o: usize| f64::from(dy[row * outputs + o]) * f64::from(dense[o * inputs + input]);
                    let exact = (0..outputs).map(part).sum::<f64>();
                    let size = (0..outputs).map(|o| part(o).abs()).sum::<f64>() + 1.0;
                    let off = (f64::from(found) - exact).abs();
                    let bound = 1e-6 * size + rounded * term;
                    assert!(off < bound, "{level:?} {format:?}: off by {off} of {size}, bound {bound}");
                }
            }
        }
    }

    #[test]
    fn a_gradient_that_is_no_number_spoils_its_own_row_alone() {
        at_every_level(|level| {
            let (rows, outputs, inputs) = (14, 300, 256);
            for format in ALL {
                let bytes = noise(format, outputs * inputs / format.block().0);
                let weight =
                    Panels::pack(BlockRows::new(format, outputs, inputs, &bytes).expect("whole blocks"));
                let mut dy = numbers(rows * outputs, 9);
                dy[2 * outputs + 7] = f32::NAN;
                dy[5 * outputs + 280] = f32::INFINITY;
                let mut out = vec![0.0; rows * inputs];
                backward(MatrixMut::new(&mut out, rows, inputs), Matrix::new(&dy, rows, outputs), &[&weight]);
                for (row, out) in out.chunks_exact(inputs).enumerate() {
                    let spoilt = out.iter().all(|value| !value.is_finite());
                    let sound = out.iter().all(|value| value.is_finite());
                    assert!(if row == 2 || row == 5 { spoilt } else { sound }, "{level:?} {format:?} {row}");
                }
            }
        });
    }

    #[test]
    fn weights_side_by_side_are_each_by_itself() {
        // With a format whose gradients stay in f32, and without.
        at_every_level(|level| {
            side_by_side(level, Blocks::Q6K);
            side_by_side(level, Blocks::Q5_1);
        });
    }

    fn side_by_side(level: Level, third: Blocks) {
        let (inputs, sizes) = (512, [(Blocks::Q4K, 37), (Blocks::Q8_0, 5), (third, 300)]);
        let all = sizes.map(|(format, outputs)| {
            let bytes = noise(format, outputs * inputs / format.block().0);
            Panels::pack(BlockRows::new(format, outputs, inputs, &bytes).expect("whole blocks"))
        });
        let each: Vec<&Panels> = all.iter().collect();
        let columns: usize = sizes.iter().map(|(_, outputs)| outputs).sum();
        for rows in [1, 6] {
            let (x, dy) = (numbers(rows * inputs, 5), numbers(rows * columns, 6));
            let (x, dy) = (Matrix::new(&x, rows, inputs), Matrix::new(&dy, rows, columns));
            let mut out = vec![f32::NAN; rows * columns];
            linear(MatrixMut::new(&mut out, rows, columns), x, &each, &Epilogue::default());
            let mut gradient = vec![f32::NAN; rows * inputs];
            backward(MatrixMut::new(&mut gradient, rows, inputs), dy, &each);
            let (mut first, mut sum) = (0, vec![0.0; rows * inputs]);
            for weight in &each {
                let outputs = weight.outputs();
                let (mut own, mut part) = (vec![f32::NAN; rows * outputs], vec![f32::NAN; rows * inputs]);
                linear(MatrixMut::new(&mut own, rows, outputs), x, &[weight], &Epilogue::default());
                for (row, own) in own.chunks_exact(outputs).enumerate() {
                    assert_eq!(own, &out[row * columns + first..][..outputs], "{level:?}");
                }
                backward(MatrixMut::new(&mut part, rows, inputs), dy.columns(first, outputs), &[weight]);
                sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
                first += outputs;
            }
            let most = sum.iter().fold(0.0f32, |most, value| most.max(value.abs()));
            for (found, sum) in gradient.iter().zip(&sum) {
                assert!((found - sum).abs() < 1e-5 * most, "{level:?}: {found} of {sum}");
            }
        }
    }

    #[test]
    fn a_weight_packed_by_stretches_has_the_panels_of_its_rows() {
        let (format, outputs, inputs) = (Blocks::Q4_1, 1_205, 16_384);
        let bytes = noise(format, outputs * inputs / format.block().0);
        let mut stretches = 0;
        let rows = BlockRows::new(format, outputs, inputs, &bytes).expect("whole blocks");
        let whole = Panels::pack_by_stretches(rows, || stretches += 1);
        assert!(stretches > 1);
        let row = bytes.len() / outputs;
        for (panel, bytes) in bytes.chunks(LANES * row).enumerate() {
            let own = BlockRows::new(format, bytes.len() / row, inputs, bytes).expect("whole blocks");
            assert!(whole.panels(panel, 1) == Panels::pack(own).panels(0, 1), "panel {panel}");
        }
    }

    #[test]
    fn bytes_that_make_no_whole_blocks_are_refused() {
        assert!(BlockRows::new(Blocks::Q8_0, 2, 32, &[0; 68]).is_some());
        assert!(BlockRows::new(Blocks::Q8_0, 2, 32, &[0; 67]).is_none());
        assert!(BlockRows::new(Blocks::Q8_0, 2, 33, &[0; 68]).is_none());
        assert!(BlockRows::new(Blocks::Q6K, 1, 128, &[0; 105]).is_none());
        assert!(BlockRows::new(Blocks::Q6K, usize::MAX, 256, &[0; 210]).is_none());
    }
}
