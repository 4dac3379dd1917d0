//! The Vision Transformer (Dosovitskiy et al. 2021; `ViTModel` and `ViTForImageClassification`).

use std::collections::BTreeMap;

use candle_core::Tensor;
use dari_nn::attention::{Mask, Places};
use dari_nn::block::{self, Block, Order, forward_stack, forward_stack_at};
use dari_nn::patch::{self, PatchEmbedding};
use dari_nn::{Init, Linear, Norm, Weights, activation, pool};
use serde::Deserialize;

use super::{Features, VisionTower};
use crate::Result;
use crate::capability::{ClassifyPictures, EmbedPictures};
use crate::config::{self, sizes};

/// `config.json` of a `vit` checkpoint.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
#[allow(missing_docs)] // the checkpoint's own field names
pub struct VitConfig {
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub num_channels: usize,
    pub image_size: usize,
    pub patch_size: usize,
    pub hidden_act: String,
    pub layer_norm_eps: f64,
    pub qkv_bias: bool,
    pub pooler_output_size: Option<usize>,
    pub pooler_act: String,
    pub id2label: BTreeMap<String, String>,
}

impl Default for VitConfig {
    fn default() -> Self {
        VitConfig {
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            num_channels: 3,
            image_size: 224,
            patch_size: 16,
            hidden_act: "gelu".into(),
            layer_norm_eps: 1e-12,
            qkv_bias: true,
            pooler_output_size: None,
            pooler_act: "tanh".into(),
            id2label: BTreeMap::new(),
        }
    }
}

/// The tower, with the pooler and the classifier that the checkpoint has.
pub struct Vit {
    class: Tensor,
    patches: PatchEmbedding,
    positions: Tensor,
    blocks: Vec<Block>,
    norm: Norm,
    pooler: Option<(Linear, dari_nn::Activation)>,
    classifier: Option<Linear>,
    labels: Vec<String>,
    width: usize,
    size: usize,
}

impl Vit {
    /// Reads a ViT, below `vit` or at the root.
    pub fn load(root: &Weights, config: &VitConfig, origin: &str) -> Result<Vit> {
        let c = config;
        let block = sizes!(c, origin).block(Order::Pre, c.qkv_bias)?;
        let side = config::check_picture(origin, c.image_size, c.patch_size, c.num_channels)?;
        let width = c.hidden_size;
        let weights = if root.has("vit.embeddings.cls_token") { root.pp("vit") } else { root.clone() };
        let embeddings = weights.pp("embeddings");
        let positions =
            embeddings.tensor("position_embeddings", &[1, side * side + 1, width], Init::Normal(0.02))?;
        let labels = config::labels(&c.id2label, origin)?;
        let classifier = if root.has("classifier.weight") {
            Some(Linear::load(&root.pp("classifier"), width, labels.len(), true)?)
        } else {
            None
        };
        // A new model is a classifier, which has none.
        let pooler = if !weights.is_new() && weights.has("pooler.dense.weight") {
            let outputs = c.pooler_output_size.unwrap_or(width);
            let dense = Linear::load(&weights.pp("pooler.dense"), width, outputs, true)?;
            Some((dense, config::activation(origin, &c.pooler_act)?))
        } else {
            None
        };
        let patches = embeddings.pp("patch_embeddings.projection");
        Ok(Vit {
            size: c.image_size,
            class: embeddings.tensor("cls_token", &[1, 1, width], Init::Normal(0.02))?,
            patches: PatchEmbedding::load(&patches, c.num_channels, c.patch_size, width, true)?,
            positions: positions.squeeze(0)?,
            blocks: Block::load_stack(
                &weights.pp("encoder.layer"),
                &block::VIT,
                &block,
                c.num_hidden_layers,
            )?,
            norm: Norm::layer(&weights.pp("layernorm"), width, c.layer_norm_eps)?,
            pooler,
            classifier,
            labels,
            width,
        })
    }

    /// The side of its pictures, in pixels.
    pub fn size(&self) -> usize {
        self.size
    }

    /// `[batch, channels, size, size]` to features; pooled by the pooler where there is one, else
    /// the class token.
    pub fn forward(&self, pixels: &Tensor) -> Result<Features> {
        let x = forward_stack(&self.blocks, &self.embed(pixels)?, &Mask::none())?;
        let tokens = self.norm.forward(&x)?;
        let class = pool::token(&tokens, 0)?;
        let pooled = match &self.pooler {
            Some((dense, act)) => activation::apply(*act, &dense.forward(&class)?)?,
            None => class,
        };
        Ok(Features { tokens, pooled })
    }

    /// The class token behind the norm, `[batch, width]`: the last block is computed for it alone.
    pub fn class(&self, pixels: &Tensor) -> Result<Tensor> {
        let x = self.embed(pixels)?;
        let class = Places::all_at(0, x.dim(0)?);
        Ok(self.norm.forward(&forward_stack_at(&self.blocks, &x, &Mask::none(), &class)?)?)
    }

    fn embed(&self, pixels: &Tensor) -> Result<Tensor> {
        let x = patch::prepend_class(&self.class, &self.patches.forward(pixels)?)?;
        Ok(x.broadcast_add(&self.positions)?)
    }

    /// The same model's classifier, where the checkpoint has one.
    pub fn classifier(&self) -> Option<&dyn ClassifyPictures> {
        self.classifier.is_some().then_some(self as &dyn ClassifyPictures)
    }
}

impl EmbedPictures for Vit {
    fn picture_dim(&self) -> usize {
        self.width
    }

    fn embed_pictures(&self, pixels: &Tensor) -> Result<Tensor> {
        // The class token, whether or not a pooler stands behind it: it is what features are read from.
        self.class(pixels)
    }
}

impl ClassifyPictures for Vit {
    fn labels(&self) -> &[String] {
        &self.labels
    }

    fn classify(&self, pixels: &Tensor) -> Result<Tensor> {
        let class = self.class(pixels)?;
        match &self.classifier {
            Some(classifier) => Ok(classifier.forward(&class)?),
            None => {
                config::refuse("this vit checkpoint", "it has no classifier; its features can be embedded")
            }
        }
    }
}

impl VisionTower for Vit {
    fn width(&self) -> usize {
        self.width
    }

    fn side(&self) -> Option<usize> {
        Some(self.size)
    }

    fn places(&self, _side: usize) -> usize {
        self.positions.dims()[0] - 1
    }

    fn before(&self) -> usize {
        1
    }

    fn last(&self, pixels: &Tensor) -> Result<Tensor> {
        Ok(self.norm.forward(&forward_stack(&self.blocks, &self.embed(pixels)?, &Mask::none())?)?)
    }

    fn stack(&self, pixels: &Tensor) -> Result<(Tensor, &[Block])> {
        Ok((self.embed(pixels)?, &self.blocks))
    }
}
