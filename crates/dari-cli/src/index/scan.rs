//! Exact vector search of a list of slots: every dot product is computed, the best are kept.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use dari_kernels::scan::dot;
use rayon::prelude::*;

/// Rows that one task scans: at 256 numbers a row, 4 MiB of vectors.
const CHUNK: usize = 4096;
/// Bytes of one number.
const NUMBER: usize = size_of::<f32>();

/// One row found: its place in the list that was scanned, and its score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Found {
    /// Place in the list of slots given to [`best`].
    pub row: usize,
    /// Dot product with the query.
    pub score: f32,
}

impl Eq for Found {}

impl Ord for Found {
    /// Better first: the higher score, at equal scores the earlier row. Scores are never NaN here.
    fn cmp(&self, other: &Found) -> Ordering {
        other.score.partial_cmp(&self.score).unwrap_or(Ordering::Equal).then(self.row.cmp(&other.row))
    }
}

impl PartialOrd for Found {
    fn partial_cmp(&self, other: &Found) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The `k` slots nearest to `query`, best first; ties go to the row that stands earlier in `slots`.
///
/// `vectors` holds `[slots, dim]` little-endian f32. Rows whose score is not a number, and slots
/// that lie beyond `vectors`, are left out.
pub(super) fn best(vectors: &[u8], slots: &[usize], query: &[f32], k: usize) -> Vec<Found> {
    let k = k.min(slots.len());
    let stride = query.len().saturating_mul(NUMBER);
    if k == 0 || stride == 0 {
        return Vec::new();
    }
    let parts: Vec<Vec<Found>> = slots
        .par_chunks(CHUNK)
        .enumerate()
        .map(|(part, slots)| {
            let first = part * CHUNK;
            // The heap's greatest element is the worst kept so far.
            let mut kept: BinaryHeap<Found> = BinaryHeap::with_capacity(k.min(slots.len()) + 1);
            for (offset, &slot) in slots.iter().enumerate() {
                let vector =
                    slot.checked_mul(stride).and_then(|start| vectors.get(start..start.checked_add(stride)?));
                let Some(vector) = vector else { continue };
                let score = dot(vector, query);
                if score.is_nan() {
                    continue;
                }
                let found = Found { row: first + offset, score };
                if kept.len() < k {
                    kept.push(found);
                } else if let Some(mut worst) = kept.peek_mut()
                    && found < *worst
                {
                    *worst = found;
                }
            }
            kept.into_vec()
        })
        .collect();
    let mut all: Vec<Found> = parts.into_iter().flatten().collect();
    all.sort_unstable();
    all.truncate(k);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers in [-1, 1) from a seed.
    fn numbers(seed: u64, count: usize) -> Vec<f32> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        (0..count)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
            })
            .collect()
    }

    fn bytes(numbers: &[f32]) -> Vec<u8> {
        numbers.iter().flat_map(|n| n.to_le_bytes()).collect()
    }

    #[test]
    fn finds_what_brute_force_in_f64_finds() {
        for (count, dim, k) in [(1, 1, 1), (37, 3, 5), (9000, 20, 10), (5000, 64, 7), (300, 257, 300)] {
            let table = numbers(count as u64, count * dim);
            let query = numbers(99, dim);
            let slots: Vec<usize> = (0..count).rev().collect();
            let found = best(&bytes(&table), &slots, &query, k);
            let exact = |slot: usize| -> f64 {
                table[slot * dim..(slot + 1) * dim]
                    .iter()
                    .zip(&query)
                    .map(|(&a, &b)| f64::from(a) * f64::from(b))
                    .sum()
            };
            let mut expected: Vec<(usize, f64)> =
                slots.iter().enumerate().map(|(row, &slot)| (row, exact(slot))).collect();
            expected.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            assert_eq!(found.len(), k);
            for (found, expected) in found.iter().zip(&expected) {
                assert!((f64::from(found.score) - expected.1).abs() < 1e-5);
                // A different row may stand here only where f32 cannot tell the two apart.
                assert!((exact(slots[found.row]) - expected.1).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn ties_go_to_the_earlier_row_across_chunks() {
        let table = bytes(&[1.0, 0.0, 0.5, 0.0]);
        let slots = vec![1; CHUNK * 2].into_iter().chain([0, 0, 0]).collect::<Vec<_>>();
        let rows: Vec<usize> = best(&table, &slots, &[1.0, 0.0], 5).iter().map(|found| found.row).collect();
        assert_eq!(rows, [CHUNK * 2, CHUNK * 2 + 1, CHUNK * 2 + 2, 0, 1]);
        let signs = bytes(&[0.0, -0.0]);
        let rows: Vec<usize> = best(&signs, &[1, 0], &[1.0], 2).iter().map(|found| found.row).collect();
        assert_eq!(rows, [0, 1], "-0 and 0 are the same score");
    }

    #[test]
    fn leaves_out_what_is_no_number_and_what_is_not_there() {
        let table = bytes(&[f32::NAN, 0.25, f32::INFINITY, -1.0]);
        let rows: Vec<usize> =
            best(&table, &[0, 1, 2, 3, 4, usize::MAX], &[1.0], 10).iter().map(|found| found.row).collect();
        assert_eq!(rows, [2, 1, 3]);
        assert!(best(&table, &[0, 1], &[1.0], 0).is_empty());
        assert!(best(&table, &[], &[1.0], 3).is_empty());
        assert!(best(&table, &[0], &[], 3).is_empty());
    }

    #[test]
    fn a_score_does_not_depend_on_its_company() {
        let dim = 77;
        let table = bytes(&numbers(5, dim * 6000));
        let query = numbers(6, dim);
        let slots: Vec<usize> = (0..6000).collect();
        for found in best(&table, &slots, &query, 50) {
            let alone = best(&table, &[found.row], &query, 1);
            assert_eq!(alone[0].score.to_bits(), found.score.to_bits());
        }
    }
}
