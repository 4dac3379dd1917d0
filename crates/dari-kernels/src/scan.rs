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
        Level::Avx512 | Level::Avx512Vnni | Level::Avx512Bf16 => {
            return unsafe { x86::products_avx512(codes, levels, out) };
        }
        // SAFETY: as above.
        Level::Avx2 => return unsafe { x86::products_avx2(codes, levels, out) },
        Level::Portable | Level::Neon => {}
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
mod x86 {
    use std::arch::x86_64::*;

    use super::product;

    /// Bytes by which the next rows are fetched ahead: the hardware alone stops at each page.
    const AHEAD: usize = 1024;

    /// Defines the products of one width: codes are widened to i16, and pairs multiplied and
    /// added to i32, which cannot overflow: a pair is at most 2 * 128 * 32767. One row after the
    /// other: four at once share the loads of the query, and halve the speed out of memory.
    macro_rules! products {
        ($name:ident, $features:literal, $width:literal, $four:literal, $half:ty, $whole:ty, $load_half:ident,
         $load:ident, $widen:ident, $zero:ident, $madd:ident, $add:ident, $total:expr) => {
            #[target_feature(enable = $features)]
            pub fn $name(codes: &[i8], levels: &[i16], out: &mut [i32]) {
                let term = |codes: &[i8; $width], levels: &[i16; $width]| {
                    // SAFETY: reads the arrays' bytes; the loads need no alignment.
                    let (codes, levels) = unsafe {
                        ($load_half(codes.as_ptr().cast::<$half>()), $load(levels.as_ptr().cast::<$whole>()))
                    };
                    $madd($widen(codes), levels)
                };
                let (long, levels_left) = levels.as_chunks::<$four>();
                let (short, last) = levels_left.as_chunks::<$width>();
                for (row, out) in codes.chunks_exact(levels.len()).zip(out) {
                    let (row, left) = row.as_chunks::<$four>();
                    let mut sums = [$zero(); 4];
                    for (codes, levels) in row.iter().zip(long) {
                        // Reads nothing, wherever it points.
                        _mm_prefetch::<_MM_HINT_T0>(codes.as_ptr().wrapping_add(AHEAD));
                        let (codes, _) = codes.as_chunks::<$width>();
                        let (levels, _) = levels.as_chunks::<$width>();
                        for ((sum, codes), levels) in sums.iter_mut().zip(codes).zip(levels) {
                            *sum = $add(*sum, term(codes, levels));
                        }
                    }
                    let (row, left) = left.as_chunks::<$width>();
                    for ((sum, codes), levels) in sums.iter_mut().zip(row).zip(short) {
                        *sum = $add(*sum, term(codes, levels));
                    }
                    let [a, b, c, d] = sums;
                    *out = $total($add($add(a, b), $add(c, d))) + product(left, last);
                }
            }
        };
    }

    products!(
        products_avx2,
        "avx2,fma",
        16,
        64,
        __m128i,
        __m256i,
        _mm_loadu_si128,
        _mm256_loadu_si256,
        _mm256_cvtepi8_epi16,
        _mm256_setzero_si256,
        _mm256_madd_epi16,
        _mm256_add_epi32,
        total_avx2
    );
    products!(
        products_avx512,
        "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma",
        32,
        128,
        __m256i,
        __m512i,
        _mm256_loadu_si256,
        _mm512_loadu_si512,
        _mm512_cvtepi8_epi16,
        _mm512_setzero_si512,
        _mm512_madd_epi16,
        _mm512_add_epi32,
        _mm512_reduce_add_epi32
    );

    #[target_feature(enable = "avx2")]
    #[inline]
    fn total_avx2(lanes: __m256i) -> i32 {
        let four = _mm_add_epi32(_mm256_castsi256_si128(lanes), _mm256_extracti128_si256::<1>(lanes));
        let two = _mm_add_epi32(four, _mm_shuffle_epi32::<0b00_00_11_10>(four));
        let one = _mm_add_epi32(two, _mm_shuffle_epi32::<0b00_00_00_01>(two));
        _mm_cvtsi128_si32(one)
    }
}

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
mod tests {
    use super::*;

    /// Numbers from a seed.
    struct Random(u64);

    impl Random {
        fn bits(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        }

        fn below(&mut self, end: usize) -> usize {
            (self.bits() % end as u64) as usize
        }

        /// In [-1, 1).
        fn number(&mut self) -> f32 {
            (self.bits() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        }

        /// Of any finite magnitude.
        fn wild(&mut self) -> f32 {
            let x = f32::from_bits(self.bits() as u32);
            if x.is_finite() { x } else { 0.0 }
        }
    }

    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Kind {
        /// Uniform.
        Uniform,
        /// Few centres, most rows a hair away from one, many of them equal.
        Clustered,
        /// All rows are the same.
        Equal,
        /// Small whole numbers: ties of rows that differ.
        Whole,
        /// One number of each row outweighs the others by far.
        Outlier,
        /// Magnitudes from the subnormal to where sums overflow.
        Wild,
        /// Next to nothing, at the subnormal end.
        Tiny,
        /// As `Uniform`, with infinities and NaN among them.
        Broken,
    }

    const KINDS: [Kind; 8] = [
        Kind::Uniform,
        Kind::Clustered,
        Kind::Equal,
        Kind::Whole,
        Kind::Outlier,
        Kind::Wild,
        Kind::Tiny,
        Kind::Broken,
    ];

    fn table(kind: Kind, rows: usize, dim: usize, random: &mut Random) -> Vec<f32> {
        let centres: Vec<f32> = (0..5 * dim).map(|_| random.number()).collect();
        let mut table = Vec::with_capacity(rows * dim);
        for _ in 0..rows {
            let centre = random.below(5);
            let centre = &centres[centre * dim..][..dim];
            let (hair, outlier) = (random.below(2) as f32 * 1e-6, random.below(dim.max(1)));
            for (i, &near) in centre.iter().enumerate() {
                table.push(match kind {
                    Kind::Uniform => random.number(),
                    Kind::Clustered => near + hair * random.number(),
                    Kind::Equal => centres[i],
                    Kind::Whole => random.below(3) as f32 - 1.0,
                    Kind::Outlier => random.number() * if i == outlier { 1e6 } else { 1e-3 },
                    Kind::Wild => random.wild(),
                    Kind::Tiny => random.number() * 1e-42,
                    Kind::Broken => match random.below(3 * dim) {
                        0 => f32::NAN,
                        1 => f32::INFINITY,
                        2 => f32::NEG_INFINITY,
                        _ => random.number(),
                    },
                });
            }
        }
        table
    }

    fn bytes(numbers: &[f32]) -> Vec<u8> {
        numbers.iter().flat_map(|n| n.to_le_bytes()).collect()
    }

    /// Codes of all rows.
    struct Coded {
        codes: Vec<i8>,
        scales: Vec<f32>,
        errors: Vec<f32>,
        dim: usize,
    }

    impl Coded {
        fn new(vectors: &[u8], dim: usize) -> Coded {
            let rows = vectors.len() / NUMBER / dim;
            let (mut codes, mut scales, mut errors) =
                (vec![99; rows * dim], vec![f32::NAN; rows], vec![f32::NAN; rows]);
            quantise(vectors, dim, &mut codes, &mut scales, &mut errors);
            Coded { codes, scales, errors, dim }
        }

        fn all(&self) -> Codes<'_> {
            Codes { codes: &self.codes, scales: &self.scales, errors: &self.errors, dim: self.dim }
        }
    }

    /// The score by its definition, without vectors.
    fn score(row: &[f32], query: &[f32]) -> f32 {
        let whole = row.len() / LANES * LANES;
        let mut sums = [0.0f32; LANES];
        for i in 0..whole {
            sums[i % LANES] += row[i] * query[i];
        }
        for width in [8, 4, 2, 1] {
            for lane in 0..width {
                sums[lane] += sums[lane + width];
            }
        }
        (whole..row.len()).fold(sums[0], |sum, i| sum + row[i] * query[i])
    }

    fn reference(
        table: &[f32],
        query: &[f32],
        k: usize,
        id: &dyn Fn(usize) -> Option<usize>,
    ) -> Vec<(usize, usize, u32)> {
        let rows = table.chunks_exact(query.len()).enumerate();
        let scored = rows.filter_map(|(row, v)| Some((row, id(row)?, score(v, query))));
        let mut all: Vec<(usize, usize, f32)> = scored.filter(|found| !found.2.is_nan()).collect();
        all.sort_by(|a, b| b.2.partial_cmp(&a.2).unwrap().then(a.1.cmp(&b.1)));
        all.truncate(k);
        all.into_iter().map(|(row, id, score)| (row, id, score.to_bits())).collect()
    }

    fn plain(best: &Best) -> Vec<(usize, usize, u32)> {
        best.found.iter().map(|found| (found.row, found.id, found.score.to_bits())).collect()
    }

    #[test]
    fn the_answer_is_the_plain_scans() {
        let mut random = Random(1);
        for dim in [1, 2, 3, 7, 15, 16, 17, 33, 63, 64, 65, 100, 129, 257, 512] {
            for kind in KINDS {
                let rows = [1, 2, 63, 64, 65, 200, 700][random.below(7)];
                let table = table(kind, rows, dim, &mut random);
                let vectors = bytes(&table);
                let coded = Coded::new(&vectors, dim);
                let whole = [Piece { first: 0, codes: coded.all() }];
                // Some rows have no codes; the last piece may stand for rows that are not there.
                let cuts = [rows / 7, rows / 3, rows / 2];
                let part =
                    |from: usize, to: usize| Piece { first: from, codes: coded.all().part(from, to - from) };
                let parts = [part(cuts[0], cuts[1]), part(cuts[2], rows)];
                let near = random.below(rows) * dim;
                for query in 0..4 {
                    let query: Vec<f32> = match query {
                        0 => table[near..][..dim].to_vec(),
                        1 => (0..dim).map(|_| random.number()).collect(),
                        2 => (0..dim).map(|_| random.wild()).collect(),
                        _ => vec![[0.0, -0.0, 1e-44, f32::INFINITY, f32::NAN][random.below(5)]; dim],
                    };
                    for k in [0, 1, 2, 10, rows / 9, rows, rows + 1, usize::MAX] {
                        let all = |row| Some(row);
                        // Ids that run the other way, and rows that do not count.
                        let some = |row: usize| (!row.is_multiple_of(3)).then(|| rows - row);
                        let what = format!("{kind:?} {rows} x {dim}, k {k}");
                        for pieces in [&whole[..], &parts, &[]] {
                            let found = best(&vectors, pieces, &query, k, &all);
                            assert_eq!(plain(&found), reference(&table, &query, k, &all), "{what}");
                            let found = best(&vectors, pieces, &query, k, &some);
                            assert_eq!(plain(&found), reference(&table, &query, k, &some), "{what}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn many_tasks_agree_with_one() {
        let mut random = Random(2);
        let (rows, dim) = (70_000, 48);
        for kind in [Kind::Uniform, Kind::Clustered, Kind::Equal, Kind::Broken] {
            let table = table(kind, rows, dim, &mut random);
            let vectors = bytes(&table);
            let coded = Coded::new(&vectors, dim);
            let pieces = [Piece { first: 0, codes: coded.all().part(0, rows - 300) }];
            let query: Vec<f32> = (0..dim).map(|_| random.number()).collect();
            for k in [1, 10, 3000] {
                let found = best(&vectors, &pieces, &query, k, &|row| Some(row));
                assert_eq!(plain(&found), reference(&table, &query, k, &|row| Some(row)), "{kind:?} {k}");
                if kind == Kind::Uniform && k == 10 {
                    assert!(found.rescored < 2000, "{} rows were scored again", found.rescored);
                }
            }
        }
    }

    #[test]
    fn intervals_hold_the_scores() {
        let mut random = Random(3);
        for round in 0..60 {
            let dim = 1 + random.below([3, 20, 70, 600, 3000][round % 5]);
            for kind in KINDS {
                let rows = 40;
                let table = table(kind, rows, dim, &mut random);
                let coded = Coded::new(&bytes(&table), dim);
                let like = self::table(kind, 1, dim, &mut random);
                let mixed: Vec<f32> = (0..dim).map(|i| [random.number(), random.wild()][i % 2]).collect();
                for query in [table[..dim].to_vec(), like, mixed, vec![0.0; dim]] {
                    let Some(levels) = Query::new(&query) else {
                        assert!(query.iter().any(|x| !x.is_finite()));
                        continue;
                    };
                    let mut sums = vec![0; rows];
                    products(Level::current(), &coded.codes, &levels.levels, &mut sums);
                    let (mut lows, mut highs) = (vec![f64::NAN; rows], vec![f64::NAN; rows]);
                    intervals(&sums, &coded.scales, &coded.errors, &levels.bounds, &mut lows, &mut highs);
                    for (row, vector) in table.chunks_exact(dim).enumerate() {
                        let score = f64::from(score(vector, &query));
                        let (low, high) = (lows[row], highs[row]);
                        if score.is_nan() {
                            assert!(low == f64::NEG_INFINITY && high == f64::INFINITY, "{kind:?} {dim}");
                        } else {
                            assert!(low <= score && score <= high, "{kind:?} {dim}: {low} {score} {high}");
                        }
                        if kind == Kind::Uniform && query[0] == table[0] {
                            let norm = |v: &[f32]| norm(v.iter().map(|&x| f64::from(x)));
                            let share = (high - low) / 2.0 / (norm(vector) * norm(&query));
                            assert!(share < 0.02 || dim < 20, "the interval is wide: {share} at {dim}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn errors_bound_what_rounding_lost() {
        let mut random = Random(4);
        for dim in [1, 5, 8, 33, 512] {
            for kind in KINDS {
                let table = table(kind, 50, dim, &mut random);
                let coded = Coded::new(&bytes(&table), dim);
                for (row, vector) in table.chunks_exact(dim).enumerate() {
                    let (scale, error) = (f64::from(coded.scales[row]), f64::from(coded.errors[row]));
                    if vector.iter().any(|x| !x.is_finite()) {
                        assert!(error == f64::INFINITY && scale == 0.0);
                        continue;
                    }
                    let codes = &coded.codes[row * dim..][..dim];
                    let lost = vector.iter().zip(codes).map(|(&v, &c)| f64::from(v) - scale * f64::from(c));
                    let lost = norm(lost);
                    assert!(codes.iter().all(|c| (-127..=127).contains(c)));
                    assert!(lost <= error && error <= lost * 1.00001 + 1e-44, "{kind:?} {lost} {error}");
                    // To the nearest.
                    let most = scale * (dim as f64).sqrt() * 0.50001;
                    assert!(kind == Kind::Tiny || kind == Kind::Wild || lost <= most, "{kind:?}");
                }
            }
        }
    }

    #[test]
    fn products_are_exact_at_every_level() {
        let mut random = Random(5);
        let dims = [1, 2, 15, 16, 17, 31, 32, 33, 64, 65, 127, 128, 129, 191, 300, 512, 1000, 5000, 70_000];
        for dim in dims {
            for extreme in [false, true] {
                let rows = 7;
                let query: Vec<f32> =
                    (0..dim).map(|_| if extreme { -3.0 } else { random.number() }).collect();
                let levels = Query::new(&query).unwrap().levels;
                let code = |random: &mut Random| if extreme { -128 } else { random.bits() as i8 };
                let codes: Vec<i8> = (0..rows * dim).map(|_| code(&mut random)).collect();
                let exact = |row: usize| -> i64 {
                    let row = &codes[row * dim..][..dim];
                    row.iter().zip(&levels).map(|(&c, &d)| i64::from(c) * i64::from(d)).sum()
                };
                let expected: Vec<i32> = (0..rows).map(|row| i32::try_from(exact(row)).unwrap()).collect();
                for level in Level::available() {
                    let mut out = vec![i32::MIN; rows];
                    products(level, &codes, &levels, &mut out);
                    assert_eq!(out, expected, "{level:?} {dim}");
                }
            }
        }
    }

    #[test]
    fn damaged_scales_and_errors_cost_only_time() {
        let mut random = Random(6);
        let (rows, dim) = (300, 20);
        let table = table(Kind::Uniform, rows, dim, &mut random);
        let vectors = bytes(&table);
        let mut coded = Coded::new(&vectors, dim);
        for row in 0..rows {
            match row % 9 {
                0 => coded.scales[row] = f32::NAN,
                1 => coded.errors[row] = f32::NAN,
                2 => coded.scales[row] = f32::INFINITY,
                3 => coded.errors[row] = f32::INFINITY,
                4 => coded.errors[row] = -1.0,
                5 => coded.scales[row] = f32::NEG_INFINITY,
                _ => {}
            }
        }
        let pieces = [Piece { first: 0, codes: coded.all() }];
        let query: Vec<f32> = (0..dim).map(|_| random.number()).collect();
        let found = best(&vectors, &pieces, &query, 10, &|row| Some(row));
        assert_eq!(plain(&found), reference(&table, &query, 10, &|row| Some(row)));
    }

    #[test]
    fn codes_that_promise_too_much_are_not_used() {
        let mut random = Random(7);
        let (rows, dim) = (400, 33);
        let table = table(Kind::Uniform, rows, dim, &mut random);
        let vectors = bytes(&table);
        let mut coded = Coded::new(&vectors, dim);
        let query = table[..dim].to_vec();
        for row in 0..20 {
            // As if these were as near as the query itself.
            coded.codes.copy_within(..dim, (row * 20) * dim);
            coded.scales[row * 20] = coded.scales[0];
            coded.errors[row * 20] = coded.errors[0];
        }
        let pieces = [Piece { first: 0, codes: coded.all() }];
        let found = best(&vectors, &pieces, &query, 10, &|row| Some(row));
        assert_eq!(plain(&found), reference(&table, &query, 10, &|row| Some(row)));
    }

    #[test]
    fn nothing_is_found_where_nothing_is() {
        let all = |row| Some(row);
        assert!(best(&[], &[], &[1.0], 3, &all).found.is_empty());
        assert!(best(&bytes(&[1.0, 2.0]), &[], &[], 3, &all).found.is_empty());
        assert!(best(&bytes(&[1.0, 2.0]), &[], &[1.0], 0, &all).found.is_empty());
        assert!(best(&bytes(&[1.0, 2.0]), &[], &[1.0], 3, &|_| None).found.is_empty());
        assert!(best(&bytes(&[1.0, 2.0]), &[], &[f32::NAN], 3, &all).found.is_empty());
        let mut none = [0.0; 0];
        quantise(&[], 4, &mut [], &mut none, &mut []);
        let (mut scales, mut errors) = ([9.0; 2], [9.0; 2]);
        quantise(&[], 0, &mut [], &mut scales, &mut errors);
        assert_eq!((scales, errors), ([0.0; 2], [0.0; 2]));
    }

    #[test]
    fn ties_go_by_id_and_zeros_are_equal() {
        let vectors = bytes(&[0.0, -0.0, 0.0, -0.0].repeat(100));
        let coded = Coded::new(&vectors, 1);
        let pieces = [Piece { first: 0, codes: coded.all() }];
        let found = best(&vectors, &pieces, &[1.0], 5, &|row| Some(1000 - row));
        let rows: Vec<usize> = found.found.iter().map(|found| found.row).collect();
        assert_eq!(rows, [399, 398, 397, 396, 395]);
    }

    #[test]
    fn bytes_are_seen_as_what_they_are() {
        let numbers = [1.5f32, -2.0, 3.25];
        let whole: Vec<u8> = bytes(&numbers);
        assert_eq!(as_bytes(as_codes(&whole)), whole);
        // Somewhere in four places in a row lies an aligned one.
        let mut room = [0; 16];
        let aligned: Vec<usize> = (0..4)
            .filter(|&at| {
                room[at..at + 12].copy_from_slice(&whole);
                match as_numbers(&room[at..at + 12]) {
                    Some(seen) => {
                        assert_eq!(seen, numbers);
                        assert_eq!(as_numbers(&room[at..at + 11]), None);
                        true
                    }
                    None => false,
                }
            })
            .collect();
        assert_eq!(aligned.len(), usize::from(cfg!(target_endian = "little")));
    }
}
