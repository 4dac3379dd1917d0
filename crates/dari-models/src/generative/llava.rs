//! LLaVA 1.5 (Liu et al. 2023; `LlavaForConditionalGeneration` of transformers).

use dari_nn::Weights;
use serde_json::{Value, json};

use super::{Layers, VisionLanguage, text_config};
use crate::bridge::mlp::Mlp;
use crate::encoder;
use crate::language::llama::Llama;
use crate::{Result, config};

/// Reads a LLaVA: `vision_tower`, `multi_modal_projector`, `language_model`.
pub fn load(weights: &Weights, value: &Value, origin: &str) -> Result<VisionLanguage> {
    let object = |field: &str| value.get(field).cloned().unwrap_or(json!({}));
    let mut vision = json!({
        "model_type": "clip_vision_model", "hidden_size": 1024, "intermediate_size": 4096, "patch_size": 14,
        "image_size": 336, "num_hidden_layers": 24, "num_attention_heads": 16, "projection_dim": 768,
    });
    match object("vision_config") {
        given if given.get("model_type").is_some() => vision = given,
        given => config::lay_over(&mut vision, &given),
    }
    let tower = weights.pp("vision_tower");
    let tower = if tower.has("vision_model.embeddings.position_embedding.weight") {
        tower.pp("vision_model")
    } else {
        tower
    };
    let tower = encoder::tower(&tower, &vision, origin)?;
    let side = tower.side().unwrap_or(0);
    let text = text_config(
        &object("text_config"),
        value.get("tie_word_embeddings").and_then(Value::as_bool),
        origin,
    )?;
    let layers: Vec<i64> = match value.get("vision_feature_layer") {
        None | Some(Value::Null) => vec![-2],
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_i64).collect(),
        Some(one) => one.as_i64().into_iter().collect(),
    };
    if layers.is_empty() || layers.len() > 64 {
        return config::refuse(
            origin,
            "`vision_feature_layer` names no layer: expected a number or a list of them",
        );
    }
    let class = match value.get("vision_feature_select_strategy").and_then(Value::as_str) {
        None | Some("default") => false,
        Some("full") => true,
        Some(other) => {
            let problem = format!("`vision_feature_select_strategy` is `{other}`; known are default, full");
            return config::refuse(origin, problem);
        }
    };
    let activation = value.get("projector_hidden_act").and_then(Value::as_str).unwrap_or("gelu");
    let bias = value.get("multimodal_projector_bias").and_then(Value::as_bool).unwrap_or(true);
    let bridge = Mlp::load(
        &weights.pp("multi_modal_projector"),
        tower.width() * layers.len(),
        text.hidden_size,
        config::activation(origin, activation)?,
        bias,
    )?;
    let language = Llama::load(&weights.pp("language_model"), &text, origin)?;
    Ok(VisionLanguage::new(
        tower,
        side,
        Layers::Behind { layers, class },
        Box::new(bridge),
        Box::new(language),
    ))
}
