//! From an encoder's tokens to what a language model understands.

pub mod linear;
pub mod mlp;
pub mod pixel_shuffle;

use candle_core::Tensor;
use dari_nn::{Activation, Weights};
use serde::{Deserialize, Serialize};

use crate::{Result, config};

/// A bridge: `[batch, tokens, width]` in, `[batch, queries, width of the language model]` out.
pub trait Bridge: Send + Sync {
    /// How many queries come of so many tokens.
    fn queries(&self, tokens: usize) -> usize;
    /// From tokens to the language model's embeddings.
    fn forward(&self, tokens: &Tensor) -> Result<Tensor>;
}

/// Which bridge stands between a tower and a language model, as configs and recipes say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum BridgeConfig {
    /// One linear layer.
    Linear,
    /// Two, with GELU between.
    Mlp,
    /// Squares of places to one token, then a linear layer.
    PixelShuffle {
        /// Places of a square's side.
        #[serde(default = "two")]
        scale: usize,
    },
}

fn two() -> usize {
    2
}

impl BridgeConfig {
    /// One of each kind. A kind that is not here cannot be read from a config either: the compiler asks for both
    /// in [`BridgeConfig::load`].
    pub const EACH: [BridgeConfig; 3] =
        [BridgeConfig::Linear, BridgeConfig::Mlp, BridgeConfig::PixelShuffle { scale: 2 }];

    /// Reads the bridge below `weights`, from `places` tokens of width `from` to width `to`.
    ///
    /// # Errors
    /// Missing weights, or places that the bridge cannot take.
    pub fn load(
        self,
        weights: &Weights,
        places: usize,
        from: usize,
        to: usize,
        origin: &str,
    ) -> Result<Box<dyn Bridge>> {
        Ok(match self {
            BridgeConfig::Linear => Box::new(linear::Projection::load(weights, from, to)?),
            BridgeConfig::Mlp => Box::new(mlp::Mlp::load(weights, from, to, Activation::Gelu, true)?),
            BridgeConfig::PixelShuffle { scale } => {
                let side = places.isqrt();
                if side * side != places || scale == 0 || !side.is_multiple_of(scale) {
                    let problem = format!(
                        "`bridge.scale` is {scale}, which does not divide a square of {places} places"
                    );
                    return config::refuse(origin, problem);
                }
                Box::new(pixel_shuffle::PixelShuffle::load(&weights.pp("projection"), from, to, scale)?)
            }
        })
    }
}
