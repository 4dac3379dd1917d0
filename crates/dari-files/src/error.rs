//! The errors of this crate. Each is one line: the file, what was found, and the way out.

use std::path::PathBuf;

/// What can go wrong with files; every message names the file and the way out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", file.display())]
    Io {
        /// The file or folder.
        file: PathBuf,
        /// The verb: "open", "write".
        action: &'static str,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The path is not what was asked for (a folder where a file is needed, an unknown ending).
    #[error("{}: {problem}; {remedy}", file.display())]
    WrongKind {
        /// The path.
        file: PathBuf,
        /// What was found.
        problem: String,
        /// What to do.
        remedy: &'static str,
    },
    /// The file contradicts itself or its format: cut short, overwritten, or made to deceive.
    #[error("{file}: {problem}; the file is damaged, get it again")]
    Damaged {
        /// The file.
        file: String,
        /// What was found and what was expected.
        problem: String,
    },
    /// A sound file in a form that is not read.
    #[error("{file}: {problem}; {remedy}")]
    Unsupported {
        /// The file.
        file: String,
        /// What was found.
        problem: String,
        /// How to convert it.
        remedy: &'static str,
    },
    /// A pickle that asks for Python objects other than tensors; nothing of it was run.
    #[error(
        "{file} holds {global}, not only tensors; nothing was run; if you trust it, load it in \
         PyTorch and save its state_dict() alone"
    )]
    NotOnlyTensors {
        /// The file.
        file: String,
        /// The Python object's full name, such as `builtins.eval`.
        global: String,
    },
    /// The checkpoint has no tensor of that name.
    #[error("{file} has no tensor `{tensor}`; it has {held}")]
    NoTensor {
        /// The checkpoint.
        file: String,
        /// The name asked for.
        tensor: String,
        /// How many tensors there are, and one of them.
        held: String,
    },
    /// One tensor's description cannot be true.
    #[error("{file}: tensor `{tensor}` {problem}")]
    Tensor {
        /// The file.
        file: String,
        /// The tensor.
        tensor: String,
        /// What was found and what was expected.
        problem: String,
    },
    /// One name, two tensors.
    #[error("tensor `{tensor}` is in {first} and again in {second}; one of them must go")]
    Duplicate {
        /// The tensor.
        tensor: String,
        /// Where it was first.
        first: String,
        /// Where it was again.
        second: String,
    },
    /// A name inside a file points outside of the file's folder.
    #[error("{file} names `{name}`, which may leave its folder; names must be relative and without `..`")]
    Escape {
        /// The file that holds the name.
        file: String,
        /// The name.
        name: String,
    },
    /// The file is not valid JSON, or not of the expected form.
    #[error("{file}, line {line}, column {column}: {problem}")]
    Json {
        /// The file.
        file: String,
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
        /// What the JSON reader said.
        problem: String,
    },
    /// A file of the text kind is larger than any honest one.
    #[error("{file} is {bytes} bytes long, at most {limit} are read here; is it the right file?")]
    TooLarge {
        /// The file.
        file: String,
        /// Its size.
        bytes: u64,
        /// The bound.
        limit: u64,
    },
    /// The folder has no weights under any of the usual names.
    #[error("{folder} has no weights; looked for {looked_for}")]
    NoWeights {
        /// The folder.
        folder: String,
        /// The names tried, in order.
        looked_for: String,
    },
    /// The hub, its cache, or the network.
    #[error("{id}: {problem}; {remedy}")]
    Hub {
        /// The model's id.
        id: String,
        /// What happened.
        problem: String,
        /// What to do.
        remedy: String,
    },
}

impl Error {
    pub(crate) fn io(file: impl Into<PathBuf>, action: &'static str) -> impl FnOnce(std::io::Error) -> Error {
        let file = file.into();
        move |source| Error::Io { file, action, source }
    }

    pub(crate) fn damaged(file: &str, problem: impl Into<String>) -> Error {
        Error::Damaged { file: file.to_owned(), problem: problem.into() }
    }

    pub(crate) fn tensor(file: &str, tensor: &str, problem: impl Into<String>) -> Error {
        Error::Tensor { file: file.to_owned(), tensor: shown(tensor), problem: problem.into() }
    }

    pub(crate) fn json(file: &str, error: &serde_json::Error) -> Error {
        let text = error.to_string();
        // The position is in fields of its own.
        let problem = match text.rfind(" at line ") {
            Some(end) => text.get(..end).unwrap_or(&text),
            None => &text,
        };
        Error::Json {
            file: file.to_owned(),
            line: error.line(),
            column: error.column(),
            problem: shown(problem),
        }
    }
}

/// A name taken from a file, made fit for one line of a terminal: no control characters, not long.
pub(crate) fn shown(name: &str) -> String {
    const LONGEST: usize = 160;
    let mut out = String::new();
    for c in name.chars().take(LONGEST) {
        match c {
            '\'' | '"' | '\\' => out.push(c),
            _ => out.extend(c.escape_debug()),
        }
    }
    if name.chars().nth(LONGEST).is_some() {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_fit_for_a_terminal() {
        assert_eq!(shown("layer.0.weight"), "layer.0.weight");
        assert_eq!(shown("다리 \"x\""), "다리 \"x\"");
        assert_eq!(shown("a\u{1b}[2Jb\n"), "a\\u{1b}[2Jb\\n");
        assert_eq!(shown(&"x".repeat(500)).chars().count(), 161);
    }

    #[test]
    fn json_errors_name_line_and_column() {
        let wrong = serde_json::from_str::<serde_json::Value>("{\n \"a\": ,\n}").unwrap_err();
        let text = Error::json("config.json", &wrong).to_string();
        assert_eq!(text, "config.json, line 2, column 7: expected value");
    }
}
