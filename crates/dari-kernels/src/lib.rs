//! The hot loops: plain slices in and out, SIMD picked at run time.
//!
//! No tensor library and no model may be named here. Every kernel has a plain scalar reference
//! beside it in its tests. All kernels are row-major and contiguous unless a [`Matrix`] says
//! otherwise, check their slices' lengths, and panic only when the caller broke that contract:
//! whoever reads untrusted sizes checks them floors above.
//!
//! The row kernels (norms, activations, softmax) give the same bits at every SIMD level: they sum
//! in a fixed number of lanes and never contract a multiplication with an addition.

pub mod activation;
pub mod adamw;
#[cfg(target_arch = "x86_64")]
mod amx;
pub mod attention;
pub mod batch_norm;
pub mod conv;
pub mod cross_entropy;
pub mod gemm;
pub mod level;
pub mod memory;
pub mod norm;
pub mod patch;
pub mod resample;
pub mod rotary;
pub mod scan;
pub mod team;

mod math;

pub use activation::Activation;
pub use gemm::Matrix;

/// `total += other`.
pub fn add(total: &mut [f32], other: &[f32]) {
    in_pieces(total, other, gemm::add);
}

/// `x *= other`.
pub fn multiply(x: &mut [f32], other: &[f32]) {
    in_pieces(x, other, gemm::multiply);
}

fn in_pieces(x: &mut [f32], other: &[f32], operation: impl Fn(&mut [f32], &[f32]) + Sync) {
    const PIECE: usize = 1 << 15;
    assert_eq!(x.len(), other.len());
    team::chunks(x, PIECE, |index, part| operation(part, &other[index * PIECE..][..part.len()]));
}
