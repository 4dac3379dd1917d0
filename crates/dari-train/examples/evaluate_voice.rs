//! How a model that speaks answers what it never saw: exact answers on held-out scenes by topic, names of drawings,
//! and a file of conversations.
//!
//! `cargo run --release --example evaluate_voice -- MODEL [SCENES] [DATA]`, with DATA as `scripts/fetch_data.py` fills
//! it (`~/.cache/dari/data` when absent). Prints Markdown tables; chance is that of always saying the commonest
//! answer of the topic.
#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use dari_data::datasets::dialogues;
use dari_data::image::{self, Limits, Picture};
use dari_data::scenes::{LANGUAGES, Scene, SceneOptions, Topic, describe_prompts};
use dari_files::Folder;
use dari_models::generate::{Decoder, Prompt, Sampling, generate};
use dari_models::generative::illustrate;
use dari_models::{Loaded, auto};
use dari_nn::Precision;
use serde_json::{Value, json};

type Failure = Box<dyn std::error::Error>;

/// Questions that are answered at once.
const BATCH: usize = 64;
/// A seed that training never draws.
const SEED: u64 = 900_001;

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let model = arguments.next().ok_or("give the model's folder")?;
    let count: usize = arguments.next().map_or(Ok(2000), |count| count.parse())?;
    let data =
        arguments.next().map(PathBuf::from).or_else(|| Some(std::env::home_dir()?.join(".cache/dari/data")));
    let data = data.ok_or("say where the data lies")?;
    let model = auto::load(&Folder::open(Path::new(&model))?, &Device::Cpu, Precision::F32)?;
    for held_out in [false, true] {
        scenes(&model, held_out, count)?;
    }
    for file in ["twemoji/known.jsonl", "openmoji/known.jsonl"] {
        if data.join(file).is_file() {
            names(&model, &data.join(file), file)?;
        }
    }
    let questions = data.join("easy-vqa/test.json");
    if questions.is_file() {
        conversations(&model, &questions)?;
    }
    Ok(())
}

/// Answers, in the questions' order.
fn answers(model: &Loaded, asked: &[(&Picture, &str)]) -> Result<Vec<String>, Failure> {
    let (sees, processor) = (model.model.sees().ok_or("it sees nothing")?, &model.processor);
    let placeholder = model.placeholder.ok_or("no placeholder")?;
    let mut prompts: Vec<Prompt> = Vec::with_capacity(asked.len());
    for (picture, question) in asked {
        let messages = json!([processor.message("user", question, 1)]);
        let text = processor.chat()?.render(&messages, true)?;
        let ids = processor.illustrated(&text, &[(picture.height(), picture.width())])?;
        let seen: Tensor = sees.see(&processor.pieces(picture, &Device::Cpu)?)?;
        prompts.push(illustrate(sees, ids, placeholder, &seen)?);
    }
    let language = sees.language();
    let mut states = vec![language.begin(); prompts.len()];
    let said =
        generate(language, &mut states, &prompts, Sampling::default(), &model.ends, 32, &mut |_, _| true)?;
    said.iter().map(|said| Ok(processor.words()?.decode(&said.tokens, true)?.trim().to_lowercase())).collect()
}

fn scenes(model: &Loaded, held_out: bool, count: usize) -> Result<(), Failure> {
    let side = model.processor.image()?.size().0 as u32;
    println!("\n{}\n", if held_out { "Scenes of combinations kept from training" } else { "New scenes" });
    println!("| topic | language | questions | exact | chance |");
    println!("| --- | --- | ---: | ---: | ---: |");
    for language in LANGUAGES {
        let (mut right, mut totals) = (BTreeMap::<Topic, usize>::new(), BTreeMap::<Topic, usize>::new());
        let mut common = BTreeMap::<Topic, BTreeMap<String, usize>>::new();
        let mut misses = Vec::new();
        for first in (0..count).step_by(BATCH) {
            let mut batch = Vec::new();
            for index in first..count.min(first + BATCH) {
                let options = SceneOptions { held_out, ..Default::default() };
                let scene = Scene::draw_with(SEED, index as u64, &options);
                let Some(asked) = scene.question(language, index as u64) else { continue };
                batch.push((scene.render(side), asked));
            }
            let asked: Vec<_> =
                batch.iter().map(|(picture, asked)| (picture, asked.question.as_str())).collect();
            for (said, (_, asked)) in answers(model, &asked)?.into_iter().zip(&batch) {
                let expected = asked.answer.to_lowercase();
                *totals.entry(asked.topic).or_default() += 1;
                *common.entry(asked.topic).or_default().entry(expected.clone()).or_default() += 1;
                if said == expected {
                    *right.entry(asked.topic).or_default() += 1;
                } else if misses.len() < 6 {
                    misses.push(format!("{} -> {said} ({expected})", asked.question));
                }
            }
        }
        let (mut all, mut found, mut guessed) = (0, 0, 0);
        for (topic, total) in &totals {
            let right = right.get(topic).copied().unwrap_or(0);
            let most = common[topic].values().max().copied().unwrap_or(0);
            (all, found, guessed) = (all + total, found + right, guessed + most);
            let share = |count: usize| count as f64 / *total as f64;
            println!(
                "| {} | {language} | {total} | {:.3} | {:.3} |",
                topic.name(),
                share(right),
                share(most)
            );
        }
        let share = |count: usize| count as f64 / all.max(1) as f64;
        println!("| **all** | {language} | {all} | **{:.3}** | {:.3} |", share(found), share(guessed));
        println!("\nMissed in {language}, the first: {}\n", misses.join("; "));
    }
    Ok(())
}

/// Whether a caption of a drawing is its concept's name, or one of its tags.
fn names(model: &Loaded, file: &Path, name: &str) -> Result<(), Failure> {
    let folder = file.parent().ok_or("no folder")?;
    let lines: Vec<Value> =
        std::fs::read_to_string(file)?.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let plain =
        |record: &&Value| ["flag", "person", "variant", "tone"].iter().all(|key| record[*key] != true);
    let lines: Vec<&Value> = lines.iter().filter(plain).collect();
    println!("\nDrawings of {name}, {} things\n", lines.len());
    println!("| language | name exactly | name or a tag |\n| --- | ---: | ---: |");
    for language in LANGUAGES {
        let prompts = describe_prompts(language);
        let (mut exact, mut near) = (0, 0);
        for batch in lines.chunks(BATCH) {
            let mut pictures = Vec::new();
            for record in batch {
                let picture = record["picture"].as_str().ok_or("no picture")?;
                pictures.push(image::open(&folder.join(picture), &Limits::default())?);
            }
            let asked: Vec<_> = pictures.iter().map(|picture| (picture, prompts[0].as_str())).collect();
            for (said, record) in answers(model, &asked)?.into_iter().zip(batch) {
                let is = |value: &Value| value.as_str().is_some_and(|text| text.to_lowercase() == said);
                let own = is(&record["label"][language]);
                let tagged = record["tags"][language].as_array().is_some_and(|tags| tags.iter().any(is));
                exact += usize::from(own);
                near += usize::from(own || tagged);
            }
        }
        let share = |count: usize| count as f64 / lines.len().max(1) as f64;
        println!("| {language} | {:.3} | {:.3} |", share(exact), share(near));
    }
    Ok(())
}

/// Exact answers to the first questions of a file of conversations.
fn conversations(model: &Loaded, file: &Path) -> Result<(), Failure> {
    let all = dialogues::conversations(file, &Limits::default())?;
    let (mut right, mut total) = (0, 0);
    let mut common = BTreeMap::<String, usize>::new();
    let indices: Vec<usize> = (0..all.len()).collect();
    for batch in indices.chunks(BATCH) {
        let batch = batch.iter().map(|&index| all.get(index)).collect::<Result<Vec<_>, _>>()?;
        let asked: Vec<_> = batch.iter().map(|d| (&d.pictures[0], d.turns[0].question.as_str())).collect();
        for (said, dialogue) in answers(model, &asked)?.into_iter().zip(&batch) {
            let expected = dialogue.turns[0].answer.to_lowercase();
            *common.entry(expected.clone()).or_default() += 1;
            right += usize::from(said == expected);
            total += 1;
        }
    }
    let most = common.values().max().copied().unwrap_or(0);
    let share = |count: usize| count as f64 / total.max(1) as f64;
    println!("\n{}: {total} questions, exact {:.3}, chance {:.3}", file.display(), share(right), share(most));
    Ok(())
}
