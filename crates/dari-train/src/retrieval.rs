//! Retrieval as the field measures it.

use rayon::prelude::*;
use serde::Serialize;

use crate::classification::{before, dot};

/// How many candidates come before the best relevant one of each query, both `[n][dim]`;
/// `relevant(query, candidate)` says which are. Ties go to the lower index. `None` where none is.
pub fn ranks(
    queries: &[Vec<f32>],
    candidates: &[Vec<f32>],
    relevant: impl Fn(usize, usize) -> bool + Sync,
) -> Vec<Option<usize>> {
    let rank = |(query, vector): (usize, &Vec<f32>)| {
        let own = (0..candidates.len()).filter(|&candidate| relevant(query, candidate));
        let scores: Vec<f64> = candidates.iter().map(|candidate| dot(vector, candidate)).collect();
        // The first of its best: none of its others comes before it.
        let best = own.reduce(|best, at| if scores[at] > scores[best] { at } else { best })?;
        Some(before(&scores, best))
    };
    queries.par_iter().enumerate().map(rank).collect()
}

/// Share of queries with a relevant candidate among their `k` best, by their [`ranks`]. Queries with
/// nothing relevant are left out.
pub fn recall_at(k: usize, ranks: &[Option<usize>]) -> f64 {
    let asked = ranks.iter().flatten();
    asked.clone().filter(|&&rank| rank < k).count() as f64 / asked.count().max(1) as f64
}

/// Shares of queries with something relevant among the best.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Recalls {
    /// Among the first.
    pub at_1: f64,
    /// Among the first five.
    pub at_5: f64,
    /// Among the first ten.
    pub at_10: f64,
}

impl Recalls {
    fn of(ranks: &[Option<usize>]) -> Recalls {
        Recalls { at_1: recall_at(1, ranks), at_5: recall_at(5, ranks), at_10: recall_at(10, ranks) }
    }
}

/// Pictures found by their texts, and texts by their pictures; `owners` has each text's picture. A
/// picture is answered by any of its texts; one without any is not asked.
pub fn both_ways(pictures: &[Vec<f32>], texts: &[Vec<f32>], owners: &[usize]) -> (Recalls, Recalls) {
    let to_pictures = ranks(texts, pictures, |text, picture| owners[text] == picture);
    let to_texts = ranks(pictures, texts, |picture, text| owners[text] == picture);
    (Recalls::of(&to_pictures), Recalls::of(&to_texts))
}

/// What [`recall_at`] gives when candidates are ranked by chance: for a query with `m` of `n`
/// candidates relevant, one minus the share of draws of `k` that miss all `m`.
pub fn chance_at(
    k: usize,
    queries: usize,
    candidates: usize,
    relevant: impl Fn(usize, usize) -> bool,
) -> f64 {
    let (mut total, mut asked) = (0.0, 0usize);
    for query in 0..queries {
        let right = (0..candidates).filter(|&candidate| relevant(query, candidate)).count();
        if right == 0 {
            continue;
        }
        asked += 1;
        let missed: f64 = (0..k.min(candidates))
            .map(|drawn| (candidates - right).saturating_sub(drawn) as f64 / (candidates - drawn) as f64)
            .product();
        total += 1.0 - missed;
    }
    total / asked.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recall_counts_ranks() {
        // The candidates' own axes: a query's numbers are its scores.
        let axes = [vec![1.0, 0.0, 0.0], vec![0.0, 1.0, 0.0], vec![0.0, 0.0, 1.0]];
        let table = [vec![0.9, 0.1, 0.5], vec![0.9, 0.1, 0.5], vec![0.5, 0.5, 0.5]];
        let own = |q: usize, c: usize| q == c;
        let recall = |k, relevant: &(dyn Fn(usize, usize) -> bool + Sync)| {
            recall_at(k, &ranks(&table, &axes, relevant))
        };
        assert!((recall(1, &own) - 1.0 / 3.0).abs() < 1e-12);
        assert!((recall(2, &own) - 1.0 / 3.0).abs() < 1e-12);
        assert!((recall(3, &own) - 1.0).abs() < 1e-12);
        assert!((recall(1, &|q, c| q == c || c == 0) - 1.0).abs() < 1e-12);
        // A query without anything relevant is not asked.
        assert!((recall(1, &|q, c| q == c && q != 1) - 0.5).abs() < 1e-12);
        assert!((chance_at(1, 3, 3, own) - 1.0 / 3.0).abs() < 1e-12);
        assert!((chance_at(2, 1, 4, |_, c| c < 2) - (1.0 - 2.0 / 4.0 * 1.0 / 3.0)).abs() < 1e-12);
    }
}
