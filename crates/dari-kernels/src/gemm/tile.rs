//! The innermost loops: a few rows by one or more panels of columns, held in registers.
//!
//! One loop serves every format and level: [`Micro`] says how a step of weights and a value are
//! read and multiplied. An element sums its products in the order of `k`, whatever tile it lies in.

use std::mem::MaybeUninit;
use std::sync::atomic::{Ordering, compiler_fence};

use crate::memory;

/// Columns of a panel.
pub(super) const PANEL: usize = 16;
/// Most columns of a tile.
const WIDEST: usize = 8 * PANEL;

/// One tile's operands.
pub(super) struct Tile<A, B> {
    /// Steps along `k`; a step is [`Micro::K`] values.
    pub steps: usize,
    /// The first row's first value.
    pub a: *const A,
    /// From row to row, in values.
    pub a_row: usize,
    /// From step to step, where `a` is packed; else rows lie in steps of [`Micro::A_STEP`].
    pub a_step: usize,
    /// The first panel's first step.
    pub b: *const B,
    /// From panel to panel.
    pub b_panel: usize,
    /// The first element of the result; 32-bit integers where the sums are integers.
    pub c: *mut f32,
    /// From row to row of the result.
    pub c_row: usize,
    /// Columns of the result that exist.
    pub columns: usize,
    /// Whether the sums are added to what is there.
    pub add: bool,
}

/// A tile's loop, by its rows and panels.
pub(super) type Run<A, B> = unsafe fn(usize, usize, &Tile<A, B>);

/// How one format is multiplied at one level.
///
/// # Safety
/// The methods are to be called only where the level is available, with pointers to as many
/// elements as they say.
pub(super) unsafe trait Micro {
    /// A value of the left side.
    type A: Copy;
    /// An element of a panel.
    type B: Copy;
    /// Sums of [`Micro::LANES`] columns.
    type Sum: Copy;
    /// One value in all lanes.
    type Value: Copy;
    /// Weights of [`Micro::LANES`] columns.
    type Weights: Copy;
    /// Columns of a vector.
    const LANES: usize;
    /// Values of `k` in a step; a panel's step holds `PANEL * K` elements.
    const K: usize;
    /// Parts in which a step is multiplied.
    const PHASES: usize;
    /// Values of the left side from step to step.
    const A_STEP: usize;
    /// Values of the left side from phase to phase.
    const A_PHASE: usize;

    /// No sums.
    unsafe fn zero() -> Self::Sum;
    /// The weights of a phase from `LANES * K` elements.
    unsafe fn weights(b: *const Self::B, phase: usize) -> Self::Weights;
    /// A phase's values.
    unsafe fn value(a: *const Self::A) -> Self::Value;
    /// `sum + value * weights`.
    unsafe fn add_product(sum: Self::Sum, value: Self::Value, weights: Self::Weights) -> Self::Sum;
    /// Writes or adds [`Micro::LANES`] sums.
    unsafe fn store(sum: Self::Sum, c: *mut f32, add: bool);
}

/// Multiplies `R` rows by `V` vectors of columns.
///
/// # Safety
/// The tile's pointers lie in their slices for all its rows, steps and columns; the level of `M` is
/// available.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // a closure would not be compiled for the entry's level
unsafe fn multiply<M: Micro, const R: usize, const V: usize, const PACKED: bool>(tile: &Tile<M::A, M::B>) {
    let per_panel = PANEL / M::LANES;
    // SAFETY: as the caller promises; the offsets stay within rows, steps and panels.
    unsafe {
        let mut sums = [[M::zero(); V]; R];
        let a_step = if PACKED { tile.a_step } else { M::A_STEP };
        let (mut a, mut b) = (tile.a, tile.b);
        // A large result comes from far: it is asked for before it is needed.
        for r in 0..R {
            for v in (0..V * M::LANES).step_by(PANEL) {
                memory::fetch(tile.c.wrapping_add(r * tile.c_row + v).cast());
            }
        }
        // Written out a few times: where the rows lie is worked out once for them.
        macro_rules! steps {
            ($($ahead:literal)*) => {$(
                for phase in 0..M::PHASES {
                    // Weights of one phase at a time: those of all phases overflow the registers.
                    if M::PHASES > 1 {
                        compiler_fence(Ordering::SeqCst);
                    }
                    let b = b.add($ahead * PANEL * M::K);
                    let mut weights = [M::weights(b, phase); V];
                    for v in 1..V {
                        let at = v / per_panel * tile.b_panel + v % per_panel * M::LANES * M::K;
                        weights[v] = M::weights(b.add(at), phase);
                    }
                    for r in 0..R {
                        let row = if PACKED { r } else { r * tile.a_row };
                        let value = M::value(a.add(row + $ahead * a_step + phase * M::A_PHASE));
                        for v in 0..V {
                            sums[r][v] = M::add_product(sums[r][v], value, weights[v]);
                        }
                    }
                }
            )*};
        }
        const AT_ONCE: usize = 4;
        for _ in 0..tile.steps / AT_ONCE {
            steps!(0 1 2 3);
            (a, b) = (a.add(AT_ONCE * a_step), b.add(AT_ONCE * PANEL * M::K));
        }
        for _ in 0..tile.steps % AT_ONCE {
            steps!(0);
            (a, b) = (a.add(a_step), b.add(PANEL * M::K));
        }
        // The last panel may not be full: it goes through rows of its own. One plain loop stores either,
        // small enough to be unrolled; else the sums would live in memory.
        let mut edge = MaybeUninit::<[[f32; WIDEST]; R]>::uninit();
        let full = tile.columns == V * M::LANES;
        let (to, row) = if full { (tile.c, tile.c_row) } else { (edge.as_mut_ptr().cast::<f32>(), WIDEST) };
        if !full && tile.add {
            to.write_bytes(0, R * WIDEST);
            for r in 0..R {
                std::ptr::copy_nonoverlapping(tile.c.add(r * tile.c_row), to.add(r * row), tile.columns);
            }
        }
        if tile.add {
            for r in 0..R {
                for v in 0..V {
                    M::store(sums[r][v], to.add(r * row + v * M::LANES), true);
                }
            }
        } else {
            for r in 0..R {
                for v in 0..V {
                    M::store(sums[r][v], to.add(r * row + v * M::LANES), false);
                }
            }
        }
        if !full {
            for r in 0..R {
                std::ptr::copy_nonoverlapping(to.add(r * row), tile.c.add(r * tile.c_row), tile.columns);
            }
        }
    }
}

/// How many rows and panels a tile may have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// Most rows.
    pub rows: usize,
    /// Panels side by side, by the rows of the tallest tile.
    pub panels: fn(usize) -> usize,
    /// Whether changing from one number of rows to another takes long.
    pub group_by_group: bool,
    /// What a thread does after its last tile.
    pub end: fn(),
}

impl Shape {
    /// Of a level that keeps nothing from tile to tile.
    const fn new(rows: usize, panels: fn(usize) -> usize) -> Shape {
        Shape { rows, panels, group_by_group: false, end: || () }
    }
}

/// Sixteen registers of 8 lanes.
#[cfg(target_arch = "x86_64")]
pub(super) const AVX2: Shape = Shape::new(6, |rows| match rows {
    1 => 4,
    2 | 3 => 2,
    _ => 1,
});

/// Thirty-two registers of 16 lanes.
#[cfg(target_arch = "x86_64")]
pub(super) const AVX512: Shape = Shape::new(12, |rows| match rows {
    1 | 2 => 8,
    3 => 6,
    4..=6 => 4,
    _ => 2,
});

/// The same for weights that are widened on the way, which takes registers of its own.
#[cfg(target_arch = "x86_64")]
pub(super) const AVX512_LOW: Shape = Shape { rows: 10, ..AVX512 };

/// Four of eight tiles for the sums.
#[cfg(target_arch = "x86_64")]
pub(super) const AMX: Shape =
    Shape { group_by_group: true, end: amx::release, ..Shape::new(amx::TALLEST, |_| 2) };

/// Thirty-two registers of 4 lanes.
#[cfg(target_arch = "aarch64")]
pub(super) const NEON: Shape = Shape::new(6, |rows| match rows {
    1 => 4,
    2 => 2,
    _ => 1,
});

/// Whatever the compiler makes of it.
pub(super) const PORTABLE: Shape = Shape::new(2, |_| 1);

/// The tile of a size that [`Shape`] allows.
///
/// # Safety
/// As [`multiply`].
macro_rules! by_size {
    ($micro:ty, $packed:expr, $tile:expr, $rows:expr, $panels:expr, [$(($r:literal, $p:literal)),* $(,)?]) => {
        match ($rows, $panels) {
            $(($r, $p) => {
                // SAFETY: as the caller of the entry promises.
                unsafe { multiply::<$micro, $r, { $p * PANEL / <$micro as Micro>::LANES }, $packed>($tile) }
            })*
            (rows, panels) => unreachable!("no tile of {rows} rows and {panels} panels"),
        }
    };
}

/// Defines an entry: one function compiled for a level, from a tile's size to its loop.
macro_rules! entry {
    ($name:ident, $micro:ty, $packed:expr, [$($feature:literal),*], $sizes:tt) => {
        /// # Safety
        /// The tile's pointers are valid for its size, and the level is available.
        $(#[target_feature(enable = $feature)])*
        pub(in super::super) unsafe fn $name(
            rows: usize,
            panels: usize,
            tile: &Tile<<$micro as Micro>::A, <$micro as Micro>::B>,
        ) {
            by_size!($micro, $packed, tile, rows, panels, $sizes)
        }
    };
}

pub(super) mod portable;

#[cfg(target_arch = "x86_64")]
pub(super) mod avx2;

#[cfg(target_arch = "x86_64")]
pub(super) mod amx;

#[cfg(target_arch = "x86_64")]
pub(super) mod avx512;

#[cfg(target_arch = "aarch64")]
pub(super) mod neon;
