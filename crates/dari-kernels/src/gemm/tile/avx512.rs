//! AVX-512, with VNNI and BF16 where they are.

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
