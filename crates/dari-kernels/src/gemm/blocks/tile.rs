//! Many rows: a stretch of a weight is laid open once, as words of 16 bits with the scales worked out, and meets
//! every row of a task. Each output adds its products in the order in which a row alone does, to the same bits.

use std::ops::Range;

use super::formats::{Format, PART};
use super::panel::{LANES, Layout, WORDS, planes, run_scales, whole_scales, words};
use super::rows::{Order, PAIRS, Rows};
use super::simd::Simd;

/// Inputs of a stretch: whole blocks of every format, and few enough that it stays in the first cache.
pub(super) const STRETCH: usize = 256;
/// Parts of a stretch.
pub(super) const PARTS: usize = STRETCH / PART;
/// Most panels side by side.
pub(super) const SIDES: usize = 2;

/// A register's words, where one load brings them.
#[derive(Clone)]
#[repr(align(64))]
pub(super) struct Register(pub [u8; WORDS]);

/// A stretch of panels side by side, laid open.
#[derive(Default)]
pub(super) struct Open {
    /// `[parts, PAIRS, panels]`; by tiles of bytes panel by panel, four inputs a register.
    pub words: Vec<Register>,
    /// `[parts, runs, panels, 2]`, or panel by panel too: scales and minima.
    pub scales: Vec<[[f32; LANES]; 2]>,
}

pub(super) type Add = fn(&Open, &[(usize, Rows)], Range<usize>, &mut [[f32; LANES]]);

/// A format's loops for many rows.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    /// Rows of a tile.
    pub rows: usize,
    /// Panels of a tile.
    pub side: usize,
    /// How its rows lie.
    pub order: Order,
    /// Lays the same stretch of so many panels open.
    pub open: fn(&[&[u8]], &mut Open),
    /// Adds what those parts of the rows give to `[rows, panels]` of each block of rows.
    pub add: Add,
}

#[inline(always)]
pub(super) fn open<S: Simd, F: Format<BYTES>, const BYTES: usize, const SIDE: usize>(
    panels: &[&[u8]],
    to: &mut Open,
) {
    let layout = const { Layout::of::<F, BYTES>() };
    to.words.resize(PARTS * PAIRS * SIDE, Register([0; WORDS]));
    to.scales.resize(PARTS * F::RUNS * SIDE, [[0.0; LANES]; 2]);
    for (side, panel) in panels.iter().enumerate() {
        for (index, block) in panel.chunks_exact(layout.all).enumerate() {
            let whole = whole_scales::<S, F, BYTES>(block);
            for part in 0..F::PARTS {
                let planes = planes::<F, BYTES>(block, part);
                let to_part = index * F::PARTS + part;
                for pair in 0..PAIRS {
                    let words = words::<S, F, BYTES>(planes, pair);
                    let words = if F::CENTRE == 0 { words } else { S::less(words, F::CENTRE as i16) };
                    S::put(words, &mut to.words[(to_part * PAIRS + pair) * SIDE + side].0);
                }
                for run in 0..F::RUNS {
                    let scales = run_scales::<S, F, BYTES>(block, whole, part * F::RUNS + run);
                    let [scale, least] = [S::store(scales[0]), S::store(scales[1])];
                    to.scales[(to_part * F::RUNS + run) * SIDE + side] = [scale, least];
                }
            }
        }
    }
}

#[inline(always)]
pub(super) fn add<S: Simd, const RUNS: usize, const LEAST: bool, const ROWS: usize, const SIDE: usize>(
    open: &Open,
    x: &[(usize, Rows)],
    parts: Range<usize>,
    out: &mut [[f32; LANES]],
) {
    for ((_, x), out) in x.iter().zip(out.chunks_exact_mut(ROWS * SIDE)) {
        add_block::<S, RUNS, LEAST, ROWS, SIDE>(open, x, parts.clone(), out);
    }
}

#[inline(always)]
fn add_block<S: Simd, const RUNS: usize, const LEAST: bool, const ROWS: usize, const SIDE: usize>(
    open: &Open,
    x: &Rows,
    parts: Range<usize>,
    out: &mut [[f32; LANES]],
) {
    assert!(x.count == ROWS && parts.len() <= PARTS);
    let words = open.words.chunks_exact(PAIRS * SIDE);
    let scales = open.scales.chunks_exact(RUNS * SIDE);
    let pairs = x.pairs[parts.start * PAIRS * ROWS..parts.end * PAIRS * ROWS].chunks_exact(PAIRS * ROWS);
    let marks = x.marks[parts.start * ROWS..parts.end * ROWS].as_chunks::<ROWS>().0;
    for (((words, scales), pairs), marks) in words.zip(scales).zip(pairs).zip(marks) {
        let words = words.chunks_exact(PAIRS / RUNS * SIDE);
        let pairs = pairs.chunks_exact(PAIRS / RUNS * ROWS);
        let scales = scales.as_chunks::<SIDE>().0;
        for (run, ((words, pairs), scales)) in words.zip(pairs).zip(scales).enumerate() {
            let mut wholes = [[S::whole(0); SIDE]; ROWS];
            for (words, pairs) in words.as_chunks::<SIDE>().0.iter().zip(pairs.as_chunks::<ROWS>().0) {
                let mut own = [S::words(&words[0].0); SIDE];
                for side in 1..SIDE {
                    own[side] = S::words(&words[side].0);
                }
                for row in 0..ROWS {
                    for side in 0..SIDE {
                        wholes[row][side] = S::products(wholes[row][side], own[side], pairs[row]);
                    }
                }
            }
            let which = if RUNS == 1 { 2 } else { run };
            for row in 0..ROWS {
                for side in 0..SIDE {
                    let [scale, least] = &scales[side];
                    let own = S::times(S::load(scale), S::same(marks[row].scale));
                    // Sums stay in memory: the whole numbers fill the registers.
                    let sum = &mut out[row * SIDE + side];
                    let mut more = S::product(S::numbers(wholes[row][side]), own, S::load(sum));
                    if LEAST {
                        more = S::product(S::load(least), S::same(marks[row].totals[which]), more);
                    }
                    *sum = S::store(more);
                }
            }
        }
    }
}
