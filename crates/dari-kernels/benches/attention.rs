//! Attention, forward.
//!
//!     cargo bench -p dari-kernels --bench attention
//!
//! Counted are the multiply-adds of both products, seen or not.

use dari_kernels::attention::{Mask, Sizes, forward};
use dari_kernels::gemm::Matrix;
use divan::Bencher;
use divan::counter::ItemsCount;

fn main() {
    divan::main();
}

/// Sequences, tokens, heads, heads of keys and values, and whether nothing ahead is seen.
type Case = (usize, usize, usize, usize, bool);

/// CLIP's texts and pictures, a ViT of 197 tokens, SmolVLM's tower, and SmolLM2's prompt.
const CASES: [Case; 5] = [
    (32, 77, 8, 8, true),
    (32, 50, 12, 12, false),
    (8, 197, 12, 12, false),
    (1, 1024, 12, 12, false),
    (1, 1112, 9, 3, true),
];

#[divan::bench(args = CASES)]
fn tokens(bencher: Bencher, (batch, tokens, heads, kv_heads, causal): Case) {
    const WIDTH: usize = 64;
    let sizes = Sizes { batch, queries: tokens, keys: tokens, heads, kv_heads, width: WIDTH };
    // As a joined projection leaves them.
    let row = (heads + 2 * kv_heads) * WIDTH;
    let x: Vec<f32> = (0..batch * tokens * row).map(|i| (i * 7919 % 1013) as f32 / 500.0 - 1.0).collect();
    let all = Matrix::new(&x, batch * tokens, row);
    let (q, kv) = (all.columns(0, heads * WIDTH), kv_heads * WIDTH);
    let (k, v) = (all.columns(heads * WIDTH, kv), all.columns(heads * WIDTH + kv, kv));
    let mut out = vec![0.0; batch * tokens * heads * WIDTH];
    let mask = Mask { causal, ..Mask::default() };
    bencher.counter(ItemsCount::new(2 * batch * heads * tokens * tokens * WIDTH)).bench_local(|| {
        forward(sizes, mask, 0.125, q, k, v, &mut out, None);
    });
}
