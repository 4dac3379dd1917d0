//! SigLIP's vision tower (Zhai et al. 2023; `SiglipVisionModel` of transformers), and SigLIP 2's for
//! pictures of any shape (NaFlex: Tschannen et al. 2025; `Siglip2VisionModel`).

use candle_core::Tensor;
use dari_nn::attention::Mask;
use dari_nn::block::{self, Block, Order, forward_stack};
use dari_nn::patch::{self, PatchEmbedding};
use dari_nn::pool::{self, AttentionPool};
use dari_nn::{Init, Norm, Weights};
use serde::Deserialize;

use super::{Features, VisionTower};
use crate::Result;
use crate::capability::Seen;
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
    /// NaFlex: how many places the table of positions has, a square. Pictures of one size where absent.
    pub num_patches: Option<usize>,
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
            num_patches: None,
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
    size: Option<usize>,
    patch: usize,
}

impl SiglipVision {
    /// Reads the tower below `vision_model`.
    pub fn load(weights: &Weights, config: &SiglipVisionConfig, origin: &str) -> Result<SiglipVision> {
        let c = config;
        let block = sizes!(c, origin).block(Order::Pre, true)?;
        let block::Config { width, inner, heads, activation, epsilon, .. } = block;
        let (size, places) = match c.num_patches {
            None => {
                let side = config::check_picture(origin, c.image_size, c.patch_size, c.num_channels)?;
                (Some(c.image_size), side * side)
            }
            Some(places) => {
                config::check_picture(origin, c.patch_size, c.patch_size, c.num_channels)?;
                if places == 0 || places > 1 << 16 || places.isqrt().pow(2) != places {
                    let problem = format!("`num_patches` is {places}, expected a square of at most 65536");
                    return config::refuse(origin, problem);
                }
                (None, places)
            }
        };
        let embeddings = weights.pp("embeddings");
        let patches = embeddings.pp("patch_embedding");
        let head = if c.vision_use_head {
            Some(AttentionPool::load(&weights.pp("head"), width, inner, heads, activation, epsilon)?)
        } else {
            None
        };
        Ok(SiglipVision {
            size,
            patch: c.patch_size,
            patches: match size {
                Some(_) => PatchEmbedding::load(&patches, c.num_channels, c.patch_size, width, true)?,
                None => PatchEmbedding::load_linear(&patches, c.num_channels, c.patch_size, width)?,
            },
            positions: embeddings.tensor(
                "position_embedding.weight",
                &[places, width],
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

    /// The side of its pictures, in pixels; `None` where they may have any shape.
    pub fn size(&self) -> Option<usize> {
        self.size
    }

    /// The side of its patches, in pixels.
    pub fn patch(&self) -> usize {
        self.patch
    }

    /// How many patches a picture has; 0 where that differs.
    pub fn patches(&self) -> usize {
        self.size.map_or(0, |_| self.positions.dims()[0])
    }

    /// The positions of a picture of that many patches down and across, `[patches, width]`.
    pub fn positions(&self, grid: [usize; 2]) -> Result<Tensor> {
        match self.size {
            Some(_) => Ok(self.positions.clone()),
            None => Ok(patch::resize_places(&self.positions, grid)?),
        }
    }

    /// What the last block finds, of `[1, channels, height, width]`.
    pub fn before_last(&self, pixels: &Tensor) -> Result<Seen> {
        let (x, grid) = self.embed(pixels)?;
        let (others, _) = block::but_the_last(&self.blocks);
        Ok(Seen { tokens: forward_stack(others, &x, &Mask::none())?, grid })
    }

    /// The patches with their positions, and how many there are down and across.
    fn embed(&self, pixels: &Tensor) -> Result<(Tensor, [usize; 2])> {
        let (_, _, height, width) = pixels.dims4()?;
        let grid = [height / self.patch, width / self.patch];
        Ok((self.patches.forward(pixels)?.broadcast_add(&self.positions(grid)?)?, grid))
    }

    /// From what the last block finds to the pooled vector, `[batch, width]`.
    pub fn last(&self, tokens: &Tensor) -> Result<Tensor> {
        let (_, last) = block::but_the_last(&self.blocks);
        self.pool(&self.post_norm.forward(&forward_stack(last, tokens, &Mask::none())?)?)
    }

    fn pool(&self, tokens: &Tensor) -> Result<Tensor> {
        match &self.head {
            Some(head) => Ok(head.forward(tokens)?),
            None => Ok(pool::mean(tokens, None)?),
        }
    }

    /// `[batch, channels, height, width]` to features; pooled by the head, by the mean without one. Of
    /// all patches, or of those that `kept`, `[batch, kept]`, numbers.
    pub fn forward(&self, pixels: &Tensor, kept: Option<&Tensor>) -> Result<Features> {
        let (mut x, _) = self.embed(pixels)?;
        if let Some(kept) = kept {
            x = patch::keep(&x, kept)?;
        }
        let x = forward_stack(&self.blocks, &x, &Mask::none())?;
        let tokens = self.post_norm.forward(&x)?;
        let pooled = self.pool(&tokens)?;
        Ok(Features { tokens, pooled })
    }
}

impl VisionTower for SiglipVision {
    fn width(&self) -> usize {
        self.positions.dims()[1]
    }

    fn side(&self) -> Option<usize> {
        self.size
    }

    fn places(&self, _side: usize) -> usize {
        self.patches()
    }

    fn last(&self, pixels: &Tensor) -> Result<Tensor> {
        let (x, _) = self.embed(pixels)?;
        Ok(self.post_norm.forward(&forward_stack(&self.blocks, &x, &Mask::none())?)?)
    }

    fn stack(&self, pixels: &Tensor) -> Result<(Tensor, &[Block])> {
        Ok((self.embed(pixels)?.0, &self.blocks))
    }
}
