//! CLIP's vision tower (Radford et al. 2021; `CLIPVisionModel` of transformers).

use candle_core::Tensor;
use dari_nn::attention::{Mask, Places};
use dari_nn::block::{self, Block, Order, forward_stack, forward_stack_at};
use dari_nn::patch::{self, PatchEmbedding};
use dari_nn::{Init, Norm, Weights, pool};
use serde::Deserialize;

use super::{Features, VisionTower};
use crate::Result;
use crate::capability::Seen;
use crate::config::{self, sizes};

/// `vision_config` of a `clip` checkpoint.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
#[allow(missing_docs)] // the checkpoint's own field names
pub struct ClipVisionConfig {
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub num_channels: usize,
    pub image_size: usize,
    pub patch_size: usize,
    pub hidden_act: String,
    pub layer_norm_eps: f64,
}

impl Default for ClipVisionConfig {
    fn default() -> Self {
        ClipVisionConfig {
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            num_channels: 3,
            image_size: 224,
            patch_size: 32,
            hidden_act: "quick_gelu".into(),
            layer_norm_eps: 1e-5,
        }
    }
}

/// Patches and a class token, a norm, the blocks, and a norm over the class token.
pub struct ClipVision {
    class: Tensor,
    patches: PatchEmbedding,
    positions: Tensor,
    pre_norm: Norm,
    blocks: Vec<Block>,
    post_norm: Norm,
    size: usize,
}

impl ClipVision {
    /// Reads the tower below `vision_model`.
    pub fn load(weights: &Weights, config: &ClipVisionConfig, origin: &str) -> Result<ClipVision> {
        let c = config;
        let block = sizes!(c, origin).block(Order::Pre, true)?;
        let side = config::check_picture(origin, c.image_size, c.patch_size, c.num_channels)?;
        let embeddings = weights.pp("embeddings");
        let tokens = side * side + 1;
        Ok(ClipVision {
            size: c.image_size,
            class: embeddings.tensor("class_embedding", &[c.hidden_size], Init::fan_in(c.hidden_size))?,
            patches: PatchEmbedding::load(
                &embeddings.pp("patch_embedding"),
                c.num_channels,
                c.patch_size,
                c.hidden_size,
                false,
            )?,
            positions: embeddings.tensor(
                "position_embedding.weight",
                &[tokens, c.hidden_size],
                Init::Normal(0.02),
            )?,
            // The published checkpoints spell it so.
            pre_norm: Norm::layer(&weights.pp("pre_layrnorm"), c.hidden_size, c.layer_norm_eps)?,
            blocks: Block::load_stack(
                &weights.pp("encoder.layers"),
                &block::CLIP,
                &block,
                c.num_hidden_layers,
            )?,
            post_norm: Norm::layer(&weights.pp("post_layernorm"), c.hidden_size, c.layer_norm_eps)?,
        })
    }

    /// The side of its pictures, in pixels.
    pub fn size(&self) -> usize {
        self.size
    }

    /// `[batch, channels, size, size]` to features; the pooled vector is the normed class token.
    pub fn forward(&self, pixels: &Tensor) -> Result<Features> {
        let tokens = forward_stack(&self.blocks, &self.embed(pixels, None)?, &Mask::none())?;
        let pooled = self.post_norm.forward(&pool::token(&tokens, 0)?)?;
        Ok(Features { tokens, pooled })
    }

    /// How many patches a picture has.
    pub fn patches(&self) -> usize {
        self.positions.dims()[0] - 1
    }

    /// The pooled vector alone, `[batch, width]`: the last block is computed for the class token. Of
    /// all patches, or of those that `kept`, `[batch, kept]`, numbers.
    pub fn pooled(&self, pixels: &Tensor, kept: Option<&Tensor>) -> Result<Tensor> {
        let x = self.embed(pixels, kept)?;
        let class = Places::all_at(0, x.dim(0)?);
        Ok(self.post_norm.forward(&forward_stack_at(&self.blocks, &x, &Mask::none(), &class)?)?)
    }

    /// What the last block finds, of `[1, channels, size, size]`.
    pub fn before_last(&self, pixels: &Tensor) -> Result<Seen> {
        let side = self.patches().isqrt();
        let (others, _) = block::but_the_last(&self.blocks);
        let tokens = forward_stack(others, &self.embed(pixels, None)?, &Mask::none())?;
        Ok(Seen { tokens, grid: [side, side] })
    }

    /// From what the last block finds to the pooled vector, `[1, width]`.
    pub fn last(&self, tokens: &Tensor) -> Result<Tensor> {
        let (_, last) = block::but_the_last(&self.blocks);
        let class = Places::all_at(0, tokens.dim(0)?);
        Ok(self.post_norm.forward(&forward_stack_at(last, tokens, &Mask::none(), &class)?)?)
    }

    fn embed(&self, pixels: &Tensor, kept: Option<&Tensor>) -> Result<Tensor> {
        let x = patch::prepend_class(&self.class, &self.patches.forward(pixels)?)?;
        let mut x = x.broadcast_add(&self.positions)?;
        if let Some(kept) = kept {
            let patches = patch::keep(&x.narrow(1, 1, self.patches())?, kept)?;
            x = Tensor::cat(&[&x.narrow(1, 0, 1)?, &patches], 1)?;
        }
        Ok(self.pre_norm.forward(&x)?)
    }
}

impl VisionTower for ClipVision {
    fn width(&self) -> usize {
        self.positions.dims()[1]
    }

    fn side(&self) -> Option<usize> {
        Some(self.size)
    }

    fn places(&self, _side: usize) -> usize {
        self.patches()
    }

    fn before(&self) -> usize {
        1
    }

    fn last(&self, pixels: &Tensor) -> Result<Tensor> {
        Ok(self.forward(pixels)?.tokens)
    }

    fn stack(&self, pixels: &Tensor) -> Result<(Tensor, &[Block])> {
        Ok((self.embed(pixels, None)?, &self.blocks))
    }
}
