//! Scaled dot-product attention (Vaswani et al. 2017) on interleaved heads, with backward.
//!
//! Queries are `[batch, queries, heads * width]`, keys and values `[batch, keys, kv_heads * width]`:
//! as the projections leave them, with no transposition. `heads` is a multiple of `kv_heads`; each
//! group of query heads shares one head of keys and values.

use rayon::prelude::*;

use crate::gemm::{Matrix, MatrixMut, Threads, product};
use crate::level::leveled;
use crate::math;

/// The sizes of one attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Sequences.
    pub batch: usize,
    /// Query tokens of each sequence.
    pub queries: usize,
    /// Key tokens of each sequence.
    pub keys: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Values per head.
    pub width: usize,
}

impl Sizes {
    fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    fn check(&self, q: &[f32], k: &[f32], v: &[f32], mask: &Mask) {
        assert!(self.kv_heads > 0 && self.heads.is_multiple_of(self.kv_heads));
        assert_eq!(q.len(), self.batch * self.queries * self.heads * self.width);
        assert_eq!(k.len(), self.batch * self.keys * self.kv_heads * self.width);
        assert_eq!(v.len(), k.len());
        assert!(mask.keys.is_none_or(|keys| keys.len() == self.batch * self.keys));
    }

    /// Values in the table of probabilities, `[batch, heads, queries, keys]`.
    pub fn probabilities(&self) -> usize {
        self.batch * self.heads * self.queries * self.keys
    }
}

/// What a query may see.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mask<'a> {
    /// A query sees no key behind its own place; the last query stands at the last key.
    pub causal: bool,
    /// `[batch, keys]`, 1 for a token that may be seen, 0 for padding.
    pub keys: Option<&'a [u8]>,
}

/// `out = softmax(scale q k^T, masked) v`, `[batch, queries, heads * width]`; the probabilities are
/// kept in `probabilities`, where given, for the backward pass. A query that may see nothing gets
/// zeros.
#[allow(clippy::too_many_arguments)]
pub fn forward(
    sizes: Sizes,
    mask: Mask,
    scale: f32,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    out: &mut [f32],
    probabilities: Option<&mut [f32]>,
) {
    sizes.check(q, k, v, &mask);
    assert_eq!(out.len(), q.len());
    if out.is_empty() || sizes.keys == 0 {
        out.fill(0.0);
        return;
    }
    let Sizes { queries, keys, heads, width, .. } = sizes;
    let (q_stride, kv_stride) = (heads * width, sizes.kv_heads * width);
    let attend = |index: usize, out: &mut [f32], table: &mut [f32]| {
        let (batch, head) = (index / heads, index % heads);
        let (q_at, kv_at) = offsets(&sizes, batch, head);
        let q = Matrix::strided(&q[q_at..], queries, width, q_stride);
        let k = Matrix::strided(&k[kv_at..], keys, width, kv_stride).transposed();
        let v = Matrix::strided(&v[kv_at..], keys, width, kv_stride);
        let scores = MatrixMut::new(table, queries, keys);
        product(scores, q, k, scale, false, Threads::One);
        let visible = mask.keys.map(|all| &all[batch * keys..][..keys]);
        softmax(table, queries, keys, mask.causal, visible);
        let table = Matrix::new(table, queries, keys);
        let out = MatrixMut::new(out, queries, width);
        product(out, table, v, 1.0, false, Threads::One);
    };
    // Head by head into a buffer of its own, then interleaved: tasks write disjoint slices.
    let mut by_head = vec![0.0f32; out.len()];
    let parts = by_head.par_chunks_mut(queries * width).enumerate();
    match probabilities {
        Some(table) => {
            assert_eq!(table.len(), sizes.probabilities());
            let tables = table.par_chunks_mut(queries * keys);
            parts.zip(tables).for_each(|((index, out), table)| attend(index, out, table));
        }
        None => {
            parts.for_each_init(|| vec![0.0; queries * keys], |table, (index, out)| attend(index, out, table))
        }
    }
    interleave(&by_head, heads, queries, width, out);
}

/// The gradients of [`forward`] with respect to `q`, `k` and `v`, all overwritten.
#[allow(clippy::too_many_arguments)]
pub fn backward(
    sizes: Sizes,
    scale: f32,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    probabilities: &[f32],
    dout: &[f32],
    dq: &mut [f32],
    dk: &mut [f32],
    dv: &mut [f32],
) {
    sizes.check(q, k, v, &Mask::default());
    assert!(dout.len() == q.len() && dq.len() == q.len() && dk.len() == k.len() && dv.len() == v.len());
    assert_eq!(probabilities.len(), sizes.probabilities());
    if q.is_empty() || k.is_empty() {
        dq.fill(0.0);
        dk.fill(0.0);
        dv.fill(0.0);
        return;
    }
    let Sizes { batch, queries, keys, heads, kv_heads, width } = sizes;
    let group = sizes.group();
    let (q_stride, kv_stride) = (heads * width, kv_heads * width);
    let mut dq_heads = vec![0.0f32; q.len()];
    let mut dk_heads = vec![0.0f32; k.len()];
    let mut dv_heads = vec![0.0f32; v.len()];
    // A task takes one head of keys and values with its group of query heads, in order.
    dq_heads
        .par_chunks_mut(group * queries * width)
        .zip(dk_heads.par_chunks_mut(keys * width).zip(dv_heads.par_chunks_mut(keys * width)))
        .enumerate()
        .for_each(|(index, (dq, (dk, dv)))| {
            let (batch, kv_head) = (index / kv_heads, index % kv_heads);
            let mut slopes = vec![0.0f32; queries * keys];
            for member in 0..group {
                let head = kv_head * group + member;
                let (q_at, kv_at) = offsets(&sizes, batch, head);
                let dout = Matrix::strided(&dout[q_at..], queries, width, q_stride);
                let q = Matrix::strided(&q[q_at..], queries, width, q_stride);
                let k = Matrix::strided(&k[kv_at..], keys, width, kv_stride);
                let v = Matrix::strided(&v[kv_at..], keys, width, kv_stride);
                let table = &probabilities[(batch * heads + head) * queries * keys..][..queries * keys];
                let p = Matrix::new(table, queries, keys);
                product(MatrixMut::new(dv, keys, width), p.transposed(), dout, 1.0, true, Threads::One);
                product(
                    MatrixMut::new(&mut slopes, queries, keys),
                    dout,
                    v.transposed(),
                    1.0,
                    false,
                    Threads::One,
                );
                softmax_backward(table, &mut slopes, keys);
                let slopes = Matrix::new(&slopes, queries, keys);
                let dq = &mut dq[member * queries * width..][..queries * width];
                product(MatrixMut::new(dq, queries, width), slopes, k, scale, false, Threads::One);
                product(MatrixMut::new(dk, keys, width), slopes.transposed(), q, scale, true, Threads::One);
            }
        });
    interleave(&dq_heads, heads, queries, width, dq);
    interleave(&dk_heads, kv_heads, keys, width, dk);
    interleave(&dv_heads, kv_heads, keys, width, dv);
    debug_assert_eq!(dq.len(), batch * queries * heads * width);
}

/// Where a head's first query and first key lie.
fn offsets(sizes: &Sizes, batch: usize, head: usize) -> (usize, usize) {
    let Sizes { queries, keys, heads, kv_heads, width, .. } = *sizes;
    let q = (batch * queries * heads + head) * width;
    let kv = (batch * keys * kv_heads + head / sizes.group()) * width;
    (q, kv)
}

/// `[batch, heads, tokens, width]` to `[batch, tokens, heads * width]`.
fn interleave(by_head: &[f32], heads: usize, tokens: usize, width: usize, out: &mut [f32]) {
    let sequence = heads * tokens * width;
    out.par_chunks_mut(sequence).zip(by_head.par_chunks(sequence)).for_each(|(out, by_head)| {
        for (token, row) in out.chunks_exact_mut(heads * width).enumerate() {
            for (head, part) in row.chunks_exact_mut(width).enumerate() {
                part.copy_from_slice(&by_head[(head * tokens + token) * width..][..width]);
            }
        }
    });
}

leveled! {
    /// Softmax of each row of scores in place, over what its query may see.
    fn softmax(scores: &mut [f32], queries: usize, keys: usize, causal: bool, visible: Option<&[u8]>) {
        for (query, row) in scores.chunks_exact_mut(keys).enumerate() {
            // With more queries than keys the first ones stand before every key.
            let seen = if causal { (query + keys + 1).saturating_sub(queries).min(keys) } else { keys };
            let (row, hidden) = row.split_at_mut(seen);
            hidden.fill(0.0);
            if let Some(visible) = visible {
                for (score, &visible) in row.iter_mut().zip(visible) {
                    *score = if visible == 0 { f32::NEG_INFINITY } else { *score };
                }
            }
            let mut lanes = [f32::NEG_INFINITY; math::LANES];
            for part in row.chunks(math::LANES) {
                for (lane, &score) in lanes.iter_mut().zip(part) {
                    *lane = if score > *lane { score } else { *lane };
                }
            }
            let most = lanes.iter().fold(f32::NEG_INFINITY, |most, &lane| most.max(lane));
            if most == f32::NEG_INFINITY && !row.iter().any(|score| score.is_nan()) {
                row.fill(0.0);
                continue;
            }
            for score in row.iter_mut() {
                *score = math::exp(*score - most);
            }
            let reciprocal = 1.0 / math::sum(row.len(), |i| row[i]);
            for score in row.iter_mut() {
                *score *= reciprocal;
            }
        }
    }
}

leveled! {
    /// Slopes of the probabilities to slopes of the scores, in place.
    fn softmax_backward(probabilities: &[f32], slopes: &mut [f32], keys: usize) {
        for (p, s) in probabilities.chunks_exact(keys).zip(slopes.chunks_exact_mut(keys)) {
            let along = math::sum(keys, |i| p[i] * s[i]);
            for (s, &p) in s.iter_mut().zip(p) {
                *s = p * (*s - along);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gemm::tests::numbers;

    fn reference(sizes: Sizes, mask: Mask, scale: f64, q: &[f64], k: &[f64], v: &[f64]) -> Vec<f64> {
        let Sizes { batch, queries, keys, heads, kv_heads, width } = sizes;
        let mut out = vec![0.0; q.len()];
        for b in 0..batch {
            for h in 0..heads {
                let kv = h / (heads / kv_heads);
                for i in 0..queries {
                    let row = ((b * queries + i) * heads + h) * width;
                    let key = |j: usize| ((b * keys + j) * kv_heads + kv) * width;
                    let sees = |j: usize| {
                        (!mask.causal || j + queries <= i + keys)
                            && mask.keys.is_none_or(|m| m[b * keys + j] != 0)
                    };
                    let score =
                        |j: usize| scale * (0..width).map(|d| q[row + d] * k[key(j) + d]).sum::<f64>();
                    let total: f64 = (0..keys).filter(|&j| sees(j)).map(|j| score(j).exp()).sum();
                    for j in (0..keys).filter(|&j| sees(j)) {
                        for d in 0..width {
                            out[row + d] += score(j).exp() / total * v[key(j) + d];
                        }
                    }
                }
            }
        }
        out
    }

    fn wide(x: &[f32]) -> Vec<f64> {
        x.iter().map(|&v| v as f64).collect()
    }

    #[test]
    fn forward_and_backward_follow_the_reference() {
        let shapes = [
            (1, 1, 1, 1, 1, 1),
            (2, 7, 7, 4, 4, 3),
            (2, 5, 9, 4, 2, 8),
            (1, 17, 17, 2, 1, 16),
            (3, 33, 33, 2, 2, 5),
        ];
        for (batch, queries, keys, heads, kv_heads, width) in shapes {
            let sizes = Sizes { batch, queries, keys, heads, kv_heads, width };
            let (nq, nk) = (batch * queries * heads * width, batch * keys * kv_heads * width);
            let (q, k, v, g) = (numbers(nq, 1), numbers(nk, 2), numbers(nk, 3), numbers(nq, 4));
            let padding: Vec<u8> = (0..batch * keys).map(|i| (i % keys == 0 || i % 3 != 1) as u8).collect();
            for mask in [
                Mask::default(),
                Mask { causal: true, keys: None },
                Mask { causal: false, keys: Some(&padding) },
                Mask { causal: true, keys: Some(&padding) },
            ] {
                let mut out = vec![f32::NAN; nq];
                let mut table = vec![f32::NAN; sizes.probabilities()];
                forward(sizes, mask, 0.3, &q, &k, &v, &mut out, Some(&mut table));
                let expected = reference(sizes, mask, 0.3, &wide(&q), &wide(&k), &wide(&v));
                for (a, b) in out.iter().zip(&expected) {
                    assert!((*a as f64 - b).abs() < 1e-5, "{sizes:?} {mask:?}: {a} {b}");
                }
                let (mut dq, mut dk, mut dv) = (vec![f32::NAN; nq], vec![f32::NAN; nk], vec![f32::NAN; nk]);
                backward(sizes, 0.3, &q, &k, &v, &table, &g, &mut dq, &mut dk, &mut dv);
                let loss = |q: &[f64], k: &[f64], v: &[f64]| -> f64 {
                    reference(sizes, mask, 0.3, q, k, v).iter().zip(&g).map(|(y, &g)| y * g as f64).sum()
                };
                let inputs = [wide(&q), wide(&k), wide(&v)];
                for (which, gradient) in [&dq, &dk, &dv].into_iter().enumerate() {
                    for probe in (0..gradient.len()).step_by(gradient.len() / 6 + 1) {
                        let at = |delta: f64| {
                            let mut moved = inputs.clone();
                            moved[which][probe] += delta;
                            loss(&moved[0], &moved[1], &moved[2])
                        };
                        let slope = (at(1e-5) - at(-1e-5)) / 2e-5;
                        assert!(
                            (gradient[probe] as f64 - slope).abs() < 1e-4,
                            "{sizes:?} {mask:?} {which} {probe}: {} {slope}",
                            gradient[probe]
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn a_query_that_sees_nothing_gets_zeros() {
        let sizes = Sizes { batch: 1, queries: 2, keys: 3, heads: 1, kv_heads: 1, width: 2 };
        let (mut out, mut table) = ([f32::NAN; 4], [f32::NAN; 6]);
        let mask = Mask { causal: false, keys: Some(&[0, 0, 0]) };
        forward(sizes, mask, 1.0, &[1.0; 4], &[1.0; 6], &[1.0; 6], &mut out, Some(&mut table));
        assert_eq!(out, [0.0; 4]);
    }
}
