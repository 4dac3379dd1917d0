//! Squares of neighbouring places joined to one token, then a linear layer (Idefics 3: Laurençon et al. 2024).

use candle_core::Tensor;
use dari_nn::{Linear, Weights};

use super::Bridge;
use crate::{Result, config};

/// `scale * scale` places to one.
pub struct PixelShuffle {
    projection: Linear,
    scale: usize,
}

impl PixelShuffle {
    /// Reads the projection of joined places, `[to, from * scale * scale]`, at `weights`.
    pub fn load(weights: &Weights, from: usize, to: usize, scale: usize) -> Result<PixelShuffle> {
        let projection = Linear::load(weights, from * scale * scale, to, false)?;
        Ok(PixelShuffle { projection, scale })
    }
}

impl Bridge for PixelShuffle {
    fn queries(&self, tokens: usize) -> usize {
        tokens / (self.scale * self.scale).max(1)
    }

    fn forward(&self, tokens: &Tensor) -> Result<Tensor> {
        let (batch, places, width) = tokens.dims3()?;
        let (side, scale) = (places.isqrt(), self.scale);
        if side * side != places || scale == 0 || !side.is_multiple_of(scale) {
            let problem = format!("{places} places are no square that divides by {scale} each way");
            return config::refuse("pixel shuffle", problem);
        }
        let few = side / scale;
        // Places by row and column of their square, then within it.
        let squares = tokens.reshape(&[batch, few, scale, few, scale, width][..])?;
        let squares = squares.permute(&[0, 1, 3, 2, 4, 5][..])?.contiguous()?;
        Ok(self.projection.forward(&squares.reshape((batch, few * few, scale * scale * width))?)?)
    }
}
