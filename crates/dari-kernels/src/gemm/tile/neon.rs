//! NEON, with the dot product by assembly.

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
