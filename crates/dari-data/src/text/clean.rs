//! What the references do to a text before it is tokenized.

use super::{entities, repair};

/// open_clip's cleaning (`open_clip.tokenizer`, the option `clean`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cleaning {
    /// Repaired, unescaped, one space between words: `whitespace`, the default with a
    /// `hf_tokenizer_name`.
    Whitespace,
    /// The same in lower case: `lower`, the default of open_clip's own CLIP tokenizer.
    Lower,
    /// The same without ASCII punctuation and with underscores as spaces: `canonicalize`, SigLIP.
    Canonical,
}

impl Cleaning {
    /// The cleaning of that name.
    pub fn from_name(name: &str) -> Option<Cleaning> {
        match name {
            "whitespace" => Some(Cleaning::Whitespace),
            "lower" => Some(Cleaning::Lower),
            "canonicalize" => Some(Cleaning::Canonical),
            _ => None,
        }
    }

    /// The text after cleaning.
    pub fn apply(self, text: &str) -> String {
        let text = entities::unescape(&entities::unescape(&repair::fix_text(text)));
        match self {
            Cleaning::Whitespace => join_words(&text),
            Cleaning::Lower => join_words(&text).to_lowercase(),
            Cleaning::Canonical => {
                let bare: String = text
                    .chars()
                    .map(|character| if character == '_' { ' ' } else { character })
                    .filter(|character| !character.is_ascii_punctuation())
                    .collect();
                join_words(&bare.to_lowercase())
            }
        }
    }
}

/// SigLIP's canonical text (`SiglipTokenizer.canonicalize_text` of transformers): lower case where
/// the checkpoint says so, no ASCII punctuation, one space between words.
pub(super) fn canonicalize(text: &str, lower: bool) -> String {
    let lowered = if lower { text.to_lowercase() } else { text.to_owned() };
    let bare: String = lowered.chars().filter(|c| !c.is_ascii_punctuation()).collect();
    join_words(&bare)
}

/// White space as Python's `str.split` and `\s` see it: Unicode's and the four ASCII separators.
pub(super) fn is_space(character: char) -> bool {
    character.is_whitespace() || matches!(character, '\u{1c}'..='\u{1f}')
}

fn join_words(text: &str) -> String {
    let mut joined = String::with_capacity(text.len());
    for word in text.split(is_space).filter(|word| !word.is_empty()) {
        if !joined.is_empty() {
            joined.push(' ');
        }
        joined.push_str(word);
    }
    joined
}
