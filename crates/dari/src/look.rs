//! Where in a picture words are.

use candle_core::{Tensor, Var};
use dari_data::image::Picture;
use dari_nn::{Gradients, loss};
use serde::Serialize;

use crate::{Engine, Result};

/// Where in a picture some words are, a value a place, row by row.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Places {
    /// Places down.
    pub down: usize,
    /// Places across.
    pub across: usize,
    /// Cosine of each place's own embedding with the words: `[down][across]`.
    pub similarity: Vec<Vec<f32>>,
    /// How far each place speaks for the words in the picture's embedding: gradient times token at the
    /// last block, what speaks against them left out, the most 1: `[down][across]`.
    pub gradient: Vec<Vec<f32>>,
    /// Cosine of the whole picture with the words.
    pub whole: f32,
}

/// What of a picture an answer comes from, a value a place, row by row.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sources {
    /// Places down.
    pub down: usize,
    /// Places across.
    pub across: usize,
    /// Attention rollout (Abnar and Zuidema 2020) from the answer's tokens to the picture's, the most 1:
    /// `[down][across]`.
    pub rollout: Vec<Vec<f32>>,
    /// The share of the whole flow that comes from the picture; the rest comes from the words.
    pub share: f32,
}

impl Sources {
    /// Puts pieces together that follow each other, `queries` tokens each: `rows` by `columns` tiles with the whole
    /// picture behind them, which is left out; or the whole picture alone.
    pub(crate) fn of(flow: &[f32], queries: usize, (rows, columns): (usize, usize)) -> Sources {
        let share = flow.iter().sum();
        let (rows, columns) = (rows.max(1), columns.max(1));
        let side = queries.isqrt();
        // A class token stands before a square of places.
        let before = queries - side * side;
        let mut rollout = vec![vec![0f32; columns * side]; rows * side];
        for (piece, own) in flow.chunks(queries.max(1)).take(rows * columns).enumerate() {
            let (top, left) = (piece / columns * side, piece % columns * side);
            for (at, &value) in own.iter().skip(before).enumerate() {
                if let Some(place) = rollout
                    .get_mut(top + at / side.max(1))
                    .and_then(|row| row.get_mut(left + at % side.max(1)))
                {
                    *place = value;
                }
            }
        }
        let most = rollout.iter().flatten().copied().fold(f32::MIN_POSITIVE, f32::max);
        rollout.iter_mut().flatten().for_each(|x| *x /= most);
        Sources { down: rows * side, across: columns * side, rollout, share }
    }
}

impl Engine {
    /// Looks for each of some texts in a picture, as the model sees it.
    pub fn look(&self, picture: &Picture, texts: &[&str]) -> Result<Vec<Places>> {
        let Some(model) = self.loaded().model.look() else {
            return Err(self.unable("tell where words are in a picture", "take a CLIP or SigLIP model"));
        };
        let pictures = self.loaded().processor.pixels(std::slice::from_ref(picture), self.device())?;
        let words = self.embed_texts(texts)?;
        let failed = |error: &dyn std::fmt::Display| self.failed(error);
        let looked = || -> dari_models::Result<Vec<Places>> {
            let Some(pixels) = pictures.tensor() else { return Ok(Vec::new()) };
            let seen = model.tokens(pixels)?;
            let ([down, across], before) = (seen.grid, seen.before());
            let places = loss::normalise(&model.embed_places(&seen.tokens)?)?;
            let tokens = Var::from_tensor(&seen.tokens)?;
            let whole = loss::normalise(&model.embed_tokens(tokens.as_tensor())?)?;
            let grid = |values: &[f32]| values.chunks(across.max(1)).map(<[f32]>::to_vec).collect::<Vec<_>>();
            let mut found = Vec::with_capacity(words.len());
            for word in &words {
                let word = Tensor::from_slice(word, (1, word.len()), places.device())?;
                let similarity = places.broadcast_mul(&word)?.sum(1)?.to_vec1::<f32>()?;
                let cosine = (&whole * &word)?.sum_all()?;
                let slopes = Gradients::of(&cosine)?.get(tokens.as_tensor())?;
                let speaks = match slopes {
                    Some(slopes) => {
                        (slopes * seen.tokens.detach())?.sum(2)?.flatten_all()?.to_vec1::<f32>()?
                    }
                    None => vec![0.0; before + down * across],
                };
                let mut gradient: Vec<f32> = speaks.iter().skip(before).map(|x| x.max(0.0)).collect();
                let most = gradient.iter().copied().fold(f32::MIN_POSITIVE, f32::max);
                gradient.iter_mut().for_each(|x| *x /= most);
                let whole = cosine.to_scalar::<f32>()?;
                found.push(Places {
                    down,
                    across,
                    similarity: grid(&similarity),
                    gradient: grid(&gradient),
                    whole,
                });
            }
            Ok(found)
        };
        looked().map_err(|error| failed(&error))
    }
}
