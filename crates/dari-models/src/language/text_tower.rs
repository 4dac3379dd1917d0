//! What the text towers of the contrastive road share: tokens and positions, blocks, a norm.

use candle_core::Tensor;
use dari_nn::attention::{Mask, Places};
use dari_nn::block::{self, Block, forward_stack, forward_stack_at};
use dari_nn::embedding::Embedding;
use dari_nn::{Init, Norm, Weights};

use crate::Result;
use crate::capability::Tokens;
use crate::config::{self, Sizes};

/// Tokens and positions, pre-norm blocks, a norm.
pub struct TextTower {
    tokens: Embedding,
    positions: Tensor,
    blocks: Vec<Block>,
    norm: Norm,
}

impl TextTower {
    /// Reads the tower below `text_model`.
    pub(crate) fn load(
        weights: &Weights,
        sizes: &Sizes,
        vocabulary: usize,
        positions: usize,
    ) -> Result<TextTower> {
        let block = sizes.block(block::Order::Pre, true)?;
        config::check_table(sizes.origin, vocabulary, positions)?;
        let embeddings = weights.pp("embeddings");
        let places = [positions, block.width];
        let blocks = weights.pp("encoder.layers");
        Ok(TextTower {
            tokens: Embedding::load(&embeddings.pp("token_embedding"), vocabulary, block.width)?,
            positions: embeddings.tensor("position_embedding.weight", &places, Init::Normal(0.01))?,
            blocks: Block::load_stack(&blocks, &block::CLIP, &block, sizes.layers)?,
            norm: Norm::layer(&weights.pp("final_layer_norm"), block.width, block.epsilon)?,
        })
    }

    /// Every token behind the norm, `[batch, tokens, width]`.
    pub fn forward(&self, tokens: &Tokens, mask: &Mask) -> Result<Tensor> {
        Ok(self.norm.forward(&forward_stack(&self.blocks, &self.embed(tokens)?, mask)?)?)
    }

    /// The token at each text's one place behind the norm, `[batch, width]`.
    pub fn forward_at(&self, tokens: &Tokens, mask: &Mask, places: &Places) -> Result<Tensor> {
        let x = self.embed(tokens)?;
        Ok(self.norm.forward(&forward_stack_at(&self.blocks, &x, mask, places)?)?)
    }

    fn embed(&self, tokens: &Tokens) -> Result<Tensor> {
        let x = self.tokens.forward(&tokens.tensor(self.positions.device())?)?;
        Ok(x.broadcast_add(&self.positions.narrow(0, 0, x.dim(1)?)?)?)
    }
}
