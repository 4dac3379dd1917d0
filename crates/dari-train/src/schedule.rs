//! The learning rate over a run: linear warm-up, then a cosine or a constant.

use serde::{Deserialize, Serialize};

/// What follows the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shape {
    /// Half a cosine down to zero at the last step.
    #[default]
    Cosine,
    /// No change.
    Constant,
}

/// The learning rate at `step` of `steps`, counted from 1.
pub fn rate(shape: Shape, peak: f64, warmup: u64, steps: u64, step: u64) -> f64 {
    if step <= warmup {
        return peak * step as f64 / warmup as f64;
    }
    match shape {
        Shape::Constant => peak,
        Shape::Cosine => {
            let done = (step - warmup) as f64 / steps.saturating_sub(warmup).max(1) as f64;
            0.5 * peak * (1.0 + (std::f64::consts::PI * done.min(1.0)).cos())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warms_up_peaks_and_falls() {
        let at = |step| rate(Shape::Cosine, 1.0, 10, 110, step);
        assert_eq!(at(5), 0.5);
        assert_eq!(at(10), 1.0);
        assert!((at(60) - 0.5).abs() < 1e-12);
        assert!(at(110).abs() < 1e-12 && at(200).abs() < 1e-12);
        assert_eq!(rate(Shape::Constant, 2.0, 0, 10, 7), 2.0);
    }
}
