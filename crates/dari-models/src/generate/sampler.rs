//! Choosing the next token from logits, as transformers' processors and warpers do.

use std::collections::BTreeSet;

use dari_nn::random::Key;

/// How tokens are chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 for always the likeliest token.
    pub temperature: f32,
    /// Only so many of the likeliest, and ties with the last of them; 0 for all.
    pub top_k: usize,
    /// Only the fewest likeliest whose probabilities sum up to this; 1 for all.
    pub top_p: f32,
    /// Only those at least so probable as this share of the likeliest; 0 for all.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of tokens that are there already; 1 for none.
    pub repetition_penalty: f32,
    /// What is drawn follows from it.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Sampling {
        Sampling { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, repetition_penalty: 1.0, seed: 0 }
    }
}

/// Chooses one sequence's tokens.
#[derive(Clone, Debug)]
pub struct Sampler {
    sampling: Sampling,
    seen: BTreeSet<u32>,
    key: Key,
    drawn: u64,
}

impl Sampler {
    /// For the sequence of that number, behind a prompt.
    pub fn new(sampling: Sampling, prompt: &[u32], sequence: u64) -> Sampler {
        let key = Key::new(sampling.seed).with("sample").at(sequence);
        Sampler { sampling, seen: prompt.iter().copied().collect(), key, drawn: 0 }
    }

    /// The next token, and how probable the model itself found it.
    pub fn pick(&mut self, logits: &[f32]) -> (u32, f32) {
        let mut scores = logits.to_vec();
        penalise(&mut scores, &self.seen, self.sampling.repetition_penalty);
        let token = match self.sampling.temperature > 0.0 {
            false => likeliest(&scores),
            true => {
                warp(&mut scores, &self.sampling);
                let number = self.key.uniform(self.drawn);
                draw(&scores, number)
            }
        };
        self.drawn += 1;
        self.seen.insert(token);
        (token, probability(logits, token))
    }
}

/// The first of the largest.
pub(super) fn likeliest(scores: &[f32]) -> u32 {
    let mut best = 0;
    for (token, score) in scores.iter().enumerate() {
        if *score > scores[best] || scores[best].is_nan() {
            best = token;
        }
    }
    best as u32
}

/// Makes tokens that are there already less likely.
pub(super) fn penalise(scores: &mut [f32], seen: &BTreeSet<u32>, penalty: f32) {
    if penalty == 1.0 {
        return;
    }
    for &token in seen {
        if let Some(score) = scores.get_mut(token as usize) {
            *score = if *score < 0.0 { *score * penalty } else { *score / penalty };
        }
    }
}

/// Temperature, then what is left out becomes minus infinity: top-k, top-p, min-p in this order, each over
/// what the one before left.
pub fn warp(scores: &mut [f32], sampling: &Sampling) {
    const OUT: f32 = f32::NEG_INFINITY;
    if sampling.temperature > 0.0 && sampling.temperature != 1.0 {
        scores.iter_mut().for_each(|score| *score /= sampling.temperature);
    }
    if sampling.top_k > 0 && sampling.top_k < scores.len() {
        let mut sorted = scores.to_vec();
        let (_, &mut least, _) = sorted.select_nth_unstable_by(sampling.top_k - 1, |a, b| b.total_cmp(a));
        scores.iter_mut().filter(|score| **score < least).for_each(|score| *score = OUT);
    }
    if sampling.top_p < 1.0 {
        let mut order: Vec<usize> = (0..scores.len()).collect();
        // The least first; of equals the last stays longest, as a stable sort leaves them.
        order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));
        let probabilities = softmax(scores);
        let (mut sum, last) = (0.0, order.len() - 1);
        for &token in &order[..last] {
            sum += probabilities[token];
            if sum <= 1.0 - f64::from(sampling.top_p) {
                scores[token] = OUT;
            }
        }
    }
    if sampling.min_p > 0.0 {
        let probabilities = softmax(scores);
        let most = probabilities.iter().fold(0.0f64, |most, &p| most.max(p));
        let least = most * f64::from(sampling.min_p);
        for (score, p) in scores.iter_mut().zip(probabilities) {
            if p < least {
                *score = OUT;
            }
        }
    }
}

fn softmax(scores: &[f32]) -> Vec<f64> {
    let most = scores.iter().fold(f32::NEG_INFINITY, |most, &score| most.max(score));
    let powers: Vec<f64> = scores.iter().map(|&score| f64::from(score - most).exp()).collect();
    let total: f64 = powers.iter().sum();
    powers.into_iter().map(|power| power / total).collect()
}

/// The logarithm of the sum of the exponentials: what a logit is above it is a token's log-probability.
pub(super) fn log_sum(logits: &[f32]) -> f64 {
    let most = logits.iter().fold(f32::NEG_INFINITY, |most, &x| most.max(x));
    let total: f64 = logits.iter().map(|&x| f64::from(x - most).exp()).sum();
    f64::from(most) + total.ln()
}

/// How probable a token is.
fn probability(logits: &[f32], token: u32) -> f32 {
    logits.get(token as usize).map_or(0.0, |&x| (f64::from(x) - log_sum(logits)).exp() as f32)
}

/// The token at which the probabilities' sum passes `number` of 0 to 1.
fn draw(scores: &[f32], number: f64) -> u32 {
    let probabilities = softmax(scores);
    let mut sum = 0.0;
    for (token, p) in probabilities.iter().enumerate() {
        sum += p;
        if sum > number {
            return token as u32;
        }
    }
    likeliest(scores)
}
