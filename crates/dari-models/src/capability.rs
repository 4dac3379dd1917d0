//! What a model can do, as traits that trainers, metrics and the facade share.

use candle_core::Tensor;
use dari_data::text::Encoded;
use dari_nn::Cache;

use crate::{Result, config};

/// Texts as token ids, all of one length.
#[derive(Clone, Debug, Default)]
pub struct Tokens {
    /// `[batch][tokens]`.
    pub ids: Vec<Vec<u32>>,
    /// 1 for a token, 0 for padding; same shape.
    pub mask: Vec<Vec<u8>>,
}

impl Tokens {
    /// Gathers encoded texts of equal length.
    pub fn new(texts: Vec<Encoded>) -> Tokens {
        let (ids, mask) = texts.into_iter().map(|text| (text.ids, text.mask)).unzip();
        Tokens { ids, mask }
    }

    /// The first `length` tokens of every text.
    pub fn cut(&self, length: usize) -> Tokens {
        fn cut<T: Clone>(rows: &[Vec<T>], length: usize) -> Vec<Vec<T>> {
            rows.iter().map(|row| row[..length.min(row.len())].to_vec()).collect()
        }
        Tokens { ids: cut(&self.ids, length), mask: cut(&self.mask, length) }
    }

    /// These texts, in this order.
    pub fn pick(&self, texts: &[usize]) -> Tokens {
        fn pick<T: Clone>(rows: &[T], texts: &[usize]) -> Vec<T> {
            texts.iter().filter_map(|&text| rows.get(text).cloned()).collect()
        }
        Tokens { ids: pick(&self.ids, texts), mask: pick(&self.mask, texts) }
    }

    /// Whether any place is padding.
    pub fn is_padded(&self) -> bool {
        self.mask.iter().flatten().any(|&bit| bit == 0)
    }

    /// The ids as a tensor `[batch, tokens]` in u32.
    pub fn tensor(&self, device: &candle_core::Device) -> Result<Tensor> {
        let tokens = self.ids.first().map_or(0, Vec::len);
        let flat: Vec<u32> = self.ids.iter().flatten().copied().collect();
        Ok(Tensor::from_vec(flat, (self.ids.len(), tokens), device)?)
    }
}

/// Turns pictures into vectors.
pub trait EmbedPictures {
    /// Values of one vector.
    fn picture_dim(&self) -> usize;
    /// `[batch, 3, height, width]` to `[batch, dim]`, not normalised.
    fn embed_pictures(&self, pixels: &Tensor) -> Result<Tensor>;
    /// How many patches it cuts a picture into; 0 where none can be left out.
    fn patches(&self) -> usize {
        0
    }
    /// The same from some of each picture's patches, whose numbers `kept` is, `[batch, kept]` in u32.
    /// Training leaves patches out: FLIP (Li et al. 2023), PatchDropout (Liu et al. 2022).
    fn embed_patches(&self, pixels: &Tensor, kept: &Tensor) -> Result<Tensor> {
        let _ = (pixels, kept);
        config::refuse("this model", "it needs every patch of a picture")
    }
}

/// Tells where in a picture something is.
pub trait Look {
    /// One picture, `[1, 3, height, width]`, as the last block finds it: `[1, tokens, width]`.
    fn tokens(&self, pixels: &Tensor) -> Result<Seen>;
    /// From there to the picture's embedding, `[1, dim]`.
    fn embed_tokens(&self, tokens: &Tensor) -> Result<Tensor>;
    /// From there to an embedding of each place, which sees itself alone from there on, `[places, dim]`
    /// (MaskCLIP: Zhou et al. 2022).
    fn embed_places(&self, tokens: &Tensor) -> Result<Tensor>;
}

/// A picture as the last block finds it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// `[1, tokens, width]`: a token a place, row by row, behind those that stand for no place.
    pub tokens: Tensor,
    /// Places down and across.
    pub grid: [usize; 2],
}

impl Seen {
    /// How many tokens stand before those of the places.
    pub fn before(&self) -> usize {
        let [down, across] = self.grid;
        self.tokens.dims().get(1).map_or(0, |tokens| tokens.saturating_sub(down * across))
    }
}

/// Turns texts into vectors.
pub trait EmbedTexts {
    /// Values of one vector.
    fn text_dim(&self) -> usize;
    /// Texts to `[batch, dim]`, not normalised.
    fn embed_texts(&self, tokens: &Tokens) -> Result<Tensor>;
}

/// Pictures and words in one space.
pub trait Contrastive: EmbedPictures + EmbedTexts {
    /// Logits `[pictures, texts]` from unit vectors: scaled, and shifted where the model has a bias.
    fn logits(&self, pictures: &Tensor, texts: &Tensor) -> Result<Tensor>;
    /// How logits become probabilities.
    fn matching(&self) -> Matching;
    /// The loss that the model is trained with, a scalar, of unit vectors `[batch, dim]`.
    fn loss(&self, pictures: &Tensor, texts: &Tensor) -> Result<Tensor>;
    /// The learned temperature: logarithm of the logit scale, a scalar.
    fn log_scale(&self) -> Result<f32>;
}

/// How logits of pictures against texts become probabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Matching {
    /// One of the texts is right: softmax over them (CLIP).
    Softmax,
    /// Each pair is right or wrong by itself: sigmoid (SigLIP).
    Sigmoid,
}

impl Matching {
    /// Probabilities of one picture's logits.
    pub fn probabilities(self, logits: &[f32]) -> Vec<f32> {
        match self {
            Matching::Softmax => {
                let most = logits.iter().fold(f32::NEG_INFINITY, |most, &x| most.max(x));
                let powers: Vec<f32> = logits.iter().map(|x| (x - most).exp()).collect();
                let total: f32 = powers.iter().sum();
                powers.into_iter().map(|x| x / total).collect()
            }
            Matching::Sigmoid => logits.iter().map(|x| 1.0 / (1.0 + (-x).exp())).collect(),
        }
    }
}

/// Names what is in a picture, from a fixed list.
pub trait ClassifyPictures {
    /// The checkpoint's own labels, by index.
    fn labels(&self) -> &[String];
    /// `[batch, 3, height, width]` to logits `[batch, labels]`.
    fn classify(&self, pixels: &Tensor) -> Result<Tensor>;
}

/// Fills masked words.
pub trait FillMask {
    /// Logits `[batch, tokens, vocabulary]`.
    fn mask_logits(&self, tokens: &Tokens) -> Result<Tensor>;
}

/// Says how a text goes on, token by token.
pub trait CausalLm: Send + Sync {
    /// How many tokens there are to choose from.
    fn vocabulary(&self) -> usize;
    /// Most tokens of prompt and answer together.
    fn context(&self) -> usize;
    /// Values per token.
    fn width(&self) -> usize;
    /// Layers that keep keys and values.
    fn layers(&self) -> usize;
    /// Ids `[batch, tokens]` to embeddings `[batch, tokens, width]`.
    fn embed(&self, ids: &Tensor) -> Result<Tensor>;
    /// Embeddings of whole texts, from their beginnings, to the last layer behind its norm: texts of these
    /// `lengths` lie one after the other, `[1, tokens, width]`.
    fn forward(&self, x: &Tensor, lengths: &[usize]) -> Result<Tensor>;
    /// The same of tokens behind those that the caches hold, a cache a row; they take them in. Gives the last
    /// `wanted` of each row, at least one: `[batch, wanted, width]`. Has no gradient.
    fn with_past(&self, x: &Tensor, caches: &mut [Cache], wanted: usize) -> Result<Tensor>;
    /// How much of each token behind the last layer comes from each of one text, `[1, tokens, width]`, by attention
    /// rollout: `[tokens, tokens]`.
    fn rollout(&self, x: &Tensor) -> Result<Tensor>;
    /// From there to logits `[.., vocabulary]`.
    fn logits(&self, hidden: &Tensor) -> Result<Tensor>;
}

/// Speaks about pictures: their tokens stand among those of a text.
pub trait SeeAndSay {
    /// Pictures `[pictures, 3, side, side]` to embeddings of the language model, `[pictures, queries, width]`.
    fn see(&self, pixels: &Tensor) -> Result<Tensor>;
    /// The same of a few pictures at a time, for inference: enough for products at full speed, and what lies between
    /// layers does not outgrow the weights.
    fn see_in_parts(&self, pixels: &Tensor) -> Result<Tensor> {
        /// Pixels of a part.
        const PART: usize = 1 << 20;
        let (pictures, _, height, width) = pixels.dims4()?;
        let part = (PART / (height * width).max(1)).max(1);
        let parts = (0..pictures).step_by(part).map(|first| {
            let count = part.min(pictures - first);
            self.see(&pixels.narrow(0, first, count)?.contiguous()?)
        });
        Ok(Tensor::cat(&parts.collect::<Result<Vec<_>>>()?, 0)?)
    }
    /// The side of the pictures that it takes, in pixels.
    fn side(&self) -> usize;
    /// Tokens that a picture (or a tile of one) becomes.
    fn queries(&self) -> usize;
    /// The language model.
    fn language(&self) -> &dyn CausalLm;
}

#[cfg(test)]
mod tests {
    use candle_core::{D, Device};

    use super::*;

    /// Sees each picture's mean, and how many it is shown at once.
    struct Mean;

    impl SeeAndSay for Mean {
        fn see(&self, pixels: &Tensor) -> Result<Tensor> {
            let means = pixels.flatten_from(1)?.mean(D::Minus1)?;
            let count = Tensor::full(means.dim(0)? as f32, means.dims(), means.device())?;
            Ok(Tensor::stack(&[means, count], 1)?.unsqueeze(2)?)
        }

        fn side(&self) -> usize {
            600
        }

        fn queries(&self) -> usize {
            2
        }

        fn language(&self) -> &dyn CausalLm {
            unreachable!("nobody asks it to speak")
        }
    }

    #[test]
    fn parts_of_pictures_are_seen_in_order() -> Result<()> {
        for (pictures, shown) in [(1, vec![1.0]), (2, vec![2.0; 2]), (5, vec![2.0, 2.0, 2.0, 2.0, 1.0])] {
            let pixels = Tensor::arange(0f32, pictures as f32, &Device::Cpu)?.reshape((pictures, 1, 1, 1))?;
            let pixels = pixels.broadcast_as((pictures, 3, 600, 600))?;
            let seen = Mean.see_in_parts(&pixels)?.squeeze(2)?.to_vec2::<f32>()?;
            let expected: Vec<Vec<f32>> =
                shown.iter().enumerate().map(|(picture, &shown)| vec![picture as f32, shown]).collect();
            assert_eq!(seen, expected);
        }
        Ok(())
    }
}
