//! Exact vector search: a scan of int8 codes that can only leave out rows which are proven to lose,
//! then float32 scores of the rows that are left.
//!
//! What is computed is the float32 score of [`dot`] for every row, no more and no less: the `k`
//! rows with the highest scores, equal scores by id, a score that is not a number left out. The
//! codes change how much is read (a quarter of the bytes), never the answer: also for rows or
//! queries that are infinite, not a number, or too great for a float32 sum.
//!
//! # Why no row is lost
//!
//! A row `v` is kept as integers `c`, `|c| <= 128`, a scale `s`, and `E >= |v - s c|` (Euclidean
//! norms throughout). The query `q` becomes integers `d`, a step `t`, and `F >= |q - t d|`. With
//! `e = v - s c` and `f = q - t d`, exactly,
//!
//! ```text
//! v.q = s t (c.d) + s (c.f) + e.q,   |e.q| <= E |q|,   |s (c.f)| <= s |c| F <= s w F,   w = 128 sqrt(dim).
//! ```
//!
//! `c.d` is an exact integer: the levels of the query are so many that no sum of any of its terms,
//! in any order, leaves an i32. `s t` is exact in float64.
//!
//! The float32 score is not `v.q`. In [`dot`] every term passes through at most
//! `n = dim / 16 + 20` roundings (a product, the sums of its lane, four folds, fifteen elements at
//! the end), so with `u = 2^-24` and `g = n u / (1 - n u)` (Higham 2002, section 3.1)
//!
//! ```text
//! |score - v.q| <= g sum |v_i q_i| + dim 2^-149 <= g (s w + E) |q| + dim 2^-149,
//! ```
//!
//! the last term for products below the normal numbers; sums there are exact. It holds as long as
//! nothing overflows, and nothing can while `(s w + E) |q| <= 1e38`; beyond that the interval is
//! the whole line. Together
//!
//! ```text
//! |score - s t (c.d)| <= E A + s B + C,   A = (1 + g) |q|,   B = w (F + g |q|),   C = dim 2^-149.
//! ```
//!
//! Both sides are computed in float64, whose roundings are relative errors of `2^-53` each: `A` and
//! `B` are made greater by one part in `2^20`, which covers those of the half-width, and `B` by
//! `w 2^-48 (|q| + F)`, which covers those of the centre, since `s t |c.d| <= s w (|q| + F)`. Norms
//! are sums of squares in float64, rounded up by one part in `2^20`, then to the next float32.
//!
//! `E` is measured against the codes as they are, so nothing rests on how well they were chosen; a
//! row that is not finite has `E` infinite, and only it can have a NaN for its score. If `k` rows have lower ends of at least `h`, then every
//! row whose upper end is below `h` has `k` rows strictly before it, and is left out. The others are
//! scored from the highest upper end down, until `k` scores lie strictly above the next upper end.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::sync::atomic::{self, AtomicU64};
use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

use crate::level::{Level, leveled};

/// Sums that run side by side in [`dot`]. Their order is fixed, so a score depends neither on the
/// machine, nor on the number of threads, nor on the other rows.
const LANES: usize = 16;
/// Bytes of one float32.
const NUMBER: usize = size_of::<f32>();
/// The greatest magnitude of a row's code.
const CODE: f32 = 127.0;
/// Rows whose integers are computed before their intervals are.
const BLOCK: usize = 64;
/// Bytes of codes, or of vectors, that one task reads.
const TASK: usize = 1 << 20;
/// Where the sums of a float32 score might overflow, an interval is the whole line.
const LARGE: f64 = 1e38;
/// Covers the float64 roundings of a norm and of a bound.
const UP: f64 = 1.0 + 1.0 / (1 << 20) as f64;

/// Rows as int8 codes, borrowed from wherever they lie.
#[derive(Debug, Clone, Copy)]
pub struct Codes<'a> {
    /// `[rows, dim]`, from -127 to 127.
    pub codes: &'a [i8],
    /// `[rows]`: what one unit of a row's codes is worth.
    pub scales: &'a [f32],
    /// `[rows]`: at least the Euclidean norm of the row less its scaled codes.
    pub errors: &'a [f32],
    /// Numbers in a row.
    pub dim: usize,
}

impl<'a> Codes<'a> {
    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.scales.len()
    }

    /// `count` rows from `first` on.
    ///
    /// # Panics
    /// Where there are not so many.
    pub fn part(&self, first: usize, count: usize) -> Codes<'a> {
        Codes {
            codes: &self.codes[first * self.dim..][..count * self.dim],
            scales: &self.scales[first..][..count],
            errors: &self.errors[first..][..count],
            dim: self.dim,
        }
    }

    fn check(&self) {
        assert!(self.errors.len() == self.rows() && self.codes.len() == self.rows() * self.dim);
    }
}

/// Bytes seen as codes.
pub fn as_codes(bytes: &[u8]) -> &[i8] {
    // SAFETY: i8 has the size, the alignment and every bit pattern of u8.
    unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len()) }
}

/// Codes seen as bytes.
pub fn as_bytes(codes: &[i8]) -> &[u8] {
    // SAFETY: as in `as_codes`.
    unsafe { std::slice::from_raw_parts(codes.as_ptr().cast(), codes.len()) }
}

/// Little-endian bytes seen as numbers; nothing where they are not aligned, not whole, or where the
/// machine is big-endian.
pub fn as_numbers(bytes: &[u8]) -> Option<&[f32]> {
    let fits = bytes.len().is_multiple_of(NUMBER) && bytes.as_ptr().cast::<f32>().is_aligned();
    // SAFETY: aligned and whole as just checked, and every bit pattern is an f32.
    (fits && cfg!(target_endian = "little"))
        .then(|| unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len() / NUMBER) })
}

/// Rounds rows of little-endian float32, `[rows, dim]`, to `codes`, with each row's scale and error.
///
/// A row that is not finite gets an infinite error, by which it is always scored in float32.
///
/// # Panics
/// Where the lengths do not belong together.
pub fn quantise(vectors: &[u8], dim: usize, codes: &mut [i8], scales: &mut [f32], errors: &mut [f32]) {
    let rows = scales.len();
    assert!(errors.len() == rows && codes.len() == rows * dim && vectors.len() == codes.len() * NUMBER);
    if dim == 0 {
        scales.fill(0.0);
        errors.fill(0.0);
        return;
    }
    let part = TASK.div_ceil(dim * NUMBER);
    vectors
        .par_chunks(part * dim * NUMBER)
        .zip(codes.par_chunks_mut(part * dim))
        .zip(scales.par_chunks_mut(part).zip(errors.par_chunks_mut(part)))
        .for_each(|((vectors, codes), (scales, errors))| quantise_rows(vectors, dim, codes, scales, errors));
}

leveled! {
    fn quantise_rows(vectors: &[u8], dim: usize, codes: &mut [i8], scales: &mut [f32], errors: &mut [f32]) {
        /// Squares that are summed side by side.
        const WIDTH: usize = 8;
        // Adding it leaves the nearest integer in the low bits of the mantissa.
        const SHIFT: f32 = 12_582_912.0;
        let rows = vectors.chunks_exact(dim * NUMBER).zip(codes.chunks_exact_mut(dim));
        for ((row, codes), (scale, error)) in rows.zip(scales.iter_mut().zip(errors)) {
            let (row, _) = row.as_chunks::<NUMBER>();
            let (mut greatest, mut sound) = (0.0f32, true);
            for x in row {
                let x = f32::from_le_bytes(*x).abs();
                greatest = if x > greatest { x } else { greatest };
                sound &= x <= f32::MAX;
            }
            if !sound {
                codes.fill(0);
                (*scale, *error) = (0.0, f32::INFINITY);
                continue;
            }
            *scale = greatest / CODE;
            // A scale of 0 (a row of zeros, or of next to nothing) keeps its codes at 0.
            let divisor = if *scale > 0.0 { *scale } else { f32::INFINITY };
            let exact = f64::from(*scale);
            let mut squares = [0.0f64; WIDTH];
            for (row, codes) in row.chunks(WIDTH).zip(codes.chunks_mut(WIDTH)) {
                for ((x, code), square) in row.iter().zip(codes).zip(&mut squares) {
                    let x = f32::from_le_bytes(*x);
                    let level = (x / divisor).clamp(-CODE, CODE) + SHIFT;
                    *code = level.to_bits() as i8;
                    let left = f64::from(x) - exact * f64::from(level - SHIFT);
                    *square += left * left;
                }
            }
            *error = up(squares.iter().sum::<f64>().sqrt());
        }
    }
}

/// A norm computed in float64 as a float32 that is no smaller than the exact one.
fn up(norm: f64) -> f32 {
    if norm == 0.0 { 0.0 } else { ((norm * UP) as f32).next_up() }
}

/// The norm of numbers in float64, before it is rounded up.
fn norm(numbers: impl Iterator<Item = f64>) -> f64 {
    numbers.map(|x| x * x).sum::<f64>().sqrt()
}

/// A query as integers, and what makes intervals of its products with codes.
#[derive(Debug)]
struct Query {
    levels: Vec<i16>,
    bounds: Bounds,
}

/// The constants of the module's proof.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    /// `t`, a float32's value.
    step: f64,
    /// `A`, half-width for each unit of a row's error.
    error: f64,
    /// `B`, half-width for each unit of a row's scale.
    scale: f64,
    /// `C`.
    least: f64,
    /// `|q|`: magnitude for each unit of a row's error.
    large_error: f64,
    /// `w |q|`: magnitude for each unit of a row's scale.
    large_scale: f64,
}

impl Query {
    /// Nothing where rows are so long, or the query so odd, that integers are of no use.
    fn new(query: &[f32]) -> Option<Query> {
        let dim = query.len();
        // As many levels as fit an i16, and as an i32 can sum when every code is -128.
        let most = (i32::MAX as usize).checked_div(dim * 128)?.min(i16::MAX as usize) as f32;
        let greatest = query.iter().fold(0.0f32, |greatest, x| greatest.max(x.abs()));
        if most < 1.0 || query.iter().any(|x| !x.is_finite()) {
            return None;
        }
        let step = greatest / most;
        let divisor = if step > 0.0 { step } else { f32::INFINITY };
        let levels: Vec<i16> =
            query.iter().map(|x| (x / divisor).round_ties_even().clamp(-most, most) as i16).collect();
        let step = f64::from(step);
        let length = norm(query.iter().map(|&x| f64::from(x))) * UP;
        // The product is exact in float64: 24 bits by 15.
        let left = norm(query.iter().zip(&levels).map(|(&x, &d)| f64::from(x) - step * f64::from(d))) * UP;
        let width = 128.0 * (dim as f64).sqrt() * UP;
        let roundings = (dim / LANES + 20) as f64 * f64::from(f32::EPSILON) / 2.0;
        let rounding = roundings / (1.0 - roundings);
        let centre = (length + left) / (1u64 << 48) as f64;
        Some(Query {
            levels,
            bounds: Bounds {
                step,
                error: (1.0 + rounding) * length * UP,
                scale: width * (left + rounding * length + centre) * UP,
                least: dim as f64 * f64::from(f32::from_bits(1)),
                large_error: length,
                large_scale: width * length,
            },
        })
    }
}

leveled! {
    /// The ends of the intervals in which the float32 scores of rows lie, never NaN.
    fn intervals(
        products: &[i32],
        scales: &[f32],
        errors: &[f32],
        bounds: &Bounds,
        lows: &mut [f64],
        highs: &mut [f64],
    ) {
        let rows = products.iter().zip(scales.iter().zip(errors));
        for ((&product, (&scale, &error)), (low, high)) in rows.zip(lows.iter_mut().zip(highs)) {
            let (scale, error) = (f64::from(scale), f64::from(error));
            let centre = scale * bounds.step * f64::from(product);
            let half = error * bounds.error + scale * bounds.scale + bounds.least;
            let sound = error * bounds.large_error + scale * bounds.large_scale <= LARGE;
            // Damaged scales and errors come here as NaN or infinity, or are below zero.
            let sound = sound & (scale >= 0.0) & (error >= 0.0);
            *low = if sound { centre - half } else { f64::NEG_INFINITY };
            *high = if sound { centre + half } else { f64::INFINITY };
        }
    }
}

/// The dot products of rows of codes, `[rows, dim]`, with a query's levels, `[dim]`: exact, and so
/// the same at every level, which must be one that this machine has.
fn products(level: Level, codes: &[i8], levels: &[i16], out: &mut [i32]) {
    debug_assert_eq!(codes.len(), levels.len() * out.len());
    #[cfg(target_arch = "x86_64")]
    match level {
        // SAFETY: levels are asked for only where this machine has them.
        level if level.has_avx512() => return unsafe { x86::products_avx512(codes, levels, out) },
        // SAFETY: as above.
        Level::Avx2 => return unsafe { x86::products_avx2(codes, levels, out) },
        _ => {}
    }
    let _ = level;
    for (codes, out) in codes.chunks_exact(levels.len()).zip(out) {
        *out = product(codes, levels);
    }
}

/// One product, in a form that compilers turn into widening multiplications (`smlal` on NEON).
#[inline(always)]
fn product(codes: &[i8], levels: &[i16]) -> i32 {
    codes.iter().zip(levels).fold(0i32, |sum, (&c, &d)| sum.wrapping_add(i32::from(c) * i32::from(d)))
}

#[cfg(target_arch = "x86_64")]
mod x86;

leveled! {
    /// The float32 score: the dot product of `query` and a row that lies as little-endian float32
    /// in `row`, summed in a fixed order.
    ///
    /// Both have the same number of elements; a surplus on either side is ignored.
    pub fn dot(row: &[u8], query: &[f32]) -> f32 {
        let mut sums = [0.0f32; LANES];
        let (rows, rest) = row.as_chunks::<{ LANES * NUMBER }>();
        let (queries, query_rest) = query.as_chunks::<LANES>();
        for (row, query) in rows.iter().zip(queries) {
            let (numbers, _) = row.as_chunks::<NUMBER>();
            for ((sum, number), factor) in sums.iter_mut().zip(numbers).zip(query) {
                *sum += f32::from_le_bytes(*number) * factor;
            }
        }
        let mut width = LANES / 2;
        while width > 0 {
            for lane in 0..width {
                sums[lane] += sums[lane + width];
            }
            width /= 2;
        }
        let mut total = sums[0];
        let (numbers, _) = rest.as_chunks::<NUMBER>();
        for (number, factor) in numbers.iter().zip(query_rest) {
            total += f32::from_le_bytes(*number) * factor;
        }
        total
    }
}

/// A row found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Found {
    /// The row.
    pub row: usize,
    /// The id that it was admitted under.
    pub id: usize,
    /// Its float32 score, see [`dot`].
    pub score: f32,
}

impl Eq for Found {}

impl Ord for Found {
    /// Better first: the higher score, at equal scores the smaller id. Scores are never NaN here.
    fn cmp(&self, other: &Found) -> Ordering {
        let scores = other.score.partial_cmp(&self.score).unwrap_or(Ordering::Equal);
        scores.then(self.id.cmp(&other.id)).then(self.row.cmp(&other.row))
    }
}

impl PartialOrd for Found {
    fn partial_cmp(&self, other: &Found) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// What a search found, and what it cost.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Best {
    /// The rows, best first.
    pub found: Vec<Found>,
    /// Rows with codes that were scored in float32 all the same.
    pub rescored: usize,
}

/// Codes of some of the rows.
#[derive(Debug, Clone, Copy)]
pub struct Piece<'a> {
    /// The first row that they stand for.
    pub first: usize,
    /// The codes.
    pub codes: Codes<'a>,
}

/// Rows that one task scans.
#[derive(Debug, Clone, Copy)]
struct Task<'a> {
    first: usize,
    rows: usize,
    codes: Option<Codes<'a>>,
}

/// A row that may be among the best.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    row: usize,
    id: usize,
    low: f64,
    high: f64,
    /// Whether `high` is its very score.
    scored: bool,
}

/// Lower ends of float64 that are never NaN.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Low(f64);

impl Eq for Low {}

impl Ord for Low {
    fn cmp(&self, other: &Low) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl PartialOrd for Low {
    fn partial_cmp(&self, other: &Low) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// What the tasks of one search share.
struct Shared<'a> {
    vectors: &'a [u8],
    query: &'a [f32],
    k: usize,
    id: &'a (dyn Fn(usize) -> Option<usize> + Sync),
    /// The `k`-th highest lower end so far, as bits: whose upper end is below cannot be found.
    threshold: AtomicU64,
    kept: Mutex<Kept>,
}

/// The `k` highest lower ends, and the rows that reach the least of them.
#[derive(Default)]
struct Kept {
    lows: BinaryHeap<Reverse<Low>>,
    candidates: Vec<Candidate>,
}

/// The `k` rows of `vectors`, `[rows, dim]` little-endian float32, with the highest [`dot`] with
/// `query`, `[dim]`, best first; equal scores by id.
///
/// `id` says under which number a row stands, or nothing for a row that does not count. Rows whose
/// score is not a number are left out. `pieces` are in the order of their rows and do not overlap;
/// rows that are in none of them are scored as they are. The answer is the same without any: codes
/// of other vectors are noticed wherever they promise too much for a row, and then not used at all;
/// only codes that promise too little can hide a row, so check those that lay in a file.
///
/// # Panics
/// Where the codes' lengths or widths do not belong together, or the pieces overlap.
pub fn best(
    vectors: &[u8],
    pieces: &[Piece<'_>],
    query: &[f32],
    k: usize,
    id: &(dyn Fn(usize) -> Option<usize> + Sync),
) -> Best {
    let dim = query.len();
    let Some(rows) = vectors.len().checked_div(dim.saturating_mul(NUMBER)) else {
        return Best::default();
    };
    let k = k.min(rows);
    if k == 0 {
        return Best::default();
    }
    // Where so many are wanted, intervals would leave out too little to be worth it.
    let integers = if k > rows / 8 { None } else { Query::new(query) };
    let pieces = if integers.is_some() { pieces } else { &[] };
    let tasks = tasks(pieces, rows, dim);
    let shared = Shared {
        vectors,
        query,
        k,
        id,
        threshold: AtomicU64::new(f64::NEG_INFINITY.to_bits()),
        kept: Mutex::default(),
    };
    tasks.par_iter().for_each(|task| shared.scan(task, integers.as_ref()));
    shared.finish().unwrap_or_else(|| best(vectors, &[], query, k, id))
}

/// All rows, cut into tasks.
fn tasks<'a>(pieces: &[Piece<'a>], rows: usize, dim: usize) -> Vec<Task<'a>> {
    let mut tasks = Vec::new();
    let mut cut = |first: usize, end: usize, codes: Option<Codes<'a>>| {
        let bytes = if codes.is_some() { dim } else { dim * NUMBER };
        let step = TASK.div_ceil(bytes).next_multiple_of(BLOCK);
        for at in (first..end).step_by(step) {
            let rows = step.min(end - at);
            tasks.push(Task { first: at, rows, codes: codes.map(|codes| codes.part(at - first, rows)) });
        }
    };
    let mut done = 0;
    for piece in pieces {
        piece.codes.check();
        assert!(piece.codes.dim == dim && piece.first >= done.min(rows));
        let first = piece.first.min(rows);
        let end = piece.first.saturating_add(piece.codes.rows()).min(rows);
        cut(done, first, None);
        cut(first, end, Some(piece.codes));
        done = end;
    }
    cut(done, rows, None);
    tasks
}

impl Shared<'_> {
    fn threshold(&self) -> f64 {
        f64::from_bits(self.threshold.load(atomic::Ordering::Relaxed))
    }

    fn row(&self, row: usize) -> &[u8] {
        let stride = self.query.len() * NUMBER;
        &self.vectors[row * stride..][..stride]
    }

    /// Finds the rows of one task that may be among the best.
    fn scan(&self, task: &Task<'_>, query: Option<&Query>) {
        let mut lows = Vec::new();
        let mut candidates = Vec::new();
        let (mut low_ends, mut high_ends) = ([0.0; BLOCK], [0.0; BLOCK]);
        for at in (0..task.rows).step_by(BLOCK) {
            let rows = BLOCK.min(task.rows - at);
            let (low_ends, high_ends) = (&mut low_ends[..rows], &mut high_ends[..rows]);
            let coded = match (task.codes, query) {
                (Some(codes), Some(query)) => {
                    let part = codes.part(at, rows);
                    let mut sums = [0; BLOCK];
                    products(Level::current(), part.codes, &query.levels, &mut sums[..rows]);
                    intervals(&sums[..rows], part.scales, part.errors, &query.bounds, low_ends, high_ends);
                    true
                }
                _ => {
                    for (offset, (low, high)) in low_ends.iter_mut().zip(&mut *high_ends).enumerate() {
                        *low = f64::from(dot(self.row(task.first + at + offset), self.query));
                        *high = *low;
                    }
                    false
                }
            };
            let threshold = self.threshold();
            for (offset, (&low, &high)) in low_ends.iter().zip(&*high_ends).enumerate() {
                // A score that is not a number fails here.
                if high >= threshold {
                    let row = task.first + at + offset;
                    if let Some(id) = (self.id)(row) {
                        candidates.push(Candidate { row, id, low, high, scored: !coded });
                        if low > threshold {
                            lows.push(Low(low));
                        }
                    }
                }
            }
        }
        if candidates.is_empty() {
            return;
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let threshold = kept.raise(&lows, self.k);
        self.threshold.store(threshold.to_bits(), atomic::Ordering::Relaxed);
        kept.candidates.extend(candidates.into_iter().filter(|candidate| candidate.high >= threshold));
    }

    /// Scores the rows that are left, from the highest upper end down; nothing where a score lies
    /// outside its interval, so that the codes cannot be of these vectors.
    fn finish(self) -> Option<Best> {
        let threshold = self.threshold();
        let kept = self.kept.into_inner().unwrap_or_else(PoisonError::into_inner);
        let (vectors, query, k) = (self.vectors, self.query, self.k);
        let stride = query.len() * NUMBER;
        let mut best: BinaryHeap<Found> = BinaryHeap::with_capacity(k + 1);
        let enter = |best: &mut BinaryHeap<Found>, found: Found| {
            // The heap's greatest element is the worst kept so far.
            if found.score.is_nan() {
            } else if best.len() < k {
                best.push(found);
            } else if let Some(mut worst) = best.peek_mut()
                && found < *worst
            {
                *worst = found;
            }
        };
        let mut left = Vec::new();
        for candidate in kept.candidates.into_iter().filter(|candidate| candidate.high >= threshold) {
            if candidate.scored {
                // A float32's value, so the conversion is exact.
                let Candidate { row, id, high, .. } = candidate;
                enter(&mut best, Found { row, id, score: high as f32 });
            } else {
                left.push(candidate);
            }
        }
        left.sort_unstable_by(|a, b| b.high.total_cmp(&a.high).then(a.row.cmp(&b.row)));
        let mut rescored = 0;
        let mut batch = k.max(BLOCK);
        let mut rest = left.as_mut_slice();
        while !rest.is_empty() {
            // At an equal score the smaller id counts, so only a lower upper end is out.
            let worst = if best.len() < k { None } else { best.peek().map(|found| f64::from(found.score)) };
            let able = rest.partition_point(|candidate| worst.is_none_or(|worst| candidate.high >= worst));
            if able == 0 {
                break;
            }
            let (now, later) = rest.split_at_mut(able.min(batch));
            // In the order in which they lie.
            now.sort_unstable_by_key(|candidate| candidate.row);
            let scores: Option<Vec<Found>> = now
                .par_iter()
                .with_min_len(BLOCK)
                .map(|&Candidate { row, id, low, high, .. }| {
                    let score = dot(&vectors[row * stride..][..stride], query);
                    let inside = score.is_nan() || (low..=high).contains(&f64::from(score));
                    inside.then_some(Found { row, id, score })
                })
                .collect();
            let scores = scores?;
            rescored += scores.len();
            scores.into_iter().for_each(|found| enter(&mut best, found));
            rest = later;
            batch *= 2;
        }
        Some(Best { found: best.into_sorted_vec(), rescored })
    }
}

impl Kept {
    /// Takes in lower ends; returns the `k`-th highest of all, if there are so many.
    fn raise(&mut self, lows: &[Low], k: usize) -> f64 {
        for &low in lows {
            if self.lows.len() < k {
                self.lows.push(Reverse(low));
            } else if let Some(mut least) = self.lows.peek_mut()
                && low > least.0
            {
                *least = Reverse(low);
            }
        }
        match self.lows.peek() {
            Some(least) if self.lows.len() == k => least.0.0,
            _ => f64::NEG_INFINITY,
        }
    }
}

#[cfg(test)]
mod tests;
