//! Reading `config.json` pieces, with bounds that keep a hostile one from asking for the moon.

use std::collections::BTreeMap;

use dari_nn::{Activation, block};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{Error, Result};

/// Reads a typed config; the error names the file and the field.
pub fn parse<T: DeserializeOwned>(origin: &str, value: &Value) -> Result<T> {
    serde_json::from_value(value.clone())
        .map_err(|error| Error::Config { origin: origin.to_owned(), problem: error.to_string() })
}

/// A config error.
pub fn refuse<T>(origin: &str, problem: impl Into<String>) -> Result<T> {
    Err(Error::Config { origin: origin.to_owned(), problem: problem.into() })
}

/// The sizes that every transformer's config names, as read.
pub struct Sizes<'a> {
    /// The config's file, for errors.
    pub origin: &'a str,
    /// `hidden_size`.
    pub width: usize,
    /// `intermediate_size`.
    pub inner: usize,
    /// `num_hidden_layers`.
    pub layers: usize,
    /// `num_attention_heads`.
    pub heads: usize,
    /// `hidden_act`.
    pub activation: &'a str,
    /// `layer_norm_eps`.
    pub epsilon: f64,
}

/// Gathers the [`Sizes`] of a config by its fields' names, which all families share.
macro_rules! sizes {
    ($config:expr, $origin:expr) => {
        $crate::config::Sizes {
            origin: $origin,
            width: $config.hidden_size,
            inner: $config.intermediate_size,
            layers: $config.num_hidden_layers,
            heads: $config.num_attention_heads,
            activation: &$config.hidden_act,
            epsilon: $config.layer_norm_eps,
        }
    };
}
pub(crate) use sizes;

impl Sizes<'_> {
    /// The block of these sizes, which are checked before anything is built from them.
    pub fn block(&self, order: block::Order, qkv_bias: bool) -> Result<block::Config> {
        let Sizes { origin, width, inner, layers, heads, epsilon, .. } = *self;
        for (field, value) in
            [("hidden_size", width), ("intermediate_size", inner), ("num_attention_heads", heads)]
        {
            check_width(origin, field, value)?;
        }
        check_layers(origin, layers)?;
        check_epsilon(origin, "layer_norm_eps", epsilon)?;
        if !width.is_multiple_of(heads) {
            return refuse(
                origin,
                format!("`hidden_size` {width} does not divide by `num_attention_heads` {heads}"),
            );
        }
        let activation = activation(origin, self.activation)?;
        Ok(block::Config { width, inner, heads, activation, epsilon, order, qkv_bias })
    }
}

/// Puts a config over what is assumed where it says nothing; a null in it stands.
pub fn lay_over(under: &mut Value, over: &Value) {
    if let (Some(under), Some(over)) = (under.as_object_mut(), over.as_object()) {
        under.extend(over.iter().map(|(key, value)| (key.clone(), value.clone())));
    }
}

/// The number of layers, checked.
pub fn check_layers(origin: &str, layers: usize) -> Result<()> {
    if layers > 1024 {
        return refuse(origin, format!("`num_hidden_layers` is {layers}, expected at most 1024"));
    }
    Ok(())
}

/// A norm's epsilon, checked.
pub fn check_epsilon(origin: &str, field: &str, epsilon: f64) -> Result<()> {
    if !(0.0..1.0).contains(&epsilon) {
        return refuse(origin, format!("`{field}` is {epsilon}, expected 0 to below 1"));
    }
    Ok(())
}

/// One width, checked.
pub fn check_width(origin: &str, field: &str, value: usize) -> Result<()> {
    const LIMIT: usize = 1 << 16;
    if value == 0 || value > LIMIT {
        return refuse(origin, format!("`{field}` is {value}, expected 1 to {LIMIT}"));
    }
    Ok(())
}

/// The sizes of a table of tokens, checked likewise.
pub fn check_table(origin: &str, vocabulary: usize, positions: usize) -> Result<()> {
    if vocabulary == 0 || vocabulary > 1 << 22 {
        return refuse(origin, format!("`vocab_size` is {vocabulary}, expected 1 to {}", 1 << 22));
    }
    if positions == 0 || positions > 1 << 20 {
        return refuse(
            origin,
            format!("`max_position_embeddings` is {positions}, expected 1 to {}", 1 << 20),
        );
    }
    Ok(())
}

/// The sizes of a vision tower's input, checked likewise. Gives patches down and across.
pub fn check_picture(origin: &str, image: usize, patch: usize, channels: usize) -> Result<usize> {
    if image == 0 || image > 1 << 13 || patch == 0 || patch > image {
        return refuse(
            origin,
            format!(
                "`image_size` {image} with `patch_size` {patch}: expected a patch of 1 to the image's size, at most 8192"
            ),
        );
    }
    if channels != 3 {
        return refuse(
            origin,
            format!("`num_channels` is {channels}, expected 3: pictures are read in colour"),
        );
    }
    Ok(image / patch)
}

/// The activation that a config names.
pub fn activation(origin: &str, name: &str) -> Result<Activation> {
    dari_nn::activation::named(name)
        .map_err(|error| Error::Config { origin: origin.to_owned(), problem: error.to_string() })
}

/// `id2label` in the order of its numbers; transformers leaves out its two plain ones.
pub fn labels(names: &BTreeMap<String, String>, origin: &str) -> Result<Vec<String>> {
    if names.is_empty() {
        return Ok(vec!["LABEL_0".into(), "LABEL_1".into()]);
    }
    let mut by_id: Vec<(usize, &String)> = Vec::with_capacity(names.len());
    for (id, name) in names {
        match id.parse() {
            Ok(id) => by_id.push((id, name)),
            Err(_) => return refuse(origin, format!("`id2label` has `{id}`, expected numbers")),
        }
    }
    by_id.sort_unstable_by_key(|(id, _)| *id);
    Ok(by_id.into_iter().map(|(_, name)| name.clone()).collect())
}

/// The labels that a classifier's config names.
pub fn labels_of(config: &Value, origin: &str) -> Result<Vec<String>> {
    let names = config.get("id2label").cloned().unwrap_or(Value::Object(Default::default()));
    labels(&parse(origin, &names)?, origin)
}

/// Puts other labels into a classifier's config.
pub fn set_labels(config: &mut Value, classes: &[String]) {
    let numbered = || classes.iter().enumerate();
    config["id2label"] =
        numbered().map(|(at, class)| (at.to_string(), Value::from(class.as_str()))).collect();
    config["label2id"] = numbered().map(|(at, class)| (class.clone(), Value::from(at))).collect();
}
