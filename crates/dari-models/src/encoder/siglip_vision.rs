//! SigLIP's vision tower (Zhai et al. 2023; `SiglipVisionModel` of transformers).

use candle_core::Tensor;
use dari_nn::attention::Mask;
use dari_nn::block::{self, Block, Order, forward_stack};
use dari_nn::patch::{self, PatchEmbedding};
use dari_nn::pool::{self, AttentionPool};
use dari_nn::{Init, Norm, Weights};
use serde::Deserialize;

use super::Features;
use crate::Result;
use crate::config::{self, sizes};

/// `vision_config` of a `siglip` checkpoint.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
#[allow(missing_docs)] // the checkpoint's own field names
pub struct SiglipVisionConfig {
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub num_channels: usize,
    pub image_size: usize,
    pub patch_size: usize,
    pub hidden_act: String,
    pub layer_norm_eps: f64,
    pub vision_use_head: bool,
}

impl Default for SiglipVisionConfig {
    fn default() -> Self {
        SiglipVisionConfig {
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            num_channels: 3,
            image_size: 224,
            patch_size: 16,
            hidden_act: "gelu_pytorch_tanh".into(),
            layer_norm_eps: 1e-6,
            vision_use_head: true,
        }
    }
}

/// Patches, the blocks, a norm, and a head that attends to all patches.
pub struct SiglipVision {
    patches: PatchEmbedding,
    positions: Tensor,
    blocks: Vec<Block>,
    post_norm: Norm,
    head: Option<AttentionPool>,
    size: usize,
}

impl SiglipVision {
    /// Reads the tower below `vision_model`.
    pub fn load(weights: &Weights, config: &SiglipVisionConfig, origin: &str) -> Result<SiglipVision> {
        let c = config;
        let block = sizes!(c, origin).block(Order::Pre, true)?;
        let block::Config { width, inner, heads, activation, epsilon, .. } = block;
        let side = config::check_picture(origin, c.image_size, c.patch_size, c.num_channels)?;
        let embeddings = weights.pp("embeddings");
        let head = if c.vision_use_head {
            Some(AttentionPool::load(&weights.pp("head"), width, inner, heads, activation, epsilon)?)
        } else {
            None
        };
        Ok(SiglipVision {
            size: c.image_size,
            patches: PatchEmbedding::load(
                &embeddings.pp("patch_embedding"),
                c.num_channels,
                c.patch_size,
                width,
                true,
            )?,
            positions: embeddings.tensor(
                "position_embedding.weight",
                &[side * side, width],
                Init::fan_in(width),
            )?,
            blocks: Block::load_stack(
                &weights.pp("encoder.layers"),
                &block::CLIP,
                &block,
                c.num_hidden_layers,
            )?,
            post_norm: Norm::layer(&weights.pp("post_layernorm"), width, epsilon)?,
            head,
        })
    }

    /// The side of its pictures, in pixels.
    pub fn size(&self) -> usize {
        self.size
    }

    /// How many patches a picture has.
    pub fn patches(&self) -> usize {
        self.positions.dims()[0]
    }

    /// `[batch, channels, size, size]` to features; pooled by the head, by the mean without one. Of
    /// all patches, or of those that `kept`, `[batch, kept]`, numbers.
    pub fn forward(&self, pixels: &Tensor, kept: Option<&Tensor>) -> Result<Features> {
        let mut x = self.patches.forward(pixels)?.broadcast_add(&self.positions)?;
        if let Some(kept) = kept {
            x = patch::keep(&x, kept)?;
        }
        let x = forward_stack(&self.blocks, &x, &Mask::none())?;
        let tokens = self.post_norm.forward(&x)?;
        let pooled = match &self.head {
            Some(head) => head.forward(&tokens)?,
            None => pool::mean(&tokens, None)?,
        };
        Ok(Features { tokens, pooled })
    }
}
