//! `dari ask` and `dari caption`: what pictures show, in words.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use dari::{Answer, Asking, Engine, Picture, Talk};
use serde_json::json;

use crate::Outcome;
use crate::cli::{Answering, Ask, Caption, ModelOptions, Usage};
use crate::inputs;
use crate::language::say;
use crate::screen;

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
    let question = Question {
        text: question,
        system: arguments.system.as_deref(),
        together: arguments.together,
        json: arguments.json,
    };
    each(&images, &question, &arguments.answering, &arguments.model)
}

/// Runs `dari caption`.
pub fn caption(arguments: &Caption) -> anyhow::Result<Outcome> {
    let usual = say!("Describe the picture in one sentence.", "그림을 한 문장으로 설명하세요.");
    let text = arguments.prompt.as_deref().unwrap_or(&usual);
    let question = Question { text, system: None, together: false, json: arguments.json };
    each(&arguments.images, &question, &arguments.answering, &arguments.model)
}

/// What is asked of pictures.
struct Question<'a> {
    text: &'a str,
    system: Option<&'a str>,
    /// Of all of them at once.
    together: bool,
    json: bool,
}

fn each(
    images: &[PathBuf],
    question: &Question,
    answering: &Answering,
    model: &ModelOptions,
) -> anyhow::Result<Outcome> {
    let asking = answering.asking()?;
    let inputs::Files { files, mut failures } = inputs::pictures(images)?;
    let engine = inputs::open(model)?;
    require(&engine)?;
    let stop = super::chat::interrupted()?;
    let mut talk = engine.talk()?;
    if question.together {
        let pictures = files.iter().map(|file| engine.open_picture(file)).collect::<Result<Vec<_>, _>>()?;
        let answer = put(&engine, &mut talk, question, &pictures, &asking, &stop, true)?;
        let names: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
        if question.json {
            let mut line = serde_json::to_value(&answer)?;
            line["pictures"] = json!(names);
            screen::json(&line)?;
        }
        return Ok(Outcome::of(failures));
    }
    // One answer comes word by word; of several each has its line.
    let alone = files.len() == 1 && !question.json;
    let bar = screen::bar(files.len() as u64, "pictures");
    for file in &files {
        let name = file.display().to_string();
        let answer = match engine.open_picture(file) {
            Ok(picture) => put(&engine, &mut talk, question, &[picture], &asking, &stop, alone),
            Err(error) => Err(error.into()),
        };
        bar.inc(1);
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                bar.suspend(|| screen::error(&format!("{error:#}")));
                if question.json {
                    bar.suspend(|| screen::json(&json!({"picture": name, "error": format!("{error:#}")})))?;
                }
                failures += 1;
                continue;
            }
        };
        if question.json {
            let mut line = serde_json::to_value(&answer)?;
            line["picture"] = json!(name);
            bar.suspend(|| screen::json(&line))?;
        } else if !alone {
            let text = screen::text(answer.text.trim()).replace('\n', " ");
            bar.suspend(|| screen::print(&format!("{}\t{text}", screen::clean(&name))))?;
        }
        if answer.ended == dari::Ended::Interrupted {
            break;
        }
    }
    bar.finish_and_clear();
    Ok(Outcome::of(failures))
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

fn put(
    engine: &Engine,
    talk: &mut Talk,
    question: &Question,
    pictures: &[Picture],
    asking: &Asking,
    stop: &AtomicBool,
    shown: bool,
) -> anyhow::Result<Answer> {
    let mut messages = Vec::new();
    if let Some(system) = question.system {
        messages.push(engine.message("system", system, 0));
    }
    messages.push(engine.message("user", question.text, pictures.len()));
    let shown = shown && !question.json;
    let mut out = std::io::stdout().lock();
    let mut broken = None;
    let answer = talk.answer(&json!(messages), pictures, asking, &mut |piece| {
        if shown && let Err(error) = write!(out, "{}", screen::text(piece)).and_then(|()| out.flush()) {
            broken = Some(error);
            return false;
        }
        !stop.load(Ordering::SeqCst)
    })?;
    if shown {
        writeln!(out)?;
    }
    match broken {
        Some(error) => Err(error.into()),
        None => Ok(answer),
    }
}
