//! `dari similarity`: how near pictures and texts are.

use anyhow::Context;
use dari::Limits;
use serde_json::json;

use crate::Outcome;
use crate::cli::Similarity;
use crate::screen::heat;
use crate::{inputs, screen};

/// Runs the command.
pub fn run(arguments: &Similarity) -> anyhow::Result<Outcome> {
    let files = inputs::pictures(&arguments.images)?;
    let engine = inputs::open(&arguments.model)?;
    let matching = engine.matching()?;
    let texts: Vec<&str> = arguments.texts.iter().map(String::as_str).collect();
    let words = engine.embed_texts_noting(&texts)?;
    inputs::warn_of_long_texts(&texts, &words.truncated);
    let (mut names, mut pictures, mut failures) = (Vec::new(), Vec::new(), 0);
    let mut shown = Vec::new();
    for (file, vector) in files.iter().zip(engine.embed_files(&files)) {
        match vector {
            Ok(vector) => {
                names.push(file.display().to_string());
                pictures.push(vector);
                shown.push(file);
            }
            Err(error) => {
                screen::error(&error.to_string());
                failures += 1;
            }
        }
    }
    let cosine: Vec<Vec<f32>> = pictures
        .iter()
        .map(|picture| words.vectors.iter().map(|text| dari::cosine(picture, text)).collect())
        .collect();
    if arguments.json {
        let logits = engine.logits(&pictures, &words.vectors)?;
        let probability: Vec<Vec<f32>> = logits.iter().map(|row| matching.probabilities(row)).collect();
        screen::json(
            &json!({"pictures": names, "texts": texts, "cosine": cosine, "probability": probability}),
        )?;
    } else {
        heat::show(&cosine, &names, &arguments.texts)?;
    }
    if let Some(path) = &arguments.png {
        let thumbnails: Vec<_> = shown
            .iter()
            .map(|file| {
                heat::thumbnail(&dari::data::image::open(file, &Limits::default()).ok()?, heat::THUMBNAIL)
            })
            .collect();
        heat::draw(&cosine, &thumbnails)?.write_png(path).with_context(|| path.display().to_string())?;
    }
    Ok(Outcome::of(failures))
}
