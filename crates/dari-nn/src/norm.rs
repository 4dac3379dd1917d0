//! Layer norm and RMS norm.

use std::sync::OnceLock;

use candle_core::{CpuStorage, CustomOp3, D, DType, Device, Layout, Result as CandleResult, Shape, Tensor};
use dari_kernels::norm::{self as kernel, Statistics};

use crate::ops::{self, view};
use crate::weight::Part;
use crate::weights::{Init, Weights};
use crate::{Result, gradients};

/// A norm over the last dimension.
#[derive(Clone, Debug)]
pub struct Norm {
    kind: kernel::Norm,
    weight: Tensor,
    bias: Tensor,
    epsilon: f64,
}

impl Norm {
    /// Layer norm: reads `weight` and `bias`, each `[width]`.
    pub fn layer(weights: &Weights, width: usize, epsilon: f64) -> Result<Norm> {
        Ok(Norm {
            kind: kernel::Norm::Layer,
            weight: weights.tensor("weight", &[width], Init::ONES)?,
            bias: weights.tensor("bias", &[width], Init::ZEROS)?,
            epsilon,
        })
    }

    /// RMS norm: reads `weight`, `[width]`.
    pub fn rms(weights: &Weights, width: usize, epsilon: f64) -> Result<Norm> {
        Ok(Norm {
            kind: kernel::Norm::Rms,
            weight: weights.tensor("weight", &[width], Init::ONES)?,
            bias: Tensor::zeros(width, DType::F32, weights.device())?,
            epsilon,
        })
    }

    /// The norm as an operation, for one forward and one backward pass.
    pub(crate) fn rows(&self) -> Rows {
        let (weight, bias) = (Part::whole(self.weight.clone()), Part::whole(self.bias.clone()));
        let statistics = OnceLock::new();
        Rows { kind: self.kind, weight, bias, epsilon: self.epsilon as f32, statistics }
    }

    /// `[.., width]` to the same.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        if ops::by_kernel(x) {
            return Ok(x.contiguous()?.apply_op3(&self.weight, &self.bias, self.rows())?);
        }
        let centred = match self.kind {
            kernel::Norm::Layer => x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?,
            kernel::Norm::Rms => x.clone(),
        };
        let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
        let normalised = centred.broadcast_div(&(variance + self.epsilon)?.sqrt()?)?;
        Ok(normalised.broadcast_mul(&self.weight)?.broadcast_add(&self.bias)?)
    }
}

pub(crate) struct Rows {
    kind: kernel::Norm,
    weight: Part,
    bias: Part,
    epsilon: f32,
    /// Saved by the forward pass for the backward pass.
    statistics: OnceLock<Vec<Statistics>>,
}

impl Rows {
    /// The norm of rows that lie one after the other.
    pub(crate) fn run(&self, x: &[f32]) -> CandleResult<Vec<f32>> {
        let (weight, bias) = (ops::hold::<f32>(self.weight.tensor())?, ops::hold::<f32>(self.bias.tensor())?);
        let mut statistics = vec![[0.0; 2]; x.len() / weight.len()];
        let out = kernel::forward(self.kind, x, &weight, &bias, self.epsilon, &mut statistics);
        self.statistics.get_or_init(|| statistics);
        Ok(out)
    }

    /// The gradient of `x`; those of the weights are added up in [`crate::Gradients`].
    pub(crate) fn slopes(&self, x: &[f32], dy: &[f32]) -> CandleResult<Vec<f32>> {
        let [dx, dweight, dbias] = self.backward(x, dy)?;
        for (part, found) in [(&self.weight, dweight), (&self.bias, dbias)] {
            if part.tracked() {
                gradients::accumulate(part, |total, _| dari_kernels::add(total, &found))?;
            }
        }
        Ok(dx)
    }

    fn backward(&self, x: &[f32], dy: &[f32]) -> CandleResult<[Vec<f32>; 3]> {
        let Some(statistics) = self.statistics.get() else {
            candle_core::bail!("a norm's backward pass ran before its forward pass");
        };
        let weight = ops::hold::<f32>(self.weight.tensor())?;
        let mut dx = vec![0.0; x.len()];
        let (mut dweight, mut dbias) = (vec![0.0; weight.len()], vec![0.0; weight.len()]);
        kernel::backward(self.kind, x, &weight, statistics, dy, &mut dx, &mut dweight, &mut dbias);
        Ok([dx, dweight, dbias])
    }
}

impl CustomOp3 for Rows {
    fn name(&self) -> &'static str {
        "norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        _: &CpuStorage,
        wl: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> CandleResult<(CpuStorage, Shape)> {
        if xl.dims().last() != wl.dims().last() {
            candle_core::bail!("a norm of width {:?} got {:?}", wl.dims(), xl.dims());
        }
        Ok((CpuStorage::F32(self.run(view::<f32>(x, xl)?)?), xl.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> CandleResult<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let dy = dy.contiguous()?;
        let [dx, dweight, dbias] = self.backward(&ops::hold::<f32>(x)?, &ops::hold::<f32>(&dy)?)?;
        let wanted = |of: &Tensor, values: Vec<f32>| -> CandleResult<Option<Tensor>> {
            if !of.track_op() {
                return Ok(None);
            }
            Ok(Some(Tensor::from_vec(values, of.shape(), &Device::Cpu)?))
        };
        Ok((wanted(x, dx)?, wanted(weight, dweight)?, wanted(bias, dbias)?))
    }
}
