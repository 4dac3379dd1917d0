//! CLIP's text tower (Radford et al. 2021; `CLIPTextModel` of transformers).

use candle_core::Tensor;
use dari_nn::attention::Mask;
use dari_nn::{Weights, pool};
use serde::Deserialize;

use super::text_tower::TextTower;
use crate::Result;
use crate::capability::Tokens;
use crate::config::sizes;

/// `text_config` of a `clip` checkpoint.
#[derive(Clone, Debug, Deserialize)]
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
    pub eos_token_id: Option<u32>,
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
            eos_token_id: Some(49407),
        }
    }
}

/// The tower, looking back only, and the vector at the end of the text.
pub struct ClipText {
    tower: TextTower,
    end: Option<u32>,
}

impl ClipText {
    /// Reads the tower below `text_model`.
    pub fn load(weights: &Weights, config: &ClipTextConfig, origin: &str) -> Result<ClipText> {
        let (vocabulary, positions) = (config.vocab_size, config.max_position_embeddings);
        Ok(ClipText {
            tower: TextTower::load(weights, &sizes!(config, origin), vocabulary, positions)?,
            // 2 is what the first published configs say by mistake; the largest id is meant.
            end: config.eos_token_id.filter(|&id| id != 2),
        })
    }

    /// Every token behind the last norm, `[batch, tokens, width]`.
    pub fn forward(&self, tokens: &Tokens) -> Result<Tensor> {
        // No padding mask: padding stands behind the end of the text, and nothing looks ahead.
        self.tower.forward(tokens, &Mask::causal())
    }

    /// One vector a text, `[batch, width]`: the token at its end.
    pub fn pooled(&self, tokens: &Tokens) -> Result<Tensor> {
        let places = pool::end_of_text(&tokens.ids, self.end);
        // What stands behind every text's end is never looked at: it need not be computed.
        let longest = places.iter().max().map_or(0, |place| place + 1);
        Ok(pool::places(&self.forward(&tokens.cut(longest))?, &places)?)
    }
}
