//! AMX: up to two tiles of rows by one or two panels, whose steps are a tile's rows as they lie.

use std::cell::Cell;
use std::mem::MaybeUninit;

use super::{PANEL, Tile};
use crate::amx::{BYTES, ROWS, Shapes, Tiles};

/// Most rows.
pub(super) const TALLEST: usize = 2 * ROWS;
/// Most columns.
const WIDEST: usize = 2 * PANEL;
/// Steps of a tile: a step is four bytes of a row, and of each column.
const STEPS: usize = 16;
/// Bytes of a row's step.
const STEP: usize = BYTES / STEPS;

/// What is multiplied.
pub trait Kind {
    type A;
    type B;
    /// `SUM += A B`.
    fn add<const SUM: u8, const A: u8, const B: u8>(tiles: &Tiles);
}

/// Values of 0..255 and int8 weights, sums of 32 bits.
pub struct Int8;

impl Kind for Int8 {
    type A = u8;
    type B = i8;

    #[inline(always)]
    fn add<const SUM: u8, const A: u8, const B: u8>(tiles: &Tiles) {
        tiles.unsigned::<SUM, A, B>();
    }
}

/// Pairs of bf16, sums of f32.
pub struct Bf16Pairs;

impl Kind for Bf16Pairs {
    type A = u32;
    type B = u32;

    #[inline(always)]
    fn add<const SUM: u8, const A: u8, const B: u8>(tiles: &Tiles) {
        tiles.halves::<SUM, A, B>();
    }
}

/// By the rows of a product: its four sums, two parts of the left side and two of the right one.
static SHAPES: [Shapes; TALLEST + 1] = {
    let mut shapes = [const { Shapes::new([[0, 0]; 8]) }; TALLEST + 1];
    let mut rows = 0;
    while rows <= TALLEST {
        let upper = if rows < ROWS { [rows, BYTES] } else { [ROWS, BYTES] };
        let lower = if rows > ROWS { [rows - ROWS, BYTES] } else { [0, 0] };
        let right = [STEPS, BYTES];
        shapes[rows] = Shapes::new([upper, upper, lower, lower, upper, lower, right, right]);
        rows += 1;
    }
    shapes
};

thread_local! {
    /// The rows for which this thread's tiles are shaped: that takes longer than a small tile's products.
    static SHAPED: Cell<Option<(usize, Tiles)>> = const { Cell::new(None) };
}

/// Tiles shaped for so many rows. Put into [`SHAPED`] they stay so until [`release`].
///
/// # Safety
/// AMX is there.
#[inline(always)]
unsafe fn shaped(rows: usize) -> Tiles {
    match SHAPED.take() {
        Some((of, tiles)) if of == rows => tiles,
        others => {
            // These first, since they take the shapes with them.
            drop(others);
            // SAFETY: as the caller promises.
            unsafe { Tiles::new(&SHAPES[rows]) }
        }
    }
}

/// Gives this thread's tiles back.
pub(super) fn release() {
    SHAPED.take();
}

/// # Safety
/// As [`super::multiply`]; AMX is there, and `TALL` says whether there are more than [`ROWS`] rows.
#[inline(always)]
unsafe fn multiply<K: Kind, const TALL: bool, const WIDE: bool>(rows: usize, tile: &Tile<K::A, K::B>) {
    let width = if WIDE { WIDEST } else { PANEL };
    let (a, a_row) = (tile.a.cast::<u8>(), tile.a_row * size_of::<K::A>());
    let (b, b_panel) = (tile.b.cast::<u8>(), tile.b_panel * size_of::<K::B>());
    // The last panel may not be full: it goes through rows of its own.
    let mut edge = MaybeUninit::<[[f32; WIDEST]; TALLEST]>::uninit();
    let full = tile.columns == width;
    let (c, c_row) = if full { (tile.c, tile.c_row) } else { (edge.as_mut_ptr().cast::<f32>(), WIDEST) };
    // SAFETY: as the caller promises; the offsets stay within rows, steps and panels.
    unsafe {
        let tiles = shaped(rows);
        let second = c.wrapping_add(ROWS * c_row);
        let apart = c_row * size_of::<f32>();
        macro_rules! each_sum {
            ($method:ident $(, $apart:ident)?) => {
                tiles.$method::<0>($(c.cast(), $apart)?);
                if WIDE {
                    tiles.$method::<1>($(c.add(PANEL).cast(), $apart)?);
                }
                if TALL {
                    tiles.$method::<2>($(second.cast(), $apart)?);
                }
                if TALL && WIDE {
                    tiles.$method::<3>($(second.add(PANEL).cast(), $apart)?);
                }
            };
        }
        if tile.add {
            if !full {
                c.write_bytes(0, TALLEST * WIDEST);
                for row in 0..rows {
                    std::ptr::copy_nonoverlapping(
                        tile.c.add(row * tile.c_row),
                        c.add(row * c_row),
                        tile.columns,
                    );
                }
            }
            each_sum!(load, apart);
        } else {
            each_sum!(clear);
        }
        let steps = |a: *const u8, a_row: usize, b: *const u8, b_panel: usize| {
            tiles.load::<6>(b, BYTES);
            tiles.load::<4>(a, a_row);
            K::add::<0, 4, 6>(&tiles);
            if WIDE {
                tiles.load::<7>(b.add(b_panel), BYTES);
                K::add::<1, 4, 7>(&tiles);
            }
            if TALL {
                tiles.load::<5>(a.add(ROWS * a_row), a_row);
                K::add::<2, 5, 6>(&tiles);
            }
            if TALL && WIDE {
                K::add::<3, 5, 7>(&tiles);
            }
        };
        let whole = tile.steps / STEPS;
        for index in 0..whole {
            steps(a.add(index * BYTES), a_row, b.add(index * STEPS * BYTES), b_panel);
        }
        let rest = tile.steps % STEPS;
        if rest > 0 {
            // Filled up with zeros.
            let mut last_a = [[0u8; BYTES]; TALLEST];
            let mut last_b = [[0u8; STEPS * BYTES]; 2];
            for (row, to) in last_a.iter_mut().enumerate().take(rows) {
                let from = a.add(row * a_row + whole * BYTES);
                std::ptr::copy_nonoverlapping(from, to.as_mut_ptr(), rest * STEP);
            }
            for (panel, to) in last_b.iter_mut().enumerate().take(width / PANEL) {
                let from = b.add(panel * b_panel + whole * STEPS * BYTES);
                std::ptr::copy_nonoverlapping(from, to.as_mut_ptr(), rest * BYTES);
            }
            steps(last_a.as_ptr().cast(), BYTES, last_b.as_ptr().cast(), STEPS * BYTES);
        }
        each_sum!(store, apart);
        SHAPED.set(Some((rows, tiles)));
        if !full {
            for row in 0..rows {
                std::ptr::copy_nonoverlapping(c.add(row * c_row), tile.c.add(row * tile.c_row), tile.columns);
            }
        }
    }
}

macro_rules! entries {
    ($($name:ident, $kind:ty;)*) => {
        $(
            /// # Safety
            /// The tile's pointers are valid for its size, and the level is available.
            pub(in super::super) unsafe fn $name(
                rows: usize,
                panels: usize,
                tile: &Tile<<$kind as Kind>::A, <$kind as Kind>::B>,
            ) {
                // SAFETY: as the caller promises.
                unsafe {
                    match (rows > ROWS, panels > 1) {
                        (false, false) => multiply::<$kind, false, false>(rows, tile),
                        (false, true) => multiply::<$kind, false, true>(rows, tile),
                        (true, false) => multiply::<$kind, true, false>(rows, tile),
                        (true, true) => multiply::<$kind, true, true>(rows, tile),
                    }
                }
            }
        )*
    };
}
entries! {
    int8, Int8;
    bf16_pairs, Bf16Pairs;
}
