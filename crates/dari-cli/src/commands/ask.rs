//! `dari ask` and `dari caption`: what pictures show, in words.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use dari::{Answer, Ended, Engine, Picture};
use indicatif::ProgressBar;
use serde_json::{Value, json};

use super::speech::{Draft, mark, speak};
use crate::Outcome;
use crate::cli::{Ask, Caption, Speaking, Usage};
use crate::inputs;
use crate::interrupt;
use crate::language::say;
use crate::screen;

/// Most pictures that are open at once.
const AHEAD: usize = 8;

/// Runs `dari ask`.
pub fn ask(arguments: &Ask) -> anyhow::Result<Outcome> {
    let Some((question, images)) = arguments.inputs.split_last().filter(|(_, images)| !images.is_empty())
    else {
        return Err(Usage(say!(
            "a picture and a question are needed: dari ask IMG \"question\"",
            "그림과 질문이 필요합니다: dari ask 그림 \"질문\""
        ))
        .into());
    };
    if Path::new(question).is_file() {
        let question = screen::clean(question);
        return Err(Usage(say!(
            "the last argument is the question, but `{question}` is a file",
            "마지막 인자는 질문인데 `{question}`은(는) 파일입니다"
        ))
        .into());
    }
    let images: Vec<PathBuf> = images.iter().map(PathBuf::from).collect();
    let Ask { system, together, speaking, .. } = arguments;
    run(&images, question, system.as_deref(), *together, speaking)
}

/// Runs `dari caption`.
pub fn caption(arguments: &Caption) -> anyhow::Result<Outcome> {
    let usual = say!("Describe the picture in one sentence.", "그림을 한 문장으로 설명하세요.");
    let text = arguments.prompt.as_deref().unwrap_or(&usual);
    run(&arguments.images, text, None, false, &arguments.speaking)
}

fn run(
    images: &[PathBuf],
    question: &str,
    system: Option<&str>,
    together: bool,
    options: &Speaking,
) -> anyhow::Result<Outcome> {
    let asking = options.answering.asking()?;
    let inputs::Files { files, mut failures } = inputs::pictures(images)?;
    let engine = inputs::open_speaker(&options.model)?;
    require(&engine)?;
    // An answer by itself comes word by word; of several each has its line.
    let alone = together || files.len() == 1;
    let shown = alone && !options.json;
    let stop = interrupt::flag()?;
    let draft = Draft::open(options)?;
    let mut talk = draft.talk(&engine, options)?;
    let messages = |pictures: usize| -> Value {
        let system = system.map(|system| engine.message("system", system, 0));
        json!(system.into_iter().chain([engine.message("user", question, pictures)]).collect::<Vec<Value>>())
    };
    if alone {
        let opened = files.iter().map(|file| engine.open_picture(file)).collect::<Result<Vec<_>, _>>();
        let answer = opened.map_err(anyhow::Error::from).and_then(|opened| {
            let pictures: Vec<&Picture> = opened.iter().collect();
            speak(shown, &stop, |heard| talk.answer(&messages(pictures.len()), &pictures, &asking, heard))
        });
        let names: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
        let what = if together { json!({"pictures": names}) } else { json!({"picture": names.first()}) };
        return match answer {
            Ok(answer) => {
                if options.json {
                    screen::json(&with(&answer, what)?)?;
                }
                let is_cut = answer.ended == Ended::Interrupted;
                Ok(if is_cut { Outcome::SomeFailed } else { Outcome::of(failures) })
            }
            Err(error) if together || crate::is_broken_pipe(&error) => Err(error),
            Err(error) => {
                tell_failure(&error, what, options.json)?;
                Ok(Outcome::of(failures + 1))
            }
        };
    }
    let bar = screen::bar(files.len() as u64, "pictures");
    let most = if talk.is_together(&asking) { usize::from(options.model.batch).clamp(1, AHEAD) } else { 1 };
    let mut files = files.into_iter();
    // What waits, in order.
    let mut open: VecDeque<(String, dari::Result<Picture>)> = VecDeque::new();
    loop {
        open.extend(files.by_ref().take(most - open.len()).map(|file| {
            let picture = engine.open_picture(&file);
            (file.display().to_string(), picture)
        }));
        let mut failed = |bar: &ProgressBar, error: dari::Error, name: &str| {
            failures += 1;
            bar.inc(1);
            bar.suspend(|| tell_failure(&error.into(), json!({"picture": name}), options.json))
        };
        let chats: Vec<_> =
            open.iter().map_while(|(_, picture)| Some((messages(1), vec![picture.as_ref().ok()?]))).collect();
        if chats.is_empty() {
            match open.pop_front() {
                Some((name, Err(error))) => failed(&bar, error, &name)?,
                _ => break,
            }
            continue;
        }
        let mut is_cut = false;
        let mut heard = |_: usize, _: &str| {
            is_cut |= stop.swap(false, Ordering::SeqCst);
            !is_cut
        };
        let answers = talk.answer_together(&chats, &asking, &mut heard);
        drop(chats);
        match answers {
            Ok(answers) => {
                for (answer, (name, _)) in answers.iter().zip(open.drain(..answers.len())) {
                    bar.inc(1);
                    if options.json {
                        let line = with(answer, json!({"picture": name}))?;
                        bar.suspend(|| screen::json(&line))?;
                    } else if answer.ended != Ended::Interrupted {
                        let text = screen::text(answer.text.trim()).replace('\n', " ");
                        let line = format!("{}\t{text}{}", screen::clean(&name), mark(answer));
                        bar.suspend(|| screen::print(&line))?;
                    }
                }
            }
            // It is the first that failed.
            Err(error) => {
                if let Some((name, _)) = open.pop_front() {
                    failed(&bar, error, &name)?;
                }
            }
        }
        if is_cut {
            bar.finish_and_clear();
            return Ok(Outcome::SomeFailed);
        }
    }
    bar.finish_and_clear();
    Ok(Outcome::of(failures))
}

/// An answer's fields, and what it is about.
fn with(answer: &Answer, what: Value) -> serde_json::Result<Value> {
    let mut line = serde_json::to_value(answer)?;
    if let (Some(line), Value::Object(what)) = (line.as_object_mut(), what) {
        line.extend(what);
    }
    Ok(line)
}

/// Says what went wrong with a picture while others go on.
fn tell_failure(error: &anyhow::Error, mut what: Value, as_json: bool) -> anyhow::Result<()> {
    screen::error(&format!("{error:#}"));
    if as_json {
        what["error"] = json!(format!("{error:#}"));
        screen::json(&what)?;
    }
    Ok(())
}

fn require(engine: &Engine) -> Result<(), Usage> {
    if engine.sees() {
        return Ok(());
    }
    let name = engine.name();
    Err(Usage(say!(
        "{name} cannot speak about pictures: take a LLaVA, Idefics 3 or SmolVLM model",
        "{name}은(는) 그림에 관해 말하지 못합니다: LLaVA, Idefics 3, SmolVLM 모델을 고르세요"
    )))
}
