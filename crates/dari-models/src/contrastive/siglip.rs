//! SigLIP and SigLIP 2 (Zhai et al. 2023, Tschannen et al. 2025; `SiglipModel` of transformers, and
//! `Siglip2Model` for pictures of any shape).

use candle_core::Tensor;
use dari_nn::linear::product;
use dari_nn::{Init, Weights, loss};
use serde::Deserialize;
use serde_json::Value;

use crate::capability::{Contrastive, EmbedPictures, EmbedTexts, Look, Matching, Seen, Tokens};
use crate::encoder::siglip_vision::{SiglipVision, SiglipVisionConfig};
use crate::language::siglip_text::{SiglipText, SiglipTextConfig};
use crate::{Result, config};

/// `config.json` of a `siglip` checkpoint.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs)] // the checkpoint's own field names
pub struct SiglipConfig {
    pub text_config: SiglipTextConfig,
    pub vision_config: SiglipVisionConfig,
}

impl SiglipConfig {
    /// Reads and checks a config.
    pub fn parse(value: &Value, origin: &str) -> Result<SiglipConfig> {
        let mut parsed: SiglipConfig = config::parse(origin, value)?;
        if value.get("model_type").and_then(Value::as_str) == Some("siglip2") {
            parsed.vision_config.num_patches.get_or_insert(256);
        } else {
            parsed.vision_config.num_patches = None;
        }
        let text = parsed.text_config.projection_size.unwrap_or(parsed.text_config.hidden_size);
        let vision = parsed.vision_config.hidden_size;
        if text != vision {
            return config::refuse(
                origin,
                format!("the text tower gives {text} values, the vision tower {vision}: they must be equal"),
            );
        }
        Ok(parsed)
    }
}

/// Two towers whose heads meet directly, a temperature and a bias.
pub struct Siglip {
    vision: SiglipVision,
    text: SiglipText,
    logit_scale: Tensor,
    logit_bias: Tensor,
    dim: usize,
}

impl Siglip {
    /// Reads the whole model.
    pub fn load(weights: &Weights, config: &SiglipConfig, origin: &str) -> Result<Siglip> {
        Ok(Siglip {
            vision: SiglipVision::load(&weights.pp("vision_model"), &config.vision_config, origin)?,
            text: SiglipText::load(&weights.pp("text_model"), &config.text_config, origin)?,
            // The paper's starting point: temperature 10, bias -10.
            logit_scale: weights.tensor("logit_scale", &[1], Init::Constant(10f32.ln()))?,
            logit_bias: weights.tensor("logit_bias", &[1], Init::Constant(-10.0))?,
            dim: config.vision_config.hidden_size,
        })
    }

    /// The vision tower by itself.
    pub fn into_vision(self) -> SiglipVision {
        self.vision
    }

    /// The vision tower, for bridges.
    pub fn vision(&self) -> &SiglipVision {
        &self.vision
    }

    /// The text tower.
    pub fn text(&self) -> &SiglipText {
        &self.text
    }
}

impl EmbedPictures for Siglip {
    fn picture_dim(&self) -> usize {
        self.dim
    }

    fn embed_pictures(&self, pixels: &Tensor) -> Result<Tensor> {
        Ok(self.vision.forward(pixels, None)?.pooled)
    }

    fn patches(&self) -> usize {
        self.vision.patches()
    }

    fn embed_patches(&self, pixels: &Tensor, kept: &Tensor) -> Result<Tensor> {
        Ok(self.vision.forward(pixels, Some(kept))?.pooled)
    }
}

impl Look for Siglip {
    fn tokens(&self, pixels: &Tensor) -> Result<Seen> {
        self.vision.before_last(pixels)
    }

    fn embed_tokens(&self, tokens: &Tensor) -> Result<Tensor> {
        self.vision.last(tokens)
    }

    fn embed_places(&self, tokens: &Tensor) -> Result<Tensor> {
        self.vision.last(&tokens.transpose(0, 1)?.contiguous()?)
    }
}

impl EmbedTexts for Siglip {
    fn text_dim(&self) -> usize {
        self.dim
    }

    fn embed_texts(&self, tokens: &Tokens) -> Result<Tensor> {
        self.text.pooled(tokens)
    }
}

impl Contrastive for Siglip {
    fn logits(&self, pictures: &Tensor, texts: &Tensor) -> Result<Tensor> {
        let logits = product(pictures, texts, None)?.broadcast_mul(&self.logit_scale.exp()?)?;
        Ok(logits.broadcast_add(&self.logit_bias)?)
    }

    fn matching(&self) -> Matching {
        Matching::Sigmoid
    }

    fn loss(&self, pictures: &Tensor, texts: &Tensor) -> Result<Tensor> {
        Ok(loss::pairwise_sigmoid(pictures, texts, &self.logit_scale, &self.logit_bias)?)
    }

    fn log_scale(&self) -> Result<f32> {
        Ok(self.logit_scale.squeeze(0)?.to_scalar()?)
    }
}
