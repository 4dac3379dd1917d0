//! The attention itself, as operations with their backward passes, and composed of candle's own.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use candle_core::{
    CpuStorage, CustomOp1, CustomOp3, D, Device, Layout, Result as CandleResult, Shape, Tensor,
};
use dari_kernels::Matrix;
use dari_kernels::attention::{self as kernel, Sizes};
use dari_kernels::team;

use super::Mask;
use crate::ops::{self, rows};
use crate::rotary::Turns;
use crate::{Error, Result};

/// `softmax(scale q k^T, masked) v` over interleaved heads: `q` `[batch, queries, heads * width]`,
/// `k` and `v` `[batch, keys, kv_heads * width]`. A causal mask may show only the last `window` tokens.
pub fn attend(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    [heads, kv_heads]: [usize; 2],
    scale: f64,
    mask: &Mask,
    window: Option<usize>,
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
    check_spans(mask, batch, [queries, keys])?;
    if !ops::by_kernel(q) {
        return match &mask.spans {
            Some(spans) => composed_apart(q, k, v, [heads, kv_heads], scale, (mask.causal, spans), window),
            None => composed(q, k, v, [heads, kv_heads], scale, mask, window),
        };
    }
    let sizes = Sizes { batch, queries, keys, heads, kv_heads, width };
    let keep = q.track_op() || k.track_op() || v.track_op();
    let op = Op { window, ..Op::new(sizes, scale, mask, keep)? };
    let rows = |x: &Tensor| if ops::in_rows(x) { Ok(x.clone()) } else { x.contiguous() };
    Ok(rows(q)?.apply_op3(&rows(k)?, &rows(v)?, op)?)
}

/// Whether sequences that lie one after the other are as many tokens as there are.
fn check_spans(mask: &Mask, batch: usize, [queries, keys]: [usize; 2]) -> Result<()> {
    if let Some(spans) = &mask.spans
        && (batch != 1 || queries != keys || mask.keys.is_some() || spans.iter().sum::<usize>() != keys)
    {
        return Err(Error::Config(format!(
            "sequences of {spans:?} tokens do not lie in {batch} by {queries} queries and {batch} by {keys} keys"
        )));
    }
    Ok(())
}

/// The same of candle's own operations: other devices, and what the kernel is checked against.
pub(super) fn composed(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    [heads, kv_heads]: [usize; 2],
    scale: f64,
    mask: &Mask,
    window: Option<usize>,
) -> Result<Tensor> {
    let mixed = probabilities(q, k, [heads, kv_heads], scale, mask, window)?
        .matmul(&by_head(v, heads, kv_heads)?)?
        .transpose(1, 2)?;
    Ok(mixed.reshape(q.shape())?)
}

/// How much each query sees of each key, `[batch, heads, queries, keys]`.
pub(super) fn probabilities(
    q: &Tensor,
    k: &Tensor,
    [heads, kv_heads]: [usize; 2],
    scale: f64,
    mask: &Mask,
    window: Option<usize>,
) -> Result<Tensor> {
    let (batch, queries, _) = q.dims3()?;
    let keys = k.dim(1)?;
    let (q, k) = (by_head(q, heads, heads)?, by_head(k, heads, kv_heads)?);
    let mut scores = (q.matmul(&k.t()?)? * scale)?;
    let least = Tensor::new(f32::NEG_INFINITY, q.device())?.to_dtype(scores.dtype())?;
    if mask.causal {
        let window = window.unwrap_or(queries + keys);
        let sees = |i: usize| {
            let (query, key) = (i / keys + keys, i % keys + queries);
            key <= query && query < key + window
        };
        let seen: Vec<u8> = (0..queries * keys).map(|i| sees(i).into()).collect();
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
    Ok(powers.broadcast_div(&sums)?)
}

/// `[batch, tokens, kv_heads * width]` to `[batch, heads, tokens, width]`, a shared head once for each of its group.
fn by_head(x: &Tensor, heads: usize, kv_heads: usize) -> CandleResult<Tensor> {
    let (batch, tokens, total) = x.dims3()?;
    let width = total / kv_heads;
    let x = x.reshape((batch, tokens, kv_heads, width))?.transpose(1, 2)?.contiguous()?;
    let shape = (batch, kv_heads, heads / kv_heads, tokens, width);
    x.unsqueeze(2)?.broadcast_as(shape)?.reshape((batch, heads, tokens, width))
}

/// [`composed`] of sequences of unequal lengths that lie one after the other: side by side for once, with
/// padding.
fn composed_apart(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    heads: [usize; 2],
    scale: f64,
    (causal, spans): (bool, &[usize]),
    window: Option<usize>,
) -> Result<Tensor> {
    let longest = spans.iter().max().copied().unwrap_or(0);
    let (mut rows, mut keys, mut back) = (Vec::new(), Vec::new(), Vec::new());
    let mut start = 0;
    for (number, &length) in spans.iter().enumerate() {
        rows.extend((0..longest).map(|at| (start + at.min(length.saturating_sub(1))) as u32));
        keys.extend((0..longest).map(|at| u8::from(at < length)));
        back.extend((0..length).map(|at| (number * longest + at) as u32));
        start += length;
    }
    let (rows, back) = (Tensor::new(rows, q.device())?, Tensor::new(back, q.device())?);
    let apart = |x: &Tensor| -> CandleResult<Tensor> {
        x.squeeze(0)?.contiguous()?.index_select(&rows, 0)?.reshape((spans.len(), longest, ()))
    };
    let keys = Tensor::from_vec(keys, (spans.len(), longest), q.device())?;
    let mask = Mask { causal, ..Mask::keys(keys) };
    let mixed = composed(&apart(q)?, &apart(k)?, &apart(v)?, heads, scale, &mask, window)?;
    Ok(mixed.flatten_to(1)?.index_select(&back, 0)?.unsqueeze(0)?)
}

struct Op {
    sizes: Sizes,
    spans: Option<Arc<[usize]>>,
    scale: f32,
    causal: bool,
    window: Option<usize>,
    visible: Option<Vec<u8>>,
    /// Whether a backward pass may come.
    keep: bool,
    /// Saved by the forward pass for the backward pass.
    logs: OnceLock<Vec<f32>>,
}

impl Op {
    fn new(sizes: Sizes, scale: f64, mask: &Mask, keep: bool) -> Result<Op> {
        let [batch, keys] = [sizes.batch, sizes.keys];
        if mask.keys.as_ref().is_some_and(|m| m.dims() != [batch, keys]) {
            return Err(Error::Config(format!(
                "an attention mask must be [{batch}, {keys}], found {:?}",
                mask.keys
            )));
        }
        let visible = match &mask.keys {
            Some(keys) => Some(keys.flatten_all()?.to_vec1::<u8>()?),
            None => None,
        };
        let logs = OnceLock::new();
        let spans = mask.spans.clone();
        Ok(Op { sizes, spans, scale: scale as f32, causal: mask.causal, window: None, visible, keep, logs })
    }

    /// What is seen by itself: its sizes, the number of its first token, and its logarithms among all.
    fn parts(&self) -> Vec<(Sizes, usize, Range<usize>)> {
        let Some(spans) = &self.spans else { return vec![(self.sizes, 0, 0..self.sizes.statistics())] };
        let (mut token, mut log) = (0, 0);
        let part = |&length: &usize| {
            let sizes = Sizes { queries: length, keys: length, ..self.sizes };
            let own = (sizes, token, log..log + sizes.statistics());
            (token, log) = (token + length, own.2.end);
            own
        };
        spans.iter().map(part).collect()
    }

    /// The attention of all parts, `[batch * queries, heads * width]`.
    fn forward(&self, all: [Matrix; 3]) -> Vec<f32> {
        let row = self.sizes.heads * self.sizes.width;
        let mut out = vec![0.0; self.sizes.batch * self.sizes.queries * row];
        let mut logs = self.keep.then(|| vec![0.0; self.sizes.statistics()]);
        let (mut rest, mut logs_rest) = (&mut out[..], logs.as_deref_mut());
        let mut parts = Vec::new();
        for (sizes, first, own_logs) in self.parts() {
            let own = rest.split_off_mut(..sizes.batch * sizes.queries * row);
            let own_logs = logs_rest.as_mut().map(|logs| logs.split_off_mut(..own_logs.len()));
            parts.push((sizes, first, own.unwrap_or_default(), own_logs.flatten()));
        }
        team::chunks(&mut parts, 1, |_, part| {
            for (sizes, first, out, logs) in part {
                let [q, k, v] = rows_of(sizes, *first, all);
                kernel::forward(*sizes, self.mask(), self.scale, q, k, v, out, logs.as_deref_mut());
            }
        });
        if let Some(logs) = logs {
            self.logs.get_or_init(|| logs);
        }
        out
    }

    /// What the forward pass saved.
    fn kept(&self) -> CandleResult<&[f32]> {
        match self.logs.get() {
            Some(logs) => Ok(logs),
            None => candle_core::bail!("an attention's backward pass ran before its forward pass"),
        }
    }

    fn mask(&self) -> kernel::Mask<'_> {
        kernel::Mask { causal: self.causal, keys: self.visible.as_deref(), window: self.window }
    }
}

impl CustomOp3 for Op {
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
        let out = self.forward([rows(q, ql)?, rows(k, kl)?, rows(v, vl)?]);
        Ok((CpuStorage::F32(out), ql.shape().clone()))
    }

    fn bwd(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        y: &Tensor,
        dy: &Tensor,
    ) -> CandleResult<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let logs = self.kept()?;
        let dy = dy.contiguous()?;
        let (mut dq, mut dk, mut dv) =
            (vec![0.0; q.elem_count()], vec![0.0; k.elem_count()], vec![0.0; v.elem_count()]);
        {
            let (q, k, v) = (ops::hold_rows(q)?, ops::hold_rows(k)?, ops::hold_rows(v)?);
            let (y, dy) = (ops::hold::<f32>(y)?, ops::hold::<f32>(&dy)?);
            let (q, k, v) = (q.matrix()?, k.matrix()?, v.matrix()?);
            let (row, kv_row) = (q.size()[1], k.size()[1]);
            for (sizes, first, own_logs) in self.parts() {
                let own = first * row..(first + sizes.batch * sizes.queries) * row;
                let keys = first * kv_row..(first + sizes.batch * sizes.keys) * kv_row;
                let [q, k, v] = rows_of(&sizes, first, [q, k, v]);
                kernel::backward(
                    sizes,
                    self.mask(),
                    self.scale,
                    q,
                    k,
                    v,
                    &y[own.clone()],
                    &logs[own_logs],
                    &dy[own.clone()],
                    &mut dq[own],
                    &mut dk[keys.clone()],
                    &mut dv[keys],
                );
            }
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

/// The rows of queries, keys and values from a token on.
fn rows_of<'a>(sizes: &Sizes, first: usize, [q, k, v]: [Matrix<'a>; 3]) -> [Matrix<'a>; 3] {
    let keys = sizes.batch * sizes.keys;
    [q.rows(first, sizes.batch * sizes.queries), k.rows(first, keys), v.rows(first, keys)]
}

/// Self-attention over queries, keys and values that stand side by side, `[batch, tokens, (heads + 2 *
/// kv_heads) * width]`, as one joined projection leaves them.
pub(super) fn attend_joined(
    joined: Tensor,
    heads: [usize; 2],
    scale: f64,
    mask: &Mask,
    window: Option<usize>,
) -> Result<Tensor> {
    let (batch, tokens, total) = joined.dims3()?;
    let size = [batch, tokens, total / (heads[0] + 2 * heads[1])];
    let op = Joined::new(size, heads, scale, mask, window, joined.track_op())?;
    Ok(joined.contiguous()?.apply_op1(op)?)
}

/// Attention of what stands side by side, and its rotary embedding where there is one.
pub(crate) struct Joined {
    attention: Op,
    turns: Option<Arc<Turns>>,
}

impl Joined {
    /// Heads of `width` numbers.
    pub(super) fn new(
        [batch, tokens, width]: [usize; 3],
        [heads, kv_heads]: [usize; 2],
        scale: f64,
        mask: &Mask,
        window: Option<usize>,
        keep: bool,
    ) -> Result<Joined> {
        check_spans(mask, batch, [tokens, tokens])?;
        let sizes = Sizes { batch, queries: tokens, keys: tokens, heads, kv_heads, width };
        let attention = Op { window, ..Op::new(sizes, scale, mask, keep)? };
        Ok(Joined { attention, turns: mask.turns.clone() })
    }

    /// Turns the queries and keys of joined rows.
    pub(crate) fn turn(&self, joined: &mut [f32]) {
        self.turn_by(joined, false);
    }

    fn turn_by(&self, joined: &mut [f32], back: bool) {
        let Sizes { heads, kv_heads, width, .. } = self.attention.sizes;
        if let Some(turns) = &self.turns {
            turns.turn(joined, heads + kv_heads, width, back);
        }
    }

    /// The attention of joined rows, turned, sequence after sequence.
    pub(crate) fn run(&self, turned: &[f32]) -> Vec<f32> {
        self.attention.forward(self.parts(turned))
    }

    /// The gradient of the joined rows as they were before they were turned, from their attention `y` and its
    /// gradient.
    pub(crate) fn slopes(&self, turned: &[f32], y: &[f32], dy: &[f32]) -> CandleResult<Vec<f32>> {
        let Op { sizes: all, scale, .. } = &self.attention;
        let logs = self.attention.kept()?;
        let mut slopes = vec![0.0; turned.len()];
        let (row, joined_row) = (all.heads * all.width, (all.heads + 2 * all.kv_heads) * all.width);
        let mut rest = &mut slopes[..];
        let mut parts = Vec::new();
        for (sizes, first, own_logs) in self.attention.parts() {
            let own = rest.split_off_mut(..sizes.batch * sizes.queries * joined_row);
            parts.push((sizes, first, own_logs, own.unwrap_or_default()));
        }
        team::chunks(&mut parts, 1, |_, part| {
            for (sizes, first, own_logs, slopes) in part {
                let [q, k, v] = rows_of(sizes, *first, self.parts(turned));
                let own = *first * row..*first * row + sizes.batch * sizes.queries * row;
                let (y, dy, logs) = (&y[own.clone()], &dy[own], &logs[own_logs.clone()]);
                kernel::backward_joined(*sizes, self.attention.mask(), *scale, q, k, v, y, logs, dy, slopes);
            }
        });
        self.turn_by(&mut slopes, true);
        Ok(slopes)
    }

    /// Rows that are not to be written, turned.
    fn turned<'a>(&self, joined: &'a [f32]) -> Cow<'a, [f32]> {
        let mut turned = Cow::from(joined);
        if self.turns.is_some() {
            self.turn(turned.to_mut());
        }
        turned
    }

    fn parts<'a>(&self, all: &'a [f32]) -> [Matrix<'a>; 3] {
        let Sizes { batch, queries, heads, kv_heads, width, .. } = self.attention.sizes;
        let all = Matrix::new(all, batch * queries, (heads + 2 * kv_heads) * width);
        [(0, heads), (heads, kv_heads), (heads + kv_heads, kv_heads)]
            .map(|(first, count)| all.columns(first * width, count * width))
    }
}

impl CustomOp1 for Joined {
    fn name(&self) -> &'static str {
        "self-attention"
    }

    fn cpu_fwd(&self, joined: &CpuStorage, layout: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        let Sizes { batch, queries, heads, width, .. } = self.attention.sizes;
        let out = self.run(&self.turned(ops::view(joined, layout)?));
        Ok((CpuStorage::F32(out), Shape::from((batch, queries, heads * width))))
    }

    fn bwd(&self, joined: &Tensor, y: &Tensor, dy: &Tensor) -> CandleResult<Option<Tensor>> {
        let dy = dy.contiguous()?;
        let (held, y, dy) = (ops::hold::<f32>(joined)?, ops::hold::<f32>(y)?, ops::hold::<f32>(&dy)?);
        Ok(Some(ops::tensor(self.slopes(&self.turned(&held), &y, &dy)?, joined)?))
    }
}
