//! The backward pass: the probabilities are made anew from one number a query.

use std::cell::Cell;

use super::{KEYS, Mask, Sizes, hide, within};
use crate::gemm::{Epilogue, Matrix, MatrixMut, Threads, product};
use crate::level::leveled;
use crate::math;
use crate::team::{self, Shared};

thread_local! {
    /// A tile's probabilities and the slopes of its scores; a thread keeps their memory.
    static TABLES: Cell<[Vec<f32>; 2]> = const { Cell::new([Vec::new(), Vec::new()]) };
}

/// Queries of a tile: two tables stay in the second cache.
const QUERIES: usize = 64;

/// The gradients of [`super::forward`] with respect to `q`, `k` and `v`, all overwritten; `out` and
/// `statistics` are what it gave, `dout` and the gradients are contiguous.
#[allow(clippy::too_many_arguments)]
pub fn backward(
    sizes: Sizes,
    mask: Mask,
    scale: f32,
    q: Matrix,
    k: Matrix,
    v: Matrix,
    out: &[f32],
    statistics: &[f32],
    dout: &[f32],
    dq: &mut [f32],
    dk: &mut [f32],
    dv: &mut [f32],
) {
    let nk = sizes.batch * sizes.keys * sizes.kv_heads * sizes.width;
    assert!(dq.len() == out.len() && dk.len() == nk && dv.len() == nk);
    let strides = [sizes.heads * sizes.width, sizes.kv_heads * sizes.width];
    if out.is_empty() || nk == 0 {
        for gradient in [dq, dk, dv] {
            gradient.fill(0.0);
        }
        return;
    }
    let gradients = [dq, dk, dv].map(|gradient| Shared(gradient.as_mut_ptr()));
    // SAFETY: each gradient is a slice of its own, and holds its rows.
    unsafe { slopes(sizes, mask, scale, q, k, v, out, statistics, dout, gradients, strides) }
}

/// [`backward`] of self-attention into one buffer, `[batch * tokens, (heads + 2 * kv_heads) * width]`: a
/// row's queries, keys and values side by side.
#[allow(clippy::too_many_arguments)]
pub fn backward_joined(
    sizes: Sizes,
    mask: Mask,
    scale: f32,
    q: Matrix,
    k: Matrix,
    v: Matrix,
    out: &[f32],
    statistics: &[f32],
    dout: &[f32],
    gradient: &mut [f32],
) {
    let Sizes { batch, queries, heads, kv_heads, width, .. } = sizes;
    let row = (heads + 2 * kv_heads) * width;
    assert_eq!(sizes.queries, sizes.keys);
    assert_eq!(gradient.len(), batch * queries * row);
    if out.is_empty() {
        return;
    }
    let all = Shared(gradient.as_mut_ptr());
    let gradients = [0, heads, heads + kv_heads].map(|head| Shared(all.at(head * width)));
    // SAFETY: the three lie in one buffer's rows, side by side.
    unsafe { slopes(sizes, mask, scale, q, k, v, out, statistics, dout, gradients, [row; 2]) }
}

/// # Safety
/// The gradients hold their rows, `strides` apart for queries and for keys and values, and do not
/// overlap.
#[allow(clippy::too_many_arguments)]
unsafe fn slopes(
    sizes: Sizes,
    mask: Mask,
    scale: f32,
    q: Matrix,
    k: Matrix,
    v: Matrix,
    out: &[f32],
    statistics: &[f32],
    dout: &[f32],
    [dq, dk, dv]: [Shared<f32>; 3],
    [q_stride, kv_stride]: [usize; 2],
) {
    sizes.check(&q, &k, &v, &mask);
    let Sizes { batch, queries, keys, heads, kv_heads, width } = sizes;
    assert!(out.len() == batch * queries * heads * width && dout.len() == out.len());
    assert_eq!(statistics.len(), sizes.statistics());
    let (group, plain) = (sizes.group(), Epilogue::default());
    let row = heads * width;
    let (out, dout) = (Matrix::new(out, batch * queries, row), Matrix::new(dout, batch * queries, row));
    // A task takes one head of keys and values with its group of query heads, in order.
    team::run(batch * kv_heads, |index| {
        let mut kept = TABLES.take();
        let [table, slopes] = &mut kept;
        let (batch, kv_head) = (index / kv_heads, index % kv_heads);
        let (k, v) = (sizes.keys_of(k, batch, kv_head), sizes.keys_of(v, batch, kv_head));
        let visible = mask.keys.map(|all| &all[batch * keys..][..keys]);
        let kv_at = batch * keys * kv_stride + kv_head * width;
        for start in (0..keys).step_by(KEYS) {
            let length = KEYS.min(keys - start);
            let (k, v) = (k.rows(start, length), v.rows(start, length));
            let mut keep = false;
            for head in kv_head * group..(kv_head + 1) * group {
                let logs = &statistics[(batch * heads + head) * queries..][..queries];
                for first in (0..queries).step_by(QUERIES) {
                    let count = QUERIES.min(queries - first);
                    let of_head = |x| sizes.queries_of(x, batch, head).rows(first, count);
                    let (q, out, dout) = (of_head(q), of_head(out), of_head(dout));
                    table.resize(QUERIES * KEYS, 0.0);
                    slopes.resize(QUERIES * KEYS, 0.0);
                    let (table, slopes) = (&mut table[..count * length], &mut slopes[..count * length]);
                    let part = MatrixMut::new(table, count, length);
                    product(part, q, k.transposed(), &Epilogue::scale(scale), false, Threads::One);
                    let part = MatrixMut::new(slopes, count, length);
                    product(part, dout, v.transposed(), &plain, false, Threads::One);
                    for (row, (p, s)) in
                        table.chunks_exact_mut(length).zip(slopes.chunks_exact_mut(length)).enumerate()
                    {
                        let (hidden, seen) = within(mask.seen(&sizes, first + row), start, length);
                        let visible = visible.map(|visible| &visible[start..start + length]);
                        again(p, hidden, seen, visible, logs[first + row]);
                        // The slope along all the row's probabilities: out and dout have it.
                        row_backward(p, s, out.row(row), dout.row(row), scale);
                    }
                    let (table, slopes) =
                        (Matrix::new(table, count, length), Matrix::new(slopes, count, length));
                    let q_at = (batch * queries + first) * q_stride + head * width;
                    let kv_at = kv_at + start * kv_stride;
                    // SAFETY: as the caller promises; sequence and head are this task's own.
                    let [dq, dk, dv] = unsafe {
                        [
                            MatrixMut::raw(dq.at(q_at), count, width, q_stride),
                            MatrixMut::raw(dk.at(kv_at), length, width, kv_stride),
                            MatrixMut::raw(dv.at(kv_at), length, width, kv_stride),
                        ]
                    };
                    product(dv, table.transposed(), dout, &plain, keep, Threads::One);
                    product(dk, slopes.transposed(), q, &plain, keep, Threads::One);
                    product(dq, slopes, k, &plain, start > 0, Threads::One);
                    keep = true;
                }
            }
        }
        TABLES.set(kept);
    });
}

leveled! {
    /// Scores to the probabilities that the forward pass had, from the logarithm of their sum.
    fn again(scores: &mut [f32], hidden: usize, seen: usize, visible: Option<&[u8]>, log: f32) {
        hide(scores, hidden, seen, visible);
        if log == f32::NEG_INFINITY {
            scores.fill(0.0);
            return;
        }
        for score in scores.iter_mut() {
            *score = math::exp(*score - log);
        }
    }
}

leveled! {
    /// Slopes of a row's probabilities to slopes of its scores before their scale, in place.
    fn row_backward(p: &[f32], s: &mut [f32], out: &[f32], dout: &[f32], scale: f32) {
        let along = math::sum(out.len(), |i| out[i] * dout[i]);
        for (s, &p) in s.iter_mut().zip(p) {
            *s = scale * p * (*s - along);
        }
    }
}
