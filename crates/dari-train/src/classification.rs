//! Zero-shot classification as the field measures it.

use rayon::prelude::*;
use serde::Serialize;

/// How often the right class is among the best.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Accuracy {
    /// Share of pictures whose class comes first.
    pub top_1: f64,
    /// Share whose class is among the first five.
    pub top_5: f64,
    /// The mean over classes that have pictures of their own `top_1`.
    pub mean_per_class: f64,
}

/// The dot product in double precision.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
}

/// How many candidates come before `own`: higher ones, and equal ones of a lower index.
pub(crate) fn before(scores: &[f64], own: usize) -> usize {
    let score = scores[own];
    scores.iter().enumerate().filter(|&(at, &other)| other > score || (other == score && at < own)).count()
}

/// Ranks every class for every picture, both `[n][dim]`; `labels` are the pictures' classes, each one
/// of `classes`. Ties go to the lower index.
pub fn zero_shot(pictures: &[Vec<f32>], classes: &[Vec<f32>], labels: &[usize]) -> Accuracy {
    let rank = |(picture, &label): (&Vec<f32>, &usize)| {
        let scores: Vec<f64> = classes.iter().map(|class| dot(picture, class)).collect();
        before(&scores, label)
    };
    let ranks: Vec<usize> = pictures.par_iter().zip(labels).map(rank).collect();
    of_ranks(&ranks, labels, classes.len())
}

/// The same from how many classes come before the right one of each picture.
pub(crate) fn of_ranks(ranks: &[usize], labels: &[usize], classes: usize) -> Accuracy {
    let share = |within: usize| {
        ranks.iter().filter(|&&rank| rank < within).count() as f64 / ranks.len().max(1) as f64
    };
    let mut of_class = vec![(0usize, 0usize); classes];
    for (&rank, &label) in ranks.iter().zip(labels) {
        of_class[label].0 += usize::from(rank == 0);
        of_class[label].1 += 1;
    }
    let shares: Vec<f64> =
        of_class.iter().filter(|(_, all)| *all > 0).map(|(right, all)| *right as f64 / *all as f64).collect();
    let mean_per_class = shares.iter().sum::<f64>() / shares.len().max(1) as f64;
    Accuracy { top_1: share(1), top_5: share(5), mean_per_class }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_go_to_the_lower_index() {
        let classes = [vec![1.0, 0.0], vec![1.0, 0.0], vec![0.0, 1.0]];
        let pictures = [vec![1.0, 0.0], vec![1.0, 0.0], vec![0.0, 1.0], vec![1.0, 0.0]];
        let found = zero_shot(&pictures, &classes, &[0, 1, 2, 2]);
        assert_eq!(found.top_1, 0.5);
        assert_eq!(found.top_5, 1.0);
        // Class 0 always, class 1 never, class 2 half of the time.
        assert_eq!(found.mean_per_class, 0.5);
    }
}
