//! Two linear layers with an activation between (LLaVA 1.5: Liu et al. 2023).

use candle_core::Tensor;
use dari_nn::{Activation, Linear, Weights};

use super::Bridge;
use crate::Result;

/// `linear_2(activation(linear_1(x)))` for each token.
pub struct Mlp {
    first: Linear,
    second: Linear,
    activation: Activation,
}

impl Mlp {
    /// Reads `linear_1` and `linear_2`.
    pub fn load(
        weights: &Weights,
        from: usize,
        to: usize,
        activation: Activation,
        bias: bool,
    ) -> Result<Mlp> {
        Ok(Mlp {
            first: Linear::load(&weights.pp("linear_1"), from, to, bias)?,
            second: Linear::load(&weights.pp("linear_2"), to, to, bias)?,
            activation,
        })
    }
}

impl Bridge for Mlp {
    fn queries(&self, tokens: usize) -> usize {
        tokens
    }

    fn forward(&self, tokens: &Tensor) -> Result<Tensor> {
        Ok(self.second.forward(&self.first.activated(tokens, self.activation)?)?)
    }
}
