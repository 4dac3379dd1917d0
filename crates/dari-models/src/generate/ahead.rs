//! Generation in longer steps (speculative decoding: Leviathan et al. 2023): tokens are guessed, the model reads
//! them all at once, and what it would not have said itself is dropped. The text is the same, chosen from the same
//! logits.

use dari_nn::Cache;

use super::decoder::{Decoder, Prompt, Said, Writer};
use super::sampler::{Sampling, likeliest};
use crate::Result;
use crate::capability::CausalLm;

/// The most tokens that are guessed at once: with the one before them as many rows as products take together.
const MOST: usize = 11;
/// Those of the first guess, and of each behind one that was wrong.
const FEW: usize = 3;

/// Says how a text may go on.
pub trait Guess {
    /// At most so many tokens behind these: prompt and answer so far.
    fn guess(&mut self, tokens: &[u32], most: usize) -> Result<Vec<u32>>;
}

/// What the same tokens were followed by when they last stood in the text (Saxena 2023).
#[derive(Clone, Copy, Debug, Default)]
pub struct Lookup;

impl Guess for Lookup {
    fn guess(&mut self, tokens: &[u32], most: usize) -> Result<Vec<u32>> {
        for length in (2..=4).rev().filter(|&length| length < tokens.len()) {
            let last = &tokens[tokens.len() - length..];
            let before = &tokens[..tokens.len() - 1];
            if let Some(at) = before.windows(length).rposition(|window| window == last) {
                let behind = &tokens[at + length..];
                return Ok(behind[..most.min(behind.len())].to_vec());
            }
        }
        Ok(Vec::new())
    }
}

/// What a smaller model with the same tokens would say.
pub struct Draft<'a> {
    model: &'a dyn CausalLm,
    cache: Cache,
    /// The tokens that the cache holds.
    held: Vec<u32>,
}

impl<'a> Draft<'a> {
    /// Of this model.
    pub fn new(model: &'a dyn CausalLm) -> Draft<'a> {
        Draft { model, cache: model.begin(), held: Vec::new() }
    }
}

impl Guess for Draft<'_> {
    fn guess(&mut self, tokens: &[u32], most: usize) -> Result<Vec<u32>> {
        // Four rows of products; each further guess costs a step of the smaller model.
        let most = most.min(FEW).min(self.model.context().saturating_sub(tokens.len()));
        let is_known = |&token: &u32| (token as usize) < self.model.vocabulary();
        if most == 0 || !tokens.iter().all(is_known) {
            return Ok(Vec::new());
        }
        let common = self.held.iter().zip(tokens).take_while(|(a, b)| a == b).count();
        self.cache.truncate(common.min(tokens.len() - 1));
        let mut logits = self.model.prefill(&mut self.cache, &Prompt::words(tokens.to_vec()))?;
        let mut guess = vec![likeliest(&logits)];
        while guess.len() < most {
            let states = std::slice::from_mut(&mut self.cache);
            logits = self.model.step(states, &guess[guess.len() - 1..])?.pop().unwrap_or_default();
            guess.push(likeliest(&logits));
        }
        self.held = [tokens, &guess].concat();
        self.held.truncate(self.cache.len());
        Ok(guess)
    }
}

/// How guesses went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Guesses {
    /// Tokens that were guessed.
    pub made: usize,
    /// Of them, those that the model said too.
    pub right: usize,
}

/// [`super::generate`] behind one prompt with guesses.
#[allow(clippy::too_many_arguments)]
pub fn generate_ahead<D: Decoder + ?Sized>(
    decoder: &D,
    state: &mut D::State,
    prompt: &Prompt,
    sampling: Sampling,
    ends: &[u32],
    most: usize,
    guess: &mut dyn Guess,
    heard: &mut dyn FnMut(u32) -> bool,
) -> Result<(Said, Guesses)> {
    let mut writer = Writer::new(prompt, sampling, 0, most, decoder.context())?;
    let mut guesses = Guesses::default();
    let (mut tokens, mut ahead) = (prompt.ids.clone(), FEW);
    let mut next = match most {
        0 => None,
        _ => writer.write(&decoder.prefill(state, prompt)?, ends, heard),
    };
    while let Some(token) = next.take() {
        let held = tokens.len();
        tokens.push(token);
        let guessed = guess.guess(&tokens, ahead.min(writer.left().saturating_sub(1)))?;
        let fed = [&[token][..], &guessed].concat();
        let mut right = 0;
        for (place, logits) in decoder.read(state, &fed)?.iter().enumerate() {
            next = writer.write(logits, ends, heard);
            match next {
                Some(token) if guessed.get(place) == Some(&token) => {
                    tokens.push(token);
                    right += 1;
                }
                _ => break,
            }
        }
        decoder.forget(state, held + 1 + right);
        guesses.made += guessed.len();
        guesses.right += right;
        ahead = if right == guessed.len() { (2 * ahead + 1).min(MOST) } else { FEW };
    }
    Ok((writer.said, guesses))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lookup_goes_on_as_the_text_did_last() -> Result<()> {
        let mut lookup = Lookup;
        assert_eq!(lookup.guess(&[1, 2, 3, 9, 1, 2, 4, 7, 1, 2], 2)?, [4, 7]);
        // The longer of two that fit.
        assert_eq!(lookup.guess(&[5, 1, 2, 3, 9, 1, 2, 4, 7, 5, 1, 2], 3)?, [3, 9, 1]);
        // As far as the text goes.
        assert_eq!(lookup.guess(&[8, 8, 8], 5)?, [8]);
        for none in [&[][..], &[1], &[1, 2], &[1, 2, 3, 4]] {
            assert_eq!(lookup.guess(none, 5)?, [0; 0]);
        }
        assert_eq!(lookup.guess(&[1, 2, 3, 1, 2], 0)?, [0; 0]);
        Ok(())
    }
}
