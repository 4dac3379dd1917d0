//! Texts to token ids, exactly as the library that trained a checkpoint turns them into ids.
//!
//! [`TextProcessor::from_folder`] reads `tokenizer.json`, or CLIP's `vocab.json` with `merges.txt`,
//! or BERT's `vocab.txt`. What else is done to a text is told by the folder's other files:
//!
//! | folder | before the tokens | padding |
//! | --- | --- | --- |
//! | `CLIPTokenizer` | as in its `tokenizer.json`: NFC, lower case | to the context, with the end token |
//! | `SiglipTokenizer` | lower case, no ASCII punctuation, SentencePiece's normalisation | to the context, with `</s>` |
//! | `Siglip2Tokenizer`, or a `siglip2` model | lower case | to the context, with `<pad>` |
//! | `BertTokenizer` | `do_lower_case`, `strip_accents`, `tokenize_chinese_chars` | to the longest |
//! | open_clip | ftfy, HTML unescaped twice, spaces, lower case | to the context, with 0 |
//! | open_clip with `hf_tokenizer_name` | the same, by `clean` of `tokenizer_kwargs` | to the context |
//! | any other `tokenizer.json` | as it says | to the longest |
//!
//! A SigLIP 2 checkpoint whose files say `GemmaTokenizer` and `siglip` is not lowered, because
//! transformers does not lower it either unless its `tokenizer.json` does.
//!
//! The repair that open_clip leaves to ftfy follows ftfy 6.3 (what differs is said in
//! `repair/mod.rs`), the HTML entities are those of the standard, as in Python's `html.unescape`.
//!
//! [`train_tokenizer`] makes a small tokenizer for models of our own.

mod assemble;
mod chat;
mod clean;
mod clip_bpe;
mod entities;
mod error;
pub mod gguf;
mod processor;
mod repair;
mod sentencepiece;
mod settings;
mod training;
mod words;

pub use chat::ChatTemplate;
pub use clean::Cleaning;
pub use error::Error;
pub use processor::{Encoded, Padding, TextProcessor};
pub use settings::Reference;
pub use training::{tokenizer_config, train_tokenizer};
pub use words::{Stream, Words};
