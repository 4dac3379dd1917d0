//! The generative road: pictures become tokens among a language model's own.

pub mod composed;
pub mod idefics3;
pub mod llava;

use candle_core::{D, Tensor};

use crate::bridge::Bridge;
use crate::capability::{CausalLm, SeeAndSay};
use crate::encoder::{self, VisionTower};
use crate::generate::Prompt;
use crate::language;
use crate::language::llama::LlamaConfig;
use crate::{Result, config};
use serde_json::Value;

/// An encoder, a bridge and a language model.
pub struct VisionLanguage {
    tower: Box<dyn VisionTower>,
    /// The side of its pictures, in pixels.
    side: usize,
    layers: Layers,
    bridge: Box<dyn Bridge>,
    language: Box<dyn CausalLm>,
}

/// A prompt with pictures in the places that `placeholder` holds: what [`SeeAndSay::see`] gives of them, `[pieces,
/// queries, width]`, in the order of their places.
pub fn illustrate(model: &dyn SeeAndSay, ids: Vec<u32>, placeholder: u32, seen: &Tensor) -> Result<Prompt> {
    let (pieces, queries, width) = seen.dims3()?;
    let places = ids.iter().filter(|&&id| id == placeholder).count();
    if places != pieces * queries {
        let problem = format!("{places} places in the text for {pieces} pictures of {queries} tokens each");
        return config::refuse("the prompt", problem);
    }
    // A placeholder need not be a word of the language model's.
    let words: Vec<u32> = ids.iter().map(|&id| if id == placeholder { 0 } else { id }).collect();
    let words = model.language().embed(&Tensor::new(words, seen.device())?.unsqueeze(0)?)?.squeeze(0)?;
    let all = Tensor::cat(&[&words, &seen.reshape((pieces * queries, width))?], 0)?;
    let mut next = ids.len() as u32;
    let row = |(place, &id): (usize, &u32)| {
        if id != placeholder {
            return place as u32;
        }
        next += 1;
        next - 1
    };
    let rows: Vec<u32> = ids.iter().enumerate().map(row).collect();
    let embeddings = all.index_select(&Tensor::new(rows, all.device())?, 0)?;
    Ok(Prompt { ids, embeddings: Some(embeddings) })
}

/// What of the tower goes to the bridge.
pub enum Layers {
    /// Everything that the tower leaves.
    Last,
    /// Tokens behind some layers, counted from the last (-1) or the embeddings (0), side by side; the first
    /// token, which stands for no place, is left out or kept.
    Behind {
        /// In this order.
        layers: Vec<i64>,
        /// Whether the class token stays.
        class: bool,
    },
}

impl VisionLanguage {
    /// Puts a system together.
    pub fn new(
        tower: Box<dyn VisionTower>,
        side: usize,
        layers: Layers,
        bridge: Box<dyn Bridge>,
        language: Box<dyn CausalLm>,
    ) -> VisionLanguage {
        VisionLanguage { tower, side, layers, bridge, language }
    }

    /// What the bridge is given: `[pictures, 3, side, side]` to `[pictures, tokens, width]`.
    pub fn hidden(&self, pixels: &Tensor) -> Result<Tensor> {
        match &self.layers {
            Layers::Last => {
                let all = self.tower.last(pixels)?;
                let before = self.tower.before();
                Ok(all.narrow(1, before, all.dim(1)?.saturating_sub(before))?.contiguous()?)
            }
            Layers::Behind { layers, class } => {
                let found = encoder::behind(self.tower.as_ref(), pixels, layers)?;
                let all = Tensor::cat(&found, D::Minus1)?;
                match class {
                    true => Ok(all),
                    // LLaVA's code leaves the first token out, whatever the tower.
                    false => Ok(all.narrow(1, 1, all.dim(1)?.saturating_sub(1))?.contiguous()?),
                }
            }
        }
    }
}

impl SeeAndSay for VisionLanguage {
    fn see(&self, pixels: &Tensor) -> Result<Tensor> {
        self.bridge.forward(&self.hidden(pixels)?)
    }

    fn side(&self) -> usize {
        self.side
    }

    fn queries(&self) -> usize {
        let places = self.tower.places(self.side);
        let tokens = places + self.tower.before();
        self.bridge.queries(match self.layers {
            Layers::Last => places,
            Layers::Behind { class: false, .. } => tokens.saturating_sub(1),
            Layers::Behind { class: true, .. } => tokens,
        })
    }

    fn language(&self) -> &dyn CausalLm {
        self.language.as_ref()
    }
}

/// The language model that a config's `text_config` describes.
fn text_config(text: &Value, tied: Option<bool>, origin: &str) -> Result<LlamaConfig> {
    let mut read = language::decoder_config(text, origin)?;
    if text.get("tie_word_embeddings").is_none() {
        read.tie_word_embeddings = tied.unwrap_or(read.tie_word_embeddings);
    }
    Ok(read)
}
