//! A language model, asked to go on with a text or to answer in a chat.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use candle_core::{Device, Tensor};
use dari_data::image::Picture;
use dari_models::capability::CausalLm;
use dari_models::generate::{
    BeamOptions, Decoder, Draft, Early, Ended, Guess, Guesses, Lookup, Prompt, Sampling, generate,
    generate_ahead, room, search,
};
use dari_models::generative::illustrate;
use dari_nn::Cache;
use dari_nn::cache::CacheFormat;
use serde::Serialize;
use serde_json::Value;

use crate::look::Sources;
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
    /// How probable the model found its own tokens, the ending one too: their geometric mean.
    pub confidence: f32,
    /// Whether that is less than this model's answers are to be trusted with; no, where it is not known.
    pub unsure: bool,
    /// How guesses of its tokens went, where any were made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guesses: Option<Guesses>,
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
    /// Guesses the answer's tokens.
    guess: Option<Box<dyn Guess + 'a>>,
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
        Ok(Talk { engine: self, model, cache: model.begin(), held, shown, seen, guess: None })
    }

    /// Whether an answer of this confidence is to be marked.
    fn is_unsure(&self, confidence: f32) -> bool {
        let below = self.loaded().config.get("unsure_below").and_then(Value::as_f64);
        below.is_some_and(|below| f64::from(confidence) < below)
    }

    /// Whether it speaks about pictures.
    pub fn sees(&self) -> bool {
        self.loaded().model.sees().is_some()
    }

    /// A message of a chat, as this model's template takes it: `pictures` stand before the text.
    pub fn message(&self, role: &str, text: &str, pictures: usize) -> Value {
        self.loaded().processor.message(role, text, pictures)
    }
}

impl<'a> Talk<'a> {
    /// Answers sooner where a text repeats itself: tokens are guessed from what followed the last ones before. The
    /// answer stays the same. Beams do not guess.
    pub fn guess_by_lookup(&mut self) {
        self.guess = Some(Box::new(Lookup));
    }

    /// Answers sooner where a smaller model says much the same: its tokens are guesses. The answer stays the same.
    /// Beams do not guess.
    ///
    /// # Errors
    /// A model that is no language model, or that has other tokens.
    pub fn guess_by(&mut self, smaller: &'a Engine) -> Result<()> {
        let model = smaller.talk()?.model;
        const PROBE: &str = "Which tokens? 1 + 23 = 24; 다리를 놓다.";
        let ids = |engine: &Engine| -> Result<Vec<u32>> {
            let words = engine.loaded().processor.words()?;
            Ok(words.encode(PROBE, false).map_err(dari_models::Error::from)?)
        };
        if ids(self.engine)? != ids(smaller)? {
            let instead = "take a smaller model of the same family, which has the same tokens";
            return Err(smaller.unable("guess for the other model", instead));
        }
        self.guess = Some(Box::new(Draft::new(model)));
        Ok(())
    }

    /// Keeps keys and values in another format from now on: in fewer bits a long conversation takes less memory, and
    /// answers may differ. What was read is forgotten.
    pub fn keep_in(&mut self, format: CacheFormat) {
        self.cache = self.model.begin().kept_in(format);
        self.held.clear();
        self.shown.clear();
    }

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
        pictures: &[&Picture],
        asking: &Asking,
        heard: &mut dyn FnMut(&str) -> bool,
    ) -> Result<Answer> {
        let (prompt, shown) = self.prompt(messages, pictures)?;
        self.say(prompt, shown, asking, heard)
    }

    /// Answers a question about one picture, and tells what of the picture the answer comes from.
    ///
    /// # Errors
    /// As [`Talk::answer`]; beams are not watched.
    pub fn look(&mut self, picture: &Picture, question: &str, asking: &Asking) -> Result<(Answer, Sources)> {
        let engine = self.engine;
        let unable = || engine.unable("speak about pictures", "take a vision-language model");
        let (Some(sees), Some(placeholder)) = (engine.loaded().model.sees(), engine.loaded().placeholder)
        else {
            return Err(unable());
        };
        let messages = Value::from(vec![engine.message("user", question, 1)]);
        let (prompt, shown) = self.prompt(&messages, &[picture])?;
        let asking = Asking { beams: 1, ..asking.clone() };
        let answer = self.say(prompt.clone(), shown, &asking, &mut |_| true)?;
        let ids = &prompt.ids;
        let begun = ids.len();
        let watched = || -> dari_models::Result<Vec<f32>> {
            let Some(embeddings) = &prompt.embeddings else { return Ok(Vec::new()) };
            let mut all = vec![embeddings.clone()];
            if self.held.len() > begun {
                let said = Tensor::new(&self.held[begun..], &Device::Cpu)?.unsqueeze(0)?;
                all.push(self.model.embed(&said)?.squeeze(0)?);
            }
            let flow = self.model.rollout(&Tensor::cat(&all, 0)?.unsqueeze(0)?)?;
            // A token of the answer is told by the one before it.
            let rows = flow.narrow(0, begun - 1, flow.dim(0)? - (begun - 1))?;
            Ok(rows.mean(0)?.to_vec1::<f32>()?)
        };
        let flow = watched().map_err(|error| engine.failed(&error))?;
        let places: Vec<f32> =
            ids.iter().zip(flow).filter(|(id, _)| **id == placeholder).map(|(_, x)| x).collect();
        let tiles = engine.loaded().processor.sights().and_then(|sights| sights.tiles.as_ref());
        let grid = tiles.map_or((0, 0), |tiles| tiles.grid(picture.height(), picture.width()));
        Ok((answer, Sources::of(&places, sees.queries(), grid)))
    }

    /// What a chat becomes for the model: its tokens with its pictures among them, and what tells those apart.
    fn prompt(&mut self, messages: &Value, pictures: &[&Picture]) -> Result<(Prompt, Vec<u64>)> {
        let loaded = self.engine.loaded();
        let text = loaded.processor.chat()?.render(messages, true).map_err(dari_models::Error::from)?;
        let sizes: Vec<(u32, u32)> =
            pictures.iter().map(|picture| (picture.height(), picture.width())).collect();
        let ids = loaded.processor.illustrated(&text, &sizes)?;
        // Before pictures are looked at in vain.
        self.room(ids.len())?;
        let (Some(model), Some(placeholder), false) =
            (loaded.model.sees(), loaded.placeholder, pictures.is_empty())
        else {
            return Ok((Prompt::words(ids), Vec::new()));
        };
        let shown: Vec<u64> = pictures.iter().map(|picture| fingerprint(picture)).collect();
        let mut features = Vec::with_capacity(pictures.len());
        for (&key, picture) in shown.iter().zip(pictures) {
            if !self.seen.contains_key(&key) {
                let pixels = loaded.processor.pieces(picture, self.engine.device())?;
                self.seen.insert(key, model.see_in_parts(&pixels)?);
            }
            features.push(self.seen[&key].clone());
        }
        self.seen.retain(|key, _| shown.contains(key));
        let prompt = illustrate(model, ids, placeholder, &Tensor::cat(&features, 0)?)?;
        Ok((prompt, shown))
    }

    /// The room that a prompt leaves.
    fn room(&self, tokens: usize) -> Result<usize> {
        room(tokens, self.model.context()).map_err(|error| self.engine.failed(&error))
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
        if asking.beams > 1 {
            return self.search(&prompt, asking, heard);
        }
        let words = self.engine.loaded().processor.words()?;
        let ends = &self.engine.loaded().ends;
        let prompt_tokens = prompt.ids.len();
        // The last token is read again: its logits are wanted.
        let reused_tokens = self.common(&prompt.ids, &shown).min(prompt_tokens - 1);
        self.cache.truncate(reused_tokens);
        self.held.truncate(reused_tokens);
        let (mut text, mut problem) = (String::new(), None);
        let mut stream = words.stream();
        let mut writer = Writer::new(&asking.stops);
        let mut is_stopped = false;
        let mut states = [std::mem::replace(&mut self.cache, self.model.begin())];
        let mut told = |token: u32| {
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
            heard(&told) && !found
        };
        let &Asking { sampling, most, .. } = asking;
        let said = match &mut self.guess {
            None => {
                let prompts = std::slice::from_ref(&prompt);
                generate(self.model, &mut states, prompts, sampling, ends, most, &mut |_, token| told(token))
                    .map(|said| said.into_iter().next().map(|said| (said, None)))
            }
            Some(guess) => {
                let [state] = &mut states;
                generate_ahead(self.model, state, &prompt, sampling, ends, most, guess.as_mut(), &mut told)
                    .map(|(said, guesses)| Some((said, Some(guesses))))
            }
        };
        [self.cache] = states;
        let said = said.map_err(|error| self.engine.failed(&error))?;
        if let Some(error) = problem {
            return Err(dari_models::Error::from(error).into());
        }
        let (said, guesses) = said.ok_or_else(|| self.engine.failed(&"no answer"))?;
        self.held = prompt.ids;
        self.shown = shown;
        self.held.extend(&said.tokens);
        self.held.truncate(self.cache.len());
        if !is_stopped {
            let (mut rest, _) = writer.push(&stream.finish().map_err(dari_models::Error::from)?);
            rest += &writer.finish();
            heard(&rest);
            text.push_str(&rest);
        }
        let logs: f64 = said.probabilities.iter().map(|&p| f64::from(p).max(1e-30).ln()).sum();
        let confidence = (logs / said.probabilities.len().max(1) as f64).exp() as f32;
        Ok(Answer {
            text,
            prompt_tokens,
            reused_tokens,
            tokens: said.tokens.len(),
            ended: if is_stopped { Ended::Stop } else { said.ended },
            confidence,
            unsure: self.engine.is_unsure(confidence),
            guesses,
        })
    }

    /// How many tokens of a prompt the cache holds already.
    fn common(&self, ids: &[u32], shown: &[u64]) -> usize {
        let common = self.held.iter().zip(ids).take_while(|(a, b)| a == b).count();
        if shown.starts_with(&self.shown) {
            return common;
        }
        // Other pictures in the same places.
        let first = self.held.iter().position(|&id| Some(id) == self.engine.loaded().placeholder);
        common.min(first.unwrap_or(common))
    }

    /// The likeliest answer that beams find, told at its end.
    fn search(
        &self,
        prompt: &Prompt,
        asking: &Asking,
        heard: &mut dyn FnMut(&str) -> bool,
    ) -> Result<Answer> {
        let loaded = self.engine.loaded();
        let options = BeamOptions {
            beams: asking.beams,
            length_penalty: asking.length_penalty,
            early: Early::No,
            most: asking.most.max(1),
        };
        let begun = self.model.begin().kept_in(self.cache.format());
        let beams = search(self.model, begun, prompt, &loaded.ends, &options);
        let beams = beams.map_err(|error| self.engine.failed(&error))?;
        let best = beams.into_iter().next().ok_or_else(|| self.engine.failed(&"no answer"))?;
        let length = best.tokens.len() as f64;
        let confidence = (best.score * length.powf(asking.length_penalty - 1.0)).exp() as f32;
        let mut tokens = best.tokens;
        let is_ended = tokens.last().is_some_and(|token| loaded.ends.contains(token));
        if is_ended {
            tokens.pop();
        }
        let text = loaded.processor.words()?.decode(&tokens, true).map_err(dari_models::Error::from)?;
        let mut writer = Writer::new(&asking.stops);
        let (mut text, is_stopped) = writer.push(&text);
        if !is_stopped {
            text += &writer.finish();
        }
        heard(&text);
        let ended = match (is_ended || is_stopped, tokens.len() < options.most) {
            (true, _) => Ended::Stop,
            (false, true) => Ended::Full,
            (false, false) => Ended::Length,
        };
        let (prompt_tokens, tokens) = (prompt.ids.len(), tokens.len());
        let unsure = self.engine.is_unsure(confidence);
        Ok(Answer { text, prompt_tokens, reused_tokens: 0, tokens, ended, confidence, unsure, guesses: None })
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
