//! `dari chat`: a conversation in the terminal.

use std::io::{BufRead as _, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use dari::conversation::{self, Problem, Said};
use dari::{Asking, Engine, Picture, Talk};
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use serde_json::{Value, json};

use super::speech::{Draft, speak};
use crate::Outcome;
use crate::cli::Chat;
use crate::inputs;
use crate::interrupt;
use crate::language::say;
use crate::screen;

/// The largest conversation that is read.
const LARGEST: u64 = 64 << 20;

/// Runs the command.
pub fn run(arguments: &Chat) -> anyhow::Result<Outcome> {
    let options = &arguments.speaking;
    let asking = options.answering.asking()?;
    let engine = inputs::open_speaker(&options.model)?;
    engine.loaded().processor.chat().map_err(dari::Error::from)?;
    let draft = Draft::open(options)?;
    let mut session = Session {
        talk: draft.talk(&engine, options)?,
        engine: &engine,
        asking,
        messages: Vec::new(),
        waiting: Vec::new(),
        json: options.json,
        stop: interrupt::flag()?,
    };
    if let Some(system) = &arguments.system {
        session.set_system(system);
    }
    for image in &arguments.images {
        session.show(image)?;
    }
    let mut failures = 0;
    let mut lines = Lines::open(&engine)?;
    while let Some(line) = lines.next()? {
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        match session.take(line) {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) if crate::is_broken_pipe(&error) => return Err(error),
            Err(error) => {
                screen::error(&format!("{error:#}"));
                failures += 1;
            }
        }
    }
    Ok(Outcome::of(if lines.is_terminal() { 0 } else { failures }))
}

/// A picture of the conversation.
struct Shown {
    path: PathBuf,
    picture: Picture,
}

/// Something that was said.
struct Message {
    role: String,
    text: String,
    /// What it is about.
    pictures: Vec<Shown>,
}

struct Session<'a> {
    engine: &'a Engine,
    talk: Talk<'a>,
    asking: Asking,
    messages: Vec<Message>,
    /// Pictures that the next message is about.
    waiting: Vec<Shown>,
    json: bool,
    stop: Arc<AtomicBool>,
}

impl Session<'_> {
    /// Does what a line says; `false` for the end.
    fn take(&mut self, line: &str) -> anyhow::Result<bool> {
        let Some(command) = line.strip_prefix('/') else {
            self.answer(line)?;
            return Ok(true);
        };
        let (name, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        let rest = rest.trim();
        match name {
            "exit" | "quit" => return Ok(false),
            "reset" => {
                self.messages.retain(|message| message.role == "system");
                self.waiting.clear();
                screen::note(&say!("the conversation begins anew", "대화를 새로 시작합니다"));
            }
            "system" if !rest.is_empty() => {
                self.set_system(rest);
                screen::note(&say!("taken", "받았습니다"));
            }
            "save" if !rest.is_empty() => {
                self.save(Path::new(rest))?;
                screen::note(&say!("saved: {rest}", "저장했습니다: {rest}"));
            }
            "load" if !rest.is_empty() => {
                self.messages = self.load(Path::new(rest))?;
                self.waiting.clear();
                let count = self.messages.len();
                screen::note(&say!("{count} messages", "메시지 {count}개"));
            }
            "image" if !rest.is_empty() => {
                self.show(Path::new(rest))?;
                screen::note(&say!("the next message is about it", "다음 메시지는 이 그림에 관한 것입니다"));
            }
            _ => screen::note(&say!(
                "/image FILE  /system TEXT  /save FILE  /load FILE  /reset  /exit; ctrl-C stops an answer",
                "/image 파일  /system 글  /save 파일  /load 파일  /reset  /exit; ctrl-C는 답을 멈춥니다"
            )),
        }
        Ok(true)
    }

    fn set_system(&mut self, text: &str) {
        self.messages.retain(|message| message.role != "system");
        let message = Message { role: "system".into(), text: text.into(), pictures: Vec::new() };
        self.messages.insert(0, message);
    }

    /// Takes a picture for the next message.
    fn show(&mut self, path: &Path) -> anyhow::Result<()> {
        if !self.engine.sees() {
            let name = self.engine.name();
            anyhow::bail!(say!("{name} sees no pictures", "{name}은(는) 그림을 보지 못합니다"));
        }
        let picture = self.engine.open_picture(path)?;
        self.waiting.push(Shown { path: path.to_owned(), picture });
        Ok(())
    }

    fn answer(&mut self, text: &str) -> anyhow::Result<()> {
        let pictures = std::mem::take(&mut self.waiting);
        self.messages.push(Message { role: "user".into(), text: text.into(), pictures });
        let told: Vec<Value> = self
            .messages
            .iter()
            .map(|message| self.engine.message(&message.role, &message.text, message.pictures.len()))
            .collect();
        let pictures = self.messages.iter().flat_map(|message| &message.pictures);
        let pictures: Vec<&Picture> = pictures.map(|shown| &shown.picture).collect();
        self.stop.store(false, Ordering::SeqCst);
        let (talk, asking) = (&mut self.talk, &self.asking);
        let answer =
            speak(!self.json, &self.stop, |heard| talk.answer(&json!(told), &pictures, asking, heard));
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                // A question that could not be asked is no part of the conversation.
                self.waiting = self.messages.pop().map(|message| message.pictures).unwrap_or_default();
                return Err(error);
            }
        };
        let said = Message { role: "assistant".into(), text: answer.text.clone(), pictures: Vec::new() };
        self.messages.push(said);
        if self.json {
            screen::json(&serde_json::to_value(&answer)?)?;
        }
        Ok(())
    }

    fn save(&self, path: &Path) -> anyhow::Result<()> {
        let said = |message: &Message| Said {
            role: message.role.clone(),
            text: message.text.clone(),
            pictures: message.pictures.iter().map(|shown| shown.path.clone()).collect(),
        };
        let messages: Vec<Said> = self.messages.iter().map(said).collect();
        let all = conversation::write(self.engine.name(), &messages);
        dari::files::write_atomically(path, serde_json::to_string_pretty(&all)?.as_bytes())?;
        Ok(())
    }

    /// Reads a saved conversation, its pictures again from their files.
    fn load(&self, path: &Path) -> anyhow::Result<Vec<Message>> {
        let read = read(path)?;
        let mut messages = Vec::with_capacity(read.len());
        for Said { role, text, pictures: paths } in read {
            if !paths.is_empty() && !self.engine.sees() {
                let name = self.engine.name();
                anyhow::bail!(say!("{name} sees no pictures", "{name}은(는) 그림을 보지 못합니다"));
            }
            let mut pictures = Vec::with_capacity(paths.len());
            for path in paths {
                let picture = self.engine.open_picture(&path)?;
                pictures.push(Shown { path, picture });
            }
            messages.push(Message { role, text, pictures });
        }
        Ok(messages)
    }
}

/// A saved conversation.
fn read(path: &Path) -> anyhow::Result<Vec<Said>> {
    let name = path.display().to_string();
    let size = std::fs::metadata(path).with_context(|| name.clone())?.len();
    if size > LARGEST {
        anyhow::bail!(say!(
            "{name}: {size} bytes, expected at most {LARGEST}",
            "{name}: {size}바이트입니다. 많아야 {LARGEST}바이트여야 합니다"
        ));
    }
    let text = std::fs::read(path).with_context(|| name.clone())?;
    conversation::parse(&text).map_err(|problem| match problem {
        Problem::Json(error) => anyhow::Error::new(error).context(name),
        Problem::Form => anyhow::anyhow!(say!(
            "{name}: not a saved conversation: expected {{\"format\": 1, \"messages\": [{{\"role\", \"content\"}}, ..]}}",
            "{name}: 저장한 대화가 아닙니다. {{\"format\": 1, \"messages\": [{{\"role\", \"content\"}}, ..]}}여야 합니다"
        )),
    })
}

/// Where lines come from: an editor with history, or what is piped in.
enum Lines {
    Editor(Box<DefaultEditor>),
    Piped(std::io::Lines<std::io::StdinLock<'static>>),
}

impl Lines {
    fn open(engine: &Engine) -> anyhow::Result<Lines> {
        if !std::io::stdin().is_terminal() {
            return Ok(Lines::Piped(std::io::stdin().lock().lines()));
        }
        let name = engine.name();
        screen::note(&say!(
            "{name}: /help tells what else there is; ctrl-D ends",
            "{name}: /help로 명령을 봅니다. ctrl-D로 끝냅니다"
        ));
        Ok(Lines::Editor(Box::new(DefaultEditor::new()?)))
    }

    fn is_terminal(&self) -> bool {
        matches!(self, Lines::Editor(_))
    }

    fn next(&mut self) -> anyhow::Result<Option<String>> {
        match self {
            Lines::Piped(lines) => Ok(lines.next().transpose()?),
            Lines::Editor(editor) => loop {
                match editor.readline("> ") {
                    Ok(line) => {
                        let _ = editor.add_history_entry(&line);
                        return Ok(Some(line));
                    }
                    // At the prompt ctrl-C leaves the line, ctrl-D the program.
                    Err(ReadlineError::Interrupted) => {}
                    Err(ReadlineError::Eof) => return Ok(None),
                    Err(error) => return Err(error.into()),
                }
            },
        }
    }
}
