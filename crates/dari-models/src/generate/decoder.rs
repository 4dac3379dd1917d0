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
    /// Most tokens of prompt and answer together.
    fn context(&self) -> usize;
    /// The state of a sequence that has not begun.
    fn begin(&self) -> Self::State;
    /// Reads the tokens of a prompt that the state does not hold yet, at least one; gives the logits behind
    /// its last token.
    fn prefill(&self, state: &mut Self::State, prompt: &Prompt) -> Result<Vec<f32>>;
    /// Takes one token for each sequence; gives the logits behind each.
    fn step(&self, states: &mut [Self::State], tokens: &[u32]) -> Result<Vec<Vec<f32>>>;
    /// Takes several tokens of one sequence; gives the logits behind each, the same that steps would give.
    fn read(&self, state: &mut Self::State, tokens: &[u32]) -> Result<Vec<Vec<f32>>>;
    /// Forgets all but the first `tokens`.
    fn forget(&self, state: &mut Self::State, tokens: usize);
}

impl<T: CausalLm + ?Sized> Decoder for T {
    type State = Cache;

    fn context(&self) -> usize {
        CausalLm::context(self)
    }

    fn begin(&self) -> Cache {
        Cache::new(self.layers())
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
            last = Some(self.with_past(&x, std::slice::from_mut(state), 1)?);
        }
        match last {
            Some(last) => Ok(self.logits(&last)?.flatten_all()?.to_vec1()?),
            None => Err(Error::Unable {
                model: "this model".into(),
                what: "go on from nothing",
                instead: "a prompt needs at least one token".into(),
            }),
        }
    }

    fn step(&self, states: &mut [Cache], tokens: &[u32]) -> Result<Vec<Vec<f32>>> {
        let ids = Tensor::new(tokens, &Device::Cpu)?.unsqueeze(1)?;
        let hidden = self.with_past(&self.embed(&ids)?, states, 1)?;
        Ok(self.logits(&hidden)?.squeeze(1)?.to_vec2()?)
    }

    fn read(&self, state: &mut Cache, tokens: &[u32]) -> Result<Vec<Vec<f32>>> {
        let ids = Tensor::new(tokens, &Device::Cpu)?.unsqueeze(0)?;
        let hidden = self.with_past(&self.embed(&ids)?, std::slice::from_mut(state), tokens.len())?;
        Ok(self.logits(&hidden)?.squeeze(0)?.to_vec2()?)
    }

    fn forget(&self, state: &mut Cache, tokens: usize) {
        state.truncate(tokens);
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
    let mut writers = Vec::with_capacity(prompts.len());
    // The sequences that go on, and the logits behind the last token of each.
    let (mut open, mut logits) = (Vec::new(), Vec::new());
    for (number, (state, prompt)) in states.iter_mut().zip(prompts).enumerate() {
        writers.push(Writer::new(prompt, sampling, number as u64, most, decoder.context())?);
        if most > 0 {
            logits.push(decoder.prefill(state, prompt)?);
            open.push(number);
        }
    }
    loop {
        let (mut going, mut tokens) = (Vec::new(), Vec::new());
        for (&number, logits) in open.iter().zip(&logits) {
            if let Some(token) = writers[number].write(logits, ends, &mut |token| heard(number, token)) {
                going.push(number);
                tokens.push(token);
            }
        }
        open = going;
        if open.is_empty() {
            return Ok(writers.into_iter().map(|writer| writer.said).collect());
        }
        // Moved out, not copied: a copy shares its pages, and what is shared is copied when written to.
        let mut moved: Vec<D::State> =
            open.iter().map(|&number| std::mem::replace(&mut states[number], decoder.begin())).collect();
        let stepped = decoder.step(&mut moved, &tokens);
        open.iter().zip(moved).for_each(|(&number, state)| states[number] = state);
        logits = stepped?;
    }
}

/// What writes one sequence's answer.
pub(super) struct Writer {
    pub said: Said,
    sampler: Sampler,
    most: usize,
    room: usize,
}

impl Writer {
    /// Behind a prompt, for the sequence of that number: at most so many tokens, in a context of so many.
    pub fn new(
        prompt: &Prompt,
        sampling: Sampling,
        sequence: u64,
        most: usize,
        context: usize,
    ) -> Result<Writer> {
        Ok(Writer {
            said: Said { tokens: Vec::new(), probabilities: Vec::new(), ended: Ended::Length },
            sampler: Sampler::new(sampling, &prompt.ids, sequence),
            most,
            room: room(prompt.ids.len(), context)?,
        })
    }

    /// How many tokens may follow.
    pub fn left(&self) -> usize {
        self.most.min(self.room).saturating_sub(self.said.tokens.len())
    }

    /// Chooses a token and adds it to the answer; `None` where it was the last.
    pub fn write(&mut self, logits: &[f32], ends: &[u32], heard: &mut dyn FnMut(u32) -> bool) -> Option<u32> {
        let (token, probability) = self.sampler.pick(logits);
        let said = &mut self.said;
        said.probabilities.push(probability);
        if ends.contains(&token) {
            said.ended = Ended::Stop;
            return None;
        }
        said.tokens.push(token);
        if !heard(token) {
            said.ended = Ended::Interrupted;
        } else if said.tokens.len() >= self.most {
            said.ended = Ended::Length;
        } else if said.tokens.len() >= self.room {
            said.ended = Ended::Full;
        } else {
            return Some(token);
        }
        None
    }
}

/// The room that a prompt leaves for an answer.
///
/// # Errors
/// [`Error::Unable`] where it leaves none.
pub fn room(prompt: usize, context: usize) -> Result<usize> {
    if prompt < context {
        return Ok(context - prompt);
    }
    Err(Error::Unable {
        model: "this model".into(),
        what: "read so long a prompt",
        instead: format!(
            "it has {prompt} tokens, and {context} are the most of prompt and answer together: shorten the text, or give fewer or smaller pictures"
        ),
    })
}
