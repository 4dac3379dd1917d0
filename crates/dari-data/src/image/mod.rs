//! Pictures as the models want them: decoding, resizing and preprocessing that equal the reference
//! libraries bit for bit wherever a picture's own file format allows it.
//!
//! - [`open`] and [`decode`] give what `ImageOps.exif_transpose(Image.open(f)).convert("RGB")` gives
//!   in Pillow; `decode.rs` says where a lossy format may differ by a rounding step.
//! - [`resize`](mod@resize) is Pillow's `Image.resize` on RGB bytes, in the pass order of Pillow 13.
//! - [`ImageProcessor`] is the chain from a picture to `[3, height, width]` floats that
//!   transformers' `…ImageProcessorPil` classes and open_clip describe in their configuration files.

pub mod augment;
mod classes;
mod config;
pub mod decode;
mod error;
mod gif;
mod orientation;
mod picture;
mod pipeline;
pub mod processor;
pub mod resize;
mod sniff;
mod tiff;

pub use decode::{Limits, decode, open};
pub use error::Error;
pub use picture::Picture;
pub use processor::{ImageProcessor, Pixels};
pub use resize::Filter;
