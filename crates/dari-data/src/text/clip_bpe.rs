//! open_clip's own tokenizer (`open_clip.tokenizer.SimpleTokenizer`, from OpenAI's CLIP): the
//! merges of the folder's tokenizer, its own way of cutting a text into pieces and of special
//! tokens.

use tokenizers::normalizer::SplitDelimiterBehavior;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{
    Model, ModelWrapper, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, Tokenizer,
};

const START: &str = "<start_of_text>";
const END: &str = "<end_of_text>";

/// Case does not matter, so "'S" is a contraction even where a text is not lowered.
const PIECES: &str =
    r"(?i)<start_of_text>|<end_of_text>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

pub(super) struct ClipBpe {
    split: Split,
    model: ModelWrapper,
    pub start: u32,
    pub end: u32,
    /// The visible character of each byte.
    bytes: [char; 256],
}

impl ClipBpe {
    /// From a CLIP tokenizer of whatever library; its start and end tokens by either name.
    pub fn new(tokenizer: &Tokenizer) -> Result<ClipBpe, String> {
        let model = tokenizer.get_model().clone();
        if !matches!(model, ModelWrapper::BPE(_)) {
            return Err("no byte-pair model; expected CLIP's, or hf_tokenizer_name in \
                        open_clip_config.json"
                .into());
        }
        let id = |names: [&str; 2]| {
            names.iter().find_map(|name| tokenizer.token_to_id(name)).ok_or_else(|| {
                format!("neither {:?} nor {:?} in the vocabulary; expected CLIP's", names[0], names[1])
            })
        };
        let split = Split::new(SplitPattern::Regex(PIECES.into()), SplitDelimiterBehavior::Removed, true)
            .map_err(|error| error.to_string())?;
        Ok(ClipBpe {
            split,
            model,
            start: id(["<|startoftext|>", START])?,
            end: id(["<|endoftext|>", END])?,
            bytes: byte_characters(),
        })
    }

    /// The ids of a clean text, without start and end.
    pub fn encode(&self, text: &str) -> tokenizers::Result<Vec<u32>> {
        let mut pieces = PreTokenizedString::from(text);
        self.split.pre_tokenize(&mut pieces)?;
        let mut ids = Vec::new();
        for (piece, _, _) in pieces.get_splits(OffsetReferential::Original, OffsetType::Byte) {
            match piece {
                START => ids.push(self.start),
                END => ids.push(self.end),
                _ => {
                    let visible: String = piece.bytes().map(|byte| self.bytes[usize::from(byte)]).collect();
                    ids.extend(self.model.tokenize(&visible)?.into_iter().map(|token| token.id));
                }
            }
        }
        Ok(ids)
    }
}

/// The alphabet of byte-level BPE: visible characters of Latin-1 are themselves, the other bytes
/// follow from U+0100 on (GPT-2's table).
fn byte_characters() -> [char; 256] {
    let mut table = ['\0'; 256];
    let mut next = 0x100_u32;
    for (byte, character) in (0_u8..=255).zip(table.iter_mut()) {
        *character = match byte {
            b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => char::from(byte),
            _ => {
                next += 1;
                char::from_u32(next - 1).unwrap_or('\0')
            }
        };
    }
    table
}
