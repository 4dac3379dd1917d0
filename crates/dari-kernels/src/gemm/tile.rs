//! The innermost loops: a few rows by one or more panels of columns, held in registers.
//!
//! One loop serves every format and level: [`Micro`] says how a step of weights and a value are
//! read and multiplied. An element sums its products in the order of `k`, whatever tile it lies in.

use std::mem::MaybeUninit;
use std::sync::atomic::{Ordering, compiler_fence};

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
        for _ in 0..tile.steps {
            for phase in 0..M::PHASES {
                // Weights of one phase at a time: those of all phases overflow the registers.
                if M::PHASES > 1 {
                    compiler_fence(Ordering::SeqCst);
                }
                let mut weights = [M::weights(b, phase); V];
                for v in 1..V {
                    let at = v / per_panel * tile.b_panel + v % per_panel * M::LANES * M::K;
                    weights[v] = M::weights(b.add(at), phase);
                }
                for r in 0..R {
                    let row = if PACKED { r } else { r * tile.a_row };
                    let value = M::value(a.add(row + phase * M::A_PHASE));
                    for v in 0..V {
                        sums[r][v] = M::add_product(sums[r][v], value, weights[v]);
                    }
                }
            }
            a = a.add(a_step);
            b = b.add(PANEL * M::K);
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
}

/// Sixteen registers of 8 lanes.
#[cfg(target_arch = "x86_64")]
pub(super) const AVX2: Shape = Shape {
    rows: 6,
    panels: |rows| match rows {
        1 => 4,
        2 | 3 => 2,
        _ => 1,
    },
};

/// Thirty-two registers of 16 lanes.
#[cfg(target_arch = "x86_64")]
pub(super) const AVX512: Shape = Shape {
    rows: 12,
    panels: |rows| match rows {
        1 | 2 => 8,
        3 => 6,
        4..=6 => 4,
        _ => 2,
    },
};

/// The same for weights that are widened on the way, which takes registers of its own.
#[cfg(target_arch = "x86_64")]
pub(super) const AVX512_LOW: Shape = Shape { rows: 10, ..AVX512 };

/// Thirty-two registers of 4 lanes.
#[cfg(target_arch = "aarch64")]
pub(super) const NEON: Shape = Shape {
    rows: 6,
    panels: |rows| match rows {
        1 => 4,
        2 => 2,
        _ => 1,
    },
};

/// Whatever the compiler makes of it.
pub(super) const PORTABLE: Shape = Shape { rows: 2, panels: |_| 1 };

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

pub(super) mod portable {
    use super::*;

    pub struct F32;

    // SAFETY: plain code.
    unsafe impl Micro for F32 {
        type A = f32;
        type B = f32;
        type Sum = [f32; PANEL];
        type Value = f32;
        type Weights = [f32; PANEL];
        const LANES: usize = PANEL;
        const K: usize = 1;
        const PHASES: usize = 1;
        const A_STEP: usize = 1;
        const A_PHASE: usize = 0;

        #[inline(always)]
        unsafe fn zero() -> Self::Sum {
            [0.0; PANEL]
        }

        #[inline(always)]
        unsafe fn weights(b: *const f32, _: usize) -> Self::Weights {
            // SAFETY: a step of a panel.
            unsafe { b.cast::<[f32; PANEL]>().read_unaligned() }
        }

        #[inline(always)]
        unsafe fn value(a: *const f32) -> f32 {
            // SAFETY: a value of the left side.
            unsafe { *a }
        }

        #[inline(always)]
        unsafe fn add_product(mut sum: Self::Sum, value: f32, weights: Self::Weights) -> Self::Sum {
            for (sum, weight) in sum.iter_mut().zip(weights) {
                *sum += value * weight;
            }
            sum
        }

        #[inline(always)]
        unsafe fn store(sum: Self::Sum, c: *mut f32, add: bool) {
            for (i, sum) in sum.into_iter().enumerate() {
                // SAFETY: a panel's width of the result.
                unsafe {
                    let c = c.add(i);
                    *c = if add { *c + sum } else { sum };
                }
            }
        }
    }

    /// bf16 weights, f32 values and sums.
    pub struct Bf16;

    // SAFETY: plain code.
    unsafe impl Micro for Bf16 {
        type A = f32;
        type B = u16;
        type Sum = [f32; PANEL];
        type Value = f32;
        type Weights = [f32; PANEL];
        const LANES: usize = PANEL;
        const K: usize = 2;
        const PHASES: usize = 2;
        const A_STEP: usize = 2;
        const A_PHASE: usize = 1;

        #[inline(always)]
        unsafe fn zero() -> Self::Sum {
            [0.0; PANEL]
        }

        #[inline(always)]
        unsafe fn weights(b: *const u16, phase: usize) -> Self::Weights {
            // SAFETY: a step of a panel holds two values a column.
            std::array::from_fn(|i| f32::from_bits((unsafe { *b.add(2 * i + phase) } as u32) << 16))
        }

        #[inline(always)]
        unsafe fn value(a: *const f32) -> f32 {
            // SAFETY: a value of the left side.
            unsafe { *a }
        }

        #[inline(always)]
        unsafe fn add_product(sum: Self::Sum, value: f32, weights: Self::Weights) -> Self::Sum {
            // SAFETY: plain code.
            unsafe { F32::add_product(sum, value, weights) }
        }

        #[inline(always)]
        unsafe fn store(sum: Self::Sum, c: *mut f32, add: bool) {
            // SAFETY: as here.
            unsafe { F32::store(sum, c, add) }
        }
    }

    /// int8 weights, values of 0..255, 32-bit sums.
    pub struct Int8;

    // SAFETY: plain code.
    unsafe impl Micro for Int8 {
        type A = u8;
        type B = i8;
        type Sum = [i32; PANEL];
        type Value = i32;
        type Weights = [i32; PANEL];
        const LANES: usize = PANEL;
        const K: usize = 4;
        const PHASES: usize = 4;
        const A_STEP: usize = 4;
        const A_PHASE: usize = 1;

        #[inline(always)]
        unsafe fn zero() -> Self::Sum {
            [0; PANEL]
        }

        #[inline(always)]
        unsafe fn weights(b: *const i8, phase: usize) -> Self::Weights {
            // SAFETY: a step of a panel holds four values a column.
            std::array::from_fn(|i| unsafe { *b.add(4 * i + phase) } as i32)
        }

        #[inline(always)]
        unsafe fn value(a: *const u8) -> i32 {
            // SAFETY: a value of the left side.
            unsafe { *a as i32 }
        }

        #[inline(always)]
        unsafe fn add_product(mut sum: Self::Sum, value: i32, weights: Self::Weights) -> Self::Sum {
            for (sum, weight) in sum.iter_mut().zip(weights) {
                *sum = sum.wrapping_add(value * weight);
            }
            sum
        }

        #[inline(always)]
        unsafe fn store(sum: Self::Sum, c: *mut f32, add: bool) {
            let c = c.cast::<i32>();
            for (i, sum) in sum.into_iter().enumerate() {
                // SAFETY: a panel's width of the result.
                unsafe {
                    let c = c.add(i);
                    *c = if add { (*c).wrapping_add(sum) } else { sum };
                }
            }
        }
    }

    entry!(f32, F32, false, [], [(1, 1), (2, 1)]);
    entry!(f32_packed, F32, true, [], [(1, 1), (2, 1)]);
    entry!(bf16, Bf16, false, [], [(1, 1), (2, 1)]);
    entry!(int8, Int8, false, [], [(1, 1), (2, 1)]);
}

#[cfg(target_arch = "x86_64")]
pub(super) mod avx2 {
    use std::arch::asm;
    use std::arch::x86_64::*;

    use super::*;

    pub struct F32;

    // SAFETY: AVX2 and FMA, as the level says.
    unsafe impl Micro for F32 {
        type A = f32;
        type B = f32;
        type Sum = __m256;
        type Value = __m256;
        type Weights = __m256;
        const LANES: usize = 8;
        const K: usize = 1;
        const PHASES: usize = 1;
        const A_STEP: usize = 1;
        const A_PHASE: usize = 0;

        #[inline(always)]
        unsafe fn zero() -> __m256 {
            // SAFETY: the level is available.
            unsafe { _mm256_setzero_ps() }
        }

        #[inline(always)]
        unsafe fn weights(b: *const f32, _: usize) -> __m256 {
            // SAFETY: eight columns of a step.
            unsafe { _mm256_loadu_ps(b) }
        }

        #[inline(always)]
        unsafe fn value(a: *const f32) -> __m256 {
            // SAFETY: a value of the left side.
            unsafe { _mm256_broadcast_ss(&*a) }
        }

        #[inline(always)]
        unsafe fn add_product(sum: __m256, value: __m256, weights: __m256) -> __m256 {
            // SAFETY: the level is available.
            unsafe { _mm256_fmadd_ps(value, weights, sum) }
        }

        #[inline(always)]
        unsafe fn store(sum: __m256, c: *mut f32, add: bool) {
            // SAFETY: eight elements of the result.
            unsafe {
                let sum = if add { _mm256_add_ps(_mm256_loadu_ps(c), sum) } else { sum };
                _mm256_storeu_ps(c, sum);
            }
        }
    }

    /// bf16 weights widened on the way, f32 values and sums.
    pub struct Bf16;

    // SAFETY: AVX2 and FMA, as the level says.
    unsafe impl Micro for Bf16 {
        type A = f32;
        type B = u16;
        type Sum = __m256;
        type Value = __m256;
        type Weights = __m256;
        const LANES: usize = 8;
        const K: usize = 2;
        const PHASES: usize = 2;
        const A_STEP: usize = 2;
        const A_PHASE: usize = 1;

        #[inline(always)]
        unsafe fn zero() -> __m256 {
            // SAFETY: the level is available.
            unsafe { _mm256_setzero_ps() }
        }

        #[inline(always)]
        unsafe fn weights(b: *const u16, phase: usize) -> __m256 {
            // SAFETY: eight columns of a step, two values each.
            unsafe {
                let pairs = _mm256_loadu_si256(b.cast());
                _mm256_castsi256_ps(if phase == 0 {
                    _mm256_slli_epi32::<16>(pairs)
                } else {
                    _mm256_and_si256(pairs, _mm256_set1_epi32(0xffff_0000u32 as i32))
                })
            }
        }

        #[inline(always)]
        unsafe fn value(a: *const f32) -> __m256 {
            // SAFETY: a value of the left side.
            unsafe { F32::value(a) }
        }

        #[inline(always)]
        unsafe fn add_product(sum: __m256, value: __m256, weights: __m256) -> __m256 {
            // SAFETY: the level is available.
            unsafe { F32::add_product(sum, value, weights) }
        }

        #[inline(always)]
        unsafe fn store(sum: __m256, c: *mut f32, add: bool) {
            // SAFETY: as here.
            unsafe { F32::store(sum, c, add) }
        }
    }

    /// int8 weights and values of 0..255 in 16 bits, multiplied in pairs: no sum can saturate.
    /// A step's four values lie as 0, 2, 1, 3.
    pub struct Int8;

    // SAFETY: AVX2, as the level says.
    unsafe impl Micro for Int8 {
        type A = i16;
        type B = i8;
        type Sum = __m256i;
        type Value = __m256i;
        type Weights = __m256i;
        const LANES: usize = 8;
        const K: usize = 4;
        const PHASES: usize = 2;
        const A_STEP: usize = 4;
        const A_PHASE: usize = 2;

        #[inline(always)]
        unsafe fn zero() -> __m256i {
            // SAFETY: the level is available.
            unsafe { _mm256_setzero_si256() }
        }

        #[inline(always)]
        unsafe fn weights(b: *const i8, phase: usize) -> __m256i {
            // SAFETY: eight columns of a step, four values each.
            unsafe {
                let bytes = _mm256_loadu_si256(b.cast());
                // The even bytes of each pair, or the odd ones, with their sign.
                let bytes = if phase == 0 { _mm256_slli_epi16::<8>(bytes) } else { bytes };
                _mm256_srai_epi16::<8>(bytes)
            }
        }

        #[inline(always)]
        unsafe fn value(a: *const i16) -> __m256i {
            // SAFETY: two values of the left side.
            unsafe { _mm256_set1_epi32(a.cast::<i32>().read_unaligned()) }
        }

        #[inline(always)]
        unsafe fn add_product(sum: __m256i, value: __m256i, weights: __m256i) -> __m256i {
            // SAFETY: the level is available.
            unsafe { add_pairs(sum, value, weights) }
        }

        #[inline(always)]
        unsafe fn store(sum: __m256i, c: *mut f32, add: bool) {
            // SAFETY: eight elements of the result.
            unsafe {
                let c = c.cast::<__m256i>();
                let sum = if add { _mm256_add_epi32(_mm256_loadu_si256(c), sum) } else { sum };
                _mm256_storeu_si256(c, sum);
            }
        }
    }

    /// `sum + value * weights`, pairs of 16 bits added. As intrinsics the compiler would add several
    /// products before the sum, and run out of registers.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn add_pairs(mut sum: __m256i, value: __m256i, weights: __m256i) -> __m256i {
        // SAFETY: registers only.
        unsafe {
            asm!(
                "vpmaddwd {product:y}, {value:y}, {weights:y}",
                "vpaddd {sum:y}, {sum:y}, {product:y}",
                product = out(ymm_reg) _,
                sum = inout(ymm_reg) sum,
                value = in(ymm_reg) value,
                weights = in(ymm_reg) weights,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        sum
    }

    macro_rules! entries {
        ($($name:ident, $micro:ty, $packed:expr;)*) => {
            $(entry!($name, $micro, $packed, ["avx2,fma"], [
                (1, 4), (1, 1), (2, 2), (2, 1), (3, 2), (3, 1), (4, 1), (5, 1), (6, 1),
            ]);)*
        };
    }
    entries! {
        f32, F32, false;
        f32_packed, F32, true;
        bf16, Bf16, false;
        int8, Int8, false;
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) mod avx512 {
    use std::arch::x86_64::*;

    use super::*;

    pub struct F32;

    // SAFETY: AVX-512 F, as the level says.
    unsafe impl Micro for F32 {
        type A = f32;
        type B = f32;
        type Sum = __m512;
        type Value = __m512;
        type Weights = __m512;
        const LANES: usize = 16;
        const K: usize = 1;
        const PHASES: usize = 1;
        const A_STEP: usize = 1;
        const A_PHASE: usize = 0;

        #[inline(always)]
        unsafe fn zero() -> __m512 {
            // SAFETY: the level is available.
            unsafe { _mm512_setzero_ps() }
        }

        #[inline(always)]
        unsafe fn weights(b: *const f32, _: usize) -> __m512 {
            // SAFETY: a panel's step.
            unsafe { _mm512_loadu_ps(b) }
        }

        #[inline(always)]
        unsafe fn value(a: *const f32) -> __m512 {
            // SAFETY: a value of the left side.
            unsafe { _mm512_set1_ps(*a) }
        }

        #[inline(always)]
        unsafe fn add_product(sum: __m512, value: __m512, weights: __m512) -> __m512 {
            // SAFETY: the level is available.
            unsafe { _mm512_fmadd_ps(value, weights, sum) }
        }

        #[inline(always)]
        unsafe fn store(sum: __m512, c: *mut f32, add: bool) {
            // SAFETY: a panel's width of the result.
            unsafe {
                let sum = if add { _mm512_add_ps(_mm512_loadu_ps(c), sum) } else { sum };
                _mm512_storeu_ps(c, sum);
            }
        }
    }

    /// bf16 weights widened on the way, f32 values and sums: for AVX-512 without BF16.
    pub struct Bf16;

    // SAFETY: AVX-512 F, as the level says.
    unsafe impl Micro for Bf16 {
        type A = f32;
        type B = u16;
        type Sum = __m512;
        type Value = __m512;
        type Weights = __m512;
        const LANES: usize = 16;
        const K: usize = 2;
        const PHASES: usize = 2;
        const A_STEP: usize = 2;
        const A_PHASE: usize = 1;

        #[inline(always)]
        unsafe fn zero() -> __m512 {
            // SAFETY: the level is available.
            unsafe { _mm512_setzero_ps() }
        }

        #[inline(always)]
        unsafe fn weights(b: *const u16, phase: usize) -> __m512 {
            // SAFETY: a panel's step, two values a column.
            unsafe {
                let pairs = _mm512_loadu_si512(b.cast());
                _mm512_castsi512_ps(if phase == 0 {
                    _mm512_slli_epi32::<16>(pairs)
                } else {
                    _mm512_and_si512(pairs, _mm512_set1_epi32(0xffff_0000u32 as i32))
                })
            }
        }

        #[inline(always)]
        unsafe fn value(a: *const f32) -> __m512 {
            // SAFETY: a value of the left side.
            unsafe { F32::value(a) }
        }

        #[inline(always)]
        unsafe fn add_product(sum: __m512, value: __m512, weights: __m512) -> __m512 {
            // SAFETY: the level is available.
            unsafe { F32::add_product(sum, value, weights) }
        }

        #[inline(always)]
        unsafe fn store(sum: __m512, c: *mut f32, add: bool) {
            // SAFETY: as here.
            unsafe { F32::store(sum, c, add) }
        }
    }

    /// bf16 weights and values, f32 sums of pairs.
    pub struct Bf16Pairs;

    // SAFETY: AVX-512 BF16, as the level says.
    unsafe impl Micro for Bf16Pairs {
        type A = u32;
        type B = u32;
        type Sum = __m512;
        type Value = __m512bh;
        type Weights = __m512bh;
        const LANES: usize = 16;
        const K: usize = 1;
        const PHASES: usize = 1;
        const A_STEP: usize = 1;
        const A_PHASE: usize = 0;

        #[inline(always)]
        unsafe fn zero() -> __m512 {
            // SAFETY: the level is available.
            unsafe { _mm512_setzero_ps() }
        }

        #[inline(always)]
        unsafe fn weights(b: *const u32, _: usize) -> __m512bh {
            // SAFETY: a panel's step; both types are 64 bytes without meaning.
            unsafe { std::mem::transmute(_mm512_loadu_si512(b.cast())) }
        }

        #[inline(always)]
        unsafe fn value(a: *const u32) -> __m512bh {
            // SAFETY: a pair of the left side.
            unsafe { std::mem::transmute(_mm512_set1_epi32(*a as i32)) }
        }

        #[inline(always)]
        unsafe fn add_product(sum: __m512, value: __m512bh, weights: __m512bh) -> __m512 {
            // SAFETY: the level is available.
            unsafe { _mm512_dpbf16_ps(sum, value, weights) }
        }

        #[inline(always)]
        unsafe fn store(sum: __m512, c: *mut f32, add: bool) {
            // SAFETY: as here.
            unsafe { F32::store(sum, c, add) }
        }
    }

    #[inline(always)]
    unsafe fn store_integers(sum: __m512i, c: *mut f32, add: bool) {
        // SAFETY: a panel's width of the result.
        unsafe {
            let sum = if add { _mm512_add_epi32(_mm512_loadu_si512(c.cast()), sum) } else { sum };
            _mm512_storeu_si512(c.cast(), sum);
        }
    }

    /// As the one of AVX2, for AVX-512 without VNNI.
    pub struct Int8;

    // SAFETY: AVX-512 BW, as the level says.
    unsafe impl Micro for Int8 {
        type A = i16;
        type B = i8;
        type Sum = __m512i;
        type Value = __m512i;
        type Weights = __m512i;
        const LANES: usize = 16;
        const K: usize = 4;
        const PHASES: usize = 2;
        const A_STEP: usize = 4;
        const A_PHASE: usize = 2;

        #[inline(always)]
        unsafe fn zero() -> __m512i {
            // SAFETY: the level is available.
            unsafe { _mm512_setzero_si512() }
        }

        #[inline(always)]
        unsafe fn weights(b: *const i8, phase: usize) -> __m512i {
            // SAFETY: a panel's step, four values a column.
            unsafe {
                let bytes = _mm512_loadu_si512(b.cast());
                let bytes = if phase == 0 { _mm512_slli_epi16::<8>(bytes) } else { bytes };
                _mm512_srai_epi16::<8>(bytes)
            }
        }

        #[inline(always)]
        unsafe fn value(a: *const i16) -> __m512i {
            // SAFETY: two values of the left side.
            unsafe { _mm512_set1_epi32(a.cast::<i32>().read_unaligned()) }
        }

        #[inline(always)]
        unsafe fn add_product(sum: __m512i, value: __m512i, weights: __m512i) -> __m512i {
            // SAFETY: the level is available.
            unsafe { _mm512_add_epi32(sum, _mm512_madd_epi16(value, weights)) }
        }

        #[inline(always)]
        unsafe fn store(sum: __m512i, c: *mut f32, add: bool) {
            // SAFETY: as here.
            unsafe { store_integers(sum, c, add) }
        }
    }

    /// int8 weights, values of 0..255, sums of four by VNNI.
    pub struct Int8Fours;

    // SAFETY: AVX-512 VNNI, as the level says.
    unsafe impl Micro for Int8Fours {
        type A = u8;
        type B = i8;
        type Sum = __m512i;
        type Value = __m512i;
        type Weights = __m512i;
        const LANES: usize = 16;
        const K: usize = 4;
        const PHASES: usize = 1;
        const A_STEP: usize = 4;
        const A_PHASE: usize = 0;

        #[inline(always)]
        unsafe fn zero() -> __m512i {
            // SAFETY: the level is available.
            unsafe { _mm512_setzero_si512() }
        }

        #[inline(always)]
        unsafe fn weights(b: *const i8, _: usize) -> __m512i {
            // SAFETY: a panel's step.
            unsafe { _mm512_loadu_si512(b.cast()) }
        }

        #[inline(always)]
        unsafe fn value(a: *const u8) -> __m512i {
            // SAFETY: four values of the left side.
            unsafe { _mm512_set1_epi32(a.cast::<i32>().read_unaligned()) }
        }

        #[inline(always)]
        unsafe fn add_product(sum: __m512i, value: __m512i, weights: __m512i) -> __m512i {
            // SAFETY: the level is available.
            unsafe { _mm512_dpbusd_epi32(sum, value, weights) }
        }

        #[inline(always)]
        unsafe fn store(sum: __m512i, c: *mut f32, add: bool) {
            // SAFETY: as here.
            unsafe { store_integers(sum, c, add) }
        }
    }

    macro_rules! entries {
        ($($name:ident, $micro:ty, $packed:expr, $features:literal;)*) => {
            $(entry!($name, $micro, $packed, [$features], [
                (1, 8), (2, 8), (3, 6), (4, 4), (5, 4), (6, 4),
                (6, 2), (7, 2), (8, 2), (9, 2), (10, 2), (11, 2), (12, 2),
                (1, 1), (2, 1), (3, 1), (4, 1), (5, 1), (6, 1),
                (7, 1), (8, 1), (9, 1), (10, 1), (11, 1), (12, 1),
            ]);)*
        };
    }
    entries! {
        f32, F32, false, "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma";
        f32_packed, F32, true, "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma";
        bf16, Bf16, false, "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma";
        bf16_pairs, Bf16Pairs, false, "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma";
        bf16_pairs_packed, Bf16Pairs, true, "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma";
        int8, Int8, false, "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma";
        int8_fours, Int8Fours, false, "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma";
    }
}

#[cfg(target_arch = "aarch64")]
pub(super) mod neon {
    use std::arch::aarch64::*;
    use std::arch::asm;

    use super::*;

    pub struct F32;

    // SAFETY: NEON, as the target guarantees.
    unsafe impl Micro for F32 {
        type A = f32;
        type B = f32;
        type Sum = float32x4_t;
        type Value = float32x4_t;
        type Weights = float32x4_t;
        const LANES: usize = 4;
        const K: usize = 1;
        const PHASES: usize = 1;
        const A_STEP: usize = 1;
        const A_PHASE: usize = 0;

        #[inline(always)]
        unsafe fn zero() -> float32x4_t {
            // SAFETY: NEON is there.
            unsafe { vdupq_n_f32(0.0) }
        }

        #[inline(always)]
        unsafe fn weights(b: *const f32, _: usize) -> float32x4_t {
            // SAFETY: four columns of a step.
            unsafe { vld1q_f32(b) }
        }

        #[inline(always)]
        unsafe fn value(a: *const f32) -> float32x4_t {
            // SAFETY: a value of the left side.
            unsafe { vdupq_n_f32(*a) }
        }

        #[inline(always)]
        unsafe fn add_product(sum: float32x4_t, value: float32x4_t, weights: float32x4_t) -> float32x4_t {
            // SAFETY: NEON is there.
            unsafe { vfmaq_f32(sum, value, weights) }
        }

        #[inline(always)]
        unsafe fn store(sum: float32x4_t, c: *mut f32, add: bool) {
            // SAFETY: four elements of the result.
            unsafe { vst1q_f32(c, if add { vaddq_f32(vld1q_f32(c), sum) } else { sum }) }
        }
    }

    /// bf16 weights widened on the way, f32 values and sums.
    pub struct Bf16;

    // SAFETY: NEON, as the target guarantees.
    unsafe impl Micro for Bf16 {
        type A = f32;
        type B = u16;
        type Sum = float32x4_t;
        type Value = float32x4_t;
        type Weights = float32x4_t;
        const LANES: usize = 4;
        const K: usize = 2;
        const PHASES: usize = 2;
        const A_STEP: usize = 2;
        const A_PHASE: usize = 1;

        #[inline(always)]
        unsafe fn zero() -> float32x4_t {
            // SAFETY: NEON is there.
            unsafe { vdupq_n_f32(0.0) }
        }

        #[inline(always)]
        unsafe fn weights(b: *const u16, phase: usize) -> float32x4_t {
            // SAFETY: four columns of a step, two values each.
            unsafe {
                let pairs = vreinterpretq_u32_u16(vld1q_u16(b));
                vreinterpretq_f32_u32(if phase == 0 {
                    vshlq_n_u32::<16>(pairs)
                } else {
                    vandq_u32(pairs, vdupq_n_u32(0xffff_0000))
                })
            }
        }

        #[inline(always)]
        unsafe fn value(a: *const f32) -> float32x4_t {
            // SAFETY: a value of the left side.
            unsafe { F32::value(a) }
        }

        #[inline(always)]
        unsafe fn add_product(sum: float32x4_t, value: float32x4_t, weights: float32x4_t) -> float32x4_t {
            // SAFETY: NEON is there.
            unsafe { F32::add_product(sum, value, weights) }
        }

        #[inline(always)]
        unsafe fn store(sum: float32x4_t, c: *mut f32, add: bool) {
            // SAFETY: as here.
            unsafe { F32::store(sum, c, add) }
        }
    }

    /// int8 weights, values shifted to -128..127, sums of four by `sdot`, whose intrinsic is not
    /// stable.
    pub struct Int8;

    // SAFETY: NEON with dot products, as the level says.
    unsafe impl Micro for Int8 {
        type A = i8;
        type B = i8;
        type Sum = int32x4_t;
        type Value = int8x16_t;
        type Weights = int8x16_t;
        const LANES: usize = 4;
        const K: usize = 4;
        const PHASES: usize = 1;
        const A_STEP: usize = 4;
        const A_PHASE: usize = 0;

        #[inline(always)]
        unsafe fn zero() -> int32x4_t {
            // SAFETY: NEON is there.
            unsafe { vdupq_n_s32(0) }
        }

        #[inline(always)]
        unsafe fn weights(b: *const i8, _: usize) -> int8x16_t {
            // SAFETY: four columns of a step, four values each.
            unsafe { vld1q_s8(b) }
        }

        #[inline(always)]
        unsafe fn value(a: *const i8) -> int8x16_t {
            // SAFETY: four values of the left side.
            unsafe { vreinterpretq_s8_s32(vdupq_n_s32(a.cast::<i32>().read_unaligned())) }
        }

        #[inline(always)]
        unsafe fn add_product(sum: int32x4_t, value: int8x16_t, weights: int8x16_t) -> int32x4_t {
            // SAFETY: the level is available.
            unsafe { add_fours(sum, value, weights) }
        }

        #[inline(always)]
        unsafe fn store(sum: int32x4_t, c: *mut f32, add: bool) {
            // SAFETY: four elements of the result.
            unsafe {
                let c = c.cast::<i32>();
                vst1q_s32(c, if add { vaddq_s32(vld1q_s32(c), sum) } else { sum });
            }
        }
    }

    /// `sum + value * weights`, fours of bytes added.
    #[inline]
    #[target_feature(enable = "dotprod")]
    fn add_fours(mut sum: int32x4_t, value: int8x16_t, weights: int8x16_t) -> int32x4_t {
        // SAFETY: registers only.
        unsafe {
            asm!(
                "sdot {sum:v}.4s, {value:v}.16b, {weights:v}.16b",
                sum = inout(vreg) sum,
                value = in(vreg) value,
                weights = in(vreg) weights,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        sum
    }

    macro_rules! entries {
        ($($name:ident, $micro:ty, $packed:expr, [$($feature:literal)?];)*) => {
            $(entry!($name, $micro, $packed, [$($feature)?], [
                (1, 4), (1, 1), (2, 2), (2, 1), (3, 1), (4, 1), (5, 1), (6, 1),
            ]);)*
        };
    }
    entries! {
        f32, F32, false, [];
        f32_packed, F32, true, [];
        bf16, Bf16, false, [];
        int8, Int8, false, ["dotprod"];
    }
}
