//! AVX2 and FMA.

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
