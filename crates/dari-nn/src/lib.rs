//! Layers over candle tensors, each with its gradient; one definition serves training and inference.
//!
//! On a CPU every hot operation is a kernel of `dari-kernels` wrapped as a candle operation with a
//! backward pass; on other devices the same layer is composed of candle's own operations. Weights
//! come by the checkpoint's own tensor names through [`Weights`]. No model, no file format and no
//! training loop may live here.

pub mod activation;
pub mod attention;
pub mod block;
pub mod cache;
mod chain;
pub mod conv;
pub mod embedding;
pub mod gradients;
pub mod linear;
pub mod loss;
pub mod mlp;
pub mod norm;
pub mod patch;
pub mod pool;
pub mod random;
pub mod rotary;
pub mod segment;
pub mod weight;
pub mod weights;

mod error;
mod ops;

pub use attention::{Attention, Mask};
pub use block::Block;
pub use cache::Cache;
pub use conv::ConvNorm;
pub use dari_kernels::Activation;
pub use dari_kernels::gemm::Products;
pub use error::{Error, Result};
pub use gradients::Gradients;
pub use linear::Linear;
pub use mlp::Mlp;
pub use norm::Norm;
pub use ops::without_kernels;
pub use weights::{Adapters, Init, Precision, Training, Weights};

/// Whether this processor has instructions for products of bf16 numbers.
pub fn has_bf16_products() -> bool {
    dari_kernels::level::Level::current().has_bf16_products()
}
