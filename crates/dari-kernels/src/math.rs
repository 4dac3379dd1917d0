//! Scalar functions written so that the compiler can put them in vector lanes: no branch, no call.
//! NaN comes out as NaN.

use std::f32::consts::LOG2_E;

/// `e^x` to about 1 unit in the last place; 0 below -87, saturating at about 2e38.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // A comparison instead of min, which would drop a NaN.
    exp_of_at_most_88(if x > 88.0 { 88.0 } else { x })
}

/// [`exp`] of what is known not to be larger: a step less where a softmax has taken its largest away.
#[inline(always)]
pub fn exp_of_at_most_88(x: f32) -> f32 {
    // Adding 1.5 * 2^23 leaves the nearest integer in the low bits of the mantissa.
    const SHIFT: f32 = 12_582_912.0;
    let shifted = x * LOG2_E + SHIFT;
    let n = shifted - SHIFT;
    let r = x - n * 0.693_359_4;
    let r = r - n * -2.121_944_4e-4;
    let mut p = 1.987_569_2e-4;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_6e-1;
    p = p * r + 0.5;
    let mantissa = p * r * r + r + 1.0;
    let scale = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    let value = mantissa * scale;
    // Below, the steps above mean nothing.
    if x < -87.0 { 0.0 } else { value }
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// Hyperbolic tangent, to about 1e-7 absolute.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    1.0 - 2.0 / (exp(2.0 * x) + 1.0)
}

/// The error function, to about 3e-7 absolute (Abramowitz and Stegun 7.1.26).
#[inline(always)]
pub fn erf(x: f32) -> f32 {
    let a = x.abs();
    let t = 1.0 / (1.0 + 0.327_591_1 * a);
    let mut p = 1.061_405_4;
    p = p * t - 1.453_152_1;
    p = p * t + 1.421_413_8;
    p = p * t - 0.284_496_72;
    p = p * t + 0.254_829_6;
    let magnitude = 1.0 - p * t * exp(-a * a);
    // copysign keeps a NaN a NaN.
    magnitude.copysign(x)
}

/// Lanes in which every reduction here sums, whatever the machine's own width.
pub const LANES: usize = 16;

/// Folds the lanes pairwise, in a fixed order.
#[inline(always)]
pub fn fold(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// The largest of the lanes, pairwise.
#[inline(always)]
pub fn largest(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] = if lanes[i + width] > lanes[i] { lanes[i + width] } else { lanes[i] };
        }
        width /= 2;
    }
    lanes[0]
}

/// Sums `term(i)` for `i` in `0..n` in fixed lanes.
#[inline(always)]
pub fn sum(n: usize, term: impl Fn(usize) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let whole = n / LANES * LANES;
    let mut at = 0;
    while at < whole {
        for (lane, value) in lanes.iter_mut().enumerate() {
            *value += term(at + lane);
        }
        at += LANES;
    }
    for i in whole..n {
        lanes[i - whole] += term(i);
    }
    fold(lanes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_follow_their_f64_forms() {
        let mut worst = [0.0f64; 4];
        for i in -8000..8000 {
            let x = i as f32 * 0.01;
            let y = x as f64;
            worst[0] = worst[0].max((exp(x) as f64 / y.exp() - 1.0).abs());
            worst[1] = worst[1].max((tanh(x) as f64 - y.tanh()).abs());
            worst[2] = worst[2].max((sigmoid(x) as f64 - 1.0 / (1.0 + (-y).exp())).abs());
            // The normal distribution's integral by a plain Simpson sum is too slow here; erf is
            // odd, bounded and has a known derivative, and three published values pin it.
            worst[3] = worst[3].max((erf(x) + erf(-x)).abs() as f64);
        }
        assert!(worst[0] < 3e-7, "exp {worst:?}");
        assert!(worst[1] < 3e-7, "tanh {worst:?}");
        assert!(worst[2] < 2e-7, "sigmoid {worst:?}");
        assert!(worst[3] < 1e-7, "erf is odd {worst:?}");
        for (x, value) in [(0.5, 0.520_499_9), (1.0, 0.842_700_8), (2.0, 0.995_322_3)] {
            assert!((erf(x) - value).abs() < 4e-7, "erf({x}) = {}", erf(x));
        }
        assert!(exp(f32::NAN).is_nan() && tanh(f32::NAN).is_nan() && erf(f32::NAN).is_nan());
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
    }

    #[test]
    fn sums_every_length() {
        for n in [0, 1, 7, 15, 16, 17, 33, 100] {
            let expected: f32 = (0..n).map(|i| i as f32).sum();
            assert_eq!(sum(n, |i| i as f32), expected);
        }
    }
}
