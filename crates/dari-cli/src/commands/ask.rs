//! `dari ask` and `dari caption`: what pictures show, in words.

use std::path::{Path, PathBuf};

use dari::{Answer, Ended, Engine, Picture};
use serde_json::{Value, json};

use super::speech::{Draft, mark, speak};
use crate::Outcome;
use crate::cli::{Ask, Caption, Speaking, Usage};
use crate::inputs;
use crate::interrupt;
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
    let mut put = |files: &[PathBuf]| -> anyhow::Result<Answer> {
        let opened = files.iter().map(|file| engine.open_picture(file)).collect::<Result<Vec<_>, _>>()?;
        let pictures: Vec<&Picture> = opened.iter().collect();
        let system = system.map(|system| engine.message("system", system, 0));
        let user = engine.message("user", question, pictures.len());
        let messages: Vec<Value> = system.into_iter().chain([user]).collect();
        speak(shown, &stop, |heard| talk.answer(&json!(messages), &pictures, &asking, heard))
    };
    if together {
        let answer = put(&files)?;
        if options.json {
            let names: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
            let mut line = serde_json::to_value(&answer)?;
            line["pictures"] = json!(names);
            screen::json(&line)?;
        }
        return Ok(if answer.ended == Ended::Interrupted {
            Outcome::SomeFailed
        } else {
            Outcome::of(failures)
        });
    }
    let bar = screen::bar(files.len() as u64, "pictures");
    for file in &files {
        let name = file.display().to_string();
        let answer = put(std::slice::from_ref(file));
        bar.inc(1);
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) if crate::is_broken_pipe(&error) => return Err(error),
            Err(error) => {
                bar.suspend(|| screen::error(&format!("{error:#}")));
                if options.json {
                    bar.suspend(|| screen::json(&json!({"picture": name, "error": format!("{error:#}")})))?;
                }
                failures += 1;
                continue;
            }
        };
        if options.json {
            let mut line = serde_json::to_value(&answer)?;
            line["picture"] = json!(name);
            bar.suspend(|| screen::json(&line))?;
        } else if !alone {
            let text = screen::text(answer.text.trim()).replace('\n', " ");
            bar.suspend(|| screen::print(&format!("{}\t{text}{}", screen::clean(&name), mark(&answer))))?;
        }
        if answer.ended == Ended::Interrupted {
            bar.finish_and_clear();
            return Ok(Outcome::SomeFailed);
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
