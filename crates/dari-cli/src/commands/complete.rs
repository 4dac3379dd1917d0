//! `dari complete`: how a text goes on.

use std::io::{Read as _, Write as _};

use serde_json::json;

use crate::Outcome;
use crate::cli::{Complete, Usage};
use crate::inputs;
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
    let asking = arguments.answering.asking()?;
    let engine = inputs::open(&arguments.model)?;
    let mut talk = engine.talk()?;
    let stop = super::chat::interrupted()?;
    for text in &texts {
        let mut out = std::io::stdout().lock();
        let mut broken = None;
        let mut heard = |piece: &str| {
            if !arguments.json
                && let Err(error) = write!(out, "{}", screen::text(piece)).and_then(|()| out.flush())
            {
                broken = Some(error);
                return false;
            }
            !stop.swap(false, std::sync::atomic::Ordering::SeqCst)
        };
        let answer = talk.complete(text, &asking, &mut heard)?;
        if let Some(error) = broken {
            return Err(error.into());
        }
        drop(out);
        match arguments.json {
            true => {
                let mut line = serde_json::to_value(&answer)?;
                line["prompt"] = json!(text);
                screen::json(&line)?;
            }
            false => screen::print("")?,
        }
    }
    Ok(Outcome::Done)
}
