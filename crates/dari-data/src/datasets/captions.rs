//! Captions as the formats write them.

use serde_json::Value;

use super::pairs::Caption;

/// Columns and fields that hold a class; they count where nothing else is said of a picture.
pub(super) const CLASS: [&str; 2] = ["label", "class"];

/// The most bytes of captions that one picture may have.
pub(super) const TEXT_LIMIT: u64 = 1 << 20;

/// A language's code, of two or three letters.
pub(super) fn language(code: &str) -> Option<String> {
    let letters = code.bytes().all(|byte| byte.is_ascii_alphabetic());
    (letters && (2..=3).contains(&code.len())).then(|| code.to_ascii_lowercase())
}

/// The language of a name such as `caption_ko`, none for `caption`; nothing for other names.
/// `caption_id` is taken for an identifier, Indonesian is `caption_ind`.
pub(super) fn column_language(name: &str, words: &[&str]) -> Option<Option<String>> {
    words.iter().find_map(|word| {
        let rest = name.strip_prefix(word)?;
        if rest.is_empty() {
            return Some(None);
        }
        let code = rest.strip_prefix('_').filter(|code| *code != "id")?;
        language(code).map(Some)
    })
}

/// Adds the text as a caption if it is not blank.
pub(super) fn add(captions: &mut Vec<Caption>, text: &str, language: Option<&str>) {
    let text = text.trim();
    if !text.is_empty() {
        let language = language.map(str::to_owned);
        captions.push(Caption { text: text.to_owned(), language });
    }
}

/// One caption a line, blank lines aside.
pub(super) fn add_lines(captions: &mut Vec<Caption>, text: &str, language: Option<&str>) {
    for line in text.lines() {
        add(captions, line, language);
    }
}

/// UTF-8 without a byte order mark, or what is wrong with it.
pub(super) fn decode(bytes: &[u8]) -> Result<&str, String> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    std::str::from_utf8(bytes).map_err(|error| {
        let at = error.valid_up_to();
        format!("byte {at} of the text is not UTF-8; save it as UTF-8")
    })
}

/// The captions of a JSON record: under `caption`, `captions`, `text` or `title`, else under `label` or
/// `class`, with or without a language in the name, a string, a list of strings, or either by language.
pub(super) fn from_json(record: &Value) -> Result<Vec<Caption>, String> {
    let object = record.as_object().ok_or("no JSON object; expected {\"image\": ..., \"caption\": ...}")?;
    let mut captions = Vec::new();
    let mut named = false;
    for words in [&["captions", "caption", "text", "title"][..], &CLASS] {
        if named {
            break;
        }
        for (name, value) in object {
            let Some(language) = column_language(name, words) else {
                continue;
            };
            named = true;
            add_json(&mut captions, name, value, language.as_deref(), true)?;
        }
    }
    if !named {
        return Err("no \"caption\" or \"text\"; expected a caption".into());
    }
    if captions.is_empty() {
        return Err("empty caption; expected words".into());
    }
    Ok(captions)
}

fn add_json(
    captions: &mut Vec<Caption>,
    name: &str,
    value: &Value,
    language: Option<&str>,
    by_language: bool,
) -> Result<(), String> {
    match value {
        Value::Null => Ok(()),
        Value::String(text) => {
            add(captions, text, language);
            Ok(())
        }
        Value::Number(class) if CLASS.contains(&name) => {
            add(captions, &class.to_string(), language);
            Ok(())
        }
        Value::Array(texts) => texts.iter().try_for_each(|text| match text {
            Value::String(text) => {
                add(captions, text, language);
                Ok(())
            }
            other => Err(format!("{name:?} has {}; expected strings", kind(other))),
        }),
        Value::Object(languages) if by_language => {
            languages.iter().try_for_each(|(code, value)| add_json(captions, name, value, Some(code), false))
        }
        other => Err(format!(
            "{name:?} is {}; expected a string, a list of strings, or either by language",
            kind(other)
        )),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
