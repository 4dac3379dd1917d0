//! The loop: a batch, a loss, its gradients, a step; now and then a checkpoint.

mod metrics;
mod prepare;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use candle_core::{D, Device, Tensor, Var};
use dari_data::image::Pixels;
use dari_files::Folder;
use dari_models::Loaded;
use dari_models::capability::{Contrastive, EmbedPictures, Matching, Tokens};
use dari_models::generative::composed::{self};
use dari_models::processor::Pictures;
use dari_nn::random::Key;
use dari_nn::{Gradients, loss, segment};
use serde::Serialize;

use self::metrics::Metrics;
use self::prepare::{Data, prepare};
use crate::batches::{Ahead, Amount, Batch, Maker, Samples};
use crate::checkpoint::{self, Carried, Checkpoints, Kept, State};
use crate::error::inside;
use crate::optimizer::{AdamW, clamp};
use crate::recipe::Recipe;
use crate::tensorboard::Events;
use crate::{Error, Result, schedule, speech};

/// What one step did; also a line of `metrics.jsonl`.
#[derive(Clone, Debug, Serialize)]
pub struct StepReport {
    /// The step, from 1.
    pub step: u64,
    /// Steps in all.
    pub steps: u64,
    /// The batch's loss.
    pub loss: f32,
    /// The learning rate of this step.
    pub learning_rate: f64,
    /// The gradients' norm before clipping.
    pub gradient_norm: f64,
    /// The logit scale of a contrastive model, e to the learned temperature.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logit_scale: Option<f32>,
    /// Of a classifier: the share of the batch whose class it found before this step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f32>,
    /// Pairs a second over this step.
    pub pairs_per_second: f64,
    /// Records skipped so far in the run.
    pub skipped: u64,
}

/// Told of what happens; may ask to stop.
pub trait Observer {
    /// Before the first step: what is about to be done, a line each.
    fn started(&mut self, lines: &[String]);
    /// After each step.
    fn stepped(&mut self, report: &StepReport);
    /// After some steps, the cosines of the batch's first pictures (rows) and texts (columns).
    fn matched(&mut self, _cosines: &[Vec<f32>]) {}
    /// After each checkpoint.
    fn saved(&mut self, folder: &Path);
    /// A record was skipped, and why.
    fn skipped(&mut self, message: &str);
    /// Asked after each step; `true` ends the run with a checkpoint.
    fn stop(&mut self) -> bool;
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All steps are done; the model lies there.
    Finished(PathBuf),
    /// Stopped on request; going on starts from there.
    Stopped(PathBuf),
}

impl StepReport {
    /// What is drawn over the steps, by name.
    fn scalars(&self) -> Vec<(&'static str, f64)> {
        let mut scalars = vec![
            ("loss", self.loss.into()),
            ("learning_rate", self.learning_rate),
            ("gradient_norm", self.gradient_norm),
            ("pairs_per_second", self.pairs_per_second),
        ];
        let named = [("logit_scale", self.logit_scale), ("accuracy", self.accuracy)];
        scalars.extend(named.into_iter().filter_map(|(name, value)| Some((name, value?.into()))));
        scalars
    }
}

/// What a step left.
struct Stepped {
    report: StepReport,
    parts: Parts,
    cosines: Vec<Vec<f32>>,
}

/// Pairs of a batch whose cosines are shown.
const SHOWN: usize = 16;
/// How often they are.
const SHOWN_EVERY: Duration = Duration::from_millis(400);

/// CLIP's bound on the temperature: a scale of 100.
const LARGEST_LOG_SCALE: f32 = 4.605_170_2;

/// Runs a recipe; with `resume`, from its newest checkpoint where there is one.
///
/// `open` turns the recipe's `model.from` into a folder.
pub fn train(
    recipe: &Recipe,
    resume: bool,
    device: &Device,
    open: &dyn Fn(&str) -> Result<Folder>,
    observer: &mut dyn Observer,
) -> Result<Outcome> {
    let (run, state) = prepare(recipe, resume, device, open)?;
    run.go(state, observer)
}

/// How long the parts of one step took, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Parts {
    /// From pixels and tokens to the loss.
    pub forward: f64,
    /// From the loss to every gradient.
    pub backward: f64,
    /// From the gradients to the new weights.
    pub optimizer: f64,
}

impl Parts {
    /// The whole step.
    pub fn total(&self) -> f64 {
        self.forward + self.backward + self.optimizer
    }
}

/// Times `runs` steps of a recipe after `warm` others, on batches that are ready before the clock
/// starts; with each, how much there was to read, where it is lessons. Whatever it writes goes below the recipe's
/// output.
pub fn time_steps(
    recipe: &Recipe,
    device: &Device,
    open: &dyn Fn(&str) -> Result<Folder>,
    warm: usize,
    runs: usize,
) -> Result<Vec<(Parts, Option<Amount>)>> {
    let (run, _) = prepare(recipe, false, device, open)?;
    let steps = (warm + runs) as u64;
    let mut ahead = Ahead::start(run.maker(), 1, steps, recipe.train.workers);
    let mut batches = Vec::new();
    for step in 1..=steps {
        batches.push(ahead.next().ok_or(Error::Lost { step })??);
    }
    let mut all = Vec::new();
    for batch in batches {
        let amount = batch.samples.amount();
        all.push((run.step(batch, 0)?.parts, amount));
    }
    Ok(all.split_off(warm))
}

/// What a model learns.
enum Task {
    /// Which picture and which text belong together.
    Pairs,
    /// Which class a picture is of: the classes' numbers by name.
    Classes { places: HashMap<String, u32>, smoothing: f32 },
    /// What is to be said.
    Speech,
}

impl Task {
    fn of(loaded: &Loaded, recipe: &Recipe) -> Result<Task> {
        if loaded.model.contrastive().is_some() {
            return Ok(Task::Pairs);
        }
        if loaded.model.causal().is_some() {
            return Ok(Task::Speech);
        }
        let Some(model) = loaded.model.classifier() else {
            return Err(untaught(loaded));
        };
        let numbered = model.labels().iter().cloned().zip(0..);
        let smoothing = recipe.train.label_smoothing as f32;
        Ok(Task::Classes { places: numbered.collect(), smoothing })
    }
}

fn untaught(loaded: &Loaded) -> Error {
    let kind = loaded.model.kind();
    let problem = format!(
        "a `{kind}` model has no loss yet; clip and siglip models, classifiers, language models and vision-language models can be trained"
    );
    Error::Recipe { origin: "the recipe".into(), problem }
}

fn contrastive(loaded: &Loaded) -> Result<&dyn Contrastive> {
    loaded.model.contrastive().ok_or_else(|| untaught(loaded))
}

/// Cosines of a batch's first pictures and texts, of unit vectors.
fn cosines(pictures: &Tensor, texts: &Tensor) -> Result<Vec<Vec<f32>>> {
    let first = |x: &Tensor| x.detach().narrow(0, 0, x.dim(0)?.min(SHOWN));
    Ok(dari_nn::linear::product(&first(pictures)?, &first(texts)?, None)?.to_vec2()?)
}

/// What a batch came to.
struct Asked {
    loss: Tensor,
    cosines: Vec<Vec<f32>>,
    accuracy: Option<f32>,
}

struct Run<'a> {
    recipe: &'a Recipe,
    device: &'a Device,
    /// Where the model was loaded from.
    folder: Folder,
    carried: Carried,
    checkpoints: Checkpoints,
    optimizer: AdamW,
    task: Task,
    data: Arc<Data>,
    loaded: Arc<Loaded>,
}

impl Run<'_> {
    fn go(self, mut state: State, observer: &mut dyn Observer) -> Result<Outcome> {
        let train = &self.recipe.train;
        observer.started(&self.describe(&state));
        let mut metrics = Metrics::open(&self.recipe.output.join("metrics.jsonl"), state.step)?;
        let mut events = match train.tensorboard {
            true => Some(Events::create(&self.recipe.output.join("tensorboard"), state.step)?),
            false => None,
        };
        let mut shown = Instant::now();
        let make = self.maker();
        let mut ahead = Ahead::start(make, state.step + 1, train.steps, train.workers);
        while state.step < train.steps {
            let began = Instant::now();
            let batch = ahead.next().ok_or(Error::Lost { step: state.step + 1 })??;
            for message in &batch.skipped {
                observer.skipped(message);
            }
            state.skipped += batch.skipped.len() as u64;
            let step = batch.step;
            let Stepped { mut report, cosines, .. } = self.step(batch, state.skipped)?;
            report.pairs_per_second = train.batch as f64 / began.elapsed().as_secs_f64().max(1e-9);
            state.step = step;
            metrics.write(&report)?;
            if let Some(events) = &mut events {
                events.scalars(step, &report.scalars())?;
            }
            observer.stepped(&report);
            if step == train.steps || shown.elapsed() >= SHOWN_EVERY {
                shown = Instant::now();
                observer.matched(&cosines);
            }
            let stop = observer.stop();
            if stop || state.step.is_multiple_of(train.checkpoint_every) || state.step == train.steps {
                if let Some(events) = &mut events {
                    events.flush()?;
                }
                let folder = self.save(&state)?;
                observer.saved(&folder);
                if stop && state.step < train.steps {
                    return Ok(Outcome::Stopped(folder));
                }
            }
        }
        self.optimizer.settle()?;
        let output = self.recipe.output.join("model");
        self.write_model(&output)?;
        Ok(Outcome::Finished(output))
    }

    /// What makes batches ahead.
    fn maker(&self) -> Maker {
        let (data, loaded) = (self.data.clone(), self.loaded.clone());
        Arc::new(move |step| data.batch(step, &loaded))
    }

    fn describe(&self, state: &State) -> Vec<String> {
        let variables = self.optimizer.variables();
        let trained: usize = variables.iter().map(|(_, v)| v.elem_count()).sum();
        let total = self.loaded.weights.count();
        let mut lines =
            vec![format!("{}: {trained} of {total} weights are trained", self.loaded.model.kind())];
        lines.extend(self.data.describe());
        if state.step > 0 {
            lines.push(format!("taken up again after step {}", state.step));
        }
        lines
    }

    fn save(&self, state: &State) -> Result<PathBuf> {
        // Never over the last good one: a checkpoint with a number that is none is no checkpoint.
        if let Some(what) = self.spoilt()? {
            return Err(self.not_finite(state.step, what));
        }
        let kept = match self.data.as_ref() {
            Data::Pairs(_) => Kept::Model(&self.loaded, &self.carried),
            Data::Lessons(_) => Kept::Trained(self.optimizer.variables()),
        };
        self.checkpoints.write(state, kept, self.optimizer.moments())
    }

    /// Writes the finished model: an adapter alone where one was trained beside a model that is whole elsewhere.
    fn write_model(&self, to: &Path) -> Result<()> {
        let (saved, lora) = (self.recipe.model.save, self.recipe.model.lora.as_ref());
        match (self.loaded.model.kind(), lora) {
            (composed::KIND, _) => checkpoint::write_composed(to, &self.folder, &self.loaded, saved, lora),
            (_, Some(lora)) => {
                let from = self.recipe.model.from.as_deref().unwrap_or_default();
                // A folder is found from wherever the adapter is opened.
                let base = self.recipe.start(from);
                let base = fs::canonicalize(&base).map_or(base, |path| path.display().to_string());
                checkpoint::write_adapter(to, &self.loaded, lora, &base)
            }
            (_, None) => checkpoint::write_model(to, &self.loaded, &self.carried, saved),
        }
    }

    fn step(&self, batch: Batch, skipped: u64) -> Result<Stepped> {
        let train = &self.recipe.train;
        let mut clock = Clock::start();
        let Asked { loss, cosines, accuracy } =
            segment::checkpointed(train.checkpoint_activations, || self.ask(batch.step, batch.samples))?;
        let value = loss.to_scalar::<f32>()?;
        if !value.is_finite() {
            // A weight that an earlier step spoilt is the cause; else the loss itself is.
            let what = self.spoilt()?.unwrap_or_else(|| "the loss".into());
            return Err(self.not_finite(batch.step, what));
        }
        let forward = clock.lap();
        let gradients = Gradients::of(&loss)?;
        let backward = clock.lap();
        let norm = match self.optimizer.gradient_norm(&gradients)? {
            Ok(norm) => norm,
            Err(what) => return Err(self.not_finite(batch.step, what)),
        };
        let rate = schedule::rate(train.schedule, train.learning_rate, train.warmup, train.steps, batch.step);
        self.optimizer.update(&gradients, rate, batch.step, norm)?;
        let matching = self.loaded.model.contrastive().map(Contrastive::matching);
        for (name, variable) in self.optimizer.variables() {
            // CLIP's bound; SigLIP's published temperatures stand above it.
            if name == "logit_scale" && matching == Some(Matching::Softmax) {
                clamp(variable, LARGEST_LOG_SCALE)?;
            }
        }
        let parts = Parts { forward, backward, optimizer: clock.lap() };
        let report = StepReport {
            step: batch.step,
            steps: train.steps,
            loss: value,
            learning_rate: rate,
            gradient_norm: norm,
            logit_scale: match self.loaded.model.contrastive() {
                Some(model) => Some(model.log_scale()?.exp()),
                None => None,
            },
            accuracy,
            pairs_per_second: 0.0,
            skipped,
        };
        Ok(Stepped { report, parts, cosines })
    }

    /// The loss of a batch.
    fn ask(&self, step: u64, samples: Samples) -> Result<Asked> {
        let (pixels, words, tokens) = match samples {
            Samples::Pairs { pixels, words, tokens } => (pixels, words, tokens),
            Samples::Lessons(lessons) => {
                let part = self.recipe.train.micro_batch.unwrap_or(lessons.len());
                let loss = speech::loss(&self.loaded, lessons, part, self.device)?;
                return Ok(Asked { loss, cosines: Vec::new(), accuracy: None });
            }
        };
        match &self.task {
            Task::Speech => Err(untaught(&self.loaded)),
            Task::Pairs => {
                let kept = self.kept(step, pixels.len())?;
                let (pictures, texts) = self.embed(pixels, kept.as_ref(), &tokens)?;
                let loss = contrastive(&self.loaded)?.loss(&pictures, &texts)?;
                Ok(Asked { loss, cosines: cosines(&pictures, &texts)?, accuracy: None })
            }
            Task::Classes { places, smoothing } => {
                let mut targets = Vec::with_capacity(words.len());
                for word in &words {
                    targets.push(*places.get(word).ok_or_else(|| {
                        let problem =
                            format!("`{word}` is said of a picture, which is none of the model's classes");
                        Error::Recipe { origin: "the data".into(), problem }
                    })?);
                }
                let logits =
                    self.in_parts(pixels, |loaded, pixels, _, _| match loaded.model.classifier() {
                        Some(model) => model.classify(pixels).map_err(inside),
                        None => Err(inside("the model names no classes")),
                    })?;
                let best = logits.detach().argmax(D::Minus1)?.to_vec1::<u32>()?;
                let right = best.iter().zip(&targets).filter(|(best, target)| best == target).count();
                let accuracy = Some(right as f32 / targets.len().max(1) as f32);
                let loss = loss::cross_entropy(&logits, &targets, *smoothing)?;
                Ok(Asked { loss, cosines: Vec::new(), accuracy })
            }
        }
    }

    /// Runs a tower over a batch's pictures, in the recipe's parts: a row a picture, in their order. `run`
    /// gets the pixels of a size, the first picture's number and how many go through at once.
    fn in_parts(
        &self,
        pixels: Vec<Pixels>,
        run: impl Fn(&Loaded, &Tensor, usize, usize) -> dari_nn::Result<Tensor> + Clone + Send + Sync + 'static,
    ) -> Result<Tensor> {
        let count = pixels.len();
        let part = self.recipe.train.micro_batch.unwrap_or(count).max(1);
        let mut pixels = pixels.into_iter();
        let mut rows = Vec::new();
        for first in (0..count).step_by(part) {
            let many = part.min(count - first);
            let own = Pictures::stack(pixels.by_ref().take(many).collect(), self.device)?;
            rows.push(own.each(|pixels| {
                if part >= count {
                    return Ok(run(&self.loaded, pixels, first, many)?);
                }
                let (loaded, run) = (self.loaded.clone(), run.clone());
                // A segment's input is tracked, or it would have no gradient.
                let pixels = Var::from_tensor(pixels)?.into_inner();
                Ok(segment::segment(&pixels, Arc::new(move |pixels| run(&loaded, pixels, first, many)))?)
            })?);
        }
        match &rows[..] {
            [all] => Ok(all.clone()),
            _ => Ok(Tensor::cat(&rows, 0)?),
        }
    }

    /// The numbers of the patches that this step looks at, `[pictures, kept]`; none where it looks at all.
    fn kept(&self, step: u64, pictures: usize) -> Result<Option<Tensor>> {
        let patches = self.loaded.model.pictures().map_or(0, EmbedPictures::patches);
        let kept = self.recipe.train.patches_kept(step, patches);
        if kept == patches {
            return Ok(None);
        }
        let key = Key::new(self.recipe.seed).with("patches").at(step);
        let mut numbers = Vec::with_capacity(pictures * kept);
        for picture in 0..pictures as u64 {
            let key = key.at(picture);
            let mut order: Vec<u32> = (0..patches as u32).collect();
            order.sort_by_key(|&patch| key.bits(patch.into()));
            order.truncate(kept);
            order.sort_unstable();
            numbers.extend(order);
        }
        Ok(Some(Tensor::from_vec(numbers, (pictures, kept), self.device)?))
    }

    /// Unit vectors of a batch's pictures and texts, `[batch, dim]` each.
    fn embed(&self, pixels: Vec<Pixels>, kept: Option<&Tensor>, tokens: &Tokens) -> Result<(Tensor, Tensor)> {
        let pairs = tokens.ids.len();
        let kept = kept.cloned();
        let pictures = self.in_parts(pixels, move |loaded, pixels, first, many| {
            let model = loaded.model.pictures().ok_or_else(|| inside("the model sees no pictures"))?;
            match &kept {
                Some(kept) => model.embed_patches(pixels, &kept.narrow(0, first, many)?).map_err(inside),
                None => model.embed_pictures(pixels).map_err(inside),
            }
        })?;
        let part = self.recipe.train.micro_batch.unwrap_or(pairs).max(1);
        let mut texts = Vec::new();
        for first in (0..pairs).step_by(part) {
            let own = tokens.pick(&(first..pairs.min(first + part)).collect::<Vec<_>>());
            let loaded = self.loaded.clone();
            let body = move |_: &Tensor| match loaded.model.texts() {
                Some(model) => model.embed_texts(&own).map_err(inside),
                None => Err(inside("the model reads no texts")),
            };
            let anchor = segment::anchor()?;
            texts.push(match part >= pairs {
                true => body(&anchor)?,
                false => segment::segment(&anchor, Arc::new(body))?,
            });
        }
        Ok((loss::normalise(&pictures)?, loss::normalise(&Tensor::cat(&texts, 0)?)?))
    }

    /// The first weight that holds a number that is none.
    fn spoilt(&self) -> Result<Option<String>> {
        for (name, variable) in self.optimizer.variables() {
            if !variable.as_tensor().sum_all()?.to_scalar::<f32>()?.is_finite() {
                return Ok(Some(format!("`{name}`")));
            }
        }
        Ok(None)
    }

    fn not_finite(&self, step: u64, what: String) -> Error {
        let kept = match self.checkpoints.list() {
            Ok(list) => list.last().map_or("none".to_owned(), |path| path.display().to_string()),
            Err(error) => error.to_string(),
        };
        Error::NotFinite { step, what, kept }
    }
}

/// Seconds since it was last asked.
struct Clock(Instant);

impl Clock {
    fn start() -> Clock {
        Clock(Instant::now())
    }

    fn lap(&mut self) -> f64 {
        let seconds = self.0.elapsed().as_secs_f64();
        self.0 = Instant::now();
        seconds
    }
}
