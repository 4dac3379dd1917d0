//! llama.cpp's files under the names of transformers: the config that their metadata amount to, and the
//! tensors.

use std::borrow::Cow;
use std::sync::Arc;

use dari_files::gguf::{Gguf, Tensor, Value as Meta};
use dari_files::{Dtype, TensorView};
use dari_nn::weight::{BlockRows, Blocks};
use dari_nn::weights::{Source, floats};
use serde_json::{Value, json};

use super::rope::NEIGHBOURS;
use crate::{Result, config};

/// Tokens that end an answer, whatever the metadata say.
const ENDS: [&str; 6] = ["<|im_end|>", "<|eot_id|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "</s>"];

/// The names of a layer's parts: transformers', and llama.cpp's.
const PARTS: [(&str, &str); 9] = [
    ("input_layernorm", "attn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("post_attention_layernorm", "ffn_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
];

/// The `config.json` that a file's metadata amount to, with the tokens that end an answer.
pub fn config(gguf: &Gguf) -> Result<Value> {
    let origin = gguf.path().display().to_string();
    let architecture = gguf.get("general.architecture").and_then(Meta::as_str).unwrap_or_default();
    let kind = match architecture {
        "llama" => "llama",
        "qwen2" => "qwen2",
        "clip" => {
            return config::refuse(
                &origin,
                "this is llama.cpp's file of a picture tower (mmproj), which is not read; take the checkpoint in the layout of transformers (config.json, model.safetensors)",
            );
        }
        other => {
            return config::refuse(
                &origin,
                format!("a GGUF file of architecture `{other}`; known are llama, qwen2"),
            );
        }
    };
    let get = |key: &str| gguf.get(&format!("{architecture}.{key}"));
    let whole = |key: &str| get(key).and_then(Meta::as_u64);
    let need = |key: &str| -> Result<u64> {
        match whole(key) {
            Some(value) => Ok(value),
            None => {
                config::refuse(&origin, format!("the key `{architecture}.{key}` is missing or no number"))
            }
        }
    };
    let vocabulary = match gguf.get("tokenizer.ggml.tokens") {
        Some(Meta::Texts(tokens)) => tokens.len(),
        _ => gguf
            .tensors()
            .get("token_embd.weight")
            .and_then(|table| table.shape.first().copied())
            .unwrap_or(0),
    };
    let mut all = json!({
        "model_type": kind,
        "vocab_size": vocabulary,
        "hidden_size": need("embedding_length")?,
        "intermediate_size": need("feed_forward_length")?,
        "num_hidden_layers": need("block_count")?,
        "num_attention_heads": need("attention.head_count")?,
        "num_key_value_heads": whole("attention.head_count_kv"),
        "head_dim": whole("attention.key_length"),
        "hidden_act": "silu",
        "max_position_embeddings": need("context_length")?,
        "rms_norm_eps": get("attention.layer_norm_rms_epsilon").and_then(Meta::as_f64).unwrap_or(1e-5),
        "rope_theta": get("rope.freq_base").and_then(Meta::as_f64).unwrap_or(10_000.0),
        "tie_word_embeddings": !gguf.tensors().contains_key("output.weight"),
        "sliding_window": whole("attention.sliding_window"),
        "use_sliding_window": false,
        "attention_bias": false,
        "eos_token_id": ends(gguf),
    });
    all[NEIGHBOURS] = json!(architecture == "llama");
    if let Some(scaling) = scaling(gguf, architecture, &origin)? {
        all["rope_scaling"] = scaling;
    }
    Ok(all)
}

/// How rotary positions are stretched.
fn scaling(gguf: &Gguf, architecture: &str, origin: &str) -> Result<Option<Value>> {
    let get = |key: &str| gguf.get(&format!("{architecture}.rope.scaling.{key}"));
    let number = |key: &str| get(key).and_then(Meta::as_f64);
    if let Some(factors) = gguf.tensors().get("rope_freqs.weight") {
        // LLaMA 3's stretching, worked out beforehand.
        let view = view(gguf, "rope_freqs.weight", factors)?;
        let Some(factors) = floats(&view) else {
            return config::refuse(origin, "`rope_freqs.weight` holds no floating numbers");
        };
        return Ok(Some(json!({
            "rope_type": "longrope", "factor": 1.0, "short_factor": factors, "long_factor": factors,
        })));
    }
    Ok(match get("type").and_then(Meta::as_str) {
        None | Some("none") => None,
        Some("linear") => Some(json!({"rope_type": "linear", "factor": number("factor").unwrap_or(1.0)})),
        Some("yarn") => Some(json!({
            "rope_type": "yarn",
            "factor": number("factor").unwrap_or(1.0),
            "original_max_position_embeddings": number("original_context_length"),
            "attention_factor": number("attn_factor"),
        })),
        Some(other) => {
            return config::refuse(
                origin,
                format!("rotary positions of type `{other}`; known are none, linear, yarn"),
            );
        }
    })
}

fn ends(gguf: &Gguf) -> Vec<u64> {
    let mut ends = Vec::new();
    for key in ["eos", "eot"] {
        ends.extend(gguf.get(&format!("tokenizer.ggml.{key}_token_id")).and_then(Meta::as_u64));
    }
    if let (Some(Meta::Texts(tokens)), Some(Meta::Integers(kinds))) =
        (gguf.get("tokenizer.ggml.tokens"), gguf.get("tokenizer.ggml.token_type"))
    {
        // Control tokens alone: in a plain vocabulary the same letters are a word.
        let named = tokens.iter().zip(kinds).enumerate();
        let named = named.filter(|(_, (token, kind))| **kind == 3 && ENDS.contains(&token.as_str()));
        ends.extend(named.map(|(id, _)| id as u64));
    }
    ends.sort_unstable();
    ends.dedup();
    ends
}

/// A GGUF file's tensors by the names of transformers.
pub struct Renamed(pub Arc<Gguf>);

impl Renamed {
    fn theirs(name: &str) -> Option<String> {
        Some(match name {
            "model.embed_tokens.weight" => "token_embd.weight".to_owned(),
            "model.norm.weight" => "output_norm.weight".to_owned(),
            "lm_head.weight" => "output.weight".to_owned(),
            _ => {
                let (layer, part) = name.strip_prefix("model.layers.")?.split_once('.')?;
                let (stem, kind) = part.rsplit_once('.')?;
                let (_, theirs) = PARTS.iter().find(|(ours, _)| *ours == stem)?;
                format!("blk.{layer}.{theirs}.{kind}")
            }
        })
    }

    fn find(&self, name: &str) -> Option<(String, &Tensor)> {
        let theirs = Self::theirs(name)?;
        let tensor = self.0.tensors().get(&theirs)?;
        Some((theirs, tensor))
    }
}

impl Source for Renamed {
    fn names(&self) -> Vec<String> {
        self.0.tensors().keys().cloned().collect()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        Some(self.find(name)?.1.shape.clone())
    }

    fn tensor(&self, name: &str) -> Result<TensorView<'_>, dari_files::Error> {
        match self.find(name) {
            Some((theirs, tensor)) => view(&self.0, &theirs, tensor),
            // The error names what is missing.
            None => self.0.bytes(name).map(|data| TensorView {
                dtype: Dtype::U8,
                shape: Vec::new(),
                data: data.into(),
            }),
        }
    }

    fn blocks(&self, name: &str) -> Option<(Blocks, &[u8])> {
        let (theirs, tensor) = self.find(name)?;
        Some((Blocks::from_name(tensor.kind.name)?, self.0.bytes(&theirs).ok()?))
    }

    fn release(&self, name: &str) {
        if let Some(theirs) = Self::theirs(name) {
            self.0.release(&theirs);
        }
    }

    fn stored(&self, name: &str) -> String {
        Self::theirs(name).unwrap_or_else(|| name.to_owned())
    }

    fn origin(&self, name: &str) -> String {
        format!("{} (as `{}`)", self.0.path().display(), self.stored(name))
    }
}

/// A tensor's numbers: as they lie, or what its blocks stand for.
fn view<'a>(gguf: &'a Gguf, name: &str, tensor: &Tensor) -> Result<TensorView<'a>, dari_files::Error> {
    let (bytes, shape) = (gguf.bytes(name)?, tensor.shape.clone());
    let plain = |dtype| Ok(TensorView { dtype, shape: shape.clone(), data: Cow::Borrowed(bytes) });
    match tensor.kind.name {
        "F32" => return plain(Dtype::F32),
        "F16" => return plain(Dtype::F16),
        "BF16" => return plain(Dtype::BF16),
        "F64" => return plain(Dtype::F64),
        _ => {}
    }
    let (inputs, outputs) = (shape.last().copied().unwrap_or(1), shape.iter().rev().skip(1).product());
    let rows =
        Blocks::from_name(tensor.kind.name).and_then(|format| BlockRows::new(format, outputs, inputs, bytes));
    match rows {
        Some(rows) => {
            let data = rows.unpack().iter().flat_map(|value| value.to_le_bytes()).collect();
            Ok(TensorView { dtype: Dtype::F32, shape, data: Cow::Owned(data) })
        }
        None => Err(dari_files::Error::Unsupported {
            file: gguf.path().display().to_string(),
            problem: format!("the tensor `{name}` is kept in {}, which is not read yet", tensor.kind.name),
            remedy: "take the model in Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q2_K to Q6_K, F16, BF16 or F32",
        }),
    }
}
