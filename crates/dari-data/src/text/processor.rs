//! Texts to ids.

use std::path::Path;

use dari_files::Folder;
use tokenizers::{PostProcessor, Tokenizer, TruncationDirection};

use super::assemble::{Head, assemble, guarded, invalid};
use super::clean::Cleaning;
use super::clip_bpe::ClipBpe;
use super::error::Error;
use super::sentencepiece::SiglipPieces;
use super::settings::{Family, OpenClip, Reference, Settings, Wrapped};

/// The longest text that is tokenized, in bytes; no model reads a thousandth of it.
const TEXT_LIMIT: usize = 4 << 20;

/// A text as a model reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// Token ids, `[tokens]`.
    pub ids: Vec<u32>,
    /// 1 for a token of the text or a special token, 0 for padding, `[tokens]`.
    pub mask: Vec<u8>,
    /// The text had more tokens than the model has positions, and lost its end.
    pub truncated: bool,
}

/// To which length texts are filled up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Padding {
    /// All to the context, as CLIP and SigLIP were trained.
    Context,
    /// To the longest of their batch; one text alone is not padded.
    Longest,
}

enum Backend {
    Tokenizers(Box<Tokenizer>),
    Clip(Box<ClipBpe>),
    Siglip(Box<SiglipPieces>),
}

/// The ids of the special tokens that `class_last` puts around a text.
struct ClassLast {
    start: u32,
    end: u32,
    class: u32,
}

/// What is done to a text before a model sees it: cleaning, tokens, special tokens, the length.
pub struct TextProcessor {
    label: String,
    backend: Backend,
    cleaning: Option<Cleaning>,
    context: usize,
    padding: Padding,
    pad: Option<u32>,
    pad_left: bool,
    direction: TruncationDirection,
    separator: Option<u32>,
    class_last: Option<ClassLast>,
    end: Option<u32>,
}

impl std::fmt::Debug for TextProcessor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TextProcessor")
            .field("folder", &self.label)
            .field("context", &self.context)
            .field("padding", &self.padding)
            .finish_non_exhaustive()
    }
}

impl TextProcessor {
    /// Reads the tokenizer of a model folder; `context` is the model's number of positions, which
    /// the folder's files may lower.
    ///
    /// A folder with an `open_clip_config.json` and no `config.json` of transformers is treated as
    /// open_clip treats it, any other as transformers does.
    ///
    /// # Errors
    ///
    /// No tokenizer in the folder, one that is damaged or of an unknown kind, or a context too
    /// short for the special tokens.
    pub fn from_folder(folder: &Folder, context: usize) -> Result<TextProcessor, Error> {
        Self::read(folder, context, None)
    }

    /// The same, for a folder that serves both libraries, by the rules of the one named.
    ///
    /// # Errors
    ///
    /// As [`TextProcessor::from_folder`].
    pub fn from_folder_as(
        folder: &Folder,
        context: usize,
        reference: Reference,
    ) -> Result<TextProcessor, Error> {
        Self::read(folder, context, Some(reference))
    }

    /// Opens the folder at `path` and reads its tokenizer.
    ///
    /// # Errors
    ///
    /// As [`TextProcessor::from_folder`], or no folder there.
    pub fn open(path: &Path, context: usize) -> Result<TextProcessor, Error> {
        Self::from_folder(&Folder::open(path)?, context)
    }

    fn read(folder: &Folder, context: usize, reference: Option<Reference>) -> Result<TextProcessor, Error> {
        let settings = Settings::read(folder, reference)?;
        let assembled = assemble(folder, &settings)?;
        let (tokenizer, file) = (assembled.tokenizer, assembled.file);
        let refuse = |problem: String| invalid(folder, file, problem);

        // open_clip pads its own CLIP tokenizer with 0.
        let simple = matches!(settings.open_clip, Some(OpenClip::Simple(_)));
        let pad = if simple { Some(0) } else { find_padding(&settings, &assembled.head, &tokenizer) };
        let end = settings
            .token("eos_token")
            .or_else(|| settings.token("sep_token"))
            .and_then(|token| tokenizer.token_to_id(&token.content))
            .or_else(|| {
                ["<|endoftext|>", "</s>", "<eos>", "[SEP]"].iter().find_map(|t| tokenizer.token_to_id(t))
            });
        let (separator, class_last) = match &settings.open_clip {
            Some(OpenClip::Wrapped(wrapped)) => {
                find_wrapped(&settings, wrapped, &tokenizer).map_err(refuse)?
            }
            _ => (None, None),
        };
        let direction = match settings.side("truncation_side") {
            Some("left") if !simple => TruncationDirection::Left,
            _ => TruncationDirection::Right,
        };
        let json_left = assembled.head.padding.get("direction").and_then(|d| d.as_str()) == Some("Left");
        let pad_left = match settings.side("padding_side") {
            Some(side) => side == "left",
            None => json_left || settings.family == Family::Siglip2,
        };
        let cleaning = settings.open_clip.as_ref().map(|open_clip| match open_clip {
            OpenClip::Simple(cleaning) => *cleaning,
            OpenClip::Wrapped(wrapped) => wrapped.cleaning,
        });
        let pieces = if settings.family == Family::Siglip && !simple {
            SiglipPieces::new(&tokenizer, &assembled.head.normalizer, &settings).map_err(refuse)?
        } else {
            None
        };
        let backend = match pieces {
            _ if simple => Backend::Clip(Box::new(ClipBpe::new(&tokenizer).map_err(refuse)?)),
            Some(pieces) => Backend::Siglip(Box::new(pieces)),
            None => Backend::Tokenizers(Box::new(tokenizer)),
        };
        let processor = TextProcessor {
            label: folder.label(),
            backend,
            cleaning,
            context: context.min(settings.limit.unwrap_or(usize::MAX)),
            padding: if settings.pad_to_context { Padding::Context } else { Padding::Longest },
            pad,
            pad_left: pad_left && !simple,
            direction,
            separator,
            class_last,
            end,
        };
        let special = processor.special_tokens();
        if processor.context <= special {
            return Err(refuse(format!(
                "context of {} tokens; expected more than the {special} special tokens of a text: \
                 give the model's number of positions",
                processor.context
            )));
        }
        Ok(processor)
    }

    /// To which length texts are filled up, as the model was trained.
    pub fn padding(&self) -> Padding {
        self.padding
    }

    /// The same processor with another padding: CLIP may read texts at their natural length.
    #[must_use]
    pub fn with_padding(self, padding: Padding) -> TextProcessor {
        TextProcessor { padding, ..self }
    }

    /// The longest text in tokens, special tokens included.
    pub fn context(&self) -> usize {
        self.context
    }

    /// The id that fills up short texts, if the tokenizer has one.
    pub fn pad_id(&self) -> Option<u32> {
        self.pad
    }

    /// The token of an id, where the vocabulary can be asked.
    pub fn token(&self, id: u32) -> Option<String> {
        match &self.backend {
            Backend::Tokenizers(tokenizer) => tokenizer.id_to_token(id),
            Backend::Clip(_) | Backend::Siglip(_) => None,
        }
    }

    /// The id of a token such as `[MASK]`.
    pub fn id(&self, token: &str) -> Option<u32> {
        match &self.backend {
            Backend::Tokenizers(tokenizer) => tokenizer.token_to_id(token),
            Backend::Clip(_) | Backend::Siglip(_) => None,
        }
    }

    /// The id that ends a text (CLIP takes the text's features there), if the tokenizer has one.
    pub fn end_id(&self) -> Option<u32> {
        match &self.backend {
            Backend::Clip(clip) => Some(clip.end),
            Backend::Siglip(pieces) => Some(pieces.end),
            Backend::Tokenizers(_) => self.end,
        }
    }

    /// One text: `[context]` with [`Padding::Context`], its natural length with
    /// [`Padding::Longest`].
    ///
    /// # Errors
    ///
    /// A text of more than 4 MiB, or one that the tokenizer refuses.
    pub fn encode(&self, text: &str) -> Result<Encoded, Error> {
        let mut encoded = self.encode_bare(text)?;
        if self.padding == Padding::Context {
            self.pad_to(&mut encoded, self.context)?;
        }
        Ok(encoded)
    }

    /// Texts filled up to one length: `[texts, context]` with [`Padding::Context`], `[texts,
    /// longest]` with [`Padding::Longest`].
    ///
    /// # Errors
    ///
    /// As [`TextProcessor::encode`].
    pub fn encode_batch(&self, texts: &[&str]) -> Result<Vec<Encoded>, Error> {
        let mut batch: Vec<Encoded> =
            texts.iter().map(|text| self.encode_bare(text)).collect::<Result<_, _>>()?;
        let length = match self.padding {
            Padding::Context => self.context,
            Padding::Longest => batch.iter().map(|encoded| encoded.ids.len()).max().unwrap_or(0),
        };
        for encoded in &mut batch {
            self.pad_to(encoded, length)?;
        }
        Ok(batch)
    }

    /// How many ids every text has beside its own.
    fn special_tokens(&self) -> usize {
        match (&self.backend, &self.class_last) {
            (_, Some(_)) => 3,
            (Backend::Clip(_), _) => 2,
            (Backend::Siglip(_), _) => 1,
            (Backend::Tokenizers(tokenizer), _) => {
                tokenizer.get_post_processor().map_or(0, |processor| processor.added_tokens(false))
            }
        }
    }

    fn encode_bare(&self, text: &str) -> Result<Encoded, Error> {
        // Cut before it is cleaned and tokenized: none of what is lost could have been read.
        let cut = text.len() > TEXT_LIMIT;
        let text = if cut { &text[..text.floor_char_boundary(TEXT_LIMIT)] } else { text };
        let clean = self.cleaning.map(|cleaning| cleaning.apply(text));
        let clean = clean.as_deref().unwrap_or(text);
        let (mut ids, truncated) = guarded(|| self.tokenize(clean)).map_err(|problem| Error::Encode {
            folder: self.label.clone(),
            text: text.chars().take(40).collect(),
            problem,
        })?;
        if let Some(separator) = self.separator {
            ids.iter_mut().filter(|id| **id == separator).for_each(|id| *id = 0);
        }
        let mask = vec![1; ids.len()];
        Ok(Encoded { ids, mask, truncated: truncated || cut })
    }

    /// The ids with special tokens, cut to the context.
    fn tokenize(&self, text: &str) -> tokenizers::Result<(Vec<u32>, bool)> {
        let room = self.context.saturating_sub(self.special_tokens());
        match (&self.backend, &self.class_last) {
            (Backend::Clip(clip), _) => {
                let mut ids = vec![clip.start];
                ids.extend(clip.encode(text)?);
                let truncated = ids.len() >= self.context;
                ids.truncate(self.context.saturating_sub(1));
                ids.push(clip.end);
                Ok((ids, truncated))
            }
            (Backend::Siglip(pieces), None) => {
                let mut ids = pieces.encode(text)?;
                let truncated = cut(&mut ids, room, self.direction);
                // A text that already ends so is not ended twice.
                if ids.last() != Some(&pieces.end) {
                    ids.push(pieces.end);
                }
                Ok((ids, truncated))
            }
            (Backend::Siglip(pieces), Some(special)) => {
                Ok(self.class_last(pieces.encode(text)?, special, room))
            }
            (Backend::Tokenizers(tokenizer), Some(special)) => {
                let ids = tokenizer.encode_fast(text, false)?.get_ids().to_vec();
                Ok(self.class_last(ids, special, room))
            }
            (Backend::Tokenizers(tokenizer), None) => {
                let mut encoding = tokenizer.encode_fast(text, false)?;
                let truncated = encoding.len() > room;
                if truncated {
                    encoding.truncate(room, 0, self.direction);
                }
                Ok((tokenizer.post_process(encoding, None, true)?.get_ids().to_vec(), truncated))
            }
        }
    }

    fn class_last(&self, mut ids: Vec<u32>, special: &ClassLast, room: usize) -> (Vec<u32>, bool) {
        let truncated = cut(&mut ids, room, TruncationDirection::Right);
        ids.insert(0, special.start);
        ids.push(special.end);
        (ids, truncated)
    }

    fn pad_to(&self, encoded: &mut Encoded, length: usize) -> Result<(), Error> {
        // The class token's place is after the padding.
        let length = length.saturating_sub(usize::from(self.class_last.is_some()));
        let missing = length.saturating_sub(encoded.ids.len());
        if missing > 0 {
            let pad = self.pad.ok_or_else(|| Error::NoPadding { folder: self.label.clone() })?;
            let at = if self.pad_left { 0 } else { encoded.ids.len() };
            encoded.ids.splice(at..at, std::iter::repeat_n(pad, missing));
            encoded.mask.splice(at..at, std::iter::repeat_n(0, missing));
        }
        if let Some(special) = &self.class_last {
            encoded.ids.push(special.class);
            encoded.mask.push(1);
        }
        Ok(())
    }
}

/// Shortens to `room` ids; whether any were lost.
fn cut(ids: &mut Vec<u32>, room: usize, direction: TruncationDirection) -> bool {
    let excess = ids.len().saturating_sub(room);
    match direction {
        TruncationDirection::Left => drop(ids.drain(..excess)),
        TruncationDirection::Right => ids.truncate(room),
    }
    excess > 0
}

fn find_padding(settings: &Settings, head: &Head, tokenizer: &Tokenizer) -> Option<u32> {
    let usual: &[&str] = match settings.family {
        Family::Clip => &["<|endoftext|>"],
        Family::Siglip => &["</s>"],
        Family::Siglip2 => &["<pad>"],
        Family::Bert => &["[PAD]"],
        Family::Other => &["<pad>", "[PAD]"],
    };
    let named = settings.token("pad_token").map(|token| token.content);
    let in_file = head.padding.get("pad_token").and_then(|token| token.as_str());
    match named.as_deref().or(in_file) {
        Some(token) => tokenizer.token_to_id(token),
        None => usual.iter().find_map(|token| tokenizer.token_to_id(token)),
    }
}

fn find_wrapped(
    settings: &Settings,
    wrapped: &Wrapped,
    tokenizer: &Tokenizer,
) -> Result<(Option<u32>, Option<ClassLast>), String> {
    let id = |role: &str, usual: &str| {
        let content = settings.token(role).map_or(usual.to_owned(), |token| token.content);
        tokenizer
            .token_to_id(&content)
            .ok_or_else(|| format!("{role} {content:?} is not in the vocabulary; expected one of its tokens"))
    };
    let separator = if wrapped.strip_separator { Some(id("sep_token", "[SEP]")?) } else { None };
    let class_last = if wrapped.class_last {
        Some(ClassLast {
            start: id("bos_token", "[CLS]")?,
            end: id("eos_token", "[SEP]")?,
            class: id("cls_token", "[CLS]")?,
        })
    } else {
        None
    };
    Ok((separator, class_last))
}
