//! Beam search, with the rules of transformers' `generate` by which finished beams compete with open ones.

use super::decoder::{Decoder, Prompt, too_long};
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

struct Open<S> {
    state: S,
    tokens: Vec<u32>,
    score: f64,
}

/// The best answers behind a prompt, the best first.
pub fn search<D: Decoder + ?Sized>(
    decoder: &D,
    prompt: &Prompt,
    ends: &[u32],
    options: &BeamOptions,
) -> Result<Vec<Beam>> {
    const NOTHING: f64 = -1e9;
    let BeamOptions { beams, length_penalty, early, .. } = *options;
    let room = decoder.context().saturating_sub(prompt.ids.len());
    if room == 0 {
        return Err(too_long(prompt.ids.len(), decoder.context()));
    }
    let (most, beams) = (options.most.min(room), beams.max(1));
    let mut state = decoder.begin();
    let first = decoder.prefill(&mut state, prompt)?;
    let mut logits = vec![first; beams];
    let begin = |index: usize| Open {
        state: state.clone(),
        tokens: Vec::new(),
        score: if index == 0 { 0.0 } else { NOTHING },
    };
    let mut open: Vec<Open<D::State>> = (0..beams).map(begin).collect();
    let mut done: Vec<Beam> = Vec::new();
    let mut improvable = true;
    let worth = |score: f64, length: usize| score / (length as f64).powf(length_penalty);
    for length in 1..=most {
        let wanted = (1 + ends.len()).max(2) * beams;
        let mut candidates = best(&open, &logits, wanted);
        candidates.truncate(wanted);
        let stops = |token: u32| ends.contains(&token) || length == most;
        for &(beam, token, score) in candidates.iter().take(beams).filter(|candidate| stops(candidate.1)) {
            if improvable && !(early == Early::Yes && done.len() >= beams) {
                let mut tokens = open[beam].tokens.clone();
                tokens.push(token);
                done.push(Beam { tokens, score: worth(score, length) });
            }
        }
        done.sort_by(|a, b| b.score.total_cmp(&a.score));
        done.truncate(beams);
        let going: Vec<_> =
            candidates.into_iter().filter(|candidate| !stops(candidate.1)).take(beams).collect();
        let Some(&(_, _, leading)) = going.first() else { break };
        let reach = if early == Early::Never && length_penalty > 0.0 { most } else { length };
        let worst =
            if done.len() >= beams { done.last().map_or(NOTHING, |beam| beam.score) } else { NOTHING };
        improvable &= worth(leading, reach) > worst;
        if !improvable || (early == Early::Yes && done.len() >= beams) {
            break;
        }
        open = going
            .iter()
            .map(|&(beam, token, score)| {
                let mut tokens = open[beam].tokens.clone();
                tokens.push(token);
                Open { state: open[beam].state.clone(), tokens, score }
            })
            .collect();
        let (mut states, tokens): (Vec<D::State>, Vec<u32>) =
            open.iter().zip(&going).map(|(open, &(_, token, _))| (open.state.clone(), token)).unzip();
        logits = decoder.step(&mut states, &tokens)?;
        for (open, state) in open.iter_mut().zip(states) {
            open.state = state;
        }
    }
    Ok(done)
}

/// The best continuations of all beams: beam, token, score, in falling order.
fn best<S>(open: &[Open<S>], logits: &[Vec<f32>], wanted: usize) -> Vec<(usize, u32, f64)> {
    let mut all = Vec::new();
    for (beam, (open, logits)) in open.iter().zip(logits).enumerate() {
        let most = logits.iter().fold(f32::NEG_INFINITY, |most, &x| most.max(x));
        let total: f64 = logits.iter().map(|&x| f64::from(x - most).exp()).sum();
        let log = f64::from(most) + total.ln();
        let mut own: Vec<(usize, u32, f64)> = logits
            .iter()
            .enumerate()
            .map(|(token, &x)| (beam, token as u32, open.score + f64::from(x) - log))
            .collect();
        if own.len() > wanted {
            own.select_nth_unstable_by(wanted, |a, b| b.2.total_cmp(&a.2));
            own.truncate(wanted);
        }
        all.extend(own);
    }
    all.sort_by(|a, b| b.2.total_cmp(&a.2).then((a.0, a.1).cmp(&(b.0, b.1))));
    all
}
