//! The loops over panels as they lie: products with few rows, and their numbers written out.
//!
//! A panel is sixteen outputs' blocks, turned so that a register holds the same numbers of each: for one
//! block's length of inputs first the sixteen scales (and minima) in f16, then each run's factors for them,
//! a byte an output, then part after part the whole numbers, the lower bits and the higher ones. A register of
//! those has two words of 16 bits an output; from the lowest bits on they hold pair after pair of inputs.

use std::ops::Range;

use super::across::{self, Across};
#[cfg(target_arch = "x86_64")]
use super::amx;
use super::formats::{Format, PART};
use super::rows::{Mark, Order, PAIRS, Rows};
use super::simd::Simd;
use super::tile::{self, Tile};
use crate::gemm::pack::turned;
use crate::level::Level;
use crate::memory::fetch;

/// Outputs of a panel.
pub(super) const LANES: usize = 16;
/// Bytes of a register.
pub(super) const WORDS: usize = 64;
/// Bytes of a line of the cache.
const LINE: usize = 64;
/// How far ahead of its use memory is asked for.
const AHEAD: usize = 4096;

/// Where things lie in one block's length of a panel.
pub(super) struct Layout {
    /// Of the runs' factors.
    pub fine: usize,
    /// Of the parts.
    pub parts: usize,
    /// Bytes of a part.
    pub part: usize,
    /// Of these the lower bits.
    pub low: usize,
    /// Bytes of it all.
    pub all: usize,
}

impl Layout {
    pub const fn of<F: Format<BYTES>, const BYTES: usize>() -> Layout {
        let values = if F::LEAST { 2 } else { 1 };
        let fine = 2 * LANES * values;
        let parts = fine + if F::FINE { F::PARTS * F::RUNS * LANES * values } else { 0 };
        let (low, part) = (WORDS * F::LOW, WORDS * (F::LOW + F::HIGH));
        Layout { fine, parts, part, low, all: parts + F::PARTS * part }
    }
}

/// A format's loops.
#[derive(Clone, Copy)]
pub(super) struct Kernels {
    /// Products of panels with as few rows as the first number says: `[panels, rows, LANES]`.
    pub products: &'static [(usize, Products)],
    /// Those with more.
    pub tile: Tile,
    /// Numbers of so many blocks' lengths of a panel, for products that add over the outputs.
    pub unpack: fn(&[u8], &mut Steps),
    /// Such products in whole numbers, where these are quicker.
    pub across: Option<Across>,
}

pub(super) type Products = fn(&[u8], &Rows, &mut [[f32; LANES]]);

/// Those of this level.
pub(super) fn kernels<F: Format<BYTES>, const BYTES: usize>() -> Kernels {
    // A level's loops, for so few rows, and for tiles of so many rows and panels.
    macro_rules! at {
        ($level:ident: add $runs:literal $least:literal $tile:literal $side:literal) => {
            |open, x, parts, out| unsafe { $level::add::<$runs, $least, $tile, $side>(open, x, parts, out) }
        };
        ($level:ident: $($rows:literal)*, $tile:literal by $side:literal, across $across:literal) => {
            // SAFETY (of every call): a current level is available on this very machine.
            Kernels {
                products: &[
                    $(($rows, |bytes, x, out| unsafe { $level::products::<F, BYTES, $rows>(bytes, x, out) })),*
                ],
                tile: Tile {
                    rows: $tile,
                    side: $side,
                    order: Order::Pairs,
                    open: |panels, to| unsafe { $level::open::<F, BYTES, $side>(panels, to) },
                    add: match (F::RUNS, F::LEAST) {
                        (1, false) => at!($level: add 1 false $tile $side),
                        (1, true) => at!($level: add 1 true $tile $side),
                        (_, false) => at!($level: add 2 false $tile $side),
                        (_, true) => at!($level: add 2 true $tile $side),
                    },
                },
                unpack: |bytes, to| unsafe { $level::unpack::<F, BYTES>(bytes, to) },
                across: ($across && F::RUNS == 1).then_some(Across {
                    rows: across::ROWS,
                    turn: |panels, part, to| unsafe { $level::turn::<F, BYTES>(panels, part, to) },
                    add: |turned, x, rounded, out| unsafe {
                        $level::across::<F, BYTES>(turned, x, rounded, out)
                    },
                }),
            }
        };
    }
    match Level::current() {
        #[cfg(target_arch = "x86_64")]
        Level::Amx => Kernels {
            tile: Tile {
                rows: crate::amx::ROWS,
                side: amx::SIDE,
                order: Order::Planes,
                open: |panels, to| unsafe { amx::open::<F, BYTES>(panels, to) },
                add: match (F::RUNS, F::LEAST) {
                    (1, false) => |open, x, parts, out| unsafe { amx::add::<1, false>(open, x, parts, out) },
                    (1, true) => |open, x, parts, out| unsafe { amx::add::<1, true>(open, x, parts, out) },
                    (_, false) => |open, x, parts, out| unsafe { amx::add::<2, false>(open, x, parts, out) },
                    (_, true) => |open, x, parts, out| unsafe { amx::add::<2, true>(open, x, parts, out) },
                },
            },
            across: (F::RUNS == 1).then_some(Across {
                rows: crate::amx::ROWS,
                turn: |panels, part, to| unsafe { amx::turn::<F, BYTES>(panels, part, to) },
                add: |turned, x, rounded, out| unsafe { amx::across::<F, BYTES>(turned, x, rounded, out) },
            }),
            ..at!(vnni: 1 4 12, 12 by 2, across false)
        },
        #[cfg(target_arch = "x86_64")]
        Level::Avx512Vnni | Level::Avx512Bf16 => at!(vnni: 1 4 12, 12 by 2, across true),
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => at!(avx512: 1 4 12, 12 by 2, across false),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => at!(avx2: 1 2, 3 by 1, across false),
        _ => at!(portable: 1 2, 2 by 1, across false),
    }
}

macro_rules! level {
    ($name:ident, $simd:ty $(, $features:literal)?) => {
        mod $name {
            use std::ops::Range;

            use super::across::{self, Out, Rounded, Stretch, Turned};
            use super::tile::{self, Open};
            use super::{Format, LANES, Rows, Steps};
            #[allow(unused_imports)]
            use crate::gemm::blocks::simd::*;

            $(#[target_feature(enable = $features)])?
            pub unsafe fn products<F: Format<BYTES>, const BYTES: usize, const ROWS: usize>(
                bytes: &[u8],
                x: &Rows,
                out: &mut [[f32; LANES]],
            ) {
                super::products::<$simd, F, BYTES, ROWS>(bytes, x, out);
            }

            $(#[target_feature(enable = $features)])?
            pub unsafe fn open<F: Format<BYTES>, const BYTES: usize, const SIDE: usize>(
                panels: &[&[u8]],
                to: &mut Open,
            ) {
                tile::open::<$simd, F, BYTES, SIDE>(panels, to);
            }

            $(#[target_feature(enable = $features)])?
            pub unsafe fn add<const RUNS: usize, const LEAST: bool, const ROWS: usize, const SIDE: usize>(
                open: &Open,
                x: &[(usize, Rows)],
                parts: Range<usize>,
                out: &mut [[f32; LANES]],
            ) {
                tile::add::<$simd, RUNS, LEAST, ROWS, SIDE>(open, x, parts, out);
            }

            $(#[target_feature(enable = $features)])?
            pub unsafe fn unpack<F: Format<BYTES>, const BYTES: usize>(bytes: &[u8], to: &mut Steps) {
                super::unpack::<$simd, F, BYTES>(bytes, to);
            }

            $(#[target_feature(enable = $features)])?
            pub unsafe fn turn<F: Format<BYTES>, const BYTES: usize>(
                panels: &[&[u8]],
                part: usize,
                to: &mut Turned,
            ) {
                across::turn::<$simd, F, BYTES>(panels, part, to);
            }

            $(#[target_feature(enable = $features)])?
            pub unsafe fn across<F: Format<BYTES>, const BYTES: usize>(
                turned: &[Turned],
                x: &[Stretch],
                rounded: &mut Rounded,
                out: &mut [Out],
            ) {
                across::add::<$simd, F, BYTES>(turned, x, rounded, out);
            }
        }
    };
}
level!(portable, Portable);
#[cfg(target_arch = "x86_64")]
level!(vnni, Avx512<true>, "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c");
#[cfg(target_arch = "x86_64")]
level!(avx512, Avx512<false>, "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c");
#[cfg(target_arch = "x86_64")]
level!(avx2, Avx2, "avx2,fma,f16c");

#[inline(always)]
fn products<S: Simd, F: Format<BYTES>, const BYTES: usize, const ROWS: usize>(
    bytes: &[u8],
    x: &Rows,
    out: &mut [[f32; LANES]],
) {
    let layout = const { Layout::of::<F, BYTES>() };
    let blocks = x.marks.len() / (F::PARTS * ROWS);
    let outs = out.as_chunks_mut::<ROWS>().0;
    assert!(x.count == ROWS && blocks > 0 && bytes.len() == outs.len() * blocks * layout.all);
    for (panel, out) in bytes.chunks_exact(blocks * layout.all).zip(outs) {
        let mut sums = [S::same(0.0); ROWS];
        let parts = x.pairs.chunks_exact(F::PARTS * PAIRS * ROWS);
        let marks = x.marks.chunks_exact(F::PARTS * ROWS);
        for ((block, pairs), marks) in panel.chunks_exact(layout.all).zip(parts).zip(marks) {
            let whole = whole_scales::<S, F, BYTES>(block);
            for part in 0..F::PARTS {
                if ROWS == 1 {
                    // One row waits for memory alone; a whole block's lines at once are more than a core can wait for.
                    let share = const { Layout::of::<F, BYTES>().all.div_ceil(LINE).div_ceil(F::PARTS) };
                    for line in part * share..(part + 1) * share {
                        fetch(block.as_ptr().wrapping_add(AHEAD + line * LINE));
                    }
                }
                let planes = planes::<F, BYTES>(block, part);
                let pairs = &pairs[part * PAIRS * ROWS..][..PAIRS * ROWS];
                let marks: &[Mark; ROWS] = marks[part * ROWS..].first_chunk().expect("ROWS marks");
                // The pairs of a run, written out: what is done depends on the pair.
                macro_rules! run {
                    ($run:literal, sum $sum:literal: $($pair:literal)*) => {
                        let mut wholes = [S::whole(0); ROWS];
                        for (wholes, mark) in wholes.iter_mut().zip(marks) {
                            *wholes = S::whole(-F::CENTRE * mark.sums[$sum]);
                        }
                        $(
                            let pair = words::<S, F, BYTES>(planes, $pair);
                            for row in 0..ROWS {
                                wholes[row] = S::products(wholes[row], pair, pairs[$pair * ROWS + row]);
                            }
                        )*
                        let [scale, least] = run_scales::<S, F, BYTES>(block, whole, part * F::RUNS + $run);
                        for row in 0..ROWS {
                            let own = S::times(scale, S::same(marks[row].scale));
                            sums[row] = S::product(S::numbers(wholes[row]), own, sums[row]);
                            if F::LEAST {
                                sums[row] = S::product(least, S::same(marks[row].totals[$sum]), sums[row]);
                            }
                        }
                    };
                }
                if F::RUNS == 2 {
                    run!(0, sum 0: 0 1 2 3 4 5 6 7);
                    run!(1, sum 1: 8 9 10 11 12 13 14 15);
                } else {
                    run!(0, sum 2: 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
                }
            }
        }
        for (out, sums) in out.iter_mut().zip(sums) {
            *out = S::store(sums);
        }
    }
}

/// Where a panel's numbers go, turned: the right side of a product whose steps are outputs, in panels of
/// [`LANES`] inputs.
pub(super) struct Steps<'a> {
    /// `[panels, depth, LANES]`.
    pub numbers: &'a mut [f32],
    /// Steps of them.
    pub depth: usize,
    /// The panel's own.
    pub own: Range<usize>,
}

#[inline(always)]
fn unpack<S: Simd, F: Format<BYTES>, const BYTES: usize>(bytes: &[u8], to: &mut Steps) {
    let layout = const { Layout::of::<F, BYTES>() };
    let mut panels = to.numbers.chunks_exact_mut(to.depth * LANES);
    for block in bytes.chunks_exact(layout.all) {
        let whole = whole_scales::<S, F, BYTES>(block);
        for part in 0..F::PARTS {
            let planes = planes::<F, BYTES>(block, part);
            for half in 0..PART / LANES {
                let Some(panel) = panels.next() else { return };
                let mut square = [[0.0; LANES]; LANES];
                for (pair, two) in square.as_chunks_mut::<2>().0.iter_mut().enumerate() {
                    let pair = half * (LANES / 2) + pair;
                    let run = part * F::RUNS + pair * F::RUNS / PAIRS;
                    let [scale, least] = run_scales::<S, F, BYTES>(block, whole, run);
                    let centre = S::same(-F::CENTRE as f32);
                    for (to, wholes) in two.iter_mut().zip(S::each(words::<S, F, BYTES>(planes, pair))) {
                        let number = S::product(S::numbers(wholes), S::same(1.0), centre);
                        *to = S::store(S::product(number, scale, least));
                    }
                }
                let steps = &mut panel.as_chunks_mut::<LANES>().0[to.own.start..to.own.end];
                turn(&square, steps);
            }
        }
    }
}

/// Rows and columns exchanged; as many rows as there are to be.
#[inline(always)]
fn turn(square: &[[f32; LANES]; LANES], to: &mut [[f32; LANES]]) {
    const SIDE: usize = LANES / 2;
    for down in 0..2 {
        for right in 0..2 {
            let corner = std::array::from_fn(|row| {
                let numbers: &[f32; SIDE] =
                    square[SIDE * down + row][SIDE * right..].first_chunk().expect("half a row");
                *numbers
            });
            for (to, row) in to.iter_mut().skip(SIDE * right).zip(turned(corner)) {
                to[SIDE * down..][..SIDE].copy_from_slice(&row);
            }
        }
    }
}

/// A part's lower and higher bits.
#[inline(always)]
pub(super) fn planes<F: Format<BYTES>, const BYTES: usize>(block: &[u8], part: usize) -> [&[u8]; 2] {
    let layout = const { Layout::of::<F, BYTES>() };
    let (low, high) = block[layout.parts + part * layout.part..][..layout.part].split_at(layout.low);
    [low, high]
}

/// The whole numbers of a pair of inputs.
#[inline(always)]
pub(super) fn words<S: Simd, F: Format<BYTES>, const BYTES: usize>(
    [low, high]: [&[u8]; 2],
    pair: usize,
) -> S::Words {
    let (register, from) = place(F::LOW, pair);
    let low = S::masked(S::right(S::words(some(low, register * WORDS)), from), (1 << F::LOW) - 1);
    if F::HIGH == 0 {
        return low;
    }
    let (register, from) = place(F::HIGH, pair);
    let high = S::words(some(high, register * WORDS));
    let high = if from > F::LOW { S::right(high, from - F::LOW) } else { S::left(high, F::LOW - from) };
    S::or(low, S::masked(high, ((1 << F::HIGH) - 1) << F::LOW))
}

/// The register of a pair whose words have so many bits, and their place in it.
#[inline(always)]
const fn place(bits: usize, pair: usize) -> (usize, usize) {
    (pair * bits / 16, pair * bits % 16)
}

/// The scales of whole blocks, and their minima.
#[inline(always)]
pub(super) fn whole_scales<S: Simd, F: Format<BYTES>, const BYTES: usize>(block: &[u8]) -> [S::Numbers; 2] {
    let least = if F::LEAST { S::halves(some(block, 2 * LANES)) } else { S::same(0.0) };
    [S::halves(some(block, 0)), least]
}

/// Those of a run.
#[inline(always)]
pub(super) fn run_scales<S: Simd, F: Format<BYTES>, const BYTES: usize>(
    block: &[u8],
    [scale, least]: [S::Numbers; 2],
    run: usize,
) -> [S::Numbers; 2] {
    if !F::FINE {
        return [scale, least];
    }
    let layout = const { Layout::of::<F, BYTES>() };
    let fine = |which: usize| layout.fine + (which * F::PARTS * F::RUNS + run) * LANES;
    let scale = S::times(scale, S::bytes(some(block, fine(0))));
    [scale, if F::LEAST { S::times(least, S::bytes(some(block, fine(1)))) } else { least }]
}

/// `N` of the bytes.
#[inline(always)]
fn some<const N: usize>(bytes: &[u8], at: usize) -> &[u8; N] {
    bytes[at..at + N].first_chunk().expect("N bytes")
}

/// One block of each of a panel's outputs, turned; what is not there is zero.
pub(super) fn pack<F: Format<BYTES>, const BYTES: usize>(blocks: &[Option<&[u8]>; LANES], out: &mut [u8]) {
    let layout = const { Layout::of::<F, BYTES>() };
    out.fill(0);
    for (lane, block) in blocks.iter().enumerate() {
        let Some(block) = block.and_then(|block| block.first_chunk::<BYTES>()) else { continue };
        for (which, bits) in F::scales(block).into_iter().enumerate().take(1 + usize::from(F::LEAST)) {
            out[2 * (which * LANES + lane)..][..2].copy_from_slice(&bits.to_le_bytes());
            for run in 0..if F::FINE { F::PARTS * F::RUNS } else { 0 } {
                let factor = F::fine(block, run)[which];
                out[layout.fine + (which * F::PARTS * F::RUNS + run) * LANES + lane] = factor as u8;
            }
        }
        for part in 0..F::PARTS {
            let wholes = F::wholes(block, part);
            let out = &mut out[layout.parts + part * layout.part..][..layout.part];
            let (low, high) = out.split_at_mut(layout.low);
            spread(F::LOW, wholes, lane, low);
            if F::HIGH > 0 {
                spread(F::HIGH, wholes.map(|whole| whole >> F::LOW), lane, high);
            }
        }
    }
}

/// Puts the lowest bits of a part's whole numbers where an output's words have them.
#[inline(always)]
fn spread(bits: usize, wholes: [u8; PART], lane: usize, plane: &mut [u8]) {
    for (number, pairs) in wholes.chunks_exact(32 / bits).enumerate() {
        let mut words = 0;
        for (pair, wholes) in pairs.as_chunks::<2>().0.iter().enumerate() {
            for (word, &whole) in wholes.iter().enumerate() {
                words |= (u32::from(whole) & ((1 << bits) - 1)) << (16 * word + bits * pair);
            }
        }
        plane[number * WORDS + 4 * lane..][..4].copy_from_slice(&words.to_le_bytes());
    }
}
