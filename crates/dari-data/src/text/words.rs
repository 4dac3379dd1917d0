//! The tokens of a language model, there and back.

use dari_files::Folder;
use tokenizers::Tokenizer;

use super::assemble::{assemble, guarded, invalid};
use super::error::Error;
use super::settings::Settings;

/// The longest text that is tokenized, in bytes.
const TEXT_LIMIT: usize = 64 << 20;

/// A language model's tokenizer: texts to ids without filling up or cutting, ids to texts.
pub struct Words {
    label: String,
    tokenizer: Tokenizer,
    roles: Vec<(&'static str, String)>,
}

/// The roles of special tokens that files name, as chat templates know them.
const ROLES: [&str; 5] = ["bos_token", "eos_token", "pad_token", "unk_token", "image_token"];

impl Words {
    /// Reads the tokenizer of a model folder.
    ///
    /// # Errors
    /// No tokenizer in the folder, or one that is damaged.
    pub fn from_folder(folder: &Folder) -> Result<Words, Error> {
        let settings = Settings::read(folder, None)?;
        let tokenizer = assemble(folder, &settings)?.tokenizer;
        let roles: Vec<_> =
            ROLES.into_iter().filter_map(|role| Some((role, settings.token(role)?.content))).collect();
        Ok(Words::new(folder.label(), tokenizer, roles))
    }

    /// Reads a tokenizer in the form of `tokenizer.json`; `roles` are special tokens by role.
    pub(super) fn from_json(
        folder: &Folder,
        file: &'static str,
        json: &serde_json::Value,
        roles: Vec<(&'static str, String)>,
    ) -> Result<Words, Error> {
        let tokenizer = guarded(|| Tokenizer::from_bytes(json.to_string().as_bytes()))
            .map_err(|problem| invalid(folder, file, format!("not a tokenizer: {problem}")))?;
        Ok(Words::new(folder.label(), tokenizer, roles))
    }

    fn new(label: String, tokenizer: Tokenizer, roles: Vec<(&'static str, String)>) -> Words {
        Words { label, tokenizer, roles }
    }

    /// A text's ids; with `special` whatever the tokenizer puts around it as well. Special tokens that are
    /// spelt in the text become such.
    ///
    /// # Errors
    /// A text of more than 64 MiB, or one that the tokenizer refuses.
    pub fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>, Error> {
        let refuse = |problem: String| Error::Encode {
            folder: self.label.clone(),
            text: text.chars().take(40).collect(),
            problem,
        };
        if text.len() > TEXT_LIMIT {
            return Err(refuse(format!("it has {} bytes; expected at most {TEXT_LIMIT}", text.len())));
        }
        let encoded = guarded(|| self.tokenizer.encode_fast(text, special)).map_err(refuse)?;
        Ok(encoded.get_ids().to_vec())
    }

    /// The ids of a rendered chat with pictures: special tokens are put around it unless it begins with the first
    /// of them.
    ///
    /// # Errors
    /// As [`Words::encode`].
    pub fn encode_chat(&self, text: &str) -> Result<Vec<u32>, Error> {
        let start = self.roles.iter().find(|(role, _)| *role == "bos_token").map(|(_, token)| token.as_str());
        let begun = start.is_some_and(|start| !start.is_empty() && text.starts_with(start));
        self.encode(text, !begun)
    }

    /// The text of ids; with `plain` without special tokens.
    ///
    /// # Errors
    /// What the tokenizer refuses.
    pub fn decode(&self, ids: &[u32], plain: bool) -> Result<String, Error> {
        guarded(|| self.tokenizer.decode(ids, plain)).map_err(|problem| Error::Encode {
            folder: self.label.clone(),
            text: format!("of {} tokens", ids.len()),
            problem,
        })
    }

    /// The id of a special token, which is added behind the vocabulary where it is not in it.
    ///
    /// # Errors
    /// What the tokenizer refuses.
    pub fn add_special(&mut self, token: &str) -> Result<u32, Error> {
        let added = tokenizers::AddedToken::from(token, true);
        self.tokenizer.add_special_tokens([added]).ok();
        self.tokenizer.token_to_id(token).ok_or_else(|| Error::Encode {
            folder: self.label.clone(),
            text: token.to_owned(),
            problem: "it cannot be made a token".into(),
        })
    }

    /// All special tokens by role.
    pub fn roles(&self) -> &[(&'static str, String)] {
        &self.roles
    }

    /// The text that one token after the other adds.
    pub fn stream(&self) -> Stream<'_> {
        Stream { words: self, ids: Vec::new(), read: 0, clean: 0, told: String::new() }
    }
}

impl std::fmt::Debug for Words {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Words({}, {} entries)", self.label, self.tokenizer.get_vocab_size(true))
    }
}

/// Whether a token stands for a byte: `<0x0A>`.
fn is_byte(token: &str) -> bool {
    let digits = token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    digits.is_some_and(|digits| digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Text as it comes: a token may end within a letter, which is told when it is whole.
pub struct Stream<'a> {
    words: &'a Words,
    ids: Vec<u32>,
    /// From here on tokens are read again together with a new one: their text may depend on each other.
    read: usize,
    /// The last place at which no letter was broken.
    clean: usize,
    /// What was told of the text from `read` on.
    told: String,
}

impl Stream<'_> {
    /// What one more token adds.
    ///
    /// # Errors
    /// What the tokenizer refuses.
    pub fn push(&mut self, id: u32) -> Result<String, Error> {
        self.ids.push(id);
        // A run of bytes is one text or none: it is told when it has ended.
        if self.words.tokenizer.id_to_token(id).is_some_and(|token| is_byte(&token)) {
            return Ok(String::new());
        }
        let now = self.words.decode(&self.ids[self.read..], true)?;
        // What is broken at the end may yet become a letter.
        let whole = now.trim_end_matches('\u{fffd}');
        let new = whole.strip_prefix(&self.told).unwrap_or_default().to_owned();
        self.told.push_str(&new);
        if whole.len() == now.len() {
            (self.read, self.clean) = (self.clean, self.ids.len());
            self.told = self.words.decode(&self.ids[self.read..], true)?;
        }
        Ok(new)
    }

    /// What is left at the end.
    ///
    /// # Errors
    /// What the tokenizer refuses.
    pub fn finish(self) -> Result<String, Error> {
        let now = self.words.decode(&self.ids[self.read..], true)?;
        Ok(now.strip_prefix(&self.told).unwrap_or_default().to_owned())
    }
}
