//! One linear layer (LLaVA: Liu et al. 2023).

use candle_core::Tensor;
use dari_nn::{Linear, Weights};

use super::Bridge;
use crate::Result;

/// Each token by itself, `[width of the tower]` to `[width of the language model]`.
pub struct Projection(Linear);

impl Projection {
    /// Reads `linear`.
    pub fn load(weights: &Weights, from: usize, to: usize) -> Result<Projection> {
        Ok(Projection(Linear::load(&weights.pp("linear"), from, to, true)?))
    }
}

impl Bridge for Projection {
    fn queries(&self, tokens: usize) -> usize {
        tokens
    }

    fn forward(&self, tokens: &Tensor) -> Result<Tensor> {
        Ok(self.0.forward(tokens)?)
    }
}
