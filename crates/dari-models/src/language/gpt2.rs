//! GPT-2 (Radford et al. 2019; `GPT2LMHeadModel` of transformers).

use std::ops::Range;

use candle_core::Tensor;
use dari_files::{Checkpoint, TensorView};
use dari_nn::attention::{Mask, Past};
use dari_nn::block::{self, Block, Order, forward_stack, forward_stack_past};
use dari_nn::embedding::Embedding;
use dari_nn::weights::Source;
use dari_nn::{Cache, Init, Linear, Norm, Weights};
use serde::Deserialize;

use crate::Result;
use crate::capability::CausalLm;
use crate::config::{self, Sizes};

/// `config.json` of a `gpt2` checkpoint.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
#[allow(missing_docs)] // the checkpoint's own field names
pub struct Gpt2Config {
    pub vocab_size: usize,
    pub n_positions: usize,
    pub n_embd: usize,
    pub n_layer: usize,
    pub n_head: usize,
    pub n_inner: Option<usize>,
    pub activation_function: String,
    pub layer_norm_epsilon: f64,
    pub tie_word_embeddings: bool,
    pub scale_attn_weights: bool,
    pub scale_attn_by_inverse_layer_idx: bool,
}

impl Default for Gpt2Config {
    fn default() -> Self {
        Gpt2Config {
            vocab_size: 50257,
            n_positions: 1024,
            n_embd: 768,
            n_layer: 12,
            n_head: 12,
            n_inner: None,
            activation_function: "gelu_new".into(),
            layer_norm_epsilon: 1e-5,
            tie_word_embeddings: true,
            scale_attn_weights: true,
            scale_attn_by_inverse_layer_idx: false,
        }
    }
}

/// Tokens and positions, pre-norm blocks, a norm, the token table as head.
pub struct Gpt2 {
    tokens: Embedding,
    positions: Tensor,
    blocks: Vec<Block>,
    norm: Norm,
    head: Linear,
    vocabulary: usize,
    width: usize,
}

impl Gpt2 {
    /// Reads the model, below `transformer` or at the root as the first files have it.
    pub fn load(root: &Weights, config: &Gpt2Config, origin: &str) -> Result<Gpt2> {
        let c = config;
        if !c.scale_attn_weights || c.scale_attn_by_inverse_layer_idx {
            return config::refuse(origin, "attention that is not scaled by its heads' width is not known");
        }
        let block = Sizes {
            origin,
            width: c.n_embd,
            inner: c.n_inner.unwrap_or(4 * c.n_embd),
            layers: c.n_layer,
            heads: c.n_head,
            activation: &c.activation_function,
            epsilon: c.layer_norm_epsilon,
        }
        .block(Order::Pre, true)?;
        config::check_table(origin, c.vocab_size, c.n_positions)?;
        let below = root.has("transformer.wte.weight");
        let weights = if below { root.pp("transformer") } else { root.clone() };
        let table = weights.pp("wte");
        let head = match c.tie_word_embeddings || !root.has("lm_head.weight") {
            true => {
                Linear::new(table.weight("weight", &[c.vocab_size, c.n_embd], Init::Normal(0.02))?, None)?
            }
            false => Linear::load(&root.pp("lm_head"), c.n_embd, c.vocab_size, false)?,
        };
        Ok(Gpt2 {
            tokens: Embedding::load(&table, c.vocab_size, c.n_embd)?,
            positions: weights.tensor("wpe.weight", &[c.n_positions, c.n_embd], Init::Normal(0.02))?,
            blocks: Block::load_stack(&weights.pp("h"), &block::GPT2, &block, c.n_layer)?,
            norm: Norm::layer(&weights.pp("ln_f"), c.n_embd, c.layer_norm_epsilon)?,
            head,
            vocabulary: c.vocab_size,
            width: c.n_embd,
        })
    }

    /// The positions of spans, one after the other: `[tokens, width]`.
    fn places(&self, spans: &[Range<usize>]) -> Result<Tensor> {
        let context = self.context();
        if let Some(span) = spans.iter().find(|span| span.end > context) {
            let problem = format!("it has {context} positions, {} are asked for", span.end);
            return config::refuse("this gpt2 model", problem);
        }
        let places: Vec<u32> = spans.iter().cloned().flatten().map(|place| place as u32).collect();
        Ok(self.positions.index_select(&Tensor::new(places, self.positions.device())?, 0)?)
    }
}

impl CausalLm for Gpt2 {
    fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    fn context(&self) -> usize {
        self.positions.dims()[0]
    }

    fn width(&self) -> usize {
        self.width
    }

    fn layers(&self) -> usize {
        self.blocks.len()
    }

    fn embed(&self, ids: &Tensor) -> Result<Tensor> {
        Ok(self.tokens.forward(ids)?)
    }

    fn forward(&self, x: &Tensor, lengths: &[usize]) -> Result<Tensor> {
        let spans: Vec<_> = lengths.iter().map(|&length| 0..length).collect();
        let x = (x + self.places(&spans)?.unsqueeze(0)?)?;
        Ok(self.norm.forward(&forward_stack(&self.blocks, &x, &Mask::packed(lengths))?)?)
    }

    fn rollout(&self, x: &Tensor) -> Result<Tensor> {
        let x = (x + self.places(std::slice::from_ref(&(0..x.dim(1)?)))?.unsqueeze(0)?)?;
        Ok(block::rollout(&self.blocks, &x, &Mask::causal())?)
    }

    fn with_past(&self, x: &Tensor, caches: &mut [Cache], wanted: usize) -> Result<Tensor> {
        let length = x.dim(1)?;
        let spans: Vec<_> = caches.iter().map(|cache| cache.len()..cache.len() + length).collect();
        let x = (x + self.places(&spans)?.reshape(x.shape())?)?;
        let x = forward_stack_past(&self.blocks, &x, &mut Past { caches, turns: None, wanted })?;
        Ok(self.norm.forward(&x)?)
    }

    fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        Ok(self.head.forward(hidden)?)
    }
}

/// A checkpoint whose layers' weights lie `[inputs, outputs]`, as GPT-2's own code has them.
pub struct Conv1d(pub Checkpoint);

impl Conv1d {
    /// Whether a weight lies so.
    pub fn is_turned(name: &str) -> bool {
        ["c_attn.weight", "c_proj.weight", "c_fc.weight"].iter().any(|end| name.ends_with(end))
    }
}

impl Source for Conv1d {
    fn names(&self) -> Vec<String> {
        Source::names(&self.0)
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        let mut shape = Source::shape(&self.0, name)?;
        if Self::is_turned(name) {
            shape.reverse();
        }
        Some(shape)
    }

    fn tensor(&self, name: &str) -> Result<TensorView<'_>, dari_files::Error> {
        let view = self.0.tensor(name)?;
        Ok(if Self::is_turned(name) { view.transposed() } else { view })
    }

    fn origin(&self, name: &str) -> String {
        Source::origin(&self.0, name)
    }

    fn release(&self, name: &str) {
        self.0.release(name);
    }
}
