//! `dari complete`: how a text goes on.

use std::io::Read as _;

use serde_json::json;

use super::speech::{Draft, speak};
use crate::Outcome;
use crate::cli::{Complete, Usage};
use crate::inputs;
use crate::interrupt;
use crate::language::say;
use crate::screen;

/// The longest text that is read from standard input.
const LONGEST: u64 = 64 << 20;

/// Runs the command.
pub fn run(arguments: &Complete) -> anyhow::Result<Outcome> {
    let mut texts = arguments.texts.clone();
    if texts.is_empty() {
        let mut text = String::new();
        std::io::stdin().take(LONGEST).read_to_string(&mut text)?;
        let text = text.strip_suffix('\n').unwrap_or(&text).to_owned();
        if text.is_empty() {
            return Err(Usage(say!(
                "no text: give one, or write it to standard input",
                "글이 없습니다: 글을 주거나 표준 입력으로 쓰세요"
            ))
            .into());
        }
        texts.push(text);
    }
    let options = &arguments.speaking;
    let asking = options.answering.asking()?;
    let engine = inputs::open(&options.model)?;
    let draft = Draft::open(options)?;
    let mut talk = draft.talk(&engine, options)?;
    let stop = interrupt::flag()?;
    for text in &texts {
        let answer = speak(!options.json, &stop, |heard| talk.complete(text, &asking, heard))?;
        if options.json {
            let mut line = serde_json::to_value(&answer)?;
            line["prompt"] = json!(text);
            screen::json(&line)?;
        }
        if answer.ended == dari::Ended::Interrupted {
            return Ok(Outcome::SomeFailed);
        }
    }
    Ok(Outcome::Done)
}
