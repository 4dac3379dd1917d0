//! SigLIP's text tower (Zhai et al. 2023; `SiglipTextModel` of transformers).

use candle_core::Tensor;
use dari_nn::attention::Mask;
use dari_nn::block::{self, Block, Order, forward_stack};
use dari_nn::embedding::Embedding;
use dari_nn::{Init, Linear, Norm, Weights, pool};
use serde::{Deserialize, Serialize};

use crate::capability::Tokens;
use crate::{Result, config};

/// `text_config` of a `siglip` checkpoint.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)] // the checkpoint's own field names
pub struct SiglipTextConfig {
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub max_position_embeddings: usize,
    pub hidden_act: String,
    pub layer_norm_eps: f64,
    pub projection_size: Option<usize>,
    pub bos_token_id: Option<u32>,
    pub eos_token_id: Option<u32>,
    pub pad_token_id: Option<u32>,
}

impl Default for SiglipTextConfig {
    fn default() -> Self {
        SiglipTextConfig {
            vocab_size: 32000,
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            max_position_embeddings: 64,
            hidden_act: "gelu_pytorch_tanh".into(),
            layer_norm_eps: 1e-6,
            projection_size: None,
            bos_token_id: Some(49406),
            eos_token_id: Some(49407),
            pad_token_id: Some(1),
        }
    }
}

/// Tokens and positions, blocks that see everything, a norm, and a head on the last token.
pub struct SiglipText {
    tokens: Embedding,
    positions: Tensor,
    blocks: Vec<Block>,
    norm: Norm,
    head: Linear,
}

impl SiglipText {
    /// Reads the tower below `text_model`.
    pub fn load(weights: &Weights, config: &SiglipTextConfig, origin: &str) -> Result<SiglipText> {
        let c = config;
        config::check_tower(
            origin,
            c.hidden_size,
            c.intermediate_size,
            c.num_hidden_layers,
            c.num_attention_heads,
        )?;
        config::check_table(origin, c.vocab_size, c.max_position_embeddings)?;
        let block = block::Config {
            width: c.hidden_size,
            inner: c.intermediate_size,
            heads: c.num_attention_heads,
            activation: config::activation(origin, &c.hidden_act)?,
            epsilon: c.layer_norm_eps,
            order: Order::Pre,
            qkv_bias: true,
        };
        let embeddings = weights.pp("embeddings");
        let shape = [c.max_position_embeddings, c.hidden_size];
        Ok(SiglipText {
            tokens: Embedding::load(
                &embeddings.pp("token_embedding"),
                c.vocab_size,
                c.hidden_size,
            )?,
            positions: embeddings.tensor(
                "position_embedding.weight",
                &shape,
                Init::Normal(0.01),
            )?,
            blocks: Block::load_stack(
                &weights.pp("encoder.layers"),
                &block::CLIP,
                &block,
                c.num_hidden_layers,
            )?,
            norm: Norm::layer(
                &weights.pp("final_layer_norm"),
                c.hidden_size,
                c.layer_norm_eps,
            )?,
            head: Linear::load(
                &weights.pp("head"),
                c.hidden_size,
                c.projection_size.unwrap_or(c.hidden_size),
                true,
            )?,
        })
    }

    /// Every token behind the last norm, `[batch, tokens, width]`. Padding is seen, as in training.
    pub fn forward(&self, tokens: &Tokens) -> Result<Tensor> {
        let x = self
            .tokens
            .forward(&tokens.tensor(self.positions.device())?)?;
        let positions = self.positions.narrow(0, 0, x.dim(1)?)?;
        let x = x.broadcast_add(&positions)?;
        let x = forward_stack(&self.blocks, &x, &Mask::none())?;
        Ok(self.norm.forward(&x)?)
    }

    /// One vector a text, `[batch, projection]`.
    pub fn pooled(&self, tokens: &Tokens) -> Result<Tensor> {
        Ok(self.head.forward(&pool::last(&self.forward(tokens)?)?)?)
    }
}
