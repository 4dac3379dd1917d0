//! What the library's callers may meet.

/// An error of the library.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A model could not be loaded or run.
    #[error(transparent)]
    Model(#[from] dari_models::Error),
    /// An option that cannot be taken.
    #[error("{option} is `{found}`: {expected}")]
    Option {
        /// The option.
        option: &'static str,
        /// What was given.
        found: String,
        /// What would do.
        expected: String,
    },
    /// The model loaded, but gave no answer, or one that is no number.
    #[error("{model}: {problem}")]
    Forward {
        /// The model.
        model: String,
        /// What happened.
        problem: String,
    },
    /// A part of a picture that does not lie in it.
    #[error("{file}: the part {crop:?} (left, top, width, height) lies outside its {size:?} pixels")]
    Crop {
        /// The picture.
        file: String,
        /// Left, top, width and height.
        crop: [u32; 4],
        /// The picture's width and height.
        size: [u32; 2],
    },
    /// The model cannot do this.
    #[error("{model} cannot {what}: {instead}")]
    Unable {
        /// The model.
        model: String,
        /// What was asked.
        what: &'static str,
        /// What can.
        instead: &'static str,
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

/// A result of the library.
pub type Result<T, E = Error> = std::result::Result<T, E>;
