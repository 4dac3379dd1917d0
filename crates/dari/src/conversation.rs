//! Saved conversations: `{"format": 1, "model", "messages": [{"role", "content", "pictures": [path, ..]}, ..]}`.

use std::path::PathBuf;

use serde_json::{Value, json};

/// The version of the format.
const FORMAT: u64 = 1;
/// Who may speak.
const ROLES: [&str; 3] = ["system", "user", "assistant"];

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// Its text.
    pub text: String,
    /// The files of the pictures that it is about.
    pub pictures: Vec<PathBuf>,
}

/// Why a file is no saved conversation.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// It is not JSON.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// It is JSON of another form, or of another version.
    #[error("not a saved conversation")]
    Form,
}

/// Reads a conversation; no picture is opened.
///
/// # Errors
/// Anything but a whole conversation of this format.
pub fn parse(bytes: &[u8]) -> Result<Vec<Said>, Problem> {
    let all: Value = serde_json::from_slice(bytes)?;
    let path = |path: &Value| path.as_str().map(PathBuf::from);
    let said = |message: &Value| {
        let role = message["role"].as_str().filter(|role| ROLES.contains(role))?;
        let pictures = match &message["pictures"] {
            Value::Null => Vec::new(),
            paths => paths.as_array()?.iter().map(path).collect::<Option<_>>()?,
        };
        Some(Said { role: role.to_owned(), text: message["content"].as_str()?.to_owned(), pictures })
    };
    let messages = all["messages"].as_array().filter(|_| all["format"] == FORMAT);
    messages.and_then(|messages| messages.iter().map(said).collect()).ok_or(Problem::Form)
}

/// The file of a conversation with a model of this name.
pub fn write(model: &str, messages: &[Said]) -> Value {
    let line = |said: &Said| {
        let mut line = json!({"role": said.role, "content": said.text});
        if !said.pictures.is_empty() {
            line["pictures"] = said.pictures.iter().map(|path| path.display().to_string()).collect();
        }
        line
    };
    json!({"format": FORMAT, "model": model, "messages": messages.iter().map(line).collect::<Vec<_>>()})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let said = |role: &str, text: &str, pictures: &[&str]| Said {
            role: role.into(),
            text: text.into(),
            pictures: pictures.iter().map(PathBuf::from).collect(),
        };
        let all = [said("system", "be brief", &[]), said("user", "뭐야?", &["a.png", "b.png"])];
        let file = write("m", &all).to_string();
        assert_eq!(parse(file.as_bytes()).expect("read"), all);
        // Cut anywhere it is no conversation; nothing of it is half taken.
        for end in 0..file.len() {
            assert!(parse(&file.as_bytes()[..end]).is_err(), "{end}");
        }
        for other in [
            r#"{"format":2,"messages":[]}"#,
            r#"{"format":1,"messages":[{"role":"god","content":""}]}"#,
            "[]",
        ] {
            assert!(matches!(parse(other.as_bytes()), Err(Problem::Form)), "{other}");
        }
    }

    /// Changed at random a thousand times: an answer or an error, and what is read can be written and read again.
    #[test]
    fn damaged_files_are_errors() {
        let file =
            write("m", &[Said { role: "user".into(), text: "x\n\"".into(), pictures: vec!["a".into()] }]);
        let file = file.to_string().into_bytes();
        let (mut state, mut sound) = (0x9e37_79b9_7f4a_7c15_u64, 0);
        let mut next = |bound: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % bound as u64) as usize
        };
        for _ in 0..5000 {
            let mut bytes = file.clone();
            for _ in 0..1 + next(3) {
                let at = next(bytes.len());
                match next(3) {
                    0 => bytes[at] = next(256) as u8,
                    1 => bytes.insert(at, b"{}[]\",:0\\"[next(9)]),
                    _ => drop(bytes.remove(at)),
                }
            }
            if let Ok(said) = parse(&bytes) {
                assert_eq!(parse(write("m", &said).to_string().as_bytes()).expect("read again"), said);
                sound += 1;
            }
        }
        assert!(sound > 50 && sound < 4950, "{sound}");
    }
}
