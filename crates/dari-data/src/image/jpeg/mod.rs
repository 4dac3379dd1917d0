//! A JPEG decoder that can decode at a half, a quarter or an eighth of the size.
//!
//! The reduction happens in the inverse DCT, as in libjpeg(-turbo) with `scale_denom`, which is what
//! Pillow's `Image.draft` uses: blocks of 8 x 8 coefficients become 4 x 4, 2 x 2 or 1 x 1 samples, and
//! subsampled colour components are reduced less, so that they need no upsampling. Pixels are the same as
//! Pillow's, at every scale, the whole size included: the transforms, the upsampling and the colour
//! conversion round as libjpeg-turbo's do.
//!
//! Read are baseline, extended sequential (8 bits) and progressive Huffman-coded JPEG (ITU T.81), in grey,
//! `YCbCr`, RGB, CMYK and YCCK, with sampling factors of 1 to 4 whose ratios are whole numbers, in one scan
//! or several. For the rest, [`Error::Unsupported`] tells the caller to try another decoder.
//!
//! A picture must be whole to its end mark. Bytes before a marker that belong to nothing are passed by, and
//! so are all after the end mark.

#![forbid(unsafe_code)]

use std::fmt;

mod band;
mod bits;
mod colour;
mod frame;
mod huffman;
mod markers;
mod planes;
mod progressive;
mod scan;
mod standard;
mod transform;
mod upsample;

use self::colour::Colour;
use self::frame::{Frame, Process};
use self::markers::{Event, Reader};
use self::planes::Planes;
use self::progressive::Progressive;

/// How much of the size to decode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scale {
    /// 1/8: one pixel for each block of 8 x 8.
    Eighth,
    /// 1/4.
    Quarter,
    /// 1/2.
    Half,
    /// All pixels.
    Whole,
}

impl Scale {
    /// All scales, smallest first.
    pub const ALL: [Scale; 4] = [Scale::Eighth, Scale::Quarter, Scale::Half, Scale::Whole];

    /// 8, 4, 2 or 1. A side of n pixels becomes n / denominator, rounded up.
    #[must_use]
    pub fn denominator(self) -> usize {
        match self {
            Scale::Eighth => 8,
            Scale::Quarter => 4,
            Scale::Half => 2,
            Scale::Whole => 1,
        }
    }
}

/// A decoded picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded {
    /// Pixels across.
    pub width: u32,
    /// Pixels down.
    pub height: u32,
    /// `height` rows of `width` pixels of red, green and blue, from the top left.
    pub pixels: Vec<u8>,
}

/// What the frame header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Pixels across, at least 1.
    pub width: u32,
    /// Pixels down, at least 1.
    pub height: u32,
    /// Colour components: 1, 3 or 4.
    pub components: u8,
}

/// Why there are no pixels.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// A kind of JPEG that is not read here; another decoder may read it.
    Unsupported(&'static str),
    /// The bytes are no whole, correct JPEG: what is wrong, and where.
    Damaged(String),
    /// Decoding would take more memory than allowed.
    TooLarge {
        /// Bytes it would take.
        needed: u64,
        /// Bytes allowed.
        limit: u64,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Unsupported(what) => write!(f, "a JPEG with {what}"),
            Error::Damaged(what) => f.write_str(what),
            Error::TooLarge { needed, limit } => {
                write!(f, "decoding it takes {needed} bytes of memory, and {limit} are allowed")
            }
        }
    }
}

impl std::error::Error for Error {}

/// Reads a JPEG up to its frame header.
///
/// # Errors
/// [`Error::Damaged`] if it is malformed up to there, [`Error::Unsupported`] if [`decode`] would give that
/// for the frame.
pub fn header(bytes: &[u8]) -> Result<Header, Error> {
    let mut reader = Reader::new(bytes, Scale::Whole)?;
    let frame = reader.find_frame()?;
    Ok(Header {
        width: frame.width as u32,
        height: frame.height as u32,
        components: frame.components.len() as u8,
    })
}

/// Decodes a JPEG at a scale, taking at most `max_bytes` of memory, the pixels included (the few
/// kilobytes of Huffman tables are not counted).
///
/// Time is bounded by the file's length and the picture's size: sequential data bring each block once, and
/// progressive scans may visit each block 100 times on average, each scan adding bits that were missing.
///
/// Orientation and colour profile are not applied. CMYK is taken as inverted, as Adobe writes it, and
/// converted as Pillow's `convert("RGB")` does.
///
/// # Errors
/// [`Error::Unsupported`] for arithmetic, lossless, hierarchical and 12-bit coding, a height that only
/// follows the first scan, a number of components other than 1, 3 and 4, sampling factors whose ratios are
/// no whole numbers, and progressive pictures that leave low coefficients unfinished (which libjpeg
/// smooths); [`Error::TooLarge`] as the sizes in the header tell, before anything is allocated;
/// [`Error::Damaged`] for all else.
pub fn decode(bytes: &[u8], scale: Scale, max_bytes: usize) -> Result<Decoded, Error> {
    let mut reader = Reader::new(bytes, scale)?;
    let mut picture = None;
    while let Event::Scan(scan) = reader.next_scan()? {
        let Some(frame) = &mut reader.frame else { break };
        // A component keeps the table that holds when its first scan begins.
        for s in &scan.components {
            if let Some(component) = frame.components.get_mut(s.component)
                && component.quant.is_none()
            {
                component.quant = reader.tables.quant.get(component.table).copied().flatten();
            }
        }
        if picture.is_none() {
            let colour = Colour::of(frame, reader.jfif, reader.adobe);
            picture = Some(Picture::new(frame, colour, scan.components.len(), max_bytes)?);
        }
        let Some(picture) = &mut picture else { break };
        reader.at = match &mut picture.coefficients {
            Some(coefficients) => coefficients.scan(bytes, reader.at, &scan, frame, &reader.tables)?,
            None => {
                for s in &scan.components {
                    if std::mem::replace(&mut picture.seen[s.component & 3], true) {
                        return Err(Error::Damaged(format!(
                            "a component is in two scans (byte {})",
                            reader.at
                        )));
                    }
                }
                reader.tables.supply(&scan);
                scan::sequential(bytes, reader.at, &scan, frame, &reader.tables, &mut picture.planes)?
            }
        };
    }
    match (picture, reader.frame) {
        (Some(mut picture), Some(frame)) => {
            if let Some(coefficients) = picture.coefficients.take() {
                coefficients.render(&frame, &mut picture.planes)?;
            }
            picture.planes.finish()
        }
        (_, None) => Err(Error::Damaged("it has no frame header".into())),
        (None, _) => Err(Error::Damaged("it ends without a scan".into())),
    }
}

/// A picture in the making.
struct Picture {
    planes: Planes,
    /// Of a progressive picture.
    coefficients: Option<Progressive>,
    /// Components that a sequential scan has brought.
    seen: [bool; 4],
}

impl Picture {
    /// Makes room, after a check that it is allowed; `first` is the number of components in the first scan.
    fn new(frame: &Frame, colour: Colour, first: usize, max_bytes: usize) -> Result<Picture, Error> {
        let progressive = frame.process == Process::Progressive;
        // The samples of a scan that lacks a component wait for it.
        let whole = !progressive && first < frame.components.len();
        let mut needed = frame.out_bytes().saturating_add(Planes::bytes(frame, whole));
        if progressive {
            needed = needed.saturating_add(Progressive::bytes(frame));
        }
        let limit = max_bytes as u64;
        if needed > limit {
            return Err(Error::TooLarge { needed, limit });
        }
        Ok(Picture {
            planes: Planes::new(frame, colour, whole),
            coefficients: progressive.then(|| Progressive::new(frame)),
            seen: [false; 4],
        })
    }
}
