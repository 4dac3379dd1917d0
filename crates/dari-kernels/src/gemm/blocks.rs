//! Weights in ggml's block formats: a few bits a number, a scale or two for a block of them
//! (<https://github.com/ggml-org/ggml>, `ggml-quants.c`).
//!
//! A row is a run of blocks. Products take the numbers that the blocks stand for, in f32, and
//! activations as they are: nothing is lost beside what the file has lost.

use std::cell::Cell;

use half::f16;

use super::{Epilogue, Matrix, MatrixMut, Threads, product};
use crate::level::leveled;
use crate::math;
use crate::team::{self, Shared};

/// A block format, by ggml's name for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Blocks {
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
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

    /// The numbers that a run of blocks stands for.
    pub fn unpack(self, bytes: &[u8], out: &mut [f32]) {
        assert_eq!(self.row_bytes(out.len()), Some(bytes.len()));
        match self {
            Blocks::Q4_0 => q4_0(bytes, out),
            Blocks::Q4_1 => q4_1(bytes, out),
            Blocks::Q5_0 => q5_0(bytes, out),
            Blocks::Q5_1 => q5_1(bytes, out),
            Blocks::Q8_0 => q8_0(bytes, out),
            Blocks::Q4K => q4_k(bytes, out),
            Blocks::Q5K => q5_k(bytes, out),
            Blocks::Q6K => q6_k(bytes, out),
        }
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
        /// Outputs of a task.
        const OUTPUTS: usize = 32;
        /// Rows up to which each is multiplied by itself.
        const FEW: usize = 4;
        assert_eq!(x.size(), [out.rows, self.inputs]);
        assert_eq!(out.columns, self.outputs);
        epilogue.check(out.rows, out.columns);
        if out.rows == 0 {
            return;
        }
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
            if out.rows > FEW {
                let part = unsafe { MatrixMut::raw(shared.at(first), out.rows, count, out.row_stride) };
                product(part, x, weight.transposed(), &Epilogue::default(), false, Threads::One);
            }
            for row in 0..out.rows {
                // SAFETY: as above.
                let part = unsafe { shared.part(first + row * out.row_stride, count) };
                if out.rows <= FEW {
                    for (output, value) in part.iter_mut().enumerate() {
                        *value = dot(x.row(row), weight.row(output));
                    }
                }
                epilogue.apply(row, first, part);
            }
            ROWS.set(rows);
        });
    }
}

leveled! {
    fn dot(a: &[f32], b: &[f32]) -> f32 {
        math::sum(a.len().min(b.len()), |i| a[i] * b[i])
    }
}

#[inline(always)]
fn half(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

/// One format's loop over its blocks of `$count` numbers in `$bytes` bytes.
macro_rules! unpack {
    ($name:ident, $count:expr, $bytes:expr, |$block:ident, $out:ident| $body:block) => {
        leveled! {
            fn $name(bytes: &[u8], out: &mut [f32]) {
                for ($block, $out) in bytes.as_chunks::<$bytes>().0.iter().zip(out.as_chunks_mut::<$count>().0) $body
            }
        }
    };
}

unpack!(q4_0, 32, 18, |block, out| {
    let scale = half(block, 0);
    for (i, &q) in block[2..].iter().enumerate() {
        out[i] = ((q & 15) as i32 - 8) as f32 * scale;
        out[i + 16] = ((q >> 4) as i32 - 8) as f32 * scale;
    }
});

unpack!(q4_1, 32, 20, |block, out| {
    let (scale, least) = (half(block, 0), half(block, 2));
    for (i, &q) in block[4..].iter().enumerate() {
        out[i] = (q & 15) as f32 * scale + least;
        out[i + 16] = (q >> 4) as f32 * scale + least;
    }
});

unpack!(q5_0, 32, 22, |block, out| {
    let scale = half(block, 0);
    let fifth = u32::from_le_bytes([block[2], block[3], block[4], block[5]]);
    for (i, &q) in block[6..].iter().enumerate() {
        let (low, high) = ((fifth >> i & 1) << 4, (fifth >> (i + 16) & 1) << 4);
        out[i] = ((q & 15) as i32 + low as i32 - 16) as f32 * scale;
        out[i + 16] = ((q >> 4) as i32 + high as i32 - 16) as f32 * scale;
    }
});

unpack!(q5_1, 32, 24, |block, out| {
    let (scale, least) = (half(block, 0), half(block, 2));
    let fifth = u32::from_le_bytes([block[4], block[5], block[6], block[7]]);
    for (i, &q) in block[8..].iter().enumerate() {
        let (low, high) = ((fifth >> i & 1) << 4, (fifth >> (i + 16) & 1) << 4);
        out[i] = ((q & 15) as u32 + low) as f32 * scale + least;
        out[i + 16] = ((q >> 4) as u32 + high) as f32 * scale + least;
    }
});

unpack!(q8_0, 32, 34, |block, out| {
    let scale = half(block, 0);
    for (out, &q) in out.iter_mut().zip(&block[2..]) {
        *out = q as i8 as f32 * scale;
    }
});

/// Scale and minimum of one of the eight parts of a `K` block, six bits each.
#[inline(always)]
fn sixes(scales: &[u8], part: usize) -> (f32, f32) {
    let (scale, least) = if part < 4 {
        (scales[part] & 63, scales[part + 4] & 63)
    } else {
        (
            scales[part + 4] & 15 | (scales[part - 4] >> 6) << 4,
            scales[part + 4] >> 4 | (scales[part] >> 6) << 4,
        )
    };
    (scale as f32, least as f32)
}

unpack!(q4_k, 256, 144, |block, out| {
    let (scale, least) = (half(block, 0), half(block, 2));
    let (scales, quants) = block[4..].split_at(12);
    for (pair, (quants, out)) in quants.chunks_exact(32).zip(out.chunks_exact_mut(64)).enumerate() {
        let (low, high) = (sixes(scales, 2 * pair), sixes(scales, 2 * pair + 1));
        for (i, &q) in quants.iter().enumerate() {
            out[i] = scale * low.0 * (q & 15) as f32 - least * low.1;
            out[i + 32] = scale * high.0 * (q >> 4) as f32 - least * high.1;
        }
    }
});

unpack!(q5_k, 256, 176, |block, out| {
    let (scale, least) = (half(block, 0), half(block, 2));
    let (scales, rest) = block[4..].split_at(12);
    let (fifth, quants) = rest.split_at(32);
    for (pair, (quants, out)) in quants.chunks_exact(32).zip(out.chunks_exact_mut(64)).enumerate() {
        let (low, high) = (sixes(scales, 2 * pair), sixes(scales, 2 * pair + 1));
        for (i, (&q, &fifth)) in quants.iter().zip(fifth).enumerate() {
            let bit = |place: usize| (fifth >> place & 1) << 4;
            out[i] = scale * low.0 * ((q & 15) + bit(2 * pair)) as f32 - least * low.1;
            out[i + 32] = scale * high.0 * ((q >> 4) + bit(2 * pair + 1)) as f32 - least * high.1;
        }
    }
});

unpack!(q6_k, 256, 210, |block, out| {
    let (low, rest) = block.split_at(128);
    let (high, rest) = rest.split_at(64);
    let (scales, scale) = (&rest[..16], half(rest, 16));
    for (part, out) in out.chunks_exact_mut(128).enumerate() {
        let (low, high, scales) = (&low[64 * part..], &high[32 * part..], &scales[8 * part..]);
        for i in 0..32 {
            let of = |place: usize| scale * scales[i / 16 + 2 * place] as i8 as f32;
            let six = |four: u8, two: u8| ((four | (two & 3) << 4) as i32 - 32) as f32;
            out[i] = of(0) * six(low[i] & 15, high[i]);
            out[i + 32] = of(1) * six(low[i + 32] & 15, high[i] >> 2);
            out[i + 64] = of(2) * six(low[i] >> 4, high[i] >> 4);
            out[i + 96] = of(3) * six(low[i + 32] >> 4, high[i] >> 6);
        }
    }
});

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gemm::tests::numbers;
    use crate::level::Level;

    const ALL: [Blocks; 8] = [
        Blocks::Q4_0,
        Blocks::Q4_1,
        Blocks::Q5_0,
        Blocks::Q5_1,
        Blocks::Q8_0,
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
        for level in Level::available() {
            assert!(level.choose());
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
                        assert!(off < 1e-6 * size, "{level:?} {format:?}: off by {off} of {size}");
                    }
                }
            }
        }
        assert!(Level::best().choose());
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
