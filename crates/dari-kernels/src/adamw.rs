//! AdamW (Loshchilov and Hutter 2019) as one pass over a tensor.

use rayon::prelude::*;

use crate::level::leveled;

/// The numbers of one step, the same for all elements of a tensor.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Learning rate.
    pub rate: f32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the denominator.
    pub epsilon: f32,
    /// Decoupled weight decay; 0 for norms and biases.
    pub decay: f32,
    /// What the gradient is multiplied with first (clipping).
    pub gradient_scale: f32,
    /// Steps taken, this one included; from 1.
    pub count: u64,
}

/// Updates `weights` and both moments in place.
pub fn update(step: Step, weights: &mut [f32], gradient: &[f32], first: &mut [f32], second: &mut [f32]) {
    assert!(gradient.len() == weights.len() && first.len() == weights.len() && second.len() == weights.len());
    let count = step.count.min(i32::MAX as u64) as i32;
    // The corrections in f64: 0.999^n loses its digits in f32.
    let correction1 = 1.0 - (step.beta1 as f64).powi(count);
    let correction2 = 1.0 - (step.beta2 as f64).powi(count);
    let rate = (step.rate as f64 / correction1) as f32;
    let scale2 = (1.0 / correction2.sqrt()) as f32;
    const CHUNK: usize = 1 << 14;
    weights
        .par_chunks_mut(CHUNK)
        .zip(gradient.par_chunks(CHUNK))
        .zip(first.par_chunks_mut(CHUNK).zip(second.par_chunks_mut(CHUNK)))
        .for_each(|((weights, gradient), (first, second))| {
            elements(step, rate, scale2, weights, gradient, first, second)
        });
}

leveled! {
    fn elements(step: Step, rate: f32, scale2: f32, weights: &mut [f32], gradient: &[f32], first: &mut [f32], second: &mut [f32]) {
        let shrink = 1.0 - step.rate * step.decay;
        for (((w, &g), m), v) in weights.iter_mut().zip(gradient).zip(first.iter_mut()).zip(second.iter_mut()) {
            let g = g * step.gradient_scale;
            *m = step.beta1 * *m + (1.0 - step.beta1) * g;
            *v = step.beta2 * *v + (1.0 - step.beta2) * g * g;
            *w = *w * shrink - rate * *m / (v.sqrt() * scale2 + step.epsilon);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gemm::tests::numbers;

    #[test]
    fn follows_the_plain_form() {
        let n = 1003;
        let mut weights = numbers(n, 1);
        let (mut first, mut second) = (vec![0.0; n], vec![0.0; n]);
        let mut plain: Vec<[f64; 3]> = weights.iter().map(|&w| [w as f64, 0.0, 0.0]).collect();
        for count in 1..=20u64 {
            let gradient = numbers(n, 100 + count);
            let step = Step {
                rate: 1e-2,
                beta1: 0.9,
                beta2: 0.98,
                epsilon: 1e-6,
                decay: 0.1,
                gradient_scale: 0.5,
                count,
            };
            update(step, &mut weights, &gradient, &mut first, &mut second);
            for ([w, m, v], g) in plain.iter_mut().zip(&gradient) {
                let g = *g as f64 * 0.5;
                *w -= 1e-2 * 0.1 * *w;
                *m = 0.9 * *m + 0.1 * g;
                *v = 0.98 * *v + 0.02 * g * g;
                let (mh, vh) =
                    (*m / (1.0 - 0.9f64.powi(count as i32)), *v / (1.0 - 0.98f64.powi(count as i32)));
                *w -= 1e-2 * mh / (vh.sqrt() + 1e-6);
            }
        }
        for (w, p) in weights.iter().zip(&plain) {
            assert!((*w as f64 - p[0]).abs() < 1e-5, "{w} {}", p[0]);
        }
    }
}
