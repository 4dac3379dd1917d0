//! The transformer block, pre-norm or post-norm, and a stack of them.

use std::sync::Arc;

use candle_core::Tensor;
use dari_kernels::Activation;

use crate::attention::{self, Attention, Heads, Mask, Past, Places};
use crate::chain::{self, Step};
use crate::mlp::{self, Mlp};
use crate::norm::Norm;
use crate::weights::Weights;
use crate::{Result, gradients, ops, segment};

/// Where the norms stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Before each part (CLIP, ViT): `x + part(norm(x))`.
    Pre,
    /// After each sum (BERT): `norm(x + part(x))`.
    Post,
}

/// What a family of checkpoints calls the parts of a block.
#[derive(Clone, Copy, Debug)]
pub struct Names {
    /// Prefix of the attention's projections.
    pub attention: &'static str,
    /// The projections below it.
    pub projections: Projections,
    /// The norm of the attention.
    pub norm1: &'static str,
    /// Prefix of the perceptron's layers.
    pub mlp: &'static str,
    /// The layers below it.
    pub layers: mlp::Names,
    /// The norm of the perceptron.
    pub norm2: &'static str,
}

/// The projections of an attention.
#[derive(Clone, Copy, Debug)]
pub enum Projections {
    /// Each by itself.
    Each(attention::Names),
    /// Queries, keys and values side by side, and the output.
    SideBySide([&'static str; 2]),
}

/// CLIP, SigLIP.
pub const CLIP: Names = Names {
    attention: "self_attn",
    projections: Projections::Each(attention::PROJ),
    norm1: "layer_norm1",
    mlp: "mlp",
    layers: mlp::FC,
    norm2: "layer_norm2",
};

/// ViT of transformers.
pub const VIT: Names = Names {
    attention: "attention",
    projections: Projections::Each(attention::Names {
        query: "attention.query",
        key: "attention.key",
        value: "attention.value",
        output: "output.dense",
    }),
    norm1: "layernorm_before",
    mlp: "",
    layers: mlp::Names { up: "intermediate.dense", down: "output.dense", gate: None },
    norm2: "layernorm_after",
};

/// BERT.
pub const BERT: Names = Names {
    attention: "attention",
    projections: Projections::Each(attention::Names {
        query: "self.query",
        key: "self.key",
        value: "self.value",
        output: "output.dense",
    }),
    norm1: "attention.output.LayerNorm",
    mlp: "",
    layers: mlp::Names { up: "intermediate.dense", down: "output.dense", gate: None },
    norm2: "output.LayerNorm",
};

/// LLaMA, Mistral, Qwen 2.
pub const LLAMA: Names = Names {
    attention: "self_attn",
    projections: Projections::Each(attention::Names {
        query: "q_proj",
        key: "k_proj",
        value: "v_proj",
        output: "o_proj",
    }),
    norm1: "input_layernorm",
    mlp: "mlp",
    layers: mlp::Names { up: "up_proj", down: "down_proj", gate: Some("gate_proj") },
    norm2: "post_attention_layernorm",
};

/// GPT-2.
pub const GPT2: Names = Names {
    attention: "attn",
    projections: Projections::SideBySide(["c_attn", "c_proj"]),
    norm1: "ln_1",
    mlp: "mlp",
    layers: mlp::Names { up: "c_fc", down: "c_proj", gate: None },
    norm2: "ln_2",
};

/// The sizes of a block.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Values per token.
    pub width: usize,
    /// Values between the perceptron's layers.
    pub inner: usize,
    /// Attention heads.
    pub heads: usize,
    /// The perceptron's activation.
    pub activation: Activation,
    /// The norms' epsilon.
    pub epsilon: f64,
    /// Where the norms stand.
    pub order: Order,
    /// Whether queries, keys and values have biases.
    pub qkv_bias: bool,
}

/// The sizes of a block of a language model: RMS norms before each part.
#[derive(Clone, Copy, Debug)]
pub struct RmsConfig {
    /// The attention.
    pub heads: Heads,
    /// Values between the perceptron's layers.
    pub inner: usize,
    /// The perceptron's activation.
    pub activation: Activation,
    /// Whether the perceptron's layers have biases.
    pub mlp_bias: bool,
    /// The norms' epsilon.
    pub epsilon: f64,
}

/// One transformer block.
#[derive(Clone, Debug)]
pub struct Block {
    attention: Attention,
    norm1: Norm,
    mlp: Mlp,
    norm2: Norm,
    order: Order,
}

impl Block {
    /// Reads a block by a family's names.
    pub fn load(weights: &Weights, names: &Names, config: &Config) -> Result<Block> {
        let Config { width, inner, heads, activation, epsilon, order, qkv_bias } = *config;
        let below = weights.pp(names.attention);
        Ok(Block {
            attention: match &names.projections {
                Projections::Each(names) => Attention::load(&below, names, width, heads, qkv_bias)?,
                Projections::SideBySide(names) => Attention::load_side_by_side(&below, *names, width, heads)?,
            },
            norm1: Norm::layer(&weights.pp(names.norm1), width, epsilon)?,
            mlp: Mlp::load(&weights.pp(names.mlp), &names.layers, width, inner, activation, true)?,
            norm2: Norm::layer(&weights.pp(names.norm2), width, epsilon)?,
            order,
        })
    }

    /// Reads a block of a language model by a family's names.
    pub fn load_rms(weights: &Weights, names: &Names, config: &RmsConfig) -> Result<Block> {
        let RmsConfig { heads, inner, activation, mlp_bias, epsilon } = *config;
        let Projections::Each(projections) = &names.projections else {
            return Err(crate::Error::Config("a block with RMS norms has its projections apart".into()));
        };
        let (width, mlp) = (heads.width, weights.pp(names.mlp));
        Ok(Block {
            attention: Attention::load_heads(&weights.pp(names.attention), projections, &heads)?,
            norm1: Norm::rms(&weights.pp(names.norm1), width, epsilon)?,
            mlp: Mlp::load(&mlp, &names.layers, width, inner, activation, mlp_bias)?,
            norm2: Norm::rms(&weights.pp(names.norm2), width, epsilon)?,
            order: Order::Pre,
        })
    }

    /// Reads `count` blocks named `0`, `1`, ... below `weights`.
    pub fn load_stack(weights: &Weights, names: &Names, config: &Config, count: usize) -> Result<Vec<Block>> {
        (0..count).map(|index| Block::load(&weights.pp(index), names, config)).collect()
    }

    /// `[batch, tokens, width]` to the same.
    pub fn forward(&self, x: &Tensor, mask: &Mask) -> Result<Tensor> {
        let steps = match is_chained(x) {
            true => self.attention.steps([x.dim(0)?, x.dim(1)?], mask)?,
            false => None,
        };
        self.perceptron(&self.part(&self.norm1, x, steps, |y| self.attention.added(y, mask, x))?)
    }

    /// [`Block::forward`] of tokens behind those that the caches hold, for the last `wanted` of each sequence; for
    /// [`Order::Pre`].
    pub fn with_past(&self, x: &Tensor, past: &mut Past, layer: usize, wanted: usize) -> Result<Tensor> {
        let mixed = self.attention.with_past(&self.norm1.forward(x)?, past, layer, wanted)?;
        let x = (x.narrow(1, x.dim(1)? - wanted, wanted)? + mixed)?;
        self.mlp.added(&self.norm2.forward(&x)?, &x)
    }

    /// Everything behind the attention.
    fn perceptron(&self, x: &Tensor) -> Result<Tensor> {
        let steps = if is_chained(x) { self.mlp.steps() } else { None };
        self.part(&self.norm2, x, steps, |y| self.mlp.added(y, x))
    }

    /// A part of the block with its norm and its residual: as one operation, where it has steps, or as `added` gives it.
    fn part(
        &self,
        norm: &Norm,
        x: &Tensor,
        steps: Option<Vec<Step>>,
        added: impl FnOnce(&Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        match (self.order, steps) {
            (Order::Pre, Some(steps)) => {
                let norm = Step::Norm(norm.rows());
                Ok(chain::added(x, std::iter::once(norm).chain(steps).collect())?)
            }
            (Order::Pre, None) => added(&norm.forward(x)?),
            (Order::Post, Some(steps)) => norm.forward(&chain::added(x, steps)?),
            (Order::Post, None) => norm.forward(&added(x)?),
        }
    }

    /// [`Block::forward`] at each sequence's one place, `[batch, 1, width]`; of the other tokens only
    /// what the places look at is computed.
    pub fn forward_at(&self, x: &Tensor, mask: &Mask, places: &Places) -> Result<Tensor> {
        self.perceptron(&self.part(&self.norm1, x, None, |y| self.attention.added_at(y, mask, x, places))?)
    }
}

/// Whether the steps of a block become one operation of the graph: where a gradient will come back
/// through `x`.
fn is_chained(x: &Tensor) -> bool {
    ops::by_kernel(x) && x.track_op()
}

/// Runs a stack of blocks in order; each is a segment where [`crate::segment::checkpointed`] says so.
pub fn forward_stack(blocks: &[Block], x: &Tensor, mask: &Mask) -> Result<Tensor> {
    blocks.iter().try_fold(x.clone(), |x, block| {
        if !segment::is_checkpointed() {
            return block.forward(&x, mask);
        }
        let (block, mask) = (block.clone(), mask.clone());
        segment::segment(&x, Arc::new(move |x| block.forward(x, &mask)))
    })
}

/// Attention rollout (Abnar and Zuidema 2020) of a stack of pre-norm blocks over one sequence, `[1, tokens, width]`:
/// how much of each token behind the stack comes from each before it, `[tokens, tokens]`, the rows' sums 1. Half of
/// what a block makes of a token is the token itself.
pub fn rollout(blocks: &[Block], x: &Tensor, mask: &Mask) -> Result<Tensor> {
    let tokens = x.dim(1)?;
    let own = Tensor::eye(tokens, candle_core::DType::F32, x.device())?;
    let (mut x, mut flow) = (x.clone(), own.clone());
    for block in blocks {
        let seen = block.attention.watch(&block.norm1.forward(&x)?, mask)?;
        flow = ((seen + &own)? * 0.5)?.matmul(&flow)?;
        x = block.forward(&x, mask)?;
    }
    Ok(flow)
}

/// Runs a stack on tokens behind those that the caches hold, which take them in: `[batch, tokens, width]` to
/// `[batch, wanted, width]`. Of the other tokens the last block computes keys and values alone.
pub fn forward_stack_past(blocks: &[Block], x: &Tensor, past: &mut Past) -> Result<Tensor> {
    let tokens = x.dim(1)?;
    if !(1..=tokens).contains(&past.wanted) {
        let problem = format!("the output of {} tokens is wanted of {tokens}", past.wanted);
        return Err(crate::Error::Config(problem));
    }
    let (others, last) = but_the_last(blocks);
    let x = gradients::unrecorded(|| {
        let x = others
            .iter()
            .enumerate()
            .try_fold(x.clone(), |x, (layer, block)| block.with_past(&x, past, layer, tokens))?;
        match last {
            [last] => last.with_past(&x, past, others.len(), past.wanted),
            _ => Ok(x.narrow(1, tokens - past.wanted, past.wanted)?),
        }
    })?;
    past.caches.iter_mut().for_each(|cache| cache.advance(tokens));
    Ok(x)
}

/// A stack in two: all blocks but the last, and the last, where there is any.
pub fn but_the_last(blocks: &[Block]) -> (&[Block], &[Block]) {
    blocks.split_at(blocks.len().saturating_sub(1))
}

/// Runs a stack of blocks for the sake of one place in each sequence: `[batch, tokens, width]` to
/// `[batch, width]`. The last block is computed there alone.
pub fn forward_stack_at(blocks: &[Block], x: &Tensor, mask: &Mask, places: &Places) -> Result<Tensor> {
    let picked = match blocks.split_last() {
        Some((last, others)) => last.forward_at(&forward_stack(others, x, mask)?, mask, places)?,
        None => places.pick(x)?,
    };
    Ok(picked.squeeze(1)?)
}
