//! Plain code: what runs anywhere, and what the other levels are held against.

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
