//! `dari classify`: which of some labels each picture shows.

use std::path::PathBuf;

use dari::{Engine, Label};
use serde_json::json;

use crate::Outcome;
use crate::cli::{Classify, Usage};
use crate::{inputs, screen};

/// Runs the command.
pub fn run(arguments: &Classify) -> anyhow::Result<Outcome> {
    let labels = inputs::labels(&arguments.labels, arguments.labels_file.as_deref())?;
    let asked = !arguments.labels.is_empty() || arguments.labels_file.is_some();
    if asked && labels.is_empty() {
        return Err(Usage("--labels names no label: give them separated by commas".into()).into());
    }
    let files = inputs::pictures(&arguments.images)?;
    let engine = inputs::open(&arguments.model)?;
    let abilities = engine.abilities();
    if !asked && !abilities.classify {
        let name = engine.name();
        return Err(
            Usage(format!("`{name}` has no labels of its own: give --labels or --labels-file")).into()
        );
    }
    if asked && !abilities.compare {
        let name = engine.name();
        return Err(Usage(format!(
            "`{name}` cannot take labels: leave them out, or use a CLIP or SigLIP model"
        ))
        .into());
    }
    let answer = Answerer::new(&engine, labels, &arguments.template, asked)?;
    let bar = screen::bar(files.len() as u64, "pictures");
    let mut failures = 0;
    for batch in files.chunks(arguments.model.batch.into()) {
        for (file, found) in batch.iter().zip(answer.answer(batch)?) {
            let shown = bar.suspend(|| show(arguments, file, found));
            failures += usize::from(!shown?);
        }
        bar.inc(batch.len() as u64);
    }
    bar.finish_and_clear();
    Ok(Outcome::of(failures))
}

/// What answers: given labels embedded once, or the checkpoint's own.
struct Answerer<'a> {
    engine: &'a Engine,
    given: Option<(Vec<String>, Vec<Vec<f32>>)>,
}

impl Answerer<'_> {
    fn new<'a>(
        engine: &'a Engine,
        labels: Vec<String>,
        templates: &[String],
        asked: bool,
    ) -> anyhow::Result<Answerer<'a>> {
        if !asked {
            return Ok(Answerer { engine, given: None });
        }
        let plain = ["{}".to_owned()];
        let found = engine.embed_labels(&labels, if templates.is_empty() { &plain } else { templates })?;
        let borrowed: Vec<&str> = labels.iter().map(String::as_str).collect();
        inputs::warn_of_long_texts(&borrowed, &found.truncated);
        Ok(Answerer { engine, given: Some((labels, found.vectors)) })
    }

    fn answer(&self, files: &[PathBuf]) -> anyhow::Result<Vec<Result<Vec<Label>, dari::Error>>> {
        let Some((labels, vectors)) = &self.given else {
            return Ok(self.engine.classify_files(files));
        };
        let matching = self.engine.matching()?;
        let mut answers = Vec::with_capacity(files.len());
        for picture in self.engine.embed_files(files) {
            answers.push(picture.and_then(|picture| {
                let logits = self.engine.logits(&[picture], vectors)?;
                Ok(dari::sorted_labels(labels, matching.probabilities(&logits[0])))
            }));
        }
        Ok(answers)
    }
}

/// Prints one picture's answer; false where it has none.
fn show(
    arguments: &Classify,
    file: &std::path::Path,
    found: Result<Vec<Label>, dari::Error>,
) -> std::io::Result<bool> {
    let name = file.display().to_string();
    match found {
        Err(error) => {
            let message = error.to_string();
            if arguments.json {
                screen::json(&json!({"picture": name, "error": message}))?;
            }
            screen::error(&message);
            Ok(false)
        }
        Ok(labels) => {
            let best = &labels[..labels.len().min(arguments.top)];
            if arguments.json {
                screen::json(&json!({"picture": name, "labels": best}))?;
            } else {
                screen::print(&name)?;
                for label in best {
                    let bar = "█".repeat((label.probability * 24.0).round() as usize);
                    screen::print(&format!(
                        "  {:>6.2}%  {} {bar}",
                        label.probability * 100.0,
                        screen::fit(&label.label, 28)
                    ))?;
                }
            }
            Ok(true)
        }
    }
}
