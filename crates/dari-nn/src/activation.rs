//! The field's activations as one candle operation.

use candle_core::{CpuStorage, CustomOp1, Layout, Result as CandleResult, Shape, Tensor};
use dari_kernels::Activation;

use crate::ops::{self, view};
use crate::{Error, Result};

/// The activation that a config names.
pub fn named(name: &str) -> Result<Activation> {
    Activation::from_name(name).ok_or_else(|| {
        Error::Config(format!(
            "activation `{name}` is not known; known are gelu, quick_gelu, gelu_pytorch_tanh, gelu_new, silu, relu, tanh"
        ))
    })
}

/// Applies it to every value.
pub fn apply(activation: Activation, x: &Tensor) -> Result<Tensor> {
    if ops::by_kernel(x) {
        return Ok(x.contiguous()?.apply_op1(Elementwise(activation))?);
    }
    Ok(match activation {
        Activation::Gelu => x.gelu_erf()?,
        Activation::QuickGelu => (x * sigmoid(&(x * 1.702)?)?)?,
        Activation::GeluTanh => x.gelu()?,
        Activation::Silu => x.silu()?,
        Activation::Relu => x.relu()?,
        Activation::Tanh => x.tanh()?,
    })
}

fn sigmoid(x: &Tensor) -> CandleResult<Tensor> {
    (x.neg()?.exp()? + 1.0)?.recip()
}

struct Elementwise(Activation);

impl CustomOp1 for Elementwise {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        let x = view::<f32>(x, layout)?;
        Ok((CpuStorage::F32(self.0.of(x)), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, dy: &Tensor) -> CandleResult<Option<Tensor>> {
        let dy = dy.contiguous()?;
        let dx = self.0.slopes(&ops::hold::<f32>(x)?, &ops::hold::<f32>(&dy)?);
        Ok(Some(ops::tensor(dx, x)?))
    }
}
