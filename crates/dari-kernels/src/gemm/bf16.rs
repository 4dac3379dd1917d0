//! Numbers as pairs of bf16 along `k`, as the instruction takes them: the first of two in the low half.

use super::tile::PANEL;
use super::{Matrix, Threads};
use crate::level::leveled;
use crate::team;

/// The bits of the nearest bf16, ties to even; NaN stays NaN.
#[inline(always)]
fn bits(value: f32) -> u32 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    let quiet = bits >> 16 | 0x40;
    if value.is_nan() { quiet } else { rounded }
}

leveled! {
    /// A row's pairs; an odd last one is followed by zero.
    fn row(from: &[f32], to: &mut [u32]) {
        let (pairs, rest) = from.as_chunks::<2>();
        for (to, [low, high]) in to.iter_mut().zip(pairs) {
            *to = bits(*low) | bits(*high) << 16;
        }
        if let ([last], Some(to)) = (rest, to.get_mut(pairs.len())) {
            *to = bits(*last);
        }
    }
}

leveled! {
    /// The pairs of two rows, column by column.
    fn two(low: &[f32], high: &[f32], to: &mut [u32]) {
        for ((to, low), high) in to.iter_mut().zip(low).zip(high) {
            *to = bits(*low) | bits(*high) << 16;
        }
    }
}

leveled! {
    /// The pairs of one row whose other is missing.
    fn one(low: &[f32], to: &mut [u32]) {
        for (to, low) in to.iter_mut().zip(low) {
            *to = bits(*low);
        }
    }
}

/// Calls `part(first, rows)` for chunks of `each` rows of `width` numbers.
fn in_parts(
    to: &mut [u32],
    width: usize,
    each: usize,
    threads: Threads,
    part: impl Fn(usize, &mut [u32]) + Sync,
) {
    if width == 0 {
        return;
    }
    match threads {
        Threads::Pool if to.len() > 1 << 14 => {
            team::chunks(to, each * width, |index, rows| part(index * each, rows));
        }
        _ => part(0, to),
    }
}

/// The pairs of a matrix, in rows or transposed, row by row: `[rows, steps]`.
pub(super) fn rows(x: Matrix, threads: Threads) -> Vec<u32> {
    let steps = x.columns.div_ceil(2);
    let mut pairs = vec![0; x.rows * steps];
    in_parts(&mut pairs, steps, 32, threads, |first, part| {
        if x.column_stride == 1 {
            for (index, to) in part.chunks_exact_mut(steps).enumerate() {
                row(x.row(first + index), to);
            }
            return;
        }
        for (index, part) in part.chunks_mut(PANEL * steps).enumerate() {
            rows_of_columns(x.transposed(), first + index * PANEL, steps, part);
        }
    });
    pairs
}

/// At most [`PANEL`] rows of the transpose of a matrix in rows `[k, rows]`.
fn rows_of_columns(x: Matrix, first: usize, steps: usize, to: &mut [u32]) {
    let count = to.len() / steps;
    for start in (0..steps).step_by(PANEL) {
        let end = steps.min(start + PANEL);
        let (mut square, mut turned) = ([[0; PANEL]; PANEL], [0; PANEL * PANEL]);
        for (index, square) in (start..end).zip(&mut square) {
            step(x, index, first, &mut square[..count]);
        }
        turn(&square, &mut turned);
        for (to, turned) in to.chunks_exact_mut(steps).zip(turned.as_chunks::<PANEL>().0) {
            to[start..end].copy_from_slice(&turned[..end - start]);
        }
    }
}

/// The pairs of the transpose of a matrix in rows `[k, rows]`, step by step: `[steps, rows]`.
pub(super) fn steps(x: Matrix, threads: Threads) -> Vec<u32> {
    let width = x.columns;
    let mut pairs = vec![0; x.rows.div_ceil(2) * width];
    in_parts(&mut pairs, width, 16, threads, |first, part| {
        for (index, to) in part.chunks_exact_mut(width).enumerate() {
            step(x, first + index, 0, to);
        }
    });
    pairs
}

/// Columns `first..` of a step of a matrix `[k, columns]` in rows.
fn step(x: Matrix, index: usize, first: usize, to: &mut [u32]) {
    let columns = first..first + to.len();
    let low = &x.row(2 * index)[columns.clone()];
    if 2 * index + 1 < x.rows {
        two(low, &x.row(2 * index + 1)[columns], to);
    } else {
        one(low, to);
    }
}

/// Panels of a right side `[k, columns]`, in rows or transposed, as a packed weight's.
pub(super) fn panels(b: Matrix, threads: Threads) -> Vec<u32> {
    let panel = PANEL * b.rows.div_ceil(2);
    let mut pairs = vec![0; b.columns.div_ceil(PANEL) * panel];
    in_parts(&mut pairs, panel, 1, threads, |first, part| {
        for (index, panel) in part.chunks_exact_mut(panel).enumerate() {
            fill_panel(b, (first + index) * PANEL, panel);
        }
    });
    pairs
}

/// The panel that starts at a column.
pub(super) fn fill_panel(b: Matrix, column: usize, panel: &mut [u32]) {
    let width = PANEL.min(b.columns - column);
    if b.column_stride == 1 {
        for (k, to) in panel.chunks_exact_mut(PANEL).enumerate() {
            step(b, k, column, &mut to[..width]);
        }
    } else {
        turned(b.transposed().rows(column, width), panel);
    }
}

/// One panel of the transpose of at most [`PANEL`] rows.
fn turned(x: Matrix, panel: &mut [u32]) {
    const SIDE: usize = 16;
    let steps = panel.len() / PANEL;
    let mut square = [[0u32; SIDE]; PANEL];
    for start in (0..steps).step_by(SIDE) {
        let count = SIDE.min(steps - start);
        for (index, to) in square.iter_mut().enumerate().take(x.rows) {
            let values = x.row(index);
            row(&values[2 * start..values.len().min(2 * (start + count))], &mut to[..count]);
        }
        turn(&square, &mut panel[start * PANEL..(start + count) * PANEL]);
    }
}

leveled! {
    /// Columns of the square, one after the other.
    fn turn(square: &[[u32; 16]; PANEL], to: &mut [u32]) {
        for (k, to) in to.as_chunks_mut::<PANEL>().0.iter_mut().enumerate() {
            for (to, row) in to.iter_mut().zip(square) {
                *to = row[k];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use crate::gemm::{Matrix, Threads};

    #[test]
    fn rows_of_a_transposed_matrix_are_its_columns() {
        for [rows, columns] in [[1, 1], [37, 5], [40, 33], [16, 64], [70, 131]] {
            let x: Vec<f32> = (0..rows * columns).map(|i| (i * 7919 % 1000) as f32 - 500.0).collect();
            let turned: Vec<f32> = (0..rows * columns).map(|i| x[i % columns * rows + i / columns]).collect();
            let columns_of = Matrix::new(&x, columns, rows).transposed();
            for threads in [Threads::One, Threads::Pool] {
                let expected = super::rows(Matrix::new(&turned, rows, columns), threads);
                assert_eq!(super::rows(columns_of, threads), expected, "{rows} x {columns}");
            }
        }
    }

    #[test]
    fn rounds_to_nearest_even() {
        let values = [0.0, -0.0, 1.0, 1.003_906_2, 1.011_718_8, f32::INFINITY, f32::NAN, 3.4e38, 1e-40];
        let mut pairs = [0; 5];
        super::row(&values, &mut pairs);
        for (index, value) in values.into_iter().enumerate() {
            let bits = (pairs[index / 2] >> (16 * (index % 2))) as u16;
            assert!(bf16::from_bits(bits) == bf16::from_f32(value) || value.is_nan(), "{value}");
            assert_eq!(bf16::from_bits(bits).is_nan(), value.is_nan());
        }
        assert_eq!(pairs[4] >> 16, 0, "the pair of an odd last one");
    }
}
