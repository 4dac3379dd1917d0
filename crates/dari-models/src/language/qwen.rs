//! Qwen 2 and 2.5 (Yang et al. 2024; `Qwen2ForCausalLM` of transformers): LLaMA with biases on queries,
//! keys and values.

use serde_json::{Value, json};

use super::llama::LlamaConfig;
use crate::{Result, config};

/// Reads the `config.json` of a `qwen2` checkpoint.
pub fn parse(value: &Value, origin: &str) -> Result<LlamaConfig> {
    let mut all = json!({
        "vocab_size": 151_936, "hidden_size": 4096, "intermediate_size": 22016, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 32, "hidden_act": "silu",
        "max_position_embeddings": 32768, "rms_norm_eps": 1e-6, "sliding_window": 4096,
        "max_window_layers": 28, "use_sliding_window": false,
    });
    config::lay_over(&mut all, value);
    if all["use_sliding_window"].as_bool() != Some(true) {
        all["sliding_window"] = Value::Null;
    }
    let first_window = all["max_window_layers"].as_u64().unwrap_or(0) as usize;
    let read = LlamaConfig::read(&all, origin)?;
    Ok(LlamaConfig { qkv_bias: true, attention_bias: false, mlp_bias: false, first_window, ..read })
}
