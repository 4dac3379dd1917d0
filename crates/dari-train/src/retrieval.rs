//! Retrieval as the field measures it.

use rayon::prelude::*;
use serde::Serialize;

use crate::classification::{before, dot};

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
    fn of(ranks: &[usize]) -> Recalls {
        let within = |k| ranks.iter().filter(|&&rank| rank < k).count() as f64 / ranks.len().max(1) as f64;
        Recalls { at_1: within(1), at_5: within(5), at_10: within(10) }
    }
}

/// Pictures found by their texts, and texts by their pictures; `owners` has each text's picture. A
/// picture is answered by any of its texts; one without any is not asked. Ties go to the lower index.
pub fn both_ways(pictures: &[Vec<f32>], texts: &[Vec<f32>], owners: &[usize]) -> (Recalls, Recalls) {
    let scores =
        |one: &[f32], all: &[Vec<f32>]| all.iter().map(|other| dot(one, other)).collect::<Vec<f64>>();
    let of_texts = texts.par_iter().zip(owners).map(|(text, &owner)| before(&scores(text, pictures), owner));
    let to_pictures = Recalls::of(&of_texts.collect::<Vec<_>>());
    let mut own = vec![Vec::new(); pictures.len()];
    for (text, &owner) in owners.iter().enumerate() {
        own[owner].push(text);
    }
    let of_pictures = pictures.par_iter().zip(&own).filter_map(|(picture, own)| {
        let scores = scores(picture, texts);
        // The first of its best: none of its others comes before it.
        let best =
            own.iter().copied().reduce(|best, at| if scores[at] > scores[best] { at } else { best })?;
        Some(before(&scores, best))
    });
    (to_pictures, Recalls::of(&of_pictures.collect::<Vec<_>>()))
}

/// Cosines of every query with every candidate: both `[n][dim]`, unit length.
pub fn similarities(queries: &[Vec<f32>], candidates: &[Vec<f32>]) -> Vec<Vec<f32>> {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>();
    queries.iter().map(|query| candidates.iter().map(|candidate| dot(query, candidate)).collect()).collect()
}

/// Share of queries with a relevant candidate among their `k` best; `relevant(query, candidate)`
/// says which are. Ties go to the lower index. Queries with nothing relevant are left out.
pub fn recall_at(k: usize, similarities: &[Vec<f32>], relevant: impl Fn(usize, usize) -> bool) -> f64 {
    let (mut hits, mut asked) = (0usize, 0usize);
    for (query, row) in similarities.iter().enumerate() {
        // The rank of the best relevant one: how many others come before it.
        let best = (0..row.len())
            .filter(|&c| relevant(query, c))
            .max_by(|&a, &b| row[a].total_cmp(&row[b]).then(b.cmp(&a)));
        let Some(best) = best else { continue };
        asked += 1;
        let before =
            (0..row.len()).filter(|&c| row[c] > row[best] || (row[c] == row[best] && c < best)).count();
        hits += usize::from(before < k);
    }
    hits as f64 / asked.max(1) as f64
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

/// Share of rows whose largest value stands at the row's label; ties go to the lower index.
pub fn top_1(scores: &[Vec<f32>], labels: &[usize]) -> f64 {
    let right = scores.iter().zip(labels).filter(|(row, label)| {
        let best = (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b]).then(b.cmp(&a)));
        best == Some(**label)
    });
    right.count() as f64 / scores.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recall_counts_ranks() {
        let table = vec![vec![0.9, 0.1, 0.5], vec![0.9, 0.1, 0.5], vec![0.5, 0.5, 0.5]];
        let own = |q: usize, c: usize| q == c;
        assert!((recall_at(1, &table, own) - 1.0 / 3.0).abs() < 1e-12);
        assert!((recall_at(2, &table, own) - 1.0 / 3.0).abs() < 1e-12);
        assert!((recall_at(3, &table, own) - 1.0).abs() < 1e-12);
        assert!((recall_at(1, &table, |q, c| q == c || c == 0) - 1.0).abs() < 1e-12);
        assert!((chance_at(1, 3, 3, own) - 1.0 / 3.0).abs() < 1e-12);
        assert!((chance_at(2, 1, 4, |_, c| c < 2) - (1.0 - 2.0 / 4.0 * 1.0 / 3.0)).abs() < 1e-12);
        assert!((top_1(&table, &[0, 0, 2]) - 2.0 / 3.0).abs() < 1e-12);
    }
}
