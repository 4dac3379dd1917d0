//! CLIP with a ViT tower (Radford et al. 2021; `CLIPModel` of transformers).

use candle_core::Tensor;
use dari_nn::linear::product;
use dari_nn::{Init, Linear, Weights, loss};
use serde::Deserialize;
use serde_json::Value;

use crate::capability::{Contrastive, EmbedPictures, EmbedTexts, Matching, Tokens};
use crate::encoder::clip_vision::{ClipVision, ClipVisionConfig};
use crate::language::clip_text::{ClipText, ClipTextConfig};
use crate::{Result, config};

/// `config.json` of a `clip` checkpoint.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
#[allow(missing_docs)] // the checkpoint's own field names
pub struct ClipConfig {
    pub text_config: ClipTextConfig,
    pub vision_config: ClipVisionConfig,
    pub projection_dim: usize,
    pub logit_scale_init_value: f32,
    /// open_clip's models trained with a bias on the logits.
    #[serde(skip)]
    pub logit_bias: bool,
}

impl Default for ClipConfig {
    fn default() -> Self {
        ClipConfig {
            text_config: ClipTextConfig::default(),
            vision_config: ClipVisionConfig::default(),
            projection_dim: 512,
            logit_scale_init_value: 2.6592,
            logit_bias: false,
        }
    }
}

impl ClipConfig {
    /// Reads a config; the old `…_config_dict` forms lie over the plain ones.
    pub fn parse(value: &Value, origin: &str) -> Result<ClipConfig> {
        let mut value = value.clone();
        for (old, new) in [("text_config_dict", "text_config"), ("vision_config_dict", "vision_config")] {
            let Some(Value::Object(over)) = value.get(old).cloned() else {
                continue;
            };
            match value.get_mut(new) {
                Some(Value::Object(under)) => under.extend(over),
                _ => value[new] = Value::Object(over),
            }
        }
        for tower in ["text_config", "vision_config"] {
            if value.get(tower).is_some_and(Value::is_null) {
                value[tower] = Value::Object(Default::default());
            }
        }
        config::parse(origin, &value)
    }
}

/// Two towers, a projection behind each, and the temperature.
pub struct Clip {
    vision: ClipVision,
    text: ClipText,
    visual_projection: Linear,
    text_projection: Linear,
    logit_scale: Tensor,
    logit_bias: Option<Tensor>,
    dim: usize,
}

impl Clip {
    /// Reads the whole model.
    pub fn load(weights: &Weights, config: &ClipConfig, origin: &str) -> Result<Clip> {
        let (vision, text, dim) = (&config.vision_config, &config.text_config, config.projection_dim);
        config::check_width(origin, "projection_dim", dim)?;
        Ok(Clip {
            vision: ClipVision::load(&weights.pp("vision_model"), vision, origin)?,
            text: ClipText::load(&weights.pp("text_model"), text, origin)?,
            visual_projection: Linear::load(
                &weights.pp("visual_projection"),
                vision.hidden_size,
                dim,
                false,
            )?,
            text_projection: Linear::load(&weights.pp("text_projection"), text.hidden_size, dim, false)?,
            logit_scale: weights.tensor("logit_scale", &[], Init::Constant(config.logit_scale_init_value))?,
            logit_bias: if config.logit_bias {
                Some(weights.tensor("logit_bias", &[], Init::ZEROS)?)
            } else {
                None
            },
            dim,
        })
    }

    /// The vision tower, for bridges.
    pub fn vision(&self) -> &ClipVision {
        &self.vision
    }

    /// The text tower.
    pub fn text(&self) -> &ClipText {
        &self.text
    }
}

impl EmbedPictures for Clip {
    fn picture_dim(&self) -> usize {
        self.dim
    }

    fn embed_pictures(&self, pixels: &Tensor) -> Result<Tensor> {
        Ok(self.visual_projection.forward(&self.vision.pooled(pixels, None)?)?)
    }

    fn patches(&self) -> usize {
        self.vision.patches()
    }

    fn embed_patches(&self, pixels: &Tensor, kept: &Tensor) -> Result<Tensor> {
        Ok(self.visual_projection.forward(&self.vision.pooled(pixels, Some(kept))?)?)
    }
}

impl EmbedTexts for Clip {
    fn text_dim(&self) -> usize {
        self.dim
    }

    fn embed_texts(&self, tokens: &Tokens) -> Result<Tensor> {
        Ok(self.text_projection.forward(&self.text.pooled(tokens)?)?)
    }
}

impl Contrastive for Clip {
    fn logits(&self, pictures: &Tensor, texts: &Tensor) -> Result<Tensor> {
        let logits = product(pictures, texts, None)?.broadcast_mul(&self.logit_scale.exp()?)?;
        Ok(match &self.logit_bias {
            Some(bias) => logits.broadcast_add(bias)?,
            None => logits,
        })
    }

    fn matching(&self) -> Matching {
        match self.logit_bias {
            // Only the pairwise sigmoid loss learns a bias.
            Some(_) => Matching::Sigmoid,
            None => Matching::Softmax,
        }
    }

    fn loss(&self, pictures: &Tensor, texts: &Tensor) -> Result<Tensor> {
        Ok(loss::info_nce(pictures, texts, &self.logit_scale)?)
    }

    fn log_scale(&self) -> Result<f32> {
        Ok(self.logit_scale.to_scalar()?)
    }
}
