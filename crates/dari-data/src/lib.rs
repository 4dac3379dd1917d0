//! Pictures and words as the models want them: decoding, resizing, tokens, data sets.
//!
//! Everything here is exact: preprocessing equals the reference library's to the last bit or says
//! by how much it differs. Here live [`image`], [`text`], [`datasets`] and the synthetic
//! [`scenes`]. No tensor library, no model and no training loop may be named here.

pub mod datasets;
pub mod image;
pub mod scenes;
pub mod text;
