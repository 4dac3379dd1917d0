//! What lies on disk: checkpoints, model folders, the hub. Bytes and headers only.
//!
//! Here live the readers and writers of weight files ([`Checkpoint`], [`safetensors`]), of model
//! folders in the Hugging Face layout ([`Folder`]) and of the hub's cache ([`hub`]). Every file is
//! taken as hostile: sizes are checked against the file before anything is allocated, and nothing
//! that a file says can run code. Not here: tensor libraries, models, tokenisation, pictures; what
//! leaves this crate is a name, a [`Dtype`], a shape and bytes.

mod archive;
mod atomic;
mod checkpoint;
mod dtype;
mod error;
mod folder;
pub mod gguf;
pub mod hub;
mod pickle;
pub mod safetensors;

pub use atomic::{write_atomically, write_with};
pub use checkpoint::Checkpoint;
pub use dtype::{Dtype, TensorView};
pub use error::Error;
pub use folder::{CONFIGS, Folder};
pub use gguf::Gguf;
