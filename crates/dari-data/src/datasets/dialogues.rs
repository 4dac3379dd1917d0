//! What a data set of questions and answers gives, and the files that hold such.
//!
//! | file | what it is |
//! | --- | --- |
//! | `.json`, `.jsonl` | LLaVA's conversations: `{"image": name, "conversations": [{"from": "human", "value"}, {"from": "gpt", "value"}]}`; also `"images"`, or none |
//! | `.json` with a file of annotations | VQAv2's questions and annotations (Goyal et al. 2017) |
//! | `.txt`, `.jsonl` | plain texts: paragraphs between blank lines, or `{"text": ...}` a line |

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::captions::decode;
use super::error::Error;
use super::read_at_most;
use crate::image::{self, Limits, Picture};

/// The largest file of questions: VQAv2's annotations have 420 MB.
const LARGEST: u64 = 1 << 30;

/// A question, and what is to be said to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// What is asked; of a plain text nothing.
    pub question: String,
    /// What is answered.
    pub answer: String,
}

/// Pictures, and what is asked and answered of them.
#[derive(Debug)]
pub struct Dialogue {
    /// Shown with the first question.
    pub pictures: Vec<Picture>,
    /// At least one.
    pub turns: Vec<Turn>,
}

/// Dialogues, each read when it is asked for by its number.
pub trait Dialogues: Send + Sync {
    /// How many there are.
    fn len(&self) -> usize;

    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What is asked and answered, without the pictures.
    ///
    /// # Errors
    /// A number that is none's, or a damaged record.
    fn turns(&self, index: usize) -> Result<Vec<Turn>, Error>;

    /// Reads one.
    ///
    /// # Errors
    /// The same, or a picture that is missing or damaged.
    fn get(&self, index: usize) -> Result<Dialogue, Error>;

    /// What it is, in one line.
    fn describe(&self) -> String;
}

/// A file's records, made ready: the names of pictures with what is said.
struct Records {
    file: PathBuf,
    /// Where the pictures lie.
    folder: PathBuf,
    entries: Vec<(Vec<String>, Vec<Turn>)>,
    what: &'static str,
    limits: Limits,
}

impl Dialogues for Records {
    fn len(&self) -> usize {
        self.entries.len()
    }

    fn turns(&self, index: usize) -> Result<Vec<Turn>, Error> {
        let entry = self.entries.get(index).ok_or(Error::Index { index, length: self.entries.len() })?;
        Ok(entry.1.clone())
    }

    fn get(&self, index: usize) -> Result<Dialogue, Error> {
        let (names, turns) =
            self.entries.get(index).ok_or(Error::Index { index, length: self.entries.len() })?;
        let open = |name: &String| {
            image::open(&self.folder.join(name), &self.limits).map_err(|source| Error::Picture {
                file: self.file.clone(),
                record: format!("picture {name:?}"),
                source: Box::new(source),
            })
        };
        Ok(Dialogue { pictures: names.iter().map(open).collect::<Result<_, _>>()?, turns: turns.clone() })
    }

    fn describe(&self) -> String {
        format!("{} {}: {} of them", self.what, self.file.display(), self.entries.len())
    }
}

#[derive(Deserialize)]
struct Said {
    from: String,
    value: String,
}

/// LLaVA's conversations (Liu et al. 2023).
///
/// # Errors
/// No such file, records of another form, or none.
pub fn conversations(path: &Path, limits: &Limits) -> Result<Box<dyn Dialogues>, Error> {
    let mut entries = Vec::new();
    for (place, record) in records(path)? {
        let refuse = |problem: String| Error::record(path, &place, problem);
        let names = match (record.get("image"), record.get("images")) {
            (Some(Value::String(name)), _) => vec![name.clone()],
            (None | Some(Value::Null), None | Some(Value::Null)) => Vec::new(),
            (None, Some(Value::Array(list))) => {
                let name = |name: &Value| name.as_str().map(str::to_owned);
                let names: Option<Vec<String>> = list.iter().map(name).collect();
                names.ok_or_else(|| refuse("\"images\" is no list of names".into()))?
            }
            _ => return Err(refuse("\"image\" is no name of a file".into())),
        };
        let said = record.get("conversations").cloned().unwrap_or_default();
        let said: Vec<Said> = serde_json::from_value(said).map_err(|error| {
            refuse(format!("\"conversations\" is no list of {{\"from\", \"value\"}}: {error}"))
        })?;
        let mut turns = Vec::new();
        for pair in said.chunks(2) {
            match pair {
                [asked, told]
                    if ["human", "user"].contains(&asked.from.as_str())
                        && ["gpt", "assistant"].contains(&told.from.as_str()) =>
                {
                    // Where the picture stands is the template's affair.
                    let question = asked.value.replace("<image>", "").trim().to_owned();
                    turns.push(Turn { question, answer: told.value.trim().to_owned() });
                }
                other => {
                    let roles: Vec<&str> = other.iter().map(|said| said.from.as_str()).collect();
                    return Err(refuse(format!("turns of {roles:?}; expected human and gpt by turns")));
                }
            }
        }
        if turns.is_empty() {
            return Err(refuse("no conversation; expected at least a question and an answer".into()));
        }
        entries.push((names, turns));
    }
    let folder = pictures_of(path, entries.iter().find_map(|(names, _)| names.first()));
    gather(path, folder, entries, "conversations", limits)
}

#[derive(Deserialize)]
struct Questions {
    questions: Vec<Question>,
    data_subtype: Option<String>,
}

#[derive(Deserialize)]
struct Question {
    question_id: u64,
    image_id: u64,
    question: String,
}

#[derive(Deserialize)]
struct Annotations {
    annotations: Vec<Annotation>,
}

#[derive(Deserialize)]
struct Annotation {
    question_id: u64,
    multiple_choice_answer: String,
}

/// VQAv2's questions with the answers of a second file (Goyal et al. 2017): the one that most people gave.
///
/// # Errors
/// No such files, files of another form, or a question without its answer.
pub fn questions(path: &Path, annotations: &Path, limits: &Limits) -> Result<Box<dyn Dialogues>, Error> {
    let asked: Questions = parse(path, "VQAv2's questions, an object with \"questions\"")?;
    let answered: Annotations = parse(annotations, "VQAv2's annotations, an object with \"annotations\"")?;
    let answers: HashMap<u64, String> = answered
        .annotations
        .into_iter()
        .map(|answer| (answer.question_id, answer.multiple_choice_answer))
        .collect();
    let subtype = asked.data_subtype.unwrap_or_default();
    let forms = |id: u64| {
        let mut names = vec![format!("COCO_{subtype}_{id:012}.jpg")];
        names
            .extend(["jpg", "png"].iter().flat_map(|end| [format!("{id:012}.{end}"), format!("{id}.{end}")]));
        names
    };
    let first = asked.questions.first().map_or(0, |question| question.image_id);
    let found = forms(first).into_iter().enumerate().find_map(|(form, name)| {
        let folder = pictures_of(path, Some(&name));
        folder.join(&name).is_file().then_some((form, folder))
    });
    let (form, folder) = found.ok_or_else(|| Error::Unknown {
        path: path.to_owned(),
        problem: format!("no picture of number {first} beside it, named as {:?}", forms(first)),
    })?;
    let mut entries = Vec::with_capacity(asked.questions.len());
    for Question { question_id, image_id, question } in asked.questions {
        let answer = answers.get(&question_id).ok_or_else(|| {
            let problem = format!("no answer in {}", annotations.display());
            Error::record(path, format!("question {question_id}"), problem)
        })?;
        let turn = Turn { question, answer: answer.clone() };
        entries.push((vec![forms(image_id).swap_remove(form)], vec![turn]));
    }
    gather(path, folder, entries, "questions", limits)
}

/// Plain texts, for a language model alone.
///
/// # Errors
/// No such file, one that is no UTF-8, or no text in it.
pub fn texts(path: &Path) -> Result<Box<dyn Dialogues>, Error> {
    let plain = |text: &str| Turn { question: String::new(), answer: text.trim().to_owned() };
    let mut entries = Vec::new();
    if path.extension().is_some_and(|end| end.eq_ignore_ascii_case("txt")) {
        let bytes = read_at_most(path, LARGEST)?;
        let text = decode(&bytes).map_err(|problem| Error::record(path, "the text", problem))?;
        let text = text.replace("\r\n", "\n");
        entries.extend(text.split("\n\n").filter(|part| !part.trim().is_empty()).map(plain));
    } else {
        for (place, record) in records(path)? {
            match record.get("text").and_then(Value::as_str) {
                Some(text) if !text.trim().is_empty() => entries.push(plain(text)),
                _ => return Err(Error::record(path, place, "no \"text\"; expected words")),
            }
        }
    }
    let entries = entries.into_iter().map(|turn| (Vec::new(), vec![turn])).collect();
    gather(path, PathBuf::new(), entries, "texts", &Limits::default())
}

fn gather(
    path: &Path,
    folder: PathBuf,
    entries: Vec<(Vec<String>, Vec<Turn>)>,
    what: &'static str,
    limits: &Limits,
) -> Result<Box<dyn Dialogues>, Error> {
    if entries.is_empty() {
        return Err(Error::Unknown { path: path.to_owned(), problem: format!("no {what} in it") });
    }
    Ok(Box::new(Records { file: path.to_owned(), folder, entries, what, limits: limits.clone() }))
}

/// The records of a list, or of a file with one a line; each with its place.
fn records(path: &Path) -> Result<Vec<(String, Value)>, Error> {
    let bytes = read_at_most(path, LARGEST)?;
    let text = decode(&bytes).map_err(|problem| Error::record(path, "the file", problem))?;
    let lines =
        path.extension().is_some_and(|end| ["jsonl", "ndjson"].iter().any(|l| end.eq_ignore_ascii_case(l)));
    if lines {
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let read = |(at, line): (usize, &str)| {
            let place = format!("line {}", at + 1);
            match serde_json::from_str(line) {
                Ok(record) => Ok((place, record)),
                Err(error) => Err(Error::record(path, place, format!("no JSON: {error}"))),
            }
        };
        return lines.map(read).collect();
    }
    match serde_json::from_str(text) {
        Ok(Value::Array(list)) => {
            Ok(list.into_iter().enumerate().map(|(at, record)| (format!("record {at}"), record)).collect())
        }
        Ok(_) => Err(Error::record(path, "the file", "no list of records")),
        Err(error) => Err(Error::record(path, "the file", format!("no JSON: {error}"))),
    }
}

fn parse<T: serde::de::DeserializeOwned>(path: &Path, expected: &str) -> Result<T, Error> {
    let bytes = read_at_most(path, LARGEST)?;
    serde_json::from_slice(&bytes).map_err(|error| Error::Unknown {
        path: path.to_owned(),
        problem: format!("not {expected}: {error}"),
    })
}

/// Where the pictures of a file lie: beside it or above it, in `images`, or in a folder of the file's own split.
fn pictures_of(file: &Path, picture: Option<&String>) -> PathBuf {
    let beside = file.parent().unwrap_or(Path::new(""));
    match picture {
        Some(picture) => super::coco::folder_of(file, picture),
        None => beside.to_owned(),
    }
}
