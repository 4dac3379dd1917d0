//! CLIP's text tower (Radford et al. 2021; `CLIPTextModel` of transformers).

use candle_core::Tensor;
use dari_nn::attention::Mask;
use dari_nn::block::{self, Block, Order, forward_stack};
use dari_nn::embedding::Embedding;
use dari_nn::{Init, Norm, Weights, pool};
use serde::{Deserialize, Serialize};

use crate::capability::Tokens;
use crate::{Result, config};

/// `text_config` of a `clip` checkpoint.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)] // the checkpoint's own field names
pub struct ClipTextConfig {
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub max_position_embeddings: usize,
    pub hidden_act: String,
    pub layer_norm_eps: f64,
    pub bos_token_id: Option<u32>,
    pub eos_token_id: Option<u32>,
    pub pad_token_id: Option<u32>,
}

impl Default for ClipTextConfig {
    fn default() -> Self {
        ClipTextConfig {
            vocab_size: 49408,
            hidden_size: 512,
            intermediate_size: 2048,
            num_hidden_layers: 12,
            num_attention_heads: 8,
            max_position_embeddings: 77,
            hidden_act: "quick_gelu".into(),
            layer_norm_eps: 1e-5,
            bos_token_id: Some(49406),
            eos_token_id: Some(49407),
            pad_token_id: Some(1),
        }
    }
}

/// Tokens and positions, causal blocks, a norm, and the vector at the end of the text.
pub struct ClipText {
    tokens: Embedding,
    positions: Tensor,
    blocks: Vec<Block>,
    norm: Norm,
    end: Option<u32>,
}

impl ClipText {
    /// Reads the tower below `text_model`.
    pub fn load(weights: &Weights, config: &ClipTextConfig, origin: &str) -> Result<ClipText> {
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
        Ok(ClipText {
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
            // 2 is what the first published configs say by mistake; the largest id is meant.
            end: c.eos_token_id.filter(|&id| id != 2),
        })
    }

    /// Every token behind the last norm, `[batch, tokens, width]`.
    pub fn forward(&self, tokens: &Tokens) -> Result<Tensor> {
        let x = self
            .tokens
            .forward(&tokens.tensor(self.positions.device())?)?;
        let positions = self.positions.narrow(0, 0, x.dim(1)?)?;
        let x = x.broadcast_add(&positions)?;
        // No padding mask: padding stands behind the end of the text, and nothing looks ahead.
        let x = forward_stack(&self.blocks, &x, &Mask::causal())?;
        Ok(self.norm.forward(&x)?)
    }

    /// One vector a text, `[batch, width]`: the token at its end.
    pub fn pooled(&self, tokens: &Tokens) -> Result<Tensor> {
        let places = pool::end_of_text(&tokens.ids, self.end);
        // What stands behind every text's end is never looked at: it need not be computed.
        let longest = places.iter().max().map_or(0, |place| place + 1);
        Ok(pool::places(&self.forward(&tokens.cut(longest))?, &places)?)
    }
}
