//! open_clip's own layout: its `open_clip_config.json`, and its tensors seen by CLIP's names.

use std::borrow::Cow;

use dari_files::{Checkpoint, TensorView};
use dari_nn::weights::Source;
use serde::Deserialize;
use serde_json::Value;

use super::clip::ClipConfig;
use crate::encoder::clip_resnet::ClipResNetConfig;
use crate::encoder::clip_vision::ClipVisionConfig;
use crate::language::clip_text::ClipTextConfig;
use crate::{Result, config};

#[derive(Deserialize)]
struct ModelConfig {
    embed_dim: usize,
    vision_cfg: VisionConfig,
    text_cfg: TextConfig,
    #[serde(default)]
    quick_gelu: bool,
}

#[derive(Deserialize)]
#[serde(default)]
struct VisionConfig {
    layers: Layers,
    width: usize,
    head_width: usize,
    mlp_ratio: f64,
    /// Null for a ResNet.
    patch_size: Option<usize>,
    image_size: usize,
}

impl Default for VisionConfig {
    fn default() -> Self {
        VisionConfig {
            layers: Layers::Vit(12),
            width: 768,
            head_width: 64,
            mlp_ratio: 4.0,
            patch_size: Some(16),
            image_size: 224,
        }
    }
}

/// A number for a ViT, a list of four for a ResNet.
#[derive(Deserialize)]
#[serde(untagged)]
enum Layers {
    Vit(usize),
    ResNet([usize; 4]),
}

#[derive(Deserialize)]
#[serde(default)]
struct TextConfig {
    context_length: usize,
    vocab_size: usize,
    width: usize,
    heads: usize,
    layers: usize,
    mlp_ratio: f64,
}

impl Default for TextConfig {
    fn default() -> Self {
        TextConfig { context_length: 77, vocab_size: 49408, width: 512, heads: 8, layers: 12, mlp_ratio: 4.0 }
    }
}

/// Settings that leave the plain CLIP, with the values that are plain.
const PLAIN: [(&str, &str, &[&str]); 14] = [
    ("vision_cfg", "timm_model_name", &["null"]),
    ("vision_cfg", "ls_init_value", &["null"]),
    ("vision_cfg", "attentional_pool", &["false", "null"]),
    ("vision_cfg", "no_ln_pre", &["false"]),
    ("vision_cfg", "pool_type", &["\"tok\""]),
    ("vision_cfg", "final_ln_after_pool", &["false"]),
    ("vision_cfg", "pos_embed_type", &["\"learnable\""]),
    ("vision_cfg", "act_kwargs", &["null"]),
    ("text_cfg", "hf_model_name", &["null"]),
    ("text_cfg", "ls_init_value", &["null"]),
    ("text_cfg", "embed_cls", &["false"]),
    ("text_cfg", "no_causal_mask", &["false"]),
    ("text_cfg", "pool_type", &["\"argmax\"", "\"eos\""]),
    ("text_cfg", "proj_bias", &["false"]),
];

/// CLIP's config from open_clip's; architectures beyond the plain ViT CLIP are refused by name.
pub fn parse(value: &Value, logit_bias: bool, origin: &str) -> Result<ClipConfig> {
    let Some(model) = value.get("model_cfg") else {
        return config::refuse(origin, "`model_cfg` is missing: this is not an open_clip config");
    };
    for (part, field, plain) in PLAIN {
        if let Some(found) = model.get(part).and_then(|part| part.get(field))
            && !plain.contains(&found.to_string().as_str())
        {
            let problem = format!(
                "`{part}.{field}` is {found}; only plain CLIP with a ViT or ResNet tower is read from open_clip's layout: use the checkpoint's transformers layout"
            );
            return config::refuse(origin, problem);
        }
    }
    let ModelConfig { embed_dim, vision_cfg: v, text_cfg: t, quick_gelu } = config::parse(origin, model)?;
    if v.head_width == 0 {
        return config::refuse(origin, "`vision_cfg.head_width` is 0");
    }
    let (layers, patch, resnet) = match (v.layers, v.patch_size) {
        (Layers::Vit(layers), Some(patch)) => (layers, patch, None),
        (Layers::Vit(_), None) => {
            return config::refuse(origin, "`vision_cfg.patch_size` is null: a ViT needs it");
        }
        (Layers::ResNet(layers), _) => {
            let heads = v.width.saturating_mul(32) / v.head_width;
            let tower =
                ClipResNetConfig { layers, width: v.width, heads, image_size: v.image_size, dim: embed_dim };
            (0, 0, Some(tower))
        }
    };
    let activation = if quick_gelu { "quick_gelu" } else { "gelu" };
    Ok(ClipConfig {
        vision_config: ClipVisionConfig {
            hidden_size: v.width,
            intermediate_size: (v.width as f64 * v.mlp_ratio) as usize,
            num_hidden_layers: layers,
            num_attention_heads: v.width / v.head_width,
            num_channels: 3,
            image_size: v.image_size,
            patch_size: patch,
            hidden_act: activation.into(),
            layer_norm_eps: 1e-5,
        },
        text_config: ClipTextConfig {
            vocab_size: t.vocab_size,
            hidden_size: t.width,
            intermediate_size: (t.width as f64 * t.mlp_ratio) as usize,
            num_hidden_layers: t.layers,
            num_attention_heads: t.heads,
            max_position_embeddings: t.context_length,
            hidden_act: activation.into(),
            layer_norm_eps: 1e-5,
            // open_clip pools where the id is largest.
            eos_token_id: None,
        },
        projection_dim: embed_dim,
        logit_bias,
        resnet,
        ..ClipConfig::default()
    })
}

/// An open_clip checkpoint seen by the names of transformers' `CLIPModel`.
pub struct OpenClip {
    checkpoint: Checkpoint,
    /// Where the text tower lies: at the root, or below `text.` in its custom form.
    text: &'static str,
}

/// Where a tensor of CLIP's names lies.
struct Place {
    name: String,
    part: Part,
}

/// Which part of the stored tensor is meant.
enum Part {
    Whole,
    /// Rows `n * a third ..` of a fused projection.
    Third(usize),
    Transposed,
}

impl OpenClip {
    /// Wraps a checkpoint.
    pub fn new(checkpoint: Checkpoint) -> OpenClip {
        let custom = checkpoint.shape("text.positional_embedding").is_some();
        OpenClip { checkpoint, text: if custom { "text." } else { "" } }
    }

    fn place(&self, name: &str) -> Option<Place> {
        let (tower, rest) = match name.split_once('.') {
            Some(("vision_model", rest)) => ("visual.", rest),
            Some(("text_model", rest)) => (self.text, rest),
            _ => {
                let (name, part) = match name {
                    "visual_projection.weight" => ("visual.proj".to_owned(), Part::Transposed),
                    "text_projection.weight" => (format!("{}text_projection", self.text), Part::Transposed),
                    other => (other.to_owned(), Part::Whole),
                };
                return Some(Place { name, part });
            }
        };
        let whole = |stored: String| Some(Place { name: format!("{tower}{stored}"), part: Part::Whole });
        if let Some(layer) = rest.strip_prefix("encoder.layers.") {
            let (index, rest) = layer.split_once('.')?;
            let block = format!("transformer.resblocks.{index}.");
            for (third, projection) in ["q_proj", "k_proj", "v_proj"].iter().enumerate() {
                if let Some(kind) = rest.strip_prefix("self_attn.").and_then(|r| r.strip_prefix(projection)) {
                    let kind = kind.trim_start_matches('.');
                    let name = format!("{tower}{block}attn.in_proj_{kind}");
                    return Some(Place { name, part: Part::Third(third) });
                }
            }
            let stored = rest
                .replace("layer_norm1", "ln_1")
                .replace("layer_norm2", "ln_2")
                .replace("self_attn.", "attn.")
                .replace("mlp.fc1", "mlp.c_fc")
                .replace("mlp.fc2", "mlp.c_proj");
            return whole(block + &stored);
        }
        let stored = match rest {
            "embeddings.class_embedding" => "class_embedding".to_owned(),
            "embeddings.patch_embedding.weight" => "conv1.weight".to_owned(),
            "embeddings.position_embedding.weight" => "positional_embedding".to_owned(),
            "embeddings.token_embedding.weight" => "token_embedding.weight".to_owned(),
            other => other
                .replace("pre_layrnorm", "ln_pre")
                .replace("post_layernorm", "ln_post")
                .replace("final_layer_norm", "ln_final"),
        };
        whole(stored)
    }
}

impl Source for OpenClip {
    fn names(&self) -> Vec<String> {
        self.checkpoint.names().map(str::to_owned).collect()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        let place = self.place(name)?;
        let mut shape = self.checkpoint.shape(&place.name)?.to_vec();
        match place.part {
            Part::Whole => {}
            Part::Third(_) => *shape.first_mut()? /= 3,
            Part::Transposed => shape.reverse(),
        }
        Some(shape)
    }

    fn tensor(&self, name: &str) -> Result<TensorView<'_>, dari_files::Error> {
        let Some(place) = self.place(name) else {
            return self.checkpoint.tensor(name);
        };
        let mut view = self.checkpoint.tensor(&place.name)?;
        match place.part {
            Part::Whole => {}
            Part::Third(index) => {
                let third = view.data.len() / 3;
                view.data = match view.data {
                    Cow::Borrowed(data) => Cow::Borrowed(&data[index * third..][..third]),
                    Cow::Owned(data) => Cow::Owned(data[index * third..][..third].to_vec()),
                };
                if let Some(rows) = view.shape.first_mut() {
                    *rows /= 3;
                }
            }
            Part::Transposed => view = view.transposed(),
        }
        Ok(view)
    }

    fn stored(&self, name: &str) -> String {
        self.place(name).map_or_else(|| name.to_owned(), |place| place.name)
    }

    fn release(&self, name: &str) {
        if let Some(place) = self.place(name) {
            self.checkpoint.release(&place.name);
        }
    }

    fn origin(&self, name: &str) -> String {
        let stored = self.stored(name);
        match self.checkpoint.file_of(&stored) {
            Some(path) => path.display().to_string(),
            None => format!("the open_clip checkpoint (as `{stored}`)"),
        }
    }
}
