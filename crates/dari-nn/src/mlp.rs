//! The two-layer perceptron of a transformer block.

use candle_core::Tensor;
use dari_kernels::Activation;

use crate::Result;
use crate::chain::Step;
use crate::linear::Linear;
use crate::weights::Weights;

/// What the two layers are called.
#[derive(Clone, Copy, Debug)]
pub struct Names {
    /// The layer that widens.
    pub up: &'static str,
    /// The layer that narrows.
    pub down: &'static str,
}

/// CLIP's and SigLIP's names.
pub const FC: Names = Names { up: "fc1", down: "fc2" };

/// `down(activation(up(x)))`.
#[derive(Clone, Debug)]
pub struct Mlp {
    up: Linear,
    down: Linear,
    activation: Activation,
}

impl Mlp {
    /// Reads both layers with their biases: `width` to `inner` and back.
    pub fn load(
        weights: &Weights,
        names: &Names,
        width: usize,
        inner: usize,
        activation: Activation,
    ) -> Result<Mlp> {
        Ok(Mlp {
            up: Linear::load(&weights.pp(names.up), width, inner, true)?,
            down: Linear::load(&weights.pp(names.down), inner, width, true)?,
            activation,
        })
    }

    /// `[.., width]` to the same.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.down.forward(&self.up.activated(x, self.activation)?)
    }

    /// The steps for one forward and one backward pass; `None` for packed weights.
    pub(crate) fn steps(&self) -> Option<[Step; 2]> {
        Some([Step::Linear(self.up.trained(Some(self.activation))?), Step::Linear(self.down.trained(None)?)])
    }

    /// `residual + forward(x)`.
    pub fn added(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        self.down.added(&self.up.activated(x, self.activation)?, residual)
    }
}
