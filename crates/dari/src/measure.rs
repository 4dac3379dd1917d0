//! How long a loaded model takes, without files, decoding or tokenizers.

use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use dari_data::image::Picture;
use dari_models::capability::Tokens;
use dari_models::generate::{Decoder, Prompt};
use dari_models::generative::illustrate;
use dari_nn::random::Key;

use crate::{Engine, Result};

/// What of a language model is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speech {
    /// Reading a prompt of so many tokens.
    Prefill,
    /// Writing so many tokens, one after the other, behind a few.
    Decode,
    /// A picture and a question, and so many tokens of an answer.
    Ask,
}

/// What one run took, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Spoken {
    /// From the prompt (and the picture's pixels) to the first token's logits.
    pub first: f64,
    /// From there to the last token.
    pub rest: f64,
    /// Tokens read before the first.
    pub read: usize,
    /// Tokens written behind it.
    pub written: usize,
}

/// Tokens before the first that [`Speech::Decode`] writes.
const BEFORE: usize = 16;

impl Engine {
    /// Times `runs` runs of a language model after `warm` others, of words drawn at random; an answer never ends
    /// by itself.
    pub fn time_speech(&self, what: Speech, tokens: usize, warm: usize, runs: usize) -> Result<Vec<Spoken>> {
        let loaded = self.loaded();
        let Some(model) = loaded.model.causal() else {
            return Err(self.unable("write texts", "take a language model or a vision-language model"));
        };
        let words = |count: usize| -> Vec<u32> {
            let key = Key::new(3);
            let most = (model.vocabulary() as u64).saturating_sub(2).max(1);
            (0..count as u64)
                .map(|at| 1 + key.below(at, most) as u32 % model.vocabulary().max(2) as u32)
                .collect()
        };
        let picture = match (what, loaded.model.sees()) {
            (Speech::Ask, None) => {
                return Err(self.unable("see pictures", "take a vision-language model"));
            }
            (Speech::Ask, Some(sees)) => {
                let side = sees.side() as u32;
                let pixels = (0..side * side * 3).map(|at| (at % 251) as u8).collect();
                Some(Picture::from_rgb(side, side, pixels).map_err(dari_models::Error::from)?)
            }
            _ => None,
        };
        let failed = |error: dari_models::Error| self.failed(&error);
        let one = || -> dari_models::Result<Spoken> {
            let prompt = match (&picture, loaded.model.sees(), loaded.placeholder) {
                (Some(picture), Some(sees), Some(placeholder)) => {
                    let pixels = loaded.processor.pieces(picture, self.device())?;
                    let began = Instant::now();
                    let seen = sees.see_in_parts(&pixels)?;
                    let mut ids = words(8);
                    let count = seen.dim(0)? * seen.dim(1)?;
                    ids.extend(vec![placeholder; count]);
                    ids.extend(words(16));
                    (illustrate(sees, ids, placeholder, &seen)?, began)
                }
                _ => (
                    Prompt::words(words(if what == Speech::Prefill { tokens } else { BEFORE })),
                    Instant::now(),
                ),
            };
            let (prompt, began) = prompt;
            let mut states = [model.begin()];
            let mut logits = model.prefill(&mut states[0], &prompt)?;
            let first = began.elapsed().as_secs_f64();
            let written = if what == Speech::Prefill { 0 } else { tokens };
            let began = Instant::now();
            for _ in 0..written {
                let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
                let best = best.map_or(0, |(token, _)| token as u32);
                logits = model.step(&mut states, &[best])?.pop().unwrap_or_default();
            }
            Ok(Spoken { first, rest: began.elapsed().as_secs_f64(), read: prompt.ids.len(), written })
        };
        let needed = if what == Speech::Prefill { tokens } else { BEFORE + tokens };
        if needed > model.context() {
            let expected =
                format!("at most {}: the model's context, with {BEFORE} before an answer", model.context());
            return Err(crate::Error::Option { option: "tokens", found: tokens.to_string(), expected });
        }
        for _ in 0..warm {
            // What takes a second has warmed everything.
            if one().map_err(failed)?.first > 1.0 {
                break;
            }
        }
        (0..runs).map(|_| one().map_err(failed)).collect()
    }

    /// Bytes of the weights that a token of a language model goes through, once one has been written; `None` of
    /// a model that sees as well.
    pub fn weight_bytes_a_token(&self) -> Option<usize> {
        let loaded = self.loaded();
        let alone = loaded.model.causal().is_some() && loaded.model.sees().is_none();
        alone.then(|| loaded.weights.packed().iter().map(|(_, weight)| weight.bytes_in_use()).sum())
    }

    /// Seconds of each of `runs` batches of pictures drawn at random, after `warm` others.
    pub fn time_pictures(&self, batch: usize, warm: usize, runs: usize) -> Result<Vec<f64>> {
        let model = &self.loaded().model;
        let size = self.loaded().processor.image().ok().map(|image| image.size());
        let size = model.picture_size().map(|side| (side, side)).or(size);
        let (Some(pictures), Some((height, width))) = (model.pictures(), size) else {
            return Err(self.unable("see pictures", "take a CLIP, SigLIP, ViT or ResNet model"));
        };
        let shape = (batch, 3, height, width);
        let (key, count) = (Key::new(1), batch * 3 * height * width);
        let pixels: Vec<f32> = (0..count as u64).map(|i| key.normal(i) as f32).collect();
        let pixels = Tensor::from_vec(pixels, shape, &Device::Cpu)
            .and_then(|pixels| pixels.to_device(self.device()))
            .map_err(|error| self.failed(&error))?;
        self.time(warm, runs, &|| pictures.embed_pictures(&pixels))
    }

    /// Seconds of each of `runs` batches of these texts, given as token ids, after `warm` others.
    pub fn time_tokens(&self, ids: Vec<Vec<u32>>, warm: usize, runs: usize) -> Result<Vec<f64>> {
        let Some(texts) = self.loaded().model.texts() else {
            return Err(self.unable("read texts", "take a CLIP, SigLIP or BERT model"));
        };
        let longest = ids.iter().map(Vec::len).max().unwrap_or(0);
        let mask = ids.iter().map(|ids| (0..longest).map(|i| (i < ids.len()) as u8).collect()).collect();
        let padded = ids.into_iter().map(|mut ids| {
            let last = ids.last().copied().unwrap_or(0);
            ids.resize(longest, last);
            ids
        });
        let tokens = Tokens { ids: padded.collect(), mask };
        self.time(warm, runs, &|| texts.embed_texts(&tokens))
    }

    /// Texts as long as the model reads, of tokens drawn at random; the vocabulary's last token ends
    /// each, as CLIP's texts end.
    pub fn random_tokens(&self, batch: usize) -> Result<Vec<Vec<u32>>> {
        let loaded = self.loaded();
        let config = loaded.config.get("text_config").unwrap_or(&loaded.config);
        let entries = config.get("vocab_size").and_then(serde_json::Value::as_u64).unwrap_or(0);
        let Some(length) = loaded.context.filter(|&length| length > 0 && entries > 2) else {
            return Err(self.unable("read texts", "take a CLIP, SigLIP or BERT model"));
        };
        let key = Key::new(2);
        let text = |text: usize| {
            let draw = |token: usize| 1 + key.below((text * length + token) as u64, entries - 2) as u32;
            (0..length - 1).map(draw).chain([entries as u32 - 1]).collect()
        };
        Ok((0..batch).map(text).collect())
    }

    fn time(
        &self,
        warm: usize,
        runs: usize,
        run: &dyn Fn() -> dari_models::Result<Tensor>,
    ) -> Result<Vec<f64>> {
        let mut seconds = Vec::with_capacity(runs);
        for index in 0..warm + runs {
            let began = Instant::now();
            let answer = run().map_err(|error| self.failed(&error))?;
            // Other devices answer before they are done.
            let first = answer.flatten_all().and_then(|all| all.narrow(0, 0, 1)?.to_dtype(DType::F32));
            first.and_then(|first| first.to_vec1::<f32>()).map_err(|error| self.failed(&error))?;
            if index >= warm {
                seconds.push(began.elapsed().as_secs_f64());
            }
        }
        Ok(seconds)
    }
}
