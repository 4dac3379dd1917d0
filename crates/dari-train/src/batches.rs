//! Batches from mixed sources: a function of the recipe and the step alone, so that a run taken up
//! again sees what it would have seen.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

use dari_data::datasets::{self, Caption, Pairs};
use dari_data::image::augment::{Variation, vary};
use dari_data::image::{Limits, Picture, Pixels};
use dari_data::scenes::Scene;
use dari_models::Processor;
use dari_models::capability::Tokens;
use dari_nn::random::Key;

use crate::recipe::{DataRecipe, Recipe};
use crate::speech::Lesson;
use crate::{Error, Result};

/// One step's worth of samples, ready for the model.
pub struct Batch {
    /// Which step it is for, from 1.
    pub step: u64,
    /// The samples.
    pub samples: Samples,
    /// Records that could not be used, as messages.
    pub skipped: Vec<String>,
}

/// What a model learns from at once.
pub enum Samples {
    /// Pictures, and what is said of them.
    Pairs {
        /// Prepared pictures.
        pixels: Vec<Pixels>,
        /// What is said of each.
        words: Vec<String>,
        /// The same as tokens, for models that read.
        tokens: Tokens,
    },
    /// Texts for a model that speaks.
    Lessons(Vec<Lesson>),
}

/// How much a batch of lessons asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Tokens that are read, those of pictures among them.
    pub tokens: usize,
    /// Of these the ones that are to be said.
    pub said: usize,
    /// Pieces of pictures.
    pub pieces: usize,
}

impl Samples {
    /// How much lessons ask for; `None` of others.
    pub fn amount(&self) -> Option<Amount> {
        let Samples::Lessons(lessons) = self else { return None };
        Some(lessons.iter().fold(Amount::default(), |all, lesson| Amount {
            tokens: all.tokens + lesson.read().len(),
            said: all.said + lesson.targets(),
            pieces: all.pieces + lesson.pieces.len(),
        }))
    }
}

enum Source {
    Files(Box<dyn Pairs>),
    Scenes(u64),
}

/// A recipe's sources, opened.
pub struct Mixture {
    sources: Vec<(Source, DataRecipe)>,
    /// How many pairs of a batch each source gives.
    counts: Vec<usize>,
    augment: Variation,
    /// Whether pictures of one batch are told from each other, so that what is said of them differs.
    distinct: bool,
    key: Key,
}

/// Records tried for one place of a batch before giving up.
pub(crate) const TRIES: u64 = 64;

impl Mixture {
    /// Opens all sources; one without a usable pair is an error at once.
    pub fn open(recipe: &Recipe) -> Result<Mixture> {
        let folder = recipe.data_folder.clone().unwrap_or_default();
        let mut sources = Vec::new();
        for data in &recipe.data {
            let source = match (&data.path, data.scenes) {
                (Some(path), _) => Source::Files(datasets::open(&folder.join(path), &Limits::default())?),
                (None, seed) => Source::Scenes(seed.unwrap_or_default()),
            };
            check_languages(&source, data)?;
            sources.push((source, data.clone()));
        }
        let weights: Vec<f64> = recipe.data.iter().map(|data| data.weight).collect();
        Ok(Mixture {
            sources,
            counts: shares(&weights, recipe.train.batch),
            augment: recipe.augment,
            distinct: true,
            key: Key::new(recipe.seed).with("data"),
        })
    }

    /// Pictures are told by their classes: many of a batch may be of one.
    pub fn of_classes(self) -> Mixture {
        Mixture { distinct: false, ..self }
    }

    /// The classes: everything that is said of a picture, in order, once.
    pub fn classes(&self) -> Vec<String> {
        let mut all = BTreeSet::new();
        for (source, data) in &self.sources {
            let Source::Files(pairs) = source else { continue };
            for index in 0..pairs.len() {
                let Ok(captions) = pairs.captions(index) else { continue };
                all.extend(wanted(&captions, &data.languages).map(|caption| caption.text.clone()));
            }
        }
        all.into_iter().collect()
    }

    /// How many pairs each source has; scenes have no end, and say 0.
    pub fn lengths(&self) -> Vec<usize> {
        let length = |(source, _): &(Source, DataRecipe)| match source {
            Source::Files(pairs) => pairs.len(),
            Source::Scenes(_) => 0,
        };
        self.sources.iter().map(length).collect()
    }

    /// One line a source, for people.
    pub fn describe(&self) -> Vec<String> {
        let line = |((source, _), count): (&(Source, DataRecipe), &usize)| match source {
            Source::Files(pairs) => format!("{}: {count} of each batch", pairs.describe()),
            Source::Scenes(seed) => {
                format!("synthetic scenes under seed {seed}: {count} of each batch")
            }
        };
        self.sources.iter().zip(&self.counts).map(line).collect()
    }

    /// Captions to train a tokenizer on: all of the files', and some of the scenes'.
    pub fn captions(&self, scenes: usize) -> Vec<String> {
        let mut captions = Vec::new();
        for (source, data) in &self.sources {
            match source {
                Source::Files(pairs) => {
                    for index in 0..pairs.len() {
                        let Ok(pair) = pairs.get(index) else { continue };
                        captions.extend(
                            wanted(&pair.captions, &data.languages).map(|caption| caption.text.clone()),
                        );
                    }
                }
                Source::Scenes(seed) => {
                    for index in 0..scenes as u64 {
                        let language = scene_language(data, self.key.at(index));
                        captions.extend(
                            Scene::draw(*seed, index).caption(&language, index).map(|caption| caption.text),
                        );
                    }
                }
            }
        }
        captions
    }

    /// The batch of a step, from 1.
    pub fn batch(&self, step: u64, processor: &Processor) -> Result<Batch> {
        let image = processor.image()?;
        let (height, width) = image.size();
        let (mut pictures, mut texts, mut skipped) = (Vec::new(), Vec::new(), Vec::new());
        // Two equal captions in one batch would be told apart for no reason.
        let mut seen = HashSet::new();
        for (number, ((source, data), &count)) in self.sources.iter().zip(&self.counts).enumerate() {
            let key = self.key.at(number as u64);
            for place in 0..count as u64 {
                let ordinal = (step - 1) * count as u64 + place;
                let mut last = String::new();
                let mut found = None;
                for attempt in 0..TRIES {
                    let key = key.with("pair").at(ordinal).at(attempt);
                    let chosen = match self.choose(source, data, ordinal, attempt, key) {
                        // The last tries take what comes: a small set may have nothing unseen left.
                        Ok(chosen) if self.distinct && attempt < TRIES / 2 && seen.contains(&chosen.text) => {
                            continue;
                        }
                        Ok(chosen) => self.picture(source, chosen, key, (width as u32, height as u32)),
                        Err(message) => Err(message),
                    };
                    match chosen {
                        Ok(pair) => {
                            found = Some(pair);
                            break;
                        }
                        Err(message) => {
                            last.clone_from(&message);
                            skipped.push(message);
                        }
                    }
                }
                let Some((picture, text)) = found else {
                    return Err(Error::Unusable { tried: TRIES as usize, last });
                };
                seen.insert(text.clone());
                pictures.push(image.process(&picture));
                texts.push(text);
            }
        }
        let tokens = match self.distinct {
            true => {
                let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
                processor.tokens(&texts)?.tokens
            }
            false => Tokens::default(),
        };
        Ok(Batch { step, samples: Samples::Pairs { pixels: pictures, words: texts, tokens }, skipped })
    }

    /// Which pair of a source is its `ordinal`th in this run, or a stand-in after failed attempts,
    /// and with what words. No picture is read for it.
    fn choose(
        &self,
        source: &Source,
        data: &DataRecipe,
        ordinal: u64,
        attempt: u64,
        key: Key,
    ) -> Result<Chosen, String> {
        match source {
            Source::Scenes(seed) => {
                let index = ordinal.wrapping_mul(TRIES) + attempt;
                let language = scene_language(data, key);
                let caption = Scene::draw(*seed, index).caption(&language, key.bits(1));
                let caption = caption.ok_or_else(|| no_scene_words(&language))?;
                Ok(Chosen { index, text: caption.text })
            }
            Source::Files(pairs) => {
                let index = nth(self.key, ordinal, attempt, pairs.len(), key);
                let found = pairs.captions(index as usize).map_err(|error| error.to_string())?;
                let caption = drawn(&found, &data.languages, key)
                    .ok_or_else(|| no_caption(pairs.as_ref(), index, &data.languages))?;
                Ok(Chosen { index, text: caption.text.clone() })
            }
        }
    }

    /// The picture that goes with chosen words, varied where it comes from a file.
    fn picture(
        &self,
        source: &Source,
        chosen: Chosen,
        key: Key,
        size: (u32, u32),
    ) -> Result<(Picture, String), String> {
        let picture = match source {
            Source::Scenes(seed) => Scene::draw(*seed, chosen.index).render(size.0.max(size.1)),
            Source::Files(pairs) => {
                let pair = pairs.get(chosen.index as usize).map_err(|error| error.to_string())?;
                let draw = |index| key.with("vary").uniform(index);
                vary(&pair.picture, &self.augment, size, draw).map_err(|error| error.to_string())?
            }
        };
        Ok((picture, chosen.text))
    }
}

/// A pair's number in its source, and the words drawn for it.
struct Chosen {
    index: u64,
    text: String,
}

/// Refuses a source that has nothing to say in the languages asked for.
fn check_languages(source: &Source, data: &DataRecipe) -> Result<()> {
    let refuse = |problem: String| Error::Recipe { origin: "`data.languages`".into(), problem };
    match source {
        Source::Scenes(_) => {
            let known = |language: &&String| dari_data::scenes::LANGUAGES.contains(&language.as_str());
            match data.languages.iter().find(|language| !known(language)) {
                Some(language) => Err(refuse(no_scene_words(language))),
                None => Ok(()),
            }
        }
        Source::Files(pairs) => {
            let speaks = |index| {
                pairs.captions(index).is_ok_and(|found| wanted(&found, &data.languages).next().is_some())
            };
            match (0..pairs.len()).any(speaks) {
                true => Ok(()),
                false => Err(refuse(format!("{}: no caption in {:?}", pairs.describe(), data.languages))),
            }
        }
    }
}

/// The language in which a scene is spoken of.
pub(crate) fn scene_language(data: &DataRecipe, key: Key) -> String {
    let known: Vec<&str> = match data.languages.is_empty() {
        true => dari_data::scenes::LANGUAGES.to_vec(),
        false => data.languages.iter().map(String::as_str).collect(),
    };
    known[key.below(11, known.len() as u64) as usize].to_owned()
}

/// One of a record's captions: its language first, so that one with more captions is not heard more.
pub(crate) fn drawn<'a>(found: &'a [Caption], languages: &'a [String], key: Key) -> Option<&'a Caption> {
    let captions: Vec<&Caption> = wanted(found, languages).collect();
    let mut spoken: Vec<Option<&str>> = captions.iter().map(|caption| caption.language.as_deref()).collect();
    spoken.sort_unstable();
    spoken.dedup();
    let language = *spoken.get(key.below(2, spoken.len().max(1) as u64) as usize)?;
    let own: Vec<&&Caption> = captions.iter().filter(|c| c.language.as_deref() == language).collect();
    own.get(key.below(3, own.len().max(1) as u64) as usize).map(|caption| **caption)
}

pub(crate) fn no_caption(pairs: &dyn Pairs, index: u64, languages: &[String]) -> String {
    format!("{}: record {index} has no caption in {languages:?}", pairs.describe())
}

/// Which of a source's records is its `ordinal`th in this run, each once an epoch in an order that `run` draws; or,
/// after failed attempts, a stand-in that `key` draws.
pub(crate) fn nth(run: Key, ordinal: u64, attempt: u64, length: usize, key: Key) -> u64 {
    let length = length as u64;
    match attempt {
        0 => permuted(run.with("order").at(ordinal / length), length, ordinal % length),
        _ => key.below(5, length),
    }
}

pub(crate) fn no_scene_words(language: &str) -> String {
    format!("synthetic scenes have no captions in `{language}`, expected en or ko")
}

fn wanted<'a>(captions: &'a [Caption], languages: &'a [String]) -> impl Iterator<Item = &'a Caption> {
    captions.iter().filter(move |caption| {
        languages.is_empty() || caption.language.as_ref().is_some_and(|language| languages.contains(language))
    })
}

/// Splits `batch` by weights; every source gets at least one. What rounding leaves over goes to the
/// largest remainders, what the ones take too much comes from the largest shares. The batch has at
/// least as many places as there are sources.
pub(crate) fn shares(weights: &[f64], batch: usize) -> Vec<usize> {
    let total: f64 = weights.iter().sum();
    let exact: Vec<f64> = weights.iter().map(|w| w / total * batch as f64).collect();
    let mut counts: Vec<usize> = exact.iter().map(|share| (share.floor() as usize).max(1)).collect();
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by(|&a, &b| exact[b].fract().total_cmp(&exact[a].fract()).then(a.cmp(&b)));
    for &index in order.iter().cycle().take(batch) {
        if counts.iter().sum::<usize>() < batch {
            counts[index] += 1;
        }
    }
    while counts.iter().sum::<usize>() > batch {
        match counts.iter_mut().max() {
            Some(most) if *most > 1 => *most -= 1,
            _ => break,
        }
    }
    counts
}

/// The `at`th entry of a random order of `0..length`, without making the whole order: a Feistel
/// network on the smallest square of bits that holds the length, walked until it lands inside.
fn permuted(key: Key, length: u64, at: u64) -> u64 {
    let half = (64 - length.saturating_sub(1).leading_zeros()).div_ceil(2).max(1);
    let mask = (1u64 << half) - 1;
    let mut value = at;
    loop {
        let (mut left, mut right) = (value >> half, value & mask);
        for round in 0..4 {
            (left, right) = (right, left ^ (key.at(round).bits(right) & mask));
        }
        value = (left << half) | right;
        if value < length {
            return value;
        }
    }
}

/// Makes the batch of a step.
pub type Maker = Arc<dyn Fn(u64) -> Result<Batch> + Send + Sync>;

/// Batches made ahead by worker threads, handed out in order.
pub struct Ahead {
    lanes: Vec<Receiver<Result<Batch>>>,
    next: u64,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Ahead {
    /// Starts `workers` threads at step `first`, up to step `last`; `make` gives the batch of a step.
    pub fn start(make: Maker, first: u64, last: u64, workers: usize) -> Ahead {
        let stop = Arc::new(AtomicBool::new(false));
        let (mut lanes, mut threads) = (Vec::new(), Vec::new());
        for worker in 0..workers as u64 {
            let (sender, receiver) = sync_channel(2);
            lanes.push(receiver);
            let (make, stop) = (make.clone(), stop.clone());
            threads.push(std::thread::spawn(move || {
                let mut step = first + worker;
                while step <= last && !stop.load(Ordering::Relaxed) {
                    let batch = make(step);
                    let failed = batch.is_err();
                    if sender.send(batch).is_err() || failed {
                        return;
                    }
                    step += workers as u64;
                }
            }));
        }
        Ahead { lanes, next: 0, stop, threads }
    }
}

impl Iterator for Ahead {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Result<Batch>> {
        let lane = (self.next % self.lanes.len() as u64) as usize;
        self.next += 1;
        self.lanes[lane].recv().ok()
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.lanes.clear();
        for thread in self.threads.drain(..) {
            // A worker that panicked has said so; there is nothing left to save here.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_shared_by_weight() {
        assert_eq!(shares(&[1.0, 1.0], 64), [32, 32]);
        assert_eq!(shares(&[2.0, 1.0], 64), [43, 21]);
        assert_eq!(shares(&[1000.0, 1.0], 8), [7, 1]);
        assert_eq!(shares(&[98.0, 1.0, 1.0], 4), [2, 1, 1]);
        assert_eq!(shares(&[1.0, 1.0, 1.0], 8).iter().sum::<usize>(), 8);
    }

    #[test]
    fn orders_are_permutations_that_differ() {
        for length in [1, 2, 3, 10, 1000] {
            let order =
                |epoch| -> Vec<u64> { (0..length).map(|at| permuted(Key::new(epoch), length, at)).collect() };
            let mut sorted = order(1);
            sorted.sort_unstable();
            assert_eq!(sorted, (0..length).collect::<Vec<_>>());
            if length > 9 {
                assert_ne!(order(1), order(2));
            }
        }
    }
}
