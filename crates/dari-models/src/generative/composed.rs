//! Any encoder, any bridge, any language model: a folder of Dari's own, which holds the two others.
//!
//! `config.json` says which bridge stands between; `vision/` and `language/` are model folders in their public
//! layouts (`language/` may hold a GGUF file in their place), and `model.safetensors` has the bridge's weights.

use dari_nn::Weights;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Layers, VisionLanguage};
use crate::bridge::BridgeConfig;
use crate::capability::CausalLm;
use crate::encoder::VisionTower;
use crate::{Result, config};

/// `model_type` of such a folder.
pub const KIND: &str = "composed";
/// Where the encoder lies, and what its tensors' names begin with.
pub const VISION: &str = "vision";
/// The same of the language model.
pub const LANGUAGE: &str = "language";
/// What the bridge's tensors' names begin with.
pub const BRIDGE: &str = "bridge";

/// Its `config.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ComposedConfig {
    /// Which bridge.
    pub bridge: BridgeConfig,
    /// Layers of the tower whose tokens stand side by side for the bridge, counted from the last (-1) or the
    /// embeddings (0); what the tower leaves where absent.
    #[serde(default)]
    pub vision_layers: Option<Vec<i64>>,
    /// An answer whose tokens were less probable than this (their geometric mean) is marked as unsure; measured for
    /// each model, none where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsure_below: Option<f32>,
    /// What stands for a picture in a chat.
    #[serde(default = "image_token")]
    pub image_token: String,
}

fn image_token() -> String {
    "<image>".into()
}

impl ComposedConfig {
    /// Reads it from the whole file.
    pub fn parse(value: &Value, origin: &str) -> Result<ComposedConfig> {
        let read: ComposedConfig = config::parse(origin, value)?;
        if read.image_token.trim().is_empty() {
            return config::refuse(origin, "`image_token` is empty: a picture needs a place in the text");
        }
        if read.vision_layers.as_ref().is_some_and(|layers| layers.is_empty() || layers.len() > 64) {
            return config::refuse(
                origin,
                "`vision_layers` names none or more than 64: leave it out for the last",
            );
        }
        Ok(read)
    }

    /// The whole file.
    pub fn to_json(&self) -> Value {
        let mut value = serde_json::to_value(self).unwrap_or_else(|_| json!({}));
        value["model_type"] = json!(KIND);
        value
    }
}

/// Joins the two sides by the bridge below `weights`; `side` is that of the tower's pictures in pixels.
pub fn load(
    weights: &Weights,
    said: &ComposedConfig,
    tower: Box<dyn VisionTower>,
    side: usize,
    language: Box<dyn CausalLm>,
    origin: &str,
) -> Result<VisionLanguage> {
    let places = tower.places(side);
    let (layers, count) = match &said.vision_layers {
        None => (Layers::Last, 1),
        Some(layers) if tower.before() <= 1 => {
            (Layers::Behind { layers: layers.clone(), class: tower.before() == 0 }, layers.len())
        }
        Some(_) => {
            return config::refuse(origin, "`vision_layers` is not known for this tower: leave it out");
        }
    };
    let from = tower.width() * count;
    let bridge = said.bridge.load(&weights.pp(BRIDGE), places, from, language.width(), origin)?;
    Ok(VisionLanguage::new(tower, side, layers, bridge, language))
}
