//! Text understanding and generation.

pub mod bert;
pub mod clip_text;
pub mod gguf;
pub mod gpt2;
pub mod llama;
pub mod qwen;
mod rope;
pub mod siglip_text;
pub mod text_tower;

use serde_json::Value;

use crate::{Result, config};

/// Reads the config of a model of LLaMA's family, by its `model_type`; without one it is LLaMA itself.
pub fn decoder_config(value: &Value, origin: &str) -> Result<llama::LlamaConfig> {
    match value.get("model_type").and_then(Value::as_str).unwrap_or("llama") {
        "llama" | "mistral" => llama::LlamaConfig::parse(value, origin),
        "qwen2" => qwen::parse(value, origin),
        other => config::refuse(
            origin,
            format!("`model_type` of the language model is `{other}`; known are llama, mistral, qwen2"),
        ),
    }
}
