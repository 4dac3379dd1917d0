//! SigLIP's tokenizer as transformers runs it (`SiglipTokenizer` over the SentencePiece library):
//! canonical text, SentencePiece's own normalisation, then the unigram model of `tokenizer.json`.
//!
//! The normalisation is done here, not by the `Precompiled` step of the tokenizers crate: that one
//! looks up whole graphemes of at most five bytes and then single characters, where SentencePiece
//! takes the longest entry, so that decomposed Hangul (NFD, as file names have it) and combining
//! marks come out differently.

use serde_json::Value;
use tokenizers::{Model, ModelWrapper, Tokenizer};

use super::clean::{canonicalize, is_space};
use super::settings::Settings;

/// SentencePiece's word boundary.
const BOUNDARY: char = '\u{2581}';

struct Special {
    content: String,
    id: u32,
    strips_left: bool,
    strips_right: bool,
}

pub(super) struct SiglipPieces {
    model: ModelWrapper,
    characters: Option<CharacterMap>,
    special: Vec<Special>,
    lower: bool,
    dummy_prefix: bool,
    unknown: String,
    unknown_length: usize,
    pub end: u32,
}

impl SiglipPieces {
    /// Nothing if the tokenizer is no unigram model: then `tokenizer.json` says all there is.
    pub fn new(
        tokenizer: &Tokenizer,
        normalizer: &Value,
        settings: &Settings,
    ) -> Result<Option<SiglipPieces>, String> {
        let model = tokenizer.get_model().clone();
        if !matches!(model, ModelWrapper::Unigram(_)) {
            return Ok(None);
        }
        let mut special: Vec<Special> = Vec::new();
        for (role, usual) in [("unk_token", "<unk>"), ("eos_token", "</s>"), ("pad_token", "</s>")] {
            let token = settings.token(role);
            let flag = |name: &str| {
                let flags = token.as_ref().and_then(|t| t.flags.as_ref());
                flags.is_none_or(|f| f.get(name).and_then(Value::as_bool).unwrap_or(false))
            };
            let (strips_left, strips_right) = (flag("lstrip"), flag("rstrip"));
            let content = token.map_or(usual.to_owned(), |t| t.content);
            let id = tokenizer.token_to_id(&content).ok_or_else(|| {
                format!("{role} {content:?} is not in the vocabulary; expected one of its tokens")
            })?;
            special.push(Special { content, id, strips_left, strips_right });
        }
        let (Some(unknown), Some(end)) = (special.first(), special.get(1)) else {
            return Ok(None);
        };
        let mut pieces = SiglipPieces {
            model,
            characters: find_character_map(normalizer)?,
            lower: settings.flag("do_lower_case").unwrap_or(true),
            dummy_prefix: settings.flag("legacy").unwrap_or(true),
            unknown: unknown.content.clone(),
            unknown_length: 0,
            end: end.id,
            special,
        };
        let unknown = pieces.pieces(&pieces.unknown).map_err(|error| error.to_string())?;
        pieces.unknown_length = unknown.len();
        Ok(Some(pieces))
    }

    /// The ids of a text, without the end token.
    pub fn encode(&self, text: &str) -> tokenizers::Result<Vec<u32>> {
        let text: String = std::iter::once(BOUNDARY)
            .chain(text.chars().map(|c| if c == BOUNDARY { ' ' } else { c }))
            .collect();
        let mut ids = Vec::new();
        let mut rest = text.as_str();
        let mut strip_left = false;
        let mut second_is_special = false;
        loop {
            let found = self
                .special
                .iter()
                .filter_map(|special| Some((rest.find(&special.content)?, special)))
                .min_by_key(|(at, special)| (*at, usize::MAX - special.content.len()));
            let mut part = found.map_or(rest, |(at, _)| rest.get(..at).unwrap_or_default());
            if strip_left {
                part = part.trim_start_matches(is_space);
            }
            if found.is_some_and(|(_, special)| special.strips_left) {
                part = part.trim_end_matches(is_space);
            }
            if !part.is_empty() {
                let canonical = canonicalize(part, self.lower);
                // A prefix keeps SentencePiece from adding a boundary of its own.
                let pieces = self.pieces(&format!("{}{canonical}", self.unknown))?;
                let skip = if pieces.len() >= self.unknown_length { self.unknown_length } else { 0 };
                ids.extend(pieces.into_iter().skip(skip));
            }
            let Some((at, special)) = found else { break };
            second_is_special |= ids.len() == 1;
            ids.push(special.id);
            strip_left = special.strips_right;
            rest = rest.get(at + special.content.len()..).unwrap_or_default();
        }
        // A boundary alone before a special token is dropped.
        if second_is_special && ids.first().copied() == self.model.token_to_id("\u{2581}") {
            ids.remove(0);
        }
        Ok(ids)
    }

    fn pieces(&self, text: &str) -> tokenizers::Result<Vec<u32>> {
        let tokens = self.model.tokenize(&self.normalize(text))?;
        Ok(tokens.into_iter().map(|token| token.id).collect())
    }

    /// SentencePiece's normalisation: characters by the map, one boundary for a run of spaces, none
    /// at the end, one at the start.
    fn normalize(&self, text: &str) -> String {
        let mut normalized = String::with_capacity(text.len() + 3);
        let mut after_space = true;
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let (mapped, length) = self
                .characters
                .as_ref()
                .and_then(|map| map.longest(rest))
                .or_else(|| rest.split_at_checked(first.len_utf8()).map(|(c, _)| (c, c.len())))
                .unwrap_or(("", first.len_utf8()));
            let mapped = if after_space { mapped.trim_start_matches(' ') } else { mapped };
            if !mapped.is_empty() {
                if normalized.is_empty() && self.dummy_prefix {
                    normalized.push(BOUNDARY);
                }
                normalized.extend(mapped.chars().map(|c| if c == ' ' { BOUNDARY } else { c }));
                after_space = mapped.ends_with(' ');
            }
            rest = rest.get(length..).unwrap_or_default();
        }
        let kept = normalized.trim_end_matches(BOUNDARY).len();
        normalized.truncate(kept);
        normalized
    }
}

/// The first `precompiled_charsmap` of a normalizer.
fn find_character_map(normalizer: &Value) -> Result<Option<CharacterMap>, String> {
    let steps = match normalizer.get("normalizers").and_then(Value::as_array) {
        Some(steps) => steps.as_slice(),
        None => std::slice::from_ref(normalizer),
    };
    let encoded = steps.iter().find_map(|step| step.get("precompiled_charsmap")?.as_str());
    match encoded.filter(|text| !text.is_empty()) {
        None => Ok(None),
        Some(text) => decode_base64(text)
            .and_then(|bytes| CharacterMap::new(&bytes))
            .map(Some)
            .ok_or_else(|| "precompiled_charsmap is damaged; fetch the file again".into()),
    }
}

/// SentencePiece's compiled normalisation rules: a double-array trie of byte strings (Darts-clone's
/// format), whose leaves point into a list of strings that end in a null.
struct CharacterMap {
    trie: Vec<u32>,
    strings: String,
}

impl CharacterMap {
    fn new(bytes: &[u8]) -> Option<CharacterMap> {
        let (size, rest) = bytes.split_first_chunk::<4>()?;
        let (trie, strings) = rest.split_at_checked(u32::from_le_bytes(*size) as usize)?;
        if trie.is_empty() || !trie.len().is_multiple_of(4) {
            return None;
        }
        let unit = |bytes: &[u8]| bytes.iter().rev().fold(0, |sum, &b| sum << 8 | u32::from(b));
        let trie = trie.chunks_exact(4).map(unit).collect();
        Some(CharacterMap { trie, strings: std::str::from_utf8(strings).ok()?.to_owned() })
    }

    /// What the longest entry that begins the text becomes, and its length in bytes.
    fn longest(&self, text: &str) -> Option<(&str, usize)> {
        let offset = |unit: u32| ((unit >> 10) << ((unit & 0x200) >> 6)) as usize;
        let mut place = offset(*self.trie.first()?);
        let mut found = None;
        for (at, byte) in text.bytes().enumerate() {
            place ^= usize::from(byte);
            let Some(&unit) = self.trie.get(place) else {
                break;
            };
            if unit & 0x8000_00ff != u32::from(byte) {
                break;
            }
            place ^= offset(unit);
            if unit & 0x100 != 0
                && let Some(&leaf) = self.trie.get(place)
            {
                found = Some(((leaf & 0x7fff_ffff) as usize, at + 1));
            }
        }
        let (start, length) = found?;
        // A length inside a character would be a damaged map.
        if !text.is_char_boundary(length) {
            return None;
        }
        let string = self.strings.get(start..)?;
        Some((string.split('\0').next().unwrap_or_default(), length))
    }
}

fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0_u32, 0);
    for byte in text.bytes().filter(|byte| *byte != b'=') {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    Some(bytes)
}
