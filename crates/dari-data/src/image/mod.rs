//! Pictures as the models want them: decoding, resizing and preprocessing that equal the reference
//! libraries bit for bit wherever a picture's own file format allows it.
//!
//! - [`open`] and [`decode`] give what `ImageOps.exif_transpose(Image.open(f)).convert("RGB")` gives
//!   in Pillow, and [`open_for`] and [`decode_for`] a JPEG at a part of its size where that is enough.
//! - [`resize`](mod@resize) is Pillow's `Image.resize` on RGB bytes, in the pass order of Pillow 13.
//! - [`ImageProcessor`] is the chain from a picture to `[3, height, width]` floats that
//!   transformers' `…ImageProcessorPil` classes and open_clip describe in their configuration files.

pub mod augment;
#[cfg(feature = "avif")]
mod avif;
mod classes;
mod config;
pub mod decode;
mod error;
mod gif;
#[cfg(feature = "heic")]
mod heic;
pub mod jpeg;
mod orientation;
mod picture;
mod pipeline;
pub mod processor;
pub mod resize;
mod sniff;
mod tiff;
mod tiles;

pub use decode::{Limits, Need, decode, decode_for, open, open_for};
pub use error::Error;
pub use picture::Picture;
pub use processor::{ImageProcessor, Pixels};
pub use resize::Filter;
pub use tiles::TileProcessor;
