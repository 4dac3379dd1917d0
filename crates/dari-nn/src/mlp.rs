//! The perceptron of a transformer block, plain or gated.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, D, Layout, Result as CandleResult, Shape, Tensor};
use dari_kernels::{Activation, Matrix};

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
    up: Up,
    down: Linear,
    activation: Activation,
}

/// What widens.
#[derive(Clone, Debug)]
enum Up {
    Plain(Linear),
    Gated {
        gate: Linear,
        up: Linear,
    },
    /// Gate and values, as many of either, side by side in one product.
    Joined(Linear, usize),
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
        let load = |name: &str| Linear::load(&weights.pp(name), width, inner, bias);
        let up = match names.gate {
            None => Up::Plain(load(names.up)?),
            Some(gate) => {
                let each = [(gate, inner), (names.up, inner)];
                match Linear::load_frozen_joined(weights, &each, width, bias)? {
                    Some(joined) => Up::Joined(joined, inner),
                    None => Up::Gated { gate: load(gate)?, up: load(names.up)? },
                }
            }
        };
        let down = Linear::load(&weights.pp(names.down), inner, width, bias)?;
        Ok(Mlp { up, down, activation })
    }

    /// What goes into the layer that narrows.
    fn inner(&self, x: &Tensor) -> Result<Tensor> {
        match &self.up {
            Up::Plain(up) => up.activated(x, self.activation),
            Up::Gated { gate, up } => gated(self.activation, &gate.forward(x)?, &up.forward(x)?),
            Up::Joined(joined, inner) => {
                let both = joined.forward(x)?;
                if ops::by_kernel(&both) {
                    let gate = GatedJoined { activation: self.activation, inner: *inner };
                    return Ok(both.contiguous()?.apply_op1(gate)?);
                }
                let half = |which: usize| both.narrow(D::Minus1, which * inner, *inner);
                gated(self.activation, &half(0)?, &half(1)?)
            }
        }
    }

    /// `[.., width]` to the same.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.down.forward(&self.inner(x)?)
    }

    /// The steps for one forward and one backward pass; `None` where a layer is none, and with a gate in a product of
    /// its own.
    pub(crate) fn steps(&self) -> Option<Vec<Step>> {
        let (up, between) = match &self.up {
            Up::Plain(up) => (up, Step::Activation(self.activation)),
            Up::Joined(joined, inner) => {
                (joined, Step::Gate(GatedJoined { activation: self.activation, inner: *inner }))
            }
            Up::Gated { .. } => return None,
        };
        Some(vec![up.step()?, between, self.down.step()?])
    }

    /// `residual + forward(x)`.
    pub fn added(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        self.down.added(&self.inner(x)?, residual)
    }
}

/// `activation(gate) * up`, of one shape.
fn gated(by: Activation, gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    if ops::by_kernel(gate) {
        let apart = |x: &Tensor| if ops::in_rows(x) { Ok(x.clone()) } else { x.contiguous() };
        return Ok(apart(gate)?.apply_op2(&apart(up)?, Gated(by))?);
    }
    Ok((activation::apply(by, gate)? * up)?)
}

/// A gate and what it multiplies side by side, `[.., 2 * inner]` to `[.., inner]`.
pub(crate) struct GatedJoined {
    activation: Activation,
    inner: usize,
}

impl GatedJoined {
    /// Of rows that lie one after the other.
    pub(crate) fn run(&self, both: &[f32]) -> Vec<f32> {
        let width = 2 * self.inner;
        let all = Matrix::new(both, both.len() / width.max(1), width);
        self.activation.gated(all.columns(0, self.inner), all.columns(self.inner, self.inner))
    }

    /// The gradient of the rows, from that of what was made of them.
    pub(crate) fn slopes(&self, both: &[f32], dy: &[f32]) -> Vec<f32> {
        self.activation.gated_slopes(both, self.inner, dy)
    }
}

impl CustomOp1 for GatedJoined {
    fn name(&self) -> &'static str {
        "gate"
    }

    fn cpu_fwd(&self, both: &CpuStorage, layout: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        let mut dims = layout.dims().to_vec();
        if let Some(last) = dims.last_mut() {
            *last = self.inner;
        }
        Ok((CpuStorage::F32(self.run(ops::view(both, layout)?)), Shape::from(dims)))
    }

    fn bwd(&self, both: &Tensor, _: &Tensor, dy: &Tensor) -> CandleResult<Option<Tensor>> {
        let dy = dy.contiguous()?;
        let slopes = self.slopes(&ops::hold::<f32>(both)?, &ops::hold::<f32>(&dy)?);
        Ok(Some(ops::tensor(slopes, both)?))
    }
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
        let out = self.0.gated(ops::rows(gate, gl)?, ops::rows(up, ul)?);
        Ok((CpuStorage::F32(out), gl.shape().clone()))
    }

    fn bwd(
        &self,
        gate: &Tensor,
        up: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> CandleResult<(Option<Tensor>, Option<Tensor>)> {
        let (gate, up, dy) = (gate.contiguous()?, up.contiguous()?, dy.contiguous()?);
        let (held_gate, held_up, dy) =
            (ops::hold::<f32>(&gate)?, ops::hold::<f32>(&up)?, ops::hold::<f32>(&dy)?);
        let mut through = dy.to_vec();
        dari_kernels::multiply(&mut through, &held_up);
        let dgate = self.0.slopes(&held_gate, &through);
        let mut dup = self.0.of(&held_gate);
        dari_kernels::multiply(&mut dup, &dy);
        Ok((Some(ops::tensor(dgate, &gate)?), Some(ops::tensor(dup, &up)?)))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    #[test]
    fn a_gate_side_by_side_is_the_gate_of_its_parts() -> Result<()> {
        let both = Var::from_tensor(&Tensor::randn(0f32, 1., (2, 3, 10), &Device::Cpu)?)?;
        let weights = Tensor::randn(0f32, 1., (2, 3, 5), &Device::Cpu)?;
        let ours = both.apply_op1(GatedJoined { activation: Activation::Silu, inner: 5 })?;
        let theirs = gated(Activation::Silu, &both.narrow(2, 0, 5)?, &both.narrow(2, 5, 5)?)?;
        let slopes = |y: &Tensor| -> Result<Vec<f32>> {
            let gradients = (y * &weights)?.sum_all()?.backward()?;
            Ok(gradients.get(&both).expect("a gradient").flatten_all()?.to_vec1()?)
        };
        assert_eq!(ours.flatten_all()?.to_vec1::<f32>()?, theirs.flatten_all()?.to_vec1::<f32>()?);
        assert_eq!(slopes(&ours)?, slopes(&theirs)?);
        assert!(slopes(&ours)?.iter().all(|slope| *slope != 0.0));
        Ok(())
    }
}
