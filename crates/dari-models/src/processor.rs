//! The joint of pixels and tokens: one piece of code for inference and for training batches.

use candle_core::{Device, Tensor};
use dari_data::image::{ImageProcessor, Picture};
use dari_data::text::TextProcessor;

use crate::capability::Tokens;
use crate::{Error, Result};

/// What a checkpoint's own files say of preparing pictures and texts.
pub struct Processor {
    model: String,
    image: Option<ImageProcessor>,
    text: Option<TextProcessor>,
}

/// Texts made ready, and how many were cut to the model's length.
pub struct Prepared {
    /// The tokens.
    pub tokens: Tokens,
    /// Indices of texts that were too long and lost their end.
    pub truncated: Vec<usize>,
}

impl Processor {
    /// Joins the two halves; a model of one sense has one.
    pub fn new(model: String, image: Option<ImageProcessor>, text: Option<TextProcessor>) -> Processor {
        Processor { model, image, text }
    }

    /// The half that prepares pictures.
    pub fn image(&self) -> Result<&ImageProcessor> {
        self.image.as_ref().ok_or_else(|| Error::Unable {
            model: self.model.clone(),
            what: "see pictures",
            instead: "its folder has no preprocessor_config.json; take a CLIP, SigLIP or ViT checkpoint"
                .into(),
        })
    }

    /// The half that prepares texts.
    pub fn text(&self) -> Result<&TextProcessor> {
        self.text.as_ref().ok_or_else(|| Error::Unable {
            model: self.model.clone(),
            what: "read texts",
            instead: "its folder has no tokenizer; take a CLIP, SigLIP or BERT checkpoint".into(),
        })
    }

    /// Prepared pixels of many pictures, `[batch, 3, height, width]`, from their single vectors.
    pub fn stack(&self, pixels: Vec<Vec<f32>>, device: &Device) -> Result<Tensor> {
        let (height, width) = self.image()?.size();
        let batch = pixels.len();
        let flat: Vec<f32> =
            if batch == 1 { pixels.into_iter().next().unwrap_or_default() } else { pixels.concat() };
        Ok(Tensor::from_vec(flat, (batch, 3, height, width), device)?)
    }

    /// Pictures to `[batch, 3, height, width]`.
    pub fn pixels(&self, pictures: &[Picture], device: &Device) -> Result<Tensor> {
        let image = self.image()?;
        self.stack(pictures.iter().map(|picture| image.process(picture)).collect(), device)
    }

    /// Texts to tokens of equal length.
    pub fn tokens(&self, texts: &[&str]) -> Result<Prepared> {
        let encoded = self.text()?.encode_batch(texts)?;
        let truncated =
            encoded.iter().enumerate().filter(|(_, text)| text.truncated).map(|(i, _)| i).collect();
        Ok(Prepared { tokens: Tokens::new(encoded), truncated })
    }
}
