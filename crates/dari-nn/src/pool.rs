//! From a sequence of tokens to one vector.

use candle_core::{DType, Tensor};
use dari_kernels::Activation;

use crate::attention::{Attention, Mask};
use crate::mlp::{self, Mlp};
use crate::norm::Norm;
use crate::weights::{Init, Weights};
use crate::{Error, Result};

/// The token at one place: `[batch, tokens, width]` to `[batch, width]`.
pub fn token(x: &Tensor, place: usize) -> Result<Tensor> {
    Ok(x.narrow(1, place, 1)?.squeeze(1)?.contiguous()?)
}

/// The last token.
pub fn last(x: &Tensor) -> Result<Tensor> {
    token(x, x.dim(1)?.saturating_sub(1))
}

/// Each sequence's token at its own place; one place per sequence.
pub fn places(x: &Tensor, places: &[usize]) -> Result<Tensor> {
    let (batch, tokens, width) = x.dims3()?;
    if places.len() != batch || places.iter().any(|&place| place >= tokens) {
        return Err(Error::Config(format!(
            "places {places:?} do not lie in {batch} sequences of {tokens} tokens"
        )));
    }
    let rows: Vec<u32> = places.iter().enumerate().map(|(i, place)| (i * tokens + place) as u32).collect();
    let rows = Tensor::new(rows, x.device())?;
    Ok(x.reshape((batch * tokens, width))?.index_select(&rows, 0)?)
}

/// The mean over all tokens, or over those with a 1 in `mask` `[batch, tokens]` (u8).
pub fn mean(x: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
    let Some(mask) = mask else {
        return Ok(x.mean(1)?);
    };
    let mask = mask.to_dtype(DType::F32)?.unsqueeze(2)?;
    // As sentence-transformers: a sequence of padding alone gives zeros.
    let count = mask.sum(1)?.maximum(1e-9)?;
    Ok(x.broadcast_mul(&mask)?.sum(1)?.broadcast_div(&count)?)
}

/// End-of-text pooling: where the text tower's sentence ends, in each row of token ids.
///
/// With `end` the first token of that id, or the first place where a row has none; for `None` the
/// largest id, as OpenAI's vocabulary has it.
pub fn end_of_text(ids: &[Vec<u32>], end: Option<u32>) -> Vec<usize> {
    let largest = |row: &[u32]| {
        let most = row.iter().max().copied().unwrap_or(0);
        row.iter().position(|&id| id == most).unwrap_or(0)
    };
    ids.iter()
        .map(|row| match end {
            // Where the token is absent the reference's argmax over "is it" gives the first place.
            Some(end) => row.iter().position(|&id| id == end).unwrap_or(0),
            None => largest(row),
        })
        .collect()
}

/// SigLIP's head: one learned query attends to all tokens, then norm and perceptron with residual.
#[derive(Clone, Debug)]
pub struct AttentionPool {
    probe: Tensor,
    attention: Attention,
    norm: Norm,
    mlp: Mlp,
}

impl AttentionPool {
    /// Reads `probe` `[1, 1, width]`, `attention`, `layernorm`, `mlp`.
    pub fn load(
        weights: &Weights,
        width: usize,
        inner: usize,
        heads: usize,
        activation: Activation,
        epsilon: f64,
    ) -> Result<Self> {
        Ok(AttentionPool {
            probe: weights.tensor("probe", &[1, 1, width], Init::Normal(0.02))?,
            attention: Attention::load_fused(&weights.pp("attention"), width, heads)?,
            norm: Norm::layer(&weights.pp("layernorm"), width, epsilon)?,
            mlp: Mlp::load(&weights.pp("mlp"), &mlp::FC, width, inner, activation, true)?,
        })
    }

    /// `[batch, tokens, width]` to `[batch, width]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (batch, _, width) = x.dims3()?;
        let probe = self.probe.broadcast_as((batch, 1, width))?.contiguous()?;
        let x = self.attention.cross(&probe, x, &Mask::none())?;
        let x = (&x + self.mlp.forward(&self.norm.forward(&x)?)?)?;
        token(&x, 0)
    }
}
