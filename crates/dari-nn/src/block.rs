//! The transformer block, pre-norm or post-norm, and a stack of them.

use candle_core::Tensor;
use dari_kernels::Activation;

use crate::Result;
use crate::attention::{self, Attention, Mask};
use crate::mlp::{self, Mlp};
use crate::norm::Norm;
use crate::weights::Weights;

/// Where the norms stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Before each part (CLIP, ViT): `x + part(norm(x))`.
    Pre,
    /// After each sum (BERT): `norm(x + part(x))`.
    Post,
}

/// What a family of checkpoints calls the parts of a block.
#[derive(Clone, Copy, Debug)]
pub struct Names {
    /// Prefix of the attention's projections.
    pub attention: &'static str,
    /// The projections below it.
    pub projections: attention::Names,
    /// The norm of the attention.
    pub norm1: &'static str,
    /// Prefix of the perceptron's layers.
    pub mlp: &'static str,
    /// The layers below it.
    pub layers: mlp::Names,
    /// The norm of the perceptron.
    pub norm2: &'static str,
}

/// CLIP, SigLIP.
pub const CLIP: Names = Names {
    attention: "self_attn",
    projections: attention::PROJ,
    norm1: "layer_norm1",
    mlp: "mlp",
    layers: mlp::FC,
    norm2: "layer_norm2",
};

/// ViT of transformers.
pub const VIT: Names = Names {
    attention: "attention",
    projections: attention::Names {
        query: "attention.query",
        key: "attention.key",
        value: "attention.value",
        output: "output.dense",
    },
    norm1: "layernorm_before",
    mlp: "",
    layers: mlp::Names { up: "intermediate.dense", down: "output.dense" },
    norm2: "layernorm_after",
};

/// BERT.
pub const BERT: Names = Names {
    attention: "attention",
    projections: attention::Names {
        query: "self.query",
        key: "self.key",
        value: "self.value",
        output: "output.dense",
    },
    norm1: "attention.output.LayerNorm",
    mlp: "",
    layers: mlp::Names { up: "intermediate.dense", down: "output.dense" },
    norm2: "output.LayerNorm",
};

/// The sizes of a block.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Values per token.
    pub width: usize,
    /// Values between the perceptron's layers.
    pub inner: usize,
    /// Attention heads.
    pub heads: usize,
    /// The perceptron's activation.
    pub activation: Activation,
    /// The norms' epsilon.
    pub epsilon: f64,
    /// Where the norms stand.
    pub order: Order,
    /// Whether queries, keys and values have biases.
    pub qkv_bias: bool,
}

/// One transformer block.
#[derive(Clone, Debug)]
pub struct Block {
    attention: Attention,
    norm1: Norm,
    mlp: Mlp,
    norm2: Norm,
    order: Order,
}

impl Block {
    /// Reads a block by a family's names.
    pub fn load(weights: &Weights, names: &Names, config: &Config) -> Result<Block> {
        let Config { width, inner, heads, activation, epsilon, order, qkv_bias } = *config;
        Ok(Block {
            attention: Attention::load(
                &weights.pp(names.attention),
                &names.projections,
                width,
                heads,
                qkv_bias,
            )?,
            norm1: Norm::layer(&weights.pp(names.norm1), width, epsilon)?,
            mlp: Mlp::load(&weights.pp(names.mlp), &names.layers, width, inner, activation)?,
            norm2: Norm::layer(&weights.pp(names.norm2), width, epsilon)?,
            order,
        })
    }

    /// Reads `count` blocks named `0`, `1`, ... below `weights`.
    pub fn load_stack(weights: &Weights, names: &Names, config: &Config, count: usize) -> Result<Vec<Block>> {
        (0..count).map(|index| Block::load(&weights.pp(index), names, config)).collect()
    }

    /// `[batch, tokens, width]` to the same.
    pub fn forward(&self, x: &Tensor, mask: &Mask) -> Result<Tensor> {
        match self.order {
            Order::Pre => {
                let x = (x + self.attention.forward(&self.norm1.forward(x)?, mask)?)?;
                Ok((&x + self.mlp.forward(&self.norm2.forward(&x)?)?)?)
            }
            Order::Post => {
                let x = self.norm1.forward(&(x + self.attention.forward(x, mask)?)?)?;
                self.norm2.forward(&(&x + self.mlp.forward(&x)?)?)
            }
        }
    }
}

/// Runs a stack of blocks in order.
pub fn forward_stack(blocks: &[Block], x: &Tensor, mask: &Mask) -> Result<Tensor> {
    blocks.iter().try_fold(x.clone(), |x, block| block.forward(&x, mask))
}
