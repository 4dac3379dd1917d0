//! BERT (Devlin et al. 2019; `BertModel` and `BertForMaskedLM` of transformers).

use candle_core::Tensor;
use dari_nn::attention::{Mask, mask_tensor};
use dari_nn::block::{self, Block, Order, forward_stack};
use dari_nn::embedding::Embedding;
use dari_nn::weight::Part;
use dari_nn::{Activation, Init, Linear, Norm, Weights, activation, pool};
use serde::Deserialize;

use crate::Result;
use crate::capability::{EmbedTexts, FillMask, Tokens};
use crate::config::{self, sizes};

/// `config.json` of a `bert` checkpoint.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
#[allow(missing_docs)] // the checkpoint's own field names
pub struct BertConfig {
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub max_position_embeddings: usize,
    pub type_vocab_size: usize,
    pub hidden_act: String,
    pub layer_norm_eps: f64,
}

impl Default for BertConfig {
    fn default() -> Self {
        BertConfig {
            vocab_size: 30522,
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            max_position_embeddings: 512,
            type_vocab_size: 2,
            hidden_act: "gelu".into(),
            layer_norm_eps: 1e-12,
        }
    }
}

/// From a sequence to one vector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pooling {
    /// The mean of all tokens that are not padding (sentence-transformers' default).
    #[default]
    Mean,
    /// The first token.
    Class,
}

/// Words, positions and segments, post-norm blocks; a pooler and a word head where there are.
pub struct Bert {
    words: Embedding,
    positions: Tensor,
    segments: Tensor,
    norm: Norm,
    blocks: Vec<Block>,
    pooler: Option<Linear>,
    head: Option<WordHead>,
    pooling: Pooling,
    width: usize,
}

/// The masked-word head: a layer, a norm, and the word table transposed.
struct WordHead {
    dense: Linear,
    activation: Activation,
    norm: Norm,
    decoder: Linear,
}

impl Bert {
    /// Reads a BERT, below `bert` or at the root.
    pub fn load(root: &Weights, config: &BertConfig, pooling: Pooling, origin: &str) -> Result<Bert> {
        let c = config;
        let block = sizes!(c, origin).block(Order::Post, true)?;
        config::check_table(origin, c.vocab_size, c.max_position_embeddings)?;
        config::check_width(origin, "type_vocab_size", c.type_vocab_size)?;
        let (width, epsilon) = (c.hidden_size, c.layer_norm_eps);
        let below = root.has("bert.embeddings.word_embeddings.weight");
        let weights = if below { root.pp("bert") } else { root.clone() };
        let embeddings = weights.pp("embeddings");
        let table = |name: &str, rows: usize| embeddings.tensor(name, &[rows, width], Init::Normal(0.02));
        let words = Embedding::load(&embeddings.pp("word_embeddings"), c.vocab_size, width)?;
        let pooler = if weights.has("pooler.dense.weight") {
            Some(Linear::load(&weights.pp("pooler.dense"), width, width, true)?)
        } else {
            None
        };
        let cls = root.pp("cls.predictions");
        let head = if cls.has("transform.dense.weight") {
            let stored = [c.vocab_size, width];
            let tied = embeddings.pp("word_embeddings").weight("weight", &stored, Init::Normal(0.02))?;
            let bias = cls.tensor("bias", &[c.vocab_size], Init::ZEROS)?;
            Some(WordHead {
                dense: Linear::load(&cls.pp("transform.dense"), width, width, true)?,
                activation: block.activation,
                norm: Norm::layer(&cls.pp("transform.LayerNorm"), width, epsilon)?,
                decoder: Linear::new(tied, Some(Part::whole(bias)))?,
            })
        } else {
            None
        };
        Ok(Bert {
            words,
            positions: table("position_embeddings.weight", c.max_position_embeddings)?,
            segments: table("token_type_embeddings.weight", c.type_vocab_size)?,
            norm: Norm::layer(&embeddings.pp("LayerNorm"), width, epsilon)?,
            blocks: Block::load_stack(
                &weights.pp("encoder.layer"),
                &block::BERT,
                &block,
                c.num_hidden_layers,
            )?,
            pooler,
            head,
            pooling,
            width,
        })
    }

    /// Every token behind the last block, `[batch, tokens, width]`; all of the first segment.
    pub fn forward(&self, tokens: &Tokens) -> Result<Tensor> {
        let device = self.positions.device();
        let x = self.words.forward(&tokens.tensor(device)?)?;
        let places =
            (self.positions.narrow(0, 0, x.dim(1)?)?).broadcast_add(&self.segments.narrow(0, 0, 1)?)?;
        let x = self.norm.forward(&x.broadcast_add(&places)?)?;
        let mask = Mask::keys(mask_tensor(&tokens.mask, device)?);
        Ok(forward_stack(&self.blocks, &x, &mask)?)
    }

    /// The pooler's vector, `[batch, width]`, where the checkpoint has a pooler.
    pub fn pooled(&self, tokens: &Tokens) -> Result<Option<Tensor>> {
        let Some(pooler) = &self.pooler else {
            return Ok(None);
        };
        let class = pool::token(&self.forward(tokens)?, 0)?;
        Ok(Some(activation::apply(Activation::Tanh, &pooler.forward(&class)?)?))
    }

    /// One vector a text by the given pooling, `[batch, width]`.
    pub fn embed(&self, tokens: &Tokens, pooling: Pooling) -> Result<Tensor> {
        let x = self.forward(tokens)?;
        Ok(match pooling {
            Pooling::Mean => pool::mean(&x, Some(&mask_tensor(&tokens.mask, x.device())?))?,
            Pooling::Class => pool::token(&x, 0)?,
        })
    }

    /// The same model's masked-word head, where the checkpoint has one.
    pub fn word_head(&self) -> Option<&dyn FillMask> {
        self.head.is_some().then_some(self as &dyn FillMask)
    }
}

impl EmbedTexts for Bert {
    fn text_dim(&self) -> usize {
        self.width
    }

    fn embed_texts(&self, tokens: &Tokens) -> Result<Tensor> {
        self.embed(tokens, self.pooling)
    }
}

impl FillMask for Bert {
    fn mask_logits(&self, tokens: &Tokens) -> Result<Tensor> {
        let Some(head) = &self.head else {
            return config::refuse(
                "this bert checkpoint",
                "it has no masked-word head; its texts can be embedded",
            );
        };
        let x = activation::apply(head.activation, &head.dense.forward(&self.forward(tokens)?)?)?;
        Ok(head.decoder.forward(&head.norm.forward(&x)?)?)
    }
}
