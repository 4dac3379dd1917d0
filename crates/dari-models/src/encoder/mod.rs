//! Pixels to token embeddings.

pub mod clip_resnet;
pub mod clip_vision;
pub mod resnet;
pub mod siglip_vision;
pub mod vit;

use candle_core::Tensor;

/// What a vision tower gives.
#[derive(Clone, Debug)]
pub struct Features {
    /// Every token behind the last block, `[batch, tokens, width]`.
    pub tokens: Tensor,
    /// One vector a picture, `[batch, width]`.
    pub pooled: Tensor,
}
