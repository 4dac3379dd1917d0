//! Cross entropy of the softmax of logits, row by row, with its backward pass.

use crate::level::leveled;
use crate::math;
use crate::team;

/// Rows of a task.
const ROWS: usize = 4;

/// A row's target that counts for nothing.
pub const IGNORED: u32 = u32::MAX;

/// `loss = log(sum(exp(logits))) - logits[target]` of each row of `[rows, classes]`; the logarithm is
/// kept in `logs` for the backward pass. A row whose target is [`IGNORED`] has loss 0.
pub fn forward(logits: &[f32], targets: &[u32], losses: &mut [f32], logs: &mut [f32]) {
    let rows = targets.len();
    assert!(losses.len() == rows && logs.len() == rows);
    let classes = classes(logits, rows);
    check(targets, classes);
    if rows == 0 || classes == 0 {
        return;
    }
    team::chunks(logs, ROWS, |index, logs| {
        let rows = logits.chunks_exact(classes).skip(index * ROWS);
        for (log, row) in logs.iter_mut().zip(rows) {
            *log = log_sum(row);
        }
    });
    for (row, ((loss, &log), &target)) in losses.iter_mut().zip(&*logs).zip(targets).enumerate() {
        *loss = if target == IGNORED { 0.0 } else { log - logits[row * classes + target as usize] };
    }
}

/// `dlogits = scale * (softmax(logits) - target)` of each row, 0 for an ignored one; overwritten.
pub fn backward(logits: &[f32], targets: &[u32], logs: &[f32], scale: f32, dlogits: &mut [f32]) {
    let rows = targets.len();
    assert!(logs.len() == rows && dlogits.len() == logits.len());
    let classes = classes(logits, rows);
    check(targets, classes);
    if rows == 0 || classes == 0 {
        return;
    }
    team::chunks(dlogits, ROWS * classes, |index, dlogits| {
        for (row, slopes) in dlogits.chunks_exact_mut(classes).enumerate() {
            let row = index * ROWS + row;
            let target = targets[row];
            if target == IGNORED {
                slopes.fill(0.0);
                continue;
            }
            probabilities(&logits[row * classes..][..classes], logs[row], scale, slopes);
            slopes[target as usize] -= scale;
        }
    });
}

fn classes(logits: &[f32], rows: usize) -> usize {
    let classes = logits.len().checked_div(rows).unwrap_or(0);
    assert_eq!(logits.len(), rows * classes);
    classes
}

fn check(targets: &[u32], classes: usize) {
    assert!(targets.iter().all(|&target| target == IGNORED || (target as usize) < classes));
}

leveled! {
    fn log_sum(row: &[f32]) -> f32 {
        let mut most = f32::NEG_INFINITY;
        for &logit in row {
            // A NaN stays.
            most = if logit > most || logit.is_nan() { logit } else { most };
        }
        if !most.is_finite() {
            return most;
        }
        most + math::sum(row.len(), |i| math::exp(row[i] - most)).ln()
    }
}

leveled! {
    fn probabilities(logits: &[f32], log: f32, scale: f32, out: &mut [f32]) {
        for (out, &logit) in out.iter_mut().zip(logits) {
            *out = scale * math::exp(logit - log);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gemm::tests::{at_every_level, numbers};

    #[test]
    fn losses_and_slopes_follow_float64() {
        at_every_level(|level| {
            for (rows, classes) in [(1, 1), (3, 7), (33, 17), (40, 130)] {
                let logits: Vec<f32> = numbers(rows * classes, 1).iter().map(|x| 20.0 * x).collect();
                let targets: Vec<u32> = (0..rows)
                    .map(|row| if row % 5 == 3 { IGNORED } else { (row * 7 % classes) as u32 })
                    .collect();
                let (mut losses, mut logs) = (vec![f32::NAN; rows], vec![f32::NAN; rows]);
                let mut slopes = vec![f32::NAN; rows * classes];
                forward(&logits, &targets, &mut losses, &mut logs);
                backward(&logits, &targets, &logs, 0.25, &mut slopes);
                for row in 0..rows {
                    let of_row: Vec<f64> =
                        logits[row * classes..][..classes].iter().map(|&x| x as f64).collect();
                    let total: f64 = of_row.iter().map(|x| x.exp()).sum();
                    let target = targets[row];
                    let loss = if target == IGNORED { 0.0 } else { total.ln() - of_row[target as usize] };
                    assert!((losses[row] as f64 - loss).abs() < 1e-5, "{level:?} {rows} {classes} {row}");
                    for class in 0..classes {
                        let hit = if class as u32 == target { 1.0 } else { 0.0 };
                        let slope = 0.25 * (of_row[class].exp() / total - hit);
                        let slope = if target == IGNORED { 0.0 } else { slope };
                        assert!((slopes[row * classes + class] as f64 - slope).abs() < 1e-6);
                    }
                }
            }
        });
    }

    #[test]
    fn large_logits_neither_overflow_nor_hide_what_is_no_number() {
        let logits = [1e30, 0.0, 3e38, f32::NAN, f32::INFINITY, 1.0];
        let (mut losses, mut logs) = ([0.0; 3], [0.0; 3]);
        forward(&logits, &[1, 0, 1], &mut losses, &mut logs);
        assert_eq!(losses[0], 1e30);
        assert!(losses[1].is_nan() && !losses[2].is_finite());
    }
}
