//! The losses of the contrastive road, of classifiers and of language models, and unit length.

use std::sync::{Arc, OnceLock};

use candle_core::{CpuStorage, CustomOp1, D, DType, Device, Layout, Result as CandleResult, Shape, Tensor};
use dari_kernels::cross_entropy as kernel;

use crate::linear::product;
use crate::segment::{Body, segment};
use crate::{Error, Result, ops};

/// Vectors to unit length on the last dimension, as the reference divides: by the plain norm.
pub fn normalise(x: &Tensor) -> Result<Tensor> {
    Ok(x.broadcast_div(&x.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?)?)
}

/// Logarithm of the softmax over the last dimension.
pub fn log_softmax(x: &Tensor) -> Result<Tensor> {
    let x = x.broadcast_sub(&x.max_keepdim(D::Minus1)?.detach())?;
    Ok(x.broadcast_sub(&x.exp()?.sum_keepdim(D::Minus1)?.log()?)?)
}

/// Mean cross entropy of the softmax of logits `[rows, classes]` and a class a row, of whose weight
/// `smoothing` goes to all classes alike (Szegedy et al. 2016; PyTorch's `label_smoothing`).
pub fn cross_entropy(logits: &Tensor, targets: &[u32], smoothing: f32) -> Result<Tensor> {
    let (rows, classes) = logits.dims2()?;
    if targets.len() != rows || targets.iter().any(|&target| target as usize >= classes) {
        return Err(Error::Config(format!(
            "{} targets do not name a class of {classes} for each of {rows} rows",
            targets.len()
        )));
    }
    if ops::by_kernel(logits) {
        let op = CrossEntropy { targets: targets.to_vec(), smoothing, logs: OnceLock::new() };
        return Ok(logits.contiguous()?.apply_op1(op)?);
    }
    let targets = Tensor::new(targets, logits.device())?.unsqueeze(1)?;
    let logs = log_softmax(logits)?;
    let own = (logs.gather(&targets, 1)?.sum_all()? * (f64::from(smoothing) - 1.0))?;
    let all = (logs.sum_all()? * (-f64::from(smoothing) / classes as f64))?;
    Ok(((own + all)? * (1.0 / rows as f64))?)
}

/// Logits that are in memory at once, at most.
const LOGITS: usize = 1 << 23;

/// Mean cross entropy of tokens `[rows, width]` behind a language model's last norm, and the token that
/// follows each. `head` gives the logits of some rows, `[some, vocabulary]`; on a CPU no more than 32 MB of them are
/// there together: where there are more, a part's are made again for its gradient.
pub fn next_tokens(rows: &Tensor, targets: &[u32], vocabulary: usize, head: &Body) -> Result<Tensor> {
    let count = rows.dim(0)?;
    if count == 0 || targets.len() != count {
        let problem = format!(
            "{} targets for {count} tokens: each needs one, and one at least is needed",
            targets.len()
        );
        return Err(Error::Config(problem));
    }
    let part = (LOGITS / vocabulary.max(1)).clamp(1, count);
    if part == count || !rows.device().is_cpu() {
        return cross_entropy(&head(rows)?, targets, 0.0);
    }
    let mut total: Option<Tensor> = None;
    for first in (0..count).step_by(part) {
        let own = targets[first..count.min(first + part)].to_vec();
        let share = own.len() as f64 / count as f64;
        let rows = rows.narrow(0, first, own.len())?;
        let head = head.clone();
        let loss =
            segment(&rows, Arc::new(move |rows| Ok((cross_entropy(&head(rows)?, &own, 0.0)? * share)?)))?;
        total = Some(match total {
            Some(total) => (total + loss)?,
            None => loss,
        });
    }
    total.ok_or_else(|| Error::Config("no tokens".into()))
}

struct CrossEntropy {
    targets: Vec<u32>,
    smoothing: f32,
    /// Saved by the forward pass for the backward pass.
    logs: OnceLock<Vec<f32>>,
}

impl CustomOp1 for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross entropy"
    }

    fn cpu_fwd(&self, logits: &CpuStorage, layout: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        let rows = self.targets.len();
        let (mut losses, mut logs) = (vec![0.0; rows], vec![0.0; rows]);
        let logits = ops::view(logits, layout)?;
        kernel::forward(logits, &self.targets, &mut losses, &mut logs);
        if self.smoothing > 0.0 {
            let classes = logits.len() / rows;
            for (loss, (log, logits)) in losses.iter_mut().zip(logs.iter().zip(logits.chunks_exact(classes)))
            {
                let mean = logits.iter().map(|&logit| f64::from(logit)).sum::<f64>() / classes as f64;
                *loss += self.smoothing * ((f64::from(*log) - mean) as f32 - *loss);
            }
        }
        self.logs.get_or_init(|| logs);
        let total: f64 = losses.iter().map(|&loss| loss as f64).sum();
        Ok((CpuStorage::F32(vec![(total / rows as f64) as f32]), Shape::from(())))
    }

    fn bwd(&self, logits: &Tensor, _: &Tensor, dy: &Tensor) -> CandleResult<Option<Tensor>> {
        let Some(logs) = self.logs.get() else {
            candle_core::bail!("a cross entropy's backward pass ran before its forward pass");
        };
        let scale = dy.to_scalar::<f32>()? / self.targets.len() as f32;
        let mut slopes = vec![0.0; logits.elem_count()];
        kernel::backward(&ops::hold::<f32>(logits)?, &self.targets, logs, scale, &mut slopes);
        if self.smoothing > 0.0 {
            let classes = slopes.len() / self.targets.len();
            let moved = scale * self.smoothing;
            for (slopes, &target) in slopes.chunks_exact_mut(classes).zip(&self.targets) {
                slopes.iter_mut().for_each(|slope| *slope -= moved / classes as f32);
                slopes[target as usize] += moved;
            }
        }
        Ok(Some(ops::tensor(slopes, logits)?))
    }
}

/// CLIP's symmetric InfoNCE (Radford et al. 2021) over unit vectors `[batch, dim]`: the `i`th
/// picture belongs to the `i`th text. `scale` is the temperature's exponent, a scalar in logs.
pub fn info_nce(pictures: &Tensor, texts: &Tensor, scale: &Tensor) -> Result<Tensor> {
    let logits = product(texts, pictures, None)?.broadcast_mul(&scale.exp()?)?;
    let own: Vec<u32> = (0..logits.dim(0)? as u32).collect();
    let both = (cross_entropy(&logits, &own, 0.0)? + cross_entropy(&logits.t()?.contiguous()?, &own, 0.0)?)?;
    Ok((both * 0.5)?)
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

    #[test]
    fn the_kernel_agrees_with_candle() -> Result<()> {
        let logits = Tensor::randn(0f32, 3., (5, 7), &Device::Cpu)?;
        let ours = cross_entropy(&logits, &[0, 6, 3, 3, 1], 0.0)?.to_scalar::<f32>()?;
        let theirs = log_softmax(&logits)?.to_vec2::<f32>()?;
        let picked = [theirs[0][0], theirs[1][6], theirs[2][3], theirs[3][3], theirs[4][1]];
        assert!((ours + picked.iter().sum::<f32>() / 5.0).abs() < 1e-5);
        assert!(cross_entropy(&logits, &[0, 7, 0, 0, 0], 0.0).is_err());
        Ok(())
    }

    fn log_sigmoid_values(x: &Tensor) -> Result<Vec<f32>> {
        Ok(super::log_sigmoid(x)?.to_vec1()?)
    }
}
