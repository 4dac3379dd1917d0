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
    const CHUNK: usize = 1 << 15;
    assert_eq!(total.len(), other.len());
    team::chunks(total, CHUNK, |index, part| gemm::add(part, &other[index * CHUNK..][..part.len()]));
}

/// `x *= other`.
pub fn multiply(x: &mut [f32], other: &[f32]) {
    const CHUNK: usize = 1 << 15;
    assert_eq!(x.len(), other.len());
    team::chunks(x, CHUNK, |index, part| gemm::multiply(part, &other[index * CHUNK..][..part.len()]));
}
