//! SigLIP's text tower (Zhai et al. 2023; `SiglipTextModel` of transformers).

use candle_core::Tensor;
use dari_nn::attention::{Mask, Places};
use dari_nn::{Linear, Weights};
use serde::Deserialize;

use super::text_tower::TextTower;
use crate::Result;
use crate::capability::Tokens;
use crate::config::{check_width, sizes};

/// `text_config` of a `siglip` checkpoint.
#[derive(Clone, Debug, Deserialize)]
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
        }
    }
}

/// The tower, seeing everything, and a head on the last token.
pub struct SiglipText {
    tower: TextTower,
    head: Linear,
}

impl SiglipText {
    /// Reads the tower below `text_model`.
    pub fn load(weights: &Weights, config: &SiglipTextConfig, origin: &str) -> Result<SiglipText> {
        let (vocabulary, positions) = (config.vocab_size, config.max_position_embeddings);
        let outputs = config.projection_size.unwrap_or(config.hidden_size);
        check_width(origin, "projection_size", outputs)?;
        Ok(SiglipText {
            tower: TextTower::load(weights, &sizes!(config, origin), vocabulary, positions)?,
            head: Linear::load(&weights.pp("head"), config.hidden_size, outputs, true)?,
        })
    }

    /// Every token behind the last norm, `[batch, tokens, width]`. Padding is seen, as in training.
    pub fn forward(&self, tokens: &Tokens) -> Result<Tensor> {
        self.tower.forward(tokens, &Mask::none())
    }

    /// One vector a text, `[batch, projection]`.
    pub fn pooled(&self, tokens: &Tokens) -> Result<Tensor> {
        let last = tokens.ids.first().map_or(0, Vec::len).saturating_sub(1);
        let last = Places::all_at(last, tokens.ids.len());
        Ok(self.head.forward(&self.tower.forward_at(tokens, &Mask::none(), &last)?)?)
    }
}
