//! Beam search, with the rules of transformers' `generate` by which finished beams compete with open ones.

use super::decoder::{Decoder, Prompt, room};
use super::sampler::log_sum;
use crate::Result;

/// When a search with enough finished beams ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Early {
    /// When the best open beam, as long as it is, could not better the worst finished one.
    #[default]
    No,
    /// At once.
    Yes,
    /// When it could not even at the greatest length.
    Never,
}

/// How beams are searched.
#[derive(Clone, Copy, Debug)]
pub struct BeamOptions {
    /// Beams that are kept.
    pub beams: usize,
    /// Scores are divided by the length to this power: above 0 favours longer texts.
    pub length_penalty: f64,
    /// When the search ends.
    pub early: Early,
    /// Most tokens of an answer.
    pub most: usize,
}

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Beam {
    /// Its tokens, the ending one too.
    pub tokens: Vec<u32>,
    /// The sum of their log-probabilities over the length to the penalty's power.
    pub score: f64,
}

/// A beam that goes on.
struct Open {
    tokens: Vec<u32>,
    score: f64,
}

/// How a beam may go on.
#[derive(Clone, Copy)]
struct Candidate {
    beam: usize,
    token: u32,
    score: f64,
}

/// The best answers behind a prompt, the best first; `state` is that of a sequence that has not begun.
pub fn search<D: Decoder + ?Sized>(
    decoder: &D,
    mut state: D::State,
    prompt: &Prompt,
    ends: &[u32],
    options: &BeamOptions,
) -> Result<Vec<Beam>> {
    const NOTHING: f64 = -1e9;
    let BeamOptions { beams, length_penalty, early, .. } = *options;
    let most = options.most.min(room(prompt.ids.len(), decoder.context())?);
    let beams = beams.max(1);
    let mut logits = vec![decoder.prefill(&mut state, prompt)?; beams];
    let mut states = vec![state; beams];
    // All are the same yet: the first alone may be chosen.
    let begin = |index: usize| Open { tokens: Vec::new(), score: if index == 0 { 0.0 } else { NOTHING } };
    let mut open: Vec<Open> = (0..beams).map(begin).collect();
    let mut done: Vec<Beam> = Vec::new();
    let mut improvable = true;
    let worth = |score: f64, length: usize| score / (length as f64).powf(length_penalty);
    for length in 1..=most {
        let candidates = best(&open, &logits, (1 + ends.len()).max(2) * beams);
        let stops = |candidate: &Candidate| ends.contains(&candidate.token) || length == most;
        let longer = |candidate: &Candidate| {
            let mut tokens = open[candidate.beam].tokens.clone();
            tokens.push(candidate.token);
            tokens
        };
        if improvable && !(early == Early::Yes && done.len() >= beams) {
            let stopped = candidates.iter().take(beams).filter(|candidate| stops(candidate));
            let finish =
                |candidate| Beam { tokens: longer(candidate), score: worth(candidate.score, length) };
            done.extend(stopped.map(finish));
        }
        done.sort_by(|a, b| b.score.total_cmp(&a.score));
        done.truncate(beams);
        let going: Vec<Candidate> =
            candidates.into_iter().filter(|candidate| !stops(candidate)).take(beams).collect();
        let Some(leading) = going.first() else { break };
        let reach = if early == Early::Never && length_penalty > 0.0 { most } else { length };
        let worst =
            if done.len() >= beams { done.last().map_or(NOTHING, |beam| beam.score) } else { NOTHING };
        improvable &= worth(leading.score, reach) > worst;
        if !improvable || (early == Early::Yes && done.len() >= beams) {
            break;
        }
        states = going.iter().map(|candidate| states[candidate.beam].clone()).collect();
        open = going
            .iter()
            .map(|candidate| Open { tokens: longer(candidate), score: candidate.score })
            .collect();
        let tokens: Vec<u32> = going.iter().map(|candidate| candidate.token).collect();
        logits = decoder.step(&mut states, &tokens)?;
    }
    Ok(done)
}

/// The best `wanted` continuations of all beams, in falling order.
fn best(open: &[Open], logits: &[Vec<f32>], wanted: usize) -> Vec<Candidate> {
    let mut all = Vec::new();
    for (beam, (open, logits)) in open.iter().zip(logits).enumerate() {
        let log = log_sum(logits);
        let mut own: Vec<Candidate> = logits
            .iter()
            .enumerate()
            .map(|(token, &x)| Candidate {
                beam,
                token: token as u32,
                score: open.score + f64::from(x) - log,
            })
            .collect();
        if own.len() > wanted {
            own.select_nth_unstable_by(wanted, |a, b| b.score.total_cmp(&a.score));
            own.truncate(wanted);
        }
        all.extend(own);
    }
    all.sort_by(|a, b| b.score.total_cmp(&a.score).then((a.beam, a.token).cmp(&(b.beam, b.token))));
    all.truncate(wanted);
    all
}
