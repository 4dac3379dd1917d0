//! What can go wrong between a checkpoint and a layer.

/// An error of this floor.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read.
    #[error(transparent)]
    Files(#[from] dari_files::Error),
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
    /// The checkpoint lacks a tensor that the configuration asks for.
    #[error("{origin}: tensor `{name}` of shape {expected:?} is missing{hint}")]
    Missing {
        /// The file or folder read.
        origin: String,
        /// The tensor's full name.
        name: String,
        /// The shape that the model's configuration gives it.
        expected: Vec<usize>,
        /// What is there instead, with its leading words.
        hint: String,
    },
    /// A tensor is there in another shape.
    #[error("{origin}: tensor `{name}` has shape {found:?}, but the configuration asks for {expected:?}")]
    Shape {
        /// The file read.
        origin: String,
        /// The tensor's full name.
        name: String,
        /// The shape in the file.
        found: Vec<usize>,
        /// The shape that the model's configuration gives it.
        expected: Vec<usize>,
    },
    /// A tensor holds numbers that no layer computes with.
    #[error("{origin}: tensor `{name}` holds {found}, expected f32, f16, bf16 or f64")]
    Dtype {
        /// The file read.
        origin: String,
        /// The tensor's full name.
        name: String,
        /// The element type in the file.
        found: String,
    },
    /// A configuration that no layer can be built from.
    #[error("{0}")]
    Config(String),
}

/// A result of this floor.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error inside one of candle's operations.
pub(crate) fn candle(error: Error) -> candle_core::Error {
    match error {
        Error::Tensor(error) => error,
        other => candle_core::Error::Msg(other.to_string()),
    }
}
