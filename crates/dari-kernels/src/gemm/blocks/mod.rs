//! Weights in ggml's block formats: a few bits a number, a scale or two for a block of them
//! (<https://github.com/ggml-org/ggml>, `ggml-quants.c`).
//!
//! A row is a run of blocks. Many rows of activations are multiplied, as they are, with the numbers that
//! the blocks stand for, in f32. A few are given in whole numbers of 16 bits with a scale for each 32, and
//! meet the blocks' own whole numbers: then no more is asked of memory than the blocks, and of what a file
//! has lost already little more is lost.

use std::cell::Cell;

use super::{Epilogue, Matrix, MatrixMut, Threads, product};
use crate::team::{self, Shared};

mod dot;
mod formats;
mod simd;

use dot::{Kernels, Row};

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
    /// Rows as numbers; a thread keeps their memory.
    static ROWS: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
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

    /// Its loops at the machine's level.
    fn kernels(self) -> Kernels {
        match self {
            Blocks::Q4_0 => dot::kernels::<formats::Q4_0, 18>(),
            Blocks::Q4_1 => dot::kernels::<formats::Q4_1, 20>(),
            Blocks::Q5_0 => dot::kernels::<formats::Q5_0, 22>(),
            Blocks::Q5_1 => dot::kernels::<formats::Q5_1, 24>(),
            Blocks::Q8_0 => dot::kernels::<formats::Q8_0, 34>(),
            Blocks::Q2K => dot::kernels::<formats::Q2K, 84>(),
            Blocks::Q3K => dot::kernels::<formats::Q3K, 110>(),
            Blocks::Q4K => dot::kernels::<formats::Q4K, 144>(),
            Blocks::Q5K => dot::kernels::<formats::Q5K, 176>(),
            Blocks::Q6K => dot::kernels::<formats::Q6K, 210>(),
        }
    }

    /// The numbers that a run of blocks stands for.
    pub fn unpack(self, bytes: &[u8], out: &mut [f32]) {
        assert_eq!(self.row_bytes(out.len()), Some(bytes.len()));
        (self.kernels().unpack)(bytes, out);
    }
}

/// A weight `[outputs, inputs]` of blocks that lies somewhere.
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

    /// Outputs of the weight.
    pub(super) fn outputs(&self) -> usize {
        self.outputs
    }

    /// Inputs of the weight.
    pub(super) fn inputs(&self) -> usize {
        self.inputs
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

    /// `out = epilogue(x weight^T)`: `[m, inputs]` by `[outputs, inputs]`.
    pub fn linear(&self, out: MatrixMut, x: Matrix, epilogue: &Epilogue) {
        assert_eq!(x.size(), [out.rows, self.inputs]);
        assert_eq!(out.columns, self.outputs);
        epilogue.check(out.rows, out.columns);
        if out.rows > dot::FEW { self.many(out, x, epilogue) } else { self.few(out, x, epilogue) }
    }

    /// Numbers of a part of the weight at a time, then an ordinary product.
    fn many(&self, out: MatrixMut, x: Matrix, epilogue: &Epilogue) {
        /// Outputs of a task.
        const OUTPUTS: usize = 32;
        let shared = Shared(out.data);
        team::run(self.outputs.div_ceil(OUTPUTS), |task| {
            let first = task * OUTPUTS;
            let count = OUTPUTS.min(self.outputs - first);
            let mut rows = ROWS.take();
            rows.resize(OUTPUTS * self.inputs, 0.0);
            for (output, row) in rows.chunks_exact_mut(self.inputs.max(1)).take(count).enumerate() {
                self.format.unpack(self.row(first + output), row);
            }
            let weight = Matrix::new(&rows, count, self.inputs);
            // SAFETY: the columns lie in `out`, which is borrowed mutably, and are this task's own.
            let part = unsafe { MatrixMut::raw(shared.at(first), out.rows, count, out.row_stride) };
            product(part, x, weight.transposed(), &Epilogue::default(), false, Threads::One);
            for row in 0..out.rows {
                // SAFETY: as above.
                epilogue.apply(row, first, unsafe { shared.part(first + row * out.row_stride, count) });
            }
            ROWS.set(rows);
        });
    }

    /// `out = dy weight`: the gradient of what [`BlockRows::linear`] was given, `[m, outputs]` by
    /// `[outputs, inputs]`. Each block is unpacked once, and never more than a small part of the weight is.
    pub fn backward(&self, out: MatrixMut, dy: Matrix) {
        /// Outputs that are added at a time.
        const OUTPUTS: usize = 256;
        assert_eq!(dy.size(), [out.rows, self.outputs]);
        assert_eq!(out.columns, self.inputs);
        if out.rows == 0 || self.inputs == 0 {
            return;
        }
        let (numbers, bytes) = self.format.block();
        // Whole blocks, and two tasks a thread.
        let columns = self.inputs.div_ceil(2 * team::threads()).next_multiple_of(numbers);
        let shared = Shared(out.data);
        team::run(self.inputs.div_ceil(columns), |task| {
            let first = task * columns;
            let count = columns.min(self.inputs - first);
            let own = first / numbers * bytes..(first + count) / numbers * bytes;
            let mut rows = ROWS.take();
            rows.resize(OUTPUTS * count, 0.0);
            // Without outputs there is still a result: zeros.
            for start in (0..self.outputs.max(1)).step_by(OUTPUTS) {
                let length = OUTPUTS.min(self.outputs - start);
                for (output, row) in rows.chunks_exact_mut(count).take(length).enumerate() {
                    self.format.unpack(&self.row(start + output)[own.clone()], row);
                }
                // SAFETY: the columns lie in `out`, which is borrowed mutably, and are this task's own.
                let part = unsafe { MatrixMut::raw(shared.at(first), out.rows, count, out.row_stride) };
                let weight = Matrix::new(&rows, length, count);
                let dy = dy.columns(start, length);
                product(part, dy, weight, &Epilogue::default(), start > 0, Threads::One);
            }
            ROWS.set(rows);
        });
    }

    /// Blocks as they are read: a few rows ask for no more than the weight's own bytes.
    fn few(&self, out: MatrixMut, x: Matrix, epilogue: &Epilogue) {
        /// Bytes of a task: enough that a thread is worth its call.
        const BYTES: usize = 1 << 14;
        let row_bytes = self.bytes.len() / self.outputs.max(1);
        let outputs = (BYTES / row_bytes.max(1)).max(1);
        let shared = Shared(out.data);
        let kernels = self.format.kernels();
        let rows: Vec<Row> = (0..out.rows).map(|row| Row::new(x.row(row))).collect();
        team::run(self.outputs.div_ceil(outputs), |task| {
            let first = task * outputs;
            let count = outputs.min(self.outputs - first);
            let bytes = &self.bytes[first * row_bytes..(first + count) * row_bytes];
            for (row, x) in rows.iter().enumerate() {
                // SAFETY: the columns lie in `out`, which is borrowed mutably, and are this task's own.
                let part = unsafe { shared.part(first + row * out.row_stride, count) };
                (kernels.dots)(bytes, x, part);
                epilogue.apply(row, first, part);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::*;
    use crate::gemm::tests::{at_every_level, numbers};

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
                let dense = weight.unpack();
                assert!(dense.iter().all(|value| value.is_finite()));
                for rows in [1, 3, 9] {
                    let (x, bias) = (numbers(rows * inputs, 5), numbers(outputs, 6));
                    let mut out = vec![f32::NAN; rows * outputs];
                    weight.linear(
                        MatrixMut::new(&mut out, rows, outputs),
                        Matrix::new(&x, rows, inputs),
                        &Epilogue::bias(&bias),
                    );
                    for (at, &found) in out.iter().enumerate() {
                        let (row, output) = (at / outputs, at % outputs);
                        let term =
                            |i: usize| f64::from(x[row * inputs + i]) * f64::from(dense[output * inputs + i]);
                        let exact = (0..inputs).map(term).sum::<f64>() + f64::from(bias[output]);
                        let size = (0..inputs).map(|i| term(i).abs()).sum::<f64>() + 1.0;
                        let off = (f64::from(found) - exact).abs();
                        // A few rows are given in 16 bits.
                        let most = if rows > dot::FEW { 1e-6 } else { 1e-5 };
                        assert!(off < most * size, "{level:?} {format:?}: off by {off} of {size}");
                    }
                }
            }
        });
    }

    #[test]
    fn gradients_are_those_of_the_unpacked_weight() {
        let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a pool");
        let three = rayon::ThreadPoolBuilder::new().num_threads(3).build().expect("a pool");
        for format in ALL {
            for (rows, outputs, inputs) in [(1, 300, 256), (7, 37, 512), (40, 513, 768)] {
                let bytes = noise(format, outputs * inputs / format.block().0);
                let weight = BlockRows::new(format, outputs, inputs, &bytes).expect("whole blocks");
                let (dense, dy) = (weight.unpack(), numbers(rows * outputs, 9));
                let given = |pool: &rayon::ThreadPool| {
                    let mut out = vec![f32::NAN; rows * inputs];
                    pool.install(|| {
                        let to = MatrixMut::new(&mut out, rows, inputs);
                        weight.backward(to, Matrix::new(&dy, rows, outputs));
                    });
                    out
                };
                let found = given(&three);
                assert_eq!(found, given(&one), "{format:?}");
                for (at, &found) in found.iter().enumerate() {
                    let (row, input) = (at / inputs, at % inputs);
                    let term =
                        |o: usize| f64::from(dy[row * outputs + o]) * f64::from(dense[o * inputs + input]);
                    let exact = (0..outputs).map(term).sum::<f64>();
                    let size = (0..outputs).map(|o| term(o).abs()).sum::<f64>() + 1.0;
                    assert!((f64::from(found) - exact).abs() < 1e-6 * size, "{format:?}: {found} of {exact}");
                }
            }
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
