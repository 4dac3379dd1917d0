//! Products that add over a weight's outputs, in whole numbers: gradients of what a product was given.
//!
//! The scales of what is added differ then, from output to output and from part of inputs to part of inputs. So a
//! row takes in those of one part, is rounded to 16 bits with one scale, and meets the part's whole numbers, whose
//! sums become numbers again only once for many outputs. Formats with two scales a part would have to be rounded
//! for twice, which takes longer than products of f32.

use super::formats::{Format, PART};
use super::panel::{LANES, Layout, WORDS, planes, run_scales, whole_scales, words};
use super::rows::{PAIRS, TALL, scaling};
use super::simd::{Pair, Simd};
use super::tile::Register;
use crate::gemm::pack::turned;
use crate::level::leveled;
use crate::math::fold;

/// Outputs of a stretch: their whole numbers stay in the first cache, and no sum of products leaves 32 bits.
pub(super) const STRETCH: usize = 256;
/// Rows of a tile by registers.
pub(super) const ROWS: usize = 12;
/// Registers of a part's inputs.
pub(super) const HALVES: usize = PART / LANES;

/// A stretch of a row, scaled as [`scaling`] says.
#[derive(Clone)]
#[repr(align(64))]
pub(super) struct Stretch {
    pub numbers: [f32; STRETCH],
    /// What one is worth.
    pub scale: f32,
}

impl Stretch {
    pub const NONE: Stretch = Stretch { numbers: [0.0; STRETCH], scale: 0.0 };
}

leveled! {
    /// As many numbers of a row as there are, and zeros.
    pub(super) fn scale(x: &[f32], to: &mut Stretch) {
        let [scale, factor] = scaling(x);
        to.scale = scale;
        let (own, padding) = to.numbers.split_at_mut(x.len());
        for (to, value) in own.iter_mut().zip(x) {
            *to = value * factor;
        }
        padding.fill(0.0);
    }
}

/// A part's inputs of a stretch of outputs.
#[repr(align(64))]
pub(super) struct Turned {
    /// By output: scales as shares of the largest, and minima.
    pub scales: [f32; STRETCH],
    pub least: [f32; STRETCH],
    pub largest: f32,
    /// `[outputs / 32, LANES, HALVES]`: a lane is an input, its words an output of one panel and of the next. By
    /// tiles of bytes `[outputs / 4, HALVES]`: a lane's bytes are four outputs.
    pub words: Vec<[Register; HALVES]>,
}

impl Turned {
    pub const NONE: Turned =
        Turned { scales: [0.0; STRETCH], least: [0.0; STRETCH], largest: 0.0, words: Vec::new() };
}

/// A tile's rows as one part takes them, with the outputs as [`Turned`] has them.
#[repr(align(64))]
pub(super) struct Rounded {
    /// Bytes of [`TALL`] rows for tiles of them: the high ones with their signs, then the low ones.
    pub planes: [[[[u8; WORDS]; TALL]; 2]; STRETCH / WORDS],
    /// Pairs of outputs for registers.
    pairs: [[Pair; STRETCH / 2]; ROWS],
}

impl Rounded {
    pub const NONE: Rounded = Rounded {
        planes: [[[[0; WORDS]; TALL]; 2]; STRETCH / WORDS],
        pairs: [[Pair::NONE; STRETCH / 2]; ROWS],
    };
}

/// Results of a tile: `[rows, inputs of a part]`.
#[derive(Clone, Default)]
#[repr(align(64))]
pub(super) struct Out(pub [[[f32; LANES]; HALVES]; TALL]);

/// A format's loops.
#[derive(Clone, Copy)]
pub(super) struct Across {
    /// Rows of a tile, at most [`TALL`].
    pub rows: usize,
    /// Turns one part of so many panels.
    pub turn: fn(&[&[u8]], usize, &mut Turned),
    /// Adds a tile's products with parts of one stretch, each to its own results.
    pub add: fn(&[Turned], &[Stretch], &mut Rounded, &mut [Out]),
}

#[inline(always)]
pub(super) fn turn<S: Simd, F: Format<BYTES>, const BYTES: usize>(
    panels: &[&[u8]],
    part: usize,
    to: &mut Turned,
) {
    assert!(F::RUNS == 1);
    const SIDE: usize = LANES / 2;
    let layout = const { Layout::of::<F, BYTES>() };
    let (block, part) = (part / F::PARTS, part % F::PARTS);
    let own = block * layout.all..(block + 1) * layout.all;
    to.words.resize(panels.len().div_ceil(2) * LANES, [const { Register([0; _]) }; HALVES]);
    for (panels, rows) in panels.chunks(2).zip(to.words.chunks_exact_mut(LANES)) {
        // A last panel without another stands for two: the other's rows are zeros. (No closures from here on: they
        // would not be compiled for the level.)
        let planes = [
            planes::<F, BYTES>(&panels[0][own.clone()], part),
            planes::<F, BYTES>(&panels[panels.len() - 1][own.clone()], part),
        ];
        for half in 0..HALVES {
            let mut squares = [[[0; SIDE]; SIDE]; 2];
            let [low, high] = &mut squares;
            for (pair, (low, high)) in low.iter_mut().zip(high).enumerate() {
                let mut outputs = [[0; WORDS]; 2];
                for (to, planes) in outputs.iter_mut().zip(planes) {
                    let words = words::<S, F, BYTES>(planes, half * (PAIRS / HALVES) + pair);
                    S::put(if F::CENTRE == 0 { words } else { S::less(words, F::CENTRE as i16) }, to);
                }
                let [first, second] = [outputs[0].as_chunks().0, outputs[1].as_chunks().0];
                for lane in 0..SIDE {
                    low[lane] = exchanged(&first[lane], &second[lane]);
                    high[lane] = exchanged(&first[SIDE + lane], &second[SIDE + lane]);
                }
            }
            for (rows, square) in rows.chunks_exact_mut(SIDE).zip(squares) {
                let square = turned(square);
                for (to, inputs) in rows.iter_mut().zip(&square) {
                    for (to, two) in to[half].0.as_chunks_mut().0.iter_mut().zip(inputs) {
                        *to = two.to_le_bytes();
                    }
                }
            }
        }
    }
    scales::<S, F, BYTES>(panels, block, part, to);
}

/// What a part's whole numbers are worth.
#[inline(always)]
pub(super) fn scales<S: Simd, F: Format<BYTES>, const BYTES: usize>(
    panels: &[&[u8]],
    block: usize,
    part: usize,
    to: &mut Turned,
) {
    let layout = const { Layout::of::<F, BYTES>() };
    let (scales, least) = (to.scales.as_chunks_mut().0, to.least.as_chunks_mut().0);
    scales[panels.len()..].fill([0.0; LANES]);
    least[panels.len()..].fill([0.0; LANES]);
    for ((panel, scales), least) in panels.iter().zip(scales).zip(least) {
        let block = &panel[block * layout.all..][..layout.all];
        let whole = whole_scales::<S, F, BYTES>(block);
        let numbers = run_scales::<S, F, BYTES>(block, whole, part);
        (*scales, *least) = (S::store(numbers[0]), S::store(numbers[1]));
    }
    to.largest = to.scales.iter().fold(0.0, |most: f32, scale| most.max(scale.abs()));
    let share = if to.largest > 0.0 { to.largest.recip() } else { 0.0 };
    to.scales.iter_mut().for_each(|scale| *scale *= share);
}

/// Of two outputs' two inputs each: of two inputs two outputs each.
#[inline(always)]
fn exchanged(first: &[u8; 4], second: &[u8; 4]) -> u64 {
    let (first, second) = (u64::from(u32::from_le_bytes(*first)), u64::from(u32::from_le_bytes(*second)));
    first & 0xffff | (second & 0xffff) << 16 | (first >> 16) << 32 | (second >> 16) << 48
}

#[inline(always)]
pub(super) fn add<S: Simd, F: Format<BYTES>, const BYTES: usize>(
    turned: &[Turned],
    x: &[Stretch],
    rounded: &mut Rounded,
    out: &mut [Out],
) {
    let x: &[Stretch; ROWS] = x.first_chunk().expect("a tile's rows");
    for (turned, out) in turned.iter().zip(out) {
        add_part::<S, F, BYTES>(turned, x, rounded, out);
    }
}

#[inline(always)]
fn add_part<S: Simd, F: Format<BYTES>, const BYTES: usize>(
    turned: &Turned,
    x: &[Stretch; ROWS],
    rounded: &mut Rounded,
    out: &mut Out,
) {
    let scales = turned.scales.as_chunks::<LANES>().0.as_chunks::<2>().0;
    let minima = turned.least.as_chunks::<LANES>().0.as_chunks::<2>().0;
    let mut least = [0.0; ROWS];
    for ((x, to), least) in x.iter().zip(&mut rounded.pairs).zip(&mut least) {
        let mut sums = S::same(0.0);
        let x = x.numbers.as_chunks::<LANES>().0.as_chunks::<2>().0;
        let to = to.as_chunks_mut::<LANES>().0.iter_mut().take(turned.words.len() / LANES);
        for (((to, x), scales), minima) in to.zip(x).zip(scales).zip(minima) {
            let x = [S::load(&x[0]), S::load(&x[1])];
            *to = S::nearest(S::times(x[0], S::load(&scales[0])), S::times(x[1], S::load(&scales[1])));
            if F::LEAST {
                sums = S::product(S::load(&minima[0]), x[0], sums);
                sums = S::product(S::load(&minima[1]), x[1], sums);
            }
        }
        if F::LEAST {
            *least = fold(S::store(sums));
        }
    }
    let mut wholes = [[S::whole(0); HALVES]; ROWS];
    for (pair, words) in turned.words.iter().enumerate() {
        let own = [S::words(&words[0].0), S::words(&words[1].0)];
        for (wholes, rounded) in wholes.iter_mut().zip(&rounded.pairs) {
            wholes[0] = S::products(wholes[0], own[0], rounded[pair]);
            wholes[1] = S::products(wholes[1], own[1], rounded[pair]);
        }
    }
    for row in 0..ROWS {
        let scale = S::same(x[row].scale * turned.largest);
        for (sum, &whole) in out.0[row].iter_mut().zip(&wholes[row]) {
            let mut more = S::product(S::numbers(whole), scale, S::load(sum));
            if F::LEAST {
                more = S::product(S::same(least[row]), S::same(x[row].scale), more);
            }
            *sum = S::store(more);
        }
    }
}
