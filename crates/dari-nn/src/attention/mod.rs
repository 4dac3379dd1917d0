//! Multi-head attention: self and cross, masked, with grouped keys.

mod op;

use std::sync::Arc;

use candle_core::{Device, Tensor};
use dari_kernels::Matrix;
use dari_kernels::attention::{self as kernel, Sizes};

pub(crate) use self::op::Joined;
pub use self::op::attend;
use self::op::{attend_joined, probabilities};
use crate::cache::Cache;
use crate::chain::Step;
use crate::linear::Linear;
use crate::ops;
use crate::rotary::Turns;
use crate::weight::Part;
use crate::weights::{Init, Weights};
use crate::{Error, Result, pool};

/// What a query may see, and where tokens stand.
#[derive(Clone, Debug, Default)]
pub struct Mask {
    /// No key behind the query's own place.
    pub causal: bool,
    /// `[batch, keys]` in u8: 1 for a token, 0 for padding.
    pub keys: Option<Tensor>,
    /// The lengths of sequences that lie one after the other in a batch of one, each seen by itself alone:
    /// unequal texts without padding between them.
    pub spans: Option<Arc<[usize]>>,
    /// By how much queries and keys are turned, where positions are rotary.
    pub turns: Option<Arc<Turns>>,
}

/// What was read before, and where the tokens of this pass stand.
pub struct Past<'a> {
    /// A sequence's keys and values for each of the batch.
    pub caches: &'a mut [Cache],
    /// By how much queries and keys are turned, where positions are rotary.
    pub turns: Option<Arc<Turns>>,
    /// Of how many tokens, the last of each sequence, the output is wanted: at least one.
    pub wanted: usize,
}

impl Mask {
    /// Everything is seen.
    pub fn none() -> Mask {
        Mask::default()
    }

    /// Nothing ahead is seen.
    pub fn causal() -> Mask {
        Mask { causal: true, ..Mask::default() }
    }

    /// Sequences of these lengths, one after the other, in which nothing ahead is seen.
    pub fn packed(lengths: &[usize]) -> Mask {
        Mask { spans: Some(lengths.into()), ..Mask::causal() }
    }

    /// Padding is not seen; `keys` is `[batch, keys]` in u8.
    pub fn keys(keys: Tensor) -> Mask {
        Mask { keys: Some(keys), ..Mask::default() }
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

/// How many heads of which width, over inputs of which width; which projections have biases.
#[derive(Clone, Copy, Debug)]
pub struct Heads {
    /// Values per token.
    pub width: usize,
    /// Query heads.
    pub heads: usize,
    /// Heads of keys and values, each shared by a group of query heads.
    pub kv_heads: usize,
    /// Values of a head.
    pub head_width: usize,
    /// Whether queries, keys and values have biases.
    pub qkv_bias: bool,
    /// Whether the output has one.
    pub output_bias: bool,
    /// How many tokens a query sees, itself included; all where absent.
    pub window: Option<usize>,
}

/// Multi-head attention.
#[derive(Clone, Debug)]
pub struct Attention {
    inputs: Inputs,
    output: Linear,
    heads: usize,
    kv_heads: usize,
    /// Of all query heads together.
    width: usize,
    window: Option<usize>,
}

/// The projections of queries, keys and values.
#[derive(Clone, Debug)]
enum Inputs {
    /// Each by itself.
    Separate { query: Linear, key: Linear, value: Linear },
    /// Side by side in one product.
    Joined(Linear),
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
        check(width, heads, heads)?;
        let projections = [names.query, names.key, names.value];
        let inputs = Inputs::Joined(Linear::load_joined(weights, &projections, width, width, qkv_bias)?);
        let output = Linear::load(&weights.pp(names.output), width, width, true)?;
        Ok(Attention { inputs, output, heads, kv_heads: heads, width, window: None })
    }

    /// Projections of the sizes that `heads` says, read by `names`.
    pub fn load_heads(weights: &Weights, names: &Names, heads: &Heads) -> Result<Attention> {
        let &Heads { width, heads, kv_heads, head_width, qkv_bias, output_bias, window } = heads;
        let (all, kv) = (heads * head_width, kv_heads * head_width);
        check(all, heads, kv_heads)?;
        let load = |name, inputs, outputs, bias| Linear::load(&weights.pp(name), inputs, outputs, bias);
        let each = [(names.query, all), (names.key, kv), (names.value, kv)];
        let inputs = match Linear::load_frozen_joined(weights, &each, width, qkv_bias)? {
            Some(joined) => Inputs::Joined(joined),
            None => {
                let [query, key, value] = each.map(|(name, outputs)| load(name, width, outputs, qkv_bias));
                Inputs::Separate { query: query?, key: key?, value: value? }
            }
        };
        let output = load(names.output, all, width, output_bias)?;
        Ok(Attention { inputs, output, heads, kv_heads, width: all, window })
    }

    /// One projection of queries, keys and values side by side, `[3 * width, width]`, and one of the
    /// output: GPT-2.
    pub fn load_side_by_side(
        weights: &Weights,
        [joined, output]: [&str; 2],
        width: usize,
        heads: usize,
    ) -> Result<Attention> {
        check(width, heads, heads)?;
        let inputs = Inputs::Joined(Linear::load(&weights.pp(joined), width, 3 * width, true)?);
        let output = Linear::load(&weights.pp(output), width, width, true)?;
        Ok(Attention { inputs, output, heads, kv_heads: heads, width, window: None })
    }

    /// PyTorch's `nn.MultiheadAttention`: one `in_proj_weight` `[3 * width, width]` and
    /// `in_proj_bias`, and `out_proj`.
    pub fn load_fused(weights: &Weights, width: usize, heads: usize) -> Result<Attention> {
        let bias = weights.tensor("in_proj_bias", &[3 * width], Init::ZEROS)?;
        let part = |index: usize| -> Result<Linear> {
            let (name, stored) = ("in_proj_weight", [3 * width, width]);
            let weight = weights.part(name, &stored, Init::fan_in(width), index * width, width)?;
            Linear::new(weight, Some(Part::of(bias.clone(), index * width, width)))
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
        check(width, heads, kv_heads)?;
        let inputs = Inputs::Separate { query, key, value };
        Ok(Attention { inputs, output, heads, kv_heads, width, window: None })
    }

    /// Self-attention: `[batch, tokens, width]` to the same.
    pub fn forward(&self, x: &Tensor, mask: &Mask) -> Result<Tensor> {
        self.output.forward(&self.mix(x, x, mask)?)
    }

    /// How much each token of one sequence looks at each other, the mean of the heads: `[1, tokens, width]` to
    /// `[tokens, tokens]`, the rows' sums 1.
    pub fn watch(&self, x: &Tensor, mask: &Mask) -> Result<Tensor> {
        let (mut q, mut k, _) = self.project(x, x)?;
        if let Some(turns) = &mask.turns {
            (q, k) = (turns.apply(&q, self.heads)?, turns.apply(&k, self.kv_heads)?);
        }
        let shares = probabilities(&q, &k, [self.heads, self.kv_heads], self.scale(), mask, self.window)?;
        Ok(shares.mean(1)?.squeeze(0)?)
    }

    /// `residual + forward(x)`.
    pub fn added(&self, x: &Tensor, mask: &Mask, residual: &Tensor) -> Result<Tensor> {
        self.output.added(&self.mix(x, x, mask)?, residual)
    }

    /// The steps from `[batch, tokens, width]`, of which `size` has the first two, to the same for one forward and
    /// one backward pass; `None` where the inputs are not joined or a projection is no step.
    pub(crate) fn steps(&self, size: [usize; 2], mask: &Mask) -> Result<Option<Vec<Step>>> {
        let Inputs::Joined(all) = &self.inputs else {
            return Ok(None);
        };
        let (Some(input), Some(output)) = (all.step(), self.output.step()) else {
            return Ok(None);
        };
        let heads = [self.heads, self.kv_heads];
        let size = [size[0], size[1], self.width / self.heads];
        let attention = Joined::new(size, heads, self.scale(), mask, self.window, true)?;
        Ok(Some(vec![input, Step::Attention(attention), output]))
    }

    /// `residual + forward(x)` at each sequence's one place: `[batch, 1, width]`. Only the keys and
    /// values of the other tokens are computed.
    pub fn added_at(&self, x: &Tensor, mask: &Mask, residual: &Tensor, places: &Places) -> Result<Tensor> {
        let mixed = match mask.causal {
            false => self.mix(&places.pick(x)?, x, mask)?,
            // What each place sees differs: as padding behind it.
            true => self.mix(&places.pick(x)?, x, &places.up_to(x, mask)?)?,
        };
        self.output.added(&mixed, &places.pick(residual)?)
    }

    /// Queries from `x` `[batch, queries, width]`, keys and values from `context`
    /// `[batch, keys, width]`; gives `[batch, queries, width]`.
    pub fn cross(&self, x: &Tensor, context: &Tensor, mask: &Mask) -> Result<Tensor> {
        self.output.forward(&self.mix(x, context, mask)?)
    }

    /// Self-attention of tokens behind those that the caches hold, which take them in:
    /// `[batch, tokens, width]` to `[batch, wanted, width]`, the last of them. Has no gradient.
    pub fn with_past(&self, x: &Tensor, past: &mut Past, layer: usize, wanted: usize) -> Result<Tensor> {
        let (batch, tokens, _) = x.dims3()?;
        if past.caches.len() != batch {
            let problem = format!("{} caches for a batch of {batch}", past.caches.len());
            return Err(Error::Config(problem));
        }
        let joined = match &self.inputs {
            Inputs::Joined(all) => all.forward(x)?,
            Inputs::Separate { query, key, value } => {
                Tensor::cat(&[query.forward(x)?, key.forward(x)?, value.forward(x)?], 2)?
            }
        };
        // A row a token: the queries' heads, the keys', the values'.
        let mut joined = joined.flatten_all()?.to_vec1::<f32>()?;
        let (width, row) = (self.width / self.heads, self.width);
        let kv_row = self.kv_heads * width;
        if let Some(turns) = &past.turns {
            turns.turn(&mut joined, self.heads + self.kv_heads, width, false);
        }
        let joined = Matrix::new(&joined, batch * tokens, row + 2 * kv_row);
        let mut out = vec![0.0; batch * wanted * row];
        for (index, cache) in past.caches.iter_mut().enumerate() {
            let own = joined.rows(index * tokens, tokens);
            cache.append(layer, own.columns(row, kv_row), own.columns(row + kv_row, kv_row), width);
            let keys = cache.len() + tokens;
            let (pages, page) = cache.pages(layer, keys);
            let sizes =
                Sizes { batch: 1, queries: wanted, keys, heads: self.heads, kv_heads: self.kv_heads, width };
            let out = &mut out[index * wanted * row..][..wanted * row];
            let q = own.columns(0, row).rows(tokens - wanted, wanted);
            kernel::forward_paged(sizes, self.window, self.scale() as f32, q, &pages, page, out);
        }
        let mixed = Tensor::from_vec(out, (batch, wanted, row), &Device::Cpu)?;
        self.output.forward(&mixed.to_device(x.device())?)
    }

    /// Queries of `x`, keys and values of `context`.
    fn project(&self, x: &Tensor, context: &Tensor) -> Result<(Tensor, Tensor, Tensor)> {
        match &self.inputs {
            Inputs::Separate { query, key, value } => {
                Ok((query.forward(x)?, key.forward(context)?, value.forward(context)?))
            }
            Inputs::Joined(all) => {
                let kv = self.width / self.heads * self.kv_heads;
                let joined = all.forward(context)?;
                let own = if x.id() == context.id() { joined.clone() } else { all.forward(x)? };
                let (k, v) = (joined.narrow(2, self.width, kv)?, joined.narrow(2, self.width + kv, kv)?);
                Ok((own.narrow(2, 0, self.width)?, k, v))
            }
        }
    }

    fn mix(&self, x: &Tensor, context: &Tensor, mask: &Mask) -> Result<Tensor> {
        if let Inputs::Joined(all) = &self.inputs
            && x.id() == context.id()
            && ops::by_kernel(x)
        {
            let heads = [self.heads, self.kv_heads];
            return attend_joined(all.forward(context)?, heads, self.scale(), mask, self.window);
        }
        let (mut q, mut k, v) = self.project(x, context)?;
        if let Some(turns) = &mask.turns {
            (q, k) = (turns.apply(&q, self.heads)?, turns.apply(&k, self.kv_heads)?);
        }
        attend(&q, &k, &v, [self.heads, self.kv_heads], self.scale(), mask, self.window)
    }

    fn scale(&self) -> f64 {
        ((self.width / self.heads) as f64).powf(-0.5)
    }
}

fn check(width: usize, heads: usize, kv_heads: usize) -> Result<()> {
    if heads == 0 || kv_heads == 0 || !width.is_multiple_of(heads) || !heads.is_multiple_of(kv_heads) {
        return Err(Error::Config(format!(
            "attention of width {width} cannot have {heads} heads over {kv_heads} key heads: the width must divide by the heads, the heads by the key heads"
        )));
    }
    Ok(())
}

/// One place in each sequence.
#[derive(Clone, Debug)]
pub struct Places(Vec<usize>);

impl Places {
    /// The same place in each of `batch` sequences.
    pub fn all_at(place: usize, batch: usize) -> Places {
        Places(vec![place; batch])
    }

    /// A place a sequence.
    pub fn each(places: Vec<usize>) -> Places {
        Places(places)
    }

    /// `[batch, tokens, width]` to `[batch, 1, width]`.
    pub fn pick(&self, x: &Tensor) -> Result<Tensor> {
        Ok(pool::places(x, &self.0)?.unsqueeze(1)?)
    }

    /// A mask under which each place sees what a causal mask shows it.
    fn up_to(&self, x: &Tensor, mask: &Mask) -> Result<Mask> {
        let tokens = x.dim(1)?;
        let seen = self.0.iter().flat_map(|&place| (0..tokens).map(move |token| (token <= place) as u8));
        let seen = Tensor::from_vec(seen.collect(), (self.0.len(), tokens), x.device())?;
        let keys = match &mask.keys {
            Some(keys) => (keys * seen)?,
            None => seen,
        };
        Ok(Mask::keys(keys))
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
    use super::op::composed;
    use super::*;

    #[test]
    fn the_kernel_agrees_with_candle() -> Result<()> {
        let device = Device::Cpu;
        let q = Tensor::randn(0f32, 1., (2, 6, 24), &device)?;
        let k = Tensor::randn(0f32, 1., (2, 6, 12), &device)?;
        let v = Tensor::randn(0f32, 1., (2, 6, 12), &device)?;
        let keys = Tensor::from_vec(vec![0u8, 1, 1, 0, 0, 0, 1, 1, 0, 1, 1, 1], (2, 6), &device)?;
        let both = Mask { causal: true, ..Mask::keys(keys.clone()) };
        for (mask, window) in [
            (Mask::none(), None),
            (Mask::causal(), None),
            (Mask::causal(), Some(3)),
            (Mask::keys(keys), None),
            (both, None),
        ] {
            let ours = attend(&q, &k, &v, [4, 2], 0.4, &mask, window)?;
            let theirs = composed(&q, &k, &v, [4, 2], 0.4, &mask, window)?;
            let difference = (ours - theirs)?.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()?;
            assert!(difference < 1e-5, "{mask:?} {window:?}: {difference}");
        }
        Ok(())
    }

    #[test]
    fn what_is_watched_is_what_is_mixed() -> Result<()> {
        use crate::{Training, Weights};
        let weights = Weights::train(None, &Device::Cpu, Training::all(5));
        let names = Names { query: "q", key: "k", value: "v", output: "o" };
        // Of one head alone the mean is what the values are weighed by.
        let heads = Heads {
            width: 12,
            heads: 1,
            kv_heads: 1,
            head_width: 12,
            qkv_bias: true,
            output_bias: true,
            window: None,
        };
        for window in [None, Some(2)] {
            let attention = Attention::load_heads(&weights, &names, &Heads { window, ..heads })?;
            let x = Tensor::randn(0f32, 1., (1, 6, 12), &Device::Cpu)?;
            let shares = attention.watch(&x, &Mask::causal())?;
            let (_, _, values) = attention.project(&x, &x)?;
            let mixed = shares.matmul(&values.squeeze(0)?)?.unsqueeze(0)?;
            let far = (attention.output.forward(&mixed)? - attention.forward(&x, &Mask::causal())?)?;
            assert!(far.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()? < 1e-5);
        }
        Ok(())
    }

    #[test]
    fn sequences_in_one_row_do_not_see_each_other() -> Result<()> {
        let device = Device::Cpu;
        let draw = |width| Tensor::randn(0f32, 1., (1, 12, width), &device);
        let (q, k, v) = (draw(24)?, draw(12)?, draw(12)?);
        let lengths = [5, 0, 1, 6];
        for window in [None, Some(3)] {
            let mask = Mask::packed(&lengths);
            let all = attend(&q, &k, &v, [4, 2], 0.4, &mask, window)?;
            let theirs = ops::without_kernels(|| attend(&q, &k, &v, [4, 2], 0.4, &mask, window))?;
            let far = |a: &Tensor, b: &Tensor| (a - b)?.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>();
            assert!(far(&all, &theirs)? < 1e-5);
            let mut start = 0;
            for length in lengths.into_iter().filter(|&length| length > 0) {
                let own = |x: &Tensor| x.narrow(1, start, length);
                let alone = attend(&own(&q)?, &own(&k)?, &own(&v)?, [4, 2], 0.4, &Mask::causal(), window)?;
                assert_eq!(far(&own(&all)?, &alone)?, 0.0);
                start += length;
            }
        }
        assert!(attend(&q, &k, &v, [4, 2], 0.4, &Mask::packed(&[5, 6]), None).is_err());
        Ok(())
    }

    #[test]
    fn what_stands_side_by_side_is_attended_to_as_its_parts_are() -> Result<()> {
        use crate::rotary::{Pairs, Rotary, Scaling};
        let [heads, kv_heads, width] = [4, 2, 6];
        let (row, kv_row) = (heads * width, kv_heads * width);
        let rotary = Rotary::new(100.0, 4, Pairs::Halves, Scaling::None, 1.1);
        let (causal, packed) = (Mask::causal(), Mask::packed(&[5, 1, 6]));
        for (batch, tokens, mask, window) in [
            (2, 6, causal.clone(), None),
            (2, 6, causal, Some(3)),
            (1, 12, packed.clone(), None),
            (1, 12, packed, Some(2)),
        ] {
            let places: Vec<usize> = (0..batch * tokens).map(|token| token % 5).collect();
            for turns in [None, Some(Arc::new(rotary.turns(&places, 12)))] {
                let mask = Mask { turns: turns.clone(), ..mask.clone() };
                let joined = Tensor::randn(0f32, 1., (batch, tokens, row + 2 * kv_row), &Device::Cpu)?;
                let joined = candle_core::Var::from_tensor(&joined)?;
                let weights = Tensor::randn(0f32, 1., (batch, tokens, row), &Device::Cpu)?;
                let ours = attend_joined(joined.as_tensor().clone(), [heads, kv_heads], 0.4, &mask, window)?;
                let part = |first, count, of: usize| -> Result<Tensor> {
                    let x = joined.narrow(2, first, count)?;
                    Ok(match &turns {
                        Some(turns) if of > 0 => turns.apply(&x, of)?,
                        _ => x,
                    })
                };
                let (q, k) = (part(0, row, heads)?, part(row, kv_row, kv_heads)?);
                let v = part(row + kv_row, kv_row, 0)?;
                let theirs = attend(&q, &k, &v, [heads, kv_heads], 0.4, &mask, window)?;
                let far = |a: &Tensor, b: &Tensor| (a - b)?.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>();
                assert!(far(&ours, &theirs)? < 1e-5);
                let slopes = |y: &Tensor| -> Result<Tensor> {
                    let gradients = (y * &weights)?.sum_all()?.backward()?;
                    Ok(gradients.get(&joined).expect("a gradient").clone())
                };
                let (ours, theirs) = (slopes(&ours)?, slopes(&theirs)?);
                assert!(theirs.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()? > 0.1);
                assert!(far(&ours, &theirs)? < 1e-5, "{window:?}");
            }
        }
        let few = Tensor::zeros((1, 12, row + 2 * kv_row), candle_core::DType::F32, &Device::Cpu)?;
        assert!(attend_joined(few, [heads, kv_heads], 0.4, &Mask::packed(&[5, 6]), None).is_err());
        Ok(())
    }
}
