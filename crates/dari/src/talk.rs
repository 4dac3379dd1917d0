//! A language model, asked to go on with a text or to answer in a chat.

use std::time::{Duration, Instant};

use candle_core::Device;
use dari_models::capability::CausalLm;
use dari_models::generate::{BeamOptions, Decoder, Early, Ended, Prompt, Sampling, generate, search};
use dari_nn::Cache;
use serde::Serialize;
use serde_json::Value;

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

/// A conversation with one model, which keeps what it has read.
pub struct Talk<'a> {
    engine: &'a Engine,
    model: &'a dyn CausalLm,
    cache: Cache,
    /// The tokens that the cache holds.
    held: Vec<u32>,
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
                "take a language model: GPT-2, LLaMA, Mistral or Qwen 2, as a folder or a GGUF file",
            ));
        };
        if !matches!(self.device(), Device::Cpu) {
            return Err(self.unable("write texts there", "language models run on the cpu, for now"));
        }
        Ok(Talk { engine: self, model, cache: model.begin(), held: Vec::new() })
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
        let ids =
            self.engine.loaded().processor.words()?.encode(text, true).map_err(dari_models::Error::from)?;
        self.say(ids, asking, heard)
    }

    /// Answers the last of `messages`, a list of `{role, content}` as chat templates know it.
    pub fn answer(
        &mut self,
        messages: &Value,
        asking: &Asking,
        heard: &mut dyn FnMut(&str) -> bool,
    ) -> Result<Answer> {
        let processor = &self.engine.loaded().processor;
        let text = processor.chat()?.render(messages, true).map_err(dari_models::Error::from)?;
        let ids = processor.words()?.encode_chat(&text).map_err(dari_models::Error::from)?;
        self.say(ids, asking, heard)
    }

    fn say(&mut self, ids: Vec<u32>, asking: &Asking, heard: &mut dyn FnMut(&str) -> bool) -> Result<Answer> {
        if ids.is_empty() {
            return Err(self.engine.unable("go on from nothing", "give it at least a word"));
        }
        let began = Instant::now();
        let words = self.engine.loaded().processor.words()?;
        let failed = |error: &dyn std::fmt::Display| self.engine.failed(error);
        let ends = &self.engine.loaded().ends;
        let prompt_tokens = ids.len();
        // The last token is read again: its logits are wanted.
        let common = self.held.iter().zip(&ids).take_while(|(a, b)| a == b).count().min(prompt_tokens - 1);
        let prompt = Prompt::words(ids);
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
