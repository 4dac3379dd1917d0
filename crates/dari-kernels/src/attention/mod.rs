//! Scaled dot-product attention (Vaswani et al. 2017) on interleaved heads, with backward.
//!
//! Queries are `[batch * queries, heads * width]`, keys and values `[batch * keys, kv_heads * width]`:
//! as the projections leave them, with no transposition; rows may lie apart, so that one joined
//! projection serves all three. `heads` is a multiple of `kv_heads`; each group of query heads shares
//! one head of keys and values.
//!
//! The table of probabilities never exists as a whole: a few queries meet a few keys at a time, and
//! the softmax is carried along (Milakov and Gimelshein 2018; Dao et al. 2022).

mod backward;
mod kept;

use std::cell::Cell;
use std::ops::Range;

pub use self::backward::{backward, backward_joined};
pub use self::kept::{CacheFormat, Kept};
use crate::gemm::{Epilogue, Lines, Matrix, MatrixMut, Right, Threads, product_with};
use crate::level::leveled;
use crate::math;
use crate::team::{self, Shared};

/// What a thread keeps the memory of.
struct Scratch {
    /// A tile's scores.
    scores: Vec<f32>,
    /// Each query's sum of powers so far.
    sums: Vec<f32>,
    /// A tile's keys and values, where they are kept in fewer bits.
    restored: [Vec<f32>; 2],
    /// The same, packed for their products.
    packed: [Lines; 2],
}

thread_local! {
    static SCRATCH: Cell<Scratch> = const { Cell::new(Scratch::none()) };
}

impl Scratch {
    const fn none() -> Scratch {
        Scratch {
            scores: Vec::new(),
            sums: Vec::new(),
            restored: [Vec::new(), Vec::new()],
            packed: [Lines::empty(), Lines::empty()],
        }
    }
}

/// Most queries of a tile.
const QUERIES: usize = 96;
/// Queries up to which each is a tile of its own, as when a token is written: it gets the same numbers among
/// others as alone.
const FEW: usize = 12;
/// Keys of a tile.
const KEYS: usize = 512;
/// Numbers between the rows of a tile's scores, which would else share places of the first cache.
const APART: usize = 16;

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
    pub keys: &'a Kept,
    /// Values.
    pub values: &'a Kept,
}

impl Tiles<'_> {
    /// Keys of a tile.
    fn step(&self) -> usize {
        match self {
            Tiles::Whole { .. } => KEYS,
            Tiles::Pages { tokens, .. } => *tokens,
        }
    }

    /// The keys and values of a head from `start`, where a tile begins, `length` of them.
    fn tile<'a>(
        &'a self,
        sizes: &Sizes,
        (batch, kv_head): (usize, usize),
        (start, length): (usize, usize),
        [k_scratch, v_scratch]: &'a mut [Vec<f32>; 2],
    ) -> (Matrix<'a>, Matrix<'a>) {
        match self {
            Tiles::Whole { k, v } => {
                let of = |x: Matrix<'a>| sizes.keys_of(x, batch, kv_head).rows(start, length);
                (of(*k), of(*v))
            }
            Tiles::Pages { pages, tokens } => {
                let Page { keys, values } = pages[start / tokens];
                (keys.head(length, kv_head, k_scratch), values.head(length, kv_head, v_scratch))
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
    let apart = step + APART;
    let shared = Shared(out.as_mut_ptr());
    let attend = |index: usize, logs: &mut [f32]| {
        let mut scratch = SCRATCH.replace(Scratch::none());
        let Scratch { scores, sums, restored, packed } = &mut scratch;
        let (batch, head) = (index / heads, index % heads);
        let kv_head = head / sizes.group();
        let visible = mask.keys.map(|all| &all[batch * keys..][..keys]);
        let all = sizes.queries_of(q, batch, head);
        let at = batch * queries * stride + head * width;
        let row = |query: usize| {
            // SAFETY: inside `out`, and this task's own: sequence, head and query are.
            unsafe { shared.part(at + query * stride, width) }
        };
        logs.fill(f32::NEG_INFINITY);
        sums.clear();
        sums.resize(queries, 0.0);
        // A query's scores of a tile to powers; what it has of tiles before shrinks.
        let mut settle = |query: usize, scores: &mut [f32], start: usize, keep: bool| {
            let (hidden, seen) = within(mask.seen(&sizes, query), start, scores.len());
            let visible = visible.map(|visible| &visible[start..keys.min(start + scores.len())]);
            let shrink = powers(scores, hidden, seen, visible, &mut logs[query], &mut sums[query]);
            if keep && shrink != 1.0 {
                multiply(row(query), shrink);
            }
        };
        let parts = if queries <= FEW { queries } else { queries.div_ceil(QUERIES) };
        let part = |index: usize| queries * index / parts..queries * (index + 1) / parts;
        // Where the first tile begins that some query of a part sees something of, and its last key ends.
        let span = |part: &Range<usize>| {
            let end = mask.seen(&sizes, part.end - 1).1;
            (mask.seen(&sizes, part.start).0.min(end) / step * step, end)
        };
        for start in (span(&part(0)).0..span(&part(parts - 1)).1).step_by(step) {
            let length = step.min(keys - start);
            let (k, v) = tiles.tile(&sizes, (batch, kv_head), (start, length), restored);
            // Packed once for all queries of the head.
            let [k_lines, v_lines] = &mut *packed;
            let packed = (queries > FEW).then(|| {
                (Right::pack(k.transposed(), k_lines, Threads::One), Right::pack(v, v_lines, Threads::One))
            });
            for part in (0..parts).map(part) {
                let (from, end) = span(&part);
                if start < from || start >= end {
                    continue;
                }
                let (count, length, keep) = (part.len(), length.min(end - start), start > from);
                let q = all.rows(part.start, count);
                scores.resize(scores.len().max(count * apart), 0.0);
                let Some((k, v)) = &packed else {
                    let scores = &mut scores[..length];
                    scores_of_one(q.row(0), &k, scale, scores);
                    settle(part.start, scores, start, keep);
                    mixed_by_one(scores, &v, keep, row(part.start));
                    continue;
                };
                let to = MatrixMut::strided(scores, count, length, apart);
                product_with(to, q, k.columns(length), &Epilogue::scale(scale), false, Threads::One);
                // Whole registers: what lies behind the last key is seen by none.
                let whole = length.next_multiple_of(math::LANES);
                for (query, scores) in part.clone().zip(scores.chunks_mut(apart)) {
                    settle(query, &mut scores[..whole], start, keep);
                }
                // SAFETY: as in `row`.
                let out =
                    unsafe { MatrixMut::raw(shared.at(at + part.start * stride), count, width, stride) };
                let scores = Matrix::strided(scores, count, length, apart);
                product_with(out, scores, v.rows(length), &Epilogue::default(), keep, Threads::One);
            }
        }
        for (query, (log, &sum)) in logs.iter_mut().zip(&*sums).enumerate() {
            match sum == 0.0 {
                true => row(query).fill(0.0),
                false => multiply(row(query), 1.0 / sum),
            }
            *log += sum.ln();
        }
        SCRATCH.set(scratch);
    };
    // For its size a query by itself takes far longer than many: its keys and values come from memory.
    let alone = if queries == 1 { 1 << 12 } else { 1 << 16 };
    if batch * heads * queries * keys * width < alone {
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
        let (wholes, rest) = scores.as_chunks::<{ math::LANES }>();
        let mut lanes = [f32::NEG_INFINITY; math::LANES];
        for part in wholes {
            for lane in 0..math::LANES {
                lanes[lane] = if part[lane] > lanes[lane] { part[lane] } else { lanes[lane] };
            }
        }
        for (lane, &score) in lanes.iter_mut().zip(rest) {
            *lane = if score > *lane { score } else { *lane };
        }
        let larger = most.max(math::largest(lanes));
        if larger == f32::NEG_INFINITY {
            // Nothing is seen so far; a score that is no number stays one.
            for score in scores.iter_mut() {
                *score = if score.is_nan() { f32::NAN } else { 0.0 };
            }
            *sum += math::sum(scores.len(), |i| scores[i]);
            return 1.0;
        }
        let shrink = math::exp(*most - larger);
        let (wholes, rest) = scores.as_chunks_mut::<{ math::LANES }>();
        let mut lanes = [0.0; math::LANES];
        for part in wholes {
            for lane in 0..math::LANES {
                part[lane] = math::exp_of_at_most_88(part[lane] - larger);
                lanes[lane] += part[lane];
            }
        }
        for (score, lane) in rest.iter_mut().zip(&mut lanes) {
            *score = math::exp_of_at_most_88(*score - larger);
            *lane += *score;
        }
        *sum = *sum * shrink + math::fold(lanes);
        *most = larger;
        shrink
    }
}

#[cfg(test)]
mod tests;
