//! `dari classify`: which of some labels each picture shows.

use std::path::PathBuf;

use dari::{Engine, Label};
use serde_json::json;

use crate::Outcome;
use crate::cli::{Classify, Usage};
use crate::inputs::{self, Need};
use crate::language::say;
use crate::screen;

/// Runs the command.
pub fn run(arguments: &Classify) -> anyhow::Result<Outcome> {
    let labels = inputs::labels(&arguments.labels, arguments.labels_file.as_deref())?;
    let asked = !arguments.labels.is_empty() || arguments.labels_file.is_some();
    if asked && labels.is_empty() {
        return Err(Usage(match &arguments.labels_file {
            Some(file) => {
                let file = file.display();
                say!("{file}: no label in it", "{file}: 라벨이 없습니다")
            }
            None => say!(
                "--labels names no label: give them separated by commas",
                "--labels에 라벨이 없습니다: 쉼표로 나누어 주세요"
            ),
        })
        .into());
    }
    if !asked && !arguments.template.is_empty() {
        return Err(Usage(say!(
            "--template without labels has nothing to fill: give --labels or --labels-file",
            "--template에 넣을 라벨이 없습니다: --labels나 --labels-file을 주세요"
        ))
        .into());
    }
    let inputs::Files { files, mut failures } = inputs::pictures(&arguments.images)?;
    let engine = inputs::open(&arguments.model)?;
    let abilities = engine.abilities();
    if asked && abilities.classify && !abilities.compare {
        let name = engine.name();
        return Err(Usage(say!(
            "`{name}` has labels of its own and takes no others: leave --labels out, or take a CLIP or SigLIP model",
            "`{name}` 모델은 자기 라벨만 씁니다: --labels를 빼거나 CLIP, SigLIP 모델을 쓰세요"
        ))
        .into());
    }
    if asked {
        inputs::require(&engine, Need::Both)?;
    } else if !abilities.classify {
        let name = engine.name();
        return Err(Usage(say!(
            "`{name}` has no labels of its own: give --labels or --labels-file",
            "`{name}` 모델은 자기 라벨이 없습니다: --labels나 --labels-file을 주세요"
        ))
        .into());
    }
    let answer = Answerer::new(&engine, labels, &arguments.template, asked)?;
    let bar = screen::bar(files.len() as u64, "pictures");
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
        let found = engine.embed_labels(&labels, templates)?;
        let borrowed: Vec<&str> = labels.iter().map(String::as_str).collect();
        inputs::warn_of_long_texts(&borrowed, &found.truncated);
        Ok(Answerer { engine, given: Some((labels, found.vectors)) })
    }

    fn answer(&self, files: &[PathBuf]) -> anyhow::Result<Vec<Result<Vec<Label>, dari::Error>>> {
        let Some((labels, vectors)) = &self.given else {
            return Ok(self.engine.classify_files(files));
        };
        let mut good = Vec::with_capacity(files.len());
        let mut answers = Vec::with_capacity(files.len());
        for picture in self.engine.embed_files(files) {
            match picture {
                Ok(vector) => {
                    good.push(vector);
                    answers.push(Ok(Vec::new()));
                }
                Err(error) => answers.push(Err(error)),
            }
        }
        let found = self.engine.classify_by(&good, labels, vectors)?;
        for (slot, labels) in answers.iter_mut().filter(|answer| answer.is_ok()).zip(found) {
            *slot = Ok(labels);
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
            let best = &labels[..labels.len().min(usize::try_from(arguments.top).unwrap_or(usize::MAX))];
            if arguments.json {
                screen::json(&json!({"picture": name, "labels": best}))?;
            } else {
                screen::print(&screen::clean(&name))?;
                for label in best {
                    let bar = "█".repeat((label.probability * 24.0).round() as usize);
                    screen::print(&format!(
                        "  {:>6.2}%  {} {bar}",
                        label.probability * 100.0,
                        screen::fit(&screen::clean(&label.label), 28)
                    ))?;
                }
            }
            Ok(true)
        }
    }
}
