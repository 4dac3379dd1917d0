//! Layer norm (Ba et al. 2016) and RMS norm (Zhang and Sennrich 2019) over rows, with backward.

use crate::level::leveled;
use crate::math;
use crate::team;

/// Rows that one task takes; also the fixed grouping in which the weights' gradients are summed.
const ROWS: usize = 32;

/// What a forward pass keeps of each row for the backward pass: mean and reciprocal deviation.
/// RMS norm's mean is zero.
pub type Statistics = [f32; 2];

/// Which of the two norms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Norm {
    /// Subtracts the mean, divides by the standard deviation.
    Layer,
    /// Divides by the root mean square.
    Rms,
}

/// `normalised(x) * weight + bias`, row by row of `weight.len()` values, in memory that is not
/// cleared first.
///
/// `statistics` gets one entry a row. `bias` may be empty.
pub fn forward(
    norm: Norm,
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
    epsilon: f32,
    statistics: &mut [Statistics],
) -> Vec<f32> {
    let width = weight.len();
    assert!(width > 0 && x.len() == statistics.len() * width);
    assert!(bias.is_empty() || bias.len() == width);
    let mut out = Vec::with_capacity(x.len());
    let room = &mut out.spare_capacity_mut()[..x.len()];
    team::chunks_of_two((room, ROWS * width), (statistics, ROWS), |index, room, statistics| {
        let x = &x[index * ROWS * width..][..room.len()];
        rows(norm, weight, bias, epsilon, room.write_copy_of_slice(x), statistics);
    });
    // SAFETY: the chunks cover the room, and each was written whole.
    unsafe { out.set_len(x.len()) };
    out
}

leveled! {
    fn rows(norm: Norm, weight: &[f32], bias: &[f32], epsilon: f32, out: &mut [f32], statistics: &mut [Statistics]) {
        let width = weight.len();
        for (row, statistics) in out.chunks_exact_mut(width).zip(statistics) {
            let mean = match norm {
                Norm::Layer => math::sum(width, |i| row[i]) / width as f32,
                Norm::Rms => 0.0,
            };
            let variance = math::sum(width, |i| (row[i] - mean) * (row[i] - mean)) / width as f32;
            let reciprocal = 1.0 / (variance + epsilon).sqrt();
            *statistics = [mean, reciprocal];
            if bias.is_empty() {
                for (value, &w) in row.iter_mut().zip(weight) {
                    *value = (*value - mean) * reciprocal * w;
                }
            } else {
                for ((value, &w), &b) in row.iter_mut().zip(weight).zip(bias) {
                    *value = (*value - mean) * reciprocal * w + b;
                }
            }
        }
    }
}

/// The gradients of [`forward`]: `dx` (same shape as `x`), `dweight` and `dbias` (overwritten).
#[allow(clippy::too_many_arguments)]
pub fn backward(
    norm: Norm,
    x: &[f32],
    weight: &[f32],
    statistics: &[Statistics],
    dy: &[f32],
    dx: &mut [f32],
    dweight: &mut [f32],
    dbias: &mut [f32],
) {
    let width = weight.len();
    assert!(width > 0 && x.len() == statistics.len() * width);
    assert!(dy.len() == x.len() && dx.len() == x.len());
    assert!(dweight.len() == width && dbias.len() == width);
    // Partial sums of fixed groups of rows, added in order: the same bits on any number of threads.
    let mut partials = vec![0.0; statistics.len().div_ceil(ROWS) * 2 * width];
    team::chunks_of_two((dx, ROWS * width), (&mut partials, 2 * width), |index, dx, sums| {
        let part = index * ROWS * width..index * ROWS * width + dx.len();
        let statistics = &statistics[index * ROWS..][..dx.len() / width];
        rows_backward(norm, &x[part.clone()], weight, statistics, &dy[part], dx, sums);
    });
    dweight.fill(0.0);
    dbias.fill(0.0);
    for sums in partials.chunks_exact(2 * width) {
        for (total, part) in dweight.iter_mut().zip(&sums[..width]) {
            *total += part;
        }
        for (total, part) in dbias.iter_mut().zip(&sums[width..]) {
            *total += part;
        }
    }
}

leveled! {
    fn rows_backward(norm: Norm, x: &[f32], weight: &[f32], statistics: &[Statistics], dy: &[f32], dx: &mut [f32], sums: &mut [f32]) {
        let width = weight.len();
        let (dweight, dbias) = sums.split_at_mut(width);
        for (((x, dy), dx), &[mean, reciprocal]) in x
            .chunks_exact(width)
            .zip(dy.chunks_exact(width))
            .zip(dx.chunks_exact_mut(width))
            .zip(statistics)
        {
            let along = math::sum(width, |i| dy[i] * weight[i] * (x[i] - mean) * reciprocal) / width as f32;
            let shift = match norm {
                Norm::Layer => math::sum(width, |i| dy[i] * weight[i]) / width as f32,
                Norm::Rms => 0.0,
            };
            for i in 0..width {
                let normalised = (x[i] - mean) * reciprocal;
                dx[i] = reciprocal * (dy[i] * weight[i] - shift - normalised * along);
                dweight[i] += dy[i] * normalised;
                dbias[i] += dy[i];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gemm::tests::numbers;

    fn reference(norm: Norm, x: &[f64], weight: &[f32], bias: &[f32], epsilon: f64) -> Vec<f64> {
        let width = weight.len();
        let mut out = Vec::new();
        for row in x.chunks_exact(width) {
            let mean = match norm {
                Norm::Layer => row.iter().sum::<f64>() / width as f64,
                Norm::Rms => 0.0,
            };
            let variance = row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / width as f64;
            for i in 0..width {
                out.push((row[i] - mean) / (variance + epsilon).sqrt() * weight[i] as f64 + bias[i] as f64);
            }
        }
        out
    }

    #[test]
    fn forward_and_backward_follow_the_reference() {
        for (rows, width) in [(1, 1), (3, 7), (33, 17), (70, 48)] {
            for norm in [Norm::Layer, Norm::Rms] {
                let x = numbers(rows * width, 1);
                let weight = numbers(width, 2);
                let bias = numbers(width, 3);
                let dy = numbers(rows * width, 4);
                let mut statistics = vec![[f32::NAN; 2]; rows];
                let out = forward(norm, &x, &weight, &bias, 1e-5, &mut statistics);
                let wide: Vec<f64> = x.iter().map(|&v| v as f64).collect();
                let expected = reference(norm, &wide, &weight, &bias, 1e-5);
                for (a, b) in out.iter().zip(&expected) {
                    assert!((*a as f64 - b).abs() < 1e-4, "{norm:?} {rows}x{width}: {a} {b}");
                }
                let mut dx = vec![f32::NAN; x.len()];
                let (mut dw, mut db) = (vec![f32::NAN; width], vec![f32::NAN; width]);
                backward(norm, &x, &weight, &statistics, &dy, &mut dx, &mut dw, &mut db);
                if width == 1 && norm == Norm::Layer {
                    continue; // the deviation is zero: the slope is a difference of rounding errors
                }
                for probe in 0..x.len().min(20) {
                    let h = 1e-5;
                    let loss = |delta: f64| {
                        let mut moved = wide.clone();
                        moved[probe] += delta;
                        let y = reference(norm, &moved, &weight, &bias, 1e-5);
                        y.iter().zip(&dy).map(|(y, &g)| y * g as f64).sum::<f64>()
                    };
                    let slope = (loss(h) - loss(-h)) / (2.0 * h);
                    assert!(
                        (dx[probe] as f64 - slope).abs() < 2e-3 * (1.0 + slope.abs()),
                        "{norm:?} {rows}x{width} {probe}: {} {slope}",
                        dx[probe]
                    );
                }
                let bias_gradient: f64 = (0..rows).map(|r| dy[r * width] as f64).sum();
                assert!((db[0] as f64 - bias_gradient).abs() < 1e-4);
                let weight_gradient: f64 = (0..rows)
                    .map(|r| dy[r * width] as f64 * (expected[r * width] - bias[0] as f64) / weight[0] as f64)
                    .sum();
                assert!((dw[0] as f64 - weight_gradient).abs() < 1e-3 * (1.0 + weight_gradient.abs()));
            }
        }
    }
}
