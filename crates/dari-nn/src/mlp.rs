//! The perceptron of a transformer block, plain or gated.

use candle_core::{CpuStorage, CustomOp2, Layout, Result as CandleResult, Shape, Tensor};
use dari_kernels::Activation;

use crate::chain::Step;
use crate::linear::Linear;
use crate::weights::Weights;
use crate::{Result, activation, ops};

/// What the two layers are called.
#[derive(Clone, Copy, Debug)]
pub struct Names {
    /// The layer that widens.
    pub up: &'static str,
    /// The layer that narrows.
    pub down: &'static str,
    /// The layer whose activation multiplies what `up` gives, where there is one (SwiGLU: Shazeer 2020).
    pub gate: Option<&'static str>,
}

/// CLIP's and SigLIP's names.
pub const FC: Names = Names { up: "fc1", down: "fc2", gate: None };

/// `down(activation(up(x)))`, or with a gate `down(activation(gate(x)) * up(x))`.
#[derive(Clone, Debug)]
pub struct Mlp {
    gate: Option<Linear>,
    up: Linear,
    down: Linear,
    activation: Activation,
}

impl Mlp {
    /// Reads the layers: `width` to `inner` and back.
    pub fn load(
        weights: &Weights,
        names: &Names,
        width: usize,
        inner: usize,
        activation: Activation,
        bias: bool,
    ) -> Result<Mlp> {
        let gate = names.gate.map(|gate| Linear::load(&weights.pp(gate), width, inner, bias));
        Ok(Mlp {
            gate: gate.transpose()?,
            up: Linear::load(&weights.pp(names.up), width, inner, bias)?,
            down: Linear::load(&weights.pp(names.down), inner, width, bias)?,
            activation,
        })
    }

    /// What goes into the layer that narrows.
    fn inner(&self, x: &Tensor) -> Result<Tensor> {
        match &self.gate {
            Some(gate) => gated(self.activation, &gate.forward(x)?, &self.up.forward(x)?),
            None => self.up.activated(x, self.activation),
        }
    }

    /// `[.., width]` to the same.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.down.forward(&self.inner(x)?)
    }

    /// The steps for one forward and one backward pass; `None` for packed weights and with a gate.
    pub(crate) fn steps(&self) -> Option<[Step; 2]> {
        if self.gate.is_some() {
            return None;
        }
        Some([Step::Linear(self.up.trained(Some(self.activation))?), Step::Linear(self.down.trained(None)?)])
    }

    /// `residual + forward(x)`.
    pub fn added(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        self.down.added(&self.inner(x)?, residual)
    }
}

/// `activation(gate) * up`, of one shape.
fn gated(by: Activation, gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    if ops::by_kernel(gate) {
        return Ok(gate.contiguous()?.apply_op2(&up.contiguous()?, Gated(by))?);
    }
    Ok((activation::apply(by, gate)? * up)?)
}

struct Gated(Activation);

impl CustomOp2 for Gated {
    fn name(&self) -> &'static str {
        "gate"
    }

    fn cpu_fwd(
        &self,
        gate: &CpuStorage,
        gl: &Layout,
        up: &CpuStorage,
        ul: &Layout,
    ) -> CandleResult<(CpuStorage, Shape)> {
        let mut out = self.0.of(ops::view(gate, gl)?);
        dari_kernels::multiply(&mut out, ops::view(up, ul)?);
        Ok((CpuStorage::F32(out), gl.shape().clone()))
    }

    fn bwd(
        &self,
        gate: &Tensor,
        up: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> CandleResult<(Option<Tensor>, Option<Tensor>)> {
        let dy = dy.contiguous()?;
        let (held_gate, held_up, dy) =
            (ops::hold::<f32>(gate)?, ops::hold::<f32>(up)?, ops::hold::<f32>(&dy)?);
        let mut through = dy.to_vec();
        dari_kernels::multiply(&mut through, &held_up);
        let dgate = self.0.slopes(&held_gate, &through);
        let mut dup = self.0.of(&held_gate);
        dari_kernels::multiply(&mut dup, &dy);
        Ok((Some(ops::tensor(dgate, gate)?), Some(ops::tensor(dup, up)?)))
    }
}
