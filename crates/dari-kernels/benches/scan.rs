//! Exact search: the ten nearest of random unit rows, by their codes, held in memory.
//!
//!     cargo bench -p dari-kernels --bench scan
//!
//! A million rows take 2.6 GB. The counter counts rows.

use dari_kernels::scan::{Codes, Piece, best, quantise};
use divan::Bencher;
use divan::counter::ItemsCount;

fn main() {
    divan::main();
}

/// Numbers in a row.
const DIM: usize = 512;
const NEAREST: usize = 10;

/// Sums of twelve uniform numbers, by splitmix64.
fn normal(count: usize, mut state: u64) -> Vec<f32> {
    let mut next = || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let x = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ (x >> 31)
    };
    let mut one =
        || (0..4).map(|part| ((next() >> (16 * part)) & 0xFFFF) as f32 / 65536.0).sum::<f32>() - 2.0;
    (0..count).map(|_| one() + one() + one()).collect()
}

fn unit(rows: &mut [f32]) {
    for row in rows.chunks_mut(DIM) {
        let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt();
        row.iter_mut().for_each(|x| *x /= norm);
    }
}

#[divan::bench(args = [10_000, 100_000, 1_000_000], sample_count = 30)]
fn ten_nearest(bencher: Bencher, rows: usize) {
    let mut vectors = normal(rows * DIM, 1);
    unit(&mut vectors);
    let bytes: Vec<u8> = vectors.iter().flat_map(|x| x.to_le_bytes()).collect();
    drop(vectors);
    let (mut codes, mut scales, mut errors) = (vec![0; rows * DIM], vec![0.0; rows], vec![0.0; rows]);
    quantise(&bytes, DIM, &mut codes, &mut scales, &mut errors);
    let codes = Codes { codes: &codes, scales: &scales, errors: &errors, dim: DIM };
    let mut query = normal(DIM, 2);
    unit(&mut query);
    bencher
        .counter(ItemsCount::new(rows))
        .bench_local(|| best(&bytes, &[Piece { first: 0, codes }], &query, NEAREST, &Some));
}
