//! One linear layer (LLaVA 1: Liu et al. 2023).

use candle_core::Tensor;
use dari_nn::Weights;

use super::Bridge;
use crate::Result;

/// `y = W x + b` for each token.
pub struct Linear(dari_nn::Linear);

impl Linear {
    /// Reads `weight` and, with `bias`, `bias`.
    pub fn load(weights: &Weights, from: usize, to: usize, bias: bool) -> Result<Linear> {
        Ok(Linear(dari_nn::Linear::load(weights, from, to, bias)?))
    }
}

impl Bridge for Linear {
    fn queries(&self, tokens: usize) -> usize {
        tokens
    }

    fn forward(&self, tokens: &Tensor) -> Result<Tensor> {
        Ok(self.0.forward(tokens)?)
    }
}
