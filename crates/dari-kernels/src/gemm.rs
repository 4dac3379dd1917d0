//! Matrix products on strided views, in f32 with f32 or bf16 weights.
//!
//! The inner product is the `gemm` crate's; what is ours is the safe view, the bias and the
//! expansion of bf16 weights a block at a time.

use half::bf16;

/// A read-only view of a matrix inside a slice.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// A contiguous row-major matrix.
    pub fn new(data: &'a [f32], rows: usize, columns: usize) -> Self {
        Self::strided(data, rows, columns, columns)
    }

    /// Rows that lie `row_stride` apart.
    pub fn strided(data: &'a [f32], rows: usize, columns: usize, row_stride: usize) -> Self {
        assert!(row_stride >= columns || rows <= 1);
        assert!(
            rows == 0 || columns == 0 || (rows - 1) * row_stride + columns <= data.len(),
            "a {rows} x {columns} matrix does not lie in {} values",
            data.len()
        );
        Matrix { data, rows, columns, row_stride, column_stride: 1 }
    }

    /// The same values, rows and columns exchanged.
    pub fn transposed(self) -> Self {
        Matrix {
            data: self.data,
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
        }
    }
}

/// A matrix inside a slice to be written: rows lie `row_stride` apart.
pub struct MatrixMut<'a> {
    data: &'a mut [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
}

impl<'a> MatrixMut<'a> {
    /// A contiguous row-major matrix.
    pub fn new(data: &'a mut [f32], rows: usize, columns: usize) -> Self {
        Self::strided(data, rows, columns, columns)
    }

    /// Rows that lie `row_stride` apart.
    pub fn strided(data: &'a mut [f32], rows: usize, columns: usize, row_stride: usize) -> Self {
        // Checks the bounds.
        Matrix::strided(data, rows, columns, row_stride);
        MatrixMut { data, rows, columns, row_stride }
    }
}

/// Whether a product may use the thread pool, or runs inside one of its tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// One thread: the caller is parallel already.
    One,
    /// The whole pool.
    Pool,
}

/// `out = scale * a b + keep * out`, with `keep` 0 or 1.
pub fn product(out: MatrixMut, a: Matrix, b: Matrix, scale: f32, keep: bool, threads: Threads) {
    assert!(
        a.rows == out.rows && b.columns == out.columns && a.columns == b.rows,
        "{} x {} by {} x {} into {} x {}",
        a.rows,
        a.columns,
        b.rows,
        b.columns,
        out.rows,
        out.columns
    );
    if out.rows == 0 || out.columns == 0 {
        return;
    }
    let operations = out.rows * out.columns * a.columns.max(1);
    let parallelism = match threads {
        Threads::Pool if operations > 1 << 16 => gemm::Parallelism::Rayon(0),
        _ => gemm::Parallelism::None,
    };
    // SAFETY: the views checked at construction that every row and column lies in its slice, the
    // shapes agree, and `out` is borrowed mutably, so it overlaps neither operand.
    unsafe {
        gemm::gemm(
            out.rows,
            out.columns,
            a.columns,
            out.data.as_mut_ptr(),
            1,
            out.row_stride as isize,
            keep,
            a.data.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            1.0f32,
            scale,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// A linear layer's weight, `[outputs, inputs]`.
#[derive(Clone, Copy)]
pub enum WeightView<'a> {
    /// Single precision.
    F32(&'a [f32]),
    /// Stored in bf16, multiplied in f32.
    Bf16(&'a [bf16]),
}

/// `out[m, outputs] = x[m, inputs] weight^T + bias`; `bias` may be empty.
pub fn linear(x: &[f32], weight: WeightView, bias: &[f32], inputs: usize, outputs: usize, out: &mut [f32]) {
    if outputs == 0 || out.is_empty() {
        return;
    }
    let m = out.len() / outputs;
    assert!(out.len() == m * outputs && x.len() == m * inputs);
    assert!(bias.is_empty() || bias.len() == outputs);
    let keep = !bias.is_empty();
    if keep {
        for row in out.chunks_exact_mut(outputs) {
            row.copy_from_slice(bias);
        }
    }
    let x = Matrix::new(x, m, inputs);
    match weight {
        WeightView::F32(weight) => {
            let weight = Matrix::new(weight, outputs, inputs).transposed();
            product(MatrixMut::new(out, m, outputs), x, weight, 1.0, keep, Threads::Pool);
        }
        WeightView::Bf16(weight) => {
            assert_eq!(weight.len(), outputs * inputs);
            // A block of rows at a time, so that the expanded weights stay in the caches.
            let block = ((1 << 17) / inputs.max(1)).clamp(16, 1024);
            let mut expanded = vec![0.0; block.min(outputs) * inputs];
            for first in (0..outputs).step_by(block) {
                let count = block.min(outputs - first);
                let part = &mut expanded[..count * inputs];
                expand(&weight[first * inputs..(first + count) * inputs], part);
                let part = Matrix::new(part, count, inputs).transposed();
                let columns = MatrixMut::strided(&mut out[first..], m, count, outputs);
                product(columns, x, part, 1.0, keep, Threads::Pool);
            }
        }
    }
}

crate::level::leveled! {
    /// bf16 to f32, exactly.
    pub fn expand(from: &[bf16], to: &mut [f32]) {
        assert_eq!(from.len(), to.len());
        for (to, from) in to.iter_mut().zip(from) {
            *to = f32::from_bits((from.to_bits() as u32) << 16);
        }
    }
}

crate::level::leveled! {
    /// The sum of each column of a `[rows, columns]` matrix, rows in order.
    pub fn column_sums(x: &[f32], columns: usize, out: &mut [f32]) {
        assert_eq!(out.len(), columns);
        out.fill(0.0);
        for row in x.chunks_exact(columns) {
            for (total, value) in out.iter_mut().zip(row) {
                *total += value;
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Reproducible numbers in -1..1.
    pub fn numbers(count: usize, seed: u64) -> Vec<f32> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        (0..count)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
            })
            .collect()
    }

    #[test]
    fn linear_follows_float64_on_odd_shapes() {
        for m in [0, 1, 7, 17, 33] {
            for (inputs, outputs) in [(1, 1), (5, 3), (17, 33), (96, 130), (300, 1030)] {
                let x = numbers(m * inputs, 1);
                let weight = numbers(outputs * inputs, 2);
                let bias = numbers(outputs, 3);
                let rounded: Vec<bf16> = weight.iter().map(|&w| bf16::from_f32(w)).collect();
                let widened: Vec<f32> = rounded.iter().map(|w| w.to_f32()).collect();
                for (view, plain) in
                    [(WeightView::F32(&weight), &weight), (WeightView::Bf16(&rounded), &widened)]
                {
                    for bias in [&bias[..], &[]] {
                        let mut out = vec![f32::NAN; m * outputs];
                        linear(&x, view, bias, inputs, outputs, &mut out);
                        for r in 0..m {
                            for c in 0..outputs {
                                let expected: f64 = (0..inputs)
                                    .map(|k| x[r * inputs + k] as f64 * plain[c * inputs + k] as f64)
                                    .sum::<f64>()
                                    + bias.get(c).copied().unwrap_or(0.0) as f64;
                                let got = out[r * outputs + c] as f64;
                                assert!(
                                    (got - expected).abs() < 1e-4,
                                    "{m} {inputs} {outputs}: {got} {expected}"
                                );
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn sums_columns() {
        let mut out = [f32::NAN; 3];
        column_sums(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 3, &mut out);
        assert_eq!(out, [5.0, 7.0, 9.0]);
    }
}
