//! A loaded model, asked for what it can do.

use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use dari_data::image::{self, Limits, Need, Picture, Pixels};
use dari_files::Folder;
use dari_models::capability::{EmbedPictures, EmbedTexts, Matching};
use dari_models::processor::Pictures;
use dari_models::{Loaded, auto};
use dari_nn::Precision;
use rayon::prelude::*;

use crate::names::open_folder;
use crate::{Error, Result, devices};

/// How a model is loaded.
#[derive(Clone, Debug)]
pub struct Options {
    /// In what precision its weights are kept.
    pub precision: Precision,
    /// Where it runs: `cpu`, `cuda`, `cuda:N`, `metal`.
    pub device: String,
    /// Bounds on the pictures that are opened.
    pub limits: Limits,
    /// Pictures or texts that the model takes at once.
    pub batch: usize,
    /// Decode every file in full; else a JPEG far larger than the model's input is decoded at a part of
    /// its size, at least twice what is needed.
    pub exact: bool,
    /// The part of each picture that is looked at: left, top, width and height, in pixels.
    pub crop: Option<[u32; 4]>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            precision: Precision::F32,
            device: "cpu".into(),
            limits: Limits::default(),
            batch: 32,
            exact: false,
            crop: None,
        }
    }
}

/// A model ready to answer.
pub struct Engine {
    name: String,
    folder: Folder,
    loaded: Loaded,
    device: Device,
    options: Options,
}

/// What a model can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Abilities {
    /// Pictures to vectors.
    pub embed_pictures: bool,
    /// Texts to vectors.
    pub embed_texts: bool,
    /// Pictures against words: similarity, zero-shot labels, search.
    pub compare: bool,
    /// Its own labels for pictures.
    pub classify: bool,
    /// Masked words.
    pub fill_mask: bool,
    /// How a text goes on.
    pub complete: bool,
    /// A conversation, by its own template.
    pub chat: bool,
    /// Questions about pictures.
    pub ask: bool,
}

/// Embedded texts, and which of them were longer than the model reads.
#[derive(Clone, Debug)]
pub struct Texts {
    /// One vector a text, in order.
    pub vectors: Vec<Vec<f32>>,
    /// Indices of texts that lost their end.
    pub truncated: Vec<usize>,
}

/// A label and how probable the model finds it.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Label {
    /// The label.
    pub label: String,
    /// Softmax over all labels for CLIP and classifiers, sigmoid for SigLIP.
    pub probability: f32,
}

impl Engine {
    /// Loads a model: `mini` (embedded), a folder, a short name or a hub id.
    pub fn open(model: &str, options: &Options) -> Result<Engine> {
        Engine::from_folder(model, open_folder(model, &mut |_, _, _| {})?, options)
    }

    /// Loads a model from an opened folder.
    pub fn from_folder(name: &str, folder: Folder, options: &Options) -> Result<Engine> {
        let device = devices::device(&options.device)?;
        let loaded = auto::load(&folder, &device, options.precision)?;
        Ok(Engine { name: name.to_owned(), folder, loaded, device, options: options.clone() })
    }

    /// The name under which it was opened.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What its folder holds and what was built from it.
    pub fn loaded(&self) -> &Loaded {
        &self.loaded
    }

    /// How many inputs go through the model at once.
    pub fn batch(&self) -> usize {
        self.options.batch.max(1)
    }

    /// The precision of its weights and products.
    pub fn precision(&self) -> Precision {
        self.options.precision
    }

    /// Where it runs.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// A fingerprint of all its files and its precision: equal fingerprints give equal vectors.
    pub fn fingerprint(&self) -> Result<String> {
        Ok(format!("{}-{}", self.folder.fingerprint()?, self.options.precision.name()))
    }

    /// What it can do with what its folder holds.
    pub fn abilities(&self) -> Abilities {
        let model = &self.loaded.model;
        // A model without the files that prepare its input can take none.
        let processor = &self.loaded.processor;
        let (sees, reads) = (processor.image().is_ok(), processor.text().is_ok());
        let writes = processor.words().is_ok() && model.causal().is_some();
        Abilities {
            embed_pictures: sees && model.pictures().is_some(),
            embed_texts: reads && model.texts().is_some(),
            compare: sees && reads && model.contrastive().is_some(),
            classify: sees && model.classifier().is_some(),
            fill_mask: reads && model.fill_mask().is_some(),
            complete: writes,
            chat: writes && processor.chat().is_ok(),
            ask: writes && processor.chat().is_ok() && processor.sights().is_some(),
        }
    }

    /// Values of one vector.
    pub fn dim(&self) -> usize {
        let model = &self.loaded.model;
        match (model.pictures(), model.texts()) {
            (Some(pictures), _) => pictures.picture_dim(),
            (None, Some(texts)) => texts.text_dim(),
            (None, None) => 0,
        }
    }

    pub(crate) fn unable(&self, what: &'static str, instead: &'static str) -> Error {
        Error::Unable { model: self.name.clone(), what, instead }
    }

    fn pictures(&self) -> Result<&dyn EmbedPictures> {
        self.loaded
            .model
            .pictures()
            .ok_or_else(|| self.unable("see pictures", "take a CLIP, SigLIP or ViT model"))
    }

    fn texts(&self) -> Result<&dyn EmbedTexts> {
        self.loaded
            .model
            .texts()
            .ok_or_else(|| self.unable("read texts", "take a CLIP, SigLIP or BERT model"))
    }

    /// Unit vectors of pictures, in order.
    pub fn embed_pictures(&self, pictures: &[Picture]) -> Result<Vec<Vec<f32>>> {
        Ok(self.embed_pictures_as_is(pictures)?.into_iter().map(unit).collect())
    }

    /// Vectors of pictures as the model gives them, not brought to unit length.
    pub fn embed_pictures_as_is(&self, pictures: &[Picture]) -> Result<Vec<Vec<f32>>> {
        let mut vectors = Vec::with_capacity(pictures.len());
        for batch in pictures.chunks(self.options.batch.max(1)) {
            let image = self.loaded.processor.image()?;
            let pixels = batch.par_iter().map(|picture| image.process(picture)).collect();
            vectors.extend(self.embed_pixels(pixels)?);
        }
        Ok(vectors)
    }

    fn embed_pixels(&self, pixels: Vec<Pixels>) -> Result<Vec<Vec<f32>>> {
        let (pictures, model) = (Pictures::stack(pixels, &self.device)?, self.pictures()?);
        let vectors = pictures.each(|pixels| model.embed_pictures(pixels));
        self.finite(vectors.map_err(|error| self.failed(&error))?.to_vec2()?)
    }

    pub(crate) fn failed(&self, problem: &dyn std::fmt::Display) -> Error {
        Error::Forward { model: self.name.clone(), problem: problem.to_string() }
    }

    /// Refuses answers that are no numbers: weights or config are damaged.
    fn finite(&self, vectors: Vec<Vec<f32>>) -> Result<Vec<Vec<f32>>> {
        if vectors.iter().flatten().all(|value| value.is_finite()) {
            return Ok(vectors);
        }
        Err(self.failed(&"its answer is not a finite number: its weights or its config are damaged"))
    }

    /// Unit vectors of picture files, each with its own answer: one bad file spoils no other.
    pub fn embed_files(&self, files: &[PathBuf]) -> Vec<Result<Vec<f32>>> {
        self.embed_files_as_is(files).into_iter().map(|answer| answer.map(unit)).collect()
    }

    /// The same, not brought to unit length.
    pub fn embed_files_as_is(&self, files: &[PathBuf]) -> Vec<Result<Vec<f32>>> {
        self.each_file(files, &|pixels| self.embed_pixels(pixels))
    }

    /// Opens a picture file as the options say.
    pub fn open_picture(&self, file: &Path) -> Result<Picture> {
        let (processor, options) = (&self.loaded.processor, &self.options);
        let Some([left, top, width, height]) = options.crop else {
            // What no processor wants is opened whole, and refused where it would be used.
            let need = |height, width| processor.wanted(height, width).unwrap_or((height, width));
            let need: Option<Need<'_>> = if options.exact { None } else { Some(&need) };
            return Ok(image::open_for(file, &options.limits, need)?);
        };
        let picture = image::open(file, &options.limits)?;
        picture.crop(left, top, width, height).map_err(|_| Error::Crop {
            file: file.display().to_string(),
            crop: [left, top, width, height],
            size: [picture.width(), picture.height()],
        })
    }

    /// Opens files in parallel, batch by batch, the next while `model` runs on those that could be
    /// opened.
    fn each_file<T>(
        &self,
        files: &[PathBuf],
        model: &dyn Fn(Vec<Pixels>) -> Result<Vec<T>>,
    ) -> Vec<Result<T>> {
        let mut batches = files.chunks(self.batch());
        let open = |batch: &[PathBuf]| -> Vec<Result<Pixels>> {
            let ready =
                |file: &PathBuf| Ok(self.loaded.processor.image()?.process(&self.open_picture(file)?));
            batch.par_iter().map(ready).collect()
        };
        let mut answers = Vec::with_capacity(files.len());
        let mut next = batches.next().map(open);
        while let Some(opened) = next.take() {
            let batch = batches.next();
            let (answered, ahead) = std::thread::scope(|scope| {
                let ahead = batch.map(|batch| scope.spawn(|| open(batch)));
                (self.answer(opened, model), ahead.map(std::thread::ScopedJoinHandle::join))
            });
            answers.extend(answered);
            next = match ahead {
                // Decoders' panics are caught where they are called: what comes here is a fault of ours.
                Some(Err(panic)) => std::panic::resume_unwind(panic),
                Some(Ok(opened)) => Some(opened),
                None => None,
            };
        }
        answers
    }

    /// Runs `model` on the pictures that could be opened; each gets its answer, or its own error.
    fn answer<T>(
        &self,
        opened: Vec<Result<Pixels>>,
        model: &dyn Fn(Vec<Pixels>) -> Result<Vec<T>>,
    ) -> Vec<Result<T>> {
        let mut answers = Vec::with_capacity(opened.len());
        let mut pixels = Vec::with_capacity(opened.len());
        // What could be opened waits for the model's answer; what could not has its own.
        let failures: Vec<Option<Error>> =
            opened.into_iter().map(|answer| answer.map(|one| pixels.push(one)).err()).collect();
        let found = if pixels.is_empty() { Ok(Vec::new()) } else { model(pixels) };
        let problem = match &found {
            Ok(_) => None,
            Err(Error::Forward { problem, .. }) => Some(problem.clone()),
            Err(error) => Some(error.to_string()),
        };
        let mut found = found.unwrap_or_default().into_iter();
        answers.extend(failures.into_iter().map(|failure| match failure {
            Some(error) => Err(error),
            None => found.next().ok_or_else(|| Error::Forward {
                model: self.name.clone(),
                problem: problem.clone().unwrap_or_else(|| "it gave fewer answers than pictures".into()),
            }),
        }));
        answers
    }

    /// Unit vectors of texts, in order.
    pub fn embed_texts(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>> {
        Ok(self.embed_texts_noting(texts)?.vectors)
    }

    /// Unit vectors of texts, and which texts were too long.
    pub fn embed_texts_noting(&self, texts: &[&str]) -> Result<Texts> {
        let mut found = self.embed_texts_as_is(texts)?;
        found.vectors = found.vectors.into_iter().map(unit).collect();
        Ok(found)
    }

    /// The same, not brought to unit length.
    pub fn embed_texts_as_is(&self, texts: &[&str]) -> Result<Texts> {
        let mut found = Texts { vectors: Vec::with_capacity(texts.len()), truncated: Vec::new() };
        for (number, batch) in texts.chunks(self.options.batch.max(1)).enumerate() {
            let prepared = self.loaded.processor.tokens(batch)?;
            let first = number * self.options.batch.max(1);
            found.truncated.extend(prepared.truncated.iter().map(|index| first + index));
            let vectors = self.texts()?.embed_texts(&prepared.tokens).map_err(|error| self.failed(&error))?;
            found.vectors.extend(self.finite(vectors.to_vec2()?)?);
        }
        Ok(found)
    }

    /// One unit vector a label: the mean over the templates, in which `{}` stands for the label
    /// (Radford et al. 2021, prompt ensembling). A template without `{}` is followed by the label;
    /// no template is the label alone.
    pub fn embed_labels(&self, labels: &[String], templates: &[String]) -> Result<Texts> {
        let texts = label_texts(labels, templates);
        let borrowed: Vec<&str> = texts.iter().map(String::as_str).collect();
        let all = self.embed_texts_noting(&borrowed)?;
        let per = templates.len().max(1);
        let vectors = all.vectors.chunks(per).map(mean).collect();
        Ok(Texts { vectors, truncated: all.truncated.into_iter().map(|index| index / per).collect() })
    }

    /// Logits of unit picture vectors against unit text vectors, `[pictures][texts]`.
    pub fn logits(&self, pictures: &[Vec<f32>], texts: &[Vec<f32>]) -> Result<Vec<Vec<f32>>> {
        let Some(model) = self.loaded.model.contrastive() else {
            return Err(self.unable("compare pictures with words", "take a CLIP or SigLIP model"));
        };
        if pictures.is_empty() || texts.is_empty() {
            return Ok(vec![Vec::new(); pictures.len()]);
        }
        let tensor =
            |rows: &[Vec<f32>]| Tensor::from_vec(rows.concat(), (rows.len(), rows[0].len()), &self.device);
        Ok(model.logits(&tensor(pictures)?, &tensor(texts)?)?.to_vec2()?)
    }

    /// How its logits become probabilities.
    pub fn matching(&self) -> Result<Matching> {
        match self.loaded.model.contrastive() {
            Some(model) => Ok(model.matching()),
            None => Err(self.unable("compare pictures with words", "take a CLIP or SigLIP model")),
        }
    }

    /// Zero-shot: which of `labels` each picture vector shows, most probable first.
    pub fn classify(
        &self,
        pictures: &[Vec<f32>],
        labels: &[String],
        templates: &[String],
    ) -> Result<Vec<Vec<Label>>> {
        let texts = self.embed_labels(labels, templates)?.vectors;
        self.classify_by(pictures, labels, &texts)
    }

    /// The same by labels whose vectors are known already.
    pub fn classify_by(
        &self,
        pictures: &[Vec<f32>],
        labels: &[String],
        vectors: &[Vec<f32>],
    ) -> Result<Vec<Vec<Label>>> {
        let matching = self.matching()?;
        let logits = self.logits(pictures, vectors)?;
        Ok(logits.iter().map(|row| sorted_labels(labels, matching.probabilities(row))).collect())
    }

    /// A classifier checkpoint's own labels of picture files, most probable first.
    pub fn classify_files(&self, files: &[PathBuf]) -> Vec<Result<Vec<Label>>> {
        let own = |pixels: Vec<Pixels>| -> Result<Vec<Vec<Label>>> {
            let Some(model) = self.loaded.model.classifier() else {
                return Err(self.unable(
                    "name labels of its own",
                    "give --labels to a CLIP or SigLIP model, or take a ViT classifier",
                ));
            };
            let pictures = Pictures::stack(pixels, &self.device)?;
            let logits = pictures.each(|pixels| model.classify(pixels))?.to_vec2::<f32>()?;
            Ok(logits
                .iter()
                .map(|row| sorted_labels(model.labels(), Matching::Softmax.probabilities(row)))
                .collect())
        };
        self.each_file(files, &own)
    }

    /// Words for each `[MASK]` of a text, most probable first, `k` of them a mask.
    pub fn fill_mask(&self, text: &str, k: usize) -> Result<Vec<Vec<Label>>> {
        const MASK: &str = "[MASK]";
        let Some(model) = self.loaded.model.fill_mask() else {
            return Err(self.unable("fill masks", "take a BERT checkpoint with its masked-word head"));
        };
        let words = self.loaded.processor.text()?;
        let tokens = self.loaded.processor.tokens(&[text])?.tokens;
        let mask = words.id(MASK);
        let places = tokens.ids.iter().flatten().enumerate().filter(|(_, id)| Some(**id) == mask);
        let places: Vec<usize> = places.map(|(place, _)| place).collect();
        if places.is_empty() {
            let expected = format!("expected at least one {MASK} in it");
            return Err(Error::Option { option: "text", found: text.chars().take(60).collect(), expected });
        }
        let logits = model.mask_logits(&tokens)?;
        let mut filled = Vec::with_capacity(places.len());
        for place in places {
            let row = logits.get(0)?.get(place)?.to_vec1::<f32>()?;
            let probabilities = Matching::Softmax.probabilities(&row);
            let mut best: Vec<(usize, f32)> = probabilities.into_iter().enumerate().collect();
            best.sort_by(|a, b| b.1.total_cmp(&a.1));
            let label = |&(id, probability): &(usize, f32)| {
                let label =
                    u32::try_from(id).ok().and_then(|id| words.token(id)).unwrap_or_else(|| format!("#{id}"));
                Label { label, probability }
            };
            filled.push(best.iter().take(k).map(label).collect());
        }
        Ok(filled)
    }
}

/// Labels with their probabilities, most probable first; equals stay in the order given.
fn sorted_labels(labels: &[String], probabilities: Vec<f32>) -> Vec<Label> {
    let mut found: Vec<Label> = labels
        .iter()
        .cloned()
        .zip(probabilities)
        .map(|(label, probability)| Label { label, probability })
        .collect();
    found.sort_by(|a, b| b.probability.total_cmp(&a.probability));
    found
}

/// To unit length; a vector of zeros stays as it is.
fn unit(mut vector: Vec<f32>) -> Vec<f32> {
    let norm = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    if norm > 0.0 {
        for x in &mut vector {
            *x /= norm;
        }
    }
    vector
}

/// What [`Engine::embed_labels`] reads: every label in every template, label by label.
pub fn label_texts(labels: &[String], templates: &[String]) -> Vec<String> {
    let plain = ["{}".to_owned()];
    let templates = if templates.is_empty() { &plain[..] } else { templates };
    let fill = |label: &String, template: &String| match template.contains("{}") {
        true => template.replace("{}", label),
        false => format!("{template} {label}"),
    };
    labels.iter().flat_map(|label| templates.iter().map(move |template| fill(label, template))).collect()
}

/// The mean of unit vectors, brought to unit length.
pub fn mean(vectors: &[Vec<f32>]) -> Vec<f32> {
    let mut total = vec![0.0; vectors.first().map_or(0, Vec::len)];
    for vector in vectors {
        for (sum, x) in total.iter_mut().zip(vector) {
            *sum += x / vectors.len() as f32;
        }
    }
    unit(total)
}

/// Cosine of two unit vectors.
pub fn cosine(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

/// A place in a ranking.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ranked {
    /// Which candidate.
    pub index: usize,
    /// Its cosine with the query.
    pub score: f32,
}

/// The `k` candidates nearest to a query, nearest first; ties by index. All are unit vectors.
pub fn rank(query: &[f32], candidates: &[Vec<f32>], k: usize) -> Vec<Ranked> {
    let mut found: Vec<Ranked> = candidates
        .iter()
        .enumerate()
        .map(|(index, vector)| Ranked { index, score: cosine(query, vector) })
        .collect();
    found.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.index.cmp(&b.index)));
    found.truncate(k);
    found
}
