//! CLIP's ResNet tower: a stem of three convolutions, strides by means of windows, and attention in
//! place of the last mean (Radford et al. 2021, section 2.4; `ModifiedResNet` of OpenAI and open_clip).

use candle_core::Tensor;
use dari_nn::attention::Mask;
use dari_nn::conv::{self, ConvNorm, Sizes};
use dari_nn::{Activation, Attention, Init, Linear, Weights, pool};

use super::VisionTower;
use super::resnet::Residual;
use crate::capability::Seen;
use crate::{Result, config};

/// The sizes of a tower.
#[derive(Clone, Debug)]
pub struct ClipResNetConfig {
    /// Blocks of each of the four stages.
    pub layers: [usize; 4],
    /// Channels behind the stem.
    pub width: usize,
    /// Heads of the attention that pools.
    pub heads: usize,
    /// Side of a picture in pixels.
    pub image_size: usize,
    /// Values of an embedding.
    pub dim: usize,
}

/// The tower, its projection into the common space included.
pub struct ClipResNet {
    stem: [ConvNorm; 3],
    blocks: Vec<Residual>,
    positions: Tensor,
    attention: Attention,
    size: usize,
}

const RELU: Activation = Activation::Relu;
/// What a bottleneck's output is wider than its inside.
const EXPANSION: usize = 4;

impl ClipResNet {
    /// Reads the tower below `visual`.
    pub fn load(weights: &Weights, config: &ClipResNetConfig, origin: &str) -> Result<ClipResNet> {
        let c = config;
        check(c, origin)?;
        let layer = |at: &Weights, number: &str, inputs, outputs, side, stride| {
            let sizes = Sizes { inputs, outputs, side, stride };
            ConvNorm::load(&at.pp(format!("conv{number}")), &at.pp(format!("bn{number}")), sizes)
        };
        let half = c.width / 2;
        let stem = [
            layer(weights, "1", 3, half, 3, 2)?,
            layer(weights, "2", half, half, 3, 1)?,
            layer(weights, "3", half, c.width, 3, 1)?,
        ];
        let mut blocks = Vec::new();
        let mut inputs = c.width;
        for (stage, &depth) in c.layers.iter().enumerate() {
            let inner = c.width << stage;
            for number in 0..depth {
                let at = weights.pp(format!("layer{}.{number}", stage + 1));
                let pool = if stage > 0 && number == 0 { 2 } else { 1 };
                let outputs = inner * EXPANSION;
                let path = vec![
                    layer(&at, "1", inputs, inner, 1, 1)?,
                    layer(&at, "2", inner, inner, 3, 1)?,
                    layer(&at, "3", inner, outputs, 1, 1)?,
                ];
                let shortcut = match pool > 1 || inputs != outputs {
                    true => {
                        let at = at.pp("downsample");
                        Some(ConvNorm::load(
                            &at.pp("0"),
                            &at.pp("1"),
                            Sizes { inputs, outputs, side: 1, stride: 1 },
                        )?)
                    }
                    false => None,
                };
                blocks.push(Residual { path, pool, shortcut, activation: RELU });
                inputs = outputs;
            }
        }
        let pool = weights.pp("attnpool");
        let side = c.image_size / 32;
        let projection = |name: &str, outputs| Linear::load(&pool.pp(name), inputs, outputs, true);
        let attention = Attention::new(
            projection("q_proj", inputs)?,
            projection("k_proj", inputs)?,
            projection("v_proj", inputs)?,
            projection("c_proj", c.dim)?,
            inputs,
            c.heads,
            c.heads,
        )?;
        let positions =
            pool.tensor("positional_embedding", &[side * side + 1, inputs], Init::fan_in(inputs))?;
        Ok(ClipResNet { stem, blocks, positions, attention, size: c.image_size })
    }

    /// The side of its pictures, in pixels.
    pub fn size(&self) -> usize {
        self.size
    }

    /// `[batch, 3, size, size]` to the last feature map, `[batch, size / 32, size / 32, channels]`.
    pub fn feature_map(&self, pixels: &Tensor) -> Result<Tensor> {
        let mut x = conv::channels_last(pixels)?;
        for layer in &self.stem {
            x = layer.activated(&x, RELU)?;
        }
        x = conv::mean_pool(&x, 2)?;
        for block in &self.blocks {
            x = block.forward(&x)?;
        }
        Ok(x)
    }

    /// `[batch, 3, size, size]` to `[batch, dim]`: the mean of the feature map asks all its places.
    pub fn pooled(&self, pixels: &Tensor) -> Result<Tensor> {
        self.pool(&self.feature_map(pixels)?.flatten(1, 2)?)
    }

    /// What the attention that pools finds, of `[1, 3, size, size]`.
    pub fn before_last(&self, pixels: &Tensor) -> Result<Seen> {
        let map = self.feature_map(pixels)?;
        let (_, down, across, _) = map.dims4()?;
        Ok(Seen { tokens: map.flatten(1, 2)?, grid: [down, across] })
    }

    /// Each place of `[1, places, channels]` by itself, `[places, dim]`.
    pub fn each(&self, places: &Tensor) -> Result<Tensor> {
        let (_, count, width) = places.dims3()?;
        let placed = places.broadcast_add(&self.positions.narrow(0, 1, count)?)?;
        let alone = placed.reshape((count, 1, width))?;
        Ok(pool::token(&self.attention.cross(&alone, &alone, &Mask::none())?, 0)?)
    }

    /// `[batch, places, channels]` to `[batch, dim]`.
    pub fn pool(&self, places: &Tensor) -> Result<Tensor> {
        let tokens = Tensor::cat(&[&places.mean_keepdim(1)?, places], 1)?.broadcast_add(&self.positions)?;
        let asked = tokens.narrow(1, 0, 1)?.contiguous()?;
        Ok(pool::token(&self.attention.cross(&asked, &tokens, &Mask::none())?, 0)?)
    }
}

fn check(c: &ClipResNetConfig, origin: &str) -> Result<()> {
    config::check_width(origin, "vision_cfg.width", c.width)?;
    let channels = c.width.saturating_mul(8 * EXPANSION);
    let blocks = c.layers.iter().fold(0usize, |sum, &depth| sum.saturating_add(depth));
    let problem = if !c.width.is_multiple_of(2) || c.heads == 0 || !channels.is_multiple_of(c.heads) {
        format!(
            "`vision_cfg.width` {} with {} heads: an even width is expected whose 32fold divides by them",
            c.width, c.heads
        )
    } else if c.layers.contains(&0) || blocks > 4096 {
        format!("`vision_cfg.layers` is {:?}, expected four numbers of at least 1", c.layers)
    } else if c.image_size < 32 || c.image_size > 1 << 13 || !c.image_size.is_multiple_of(32) {
        format!("`vision_cfg.image_size` is {}, expected a multiple of 32, at most 8192", c.image_size)
    } else {
        return Ok(());
    };
    config::refuse(origin, problem)
}

impl VisionTower for ClipResNet {
    fn width(&self) -> usize {
        self.positions.dims()[1]
    }

    fn side(&self) -> Option<usize> {
        Some(self.size)
    }

    fn places(&self, side: usize) -> usize {
        (side / 32).pow(2)
    }

    fn last(&self, pixels: &Tensor) -> Result<Tensor> {
        Ok(self.feature_map(pixels)?.flatten(1, 2)?)
    }
}
