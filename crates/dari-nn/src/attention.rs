//! Multi-head attention: self and cross, masked, with grouped keys.

use std::sync::OnceLock;

use candle_core::{CpuStorage, CustomOp3, D, Device, Layout, Result as CandleResult, Shape, Tensor};
use dari_kernels::attention::{self as kernel, Sizes};

use crate::linear::Linear;
use crate::ops::{self, view};
use crate::weights::{Init, Weights};
use crate::{Error, Result};

/// What a query may see.
#[derive(Clone, Debug, Default)]
pub struct Mask {
    /// No key behind the query's own place.
    pub causal: bool,
    /// `[batch, keys]` in u8: 1 for a token, 0 for padding.
    pub keys: Option<Tensor>,
}

impl Mask {
    /// Everything is seen.
    pub fn none() -> Mask {
        Mask::default()
    }

    /// Nothing ahead is seen.
    pub fn causal() -> Mask {
        Mask { causal: true, keys: None }
    }

    /// Padding is not seen; `keys` is `[batch, keys]` in u8.
    pub fn keys(keys: Tensor) -> Mask {
        Mask { causal: false, keys: Some(keys) }
    }
}

/// What the projections are called, below the attention's own name.
#[derive(Clone, Copy, Debug)]
pub struct Names {
    /// Query projection.
    pub query: &'static str,
    /// Key projection.
    pub key: &'static str,
    /// Value projection.
    pub value: &'static str,
    /// Output projection.
    pub output: &'static str,
}

/// CLIP's and most of transformers' names.
pub const PROJ: Names = Names { query: "q_proj", key: "k_proj", value: "v_proj", output: "out_proj" };

/// Multi-head attention.
#[derive(Clone, Debug)]
pub struct Attention {
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    heads: usize,
    kv_heads: usize,
    width: usize,
}

impl Attention {
    /// Four projections of one width, read by `names`; the output has a bias always.
    pub fn load(
        weights: &Weights,
        names: &Names,
        width: usize,
        heads: usize,
        qkv_bias: bool,
    ) -> Result<Attention> {
        let part = |name, bias| Linear::load(&weights.pp(name), width, width, bias);
        Self::new(
            part(names.query, qkv_bias)?,
            part(names.key, qkv_bias)?,
            part(names.value, qkv_bias)?,
            part(names.output, true)?,
            width,
            heads,
            heads,
        )
    }

    /// PyTorch's `nn.MultiheadAttention`: one `in_proj_weight` `[3 * width, width]` and
    /// `in_proj_bias`, and `out_proj`.
    pub fn load_fused(weights: &Weights, width: usize, heads: usize) -> Result<Attention> {
        let all = weights.weight("in_proj_weight", &[3 * width, width], Init::fan_in(width))?;
        let bias = weights.tensor("in_proj_bias", &[3 * width], Init::ZEROS)?;
        let part = |index: usize| -> Result<Linear> {
            let bias = bias.narrow(0, index * width, width)?;
            Ok(Linear::new(all.rows(index * width, width)?, Some(bias)))
        };
        let output = Linear::load(&weights.pp("out_proj"), width, width, true)?;
        Self::new(part(0)?, part(1)?, part(2)?, output, width, heads, heads)
    }

    /// Puts an attention together. `width` is that of all query heads together.
    pub fn new(
        query: Linear,
        key: Linear,
        value: Linear,
        output: Linear,
        width: usize,
        heads: usize,
        kv_heads: usize,
    ) -> Result<Attention> {
        if heads == 0 || kv_heads == 0 || !width.is_multiple_of(heads) || !heads.is_multiple_of(kv_heads) {
            return Err(Error::Config(format!(
                "attention of width {width} cannot have {heads} heads over {kv_heads} key heads: the width must divide by the heads, the heads by the key heads"
            )));
        }
        Ok(Attention { query, key, value, output, heads, kv_heads, width })
    }

    /// Self-attention: `[batch, tokens, width]` to the same.
    pub fn forward(&self, x: &Tensor, mask: &Mask) -> Result<Tensor> {
        self.cross(x, x, mask)
    }

    /// Queries from `x` `[batch, queries, width]`, keys and values from `context`
    /// `[batch, keys, width]`; gives `[batch, queries, width]`.
    pub fn cross(&self, x: &Tensor, context: &Tensor, mask: &Mask) -> Result<Tensor> {
        let (q, k, v) = (self.query.forward(x)?, self.key.forward(context)?, self.value.forward(context)?);
        let scale = ((self.width / self.heads) as f64).powf(-0.5);
        let mixed = attend(&q, &k, &v, self.heads, self.kv_heads, scale, mask)?;
        self.output.forward(&mixed)
    }
}

/// `softmax(scale q k^T, masked) v` over interleaved heads: `q` `[batch, queries, heads * width]`,
/// `k` and `v` `[batch, keys, kv_heads * width]`.
pub fn attend(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    heads: usize,
    kv_heads: usize,
    scale: f64,
    mask: &Mask,
) -> Result<Tensor> {
    let (batch, queries, width) = q.dims3()?;
    let (kv_batch, keys, kv_width) = k.dims3()?;
    let width = width / heads;
    if kv_batch != batch || kv_width != kv_heads * width || v.dims() != k.dims() {
        return Err(Error::Config(format!(
            "attention got queries {:?}, keys {:?}, values {:?} for {heads} heads over {kv_heads}",
            q.dims(),
            k.dims(),
            v.dims()
        )));
    }
    if mask.keys.as_ref().is_some_and(|m| m.dims() != [batch, keys]) {
        return Err(Error::Config(format!(
            "an attention mask must be [{batch}, {keys}], found {:?}",
            mask.keys
        )));
    }
    if !ops::by_kernel(q) {
        return composed(q, k, v, heads, kv_heads, scale, mask);
    }
    let visible = match &mask.keys {
        Some(keys) => Some(keys.flatten_all()?.to_vec1::<u8>()?),
        None => None,
    };
    let op = Heads {
        sizes: Sizes { batch, queries, keys, heads, kv_heads, width },
        scale: scale as f32,
        causal: mask.causal,
        visible,
        keep: q.track_op() || k.track_op() || v.track_op(),
        probabilities: OnceLock::new(),
    };
    Ok(q.contiguous()?.apply_op3(&k.contiguous()?, &v.contiguous()?, op)?)
}

/// The same of candle's own operations: other devices, and what the kernel is checked against.
fn composed(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    heads: usize,
    kv_heads: usize,
    scale: f64,
    mask: &Mask,
) -> Result<Tensor> {
    let (batch, queries, total) = q.dims3()?;
    let keys = k.dim(1)?;
    let width = total / heads;
    let split = |x: &Tensor, tokens: usize, heads: usize| -> CandleResult<Tensor> {
        x.reshape((batch, tokens, heads, width))?.transpose(1, 2)?.contiguous()
    };
    let spread = |x: Tensor| -> CandleResult<Tensor> {
        let group = heads / kv_heads;
        let shape = (batch, kv_heads, group, keys, width);
        x.unsqueeze(2)?.broadcast_as(shape)?.reshape((batch, heads, keys, width))
    };
    let q = split(q, queries, heads)?;
    let (k, v) = (spread(split(k, keys, kv_heads)?)?, spread(split(v, keys, kv_heads)?)?);
    let mut scores = (q.matmul(&k.t()?)? * scale)?;
    let least = Tensor::new(f32::NEG_INFINITY, q.device())?.to_dtype(scores.dtype())?;
    if mask.causal {
        let seen: Vec<u8> =
            (0..queries * keys).map(|i| (i % keys + queries <= i / keys + keys) as u8).collect();
        let seen = Tensor::from_vec(seen, (1, 1, queries, keys), q.device())?.broadcast_as(scores.shape())?;
        scores = seen.where_cond(&scores, &least.broadcast_as(scores.shape())?)?;
    }
    if let Some(visible) = &mask.keys {
        let seen = visible.reshape((batch, 1, 1, keys))?.broadcast_as(scores.shape())?;
        scores = seen.where_cond(&scores, &least.broadcast_as(scores.shape())?)?;
    }
    // A query that sees nothing has no finite score: its powers come out as zeros, not as NaN.
    let most = scores.max_keepdim(D::Minus1)?.detach().maximum(f32::MIN)?;
    let powers = scores.broadcast_sub(&most)?.exp()?;
    let sums = powers.sum_keepdim(D::Minus1)?.maximum(f32::MIN_POSITIVE)?;
    let probabilities = powers.broadcast_div(&sums)?;
    let mixed = probabilities.matmul(&v)?.transpose(1, 2)?;
    Ok(mixed.reshape((batch, queries, total))?)
}

struct Heads {
    sizes: Sizes,
    scale: f32,
    causal: bool,
    visible: Option<Vec<u8>>,
    /// Whether a backward pass may come.
    keep: bool,
    probabilities: OnceLock<Vec<f32>>,
}

impl CustomOp3 for Heads {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        ql: &Layout,
        k: &CpuStorage,
        kl: &Layout,
        v: &CpuStorage,
        vl: &Layout,
    ) -> CandleResult<(CpuStorage, Shape)> {
        let (q, k, v) = (view::<f32>(q, ql)?, view::<f32>(k, kl)?, view::<f32>(v, vl)?);
        let mask = kernel::Mask { causal: self.causal, keys: self.visible.as_deref() };
        let mut out = vec![0.0; q.len()];
        let mut table = self.keep.then(|| vec![0.0; self.sizes.probabilities()]);
        kernel::forward(self.sizes, mask, self.scale, q, k, v, &mut out, table.as_deref_mut());
        if let Some(table) = table {
            self.probabilities.get_or_init(|| table);
        }
        Ok((CpuStorage::F32(out), ql.shape().clone()))
    }

    fn bwd(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> CandleResult<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let Some(table) = self.probabilities.get() else {
            candle_core::bail!("an attention's backward pass ran before its forward pass");
        };
        let dy = dy.contiguous()?;
        let (mut dq, mut dk, mut dv) =
            (vec![0.0; q.elem_count()], vec![0.0; k.elem_count()], vec![0.0; v.elem_count()]);
        {
            let (q, k, v) = (ops::hold::<f32>(q)?, ops::hold::<f32>(k)?, ops::hold::<f32>(v)?);
            let dy = ops::hold::<f32>(&dy)?;
            kernel::backward(self.sizes, self.scale, &q, &k, &v, table, &dy, &mut dq, &mut dk, &mut dv);
        }
        let wanted = |of: &Tensor, values: Vec<f32>| -> CandleResult<Option<Tensor>> {
            if !of.track_op() {
                return Ok(None);
            }
            Ok(Some(Tensor::from_vec(values, of.shape(), &Device::Cpu)?))
        };
        Ok((wanted(q, dq)?, wanted(k, dk)?, wanted(v, dv)?))
    }
}

/// A mask tensor from rows of 0 and 1 of equal length.
pub fn mask_tensor(rows: &[Vec<u8>], device: &Device) -> Result<Tensor> {
    let width = rows.first().map_or(0, Vec::len);
    let flat: Vec<u8> = rows.iter().flatten().copied().collect();
    Ok(Tensor::from_vec(flat, (rows.len(), width), device)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_agrees_with_candle() -> Result<()> {
        let device = Device::Cpu;
        let q = Tensor::randn(0f32, 1., (2, 6, 24), &device)?;
        let k = Tensor::randn(0f32, 1., (2, 6, 12), &device)?;
        let v = Tensor::randn(0f32, 1., (2, 6, 12), &device)?;
        let keys = Tensor::from_vec(vec![0u8, 1, 1, 0, 0, 0, 1, 1, 0, 1, 1, 1], (2, 6), &device)?;
        for mask in
            [Mask::none(), Mask::causal(), Mask::keys(keys.clone()), Mask { causal: true, keys: Some(keys) }]
        {
            let ours = attend(&q, &k, &v, 4, 2, 0.4, &mask)?;
            let theirs = composed(&q, &k, &v, 4, 2, 0.4, &mask)?;
            let difference = (ours - theirs)?.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()?;
            assert!(difference < 1e-5, "{mask:?}: {difference}");
        }
        Ok(())
    }
}
