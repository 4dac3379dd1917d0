//! What can go wrong between a model folder and an answer.

/// An error of this floor.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read.
    #[error(transparent)]
    Files(#[from] dari_files::Error),
    /// A layer could not be built or run.
    #[error(transparent)]
    Layer(#[from] dari_nn::Error),
    /// A picture could not be prepared.
    #[error(transparent)]
    Picture(#[from] dari_data::image::Error),
    /// A text could not be prepared.
    #[error(transparent)]
    Text(#[from] dari_data::text::Error),
    /// A configuration that no model can be built from.
    #[error("{origin}: {problem}")]
    Config {
        /// The file.
        origin: String,
        /// What is wrong with it, and the way out.
        problem: String,
    },
    /// The model has no such ability.
    #[error("{model} cannot {what}: {instead}")]
    Unable {
        /// The model's name.
        model: String,
        /// What was asked.
        what: &'static str,
        /// What to use instead.
        instead: String,
    },
}

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Error {
        Error::Layer(error.into())
    }
}

/// A result of this floor.
pub type Result<T, E = Error> = std::result::Result<T, E>;
