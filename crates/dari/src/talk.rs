//! A language model, asked to go on with a text or to answer in a chat.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::{Duration, Instant};

use candle_core::{Device, Tensor};
use dari_data::image::Picture;
use dari_models::capability::CausalLm;
use dari_models::generate::{BeamOptions, Decoder, Early, Ended, Prompt, Sampling, generate, search};
use dari_models::generative::illustrate;
use dari_models::processor::Pictures;
use dari_nn::Cache;
use serde::Serialize;
use serde_json::{Value, json};

use crate::{Engine, Result};

/// How a model is to answer.
#[derive(Clone, Debug)]
pub struct Asking {
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Most tokens of the answer.
    pub most: usize,
    /// Texts that end the answer; they are no part of it.
    pub stops: Vec<String>,
    /// Beams that are searched; 1 for none.
    pub beams: usize,
    /// With beams: above 0 favours longer answers.
    pub length_penalty: f64,
}

impl Default for Asking {
    fn default() -> Asking {
        Asking { sampling: Sampling::default(), most: 256, stops: Vec::new(), beams: 1, length_penalty: 1.0 }
    }
}

/// What a model said.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Answer {
    /// Its text.
    pub text: String,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Of them, those that were read before.
    pub reused_tokens: usize,
    /// Tokens of the answer.
    pub tokens: usize,
    /// Why it ended.
    pub ended: Ended,
    /// How probable the model found its own tokens: their geometric mean.
    pub confidence: f32,
    /// From the question to the first token.
    #[serde(skip)]
    pub first: Duration,
    /// From the question to the end.
    #[serde(skip)]
    pub whole: Duration,
}

/// A conversation with one model, which keeps what it has read and seen.
pub struct Talk<'a> {
    engine: &'a Engine,
    model: &'a dyn CausalLm,
    cache: Cache,
    /// The tokens that the cache holds.
    held: Vec<u32>,
    /// The pictures among them, in order.
    shown: Vec<u64>,
    /// What pictures became, by their pixels.
    seen: HashMap<u64, Tensor>,
}

impl Engine {
    /// Begins a conversation.
    ///
    /// # Errors
    /// A model that is no language model, or one on another device than a CPU.
    pub fn talk(&self) -> Result<Talk<'_>> {
        let Some(model) = self.loaded().model.causal() else {
            return Err(self.unable(
                "write texts",
                "take a language model (GPT-2, LLaMA, Mistral, Qwen 2, as a folder or a GGUF file) or a vision-language model (LLaVA, Idefics 3, SmolVLM)",
            ));
        };
        if !matches!(self.device(), Device::Cpu) {
            return Err(self.unable("write texts there", "language models run on the cpu, for now"));
        }
        let (held, shown, seen) = Default::default();
        Ok(Talk { engine: self, model, cache: model.begin(), held, shown, seen })
    }

    /// Whether it speaks about pictures.
    pub fn sees(&self) -> bool {
        self.loaded().model.sees().is_some()
    }

    /// A message of a chat, as this model's template takes it: `pictures` stand before the text.
    pub fn message(&self, role: &str, text: &str, pictures: usize) -> Value {
        if !self.sees() {
            return json!({"role": role, "content": text});
        }
        let mut parts = vec![json!({"type": "image"}); pictures];
        parts.push(json!({"type": "text", "text": text}));
        json!({"role": role, "content": parts})
    }
}

impl Talk<'_> {
    /// Goes on with a text. `heard` gets the answer as it comes; `false` ends it.
    pub fn complete(
        &mut self,
        text: &str,
        asking: &Asking,
        heard: &mut dyn FnMut(&str) -> bool,
    ) -> Result<Answer> {
        let words = self.engine.loaded().processor.words()?;
        let ids = words.encode(text, true).map_err(dari_models::Error::from)?;
        self.say(Prompt::words(ids), Vec::new(), asking, heard)
    }

    /// Answers the last of `messages`, a list as [`Engine::message`] makes them, with the pictures of all of
    /// them in their order.
    pub fn answer(
        &mut self,
        messages: &Value,
        pictures: &[Picture],
        asking: &Asking,
        heard: &mut dyn FnMut(&str) -> bool,
    ) -> Result<Answer> {
        let loaded = self.engine.loaded();
        let text = loaded.processor.chat()?.render(messages, true).map_err(dari_models::Error::from)?;
        let (ids, pieces) = loaded.processor.illustrated(&text, pictures)?;
        let room = self.model.context();
        if ids.len() >= room {
            return Err(self.engine.failed(&format!(
                "the chat has {} tokens, and {room} are the most of it and the answer together: shorten the texts, or give fewer or smaller pictures",
                ids.len()
            )));
        }
        let (Some(model), Some(placeholder)) = (loaded.model.sees(), loaded.placeholder) else {
            return self.say(Prompt::words(ids), Vec::new(), asking, heard);
        };
        if pictures.is_empty() {
            return self.say(Prompt::words(ids), Vec::new(), asking, heard);
        }
        let mut shown = Vec::with_capacity(pictures.len());
        let mut features = Vec::with_capacity(pictures.len());
        for (picture, pieces) in pictures.iter().zip(pieces) {
            let key = fingerprint(picture);
            if !self.seen.contains_key(&key) {
                let stacked = Pictures::stack(pieces, self.engine.device())?;
                let pixels = stacked.tensor().ok_or_else(|| self.engine.failed(&"pieces of unequal size"))?;
                self.seen.insert(key, model.see(pixels)?);
            }
            features.push(self.seen[&key].clone());
            shown.push(key);
        }
        self.seen.retain(|key, _| shown.contains(key));
        let seen = Tensor::cat(&features, 0)?;
        let prompt = illustrate(model, ids, placeholder, &seen)?;
        self.say(prompt, shown, asking, heard)
    }

    fn say(
        &mut self,
        prompt: Prompt,
        shown: Vec<u64>,
        asking: &Asking,
        heard: &mut dyn FnMut(&str) -> bool,
    ) -> Result<Answer> {
        if prompt.ids.is_empty() {
            return Err(self.engine.unable("go on from nothing", "give it at least a word"));
        }
        let began = Instant::now();
        let words = self.engine.loaded().processor.words()?;
        let failed = |error: &dyn std::fmt::Display| self.engine.failed(error);
        let ends = &self.engine.loaded().ends;
        let prompt_tokens = prompt.ids.len();
        let mut common = self.held.iter().zip(&prompt.ids).take_while(|(a, b)| a == b).count();
        if !shown.starts_with(&self.shown) {
            // Other pictures in the same places.
            let first = self.held.iter().position(|&id| Some(id) == self.engine.loaded().placeholder);
            common = common.min(first.unwrap_or(common));
        }
        // The last token is read again: its logits are wanted.
        let common = common.min(prompt_tokens - 1);
        if asking.beams > 1 {
            let options = BeamOptions {
                beams: asking.beams,
                length_penalty: asking.length_penalty,
                early: Early::No,
                most: asking.most.max(1),
            };
            let beams = search(self.model, &prompt, ends, &options).map_err(|error| failed(&error))?;
            let mut tokens = beams.into_iter().next().map(|beam| beam.tokens).unwrap_or_default();
            let stopped = tokens.last().is_some_and(|token| ends.contains(token));
            if stopped {
                tokens.pop();
            }
            let text = words.decode(&tokens, true).map_err(dari_models::Error::from)?;
            let mut writer = Writer::new(&asking.stops);
            let (told, found) = writer.push(&text);
            let text = told + &if found { String::new() } else { writer.finish() };
            heard(&text);
            let ended = if stopped || found { Ended::Stop } else { Ended::Length };
            let whole = began.elapsed();
            let (tokens, reused_tokens) = (tokens.len(), 0);
            return Ok(Answer {
                text,
                prompt_tokens,
                reused_tokens,
                tokens,
                ended,
                confidence: 0.0,
                first: whole,
                whole,
            });
        }
        self.cache.truncate(common);
        self.held.truncate(common);
        let (mut text, mut first, mut problem) = (String::new(), None, None);
        let mut stream = words.stream();
        let mut writer = Writer::new(&asking.stops);
        let mut is_stopped = false;
        let mut states = [std::mem::replace(&mut self.cache, self.model.begin())];
        let said = generate(
            self.model,
            &mut states,
            std::slice::from_ref(&prompt),
            asking.sampling,
            ends,
            asking.most,
            &mut |_, token| {
                first.get_or_insert_with(|| began.elapsed());
                let piece = match stream.push(token) {
                    Ok(piece) => piece,
                    Err(error) => {
                        problem = Some(error);
                        return false;
                    }
                };
                let (told, found) = writer.push(&piece);
                text.push_str(&told);
                is_stopped = found;
                let goes_on = told.is_empty() || heard(&told);
                goes_on && !found
            },
        );
        let [cache] = states;
        self.cache = cache;
        let said = said.map_err(|error| failed(&error))?;
        if let Some(error) = problem {
            return Err(dari_models::Error::from(error).into());
        }
        let said = said.into_iter().next().ok_or_else(|| failed(&"no answer"))?;
        self.held = prompt.ids;
        self.shown = shown;
        self.held.extend(&said.tokens);
        self.held.truncate(self.cache.len());
        if !is_stopped {
            let (rest, _) = writer.push(&stream.finish().map_err(dari_models::Error::from)?);
            let rest = rest + &writer.finish();
            if !rest.is_empty() {
                heard(&rest);
                text.push_str(&rest);
            }
        }
        let logs: f64 = said.probabilities.iter().map(|&p| f64::from(p).max(1e-30).ln()).sum();
        let confidence = (logs / said.probabilities.len().max(1) as f64).exp() as f32;
        let whole = began.elapsed();
        Ok(Answer {
            text,
            prompt_tokens,
            reused_tokens: common,
            tokens: said.tokens.len(),
            ended: if is_stopped { Ended::Stop } else { said.ended },
            confidence,
            first: first.unwrap_or(whole),
            whole,
        })
    }
}

/// Tells a picture from others of one conversation.
fn fingerprint(picture: &Picture) -> u64 {
    let mut hasher = DefaultHasher::new();
    (picture.width(), picture.height(), picture.rgb()).hash(&mut hasher);
    hasher.finish()
}

/// Holds back what may be the beginning of a text that ends the answer.
struct Writer<'a> {
    stops: &'a [String],
    kept: String,
}

impl<'a> Writer<'a> {
    fn new(stops: &'a [String]) -> Writer<'a> {
        Writer { stops, kept: String::new() }
    }

    /// What may be told of the text so far, and whether an ending text was found.
    fn push(&mut self, piece: &str) -> (String, bool) {
        self.kept.push_str(piece);
        let found = self
            .stops
            .iter()
            .filter(|stop| !stop.is_empty())
            .filter_map(|stop| self.kept.find(stop.as_str()))
            .min();
        if let Some(at) = found {
            self.kept.truncate(at);
            return (std::mem::take(&mut self.kept), true);
        }
        let begins = |at: usize| self.stops.iter().any(|stop| stop.starts_with(&self.kept[at..]));
        let hold =
            self.kept.char_indices().map(|(at, _)| at).find(|&at| begins(at)).unwrap_or(self.kept.len());
        let rest = self.kept.split_off(hold);
        (std::mem::replace(&mut self.kept, rest), false)
    }

    /// What was held back for nothing.
    fn finish(&mut self) -> String {
        std::mem::take(&mut self.kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ending_text_is_never_told_in_part() {
        let stops = vec!["</end>".to_owned(), "끝".to_owned()];
        for (pieces, told, found) in [
            (&["ab<", "/e", "nd>c"][..], "ab", true),
            (&["a</e", "x</", "en"], "a</ex</en", false),
            (&["그리고 ", "끝", "."], "그리고 ", true),
            (&["plain"], "plain", false),
        ] {
            let mut writer = Writer::new(&stops);
            let mut text = String::new();
            let mut stopped = false;
            for piece in pieces {
                let (more, now) = writer.push(piece);
                text += &more;
                if now {
                    stopped = true;
                    break;
                }
            }
            if !stopped {
                text += &writer.finish();
            }
            assert_eq!((text.as_str(), stopped), (told, found), "{pieces:?}");
        }
    }
}
