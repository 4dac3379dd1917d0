//! The numbers of `mini`'s card: what a model folder finds among drawings and scenes it never saw.
//!
//! `cargo run --release --example evaluate_mini -- models/mini [DATA]`, with DATA as
//! `scripts/fetch_data.py` fills it (`~/.cache/dari/data` when absent). Prints a Markdown table.
#![allow(clippy::print_stdout)]

use std::path::{Path, PathBuf};

use candle_core::Device;
use dari_data::image::{self, Limits, Picture};
use dari_data::scenes::{Attribute, LANGUAGES, Scene, SceneOptions, attribute_labels};
use dari_files::Folder;
use dari_models::{Loaded, Model, auto};
use dari_nn::{Precision, loss};
use dari_train::classification::zero_shot;
use dari_train::probe::{Examples, Probe};
use dari_train::retrieval::{chance_at, ranks, recall_at};
use serde_json::Value;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let model = arguments.next().unwrap_or_else(|| "models/mini".into());
    let data =
        arguments.next().map(PathBuf::from).or_else(|| Some(std::env::home_dir()?.join(".cache/dari/data")));
    let data = data.ok_or("say where the data lies")?;
    let model = auto::load(&Folder::open(Path::new(&model))?, &Device::Cpu, Precision::F32)?;
    println!("| what | asked in | pool | measure | found | chance |");
    println!("| --- | --- | ---: | --- | ---: | ---: |");
    for (name, file, ks) in [
        ("Twemoji, known concepts", "twemoji/known.jsonl", &[1, 10][..]),
        ("Twemoji, unseen concepts", "twemoji/unseen.jsonl", &[1, 10]),
        ("OpenMoji, known concepts", "openmoji/known.jsonl", &[1, 10]),
        ("OpenMoji, unseen concepts", "openmoji/unseen.jsonl", &[10]),
        ("Noto, unseen concepts", "emoji/unseen_noto.jsonl", &[10]),
        ("Tux Paint stamps, things", "tuxpaint/stamps.jsonl", &[10]),
    ] {
        retrieval(&model, name, &data.join(file), Kind::Things, ks)?;
    }
    for (name, file, kind) in [
        ("Twemoji, flags", "twemoji/known.jsonl", Kind::Flags),
        ("Twemoji, variants of persons", "twemoji/known.jsonl", Kind::Variants),
        ("OpenMoji, flags", "openmoji/known.jsonl", Kind::Flags),
        ("OpenMoji, variants of persons", "openmoji/known.jsonl", Kind::Variants),
    ] {
        retrieval(&model, name, &data.join(file), kind, &[1, 10])?;
    }
    for held_out in [false, true] {
        scenes(&model, held_out)?;
    }
    for attribute in [Attribute::Count, Attribute::Position] {
        probe(&model, attribute)?;
    }
    Ok(())
}

/// Scenes of a seed that training never draws which have a label of an attribute, and the labels.
fn labelled(
    model: &Loaded,
    attribute: Attribute,
    seed: u64,
    held_out: bool,
    count: usize,
) -> Result<(Vec<Picture>, Vec<usize>), Failure> {
    let side = model.processor.image()?.size().0 as u32;
    let (mut pictures, mut labels) = (Vec::new(), Vec::new());
    for index in 0..100 * count as u64 {
        if pictures.len() == count {
            break;
        }
        let scene = Scene::draw_with(seed, index, &SceneOptions { held_out, ..Default::default() });
        if let Some(label) = scene.facts().label(attribute) {
            pictures.push(scene.render(side));
            labels.push(label);
        }
    }
    Ok((pictures, labels))
}

/// What one linear layer reads off all patch tokens behind the last block, of scenes it never learned
/// from.
fn probe(model: &Loaded, attribute: Attribute) -> Result<(), Failure> {
    const LEARNED: usize = 3000;
    const LAMBDA: f64 = 1e-2;
    let Model::Clip(clip) = &model.model else { return Err("not a CLIP".into()) };
    let tower = clip.vision().ok_or("not a ViT")?;
    let tokens = |pictures: &[Picture]| -> Result<Vec<Vec<f32>>, Failure> {
        let mut rows = Vec::new();
        for batch in pictures.chunks(128) {
            let pixels = model.processor.pixels(batch, &Device::Cpu)?;
            let found = pixels.each(|pixels| {
                let tokens = tower.forward(pixels)?.tokens;
                Ok(tokens.narrow(1, 1, tower.patches())?.flatten_from(1)?)
            })?;
            rows.extend(found.to_vec2::<f32>()?);
        }
        Ok(rows)
    };
    let (pictures, labels) = labelled(model, attribute, 990_002, false, LEARNED)?;
    let (asked, asked_labels) = labelled(model, attribute, 990_001, false, 400)?;
    let classes = attribute_labels(attribute, LANGUAGES[0]).len();
    let features = tokens(&pictures)?;
    let probe = Probe::fit(Examples { features: &features, labels: &labels }, classes, LAMBDA, true)?;
    let found = probe.accuracy(Examples { features: &tokens(&asked)?, labels: &asked_labels }).top_1;
    let chance = 1.0 / classes as f64;
    println!(
        "| linear probe on patch tokens: {attribute:?} | – | {classes} | top-1 | {found:.3} | {chance:.3} |"
    );
    Ok(())
}

fn embed(model: &Loaded, pictures: &[Picture]) -> Result<Vec<Vec<f32>>, Failure> {
    let road = model.model.contrastive().ok_or("not a contrastive model")?;
    let mut vectors = Vec::new();
    for batch in pictures.chunks(128) {
        let pixels = model.processor.pixels(batch, &Device::Cpu)?;
        let found = pixels.each(|pixels| road.embed_pictures(pixels))?;
        vectors.extend(loss::normalise(&found)?.to_vec2::<f32>()?);
    }
    Ok(vectors)
}

fn read(model: &Loaded, texts: &[String]) -> Result<Vec<Vec<f32>>, Failure> {
    let road = model.model.contrastive().ok_or("not a contrastive model")?;
    let mut vectors = Vec::new();
    for batch in texts.chunks(128) {
        let batch: Vec<&str> = batch.iter().map(String::as_str).collect();
        let tokens = model.processor.tokens(&batch)?.tokens;
        vectors.extend(loss::normalise(&road.embed_texts(&tokens)?)?.to_vec2::<f32>()?);
    }
    Ok(vectors)
}

/// Which rows of a set are asked about, among themselves.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// Neither flags nor variants.
    Things,
    /// Flags, which differ in a few stripes.
    Flags,
    /// The same person with other hair, of another sex or age: told apart by label alone.
    Variants,
}

impl Kind {
    fn of(row: &Value) -> Option<Kind> {
        let marked = |field: &str| row[field].as_bool() == Some(true);
        match (marked("flag"), marked("variant"), marked("tone")) {
            (false, false, false) => Some(Kind::Things),
            (true, ..) => Some(Kind::Flags),
            (_, true, false) => Some(Kind::Variants),
            _ => None,
        }
    }
}

/// Text to picture: every row's label asks among all rows; pictures of the same concept, and rows
/// of the same label, are right. Skin tones and Tux Paint's letters and symbols are left out.
fn retrieval(model: &Loaded, name: &str, file: &Path, kind: Kind, ks: &[usize]) -> Result<(), Failure> {
    let Ok(text) = std::fs::read_to_string(file) else {
        println!("| {name} | | | not measured: {} is missing | | |", file.display());
        return Ok(());
    };
    let rows: Vec<Value> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let rows: Vec<Value> = rows
        .into_iter()
        .filter(|row| Kind::of(row) == Some(kind))
        .filter(|row| {
            !["symbols", "text"].contains(&row["group"].as_str().unwrap_or(""))
                || !file.ends_with("tuxpaint/stamps.jsonl")
        })
        .collect();
    let folder = file.parent().unwrap_or(Path::new(""));
    let mut pictures = Vec::new();
    for row in &rows {
        pictures.push(image::open(&folder.join(row["picture"].as_str().unwrap_or("")), &Limits::default())?);
    }
    let pictures = embed(model, &pictures)?;
    for language in LANGUAGES {
        // Emoji have a label in each language; a stamp's caption is its label.
        let label = |row: &Value| {
            let label = row["label"][language].as_str().or_else(|| row["caption"][language][0].as_str());
            label.map(str::to_owned)
        };
        let asked: Vec<(usize, String)> =
            rows.iter().enumerate().filter_map(|(i, row)| Some((i, label(row)?))).collect();
        let texts: Vec<String> = asked.iter().map(|(_, text)| text.clone()).collect();
        let relevant = |query: usize, candidate: usize| {
            let (row, text) = &asked[query];
            (kind != Kind::Variants && rows[*row]["concept"] == rows[candidate]["concept"])
                || label(&rows[candidate]).as_ref() == Some(text)
        };
        let ranks = ranks(&read(model, &texts)?, &pictures, relevant);
        for &k in ks {
            let found = recall_at(k, &ranks);
            let (pool, chance) = (rows.len(), chance_at(k, asked.len(), rows.len(), relevant));
            println!("| {name} | {language} | {pool} | recall@{k} | {found:.3} | {chance:.3} |");
        }
    }
    Ok(())
}

/// Zero-shot attributes of scenes under a seed that training never draws.
fn scenes(model: &Loaded, held_out: bool) -> Result<(), Failure> {
    const SEED: u64 = 990_001;
    const COUNT: usize = 400;
    let name = if held_out { "scenes, held-out combinations" } else { "scenes, new draws" };
    for attribute in Attribute::ALL {
        let (pictures, labels) = labelled(model, attribute, SEED, held_out, COUNT)?;
        let pictures = embed(model, &pictures)?;
        for language in LANGUAGES {
            let names = attribute_labels(attribute, language);
            let found = zero_shot(&pictures, &read(model, &names)?, &labels).top_1;
            let chance = 1.0 / names.len() as f64;
            println!(
                "| {name}: {attribute:?} | {language} | {} | top-1 | {found:.3} | {chance:.3} |",
                names.len()
            );
        }
    }
    Ok(())
}
