//! Many rows by tiles of bytes: a whole number of 16 bits is a high byte with its sign and a low one without, and
//! the blocks' own whole numbers are bytes. Both bytes' products are exact, and so is their sum: what comes out is
//! what [`super::tile`] gives, to the same bits.

use std::arch::x86_64::*;
use std::mem::MaybeUninit;
use std::ops::Range;

use super::across::{self, HALVES, Out, Rounded, Stretch, Turned};
use super::formats::{Format, PART};
use super::panel::{LANES, Layout, planes, run_scales, whole_scales, words};
use super::rows::Rows;
use super::simd::{Avx512, Simd};
use super::tile::{Open, PARTS, Register};
use crate::amx::{BYTES as ROW, ROWS, Shapes, Tiles};
use crate::math::fold;

/// Panels of a tile.
pub(super) const SIDE: usize = 2;
/// Inputs of a register: four an output.
const FOUR: usize = 4;
/// Registers of a part.
const FOURS: usize = PART / FOUR;

type Vnni = Avx512<true>;

/// A part's registers.
#[inline(always)]
fn registers<F: Format<BYTES>, const BYTES: usize>(block: &[u8], part: usize) -> [__m512i; FOURS] {
    // Of two registers of words every other byte: the first's lane, then the second's.
    const BYTE: [u8; ROW] = {
        let mut bytes = [0; ROW];
        let mut at = 0;
        while at < ROW {
            bytes[at] = (at / FOUR * FOUR + at % 2 * 2 + at % FOUR / 2 * ROW) as u8;
            at += 1;
        }
        bytes
    };
    let planes = planes::<F, BYTES>(block, part);
    // SAFETY: the level is available to whoever calls this.
    unsafe {
        let bytes = _mm512_loadu_si512(BYTE.as_ptr().cast());
        let mut all = [_mm512_setzero_si512(); FOURS];
        for (four, all) in all.iter_mut().enumerate() {
            let first = words::<Vnni, F, BYTES>(planes, 2 * four);
            let second = words::<Vnni, F, BYTES>(planes, 2 * four + 1);
            let both = _mm512_permutex2var_epi8(first, bytes, second);
            *all = _mm512_sub_epi8(both, _mm512_set1_epi8(F::CENTRE as i8));
        }
        all
    }
}

/// Lays the same stretch of panels open: `[panels, parts, FOURS]` and `[panels, parts, runs]`.
///
/// # Safety
/// The level is available.
#[target_feature(enable = "avx512vbmi,avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(super) unsafe fn open<F: Format<BYTES>, const BYTES: usize>(panels: &[&[u8]], to: &mut Open) {
    let layout = const { Layout::of::<F, BYTES>() };
    to.words.resize(SIDE * PARTS * FOURS, Register([0; ROW]));
    to.scales.resize(SIDE * PARTS * F::RUNS, [[0.0; LANES]; 2]);
    let all = to.words.chunks_exact_mut(PARTS * FOURS).zip(to.scales.chunks_exact_mut(PARTS * F::RUNS));
    for (panel, (registers, scales)) in panels.iter().zip(all) {
        let blocks =
            registers.chunks_exact_mut(F::PARTS * FOURS).zip(scales.chunks_exact_mut(F::PARTS * F::RUNS));
        for (block, (registers, scales)) in panel.chunks_exact(layout.all).zip(blocks) {
            let whole = whole_scales::<Vnni, F, BYTES>(block);
            for (part, registers) in registers.chunks_exact_mut(FOURS).enumerate() {
                for (register, to) in self::registers::<F, BYTES>(block, part).into_iter().zip(registers) {
                    Vnni::put(register, &mut to.0);
                }
            }
            for (run, to) in scales.iter_mut().enumerate() {
                let [scale, least] = run_scales::<Vnni, F, BYTES>(block, whole, run);
                *to = [Vnni::store(scale), Vnni::store(least)];
            }
        }
    }
}

/// Sums of a run's high bytes and of its low ones.
#[repr(align(64))]
struct Sums([[[i32; LANES]; ROWS]; 2]);

impl Sums {
    /// A row's sums of both.
    #[inline(always)]
    fn whole(&self, row: usize) -> __m512i {
        let [high, low] = [self.0[0][row].as_ptr(), self.0[1][row].as_ptr()];
        // SAFETY: sixteen sums each, and the level is available to whoever calls this.
        unsafe {
            _mm512_add_epi32(
                _mm512_slli_epi32::<8>(_mm512_load_si512(high.cast())),
                _mm512_load_si512(low.cast()),
            )
        }
    }
}

/// Adds what those parts of the rows give to `[rows, panels]` of each block of rows.
///
/// # Safety
/// The level is available.
#[target_feature(enable = "avx512vbmi,avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(super) unsafe fn add<const RUNS: usize, const LEAST: bool>(
    open: &Open,
    x: &[(usize, Rows)],
    parts: Range<usize>,
    out: &mut [[f32; LANES]],
) {
    const SUM: [usize; 2] = [ROWS, ROW];
    let shapes = const {
        let (rows, weight) = ([ROWS, PART / RUNS], [FOURS / RUNS, ROW]);
        Shapes::new([SUM, SUM, SUM, SUM, rows, rows, weight, [0, 0]])
    };
    let runs = parts.len() * RUNS;
    assert!(parts.len() <= PARTS);
    if x.is_empty() || runs == 0 {
        return;
    }
    // Block of rows, panel and run that are multiplied next; behind the last ones the last rows' once more, for
    // nothing.
    let mut next = [0; 3];
    let mut operands = || {
        let [block, side, run] = next;
        let [high, low] = &x[block].1.planes[parts.start + run / RUNS].0;
        let at = run % RUNS * (PART / RUNS);
        let words = &open.words[side * PARTS * FOURS + run * (FOURS / RUNS)..][..FOURS / RUNS];
        next = match [side, run] {
            [_, run] if run + 1 < runs => [block, side, run + 1],
            [side, _] if side + 1 < SIDE => [block, side + 1, 0],
            _ => [(block + 1).min(x.len() - 1), 0, 0],
        };
        [high.as_flattened()[at..].as_ptr(), low.as_flattened()[at..].as_ptr(), words.as_ptr().cast()]
    };
    // SAFETY: the level is available.
    let tiles = unsafe { Tiles::new(&shapes) };
    let mut sums = [const { MaybeUninit::<Sums>::uninit() }; 2];
    let [even, odd] = &mut sums;
    // Three runs are on their way: one is multiplied, the sums of the one before are stored, and those of the one
    // before that are added up.
    // SAFETY: the operands are whole, and what a step has stored is there.
    let [even, odd] = unsafe {
        step::<0, 1, 2, 3>(&tiles, operands(), odd.as_mut_ptr(), |_| ());
        step::<2, 3, 0, 1>(&tiles, operands(), even.as_mut_ptr(), |_| ());
        [even.assume_init_mut(), odd.assume_init_mut()]
    };
    let mut is_even = true;
    for ((_, x), out) in x.iter().zip(out.as_chunks_mut::<SIDE>().0.as_chunks_mut::<ROWS>().0) {
        let marks = x.marks[parts.start * ROWS..parts.end * ROWS].as_chunks::<ROWS>().0;
        for side in 0..SIDE {
            let scales = &open.scales[side * PARTS * RUNS..][..runs];
            let mut total = [Vnni::same(0.0); ROWS];
            for (total, out) in total.iter_mut().zip(out.iter()) {
                *total = Vnni::load(&out[side]);
            }
            for (run, [scale, least]) in scales.iter().enumerate() {
                let [scale, least] = [Vnni::load(scale), Vnni::load(least)];
                let which = if RUNS == 1 { 2 } else { run % RUNS };
                let marks = &marks[run / RUNS];
                macro_rules! step {
                    ($high:literal $low:literal, $last_high:literal $last_low:literal, $from:ident, $to:ident) => {
                        // SAFETY: the operands are whole.
                        unsafe {
                            step::<$high, $low, $last_high, $last_low>(&tiles, operands(), $to, |row| {
                                let own = Vnni::times(scale, Vnni::same(marks[row].scale));
                                total[row] = Vnni::product(Vnni::numbers($from.whole(row)), own, total[row]);
                                if LEAST {
                                    let more = Vnni::same(marks[row].totals[which]);
                                    total[row] = Vnni::product(least, more, total[row]);
                                }
                            });
                        }
                    };
                }
                if is_even {
                    step!(0 1, 2 3, even, odd);
                } else {
                    step!(2 3, 0 1, odd, even);
                }
                is_even = !is_even;
            }
            for (total, out) in total.iter().zip(out.iter_mut()) {
                out[side] = Vnni::store(*total);
            }
        }
    }
}

/// Multiplies a run's high and low bytes by the weight's into two tiles, and stores what two others hold. What is
/// done for each row meanwhile stands between, since neither alone keeps a core busy.
///
/// # Safety
/// AMX is there, and the tiles' shapes are those of [`add`]. The operands are [`PART`] bytes apart and [`ROW`].
#[inline(always)]
unsafe fn step<const HIGH: u8, const LOW: u8, const LAST_HIGH: u8, const LAST_LOW: u8>(
    tiles: &Tiles,
    [high, low, words]: [*const u8; 3],
    to: *mut Sums,
    mut row: impl FnMut(usize),
) {
    // SAFETY: as the caller promises, and there is room for whole sums.
    unsafe {
        let to: [*mut u8; 2] = [(&raw mut (*to).0[0]).cast(), (&raw mut (*to).0[1]).cast()];
        tiles.load::<4>(high, PART);
        row(0);
        row(1);
        tiles.load::<5>(low, PART);
        row(2);
        row(3);
        tiles.load::<6>(words, ROW);
        tiles.clear::<HIGH>();
        tiles.clear::<LOW>();
        row(4);
        row(5);
        tiles.signed::<HIGH, 4, 6>();
        row(6);
        row(7);
        tiles.store::<LAST_HIGH>(to[0], ROW);
        row(8);
        row(9);
        row(10);
        tiles.unsigned::<LOW, 5, 6>();
        row(11);
        row(12);
        tiles.store::<LAST_LOW>(to[1], ROW);
        row(13);
        row(14);
        row(15);
    }
}

/// Turns one part of a stretch of outputs.
///
/// # Safety
/// The level is available.
#[target_feature(enable = "avx512vbmi,avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(super) unsafe fn turn<F: Format<BYTES>, const BYTES: usize>(
    panels: &[&[u8]],
    part: usize,
    to: &mut Turned,
) {
    let layout = const { Layout::of::<F, BYTES>() };
    let (block, part) = (part / F::PARTS, part % F::PARTS);
    // Whole tiles. What was left there by other weights meets zeros.
    to.words.resize(
        panels.len().next_multiple_of(PANELS) * FOURS / HALVES,
        [const { Register([0; ROW]) }; HALVES],
    );
    // Four outputs' four inputs each, to four inputs' four outputs each.
    let square = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    for (panel, to) in panels.iter().zip(to.words.chunks_exact_mut(LANES / FOUR)) {
        let registers = registers::<F, BYTES>(&panel[block * layout.all..][..layout.all], part);
        for half in 0..HALVES {
            // Four registers of four inputs, each with four lanes of four outputs: these exchanged.
            let [a, b, c, d]: &[__m512i; FOUR] =
                registers[half * FOUR..].first_chunk().expect("half of a part's registers");
            let [low, high] = [_mm512_shuffle_i32x4::<0x44>(*a, *b), _mm512_shuffle_i32x4::<0xee>(*a, *b)];
            let [low_two, high_two] =
                [_mm512_shuffle_i32x4::<0x44>(*c, *d), _mm512_shuffle_i32x4::<0xee>(*c, *d)];
            let outputs = [
                _mm512_shuffle_i32x4::<0x88>(low, low_two),
                _mm512_shuffle_i32x4::<0xdd>(low, low_two),
                _mm512_shuffle_i32x4::<0x88>(high, high_two),
                _mm512_shuffle_i32x4::<0xdd>(high, high_two),
            ];
            for (outputs, to) in outputs.into_iter().zip(to.iter_mut()) {
                Vnni::put(_mm512_shuffle_epi8(outputs, square), &mut to[half].0);
            }
        }
    }
    across::scales::<Vnni, F, BYTES>(panels, block, part, to);
}

/// Panels of a tile's outputs.
const PANELS: usize = ROW / LANES;

/// Adds a tile's products with parts of one stretch.
///
/// # Safety
/// The level is available.
#[target_feature(enable = "avx512vbmi,avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(super) unsafe fn across<F: Format<BYTES>, const BYTES: usize>(
    turned: &[Turned],
    x: &[Stretch],
    rounded: &mut Rounded,
    out: &mut [Out],
) {
    let x: &[Stretch; ROWS] = x.first_chunk().expect("a tile's rows");
    let whole = const { Shapes::new([[ROWS, ROW]; 8]) };
    // SAFETY: the level is available.
    let tiles = unsafe { Tiles::new(&whole) };
    let mut sums = const { [Sums([[[0; LANES]; ROWS]; 2]), Sums([[[0; LANES]; ROWS]; 2])] };
    for (turned, out) in turned.iter().zip(out) {
        let count = turned.words.len() * HALVES / (PANELS * FOURS);
        let mut least = [0.0; ROWS];
        for row in 0..ROWS {
            least[row] = round::<F, BYTES>(turned, &x[row], row, &mut rounded.planes[..count]);
        }
        tiles.clear::<0>();
        tiles.clear::<1>();
        tiles.clear::<2>();
        tiles.clear::<3>();
        for (words, [high, low]) in turned.words.chunks_exact(PANELS * FOURS / HALVES).zip(&rounded.planes) {
            // SAFETY: sixteen rows each.
            unsafe {
                tiles.load::<4>(high.as_ptr().cast(), ROW);
                tiles.load::<5>(low.as_ptr().cast(), ROW);
                tiles.load::<6>(words.as_ptr().cast(), HALVES * ROW);
                tiles.load::<7>(words.as_ptr().cast::<u8>().add(ROW), HALVES * ROW);
            }
            tiles.signed::<0, 4, 6>();
            tiles.unsigned::<1, 5, 6>();
            tiles.signed::<2, 4, 7>();
            tiles.unsigned::<3, 5, 7>();
        }
        let [Sums([first_high, first_low]), Sums([second_high, second_low])] = &mut sums;
        // SAFETY: whole sums.
        unsafe {
            tiles.store::<0>(first_high.as_mut_ptr().cast(), ROW);
            tiles.store::<1>(first_low.as_mut_ptr().cast(), ROW);
            tiles.store::<2>(second_high.as_mut_ptr().cast(), ROW);
            tiles.store::<3>(second_low.as_mut_ptr().cast(), ROW);
        }
        for (row, out) in out.0.iter_mut().enumerate() {
            let scale = Vnni::same(x[row].scale * turned.largest);
            for (sums, out) in sums.iter().zip(out) {
                let mut more = Vnni::product(Vnni::numbers(sums.whole(row)), scale, Vnni::load(out));
                if F::LEAST {
                    more = Vnni::product(Vnni::same(least[row]), Vnni::same(x[row].scale), more);
                }
                *out = Vnni::store(more);
            }
        }
    }
}

/// A row's bytes as a part takes them, and the sum of its numbers with the minima.
#[target_feature(enable = "avx512vbmi,avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
fn round<F: Format<BYTES>, const BYTES: usize>(
    turned: &Turned,
    x: &Stretch,
    row: usize,
    planes: &mut [[[[u8; ROW]; ROWS]; 2]],
) -> f32 {
    // Of two registers of lanes the lowest bytes, then the next ones.
    const BYTE: [u8; ROW] = {
        let mut bytes = [0; ROW];
        let mut at = 0;
        while at < ROW {
            bytes[at] = (at % 32 * FOUR + at / 32) as u8;
            at += 1;
        }
        bytes
    };
    // SAFETY: 64 bytes.
    let bytes = unsafe { _mm512_loadu_si512(BYTE.as_ptr().cast()) };
    let mut sum = Vnni::same(0.0);
    let numbers = x.numbers.as_chunks::<LANES>().0.as_chunks::<PANELS>().0;
    let scales = turned.scales.as_chunks::<LANES>().0.as_chunks::<PANELS>().0;
    let minima = turned.least.as_chunks::<LANES>().0.as_chunks::<PANELS>().0;
    for (((planes, numbers), scales), minima) in planes.iter_mut().zip(numbers).zip(scales).zip(minima) {
        let mut wholes = [_mm512_setzero_si512(); PANELS];
        for panel in 0..PANELS {
            let x = Vnni::load(&numbers[panel]);
            wholes[panel] = _mm512_cvtps_epi32(Vnni::times(x, Vnni::load(&scales[panel])));
            if F::LEAST {
                sum = Vnni::product(Vnni::load(&minima[panel]), x, sum);
            }
        }
        let first = _mm512_permutex2var_epi8(wholes[0], bytes, wholes[1]);
        let second = _mm512_permutex2var_epi8(wholes[2], bytes, wholes[3]);
        let [high, low] = planes;
        Vnni::put(_mm512_shuffle_i64x2::<0xee>(first, second), &mut high[row]);
        Vnni::put(_mm512_shuffle_i64x2::<0x44>(first, second), &mut low[row]);
    }
    if F::LEAST { fold(Vnni::store(sum)) } else { 0.0 }
}
