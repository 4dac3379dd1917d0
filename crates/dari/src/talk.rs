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
use crate::streamer::{Streamer, Writer};
use crate::{Engine, Result};

/// Bytes that what is kept of chats which are answered together may take.
const TOGETHER: usize = 256 << 20;
/// Pixels from which on pictures go through the model without waiting for more.
const PIXELS: usize = 1 << 20;

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
        self.say_one(Prompt::words(ids), Vec::new(), asking, heard)
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
        let ids = self.tokens(messages, pictures)?;
        let (prompt, shown) = self.prompt(ids, &keyed(pictures))?;
        self.seen.retain(|key, _| shown.contains(key));
        self.say_one(prompt, shown, asking, heard)
    }

    /// Whether [`Talk::answer_together`] takes more than one chat: what is drawn follows from the seed and one
    /// prompt, beams are many already, and guesses are made for one.
    pub fn is_together(&self, asking: &Asking) -> bool {
        asking.sampling.temperature <= 0.0 && asking.beams <= 1 && self.guess.is_none()
    }

    /// Answers the first of some chats that have nothing to do with each other, each as [`Talk::answer`] would: as
    /// many at once as fit, and at first one. Their pictures go through the model together, and a step reads the
    /// weights once for all of them. `heard` gets each answer by its number.
    ///
    /// # Errors
    /// What goes wrong with the first. Where it is another, there are answers to those before.
    pub fn answer_together(
        &mut self,
        chats: &[(Value, Vec<&Picture>)],
        asking: &Asking,
        heard: &mut dyn FnMut(usize, &str) -> bool,
    ) -> Result<Vec<Answer>> {
        let mut group = Vec::new();
        let mut bytes = 0;
        for (messages, pictures) in chats {
            let ids = match self.tokens(messages, pictures) {
                Err(error) if group.is_empty() => return Err(error),
                Err(_) => break,
                Ok(ids) => ids,
            };
            let most = ids.len().saturating_add(asking.most).min(self.model.context());
            // What a token takes is known when one has been read.
            let taken = self.cache.bytes_a_token().map(|token| bytes + token * most);
            let fits = self.is_together(asking) && taken.is_some_and(|taken| taken <= TOGETHER);
            if !group.is_empty() && !fits {
                break;
            }
            bytes = taken.unwrap_or_default();
            group.push((ids, keyed(pictures)));
        }
        // One that cannot be shown must not fail the others: the first goes by itself.
        let pictures: Vec<(u64, &Picture)> =
            group.iter().flat_map(|(_, pictures)| pictures).copied().collect();
        if self.see(&pictures).is_err() {
            group.truncate(1);
        }
        let mut prompts = Vec::with_capacity(group.len());
        for (ids, pictures) in group {
            match self.prompt(ids, &pictures) {
                Err(error) if prompts.is_empty() => return Err(error),
                Err(_) => break,
                Ok(prompt) => prompts.push(prompt),
            }
        }
        self.seen.clear();
        self.say(prompts, asking, heard)
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
        let ids = self.tokens(&messages, &[picture])?;
        let (prompt, shown) = self.prompt(ids, &keyed(&[picture]))?;
        self.seen.retain(|key, _| shown.contains(key));
        let asking = Asking { beams: 1, ..asking.clone() };
        let answer = self.say_one(prompt.clone(), shown, &asking, &mut |_| true)?;
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

    /// What a chat becomes for the model: its tokens, with room for its pictures'.
    fn tokens(&self, messages: &Value, pictures: &[&Picture]) -> Result<Vec<u32>> {
        let loaded = self.engine.loaded();
        let text = loaded.processor.chat()?.render(messages, true).map_err(dari_models::Error::from)?;
        let sizes: Vec<(u32, u32)> =
            pictures.iter().map(|picture| (picture.height(), picture.width())).collect();
        let ids = loaded.processor.illustrated(&text, &sizes)?;
        // Before pictures are looked at in vain.
        self.room(ids.len())?;
        Ok(ids)
    }

    /// Tokens with the pictures among them, and what tells those apart.
    fn prompt(&mut self, ids: Vec<u32>, pictures: &[(u64, &Picture)]) -> Result<(Prompt, Vec<u64>)> {
        let loaded = self.engine.loaded();
        let (Some(model), Some(placeholder), false) =
            (loaded.model.sees(), loaded.placeholder, pictures.is_empty())
        else {
            return Ok((Prompt::words(ids), Vec::new()));
        };
        self.see(pictures)?;
        let shown: Vec<u64> = pictures.iter().map(|(key, _)| *key).collect();
        let features: Vec<Tensor> = shown.iter().filter_map(|key| self.seen.get(key)).cloned().collect();
        let prompt = illustrate(model, ids, placeholder, &Tensor::cat(&features, 0)?)?;
        Ok((prompt, shown))
    }

    /// Looks at the pictures that it has not seen yet; small ones go through the model together.
    fn see(&mut self, pictures: &[(u64, &Picture)]) -> Result<()> {
        let Some(model) = self.engine.loaded().model.sees() else { return Ok(()) };
        let side = model.side();
        let mut waiting: Vec<(u64, Tensor)> = Vec::new();
        let mut pieces = 0;
        for (at, &(key, picture)) in pictures.iter().enumerate() {
            if !self.seen.contains_key(&key) && waiting.iter().all(|(other, _)| *other != key) {
                let pixels = self.engine.loaded().processor.pieces(picture, self.engine.device())?;
                pieces += pixels.dim(0)?;
                waiting.push((key, pixels));
            }
            if !waiting.is_empty() && (pieces * side * side >= PIXELS || at + 1 == pictures.len()) {
                let all: Vec<&Tensor> = waiting.iter().map(|(_, pixels)| pixels).collect();
                let features = model.see_in_parts(&Tensor::cat(&all, 0)?)?;
                let mut first = 0;
                for (key, pixels) in waiting.drain(..) {
                    let count = pixels.dim(0)?;
                    self.seen.insert(key, features.narrow(0, first, count)?);
                    first += count;
                }
                pieces = 0;
            }
        }
        Ok(())
    }

    /// The room that a prompt leaves.
    fn room(&self, tokens: usize) -> Result<usize> {
        room(tokens, self.model.context()).map_err(|error| self.engine.failed(&error))
    }

    fn say_one(
        &mut self,
        prompt: Prompt,
        shown: Vec<u64>,
        asking: &Asking,
        heard: &mut dyn FnMut(&str) -> bool,
    ) -> Result<Answer> {
        let answers = self.say(vec![(prompt, shown)], asking, &mut |_, text| heard(text))?;
        answers.into_iter().next().ok_or_else(|| self.engine.failed(&"no answer"))
    }

    /// Answers prompts, with the pictures among their tokens; the cache goes on from the last.
    fn say(
        &mut self,
        prompts: Vec<(Prompt, Vec<u64>)>,
        asking: &Asking,
        heard: &mut dyn FnMut(usize, &str) -> bool,
    ) -> Result<Vec<Answer>> {
        if prompts.iter().any(|(prompt, _)| prompt.ids.is_empty()) {
            return Err(self.engine.unable("go on from nothing", "give it at least a word"));
        }
        if asking.beams > 1 {
            let searched = prompts.iter().enumerate();
            return searched
                .map(|(number, (prompt, _))| self.search(prompt, asking, &mut |text| heard(number, text)))
                .collect();
        }
        let words = self.engine.loaded().processor.words()?;
        let ends = &self.engine.loaded().ends;
        // The last token is read again: its logits are wanted.
        let common = |(prompt, shown): &(Prompt, Vec<u64>)| {
            self.common(&prompt.ids, shown).min(prompt.ids.len().saturating_sub(1))
        };
        let reused: Vec<usize> = prompts.iter().map(common).collect();
        // Copies share their pages; the last takes the cache itself.
        let mut states = vec![self.cache.clone(); prompts.len().saturating_sub(1)];
        let begun = self.model.begin().kept_in(self.cache.format());
        states.push(std::mem::replace(&mut self.cache, begun));
        states.iter_mut().zip(&reused).for_each(|(state, &tokens)| state.truncate(tokens));
        self.held.clear();
        self.shown.clear();
        let mut streamers: Vec<Streamer> =
            prompts.iter().map(|_| Streamer::new(words, &asking.stops)).collect();
        let (prompts, mut shown): (Vec<Prompt>, Vec<Vec<u64>>) = prompts.into_iter().unzip();
        let &Asking { sampling, most, .. } = asking;
        let mut told =
            |number: usize, token: u32| streamers[number].push(token, &mut |text| heard(number, text));
        let said = match &mut self.guess {
            None => generate(self.model, &mut states, &prompts, sampling, ends, most, &mut told)
                .map(|said| said.into_iter().map(|said| (said, None)).collect::<Vec<_>>()),
            Some(guess) => {
                let ahead = prompts.iter().zip(&mut states).enumerate().map(|(number, (prompt, state))| {
                    let told = &mut |token| told(number, token);
                    generate_ahead(self.model, state, prompt, sampling, ends, most, guess.as_mut(), told)
                        .map(|(said, guesses)| (said, Some(guesses)))
                });
                ahead.collect()
            }
        };
        let said = said.map_err(|error| self.engine.failed(&error))?;
        if let (Some(cache), Some(shown), Some(prompt), Some((said, _))) =
            (states.pop(), shown.pop(), prompts.last(), said.last())
        {
            (self.cache, self.shown) = (cache, shown);
            self.held = [&prompt.ids[..], &said.tokens].concat();
            self.held.truncate(self.cache.len());
        }
        let mut answers = Vec::with_capacity(prompts.len());
        let ended = streamers.into_iter().zip(said).zip(prompts.iter().zip(reused)).enumerate();
        for (number, ((streamer, (said, guesses)), (prompt, reused_tokens))) in ended {
            let (text, is_stopped) = match streamer.finish(&mut |text| heard(number, text)) {
                Err(error) if answers.is_empty() => return Err(error.into()),
                Err(_) => break,
                Ok(finished) => finished,
            };
            let logs: f64 = said.probabilities.iter().map(|&p| f64::from(p).max(1e-30).ln()).sum();
            let confidence = (logs / said.probabilities.len().max(1) as f64).exp() as f32;
            answers.push(Answer {
                text,
                prompt_tokens: prompt.ids.len(),
                reused_tokens,
                tokens: said.tokens.len(),
                ended: if is_stopped { Ended::Stop } else { said.ended },
                confidence,
                unsure: self.engine.is_unsure(confidence),
                guesses,
            });
        }
        Ok(answers)
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

/// Pictures, and what tells each from others of one conversation.
fn keyed<'a>(pictures: &[&'a Picture]) -> Vec<(u64, &'a Picture)> {
    let key = |picture: &Picture| {
        let mut hasher = DefaultHasher::new();
        (picture.width(), picture.height(), picture.rgb()).hash(&mut hasher);
        hasher.finish()
    };
    pictures.iter().map(|&picture| (key(picture), picture)).collect()
}
