//! `dari similarity`: how near pictures and texts are.

use dari::Limits;
use serde_json::json;

use crate::Outcome;
use crate::cli::Similarity;
use crate::inputs::{self, Need};
use crate::screen;
use crate::screen::heat;

/// Runs the command.
pub fn run(arguments: &Similarity) -> anyhow::Result<Outcome> {
    let inputs::Files { files, mut failures } = inputs::pictures(&arguments.images)?;
    let engine = inputs::open(&arguments.model)?;
    inputs::require(&engine, Need::Both)?;
    let matching = engine.matching()?;
    let texts: Vec<&str> = arguments.texts.iter().map(String::as_str).collect();
    let words = engine.embed_texts_noting(&texts)?;
    inputs::warn_of_long_texts(&texts, &words.truncated);
    let (mut names, mut pictures, mut failed) = (Vec::new(), Vec::new(), Vec::new());
    let mut shown = Vec::new();
    let bar = screen::bar(files.len() as u64, "pictures");
    let batch = usize::from(arguments.model.batch);
    let vectors = files.chunks(batch).flat_map(|part| {
        let vectors = engine.embed_files(part);
        bar.inc(part.len() as u64);
        vectors
    });
    for (file, vector) in files.iter().zip(vectors) {
        match vector {
            Ok(vector) => {
                names.push(file.display().to_string());
                pictures.push(vector);
                shown.push(file);
            }
            Err(error) => {
                bar.suspend(|| screen::error(&error.to_string()));
                failed.push(json!({"picture": file.display().to_string(), "error": error.to_string()}));
                failures += 1;
            }
        }
    }
    bar.finish_and_clear();
    let cosine: Vec<Vec<f32>> = pictures
        .iter()
        .map(|picture| words.vectors.iter().map(|text| dari::cosine(picture, text)).collect())
        .collect();
    if arguments.json {
        let logits = engine.logits(&pictures, &words.vectors)?;
        let probability: Vec<Vec<f32>> = logits.iter().map(|row| matching.probabilities(row)).collect();
        screen::json(&json!({
            "pictures": names, "texts": texts, "cosine": cosine, "probability": probability, "failed": failed,
        }))?;
    } else {
        heat::show(&cosine, &clean(&names), &clean(&arguments.texts))?;
    }
    if let Some(path) = &arguments.png {
        let thumbnails: Vec<_> = shown
            .iter()
            .map(|file| {
                heat::thumbnail(&dari::data::image::open(file, &Limits::default()).ok()?, heat::THUMBNAIL)
            })
            .collect();
        let drawn = heat::draw(&cosine, &thumbnails)?.to_png()?;
        dari::files::write_atomically(path, &drawn)?;
    }
    Ok(Outcome::of(failures))
}

fn clean(names: &[String]) -> Vec<String> {
    names.iter().map(|name| screen::clean(name)).collect()
}
