//! `dari evaluate`: how good a model is on pictures of one's own.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use dari::data::datasets::{self, Caption, Pairs};
use dari::{Engine, Limits};
use dari_train::classification::{Accuracy, zero_shot};
use dari_train::probe::{Examples, Probe};
use dari_train::retrieval::{self, Recalls};
use serde_json::{Value, json};

use crate::cli::{Evaluate, EvaluateAction, Judged, Usage};
use crate::inputs::{self, Need};
use crate::language::say;
use crate::{Outcome, npy, screen};

/// Records that failed and are named one by one.
const NAMED: usize = 10;

/// Runs the command.
pub fn run(arguments: &Evaluate) -> anyhow::Result<Outcome> {
    match &arguments.action {
        EvaluateAction::ZeroShot { data, labels_file, template, save, judged } => {
            let engine = open(judged, Need::Both)?;
            let asked = match labels_file {
                Some(file) => Some(inputs::lines(file)?),
                None => None,
            };
            let set = Set::read(data, judged.language.as_deref(), &engine, One)?;
            let (classes, labels) = set.classes(asked)?;
            let words = dari::label_texts(&classes, template);
            let texts = embed(&engine, &words)?;
            let each = words.len() / classes.len().max(1);
            let vectors: Vec<Vec<f32>> = texts.chunks(each.max(1)).map(dari::mean).collect();
            let found = zero_shot(&set.vectors, &vectors, &labels);
            if let Some(folder) = save {
                let dim = engine.dim();
                write(folder, "pictures.npy", &[set.vectors.len(), dim], &set.vectors)?;
                write(folder, "classes.npy", &[classes.len(), each, dim], &texts)?;
                write_json(folder, "labels.json", &json!(labels))?;
                write_json(folder, "classes.json", &json!(classes))?;
            }
            let mut report = set.report(&engine);
            report["classes"] = json!(classes.len());
            report["chance"] = json!(1.0 / classes.len().max(1) as f64);
            add(&mut report, &serde_json::to_value(found)?);
            if judged.json {
                screen::json(&report)?;
            } else {
                let count = classes.len();
                set.say(&engine, &say!("{count} classes", "클래스 {count}개"))?;
                accuracy(&found)?;
            }
            Ok(set.outcome())
        }
        EvaluateAction::Retrieval { data, save, judged } => {
            let engine = open(judged, Need::Both)?;
            let set = Set::read(data, judged.language.as_deref(), &engine, All)?;
            let words: Vec<String> = set.captions.iter().flatten().cloned().collect();
            let owners: Vec<usize> =
                set.captions.iter().enumerate().flat_map(|(at, own)| vec![at; own.len()]).collect();
            let texts = embed(&engine, &words)?;
            let (to_pictures, to_texts) = retrieval::both_ways(&set.vectors, &texts, &owners);
            if let Some(folder) = save {
                let dim = engine.dim();
                write(folder, "pictures.npy", &[set.vectors.len(), dim], &set.vectors)?;
                write(folder, "texts.npy", &[texts.len(), dim], &texts)?;
                write_json(folder, "pairs.json", &json!(owners))?;
            }
            let mut report = set.report(&engine);
            report["texts"] = json!(texts.len());
            report["text_to_picture"] = serde_json::to_value(to_pictures)?;
            report["picture_to_text"] = serde_json::to_value(to_texts)?;
            if judged.json {
                screen::json(&report)?;
            } else {
                let count = texts.len();
                set.say(&engine, &say!("{count} texts", "글 {count}개"))?;
                recalls(&say!("text to picture", "글로 그림 찾기"), &to_pictures)?;
                recalls(&say!("picture to text", "그림으로 글 찾기"), &to_texts)?;
            }
            Ok(set.outcome())
        }
        EvaluateAction::LinearProbe { train, test, lambda, standardise, judged } => {
            let engine = open(judged, Need::Pictures)?;
            let learnt = Set::read(train, judged.language.as_deref(), &engine, One)?;
            let asked = Set::read(test, judged.language.as_deref(), &engine, One)?;
            let (classes, labels) = learnt.classes(None)?;
            let (_, asked_labels) = asked.classes(Some(classes.clone()))?;
            let given = Examples { features: &learnt.vectors, labels: &labels };
            let probe = Probe::fit(given, classes.len(), *lambda, *standardise)?;
            let of_train = probe.accuracy(given);
            let of_test = probe.accuracy(Examples { features: &asked.vectors, labels: &asked_labels });
            let mut report = asked.report(&engine);
            report["classes"] = json!(classes.len());
            report["chance"] = json!(1.0 / classes.len().max(1) as f64);
            report["train_pictures"] = json!(learnt.vectors.len());
            report["lambda"] = json!(lambda);
            report["train"] = serde_json::to_value(of_train)?;
            report["test"] = serde_json::to_value(of_test)?;
            report["fit"] = serde_json::to_value(probe.fit)?;
            if judged.json {
                screen::json(&report)?;
            } else {
                let (classes, pictures) = (classes.len(), learnt.vectors.len());
                asked.say(
                    &engine,
                    &say!(
                        "{classes} classes, learned from {pictures} pictures",
                        "클래스 {classes}개, 그림 {pictures}장으로 배움"
                    ),
                )?;
                accuracy(&of_test)?;
            }
            Ok(Outcome::of(learnt.failures + asked.failures))
        }
    }
}

fn open(judged: &Judged, need: Need) -> anyhow::Result<Engine> {
    inputs::whole_pictures(&judged.model)?;
    let engine = inputs::open(&judged.model)?;
    inputs::require(&engine, need)?;
    Ok(engine)
}

/// Which captions of a picture count.
#[derive(Clone, Copy, PartialEq)]
enum Which {
    One,
    All,
}
use Which::{All, One};

/// A data set embedded, and what was said of each picture.
struct Set {
    name: String,
    vectors: Vec<Vec<f32>>,
    captions: Vec<Vec<String>>,
    failures: usize,
}

impl Set {
    fn read(path: &Path, language: Option<&str>, engine: &Engine, which: Which) -> anyhow::Result<Set> {
        let limits = Limits::default();
        let pairs = datasets::open(path, &limits)?;
        let mut set = Set { name: pairs.describe(), vectors: Vec::new(), captions: Vec::new(), failures: 0 };
        let bar = screen::bar(pairs.len() as u64, "pictures");
        let mut batch = Vec::new();
        for index in 0..pairs.len() {
            match wanted(&*pairs, index, language, which) {
                Ok((picture, words)) => {
                    batch.push(picture);
                    set.captions.push(words);
                }
                Err(problem) => {
                    set.failures += 1;
                    if set.failures <= NAMED {
                        bar.suspend(|| screen::warn(&problem));
                    }
                }
            }
            if batch.len() >= engine.batch() || index + 1 == pairs.len() {
                set.vectors.extend(engine.embed_pictures(&batch)?);
                batch.clear();
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
        if set.failures > NAMED {
            let count = set.failures;
            screen::warn(&say!("{count} records were left out in all", "모두 {count}개를 뺐습니다"));
        }
        if set.vectors.is_empty() {
            let name = &set.name;
            anyhow::bail!(say!(
                "{name}: no picture with words to judge by",
                "{name}: 말이 달린 그림이 없습니다"
            ));
        }
        Ok(set)
    }

    /// The classes by name, and the class of each picture.
    fn classes(&self, asked: Option<Vec<String>>) -> anyhow::Result<(Vec<String>, Vec<usize>)> {
        let own = || self.captions.iter().filter_map(|words| words.first());
        let classes = asked.unwrap_or_else(|| {
            let mut all: Vec<String> = own().cloned().collect();
            all.sort_unstable();
            all.dedup();
            all
        });
        let places: BTreeMap<&str, usize> =
            classes.iter().enumerate().rev().map(|(at, class)| (class.as_str(), at)).collect();
        let mut labels = Vec::with_capacity(self.captions.len());
        for class in own() {
            let Some(&place) = places.get(class.as_str()) else {
                let name = &self.name;
                return Err(Usage(say!(
                    "{name}: a picture of class `{class}`, which is not among the classes asked about",
                    "{name}: 물어본 클래스에 없는 `{class}` 그림이 있습니다"
                ))
                .into());
            };
            labels.push(place);
        }
        Ok((classes, labels))
    }

    fn report(&self, engine: &Engine) -> Value {
        json!({
            "data": self.name, "model": engine.name(), "precision": engine.precision().name(),
            "pictures": self.vectors.len(), "failed": self.failures,
        })
    }

    fn say(&self, engine: &Engine, more: &str) -> std::io::Result<()> {
        let (name, model, pictures) = (screen::clean(&self.name), engine.name(), self.vectors.len());
        screen::print(&name)?;
        screen::print(&say!("{model}: {pictures} pictures, {more}", "{model}: 그림 {pictures}장, {more}"))
    }

    fn outcome(&self) -> Outcome {
        Outcome::of(self.failures)
    }
}

/// A picture and its words in a language, or why it has none.
fn wanted(
    pairs: &dyn Pairs,
    index: usize,
    language: Option<&str>,
    which: Which,
) -> Result<(dari::Picture, Vec<String>), String> {
    let pair = pairs.get(index).map_err(|error| error.to_string())?;
    let fits = |caption: &&Caption| language.is_none_or(|code| caption.language.as_deref() == Some(code));
    let mut words: Vec<String> =
        pair.captions.iter().filter(fits).map(|caption| caption.text.clone()).collect();
    if words.is_empty() {
        let (key, code) = (screen::clean(&pair.key), language.unwrap_or_default());
        return Err(say!("{key}: no words in `{code}`", "{key}: `{code}` 말이 없습니다"));
    }
    if which == One {
        words.truncate(1);
    }
    Ok((pair.picture, words))
}

fn embed(engine: &Engine, words: &[String]) -> anyhow::Result<Vec<Vec<f32>>> {
    let borrowed: Vec<&str> = words.iter().map(String::as_str).collect();
    let found = engine.embed_texts_noting(&borrowed)?;
    inputs::warn_of_long_texts(&borrowed, &found.truncated);
    Ok(found.vectors)
}

fn add(report: &mut Value, more: &Value) {
    if let (Some(report), Some(more)) = (report.as_object_mut(), more.as_object()) {
        report.extend(more.iter().map(|(name, value)| (name.clone(), value.clone())));
    }
}

fn line(name: &str, share: f64) -> std::io::Result<()> {
    let bar = "█".repeat((share * 30.0).round() as usize);
    screen::print(&format!("  {} {:>6.2}%  {bar}", screen::fit(name, 20), share * 100.0))
}

fn accuracy(found: &Accuracy) -> std::io::Result<()> {
    line("top-1", found.top_1)?;
    line("top-5", found.top_5)?;
    line(&say!("mean per class", "클래스 평균"), found.mean_per_class)
}

fn recalls(name: &str, found: &Recalls) -> std::io::Result<()> {
    screen::print(name)?;
    line("recall@1", found.at_1)?;
    line("recall@5", found.at_5)?;
    line("recall@10", found.at_10)
}

fn write(folder: &Path, name: &str, shape: &[usize], rows: &[Vec<f32>]) -> anyhow::Result<()> {
    make(folder)?;
    Ok(dari::files::write_with(&folder.join(name), |out| {
        npy::head(out, shape)?;
        rows.iter().try_for_each(|row| npy::values(out, row))
    })?)
}

fn write_json(folder: &Path, name: &str, value: &Value) -> anyhow::Result<()> {
    make(folder)?;
    Ok(dari::files::write_atomically(&folder.join(name), value.to_string().as_bytes())?)
}

fn make(folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())
}
