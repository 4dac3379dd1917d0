//! The tokenizer inside a GGUF file, as llama.cpp runs it.

use dari_files::Folder;
use dari_files::gguf::{Gguf, Value as Meta};
use serde_json::{Map, Value, json};

use super::chat::ChatTemplate;
use super::error::Error;
use super::words::Words;

/// GPT-2's pieces.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
/// LLaMA 3's.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Qwen 2's: digits apart.
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The rules of `tokenizer.ggml.pre` that are known: patterns that cut a text, one after the other.
const RULES: &[(&[&str], &[&str])] = &[
    (&["gpt-2", "gpt2", "phi-2", "jina-es", "jina-de", "mpt", "olmo", "roberta-bpe"], &[GPT2]),
    (&["smollm", "starcoder", "refact", "command-r", "codeshell"], &[r"\p{N}", GPT2]),
    (&["llama3", "llama-v3", "llama-bpe", "falcon3", "pixtral"], &[LLAMA3]),
    (&["qwen2", "deepseek-r1-qwen", "stablelm2"], &[QWEN2]),
    (
        &["default"],
        &[
            r"[\p{P}\$\+<=>\^~\|]+",
            r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
            r"\p{N}+",
            r"[0-9][0-9][0-9]",
        ],
    ),
];

const FILE: &str = "tokenizer.ggml";

/// A token's kind, by llama.cpp's numbers.
const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;
const BYTE: i64 = 6;

/// Reads the tokenizer and, where there is one, the chat template.
///
/// # Errors
/// A tokenizer of a kind that is not known, or one that contradicts itself.
pub fn words(folder: &Folder, gguf: &Gguf) -> Result<(Words, Option<ChatTemplate>), Error> {
    let refuse = |problem: String| Error::Invalid { folder: folder.label(), file: FILE, problem };
    let text = |key: &str| gguf.get(key).and_then(Meta::as_str);
    let texts = |key: &str| match gguf.get(key) {
        Some(Meta::Texts(list)) => Some(list),
        _ => None,
    };
    let Some(tokens) = texts("tokenizer.ggml.tokens") else {
        return Err(refuse("no list of tokens".into()));
    };
    let kinds = match gguf.get("tokenizer.ggml.token_type") {
        Some(Meta::Integers(kinds)) if kinds.len() == tokens.len() => kinds.clone(),
        None => vec![1; tokens.len()],
        Some(_) => return Err(refuse("as many kinds of tokens as tokens are expected".into())),
    };
    let vocabulary: Map<String, Value> =
        tokens.iter().enumerate().map(|(id, token)| (token.clone(), Value::from(id))).collect();
    let added: Vec<Value> = tokens
        .iter()
        .zip(&kinds)
        .enumerate()
        .filter(|(_, (_, kind))| [CONTROL, USER_DEFINED].contains(kind))
        .map(|(id, (token, &kind))| {
            json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": kind == CONTROL})
        })
        .collect();
    let special = |key: &str| {
        let id = gguf.get(&format!("tokenizer.ggml.{key}_token_id")).and_then(Meta::as_u64)?;
        tokens.get(usize::try_from(id).ok()?).cloned()
    };
    let flag = |key: &str| gguf.get(&format!("tokenizer.ggml.{key}")).and_then(Meta::as_bool);
    let model = text("tokenizer.ggml.model").unwrap_or_default();
    let (body, usual_start) = match model {
        "gpt2" => (byte_level(gguf, texts("tokenizer.ggml.merges"), &vocabulary, &refuse)?, false),
        "llama" => (pieces(gguf, tokens, &kinds, &vocabulary, &refuse)?, true),
        other => {
            return Err(refuse(format!(
                "a tokenizer of kind `{other}`; known are gpt2 (BPE) and llama (SentencePiece)"
            )));
        }
    };
    let mut around = vec![json!({"Sequence": {"id": "A", "type_id": 0}})];
    let mut known = Map::new();
    for (key, wanted, first) in [
        ("bos", flag("add_bos_token").unwrap_or(usual_start), true),
        ("eos", flag("add_eos_token").unwrap_or(false), false),
    ] {
        if let Some(token) = special(key).filter(|_| wanted) {
            let piece = json!({"SpecialToken": {"id": token, "type_id": 0}});
            around.insert(if first { 0 } else { around.len() }, piece);
            known.insert(token.clone(), json!({"id": token, "ids": [vocabulary[&token]], "tokens": [token]}));
        }
    }
    let mut json = body;
    json["version"] = json!("1.0");
    json["added_tokens"] = Value::from(added);
    json["post_processor"] =
        json!({"type": "TemplateProcessing", "single": around, "pair": around, "special_tokens": known});
    let roles =
        [("bos_token", "bos"), ("eos_token", "eos"), ("pad_token", "padding"), ("unk_token", "unknown")];
    let roles: Vec<_> = roles.into_iter().filter_map(|(role, key)| Some((role, special(key)?))).collect();
    let words = Words::from_json(folder, FILE, &json, roles)?;
    let chat = match text("tokenizer.chat_template") {
        Some(source) => {
            let origin = format!("{}: tokenizer.chat_template", folder.label());
            Some(ChatTemplate::new(origin, source.to_owned(), words.roles())?)
        }
        None => None,
    };
    Ok((words, chat))
}

/// BPE over bytes: GPT-2's kind.
fn byte_level(
    gguf: &Gguf,
    merges: Option<&Vec<String>>,
    vocabulary: &Map<String, Value>,
    refuse: &dyn Fn(String) -> Error,
) -> Result<Value, Error> {
    let pre = gguf.get("tokenizer.ggml.pre").and_then(Meta::as_str).unwrap_or("default");
    let Some((_, patterns)) = RULES.iter().find(|(names, _)| names.contains(&pre)) else {
        let known: Vec<&str> = RULES.iter().map(|(names, _)| names[0]).collect();
        return Err(refuse(format!("texts are cut by the rule `{pre}`; known are {}", known.join(", "))));
    };
    let mut steps: Vec<Value> = patterns
        .iter()
        .map(|pattern| json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false}))
        .collect();
    steps.push(
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}),
    );
    let mut pairs = Vec::new();
    for merge in merges.into_iter().flatten() {
        // A first part of one blank is never written: blanks are another letter here.
        match merge.split_once(' ') {
            Some((left, right)) => pairs.push(json!([left, right])),
            None => return Err(refuse(format!("a merge {merge:?}, which has no two parts"))),
        }
    }
    Ok(json!({
        "normalizer": null,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "ignore_merges": pre.starts_with("llama"), "vocab": vocabulary, "merges": pairs},
    }))
}

/// SentencePiece's BPE: pieces joined by their scores.
fn pieces(
    gguf: &Gguf,
    tokens: &[String],
    kinds: &[i64],
    vocabulary: &Map<String, Value>,
    refuse: &dyn Fn(String) -> Error,
) -> Result<Value, Error> {
    let scores = match gguf.get("tokenizer.ggml.scores") {
        Some(Meta::Floats(scores)) if scores.len() == tokens.len() => scores,
        _ => return Err(refuse("as many scores as tokens are expected".into())),
    };
    let mut merges: Vec<(f32, usize, &str, &str)> = Vec::new();
    for (id, (token, &kind)) in tokens.iter().zip(kinds).enumerate() {
        if kind == CONTROL || kind == BYTE {
            continue;
        }
        for (at, _) in token.char_indices().skip(1) {
            let (left, right) = token.split_at(at);
            if vocabulary.contains_key(left) && vocabulary.contains_key(right) {
                merges.push((scores[id], id, left, right));
            }
        }
    }
    // The best piece first; of one piece's halves those that were made first.
    let rank = |token: &str| vocabulary.get(token).and_then(Value::as_u64).unwrap_or(u64::MAX);
    merges.sort_by(|a, b| {
        b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)).then((rank(a.2), rank(a.3)).cmp(&(rank(b.2), rank(b.3))))
    });
    let merges: Vec<Value> = merges.into_iter().map(|(_, _, left, right)| json!([left, right])).collect();
    let prefix = gguf.get("tokenizer.ggml.add_space_prefix").and_then(Meta::as_bool).unwrap_or(true);
    let mut normalizers = vec![json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"})];
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if prefix {
        normalizers.insert(0, json!({"type": "Prepend", "prepend": "▁"}));
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    let unknown = gguf.get("tokenizer.ggml.unknown_token_id").and_then(Meta::as_u64).unwrap_or(0);
    Ok(json!({
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": null,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {"type": "BPE", "dropout": null, "unk_token": tokens.get(unknown as usize),
            "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": true,
            "byte_fallback": true, "ignore_merges": false, "vocab": vocabulary, "merges": merges},
    }))
}
