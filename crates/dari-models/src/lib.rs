//! Encoders, language models and bridges, and the three roads that join them.
//!
//! A model's file reads like its paper's figure: it composes the blocks of `dari-nn` by the
//! checkpoint's own tensor names. The blocks stand in [`encoder`] and [`language`]; the roads stand
//! on them and never import one another. No kernel, no training loop and no file format lives here.

pub mod adapter;
pub mod auto;
pub mod bridge;
pub mod capability;
pub mod contrastive;
pub mod encoder;
pub mod generate;
pub mod generative;
pub mod language;
pub mod packed;
pub mod processor;

mod config;
mod error;

pub use auto::{Loaded, Model};
pub use error::{Error, Result};
pub use processor::Processor;
