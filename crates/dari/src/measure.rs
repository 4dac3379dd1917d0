//! How long a loaded model takes, without files, decoding or tokenizers.

use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use dari_models::capability::Tokens;
use dari_nn::random::Key;

use crate::{Engine, Result};

impl Engine {
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
