//! A linear probe: how much of what is asked can be read off features by one linear layer.

use rayon::prelude::*;
use serde::Serialize;

use crate::classification::{Accuracy, of_ranks};
use crate::{Error, Result};

/// Multinomial logistic regression, fitted to the least of
/// `mean cross entropy + lambda / 2 * |W|^2`; the bias is not held back.
#[derive(Clone, Debug)]
pub struct Probe {
    /// `[classes, inputs + 1]`, the last of each row the bias.
    weights: Vec<f64>,
    inputs: usize,
    /// Which classes there were to learn from; the others are never answered.
    seen: Vec<bool>,
    /// The training features' means and deviations, where they are brought to 0 and 1.
    scale: Option<(Vec<f64>, Vec<f64>)>,
    /// What the fit came to.
    pub fit: Fit,
}

/// How a fit ended.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Fit {
    /// The least value found.
    pub objective: f64,
    /// Steps taken.
    pub steps: usize,
    /// The gradient's norm at the end.
    pub gradient_norm: f64,
}

/// Features of one set and their classes.
#[derive(Clone, Copy, Debug)]
pub struct Examples<'a> {
    /// `[n][inputs]`.
    pub features: &'a [Vec<f32>],
    /// `[n]`, from 0.
    pub labels: &'a [usize],
}

/// Rows that one task adds up; the sums do not depend on the number of threads.
const ROWS: usize = 64;
/// Steps that L-BFGS remembers.
const MEMORY: usize = 20;
const MOST_STEPS: usize = 5000;

impl Probe {
    /// Fits by L-BFGS (Nocedal 1980) in double precision, until the gradient's norm is below 1e-9 or
    /// nothing gets better any more.
    pub fn fit(examples: Examples<'_>, classes: usize, lambda: f64, standardise: bool) -> Result<Probe> {
        let Examples { features, labels } = examples;
        let inputs = features.first().map_or(0, Vec::len);
        let problem = if features.is_empty() || features.len() != labels.len() {
            Some(format!(
                "{} features with {} labels, expected as many, at least one",
                features.len(),
                labels.len()
            ))
        } else if features.iter().any(|row| row.len() != inputs)
            || !features.iter().flatten().all(|x| x.is_finite())
        {
            Some("features of unequal length, or with numbers that are none".to_owned())
        } else if labels.iter().any(|&label| label >= classes) {
            Some(format!("a label beyond the {classes} classes"))
        } else if !(lambda >= 0.0 && lambda.is_finite()) {
            Some(format!("lambda is {lambda}, expected a number of 0 or more"))
        } else {
            None
        };
        if let Some(problem) = problem {
            return Err(Error::Recipe { origin: "linear probe".into(), problem });
        }
        let scale = standardise.then(|| moments(features, inputs));
        let start = vec![0.0; classes * (inputs + 1)];
        let mut seen = vec![false; classes];
        labels.iter().for_each(|&label| seen[label] = true);
        let fit = Fit { objective: 0.0, steps: 0, gradient_norm: 0.0 };
        let mut probe = Probe { weights: start, inputs, seen, scale, fit };
        let rows: Vec<Vec<f64>> = features.par_iter().map(|row| probe.scaled(row)).collect();
        probe.descend(&rows, labels, lambda);
        Ok(probe)
    }

    fn scaled(&self, row: &[f32]) -> Vec<f64> {
        let plain = row.iter().map(|&x| f64::from(x));
        match &self.scale {
            Some((means, deviations)) => plain
                .zip(means.iter().zip(deviations))
                .map(|(x, (mean, deviation))| (x - mean) / deviation)
                .collect(),
            None => plain.collect(),
        }
    }

    /// How a picture's classes score.
    fn logits(&self, weights: &[f64], row: &[f64]) -> Vec<f64> {
        let score = |weights: &[f64]| {
            let (last, weights) = weights.split_last().unwrap_or((&0.0, &[]));
            last + weights.iter().zip(row).map(|(w, x)| w * x).sum::<f64>()
        };
        let all = weights.chunks_exact(self.inputs + 1).zip(&self.seen);
        all.map(|(weights, seen)| if *seen { score(weights) } else { f64::NEG_INFINITY }).collect()
    }

    /// The objective and its gradient.
    fn value(&self, weights: &[f64], rows: &[Vec<f64>], labels: &[usize], lambda: f64) -> (f64, Vec<f64>) {
        let width = self.inputs + 1;
        let part = |(rows, labels): (&[Vec<f64>], &[usize])| {
            let (mut loss, mut slopes) = (0.0, vec![0.0; weights.len()]);
            for (row, &label) in rows.iter().zip(labels) {
                let logits = self.logits(weights, row);
                let most = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let total: f64 = logits.iter().map(|logit| (logit - most).exp()).sum();
                loss += most + total.ln() - logits[label];
                for (class, (logit, slopes)) in logits.iter().zip(slopes.chunks_exact_mut(width)).enumerate()
                {
                    let slope = (logit - most).exp() / total - f64::from(u8::from(class == label));
                    let Some((last, slopes)) = slopes.split_last_mut() else { continue };
                    *last += slope;
                    slopes.iter_mut().zip(row).for_each(|(sum, x)| *sum += slope * x);
                }
            }
            (loss, slopes)
        };
        let parts: Vec<(f64, Vec<f64>)> =
            rows.par_chunks(ROWS).zip(labels.par_chunks(ROWS)).map(part).collect();
        let share = 1.0 / rows.len() as f64;
        let (mut loss, mut slopes) = (0.0, vec![0.0; weights.len()]);
        for (part, found) in &parts {
            loss += part * share;
            slopes.iter_mut().zip(found).for_each(|(sum, x)| *sum += x * share);
        }
        for (slopes, weights) in slopes.chunks_exact_mut(width).zip(weights.chunks_exact(width)) {
            for (slope, weight) in slopes.iter_mut().zip(weights).take(self.inputs) {
                loss += lambda / 2.0 * weight * weight;
                *slope += lambda * weight;
            }
        }
        (loss, slopes)
    }

    fn descend(&mut self, rows: &[Vec<f64>], labels: &[usize], lambda: f64) {
        let (mut value, mut slopes) = self.value(&self.weights, rows, labels, lambda);
        let mut known: Vec<(Vec<f64>, Vec<f64>)> = Vec::new();
        let mut steps = 0;
        while steps < MOST_STEPS && norm(&slopes) > 1e-9 {
            let mut direction = quasi_newton(&known, &slopes);
            if product(&direction, &slopes) >= 0.0 {
                known.clear();
                direction = slopes.iter().map(|x| -x).collect();
            }
            let first = if known.is_empty() { 1.0 / norm(&slopes).max(1.0) } else { 1.0 };
            let Some((weights, next, new)) = self.search(&direction, value, &slopes, first, |weights| {
                self.value(weights, rows, labels, lambda)
            }) else {
                break;
            };
            let difference =
                |new: &[f64], old: &[f64]| new.iter().zip(old).map(|(a, b)| a - b).collect::<Vec<_>>();
            let (step, change) = (difference(&weights, &self.weights), difference(&new, &slopes));
            if product(&step, &change) > 0.0 {
                known.push((step, change));
                if known.len() > MEMORY {
                    known.remove(0);
                }
            }
            (self.weights, value, slopes) = (weights, next, new);
            steps += 1;
        }
        self.fit = Fit { objective: value, steps, gradient_norm: norm(&slopes) };
    }

    /// A step along `direction` that fulfils the weak conditions of Wolfe; none where there is none.
    #[allow(clippy::type_complexity)]
    fn search(
        &self,
        direction: &[f64],
        value: f64,
        slopes: &[f64],
        first: f64,
        at: impl Fn(&[f64]) -> (f64, Vec<f64>),
    ) -> Option<(Vec<f64>, f64, Vec<f64>)> {
        let steep = product(direction, slopes);
        let (mut low, mut high, mut length) = (0.0, f64::INFINITY, first);
        let mut best = None;
        for _ in 0..60 {
            let weights: Vec<f64> = self.weights.iter().zip(direction).map(|(w, d)| w + length * d).collect();
            let (next, new) = at(&weights);
            // The last bits of the value are noise.
            let noise = 1e-15 * value.abs().max(1.0);
            if next > value + 1e-4 * length * steep + noise || !next.is_finite() {
                high = length;
            } else if product(&new, direction) < 0.9 * steep {
                low = length;
                best = Some((weights, next, new));
            } else {
                return Some((weights, next, new));
            }
            length = if high.is_finite() { (low + high) / 2.0 } else { length * 2.0 };
            if high - low < 1e-16 {
                break;
            }
        }
        best
    }

    /// How well it answers.
    pub fn accuracy(&self, examples: Examples<'_>) -> Accuracy {
        let rank = |(row, &label): (&Vec<f32>, &usize)| {
            crate::classification::before(&self.logits(&self.weights, &self.scaled(row)), label)
        };
        let ranks: Vec<usize> = examples.features.par_iter().zip(examples.labels).map(rank).collect();
        of_ranks(&ranks, examples.labels, self.seen.len())
    }
}

/// Means and deviations of the columns; 1 for a column without any.
fn moments(features: &[Vec<f32>], inputs: usize) -> (Vec<f64>, Vec<f64>) {
    let share = 1.0 / features.len() as f64;
    let mut means = vec![0.0; inputs];
    for row in features {
        means.iter_mut().zip(row).for_each(|(mean, &x)| *mean += f64::from(x) * share);
    }
    let mut squares = vec![0.0; inputs];
    for row in features {
        let centred = row.iter().zip(&means).map(|(&x, mean)| f64::from(x) - mean);
        squares.iter_mut().zip(centred).for_each(|(square, x)| *square += x * x * share);
    }
    let deviations = squares.iter().map(|square| if *square > 0.0 { square.sqrt() } else { 1.0 });
    (means, deviations.collect())
}

fn product(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

fn norm(x: &[f64]) -> f64 {
    product(x, x).sqrt()
}

/// The two loops of L-BFGS: minus the inverse Hessian, as far as known, times the gradient.
fn quasi_newton(known: &[(Vec<f64>, Vec<f64>)], slopes: &[f64]) -> Vec<f64> {
    let mut direction: Vec<f64> = slopes.iter().map(|x| -x).collect();
    let mut shares = Vec::with_capacity(known.len());
    for (step, change) in known.iter().rev() {
        let share = product(step, &direction) / product(step, change);
        direction.iter_mut().zip(change).for_each(|(d, c)| *d -= share * c);
        shares.push(share);
    }
    if let Some((step, change)) = known.last() {
        let scale = product(step, change) / product(change, change);
        direction.iter_mut().for_each(|d| *d *= scale);
    }
    for ((step, change), share) in known.iter().zip(shares.iter().rev()) {
        let other = product(change, &direction) / product(step, change);
        direction.iter_mut().zip(step).for_each(|(d, s)| *d += (share - other) * s);
    }
    direction
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_least() {
        let features: Vec<Vec<f32>> =
            (0..90).map(|i| vec![(i % 3) as f32, (i * 7 % 11) as f32 / 11.0, 1.0]).collect();
        let labels: Vec<usize> = (0..90).map(|i| if i % 10 == 0 { 0 } else { i % 3 }).collect();
        let examples = Examples { features: &features, labels: &labels };
        for standardise in [false, true] {
            let probe = Probe::fit(examples, 3, 1e-2, standardise).expect("a fit");
            assert!(probe.fit.gradient_norm < 1e-8, "{:?}", probe.fit);
            // A least value: whatever is changed makes it larger.
            let rows: Vec<Vec<f64>> = features.iter().map(|row| probe.scaled(row)).collect();
            for place in 0..probe.weights.len() {
                for by in [-1e-3, 1e-3] {
                    let mut other = probe.weights.clone();
                    other[place] += by;
                    assert!(probe.value(&other, &rows, &labels, 1e-2).0 > probe.fit.objective);
                }
            }
            assert!(probe.accuracy(examples).top_1 > 0.8);
        }
        assert!(Probe::fit(examples, 2, 1e-2, false).is_err());
    }
}
