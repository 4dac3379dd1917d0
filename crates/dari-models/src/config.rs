//! Reading `config.json` pieces, with bounds that keep a hostile one from asking for the moon.

use dari_nn::Activation;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{Error, Result};

/// Reads a typed config; the error names the file and the field.
pub fn parse<T: DeserializeOwned>(origin: &str, value: &Value) -> Result<T> {
    serde_json::from_value(value.clone()).map_err(|error| Error::Config {
        origin: origin.to_owned(),
        problem: error.to_string(),
    })
}

/// A config error.
pub fn refuse<T>(origin: &str, problem: impl Into<String>) -> Result<T> {
    Err(Error::Config {
        origin: origin.to_owned(),
        problem: problem.into(),
    })
}

/// The sizes that every tower has, checked before anything is built from them.
pub fn check_tower(
    origin: &str,
    width: usize,
    inner: usize,
    layers: usize,
    heads: usize,
) -> Result<()> {
    const LIMIT: usize = 1 << 16;
    for (field, value) in [
        ("hidden_size", width),
        ("intermediate_size", inner),
        ("num_attention_heads", heads),
    ] {
        if value == 0 || value > LIMIT {
            return refuse(
                origin,
                format!("`{field}` is {value}, expected 1 to {LIMIT}"),
            );
        }
    }
    if layers > 1024 {
        return refuse(
            origin,
            format!("`num_hidden_layers` is {layers}, expected at most 1024"),
        );
    }
    if !width.is_multiple_of(heads) {
        return refuse(
            origin,
            format!("`hidden_size` {width} does not divide by `num_attention_heads` {heads}"),
        );
    }
    Ok(())
}

/// The sizes of a table of tokens, checked likewise.
pub fn check_table(origin: &str, vocabulary: usize, positions: usize) -> Result<()> {
    if vocabulary == 0 || vocabulary > 1 << 22 {
        return refuse(
            origin,
            format!("`vocab_size` is {vocabulary}, expected 1 to {}", 1 << 22),
        );
    }
    if positions == 0 || positions > 1 << 20 {
        return refuse(
            origin,
            format!(
                "`max_position_embeddings` is {positions}, expected 1 to {}",
                1 << 20
            ),
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
    if channels == 0 || channels > 64 {
        return refuse(
            origin,
            format!("`num_channels` is {channels}, expected 1 to 64"),
        );
    }
    Ok(image / patch)
}

/// The activation that a config names.
pub fn activation(origin: &str, name: &str) -> Result<Activation> {
    dari_nn::activation::named(name).map_err(|error| Error::Config {
        origin: origin.to_owned(),
        problem: error.to_string(),
    })
}
