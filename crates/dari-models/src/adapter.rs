//! Low-rank adapters in PEFT's layout: `adapter_config.json` and `adapter_model.safetensors`.

use dari_files::Folder;
use dari_nn::Adapters;
use dari_nn::weights::ADAPTED;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{Result, config};

/// The config's file.
pub const CONFIG: &str = "adapter_config.json";
/// The weights' file.
pub const WEIGHTS: &str = "adapter_model.safetensors";

/// How large the factors of an adapter are, and beside which layers they stand.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Lora {
    /// Inner width of the factors.
    #[serde(default = "eight")]
    pub rank: usize,
    /// Their product is multiplied by this over the rank.
    #[serde(default = "sixteen")]
    pub alpha: f64,
    /// Ends of the names of the layers that have them.
    #[serde(default = "queries_and_values")]
    pub targets: Vec<String>,
}

fn eight() -> usize {
    8
}

fn sixteen() -> f64 {
    16.0
}

fn queries_and_values() -> Vec<String> {
    vec!["q_proj".into(), "v_proj".into()]
}

impl Lora {
    /// What is wrong with it, if anything.
    pub fn problem(&self) -> Option<String> {
        if self.rank == 0 || self.rank > 4096 {
            return Some(format!("rank is {}, expected 1 to 4096", self.rank));
        }
        if !self.alpha.is_finite() || self.targets.is_empty() {
            return Some("alpha must be a number, and targets name at least one layer".into());
        }
        None
    }

    /// New factors, drawn so that at first they change nothing.
    pub fn new_adapters(&self) -> Adapters {
        let targets = self.targets.clone();
        let is_target = move |name: &str| {
            targets.iter().any(|end| {
                name.strip_suffix(end.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            })
        };
        let scale = self.alpha / self.rank.max(1) as f64;
        Adapters { rank: self.rank, scale, targets: Box::new(is_target), source: None }
    }

    /// `adapter_config.json`, as PEFT writes it.
    pub fn to_config(&self, base: &str) -> Value {
        json!({
            "base_model_name_or_path": base, "bias": "none", "fan_in_fan_out": false, "inference_mode": true,
            "lora_alpha": self.alpha, "lora_dropout": 0.0, "modules_to_save": null, "peft_type": "LORA",
            "r": self.rank, "target_modules": self.targets, "task_type": "CAUSAL_LM", "use_dora": false,
            "use_rslora": false,
        })
    }
}

/// The parts of `adapter_config.json` that decide what an adapter computes.
#[derive(Deserialize)]
struct Config {
    base_model_name_or_path: Option<String>,
    peft_type: String,
    r: usize,
    lora_alpha: f64,
    #[serde(default)]
    use_rslora: bool,
}

/// Settings of PEFT that change what an adapter computes, and are not known here.
const UNKNOWN: [&str; 12] = [
    "use_dora",
    "use_qalora",
    "use_bdlora",
    "lora_bias",
    "modules_to_save",
    "rank_pattern",
    "alpha_pattern",
    "layer_replication",
    "trainable_token_indices",
    "target_parameters",
    "alora_invocation_tokens",
    "velora_config",
];

/// An adapter on disk.
pub struct Adapter {
    /// Its factors.
    pub adapters: Adapters,
    /// Its config's file, for errors.
    pub origin: String,
}

/// The model that a folder's adapter stands beside, where it holds an adapter alone.
///
/// # Errors
/// A damaged config, or one that names no model.
pub fn base(folder: &Folder) -> Result<Option<String>> {
    if folder.has("config.json") {
        return Ok(None);
    }
    let Some(value) = folder.json(CONFIG)? else { return Ok(None) };
    let origin = format!("{}/{CONFIG}", folder.label());
    let said: Config = config::parse(&origin, &value)?;
    match said.base_model_name_or_path.filter(|base| !base.trim().is_empty()) {
        Some(base) => Ok(Some(base)),
        None => config::refuse(
            &origin,
            "`base_model_name_or_path` is missing: it names the model that this adapter is for",
        ),
    }
}

/// Reads an adapter's folder; `None` where it is none.
///
/// # Errors
/// A damaged file, or an adapter of a kind that is not known.
pub fn read(folder: &Folder) -> Result<Option<Adapter>> {
    let Some(value) = folder.json(CONFIG)? else { return Ok(None) };
    let origin = format!("{}/{CONFIG}", folder.label());
    let said: Config = config::parse(&origin, &value)?;
    if said.peft_type != "LORA" {
        return config::refuse(&origin, format!("`peft_type` is `{}`; LORA is known", said.peft_type));
    }
    let is_set = |value: &Value| match value {
        Value::Null | Value::Bool(false) => false,
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
        _ => true,
    };
    if let Some(name) = UNKNOWN.iter().find(|name| value.get(**name).is_some_and(is_set)) {
        return config::refuse(&origin, format!("`{name}` is set, which is not known: plain LoRA is"));
    }
    if value.get("bias").and_then(Value::as_str).is_some_and(|bias| bias != "none") {
        return config::refuse(&origin, "`bias` is not \"none\", which is not known");
    }
    if said.r == 0 || !said.lora_alpha.is_finite() {
        return config::refuse(&origin, format!("`r` is {} and `lora_alpha` {}", said.r, said.lora_alpha));
    }
    let rank = said.r as f64;
    let scale = said.lora_alpha / if said.use_rslora { rank.sqrt() } else { rank };
    let file = folder.file(WEIGHTS)?;
    let names: Vec<String> = file.names().map(str::to_owned).collect();
    let is_target = move |name: &str| names.contains(&format!("{ADAPTED}{name}.lora_A.weight"));
    let adapters =
        Adapters { rank: said.r, scale, targets: Box::new(is_target), source: Some(Box::new(file)) };
    Ok(Some(Adapter { adapters, origin }))
}
