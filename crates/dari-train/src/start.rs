//! The folder of a new model, before its first step: configs and tokenizer; of a composed one, its sides.

use std::fs;
use std::path::Path;

use dari_data::text::{tokenizer_config, train_tokenizer};
use dari_files::{Folder, write_atomically};
use dari_models::auto;
use dari_models::generative::composed::{ComposedConfig, LANGUAGE, VISION};
use serde_json::{Value, json};

use crate::batches::Mixture;
use crate::lessons::Lessons;
use crate::recipe::{Recipe, TokenizerRecipe};
use crate::{Error, Result};

/// A chat of a language model that has no template of its own: a line for whoever asks, an answer with its end.
const CHAT: &str = "{% for message in messages %}{% if message['role'] == 'assistant' %}{{ message['content'] }}\
                    {{ eos_token }}{% else %}{{ message['content'] }}{{ '\\n' }}{% endif %}{% endfor %}";

fn refuse(problem: &str) -> Error {
    Error::Recipe { origin: "the recipe".into(), problem: problem.to_owned() }
}

/// Of a model of the contrastive road, or a classifier.
pub fn contrastive(recipe: &Recipe, mixture: &Mixture, folder: &Path) -> Result<Folder> {
    let mut config = recipe.model.config.clone().ok_or_else(|| refuse("`model.config` is missing"))?;
    let preprocessor = recipe
        .model
        .preprocessor
        .as_ref()
        .ok_or_else(|| refuse("`model.preprocessor` is missing: a new model needs one"))?;
    let mut files = vec![("preprocessor_config.json", preprocessor.clone())];
    if auto::is_classifier(&config) {
        auto::set_labels(&mut config, &mixture.classes());
    } else {
        let tokenizer = tokenizer_of(recipe)?;
        let texts = mixture.captions(tokenizer.scene_captions);
        if !config["text_config"].is_object() {
            return Err(refuse("`model.config.text_config` is missing"));
        }
        files.extend(tokenizer_files(tokenizer, texts, &mut config["text_config"])?);
    }
    files.push(("config.json", config));
    write(folder, files)?;
    Ok(Folder::open(folder)?)
}

/// Of a model that speaks.
pub fn speaker(
    recipe: &Recipe,
    lessons: &Lessons,
    open: &dyn Fn(&str) -> Result<Folder>,
    folder: &Path,
) -> Result<()> {
    // Another run's, stopped before its first checkpoint.
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(Error::file(folder))?;
    }
    let Some(compose) = &recipe.model.compose else {
        let config = recipe.model.config.clone().ok_or_else(|| refuse("`model.config` is missing"))?;
        return language(recipe, config, lessons, folder);
    };
    open(&recipe.start(&compose.vision))?.copy_to(&folder.join(VISION))?;
    match (&compose.language, &compose.language_config) {
        (Some(from), _) => open(&recipe.start(from))?.copy_to(&folder.join(LANGUAGE))?,
        (None, Some(config)) => language(recipe, config.clone(), lessons, &folder.join(LANGUAGE))?,
        (None, None) => return Err(refuse("`model.compose.language` is missing")),
    }
    let mut config = ComposedConfig {
        bridge: compose.bridge,
        vision_layers: compose.vision_layers.clone(),
        unsure_below: None,
        image_token: "<image>".into(),
    };
    if let Some(token) = &compose.image_token {
        config.image_token.clone_from(token);
    }
    write(folder, vec![("config.json", config.to_json())])?;
    if let Some(template) = &compose.chat_template {
        write_atomically(&folder.join("chat_template.jinja"), template.as_bytes())?;
    }
    Ok(())
}

/// A language model without weights.
fn language(recipe: &Recipe, mut config: Value, lessons: &Lessons, folder: &Path) -> Result<()> {
    let tokenizer = tokenizer_of(recipe)?;
    let texts = lessons.texts(tokenizer.scene_captions);
    let mut files = tokenizer_files(tokenizer, texts, &mut config)?;
    for (file, value) in &mut files {
        if *file == "tokenizer.json" {
            // A prompt ends where the answer begins.
            for key in ["single", "pair"] {
                if let Some(around) = value["post_processor"][key].as_array_mut() {
                    around.truncate(2);
                }
            }
        } else {
            value["chat_template"] = json!(CHAT);
        }
    }
    files.push(("config.json", config));
    write(folder, files)
}

fn tokenizer_of(recipe: &Recipe) -> Result<&TokenizerRecipe> {
    recipe
        .model
        .tokenizer
        .as_ref()
        .ok_or_else(|| refuse("`model.tokenizer` is missing: a new model needs one"))
}

/// Trains a tokenizer, and tells its config's model how many entries it has and which are special.
fn tokenizer_files(
    tokenizer: &TokenizerRecipe,
    texts: Vec<String>,
    config: &mut Value,
) -> Result<Vec<(&'static str, Value)>> {
    let trained = train_tokenizer(texts.into_iter(), tokenizer.vocabulary)?;
    let entries = trained["model"]["vocab"].as_object().map_or(0, serde_json::Map::len);
    config["vocab_size"] = json!(entries);
    // The two last entries, as CLIP has them.
    config["bos_token_id"] = json!(entries.saturating_sub(2));
    config["eos_token_id"] = json!(entries.saturating_sub(1));
    config["pad_token_id"] = json!(entries.saturating_sub(1));
    let context = config.get("max_position_embeddings").and_then(Value::as_u64).unwrap_or(77) as usize;
    Ok(vec![("tokenizer.json", trained), ("tokenizer_config.json", tokenizer_config(context))])
}

fn write(folder: &Path, files: Vec<(&'static str, Value)>) -> Result<()> {
    fs::create_dir_all(folder).map_err(Error::file(folder))?;
    for (file, value) in files {
        write_atomically(&folder.join(file), value.to_string().as_bytes())?;
    }
    Ok(())
}
