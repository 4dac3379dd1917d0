//! The losses of the contrastive road, and unit length.

use candle_core::{D, DType, Device, Tensor};

use crate::Result;
use crate::linear::product;

/// Vectors to unit length on the last dimension, as the reference divides: by the plain norm.
pub fn normalise(x: &Tensor) -> Result<Tensor> {
    Ok(x.broadcast_div(&x.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?)?)
}

/// Logarithm of the softmax over the last dimension.
pub fn log_softmax(x: &Tensor) -> Result<Tensor> {
    let x = x.broadcast_sub(&x.max_keepdim(D::Minus1)?.detach())?;
    Ok(x.broadcast_sub(&x.exp()?.sum_keepdim(D::Minus1)?.log()?)?)
}

/// CLIP's symmetric InfoNCE (Radford et al. 2021) over unit vectors `[batch, dim]`: the `i`th
/// picture belongs to the `i`th text. `scale` is the temperature's exponent, a scalar in logs.
pub fn info_nce(pictures: &Tensor, texts: &Tensor, scale: &Tensor) -> Result<Tensor> {
    let logits = product(texts, pictures, None)?.broadcast_mul(&scale.exp()?)?;
    let rows = logits.dim(0)?;
    let eye = Tensor::eye(rows, DType::F32, logits.device())?;
    let own = |logits: &Tensor| -> Result<Tensor> {
        Ok((log_softmax(logits)?.mul(&eye)?.sum_all()? * (-1.0 / rows as f64))?)
    };
    Ok(((own(&logits)? + own(&logits.t()?.contiguous()?)?)? * 0.5)?)
}

/// SigLIP's pairwise sigmoid loss (Zhai et al. 2023) over unit vectors `[batch, dim]`.
pub fn pairwise_sigmoid(pictures: &Tensor, texts: &Tensor, scale: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let logits = product(texts, pictures, None)?.broadcast_mul(&scale.exp()?)?.broadcast_add(bias)?;
    let rows = logits.dim(0)?;
    let signs = signs(rows, logits.device())?;
    let signed = logits.mul(&signs)?;
    Ok((log_sigmoid(&signed)?.sum_all()? * (-1.0 / rows as f64))?)
}

/// 1 on the diagonal, -1 elsewhere.
fn signs(rows: usize, device: &Device) -> Result<Tensor> {
    Ok(((Tensor::eye(rows, DType::F32, device)? * 2.0)? - 1.0)?)
}

/// `log(1 / (1 + e^-x))` without overflow: `min(x, 0) - log(1 + e^-|x|)`.
fn log_sigmoid(x: &Tensor) -> Result<Tensor> {
    let least = (x - x.abs()?)?;
    Ok(((least * 0.5)? - (x.abs()?.neg()?.exp()? + 1.0)?.log()?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_have_their_known_values() -> Result<()> {
        // Orthogonal unit vectors: InfoNCE of an identity matrix of logits is known in closed form.
        let eye = Tensor::eye(4, DType::F32, &Device::Cpu)?;
        let scale = Tensor::new(2f32.ln(), &Device::Cpu)?;
        let loss = info_nce(&eye, &eye, &scale)?.to_scalar::<f32>()?;
        let expected = -(2f32.exp() / (2f32.exp() + 3.0)).ln();
        assert!((loss - expected).abs() < 1e-6);
        let bias = Tensor::new(-1f32, &Device::Cpu)?;
        let loss = pairwise_sigmoid(&eye, &eye, &scale, &bias)?.to_scalar::<f32>()?;
        let log_sigmoid = |x: f32| -(1.0 + (-x).exp()).ln();
        let expected = -(log_sigmoid(1.0) + 3.0 * log_sigmoid(1.0));
        assert!((loss - expected).abs() < 1e-5, "{loss} {expected}");
        // Logits far from zero neither overflow nor lose their slope.
        let large = Tensor::new(&[-200f32, 200.0], &Device::Cpu)?;
        assert_eq!(log_sigmoid_values(&large)?, [-200.0, 0.0]);
        Ok(())
    }

    fn log_sigmoid_values(x: &Tensor) -> Result<Vec<f32>> {
        Ok(super::log_sigmoid(x)?.to_vec1()?)
    }
}
