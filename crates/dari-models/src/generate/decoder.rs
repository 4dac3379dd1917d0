//! The loop that every language model generates by: a prompt is read in pieces, then a token a step.

use candle_core::{Device, Tensor};
use dari_nn::Cache;

use super::sampler::{Sampler, Sampling};
use crate::capability::CausalLm;
use crate::{Error, Result};

/// Tokens of a prompt that go through the model at once.
const CHUNK: usize = 512;

/// What a model reads before it speaks.
#[derive(Clone, Debug, Default)]
pub struct Prompt {
    /// All tokens; those of pictures are placeholders.
    pub ids: Vec<u32>,
    /// `[tokens, width]`, where not all of them are words: the tokens' embeddings, pictures in their places.
    pub embeddings: Option<Tensor>,
}

impl Prompt {
    /// Of words alone.
    pub fn words(ids: Vec<u32>) -> Prompt {
        Prompt { ids, embeddings: None }
    }
}

/// A model that speaks token by token.
pub trait Decoder {
    /// What it keeps of a sequence; a copy goes its own way, as beams do.
    type State: Clone;
    /// How many tokens there are to choose from.
    fn vocabulary(&self) -> usize;
    /// Most tokens of prompt and answer together.
    fn context(&self) -> usize;
    /// The state of a sequence that has not begun.
    fn begin(&self) -> Self::State;
    /// How many tokens a state holds.
    fn held(&self, state: &Self::State) -> usize;
    /// Reads the tokens of a prompt that the state does not hold yet, at least one; gives the logits behind
    /// its last token.
    fn prefill(&self, state: &mut Self::State, prompt: &Prompt) -> Result<Vec<f32>>;
    /// Takes one token for each sequence; gives the logits behind each.
    fn step(&self, states: &mut [Self::State], tokens: &[u32]) -> Result<Vec<Vec<f32>>>;
}

impl<T: CausalLm + ?Sized> Decoder for T {
    type State = Cache;

    fn vocabulary(&self) -> usize {
        CausalLm::vocabulary(self)
    }

    fn context(&self) -> usize {
        CausalLm::context(self)
    }

    fn begin(&self) -> Cache {
        Cache::new(self.layers())
    }

    fn held(&self, state: &Cache) -> usize {
        state.len()
    }

    fn prefill(&self, state: &mut Cache, prompt: &Prompt) -> Result<Vec<f32>> {
        let mut last = None;
        let end = prompt.ids.len();
        while state.len() < end {
            let (start, count) = (state.len(), CHUNK.min(end - state.len()));
            let x = match &prompt.embeddings {
                Some(all) => all.narrow(0, start, count)?.unsqueeze(0)?.contiguous()?,
                None => {
                    self.embed(&Tensor::new(&prompt.ids[start..start + count], &Device::Cpu)?.unsqueeze(0)?)?
                }
            };
            let hidden = self.with_past(&x, std::slice::from_mut(state))?;
            last = Some(hidden.narrow(1, count - 1, 1)?);
        }
        match last {
            Some(last) => Ok(self.logits(&last.contiguous()?)?.flatten_all()?.to_vec1()?),
            None => Err(Error::Unable {
                model: "this model".into(),
                what: "go on from nothing",
                instead: "a prompt needs at least one token".into(),
            }),
        }
    }

    fn step(&self, states: &mut [Cache], tokens: &[u32]) -> Result<Vec<Vec<f32>>> {
        let ids = Tensor::new(tokens, &Device::Cpu)?.unsqueeze(1)?;
        let hidden = self.with_past(&self.embed(&ids)?, states)?;
        Ok(self.logits(&hidden)?.squeeze(1)?.to_vec2()?)
    }
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// The model said so.
    Stop,
    /// As many tokens as were asked for.
    Length,
    /// The context is full.
    Full,
    /// Whoever listened said so.
    Interrupted,
}

/// What a model said behind one prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct Said {
    /// Its tokens, without the one that ended it.
    pub tokens: Vec<u32>,
    /// How probable the model found each of them, the ending one too.
    pub probabilities: Vec<f32>,
    /// Why it ended.
    pub ended: Ended,
}

/// Generates behind each prompt; their states may hold the beginnings of them already, and hold all but the
/// last token said afterwards. `heard` gets each sequence's number and token as they come; `false` ends
/// that sequence. `ends` are the tokens that end an answer.
pub fn generate<D: Decoder + ?Sized>(
    decoder: &D,
    states: &mut [D::State],
    prompts: &[Prompt],
    sampling: Sampling,
    ends: &[u32],
    most: usize,
    heard: &mut dyn FnMut(usize, u32) -> bool,
) -> Result<Vec<Said>> {
    let mut said = Vec::new();
    let mut samplers = Vec::new();
    // The numbers of the sequences that go on, and the token that each of them is to take.
    let mut open: Vec<(usize, u32)> = Vec::new();
    for (number, (state, prompt)) in states.iter_mut().zip(prompts).enumerate() {
        let room = decoder.context().saturating_sub(prompt.ids.len());
        if room == 0 {
            return Err(too_long(prompt.ids.len(), decoder.context()));
        }
        let mut sampler = Sampler::new(sampling, &prompt.ids, number as u64);
        let mut own = Said { tokens: Vec::new(), probabilities: Vec::new(), ended: Ended::Length };
        if most > 0 {
            let logits = decoder.prefill(state, prompt)?;
            let (token, probability) = sampler.pick(&logits);
            if take(&mut own, token, probability, ends, &mut |token| heard(number, token), most, room) {
                open.push((number, token));
            }
        }
        said.push(own);
        samplers.push(sampler);
    }
    while !open.is_empty() {
        let mut moved: Vec<D::State> = open.iter().map(|&(number, _)| states[number].clone()).collect();
        let tokens: Vec<u32> = open.iter().map(|&(_, token)| token).collect();
        // The copies are written to: what they were copied from must let go of its pages first.
        open.iter().for_each(|&(number, _)| states[number] = decoder.begin());
        let all = decoder.step(&mut moved, &tokens);
        for (&(number, _), state) in open.iter().zip(moved) {
            states[number] = state;
        }
        let all = all?;
        let mut next = Vec::new();
        for (&(number, _), logits) in open.iter().zip(all) {
            let (token, probability) = samplers[number].pick(&logits);
            let room = decoder.context() - prompts[number].ids.len();
            if take(
                &mut said[number],
                token,
                probability,
                ends,
                &mut |token| heard(number, token),
                most,
                room,
            ) {
                next.push((number, token));
            }
        }
        open = next;
    }
    Ok(said)
}

/// Adds a token to an answer; whether the answer goes on.
fn take(
    said: &mut Said,
    token: u32,
    probability: f32,
    ends: &[u32],
    heard: &mut dyn FnMut(u32) -> bool,
    most: usize,
    room: usize,
) -> bool {
    said.probabilities.push(probability);
    if ends.contains(&token) {
        said.ended = Ended::Stop;
        return false;
    }
    said.tokens.push(token);
    if !heard(token) {
        said.ended = Ended::Interrupted;
        return false;
    }
    if said.tokens.len() >= most {
        said.ended = Ended::Length;
        return false;
    }
    if said.tokens.len() >= room {
        said.ended = Ended::Full;
        return false;
    }
    true
}

/// A prompt that leaves no room for an answer.
pub(crate) fn too_long(tokens: usize, context: usize) -> Error {
    Error::Unable {
        model: "this model".into(),
        what: "read so long a prompt",
        instead: format!(
            "it has {tokens} tokens, and {context} are the most of prompt and answer together: shorten the text, or give fewer or smaller pictures"
        ),
    }
}
