//! LLaMA (Touvron et al. 2023; `LlamaForCausalLM` of transformers), and by its config Mistral.

use std::sync::Arc;

use candle_core::Tensor;
use dari_nn::attention::{Heads, Mask, Past};
use dari_nn::block::{self, Block, RmsConfig, forward_stack, forward_stack_past};
use dari_nn::embedding::Embedding;
use dari_nn::rotary::Rotary;
use dari_nn::{Cache, Init, Linear, Norm, Weights};
use serde::Deserialize;
use serde_json::{Value, json};

use super::rope;
use crate::capability::CausalLm;
use crate::{Result, config};

/// `config.json` of a `llama` or `mistral` checkpoint.
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs)] // the checkpoint's own field names
pub struct LlamaConfig {
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub num_key_value_heads: Option<usize>,
    pub head_dim: Option<usize>,
    pub hidden_act: String,
    pub max_position_embeddings: usize,
    pub rms_norm_eps: f64,
    #[serde(default)]
    pub attention_bias: bool,
    #[serde(default)]
    pub mlp_bias: bool,
    #[serde(default)]
    pub tie_word_embeddings: bool,
    pub sliding_window: Option<usize>,
    /// Whether queries, keys and values alone have biases.
    #[serde(skip)]
    pub qkv_bias: bool,
    /// The first layer that `sliding_window` is for.
    #[serde(skip)]
    pub first_window: usize,
    /// The scaling of the rotary positions.
    #[serde(skip)]
    pub rotary: Option<Rotary>,
}

impl LlamaConfig {
    /// Reads a config of either family, over what its class of transformers assumes.
    pub fn parse(value: &Value, origin: &str) -> Result<LlamaConfig> {
        let mut all = json!({
            "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
            "num_attention_heads": 32, "hidden_act": "silu", "max_position_embeddings": 2048,
            "rms_norm_eps": 1e-6,
        });
        if value.get("model_type").and_then(Value::as_str) == Some("mistral") {
            config::lay_over(
                &mut all,
                &json!({
                    "intermediate_size": 14336, "num_key_value_heads": 8,
                    "max_position_embeddings": 131_072, "sliding_window": 4096,
                }),
            );
        }
        config::lay_over(&mut all, value);
        LlamaConfig::read(&all, origin)
    }

    /// Reads a config that has every field.
    pub(super) fn read(all: &Value, origin: &str) -> Result<LlamaConfig> {
        let mut read: LlamaConfig = config::parse(origin, all)?;
        read.qkv_bias = read.attention_bias;
        read.rotary = Some(rope::rotary(all, read.head_width(), read.max_position_embeddings, origin)?);
        Ok(read)
    }

    /// Values of a head.
    pub fn head_width(&self) -> usize {
        self.head_dim.unwrap_or(self.hidden_size / self.num_attention_heads.max(1))
    }
}

/// Tokens, blocks with rotary positions, a norm, and a head that is the token table where they are tied.
pub struct Llama {
    tokens: Embedding,
    blocks: Vec<Block>,
    norm: Norm,
    head: Linear,
    rotary: Rotary,
    config: LlamaConfig,
}

impl Llama {
    /// Reads the model: `model` with its layers, and `lm_head`.
    pub fn load(weights: &Weights, config: &LlamaConfig, origin: &str) -> Result<Llama> {
        Self::load_parts(&weights.pp("model"), weights, config, origin)
    }

    /// Reads the layers below `model`, and `lm_head` below `weights`.
    pub fn load_parts(
        model: &Weights,
        weights: &Weights,
        config: &LlamaConfig,
        origin: &str,
    ) -> Result<Llama> {
        let c = config;
        let (width, heads) = (c.hidden_size, c.num_attention_heads);
        let kv_heads = c.num_key_value_heads.unwrap_or(heads);
        for (field, value) in [
            ("hidden_size", width),
            ("intermediate_size", c.intermediate_size),
            ("num_attention_heads", heads),
            ("num_key_value_heads", kv_heads),
            ("head_dim", c.head_width()),
        ] {
            config::check_width(origin, field, value)?;
        }
        config::check_layers(origin, c.num_hidden_layers)?;
        config::check_epsilon(origin, "rms_norm_eps", c.rms_norm_eps)?;
        config::check_table(origin, c.vocab_size, c.max_position_embeddings)?;
        let Some(rotary) = c.rotary.clone() else {
            return config::refuse(origin, "no rotary positions are known");
        };
        let activation = config::activation(origin, &c.hidden_act)?;
        let sizes = |layer: usize| RmsConfig {
            heads: Heads {
                width,
                heads,
                kv_heads,
                head_width: c.head_width(),
                qkv_bias: c.qkv_bias,
                output_bias: c.attention_bias,
                window: c.sliding_window.filter(|_| layer >= c.first_window),
            },
            inner: c.intermediate_size,
            activation,
            mlp_bias: c.mlp_bias,
            epsilon: c.rms_norm_eps,
        };
        let blocks = (0..c.num_hidden_layers)
            .map(|layer| Block::load_rms(&model.pp("layers").pp(layer), &block::LLAMA, &sizes(layer)))
            .collect::<dari_nn::Result<_>>()?;
        let table = model.pp("embed_tokens");
        let head = match c.tie_word_embeddings || !weights.has("lm_head.weight") {
            true => Linear::new(table.weight("weight", &[c.vocab_size, width], Init::Normal(0.02))?, None)?,
            false => Linear::load(&weights.pp("lm_head"), width, c.vocab_size, false)?,
        };
        Ok(Llama {
            tokens: Embedding::load(&table, c.vocab_size, width)?,
            blocks,
            norm: Norm::rms(&model.pp("norm"), width, c.rms_norm_eps)?,
            head,
            rotary,
            config: config.clone(),
        })
    }
}

impl Llama {
    /// What tokens of texts of these lengths see, and where they stand.
    fn mask(&self, lengths: &[usize]) -> Mask {
        let places: Vec<usize> = lengths.iter().flat_map(|&length| 0..length).collect();
        let longest = lengths.iter().max().copied().unwrap_or(0);
        Mask { turns: Some(Arc::new(self.rotary.turns(&places, longest))), ..Mask::packed(lengths) }
    }
}

impl CausalLm for Llama {
    fn vocabulary(&self) -> usize {
        self.config.vocab_size
    }

    fn context(&self) -> usize {
        (self.config.max_position_embeddings as f64 * self.rotary.reach()) as usize
    }

    fn width(&self) -> usize {
        self.config.hidden_size
    }

    fn layers(&self) -> usize {
        self.blocks.len()
    }

    fn embed(&self, ids: &Tensor) -> Result<Tensor> {
        Ok(self.tokens.forward(ids)?)
    }

    fn forward(&self, x: &Tensor, lengths: &[usize]) -> Result<Tensor> {
        let mask = self.mask(lengths);
        Ok(self.norm.forward(&forward_stack(&self.blocks, x, &mask)?)?)
    }

    fn rollout(&self, x: &Tensor) -> Result<Tensor> {
        Ok(block::rollout(&self.blocks, x, &self.mask(&[x.dim(1)?]))?)
    }

    fn with_past(&self, x: &Tensor, caches: &mut [Cache], wanted: usize) -> Result<Tensor> {
        let length = x.dim(1)?;
        let places: Vec<usize> = caches.iter().flat_map(|cache| cache.len()..cache.len() + length).collect();
        let longest = places.iter().max().map_or(0, |place| place + 1);
        let turns = Some(Arc::new(self.rotary.turns(&places, longest)));
        let x = forward_stack_past(&self.blocks, x, &mut Past { caches, turns, wanted })?;
        Ok(self.norm.forward(&x)?)
    }

    fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        Ok(self.head.forward(hidden)?)
    }
}
