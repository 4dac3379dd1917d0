//! A small tokenizer for models of our own: byte-pair encoding for Korean and English captions.
//!
//! Texts are brought to NFKC and lower case, and cut at spaces, punctuation and single digits; a
//! word begins with `▁`, so that words never merge and pieces know whether they begin one. The
//! units are characters, for Korean whole syllables: NFKC composes jamo, and a syllable costs one
//! entry of a small vocabulary, where a byte-level alphabet spends up to two merges on it before
//! the first word is learned, and jamo would make Korean texts two to three times as long as their
//! captions in syllables. A character that is not in the vocabulary falls back to its UTF-8 bytes,
//! all 256 of which are, so nothing is ever unknown.
//!
//! The merges are counted here (Sennrich et al. 2016, arXiv:1508.07909) rather than by the
//! tokenizers crate, whose trainer breaks ties by the order of a randomly seeded hash map: the same
//! texts always give the same file.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::{Map, Value, json};
use tokenizers::normalizer::NormalizedString;
use tokenizers::{
    Normalizer, NormalizerWrapper, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer,
    PreTokenizerWrapper,
};

use super::error::Error;

const START: &str = "<|startoftext|>";
const END: &str = "<|endoftext|>";

/// The 256 bytes, and the start and end of a text.
const RESERVED: usize = 258;

/// A pair that stands once is no pattern.
const MINIMUM: u64 = 2;

/// Trains a tokenizer of at most `vocab_size` entries on captions in Korean, English or both, and
/// gives back its `tokenizer.json`, which transformers' `PreTrainedTokenizerFast` loads too. Texts
/// become `<|startoftext|> ... <|endoftext|>`, the two last ids as in CLIP; fewer entries than
/// asked for are made when the texts have no more pairs.
///
/// # Errors
///
/// Fewer than 320 entries asked for, or no letters in the texts.
pub fn train_tokenizer(texts: impl Iterator<Item = String>, vocab_size: usize) -> Result<Value, Error> {
    if vocab_size < 320 {
        return Err(Error::Training(format!(
            "vocabulary of {vocab_size}; expected at least 320, of which {RESERVED} are bytes and \
             special tokens"
        )));
    }
    let words = count_words(texts)?;
    let pieces = learn(&words, vocab_size - RESERVED)?;

    let mut vocabulary = Map::new();
    let bytes = (0..=255_u8).map(|byte| format!("<0x{byte:02X}>"));
    let tokens = bytes.chain(pieces.tokens).chain([START.to_owned(), END.to_owned()]);
    for (id, token) in tokens.enumerate() {
        vocabulary.insert(token, Value::from(id));
    }
    let (start, end) = (vocabulary.len() - 2, vocabulary.len() - 1);
    let special = |token: &str, id: usize| {
        json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true})
    };
    let start_piece = json!({"SpecialToken": {"id": START, "type_id": 0}});
    let end_piece = json!({"SpecialToken": {"id": END, "type_id": 0}});
    let text = |id: &str| json!({"Sequence": {"id": id, "type_id": 0}});
    Ok(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [special(START, start), special(END, end)],
        "normalizer": normalizer(),
        "pre_tokenizer": pre_tokenizer(),
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [start_piece, text("A"), end_piece],
            "pair": [start_piece, text("A"), end_piece, text("B"), end_piece],
            "special_tokens": {
                START: {"id": START, "ids": [start], "tokens": [START]},
                END: {"id": END, "ids": [end], "tokens": [END]},
            },
        },
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ]},
        "model": {"type": "BPE", "dropout": null, "unk_token": null,
            "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": false,
            "byte_fallback": true, "ignore_merges": false,
            "vocab": vocabulary, "merges": pieces.merges},
    }))
}

/// The `tokenizer_config.json` that goes with a tokenizer of [`train_tokenizer`], for a model of
/// `context` positions.
pub fn tokenizer_config(context: usize) -> Value {
    json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": START,
        "eos_token": END,
        "pad_token": END,
        "model_max_length": context,
        "padding_side": "right",
        "clean_up_tokenization_spaces": false,
    })
}

fn normalizer() -> Value {
    json!({"type": "Sequence", "normalizers": [
        {"type": "NFKC"},
        {"type": "Lowercase"},
        {"type": "Replace", "pattern": {"Regex": "\\s+"}, "content": " "},
        {"type": "Strip", "strip_left": true, "strip_right": true},
    ]})
}

fn pre_tokenizer() -> Value {
    json!({"type": "Sequence", "pretokenizers": [
        {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true},
        {"type": "Punctuation", "behavior": "Isolated"},
        {"type": "Digits", "individual_digits": true},
    ]})
}

/// How often each word stands in the texts, cut as the tokenizer will cut them.
fn count_words(texts: impl Iterator<Item = String>) -> Result<BTreeMap<String, u64>, Error> {
    let failed = |error: &dyn std::fmt::Display| Error::Training(error.to_string());
    let normalizer: NormalizerWrapper =
        serde_json::from_value(normalizer()).map_err(|error| failed(&error))?;
    let pre_tokenizer: PreTokenizerWrapper =
        serde_json::from_value(pre_tokenizer()).map_err(|error| failed(&error))?;
    let mut words = BTreeMap::new();
    for text in texts {
        let mut text = NormalizedString::from(text);
        normalizer.normalize(&mut text).map_err(|error| failed(&error))?;
        let mut pieces = PreTokenizedString::from(text);
        pre_tokenizer.pre_tokenize(&mut pieces).map_err(|error| failed(&error))?;
        for (word, _, _) in pieces.get_splits(OffsetReferential::Normalized, OffsetType::Byte) {
            if let Some(count) = words.get_mut(word) {
                *count += 1;
            } else {
                words.insert(word.to_owned(), 1);
            }
        }
    }
    Ok(words)
}

struct Pieces {
    tokens: Vec<String>,
    merges: Vec<[String; 2]>,
}

type Pair = (usize, usize);

/// The alphabet, the commonest characters first to stay, then merges until `size` tokens.
fn learn(words: &BTreeMap<String, u64>, size: usize) -> Result<Pieces, Error> {
    let mut frequency: BTreeMap<char, u64> = BTreeMap::new();
    for (word, count) in words {
        for character in word.chars() {
            *frequency.entry(character).or_default() += count;
        }
    }
    if frequency.keys().all(|&character| character == '▁') {
        return Err(Error::Training("no letters in the texts; expected captions".into()));
    }
    // At most two thirds for characters, so that some words are learned in any script.
    let mut alphabet: Vec<(char, u64)> = frequency.into_iter().collect();
    alphabet.sort_by_key(|&(character, count)| (std::cmp::Reverse(count), character));
    alphabet.truncate(size / 3 * 2);
    alphabet.sort_by_key(|&(character, _)| character);

    let ids: HashMap<char, usize> =
        alphabet.iter().enumerate().map(|(id, &(character, _))| (character, id)).collect();
    let mut tokens: Vec<String> = alphabet.iter().map(|(character, _)| character.to_string()).collect();
    let mut known: BTreeSet<String> = tokens.iter().cloned().collect();

    // A character outside the alphabet splits its word, as its bytes will.
    let mut split: Vec<(Vec<usize>, u64)> = Vec::new();
    for (word, &count) in words {
        let mut run = Vec::new();
        for id in word.chars().map(|character| ids.get(&character)) {
            match id {
                Some(&id) => run.push(id),
                None => split.push((std::mem::take(&mut run), count)),
            }
        }
        split.push((run, count));
    }

    let mut counts: BTreeMap<Pair, u64> = BTreeMap::new();
    let mut places: HashMap<Pair, BTreeSet<usize>> = HashMap::new();
    for (index, (word, count)) in split.iter().enumerate() {
        for pair in pairs(word) {
            *counts.entry(pair).or_default() += count;
            places.entry(pair).or_default().insert(index);
        }
    }
    let mut merges = Vec::new();
    while tokens.len() < size {
        // The first of the commonest pairs, by the order in which their tokens were made.
        let best = counts.iter().max_by_key(|&(&pair, &count)| (count, std::cmp::Reverse(pair)));
        let Some((&pair, _)) = best.filter(|&(_, &count)| count >= MINIMUM) else {
            break;
        };
        let (Some(left), Some(right)) = (tokens.get(pair.0), tokens.get(pair.1)) else {
            break;
        };
        let joined = format!("{left}{right}");
        // Two ways to one token are one too many for the vocabulary.
        if !known.insert(joined.clone()) {
            counts.remove(&pair);
            continue;
        }
        merges.push([left.clone(), right.clone()]);
        let id = tokens.len();
        tokens.push(joined);
        for index in places.remove(&pair).unwrap_or_default() {
            let Some((word, count)) = split.get_mut(index) else {
                continue;
            };
            for old in pairs(word) {
                if let Some(sum) = counts.get_mut(&old) {
                    *sum = sum.saturating_sub(*count);
                }
            }
            *word = merge(word, pair, id);
            for new in pairs(word) {
                *counts.entry(new).or_default() += *count;
                places.entry(new).or_default().insert(index);
            }
        }
        counts.remove(&pair);
        counts.retain(|_, count| *count > 0);
    }
    Ok(Pieces { tokens, merges })
}

fn pairs(word: &[usize]) -> impl Iterator<Item = Pair> {
    word.iter().copied().zip(word.iter().copied().skip(1))
}

fn merge(word: &[usize], pair: Pair, id: usize) -> Vec<usize> {
    let mut merged = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((&first, tail)) = rest.split_first() {
        if first == pair.0 && tail.first() == Some(&pair.1) {
            merged.push(id);
            rest = tail.get(1..).unwrap_or_default();
        } else {
            merged.push(first);
            rest = tail;
        }
    }
    merged
}
