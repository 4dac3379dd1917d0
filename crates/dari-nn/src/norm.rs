//! Layer norm and RMS norm.

use std::sync::OnceLock;

use candle_core::{CpuStorage, CustomOp3, D, DType, Device, Layout, Result as CandleResult, Shape, Tensor};
use dari_kernels::norm::{self as kernel, Statistics};

use crate::Result;
use crate::ops::{self, view};
use crate::weights::{Init, Weights};

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

    /// `[.., width]` to the same.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        if ops::by_kernel(x) {
            let op = Rows { kind: self.kind, epsilon: self.epsilon as f32, statistics: OnceLock::new() };
            return Ok(x.contiguous()?.apply_op3(&self.weight, &self.bias, op)?);
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

struct Rows {
    kind: kernel::Norm,
    epsilon: f32,
    /// Saved by the forward pass for the backward pass.
    statistics: OnceLock<Vec<Statistics>>,
}

impl CustomOp3 for Rows {
    fn name(&self) -> &'static str {
        "norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        w: &CpuStorage,
        wl: &Layout,
        b: &CpuStorage,
        bl: &Layout,
    ) -> CandleResult<(CpuStorage, Shape)> {
        let (x, weight, bias) = (view::<f32>(x, xl)?, view::<f32>(w, wl)?, view::<f32>(b, bl)?);
        if xl.dims().last() != Some(&weight.len()) {
            candle_core::bail!("a norm of width {} got {:?}", weight.len(), xl.dims());
        }
        let mut statistics = vec![[0.0; 2]; x.len() / weight.len()];
        let out = kernel::forward(self.kind, x, weight, bias, self.epsilon, &mut statistics);
        self.statistics.get_or_init(|| statistics);
        Ok((CpuStorage::F32(out), xl.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> CandleResult<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let Some(statistics) = self.statistics.get() else {
            candle_core::bail!("a norm's backward pass ran before its forward pass");
        };
        let dy = dy.contiguous()?;
        let width = weight.elem_count();
        let mut dx = vec![0.0; x.elem_count()];
        let (mut dweight, mut dbias) = (vec![0.0; width], vec![0.0; width]);
        let (held, dy) = (ops::hold::<f32>(x)?, ops::hold::<f32>(&dy)?);
        kernel::backward(
            self.kind,
            &held,
            &ops::hold::<f32>(weight)?,
            statistics,
            &dy,
            &mut dx,
            &mut dweight,
            &mut dbias,
        );
        let wanted = |of: &Tensor, values: Vec<f32>| -> CandleResult<Option<Tensor>> {
            if !of.track_op() {
                return Ok(None);
            }
            Ok(Some(Tensor::from_vec(values, of.shape(), &Device::Cpu)?))
        };
        Ok((wanted(x, dx)?, wanted(weight, dweight)?, wanted(bias, dbias)?))
    }
}
