//! Dari: pictures and words in one library.
//!
//! ```no_run
//! use dari::{Engine, Options};
//!
//! let engine = Engine::open("mini", &Options::default())?;
//! let pictures = engine.embed_files(&["samples/red-apple.png".into()]);
//! let words = engine.embed_texts(&["빨간 사과"])?;
//! println!("{}", dari::cosine(pictures[0].as_ref().unwrap(), &words[0]));
//! # Ok::<(), dari::Error>(())
//! ```
//!
//! An [`Engine`] is a loaded model, asked for what it can do: embed, compare, classify. Searching
//! is [`rank`] over embeddings. No server, no terminal and no database is compiled with this crate.
//!
//! Weights are read faster from large pages, and buffers that come again should not be asked of the system
//! again. Both are a program's own to choose; the binary does it so:
//!
//! ```no_run
//! #[global_allocator]
//! static HEAP: dari::memory::Heap = dari::memory::Heap;
//!
//! fn main() {
//!     dari::memory::keep();
//! }
//! ```

pub mod conversation;
mod devices;
mod engine;
mod error;
mod look;
mod measure;
mod names;
mod streamer;
mod talk;

pub use dari_data as data;
pub use dari_data::image::{Limits, Picture};
pub use dari_files as files;
pub use dari_kernels::memory;
pub use dari_models as models;
pub use dari_models::capability::Matching;
pub use dari_models::generate::{Ended, Guesses, Sampling};
pub use dari_nn as nn;
pub use dari_nn::Precision;
pub use dari_nn::cache::CacheFormat;
pub use devices::{automatic_precision, device, devices};
pub use engine::{Abilities, Engine, Label, Options, Ranked, Texts, cosine, label_texts, mean, rank};
pub use error::{Error, Result};
pub use look::{Places, Sources};
pub use measure::{Speech, Spoken};
pub use names::{Named, SHORT_NAMES, open_folder};
pub use talk::{Answer, Asking, Talk};

/// The name of the model in the binary.
pub const EMBEDDED: &str = "mini";

/// The name of the one in the binary that speaks about pictures.
pub const EMBEDDED_VOICE: &str = "mini-voice";
