//! Tokenizers from the files of a folder: `tokenizer.json` as it is, or the same built from
//! CLIP's `vocab.json` and `merges.txt` or from BERT's `vocab.txt`, as transformers builds them.

use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};

use dari_files::Folder;
use serde_json::{Map, Value, json};
use tokenizers::normalizers::{Lowercase, Sequence};
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{NormalizerWrapper, PostProcessorWrapper, Tokenizer};

use super::error::Error;
use super::settings::{Family, Settings};

/// The pieces of a text before CLIP's merges: contractions, words, single digits, the rest.
const CLIP_PIECES: &str =
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// The parts of `tokenizer.json` that are wanted beside the tokenizer itself.
#[derive(serde::Deserialize, Default)]
pub(super) struct Head {
    #[serde(default)]
    pub normalizer: Value,
    #[serde(default)]
    pub padding: Value,
}

pub(super) struct Assembled {
    pub tokenizer: Tokenizer,
    pub head: Head,
    /// The file to name in an error.
    pub file: &'static str,
}

pub(super) fn assemble(folder: &Folder, settings: &Settings) -> Result<Assembled, Error> {
    if let Some(bytes) = folder.read("tokenizer.json")? {
        let file = "tokenizer.json";
        let head: Head = serde_json::from_slice(&bytes)
            .map_err(|error| invalid(folder, file, format!("not a tokenizer: {error}")))?;
        let mut tokenizer = load(folder, file, &bytes)?;
        adapt(folder, file, settings, &mut tokenizer)?;
        return Ok(Assembled { tokenizer, head, file });
    }
    let (file, description) = if folder.has("vocab.json") && folder.has("merges.txt") {
        ("vocab.json", clip(folder, settings)?)
    } else if folder.has("vocab.txt") {
        ("vocab.txt", bert(folder, settings)?)
    } else if folder.has("spiece.model") {
        return Err(Error::SentencePieceOnly { folder: folder.label() });
    } else {
        return Err(Error::Missing { folder: folder.label() });
    };
    let tokenizer = load(folder, file, description.to_string().as_bytes())?;
    Ok(Assembled { tokenizer, head: Head::default(), file })
}

pub(super) fn invalid(folder: &Folder, file: &'static str, problem: String) -> Error {
    Error::Invalid { folder: folder.label(), file, problem }
}

/// Runs the tokenizers crate on what a stranger wrote; it panics on some of that.
pub(super) fn guarded<T>(call: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("the tokenizer's files contradict themselves".into()),
    }
}

fn load(folder: &Folder, file: &'static str, bytes: &[u8]) -> Result<Tokenizer, Error> {
    let mut tokenizer = guarded(|| Tokenizer::from_bytes(bytes)).map_err(|problem| {
        invalid(folder, file, format!("not a tokenizer: {problem}; fetch the file again"))
    })?;
    if tokenizer.get_vocab_size(true) == 0 {
        let problem = "no entries in the vocabulary; fetch the file again".into();
        return Err(invalid(folder, file, problem));
    }
    // Cutting and filling are done here, by the model's own lengths.
    tokenizer.with_padding(None);
    let cleared = tokenizer.with_truncation(None).map(|_| ());
    cleared.map_err(|error| invalid(folder, file, error.to_string()))?;
    Ok(tokenizer)
}

/// What transformers changes in a tokenizer it has read.
fn adapt(
    folder: &Folder,
    file: &'static str,
    settings: &Settings,
    tokenizer: &mut Tokenizer,
) -> Result<(), Error> {
    let normalizer = match (settings.family, tokenizer.get_normalizer().cloned()) {
        (Family::Bert, Some(NormalizerWrapper::BertNormalizer(mut bert))) => {
            bert.lowercase = settings.flag("do_lower_case").unwrap_or(bert.lowercase);
            bert.handle_chinese_chars =
                settings.flag("tokenize_chinese_chars").unwrap_or(bert.handle_chinese_chars);
            bert.strip_accents = settings.flag("strip_accents").or(bert.strip_accents);
            Some(bert.into())
        }
        (Family::Siglip2, found) if !found.as_ref().is_some_and(lowers) => {
            let steps = std::iter::once(Lowercase.into()).chain(found).collect();
            Some(NormalizerWrapper::from(Sequence::new(steps)))
        }
        _ => None,
    };
    if let Some(normalizer) = normalizer {
        guarded(|| tokenizer.with_normalizer(Some(normalizer)).map(|_| ()))
            .map_err(|problem| invalid(folder, file, problem))?;
    }
    let (start, end) = (settings.flag("add_bos_token"), settings.flag("add_eos_token"));
    let own = matches!(settings.family, Family::Clip | Family::Bert | Family::Siglip);
    if !own && (start.is_some() || end.is_some()) {
        let template = template(settings, tokenizer, start == Some(true), end == Some(true))
            .map_err(|problem| invalid(folder, file, problem))?;
        tokenizer.with_post_processor(Some(template));
    }
    Ok(())
}

fn lowers(normalizer: &NormalizerWrapper) -> bool {
    match normalizer {
        NormalizerWrapper::Lowercase(_) => true,
        NormalizerWrapper::Sequence(steps) => steps.as_ref().iter().any(lowers),
        _ => false,
    }
}

/// `<bos> text <eos>`, each only where asked for and known.
fn template(
    settings: &Settings,
    tokenizer: &Tokenizer,
    start: bool,
    end: bool,
) -> Result<PostProcessorWrapper, String> {
    let mut pieces = vec![json!({"Sequence": {"id": "A", "type_id": 0}})];
    let mut special = Map::new();
    for (wanted, role, first) in [(start, "bos_token", true), (end, "eos_token", false)] {
        let Some(token) = settings.token(role).filter(|_| wanted) else {
            continue;
        };
        let id = tokenizer.token_to_id(&token.content).ok_or_else(|| {
            format!("{role} {:?} is not in the vocabulary; expected one of its tokens", token.content)
        })?;
        let piece = json!({"SpecialToken": {"id": token.content, "type_id": 0}});
        pieces.insert(if first { 0 } else { pieces.len() }, piece);
        let entry = json!({"id": token.content, "ids": [id], "tokens": [token.content]});
        special.insert(token.content, entry);
    }
    let description = json!({"single": pieces, "pair": pieces, "special_tokens": special});
    let template: TemplateProcessing =
        serde_json::from_value(description).map_err(|error| error.to_string())?;
    Ok(template.into())
}

/// The tokenizer that transformers' `CLIPTokenizer` builds.
fn clip(folder: &Folder, settings: &Settings) -> Result<Value, Error> {
    let vocabulary = folder.json("vocab.json")?.unwrap_or_default();
    let entries = vocabulary.as_object().ok_or_else(|| {
        invalid(folder, "vocab.json", "no JSON object; expected {\"token\": id, ...}".into())
    })?;
    let text = read_text(folder, "merges.txt")?;
    let merges: Vec<Value> = text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.starts_with("#version") && !line.trim().is_empty())
        .map(|(number, line)| match *line.split_ascii_whitespace().collect::<Vec<_>>() {
            [left, right] => Ok(json!([left, right])),
            ref parts => Err(invalid(
                folder,
                "merges.txt",
                format!("line {}: {} parts; expected two", number + 1, parts.len()),
            )),
        })
        .collect::<Result<_, _>>()?;

    let named = |role: &str, usual: &str| match settings.token(role) {
        Some(token) => (token.content, token.flags),
        None => (usual.to_owned(), None),
    };
    let (start, start_flags) = named("bos_token", "<|startoftext|>");
    let (end, end_flags) = named("eos_token", "<|endoftext|>");
    let (unknown, unknown_flags) = named("unk_token", "<|endoftext|>");
    let (pad, pad_flags) = named("pad_token", "<|endoftext|>");
    let id = |token: &str| {
        entries.get(token).and_then(Value::as_u64).ok_or_else(|| {
            invalid(
                folder,
                "vocab.json",
                format!("no {token:?}; expected the special tokens of tokenizer_config.json in it"),
            )
        })
    };
    let (start_id, end_id) = (id(&start)?, id(&end)?);
    let known = [(&start, start_flags), (&end, end_flags), (&unknown, unknown_flags), (&pad, pad_flags)];
    Ok(json!({
        "version": "1.0",
        "added_tokens": added_tokens(known.map(|(t, f)| (t.as_str(), f)), |t| id(t).ok()),
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "NFC"},
            {"type": "Replace", "pattern": {"Regex": "\\s+"}, "content": " "},
            {"type": "Lowercase"},
        ]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": CLIP_PIECES}, "behavior": "Removed", "invert": true},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        ]},
        "post_processor": {"type": "RobertaProcessing", "sep": [end, end_id], "cls": [start, start_id],
            "trim_offsets": false, "add_prefix_space": false},
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": unknown,
            "continuing_subword_prefix": "", "end_of_word_suffix": "</w>", "fuse_unk": false,
            "byte_fallback": false, "ignore_merges": false, "vocab": vocabulary, "merges": merges},
    }))
}

/// The tokenizer that transformers' `BertTokenizer` builds.
fn bert(folder: &Folder, settings: &Settings) -> Result<Value, Error> {
    let text = read_text(folder, "vocab.txt")?;
    let vocabulary: Map<String, Value> =
        text.lines().enumerate().map(|(id, token)| (token.to_owned(), Value::from(id))).collect();
    let named = |role: &str, usual: &str| settings.token(role).map_or(usual.to_owned(), |t| t.content);
    let id = |token: &str| vocabulary.get(token).and_then(Value::as_u64);
    let wanted = |token: &str| {
        id(token).ok_or_else(|| {
            invalid(folder, "vocab.txt", format!("no {token:?}; expected BERT's special tokens in it"))
        })
    };
    let (unknown, separator) = (named("unk_token", "[UNK]"), named("sep_token", "[SEP]"));
    let (pad, class) = (named("pad_token", "[PAD]"), named("cls_token", "[CLS]"));
    let mask = named("mask_token", "[MASK]");
    let (separator_id, class_id) = (wanted(&separator)?, wanted(&class)?);
    wanted(&unknown)?;
    let known = [&unknown, &separator, &pad, &class, &mask].map(|token| (token.as_str(), None));
    Ok(json!({
        "version": "1.0",
        "added_tokens": added_tokens(known, id),
        "normalizer": {"type": "BertNormalizer", "clean_text": true,
            "handle_chinese_chars": settings.flag("tokenize_chinese_chars").unwrap_or(true),
            "strip_accents": settings.flag("strip_accents"),
            "lowercase": settings.flag("do_lower_case").unwrap_or(true)},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "BertProcessing", "sep": [separator, separator_id],
            "cls": [class, class_id]},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {"type": "WordPiece", "unk_token": unknown, "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocabulary},
    }))
}

/// The special tokens that the vocabulary has, each once, by id.
fn added_tokens<'a>(
    tokens: impl IntoIterator<Item = (&'a str, Option<Value>)>,
    id: impl Fn(&str) -> Option<u64>,
) -> Value {
    let mut added: Vec<(u64, Value)> = Vec::new();
    for (token, flags) in tokens {
        let Some(id) = id(token).filter(|&id| added.iter().all(|(other, _)| *other != id)) else {
            continue;
        };
        let flag =
            |name: &str| flags.as_ref().and_then(|f| f.get(name)).and_then(Value::as_bool).unwrap_or(false);
        let entry = json!({"id": id, "content": token, "single_word": flag("single_word"),
            "lstrip": flag("lstrip"), "rstrip": flag("rstrip"), "normalized": flag("normalized"),
            "special": true});
        added.push((id, entry));
    }
    added.sort_by_key(|(id, _)| *id);
    added.into_iter().map(|(_, entry)| entry).collect()
}

fn read_text(folder: &Folder, file: &'static str) -> Result<String, Error> {
    let bytes = folder.read(file)?.unwrap_or_default();
    let text = match bytes {
        Cow::Borrowed(bytes) => String::from_utf8(bytes.to_vec()),
        Cow::Owned(bytes) => String::from_utf8(bytes),
    };
    text.map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        invalid(folder, file, format!("byte {at} is not UTF-8; fetch the file again"))
    })
}
