//! Pixels to token embeddings.

pub mod clip_resnet;
pub mod clip_vision;
pub mod resnet;
pub mod siglip_vision;
pub mod vit;

use candle_core::Tensor;
use dari_nn::{Block, Mask, Weights};
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
pub trait VisionTower: Send + Sync {
    /// Values of a token.
    fn width(&self) -> usize;

    /// The side of its pictures, in pixels; `None` for one that takes any.
    fn side(&self) -> Option<usize>;

    /// Tokens that stand for places of a picture of this side, in pixels.
    fn places(&self, side: usize) -> usize;

    /// Tokens before them, which stand for no place.
    fn before(&self) -> usize {
        0
    }

    /// All tokens of `[batch, 3, side, side]` as the tower leaves them: `[batch, tokens, width]`.
    fn last(&self, pixels: &Tensor) -> Result<Tensor>;

    /// The tokens before the first block, and the blocks, of a tower that is a stack of them.
    fn stack(&self, _pixels: &Tensor) -> Result<(Tensor, &[Block])> {
        config::refuse("the vision tower", "it has no stack of blocks to choose layers from")
    }
}

/// All tokens behind some layers of a tower, before any last norm: 0 for the embeddings, -1 for the last.
pub fn behind(tower: &dyn VisionTower, pixels: &Tensor, layers: &[i64]) -> Result<Vec<Tensor>> {
    let (x, blocks) = tower.stack(pixels)?;
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

/// Reads the tower that a `vision_config` describes.
pub fn tower(weights: &Weights, vision: &Value, origin: &str) -> Result<Box<dyn VisionTower>> {
    match vision.get("model_type").and_then(Value::as_str) {
        Some("clip_vision_model") => {
            let config = config::parse(origin, vision)?;
            Ok(Box::new(clip_vision::ClipVision::load(weights, &config, origin)?))
        }
        Some("siglip_vision_model") => {
            let mut config: siglip_vision::SiglipVisionConfig = config::parse(origin, vision)?;
            // The head is for embedding, which a bridge does not ask for.
            config.vision_use_head = false;
            config.num_patches = None;
            Ok(Box::new(siglip_vision::SiglipVision::load(weights, &config, origin)?))
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
