//! Idefics 3 (Laurençon et al. 2024) and SmolVLM (Marafioti et al. 2025): `Idefics3ForConditionalGeneration` and
//! `SmolVLMForConditionalGeneration` of transformers.

use dari_nn::Weights;
use serde_json::{Value, json};

use super::{Layers, VisionLanguage, text_config};
use crate::bridge::pixel_shuffle::PixelShuffle;
use crate::encoder;
use crate::language::llama::Llama;
use crate::{Result, config};

/// Patches a side at which the reference's rounding moves positions, of all below [`LARGEST`]; no public
/// checkpoint has them.
const MOVED: [usize; 25] =
    [19, 25, 29, 31, 38, 40, 41, 43, 47, 49, 50, 54, 55, 58, 59, 61, 62, 67, 68, 71, 72, 73, 74, 76, 77];
const LARGEST: usize = 79;

/// Reads the model: `model.vision_model`, `model.connector`, `model.text_model`, and `lm_head`.
pub fn load(weights: &Weights, value: &Value, origin: &str) -> Result<VisionLanguage> {
    let object = |field: &str| value.get(field).cloned().unwrap_or(json!({}));
    let mut vision = json!({
        "hidden_size": 1152, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 16,
        "image_size": 224, "patch_size": 32,
    });
    config::lay_over(&mut vision, &object("vision_config"));
    vision["model_type"] = json!("siglip_vision_model");
    vision["vision_use_head"] = json!(false);
    let model = weights.pp("model");
    let tower = encoder::tower(&model.pp("vision_model"), &vision, origin)?;
    let size = tower.side().unwrap_or(0);
    let side = tower.places(size).isqrt();
    if side > LARGEST || MOVED.contains(&side) {
        return config::refuse(origin, format!("a tower of {side} patches a side is not known"));
    }
    let mut text = json!({"rms_norm_eps": 1e-5});
    config::lay_over(&mut text, &object("text_config"));
    let text = text_config(&text, value.get("tie_word_embeddings").and_then(Value::as_bool), origin)?;
    let scale = value.get("scale_factor").and_then(Value::as_u64).unwrap_or(2) as usize;
    if scale == 0 || !side.is_multiple_of(scale) {
        return config::refuse(
            origin,
            format!("`scale_factor` is {scale}, which does not divide {side} patches a side"),
        );
    }
    let projection = model.pp("connector.modality_projection.proj");
    let bridge = PixelShuffle::load(&projection, tower.width(), text.hidden_size, scale)?;
    let language = Llama::load_parts(&model.pp("text_model"), weights, &text, origin)?;
    Ok(VisionLanguage::new(tower, size, Layers::Last, Box::new(bridge), Box::new(language)))
}
