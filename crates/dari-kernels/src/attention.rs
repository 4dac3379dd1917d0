//! Scaled dot-product attention (Vaswani et al. 2017) on interleaved heads, with backward.
//!
//! Queries are `[batch * queries, heads * width]`, keys and values `[batch * keys, kv_heads * width]`:
//! as the projections leave them, with no transposition; rows may lie apart, so that one joined
//! projection serves all three. `heads` is a multiple of `kv_heads`; each group of query heads shares
//! one head of keys and values.
//!
//! The table of probabilities never exists as a whole: a few queries meet a few keys at a time, and
//! the softmax is carried along (Milakov and Gimelshein 2018; Dao et al. 2022). The backward pass
//! makes it anew from one number a query.

use std::cell::Cell;

use crate::gemm::{Epilogue, Matrix, MatrixMut, Threads, product};
use crate::level::leveled;
use crate::math;
use crate::team::{self, Shared};

thread_local! {
    /// A tile's scores, and their slopes; a thread keeps their memory.
    static TABLE: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
    static SLOPES: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Queries of a tile.
const QUERIES: usize = 64;
/// Queries up to which each is a tile of its own, as when a token is written: it gets the same numbers among
/// others as alone.
const FEW: usize = 12;
/// Keys of a tile.
const KEYS: usize = 512;

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

    fn check(&self, q: &Matrix, k: &Matrix, v: &Matrix, mask: &Mask) {
        assert!(self.kv_heads > 0 && self.heads.is_multiple_of(self.kv_heads));
        assert_eq!(q.size(), [self.batch * self.queries, self.heads * self.width]);
        assert_eq!(k.size(), [self.batch * self.keys, self.kv_heads * self.width]);
        assert_eq!(v.size(), k.size());
        assert!(mask.keys.is_none_or(|keys| keys.len() == self.batch * self.keys));
    }

    /// Numbers kept for the backward pass, `[batch, heads, queries]`.
    pub fn statistics(&self) -> usize {
        self.batch * self.heads * self.queries
    }

    /// A head's queries of one sequence.
    fn queries_of<'a>(&self, x: Matrix<'a>, batch: usize, head: usize) -> Matrix<'a> {
        x.rows(batch * self.queries, self.queries).columns(head * self.width, self.width)
    }

    /// A head's keys or values of one sequence.
    fn keys_of<'a>(&self, x: Matrix<'a>, batch: usize, kv_head: usize) -> Matrix<'a> {
        x.rows(batch * self.keys, self.keys).columns(kv_head * self.width, self.width)
    }

    /// How many of the first keys a query may see when nothing ahead is seen. With more queries than
    /// keys the first ones stand before every key.
    fn seen(&self, query: usize) -> usize {
        (query + self.keys + 1).saturating_sub(self.queries).min(self.keys)
    }
}

/// What a query may see.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mask<'a> {
    /// A query sees no key behind its own place; the last query stands at the last key.
    pub causal: bool,
    /// `[batch, keys]`, 1 for a token that may be seen, 0 for padding.
    pub keys: Option<&'a [u8]>,
    /// With `causal`: how many of the keys up to its own place a query sees; all where absent.
    pub window: Option<usize>,
}

impl Mask<'_> {
    /// The keys that a query may see: the first, and the one behind the last.
    fn seen(&self, sizes: &Sizes, query: usize) -> (usize, usize) {
        match self.causal {
            true => {
                let end = sizes.seen(query);
                (end.saturating_sub(self.window.unwrap_or(end)), end)
            }
            false => (0, sizes.keys),
        }
    }
}

/// Keys and values, a tile at a time.
enum Tiles<'a> {
    /// `[batch * keys, kv_heads * width]`.
    Whole { k: Matrix<'a>, v: Matrix<'a> },
    /// Of one sequence, in pages of equally many tokens.
    Pages { pages: &'a [Page<'a>], tokens: usize },
}

/// Some tokens' keys and values, `[tokens, kv_heads * width]` each.
#[derive(Clone, Copy)]
pub struct Page<'a> {
    /// Keys.
    pub keys: &'a [f32],
    /// Values.
    pub values: &'a [f32],
}

impl<'a> Tiles<'a> {
    /// Keys of a tile.
    fn step(&self) -> usize {
        match self {
            Tiles::Whole { .. } => KEYS,
            Tiles::Pages { tokens, .. } => *tokens,
        }
    }

    /// The keys and values of a head from `start`, where a tile begins, `length` of them.
    fn tile(
        &self,
        sizes: &Sizes,
        batch: usize,
        kv_head: usize,
        start: usize,
        length: usize,
    ) -> (Matrix<'a>, Matrix<'a>) {
        match self {
            Tiles::Whole { k, v } => {
                let of = |x: Matrix<'a>| sizes.keys_of(x, batch, kv_head).rows(start, length);
                (of(*k), of(*v))
            }
            Tiles::Pages { pages, tokens } => {
                let row = sizes.kv_heads * sizes.width;
                let Page { keys, values } = pages[start / tokens];
                let of = |x| Matrix::new(x, length, row).columns(kv_head * sizes.width, sizes.width);
                (of(keys), of(values))
            }
        }
    }
}

/// `out = softmax(scale q k^T, masked) v`, `[batch * queries, heads * width]`. The logarithm of each
/// query's sum is kept in `statistics`, where given, for the backward pass. A query that may see
/// nothing gets zeros.
#[allow(clippy::too_many_arguments)]
pub fn forward(
    sizes: Sizes,
    mask: Mask,
    scale: f32,
    q: Matrix,
    k: Matrix,
    v: Matrix,
    out: &mut [f32],
    statistics: Option<&mut [f32]>,
) {
    sizes.check(&q, &k, &v, &mask);
    attend(sizes, mask, scale, q, &Tiles::Whole { k, v }, out, statistics);
}

/// The same for the last `sizes.queries` tokens of one sequence, whose keys and values lie in pages of
/// `tokens` each; none sees what lies behind it, nor more than `window` tokens back.
pub fn forward_paged(
    sizes: Sizes,
    window: Option<usize>,
    scale: f32,
    q: Matrix,
    pages: &[Page],
    tokens: usize,
    out: &mut [f32],
) {
    let Sizes { batch, queries, keys, heads, kv_heads, width } = sizes;
    assert!(kv_heads > 0 && heads.is_multiple_of(kv_heads) && batch == 1 && tokens > 0);
    assert_eq!(q.size(), [queries, heads * width]);
    assert_eq!(pages.len(), keys.div_ceil(tokens));
    let mask = Mask { causal: true, keys: None, window };
    attend(sizes, mask, scale, q, &Tiles::Pages { pages, tokens }, out, None);
}

fn attend(
    sizes: Sizes,
    mask: Mask,
    scale: f32,
    q: Matrix,
    tiles: &Tiles,
    out: &mut [f32],
    statistics: Option<&mut [f32]>,
) {
    let Sizes { batch, queries, keys, heads, width, .. } = sizes;
    assert_eq!(out.len(), batch * queries * heads * width);
    let mut unkept = Vec::new();
    let statistics = match statistics {
        Some(statistics) => statistics,
        None => {
            unkept.resize(sizes.statistics(), 0.0);
            &mut unkept
        }
    };
    assert_eq!(statistics.len(), sizes.statistics());
    if out.is_empty() || keys == 0 {
        out.fill(0.0);
        statistics.fill(f32::NEG_INFINITY);
        return;
    }
    let stride = heads * width;
    let step = tiles.step();
    let shared = Shared(out.as_mut_ptr());
    let attend = |index: usize, logs: &mut [f32]| {
        let mut scores = TABLE.take();
        let (batch, head) = (index / heads, index % heads);
        let kv_head = head / sizes.group();
        let visible = mask.keys.map(|all| &all[batch * keys..][..keys]);
        let most = if queries <= FEW { 1 } else { QUERIES };
        for first in (0..queries).step_by(most) {
            let count = most.min(queries - first);
            let q = sizes.queries_of(q, batch, head).rows(first, count);
            let at = (batch * queries + first) * stride + head * width;
            let rows = |row: usize| {
                // SAFETY: inside `out`, and this task's own: sequence, head and query are.
                unsafe { shared.part(at + row * stride, width) }
            };
            let reach = mask.seen(&sizes, first + count - 1).1;
            let (mut most, mut sums) = ([f32::NEG_INFINITY; QUERIES], [0.0f32; QUERIES]);
            // Whole tiles that the first query of the block sees nothing of, nor any behind it.
            let skipped = mask.seen(&sizes, first).0.min(reach) / step * step;
            if skipped == reach {
                (0..count).for_each(|row| rows(row).fill(0.0));
            }
            for start in (skipped..reach).step_by(step) {
                let length = step.min(reach - start);
                let (k, v) = tiles.tile(&sizes, batch, kv_head, start, length);
                scores.resize(QUERIES * step, 0.0);
                let scores = &mut scores[..count * length];
                match count {
                    1 => scores_of_one(q.row(0), &k, scale, scores),
                    _ => {
                        let part = MatrixMut::new(scores, count, length);
                        product(part, q, k.transposed(), &Epilogue::scale(scale), false, Threads::One);
                    }
                }
                for (row, scores) in scores.chunks_exact_mut(length).enumerate() {
                    let (hidden, seen) = within(mask.seen(&sizes, first + row), start, length);
                    let visible = visible.map(|visible| &visible[start..start + length]);
                    let shrink = powers(scores, hidden, seen, visible, &mut most[row], &mut sums[row]);
                    if start > skipped && shrink != 1.0 {
                        multiply(rows(row), shrink);
                    }
                }
                if count == 1 {
                    mixed_by_one(scores, &v, start > skipped, rows(0));
                    continue;
                }
                // SAFETY: as in `rows`.
                let out = unsafe { MatrixMut::raw(shared.at(at), count, width, stride) };
                let scores = Matrix::new(scores, count, length);
                product(out, scores, v, &Epilogue::default(), start > skipped, Threads::One);
            }
            for row in 0..count {
                multiply(rows(row), if sums[row] == 0.0 { 0.0 } else { 1.0 / sums[row] });
                logs[first + row] = most[row] + sums[row].ln();
            }
        }
        TABLE.set(scores);
    };
    if batch * heads * queries * keys * width < 1 << 16 {
        statistics.chunks_mut(queries).enumerate().for_each(|(index, logs)| attend(index, logs));
    } else {
        team::chunks(statistics, queries, attend);
    }
}

leveled! {
    /// The scores of one query, as when a token is written: packing the keys would take longer than they do.
    fn scores_of_one(q: &[f32], keys: &Matrix<'_>, scale: f32, scores: &mut [f32]) {
        let (wholes, rest) = q.as_chunks::<{ math::LANES }>();
        for (at, score) in scores.iter_mut().enumerate() {
            let (key_wholes, key_rest) = keys.row(at).as_chunks::<{ math::LANES }>();
            let mut lanes = [0.0; math::LANES];
            for (a, b) in wholes.iter().zip(key_wholes) {
                for lane in 0..math::LANES {
                    lanes[lane] += a[lane] * b[lane];
                }
            }
            let rest: f32 = rest.iter().zip(key_rest).map(|(a, b)| a * b).sum();
            *score = (math::fold(lanes) + rest) * scale;
        }
    }
}

leveled! {
    /// `out = scores values`, one row, added to what is there with `keep`.
    fn mixed_by_one(scores: &[f32], values: &Matrix<'_>, keep: bool, out: &mut [f32]) {
        if !keep {
            out.fill(0.0);
        }
        let (fours, rest) = scores.as_chunks::<4>();
        for (at, four) in fours.iter().enumerate() {
            let [a, b, c, d] = [0, 1, 2, 3].map(|i| values.row(4 * at + i));
            for ((((out, a), b), c), d) in out.iter_mut().zip(a).zip(b).zip(c).zip(d) {
                *out += four[0] * a + four[1] * b + (four[2] * c + four[3] * d);
            }
        }
        for (at, &score) in rest.iter().enumerate() {
            for (out, &value) in out.iter_mut().zip(values.row(4 * fours.len() + at)) {
                *out += score * value;
            }
        }
    }
}

/// What a query sees of a tile: the first key and the one behind the last, counted from its start.
fn within((from, to): (usize, usize), start: usize, length: usize) -> (usize, usize) {
    let to = to.saturating_sub(start).min(length);
    (from.saturating_sub(start).min(to), to)
}

/// The gradients of [`forward`] with respect to `q`, `k` and `v`, all overwritten; `out` and
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

/// [`backward`] of self-attention into one buffer, `[batch * tokens, 3 * heads * width]`: a row's
/// queries, keys and values side by side.
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
    let width = sizes.heads * sizes.width;
    assert!(sizes.heads == sizes.kv_heads && sizes.queries == sizes.keys);
    assert_eq!(gradient.len(), 3 * out.len());
    if out.is_empty() {
        return;
    }
    let all = Shared(gradient.as_mut_ptr());
    let gradients = [0, 1, 2].map(|part| Shared(all.at(part * width)));
    // SAFETY: the three lie in one buffer's rows, side by side.
    unsafe { slopes(sizes, mask, scale, q, k, v, out, statistics, dout, gradients, [3 * width; 2]) }
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
        let (mut kept_table, mut kept_slopes) = (TABLE.take(), SLOPES.take());
        let (table, slopes) = (&mut kept_table, &mut kept_slopes);
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
        TABLE.set(kept_table);
        SLOPES.set(kept_slopes);
    });
}

leveled! {
    fn multiply(row: &mut [f32], by: f32) {
        for value in row {
            *value *= by;
        }
    }
}

/// Scores that may not be seen become minus infinity.
#[inline(always)]
fn hide(scores: &mut [f32], hidden: usize, seen: usize, visible: Option<&[u8]>) {
    scores[..hidden].fill(f32::NEG_INFINITY);
    scores[seen..].fill(f32::NEG_INFINITY);
    if let Some(visible) = visible {
        for (score, &visible) in scores.iter_mut().zip(visible) {
            *score = if visible == 0 { f32::NEG_INFINITY } else { *score };
        }
    }
}

leveled! {
    /// Scores to powers relative to the largest so far; gives by how much what came before shrinks.
    fn powers(scores: &mut [f32], hidden: usize, seen: usize, visible: Option<&[u8]>, most: &mut f32, sum: &mut f32) -> f32 {
        hide(scores, hidden, seen, visible);
        let mut lanes = [f32::NEG_INFINITY; math::LANES];
        for part in scores.chunks(math::LANES) {
            for (lane, &score) in lanes.iter_mut().zip(part) {
                *lane = if score > *lane { score } else { *lane };
            }
        }
        let larger = lanes.iter().fold(*most, |most, &lane| most.max(lane));
        if larger == f32::NEG_INFINITY {
            // Nothing is seen so far; a score that is no number stays one.
            for score in scores.iter_mut() {
                *score = if score.is_nan() { f32::NAN } else { 0.0 };
            }
            *sum += math::sum(scores.len(), |i| scores[i]);
            return 1.0;
        }
        let shrink = math::exp(*most - larger);
        for score in scores.iter_mut() {
            *score = math::exp(*score - larger);
        }
        *sum = *sum * shrink + math::sum(scores.len(), |i| scores[i]);
        *most = larger;
        shrink
    }
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
                            && mask.window.is_none_or(|window| i + keys < j + queries + window)
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
            (1, 70, 9, 1, 1, 3),
            (1, 67, 1030, 2, 1, 4),
        ];
        for (batch, queries, keys, heads, kv_heads, width) in shapes {
            let sizes = Sizes { batch, queries, keys, heads, kv_heads, width };
            let (nq, nk) = (batch * queries * heads * width, batch * keys * kv_heads * width);
            let (q, k, v, g) = (numbers(nq, 1), numbers(nk, 2), numbers(nk, 3), numbers(nq, 4));
            let padding: Vec<u8> = (0..batch * keys).map(|i| (i % keys == 0 || i % 3 != 1) as u8).collect();
            for mask in [
                Mask::default(),
                Mask { causal: true, ..Mask::default() },
                Mask { keys: Some(&padding), ..Mask::default() },
                Mask { causal: true, keys: Some(&padding), window: None },
                Mask { causal: true, keys: None, window: Some(4) },
                Mask { causal: true, keys: Some(&padding), window: Some(600) },
            ] {
                let mut out = vec![f32::NAN; nq];
                let mut logs = vec![f32::NAN; sizes.statistics()];
                let q_view = Matrix::new(&q, batch * queries, heads * width);
                let [k_view, v_view] = [&k, &v].map(|x| Matrix::new(x, batch * keys, kv_heads * width));
                forward(sizes, mask, 0.3, q_view, k_view, v_view, &mut out, Some(&mut logs));
                let expected = reference(sizes, mask, 0.3, &wide(&q), &wide(&k), &wide(&v));
                for (a, b) in out.iter().zip(&expected) {
                    assert!((*a as f64 - b).abs() < 1e-5, "{sizes:?} {mask:?}: {a} {b}");
                }
                let (mut dq, mut dk, mut dv) = (vec![f32::NAN; nq], vec![f32::NAN; nk], vec![f32::NAN; nk]);
                backward(
                    sizes, mask, 0.3, q_view, k_view, v_view, &out, &logs, &g, &mut dq, &mut dk, &mut dv,
                );
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
    fn pages_are_the_same_keys() {
        for (queries, keys, window) in
            [(1, 1, None), (1, 40, None), (7, 40, None), (3, 33, Some(10)), (40, 40, Some(9))]
        {
            let sizes = Sizes { batch: 1, queries, keys, heads: 4, kv_heads: 2, width: 6 };
            let (q, k, v) = (numbers(queries * 24, 1), numbers(keys * 12, 2), numbers(keys * 12, 3));
            let q = Matrix::new(&q, queries, 24);
            let mask = Mask { causal: true, keys: None, window };
            let (mut whole, mut paged) = (vec![0.0; queries * 24], vec![f32::NAN; queries * 24]);
            forward(
                sizes,
                mask,
                0.4,
                q,
                Matrix::new(&k, keys, 12),
                Matrix::new(&v, keys, 12),
                &mut whole,
                None,
            );
            let pages: Vec<Page> = k
                .chunks(16 * 12)
                .zip(v.chunks(16 * 12))
                .map(|(keys, values)| Page { keys, values })
                .collect();
            forward_paged(sizes, window, 0.4, q, &pages, 16, &mut paged);
            for (a, b) in whole.iter().zip(&paged) {
                assert!((a - b).abs() < 1e-6, "{queries} {keys} {window:?}: {a} {b}");
            }
        }
    }

    #[test]
    fn a_score_that_is_no_number_spoils_its_query_alone() {
        let sizes = Sizes { batch: 1, queries: 2, keys: 3, heads: 1, kv_heads: 1, width: 2 };
        let mut out = [0.0; 4];
        let (q, k) = ([f32::NAN, 1.0, 1.0, 1.0], [1.0; 6]);
        let (q, k) = (Matrix::new(&q, 2, 2), Matrix::new(&k, 3, 2));
        forward(sizes, Mask::default(), 1.0, q, k, k, &mut out, None);
        assert!(out[0].is_nan() && out[1].is_nan());
        assert_eq!(out[2..], [1.0, 1.0]);
    }

    #[test]
    fn a_query_that_sees_nothing_gets_zeros() {
        let sizes = Sizes { batch: 1, queries: 2, keys: 3, heads: 1, kv_heads: 1, width: 2 };
        let (mut out, mut logs) = ([f32::NAN; 4], [f32::NAN; 2]);
        let mask = Mask { keys: Some(&[0, 0, 0]), ..Mask::default() };
        let (q, k) = (Matrix::new(&[1.0; 4], 2, 2), Matrix::new(&[1.0; 6], 3, 2));
        forward(sizes, mask, 1.0, q, k, k, &mut out, Some(&mut logs));
        assert_eq!(out, [0.0; 4]);
        let (mut dq, mut dk, mut dv) = ([f32::NAN; 4], [f32::NAN; 6], [f32::NAN; 6]);
        backward(sizes, mask, 1.0, q, k, k, &out, &logs, &[1.0; 4], &mut dq, &mut dk, &mut dv);
        assert_eq!((dq, dk, dv), ([0.0; 4], [0.0; 6], [0.0; 6]));
    }
}
