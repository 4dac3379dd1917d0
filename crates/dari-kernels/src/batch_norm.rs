//! Batch norm over columns of `[rows, width]` (Ioffe and Szegedy 2015), with its backward pass.
//!
//! Means and variances are added up in double precision, in parts of a fixed number of rows: they depend
//! on no number of threads, and a channel far from zero loses nothing.

use rayon::prelude::*;

use crate::team;

/// Rows of a part.
const ROWS: usize = 256;

/// Sums over the rows of what `add` adds for each.
fn sums(rows: usize, width: usize, add: impl Fn(usize, &mut [f64]) + Sync) -> Vec<f64> {
    let parts: Vec<Vec<f64>> = (0..rows.div_ceil(ROWS))
        .into_par_iter()
        .map(|part| {
            let mut sums = vec![0.0; width];
            (part * ROWS..rows.min((part + 1) * ROWS)).for_each(|row| add(row, &mut sums));
            sums
        })
        .collect();
    let mut all = vec![0.0; width];
    for part in &parts {
        all.iter_mut().zip(part).for_each(|(all, part)| *all += part);
    }
    all
}

/// The mean and the variance, by the number of rows, of each column.
///
/// # Panics
/// Where `x` is not whole rows.
pub fn moments(x: &[f32], width: usize) -> (Vec<f64>, Vec<f64>) {
    let rows = x.len() / width.max(1);
    assert_eq!(x.len(), rows * width);
    let share = 1.0 / rows.max(1) as f64;
    let row = |row: usize| &x[row * width..][..width];
    let mut means = sums(rows, width, |at, sums| {
        sums.iter_mut().zip(row(at)).for_each(|(sum, x)| *sum += f64::from(*x));
    });
    means.iter_mut().for_each(|mean| *mean *= share);
    let mut variances = sums(rows, width, |at, sums| {
        for ((sum, x), mean) in sums.iter_mut().zip(row(at)).zip(&means) {
            *sum += (f64::from(*x) - mean).powi(2);
        }
    });
    variances.iter_mut().for_each(|variance| *variance *= share);
    (means, variances)
}

/// `(x - mean) * scale * weight + bias`, with `scale` one over the deviation of each column.
///
/// # Panics
/// Where the lengths do not belong together.
pub fn forward(x: &[f32], means: &[f64], scales: &[f64], weight: &[f32], bias: &[f32]) -> Vec<f32> {
    let width = weight.len();
    assert!(bias.len() == width && means.len() == width && scales.len() == width);
    // One factor and one term a column.
    let factors = weight.iter().zip(scales).map(|(weight, scale)| (f64::from(*weight) * scale) as f32);
    let factors: Vec<f32> = factors.collect();
    let means: Vec<f32> = means.iter().map(|mean| *mean as f32).collect();
    let mut out = vec![0.0; x.len()];
    team::chunks(&mut out, (ROWS * width).max(1), |part, out| {
        let x = &x[part * ROWS * width..][..out.len()];
        for (out, x) in out.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
            for (at, (out, x)) in out.iter_mut().zip(x).enumerate() {
                *out = (x - means[at]) * factors[at] + bias[at];
            }
        }
    });
    out
}

/// Gradients of `x`, `weight` and `bias`, where the moments are those of `x`.
///
/// # Panics
/// Where the lengths do not belong together.
pub fn backward(
    x: &[f32],
    means: &[f64],
    scales: &[f64],
    weight: &[f32],
    dy: &[f32],
) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    let (width, rows) = (weight.len(), x.len() / weight.len().max(1));
    assert!(dy.len() == x.len() && means.len() == width && scales.len() == width);
    let row = |all: &[f32], row: usize| row * width..(row * width + width).min(all.len());
    let dbias = sums(rows, width, |at, sums| {
        sums.iter_mut().zip(&dy[row(dy, at)]).for_each(|(sum, dy)| *sum += f64::from(*dy));
    });
    let dweight = sums(rows, width, |at, sums| {
        let (x, dy) = (&x[row(x, at)], &dy[row(dy, at)]);
        for column in 0..width {
            sums[column] += f64::from(dy[column]) * (f64::from(x[column]) - means[column]) * scales[column];
        }
    });
    let share = 1.0 / rows.max(1) as f64;
    let mut dx = vec![0.0; x.len()];
    team::chunks(&mut dx, (ROWS * width).max(1), |part, dx| {
        let start = part * ROWS * width;
        let (x, dy) = (&x[start..][..dx.len()], &dy[start..][..dx.len()]);
        for (at, dx) in dx.iter_mut().enumerate() {
            let column = at % width;
            let normed = (f64::from(x[at]) - means[column]) * scales[column];
            let slope = f64::from(dy[at]) - share * (dbias[column] + normed * dweight[column]);
            *dx = (f64::from(weight[column]) * scales[column] * slope) as f32;
        }
    });
    let narrow = |x: Vec<f64>| x.into_iter().map(|x| x as f32).collect();
    (dx, narrow(dweight), narrow(dbias))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slopes_are_those_of_differences() {
        let (rows, width) = (600, 3);
        let numbers = |seed: usize, count: usize| -> Vec<f32> {
            (0..count).map(|i| ((i * 7919 + seed * 104_729) % 2003) as f32 / 1001.0 - 1.0).collect()
        };
        let mut x = numbers(1, rows * width);
        // A column far from zero.
        x.iter_mut().skip(1).step_by(width).for_each(|x| *x += 100.0);
        let (weight, bias, dy) = (numbers(2, width), numbers(3, width), numbers(4, rows * width));
        let scales = |variances: &[f64]| variances.iter().map(|v| (v + 1e-5).powf(-0.5)).collect::<Vec<_>>();
        let value = |x: &[f32]| {
            let (means, variances) = moments(x, width);
            let y = forward(x, &means, &scales(&variances), &weight, &bias);
            y.iter().zip(&dy).map(|(y, dy)| f64::from(*y) * f64::from(*dy)).sum::<f64>()
        };
        let (means, variances) = moments(&x, width);
        assert!((means[1] - means[0] - 100.0).abs() < 0.1);
        let (dx, dweight, dbias) = backward(&x, &means, &scales(&variances), &weight, &dy);
        for at in [0, 1, 2, 900, 1799] {
            let (mut up, mut down) = (x.clone(), x.clone());
            up[at] += 0.25;
            down[at] -= 0.25;
            let slope = (value(&up) - value(&down)) / 0.5;
            assert!((slope - f64::from(dx[at])).abs() < 2e-3, "{at}: {} {slope}", dx[at]);
        }
        let total: f32 = dy.iter().step_by(width).sum();
        assert!((dbias[0] - total).abs() < 1e-3);
        assert!(dweight.iter().all(|x| x.is_finite()));
    }
}
