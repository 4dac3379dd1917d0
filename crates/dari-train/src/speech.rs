//! What a model that speaks learns from: texts of which some tokens are answers, pictures among them.

use std::sync::Arc;

use candle_core::{Device, Tensor};
use dari_data::image::Pixels;
use dari_models::Loaded;
use dari_models::generative::illustrate;
use dari_models::processor::Pictures;
use dari_nn::{loss, segment};

use crate::error::inside;
use crate::{Error, Result};

/// One text to learn from.
#[derive(Clone, Debug)]
pub struct Lesson {
    /// Its tokens; a picture's are placeholders.
    pub ids: Vec<u32>,
    /// Which of them are to be said: the others are given. As many as tokens.
    pub said: Vec<bool>,
    /// The pieces of its pictures, in order.
    pub pieces: Vec<Pixels>,
}

impl Lesson {
    /// How many of its tokens are to be said behind another.
    pub fn targets(&self) -> usize {
        self.said.iter().skip(1).filter(|&&said| said).count()
    }

    /// The tokens that a model reads of it. The last that is to be said is only said, and what follows it
    /// teaches nothing; pictures stand before it.
    pub fn read(&self) -> &[u32] {
        &self.ids[..self.said.iter().rposition(|&said| said).unwrap_or(0)]
    }
}

/// The mean cross entropy of every token that is to be said, over all lessons together; `part` lessons go
/// through the model at once. The lessons of a part lie one after the other, without padding.
///
/// # Errors
/// Lessons in which nothing is to be said, or that do not fit the model.
pub fn loss(loaded: &Arc<Loaded>, lessons: Vec<Lesson>, part: usize, device: &Device) -> Result<Tensor> {
    let total: usize = lessons.iter().map(Lesson::targets).sum();
    if total == 0 {
        let problem = format!(
            "none of {} texts has a token to learn: every answer is empty, or was cut off by `train.length`",
            lessons.len()
        );
        return Err(Error::Recipe { origin: "the data".into(), problem });
    }
    let part = part.max(1);
    if part >= lessons.len() {
        return of_part(loaded, &lessons, device);
    }
    let mut all: Option<Tensor> = None;
    for own in lessons.chunks(part) {
        let targets: usize = own.iter().map(Lesson::targets).sum();
        if targets == 0 {
            continue;
        }
        let (loaded, own, share) = (loaded.clone(), own.to_vec(), targets as f64 / total as f64);
        let body = move |_: &Tensor| {
            let loss = of_part(&loaded, &own, &Device::Cpu).map_err(inside)?;
            Ok((loss * share)?)
        };
        let loss = segment::segment(&segment::anchor()?, Arc::new(body))?;
        all = Some(match all {
            Some(all) => (all + loss)?,
            None => loss,
        });
    }
    Ok(all.map_or_else(|| Tensor::new(0f32, device), Ok)?)
}

fn of_part(loaded: &Arc<Loaded>, lessons: &[Lesson], device: &Device) -> Result<Tensor> {
    let unable =
        || Error::Recipe { origin: "the recipe".into(), problem: "the model does not write texts".into() };
    let model = loaded.model.causal().ok_or_else(unable)?;
    let teaching = || lessons.iter().filter(|lesson| lesson.targets() > 0);
    let lengths: Vec<usize> = teaching().map(|lesson| lesson.read().len()).collect();
    let ids: Vec<u32> = teaching().flat_map(|lesson| lesson.read().iter().copied()).collect();
    let pieces: Vec<Pixels> = teaching().flat_map(|lesson| lesson.pieces.iter().cloned()).collect();
    let x = match (loaded.model.sees(), loaded.placeholder) {
        (Some(sees), Some(placeholder)) if !pieces.is_empty() => {
            let pieces = Pictures::stack(pieces, device)?;
            let seen = pieces.each(|pixels| sees.see(pixels))?;
            illustrate(sees, ids.clone(), placeholder, &seen)?.embeddings
        }
        _ => None,
    };
    let x = match x {
        Some(x) => x.unsqueeze(0)?,
        None => model.embed(&Tensor::new(&ids[..], device)?.unsqueeze(0)?)?,
    };
    let hidden = model.forward(&x, &lengths)?.squeeze(0)?;
    let (mut rows, mut targets, mut start) = (Vec::new(), Vec::new(), 0);
    for lesson in teaching() {
        for at in (1..lesson.ids.len()).filter(|&at| lesson.said[at]) {
            rows.push((start + at - 1) as u32);
            targets.push(lesson.ids[at]);
        }
        start += lesson.read().len();
    }
    let rows = hidden.index_select(&Tensor::new(rows, device)?, 0)?;
    let head = loaded.clone();
    let head = move |rows: &Tensor| match head.model.causal() {
        Some(model) => model.logits(rows).map_err(inside),
        None => Err(inside("the model does not write texts")),
    };
    let head: segment::Body = Arc::new(head);
    Ok(loss::next_tokens(&rows, &targets, model.vocabulary(), &head)?)
}
