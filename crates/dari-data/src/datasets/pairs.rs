//! What a data set of pictures and captions gives.

use super::error::Error;
use crate::image::Picture;

/// What is said about a picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caption {
    /// The words, never blank.
    pub text: String,
    /// The language's code (`ko`, `en`), where the data set says it.
    pub language: Option<String>,
}

/// A picture and what is said about it.
pub struct Pair {
    /// The pair's name in its data set: a path without extension, a cell, a member's stem.
    pub key: String,
    /// The picture.
    pub picture: Picture,
    /// At least one caption.
    pub captions: Vec<Caption>,
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pair")
            .field("key", &self.key)
            .field("picture", &(self.picture.width(), self.picture.height()))
            .field("captions", &self.captions)
            .finish()
    }
}

/// Pictures with captions, each read when it is asked for by its number, so that shuffling is a
/// permutation of numbers and a training run resumes exactly. The order never depends on the
/// machine.
pub trait Pairs: Send + Sync {
    /// How many records there are, those included that turn out to be corrupt.
    fn len(&self) -> usize;

    /// Whether there is none; an opened data set always has some.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads one pair.
    ///
    /// # Errors
    ///
    /// A record that is corrupt, with its file and its line or member; the others stay readable.
    fn get(&self, index: usize) -> Result<Pair, Error>;

    /// Reads one pair's captions alone, without decoding its picture where that can be avoided.
    ///
    /// # Errors
    ///
    /// As [`Pairs::get`], but for the picture's own faults.
    fn captions(&self, index: usize) -> Result<Vec<Caption>, Error> {
        Ok(self.get(index)?.captions)
    }

    /// What it is, in one line.
    fn describe(&self) -> String;
}

/// Refuses a data set of which no pair can be read: the first that can is enough.
pub(super) fn check_usable<P: Pairs>(pairs: P, path: &std::path::Path, sought: &str) -> Result<P, Error> {
    let mut reason = None;
    for index in 0..pairs.len() {
        match pairs.get(index) {
            Ok(_) => return Ok(pairs),
            Err(error) => reason.get_or_insert(error.to_string()),
        };
    }
    let reason = match reason {
        Some(first) => format!("first of {} errors: {first}", pairs.len()),
        None => sought.to_owned(),
    };
    Err(Error::NoPairs { path: path.to_owned(), reason })
}
