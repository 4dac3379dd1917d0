//! Batches of texts for models that speak: a function of the recipe and the step alone.

use dari_data::datasets::dialogues::{self, Dialogues, Turn};
use dari_data::datasets::{self, Pairs};
use dari_data::image::augment::{Variation, vary};
use dari_data::image::{Limits, Picture};
use dari_data::scenes::{Asked, Scene, describe_prompts};
use dari_models::Processor;
use dari_nn::random::Key;
use serde_json::Value;

use crate::batches::{TRIES, drawn, no_caption, no_scene_words, nth, scene_language, shares};
use crate::recipe::{DataKind, DataRecipe, Recipe};
use crate::speech::Lesson;
use crate::{Error, Result};

enum Source {
    Captions(Box<dyn Pairs>),
    Dialogues(Box<dyn Dialogues>),
    Texts(Box<dyn Dialogues>),
    Scenes(u64),
}

/// A recipe's sources, opened.
pub struct Lessons {
    sources: Vec<(Source, DataRecipe)>,
    /// How many texts of a batch each source gives.
    counts: Vec<usize>,
    augment: Variation,
    /// Most tokens of a text.
    length: usize,
    key: Key,
}

/// What is said, and of which pictures.
struct Said {
    pictures: Vec<Picture>,
    turns: Vec<Turn>,
}

impl Lessons {
    /// Opens all sources.
    pub fn open(recipe: &Recipe) -> Result<Lessons> {
        let folder = recipe.data_folder.clone().unwrap_or_default();
        let mut sources = Vec::new();
        for data in &recipe.data {
            let limits = Limits::default();
            let source = match (&data.path, data.scenes) {
                (None, seed) => Source::Scenes(seed.unwrap_or_default()),
                (Some(path), _) => {
                    let path = folder.join(path);
                    match data.kind {
                        DataKind::Captions => Source::Captions(datasets::open(&path, &limits)?),
                        DataKind::Conversations => {
                            Source::Dialogues(dialogues::conversations(&path, &limits)?)
                        }
                        DataKind::Text => Source::Texts(dialogues::texts(&path)?),
                        DataKind::Questions => {
                            let answers = data.annotations.as_ref().ok_or_else(|| Error::Recipe {
                                origin: path.display().to_string(),
                                problem: "questions need `annotations`, the file of their answers".into(),
                            })?;
                            Source::Dialogues(dialogues::questions(&path, &folder.join(answers), &limits)?)
                        }
                    }
                }
            };
            sources.push((source, data.clone()));
        }
        let weights: Vec<f64> = recipe.data.iter().map(|data| data.weight).collect();
        Ok(Lessons {
            sources,
            counts: shares(&weights, recipe.train.batch),
            augment: recipe.augment,
            length: recipe.train.length,
            key: Key::new(recipe.seed).with("lessons"),
        })
    }

    /// How many records each source has; scenes have no end, and say 0.
    pub fn lengths(&self) -> Vec<usize> {
        let length = |(source, _): &(Source, DataRecipe)| match source {
            Source::Captions(pairs) => pairs.len(),
            Source::Dialogues(all) | Source::Texts(all) => all.len(),
            Source::Scenes(_) => 0,
        };
        self.sources.iter().map(length).collect()
    }

    /// One line a source, for people.
    pub fn describe(&self) -> Vec<String> {
        let line = |((source, data), count): (&(Source, DataRecipe), &usize)| {
            let what = match source {
                Source::Captions(pairs) => pairs.describe(),
                Source::Dialogues(all) | Source::Texts(all) => all.describe(),
                Source::Scenes(seed) if data.kind == DataKind::Questions => {
                    format!("questions on synthetic scenes under seed {seed}")
                }
                Source::Scenes(seed) => format!("captions of synthetic scenes under seed {seed}"),
            };
            format!("{what}: {count} of each batch")
        };
        self.sources.iter().zip(&self.counts).map(line).collect()
    }

    /// Whether any source has pictures.
    pub fn shows(&self) -> bool {
        self.sources.iter().any(|(source, _)| !matches!(source, Source::Texts(_)))
    }

    /// Texts to train a tokenizer on: up to so many of each source.
    pub fn texts(&self, most: usize) -> Vec<String> {
        let mut texts = Vec::new();
        for (source, data) in &self.sources {
            let count = match source {
                Source::Captions(pairs) => pairs.len().min(most),
                Source::Dialogues(all) | Source::Texts(all) => all.len().min(most),
                Source::Scenes(_) => most,
            };
            for index in 0..count as u64 {
                let key = self.key.with("texts").at(index);
                for turn in self.turns(source, data, index, key).unwrap_or_default() {
                    texts.extend([turn.question, turn.answer]);
                }
            }
        }
        texts
    }

    /// What is asked and answered of a source's record.
    fn turns(&self, source: &Source, data: &DataRecipe, index: u64, key: Key) -> Result<Vec<Turn>, String> {
        match source {
            Source::Dialogues(all) | Source::Texts(all) => {
                all.turns(index as usize).map_err(|error| error.to_string())
            }
            Source::Scenes(seed) => {
                let language = scene_language(data, key);
                let scene = Scene::draw(*seed, index);
                let silent = || no_scene_words(&language);
                if data.kind == DataKind::Questions {
                    let asked =
                        (0..data.turns as u64).map(|turn| scene.question(&language, key.at(turn).bits(1)));
                    let turn = |asked: Option<Asked>| {
                        asked.map(|Asked { question, answer, .. }| Turn { question, answer })
                    };
                    return asked.map(turn).collect::<Option<Vec<Turn>>>().ok_or_else(silent);
                }
                let caption = scene.caption(&language, key.bits(1)).ok_or_else(silent)?;
                Ok(vec![Turn { question: self.prompt(data, Some(&language), key), answer: caption.text }])
            }
            Source::Captions(pairs) => {
                let found = pairs.captions(index as usize).map_err(|error| error.to_string())?;
                let caption = drawn(&found, &data.languages, key)
                    .ok_or_else(|| no_caption(pairs.as_ref(), index, &data.languages))?;
                let language = caption.language.as_deref();
                Ok(vec![Turn { question: self.prompt(data, language, key), answer: caption.text.clone() }])
            }
        }
    }

    /// How a caption is asked for.
    fn prompt(&self, data: &DataRecipe, language: Option<&str>, key: Key) -> String {
        let language = language.unwrap_or("en");
        let all = match data.prompts.get(language) {
            Some(own) => own.clone(),
            None => describe_prompts(language),
        };
        all.get(key.below(12, all.len().max(1) as u64) as usize).cloned().unwrap_or_default()
    }

    /// A record with its pictures.
    fn said(
        &self,
        source: &Source,
        data: &DataRecipe,
        index: u64,
        key: Key,
        size: (u32, u32),
    ) -> Result<Said, String> {
        let turns = self.turns(source, data, index, key)?;
        let varied = |picture: &Picture| {
            let draw = |index| key.with("vary").uniform(index);
            vary(picture, &self.augment, size, draw).map_err(|error| error.to_string())
        };
        let pictures = match source {
            Source::Texts(_) => Vec::new(),
            Source::Scenes(seed) => vec![Scene::draw(*seed, index).render(size.0.max(size.1))],
            Source::Captions(pairs) => {
                let pair = pairs.get(index as usize).map_err(|error| error.to_string())?;
                vec![varied(&pair.picture)?]
            }
            Source::Dialogues(all) => {
                let dialogue = all.get(index as usize).map_err(|error| error.to_string())?;
                dialogue.pictures.iter().map(varied).collect::<Result<_, _>>()?
            }
        };
        Ok(Said { pictures, turns })
    }

    /// The texts of a step, from 1, and what could not be used.
    pub fn batch(&self, step: u64, teacher: &Teacher) -> Result<(Vec<Lesson>, Vec<String>)> {
        let size = teacher.size();
        let (mut lessons, mut skipped) = (Vec::new(), Vec::new());
        for (number, ((source, data), &count)) in self.sources.iter().zip(&self.counts).enumerate() {
            let key = self.key.at(number as u64);
            for place in 0..count as u64 {
                let ordinal = (step - 1) * count as u64 + place;
                let mut found = None;
                for attempt in 0..TRIES {
                    let key = key.with("record").at(ordinal).at(attempt);
                    let index = match source {
                        Source::Scenes(_) => ordinal.wrapping_mul(TRIES) + attempt,
                        Source::Captions(pairs) => nth(self.key, ordinal, attempt, pairs.len(), key),
                        Source::Dialogues(all) | Source::Texts(all) => {
                            nth(self.key, ordinal, attempt, all.len(), key)
                        }
                    };
                    let lesson = self.said(source, data, index, key, size).and_then(|said| match source {
                        Source::Texts(_) => teacher.text(&said.turns, self.length, key),
                        _ => teacher.lesson(&said.turns, &said.pictures, self.length),
                    });
                    match lesson {
                        Ok(lesson) => {
                            found = Some(lesson);
                            break;
                        }
                        Err(message) => skipped.push(message),
                    }
                }
                match found {
                    Some(lesson) => lessons.push(lesson),
                    None => {
                        let last = skipped.pop().unwrap_or_default();
                        return Err(Error::Unusable { tried: TRIES as usize, last });
                    }
                }
            }
        }
        Ok((lessons, skipped))
    }
}

/// Makes lessons for a model, by its own tokenizer, chat template and preparation of pictures.
pub struct Teacher<'a> {
    /// Its tokenizer, template and preparation.
    pub processor: &'a Processor,
    /// The tokens that end an answer.
    pub ends: &'a [u32],
}

impl Teacher<'_> {
    /// The size to which pictures are prepared, height and width.
    fn size(&self) -> (u32, u32) {
        self.processor.image().map_or((384, 384), |image| {
            let (height, width) = image.size();
            (height as u32, width as u32)
        })
    }

    /// A chat whose answers are to be learned. The same template is run as for an answer: each answer must stand
    /// where one would be written, and end as one ends.
    ///
    /// # Errors
    /// A template that writes something else in training than for an answer, or too many tokens.
    pub fn lesson(&self, turns: &[Turn], pictures: &[Picture], length: usize) -> Result<Lesson, String> {
        let plain = |error: dari_models::Error| error.to_string();
        let (processor, chat) = (self.processor, self.processor.chat().map_err(plain)?);
        let render = |messages: &[Value], answer: bool| {
            chat.render(&Value::from(messages), answer).map_err(|error| error.to_string())
        };
        let sizes: Vec<(u32, u32)> =
            pictures.iter().map(|picture| (picture.height(), picture.width())).collect();
        let ids_of = |text: &str| processor.illustrated(text, &sizes).map_err(plain);
        let mut messages = Vec::new();
        let mut spans = Vec::new();
        for (number, turn) in turns.iter().enumerate() {
            let shown = if number == 0 { pictures.len() } else { 0 };
            messages.push(processor.message("user", &turn.question, shown));
            let prompt = render(&messages, true)?;
            messages.push(processor.message("assistant", &turn.answer, 0));
            let whole = render(&messages, false)?;
            if !whole.starts_with(&prompt) {
                return Err(format!(
                    "the chat template writes {:?} where an answer begins, and other text before one that is there",
                    prompt.chars().rev().take(20).collect::<Vec<_>>().into_iter().rev().collect::<String>()
                ));
            }
            spans.push((ids_of(&prompt)?, ids_of(&whole)?));
        }
        let Some((_, ids)) = spans.last() else { return Err("a dialogue without a turn".into()) };
        if ids.len() > length {
            return Err(format!(
                "a text of {} tokens, pictures among them; `train.length` allows {length}",
                ids.len()
            ));
        }
        let mut said = vec![false; ids.len()];
        for (prompt, whole) in &spans {
            if !whole.starts_with(prompt) || !ids.starts_with(whole) {
                return Err(
                    "the last word before an answer is cut otherwise with the answer behind it".into()
                );
            }
            let end = whole[prompt.len()..].iter().position(|id| self.ends.contains(id));
            let Some(end) = end else {
                return Err(format!(
                    "the chat template writes none of the tokens {:?} that end an answer behind it: the model would never stop",
                    self.ends
                ));
            };
            said[prompt.len()..=prompt.len() + end].fill(true);
        }
        let mut pieces = Vec::new();
        for picture in pictures {
            pieces.extend(processor.cut(picture).map_err(plain)?);
        }
        Ok(Lesson { ids: ids.clone(), said, pieces })
    }

    /// A plain text, all of it to be learned; of a long one a part that `key` draws.
    fn text(&self, turns: &[Turn], length: usize, key: Key) -> Result<Lesson, String> {
        let words = self.processor.words().map_err(|error| error.to_string())?;
        let text = turns.first().map_or("", |turn| turn.answer.as_str());
        let mut ids = words.encode(text, true).map_err(|error| error.to_string())?;
        if let Some(&end) = self.ends.first()
            && ids.last() != Some(&end)
        {
            ids.push(end);
        }
        if ids.len() > length {
            let start = key.below(7, (ids.len() - length + 1) as u64) as usize;
            ids = ids[start..start + length].to_vec();
        }
        let said = vec![true; ids.len()];
        Ok(Lesson { ids, said, pieces: Vec::new() })
    }
}
