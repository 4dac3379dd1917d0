//! CLIP with a ViT or a ResNet tower (Radford et al. 2021; `CLIPModel` of transformers).

use candle_core::Tensor;
use dari_nn::linear::product;
use dari_nn::{Init, Linear, Weights, loss};
use serde::Deserialize;
use serde_json::Value;

use crate::capability::{Contrastive, EmbedPictures, EmbedTexts, Look, Matching, Seen, Tokens};
use crate::encoder::VisionTower;
use crate::encoder::clip_resnet::{ClipResNet, ClipResNetConfig};
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
    /// A ResNet tower in the place of `vision_config`'s; open_clip's layout alone has such.
    #[serde(skip)]
    pub resnet: Option<ClipResNetConfig>,
}

impl Default for ClipConfig {
    fn default() -> Self {
        ClipConfig {
            text_config: ClipTextConfig::default(),
            vision_config: ClipVisionConfig::default(),
            projection_dim: 512,
            logit_scale_init_value: 2.6592,
            logit_bias: false,
            resnet: None,
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
    vision: Vision,
    text: ClipText,
    text_projection: Linear,
    logit_scale: Tensor,
    logit_bias: Option<Tensor>,
    dim: usize,
}

/// A vision tower with its way into the common space.
enum Vision {
    Vit { tower: Box<ClipVision>, projection: Linear },
    ResNet(Box<ClipResNet>),
}

impl Clip {
    /// Reads the whole model.
    pub fn load(weights: &Weights, config: &ClipConfig, origin: &str) -> Result<Clip> {
        let (vision, text, dim) = (&config.vision_config, &config.text_config, config.projection_dim);
        config::check_width(origin, "projection_dim", dim)?;
        let vision = match &config.resnet {
            Some(resnet) => {
                Vision::ResNet(Box::new(ClipResNet::load(&weights.pp("visual"), resnet, origin)?))
            }
            None => Vision::Vit {
                tower: Box::new(ClipVision::load(&weights.pp("vision_model"), vision, origin)?),
                projection: Linear::load(&weights.pp("visual_projection"), vision.hidden_size, dim, false)?,
            },
        };
        Ok(Clip {
            vision,
            text: ClipText::load(&weights.pp("text_model"), text, origin)?,
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

    /// The vision tower where it is a ViT, for bridges.
    pub fn vision(&self) -> Option<&ClipVision> {
        match &self.vision {
            Vision::Vit { tower, .. } => Some(tower),
            Vision::ResNet(_) => None,
        }
    }

    /// The vision tower where it is a ResNet.
    pub fn resnet(&self) -> Option<&ClipResNet> {
        match &self.vision {
            Vision::ResNet(tower) => Some(tower),
            Vision::Vit { .. } => None,
        }
    }

    /// The side of its pictures, in pixels.
    pub fn size(&self) -> usize {
        match &self.vision {
            Vision::Vit { tower, .. } => tower.size(),
            Vision::ResNet(tower) => tower.size(),
        }
    }

    /// The vision tower by itself.
    pub fn into_tower(self) -> Box<dyn VisionTower> {
        match self.vision {
            Vision::Vit { tower, .. } => tower,
            Vision::ResNet(tower) => tower,
        }
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
        match &self.vision {
            Vision::Vit { tower, projection } => Ok(projection.forward(&tower.pooled(pixels, None)?)?),
            Vision::ResNet(tower) => tower.pooled(pixels),
        }
    }

    fn patches(&self) -> usize {
        self.vision().map_or(0, ClipVision::patches)
    }

    fn embed_patches(&self, pixels: &Tensor, kept: &Tensor) -> Result<Tensor> {
        match &self.vision {
            Vision::Vit { tower, projection } => Ok(projection.forward(&tower.pooled(pixels, Some(kept))?)?),
            Vision::ResNet(_) => config::refuse("CLIP's ResNet tower", "it needs every place of a picture"),
        }
    }
}

impl Look for Clip {
    fn tokens(&self, pixels: &Tensor) -> Result<Seen> {
        match &self.vision {
            Vision::Vit { tower, .. } => tower.before_last(pixels),
            Vision::ResNet(tower) => tower.before_last(pixels),
        }
    }

    fn embed_tokens(&self, tokens: &Tensor) -> Result<Tensor> {
        match &self.vision {
            Vision::Vit { tower, projection } => Ok(projection.forward(&tower.last(tokens)?)?),
            Vision::ResNet(tower) => tower.pool(tokens),
        }
    }

    fn embed_places(&self, tokens: &Tensor) -> Result<Tensor> {
        match &self.vision {
            Vision::Vit { tower, projection } => {
                let places = tokens.narrow(1, 1, tower.patches())?.transpose(0, 1)?.contiguous()?;
                Ok(projection.forward(&tower.last(&places)?)?)
            }
            Vision::ResNet(tower) => tower.each(tokens),
        }
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
