//! From an encoder's tokens to what a language model understands.

pub mod mlp;
pub mod pixel_shuffle;

use candle_core::Tensor;

use crate::Result;

/// A bridge: `[batch, tokens, width]` in, `[batch, queries, width of the language model]` out.
pub trait Bridge: Send + Sync {
    /// How many queries come of so many tokens.
    fn queries(&self, tokens: usize) -> usize;
    /// From tokens to the language model's embeddings.
    fn forward(&self, tokens: &Tensor) -> Result<Tensor>;
}
