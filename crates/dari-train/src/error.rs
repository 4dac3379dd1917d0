//! What can go wrong in training.

use std::path::PathBuf;

/// An error of this floor.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A model could not be built or run.
    #[error(transparent)]
    Model(#[from] dari_models::Error),
    /// A data set could not be opened.
    #[error(transparent)]
    Data(#[from] dari_data::datasets::Error),
    /// A recipe that cannot be followed.
    #[error("{origin}: {problem}")]
    Recipe {
        /// The recipe's file or option.
        origin: String,
        /// What is wrong, and the way out.
        problem: String,
    },
    /// A file could not be written or read.
    #[error("{}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        error: std::io::Error,
    },
    /// Too much of the data could not be used.
    #[error("no usable sample among {tried} tried; the last failure: {last}")]
    Unusable {
        /// How many samples were tried for one place in a batch.
        tried: usize,
        /// Why the last one failed.
        last: String,
    },
    /// The thread that prepares batches ended.
    #[error(
        "step {step}: the thread that prepares its batch ended unexpectedly; take the run up with --resume"
    )]
    Lost {
        /// The step, from 1.
        step: u64,
    },
    /// A number that is none.
    #[error(
        "step {step}: {what} is not finite; the last good checkpoint is {kept}: lower the learning rate or look at the data"
    )]
    NotFinite {
        /// The step, from 1.
        step: u64,
        /// The loss or the tensor.
        what: String,
        /// The newest checkpoint.
        kept: String,
    },
}

macro_rules! through_model {
    ($($kind:ty),*) => {$(
        impl From<$kind> for Error {
            fn from(error: $kind) -> Error {
                Error::Model(error.into())
            }
        }
    )*};
}

through_model!(
    candle_core::Error,
    dari_nn::Error,
    dari_files::Error,
    dari_data::image::Error,
    dari_data::text::Error
);

impl Error {
    pub(crate) fn file(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Error + '_ {
        |error| Error::File { path: path.to_owned(), error }
    }
}

/// A result of this floor.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error on its way through a segment.
pub(crate) fn inside(error: impl std::fmt::Display) -> dari_nn::Error {
    dari_nn::Error::Config(error.to_string())
}
