//! What can go wrong between a file's bytes and a model's pixels.

use std::io;

/// A decoder's message as one line of bounded length.
pub(super) fn one_line(message: &str) -> String {
    let words: Vec<&str> = message.split_whitespace().collect();
    words.join(" ").chars().take(200).collect()
}

/// A picture or an image processor's configuration that cannot be used; each message is one line and
/// names the file or the field, what was found, and the way out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file could not be read.
    #[error("{name}: cannot read the picture: {source}")]
    Read {
        /// The file.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// The file could not be written.
    #[error("{name}: cannot write the picture: {detail}")]
    Write {
        /// The file.
        name: String,
        /// What the system or the encoder said.
        detail: String,
    },
    /// No bytes at all.
    #[error("{name}: the file is empty (0 bytes), so it is no picture; fetch or export it again")]
    Empty {
        /// The file.
        name: String,
    },
    /// The bytes begin like no picture this library reads.
    #[error("{name}: not a picture: it begins with {found}; give a JPEG, PNG, WebP, GIF, BMP or TIFF file")]
    NotPicture {
        /// The file.
        name: String,
        /// The first bytes, and what they are if known.
        found: String,
    },
    /// A picture in a variant of its format that is not read.
    #[error("{name}: this kind of {format} is not read: {detail}; save it as an ordinary PNG or JPEG")]
    Unsupported {
        /// The file.
        name: String,
        /// The format's name.
        format: &'static str,
        /// The variant.
        detail: String,
    },
    /// The file ends before its picture does.
    #[error("{name}: the {format} picture is cut short: {detail}; fetch or export it again")]
    Truncated {
        /// The file.
        name: String,
        /// The format's name.
        format: &'static str,
        /// Where it ends.
        detail: String,
    },
    /// The bytes contradict themselves.
    #[error("{name}: the {format} picture is damaged: {detail}; fetch or export it again")]
    Damaged {
        /// The file.
        name: String,
        /// The format's name.
        format: &'static str,
        /// What the decoder said.
        detail: String,
    },
    /// More bytes in the file than allowed.
    #[error(
        "{name}: the file has {found} bytes, over the limit of {limit}; shrink it or raise max_file_bytes"
    )]
    FileTooLarge {
        /// The file.
        name: String,
        /// Its size in bytes.
        found: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// More pixels in the header than allowed; told before anything is decoded.
    #[error(
        "{name}: the {format} picture is {width} x {height} pixels, over the limit of {limit}; shrink it or raise {option}"
    )]
    TooLarge {
        /// The file.
        name: String,
        /// The format's name.
        format: &'static str,
        /// Width the header gives, in pixels.
        width: u64,
        /// Height the header gives, in pixels.
        height: u64,
        /// The limit in words.
        limit: String,
        /// The field of [`Limits`](super::Limits) to raise.
        option: &'static str,
    },
    /// The bytes handed over do not fill the picture.
    #[error(
        "a picture of {width} x {height} pixels needs {expected} bytes of RGB and both sides above 0, {found} bytes were given"
    )]
    Shape {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// `width * height * 3`.
        expected: u64,
        /// Bytes given.
        found: u64,
    },
    /// A field of the processor's configuration that cannot be followed.
    #[error("image processor: {field} is {found}; expected {expected}")]
    Config {
        /// The field.
        field: String,
        /// What it holds.
        found: String,
        /// What it may hold.
        expected: String,
    },
}
