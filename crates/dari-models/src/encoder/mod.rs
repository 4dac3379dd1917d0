//! Pixels to token embeddings.

pub mod clip_resnet;
pub mod clip_vision;
pub mod resnet;
pub mod siglip_vision;
pub mod vit;

use candle_core::Tensor;
use dari_nn::{Mask, Weights};
use serde_json::Value;

use crate::{Result, config};

/// What a vision tower gives.
#[derive(Clone, Debug)]
pub struct Features {
    /// Every token behind the last block, `[batch, tokens, width]`.
    pub tokens: Tensor,
    /// One vector a picture, `[batch, width]`.
    pub pooled: Tensor,
}

/// A vision tower whose tokens a bridge takes.
pub enum Tower {
    /// CLIP's, with a class token.
    Clip(clip_vision::ClipVision),
    /// SigLIP's.
    Siglip(Box<siglip_vision::SiglipVision>),
}

impl Tower {
    /// Reads the tower that a `vision_config` describes.
    pub fn load(weights: &Weights, vision: &Value, origin: &str) -> Result<Tower> {
        match vision.get("model_type").and_then(Value::as_str) {
            Some("clip_vision_model") => {
                let config = config::parse(origin, vision)?;
                Ok(Tower::Clip(clip_vision::ClipVision::load(weights, &config, origin)?))
            }
            Some("siglip_vision_model") => {
                let mut config: siglip_vision::SiglipVisionConfig = config::parse(origin, vision)?;
                // The head is for embedding, which a bridge does not ask for.
                config.vision_use_head = false;
                config.num_patches = None;
                Ok(Tower::Siglip(Box::new(siglip_vision::SiglipVision::load(weights, &config, origin)?)))
            }
            other => config::refuse(
                origin,
                format!(
                    "`vision_config.model_type` is `{}`; known are clip_vision_model, siglip_vision_model",
                    other.unwrap_or("")
                ),
            ),
        }
    }

    /// Values of a token.
    pub fn width(&self) -> usize {
        match self {
            Tower::Clip(tower) => tower.width(),
            Tower::Siglip(tower) => tower.width(),
        }
    }

    /// The side of its pictures, in pixels.
    pub fn side(&self) -> usize {
        match self {
            Tower::Clip(tower) => tower.size(),
            Tower::Siglip(tower) => tower.size().unwrap_or(0),
        }
    }

    /// Tokens of a picture, the class token included.
    pub fn tokens(&self) -> usize {
        match self {
            Tower::Clip(tower) => tower.patches() + 1,
            Tower::Siglip(tower) => tower.patches(),
        }
    }

    /// All tokens behind the last norm.
    pub fn normed(&self, pixels: &Tensor) -> Result<Tensor> {
        match self {
            Tower::Clip(tower) => Ok(tower.forward(pixels)?.tokens),
            Tower::Siglip(tower) => Ok(tower.forward(pixels, None)?.tokens),
        }
    }

    /// All tokens behind some layers, before any last norm: 0 for the embeddings, -1 for the last.
    pub fn behind(&self, pixels: &Tensor, layers: &[i64]) -> Result<Vec<Tensor>> {
        let (x, blocks) = match self {
            Tower::Clip(tower) => tower.begin(pixels)?,
            Tower::Siglip(tower) => tower.begin(pixels)?,
        };
        let count = blocks.len() as i64 + 1;
        let mut places = Vec::with_capacity(layers.len());
        for &layer in layers {
            let place = if layer < 0 { layer + count } else { layer };
            match usize::try_from(place).ok().filter(|_| place < count) {
                Some(place) => places.push(place),
                None => {
                    let problem = format!("layer {layer} is asked for, it has {}", count - 1);
                    return config::refuse("the vision tower", problem);
                }
            }
        }
        let last = places.iter().max().copied().unwrap_or(0);
        let mut states = vec![x];
        for block in &blocks[..last] {
            let next = block.forward(&states[states.len() - 1], &Mask::none())?;
            states.push(next);
        }
        Ok(places.into_iter().map(|place| states[place].clone()).collect())
    }
}
