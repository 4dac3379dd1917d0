//! An answer on its way to the screen: what `complete`, `chat`, `ask` and `caption` share.

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};

use dari::{Answer, Engine, Talk};

use crate::cli::{ModelOptions, Speaking};
use crate::inputs;
use crate::language::say;
use crate::screen;

/// What guesses an answer's tokens.
pub enum Draft {
    None,
    Lookup,
    Model(Box<Engine>),
}

impl Draft {
    /// As the options say.
    pub fn open(options: &Speaking) -> anyhow::Result<Draft> {
        Ok(match options.answering.draft.as_deref() {
            None => Draft::None,
            Some("lookup") => Draft::Lookup,
            Some(model) => {
                let options = ModelOptions { model: model.to_owned(), ..options.model.clone() };
                Draft::Model(Box::new(inputs::open(&options)?))
            }
        })
    }

    /// A conversation with a model, whose tokens this guesses, and whose cache is as the options say.
    pub fn talk<'a>(&'a self, engine: &'a Engine, options: &Speaking) -> dari::Result<Talk<'a>> {
        let mut talk = engine.talk()?;
        talk.keep_in(options.answering.cache.into());
        match self {
            Draft::None => {}
            Draft::Lookup => talk.guess_by_lookup(),
            Draft::Model(smaller) => talk.guess_by(smaller)?,
        }
        Ok(talk)
    }
}

/// Lets a model speak. Where the answer is `shown`, its pieces are written as they come, and a line's end
/// behind them; a set `stop` ends the answer and is taken back.
pub fn speak(
    shown: bool,
    stop: &AtomicBool,
    model: impl FnOnce(&mut dyn FnMut(&str) -> bool) -> dari::Result<Answer>,
) -> anyhow::Result<Answer> {
    let mut out = std::io::stdout().lock();
    let mut broken = None;
    let answer = model(&mut |piece| {
        if shown && let Err(error) = write!(out, "{}", screen::text(piece)).and_then(|()| out.flush()) {
            broken = Some(error);
            return false;
        }
        !stop.swap(false, Ordering::SeqCst)
    })?;
    match broken {
        Some(error) => return Err(error.into()),
        None if shown => writeln!(out, "{}", mark(&answer))?,
        None => {}
    }
    Ok(answer)
}

/// What stands behind an answer that is not to be trusted.
pub fn mark(answer: &Answer) -> String {
    match answer.unsure {
        true if answer.text.trim().is_empty() => say!("(no answer)", "(답 없음)"),
        true => say!("  (unsure)", "  (확실하지 않음)"),
        false => String::new(),
    }
}
