//! What can go wrong with words.

/// Errors of tokenizer files and of tokenization.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file of the model folder could not be read.
    #[error(transparent)]
    Files(#[from] dari_files::Error),
    /// The folder has no tokenizer.
    #[error(
        "{folder}: no tokenizer found; expected tokenizer.json, or vocab.json with merges.txt, or \
         vocab.txt: copy them from where the weights came from"
    )]
    Missing {
        /// The folder.
        folder: String,
    },
    /// The folder has only a SentencePiece model.
    #[error(
        "{folder}: spiece.model alone is not read; expected tokenizer.json beside it, which \
         transformers writes once: python -c \"from transformers import T5Tokenizer as T; \
         T.from_pretrained('FOLDER', extra_ids=0).backend_tokenizer.save('FOLDER/tokenizer.json')\""
    )]
    SentencePieceOnly {
        /// The folder.
        folder: String,
    },
    /// A tokenizer file says what cannot be.
    #[error("{folder}/{file}: {problem}")]
    Invalid {
        /// The folder.
        folder: String,
        /// The file in it.
        file: &'static str,
        /// What was found, what was expected and the way out.
        problem: String,
    },
    /// A text could not be tokenized.
    #[error("{folder}: text {text:?} could not be tokenized: {problem}")]
    Encode {
        /// The folder of the tokenizer.
        folder: String,
        /// The start of the text.
        text: String,
        /// What the tokenizer said.
        problem: String,
    },
    /// Texts of unequal length, and nothing to fill the shorter ones with.
    #[error(
        "{folder}: texts of unequal length and no padding token; expected pad_token in \
         tokenizer_config.json or special_tokens_map.json, found in the vocabulary"
    )]
    NoPadding {
        /// The folder of the tokenizer.
        folder: String,
    },
    /// A chat template that cannot be read, or does not come to an end.
    #[error("{origin}: {problem}")]
    Template {
        /// The file that has it.
        origin: String,
        /// What the template said, or what it lacks.
        problem: String,
    },
    /// A tokenizer could not be trained.
    #[error("training a tokenizer: {0}")]
    Training(String),
}
