//! The safetensors format: reading its header, writing files.
//!
//! A file is 8 bytes of header length, a JSON header, and the tensors' bytes without holes
//! (<https://github.com/huggingface/safetensors#format>).

use crate::dtype::{Dtype, byte_length};
use crate::error::{Error, shown};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;

use crate::checkpoint::{Entry, MAX_RANK};

const LENGTH: usize = 8;
/// A cache line.
const LINE: usize = 64;
const METADATA: &str = "__metadata__";

/// Writes a safetensors file: through a temporary file in the same folder, fsync and rename, so a
/// crash leaves the old file or the new one.
///
/// `tensors` are (name, type, shape, little-endian row-major bytes). The metadata `format: pt` is
/// added unless given. The same input gives the same file, byte by byte.
///
/// # Errors
/// A name twice, bytes that do not fit type and shape, or what the system refuses.
pub fn write<N, S, B>(
    path: &Path,
    tensors: &[(N, Dtype, S, B)],
    metadata: &BTreeMap<String, String>,
) -> Result<(), Error>
where
    N: AsRef<str>,
    S: AsRef<[usize]>,
    B: AsRef<[u8]>,
{
    let file = path.display().to_string();
    let mut order: Vec<&(N, Dtype, S, B)> = tensors.iter().collect();
    // Whole cache lines first, so that each of them starts at one; then the widest elements, so that
    // every tensor is aligned to its element.
    order.sort_by(|a, b| {
        let ragged = |t: &(N, Dtype, S, B)| !t.3.as_ref().len().is_multiple_of(LINE);
        let width = |t: &(N, Dtype, S, B)| t.1.size();
        (ragged(a).cmp(&ragged(b)))
            .then_with(|| width(b).cmp(&width(a)))
            .then_with(|| a.0.as_ref().cmp(b.0.as_ref()))
    });

    let mut header = serde_json::Map::new();
    let mut metadata = metadata.clone();
    metadata.entry("format".to_owned()).or_insert_with(|| "pt".to_owned());
    header.insert(METADATA.to_owned(), serde_json::json!(metadata));
    let mut end = 0usize;
    for (name, dtype, shape, bytes) in order.iter().copied() {
        let (name, shape, length) = (name.as_ref(), shape.as_ref(), bytes.as_ref().len());
        if byte_length(*dtype, shape) != Some(length) {
            return Err(Error::tensor(
                &file,
                name,
                format!("of type {dtype} and shape {shape:?} cannot be {length} bytes"),
            ));
        }
        let start = end;
        end = start
            .checked_add(length)
            .ok_or_else(|| Error::tensor(&file, name, "makes the file longer than memory can be"))?;
        let info = serde_json::json!({"dtype": dtype.name(), "shape": shape, "data_offsets": [start, end]});
        if header.insert(name.to_owned(), info).is_some() {
            return Err(Error::Duplicate {
                tensor: shown(name),
                first: file.clone(),
                second: "the same list of tensors".to_owned(),
            });
        }
    }
    let mut header = serde_json::Value::Object(header).to_string().into_bytes();
    header.resize((LENGTH + header.len()).next_multiple_of(LINE) - LENGTH, b' ');

    crate::atomic::write_with(path, |out| {
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(&header)?;
        order.iter().try_for_each(|t| out.write_all(t.3.as_ref()))
    })
}

/// Reads the header of a whole file; nothing is copied but names and shapes.
pub(crate) fn read(file: &str, bytes: &[u8]) -> Result<(Vec<Entry>, BTreeMap<String, String>), Error> {
    let (header, data) = split(file, bytes)?;
    let header: Header = serde_json::from_str(header).map_err(|e| Error::json(file, &e))?;
    check(file, &header, data.len())?;

    // The crate has the last word: coverage without holes and overlaps.
    let (length, metadata) = ::safetensors::SafeTensors::read_metadata(bytes)
        .map_err(|e| Error::damaged(file, shown(&e.to_string())))?;
    let base = LENGTH.saturating_add(length);
    let mut entries = Vec::with_capacity(header.tensors.len());
    for (name, info) in header.tensors {
        let Some(agreed) = metadata.info(&name) else {
            return Err(Error::tensor(file, &name, "is lost in its own header"));
        };
        let (start, end) = agreed.data_offsets;
        let dtype = dtype_of(file, &name, &info.dtype)?;
        entries.push(Entry {
            name,
            dtype,
            shape: info.shape.0,
            start: base.saturating_add(start),
            bytes: end.saturating_sub(start),
            strides: None,
        });
    }
    Ok((entries, header.metadata))
}

/// The header's text and the bytes behind it.
fn split<'a>(file: &str, bytes: &'a [u8]) -> Result<(&'a str, &'a [u8]), Error> {
    let Some((length, rest)) = bytes.split_first_chunk::<LENGTH>() else {
        return Err(Error::damaged(
            file,
            format!("is {} bytes long, a safetensors file has at least 8", bytes.len()),
        ));
    };
    let length = u64::from_le_bytes(*length);
    let split = usize::try_from(length).ok().and_then(|length| rest.split_at_checked(length));
    let Some((header, data)) = split else {
        let left = rest.len();
        return Err(Error::damaged(file, format!("declares a header of {length} bytes, but {left} follow")));
    };
    let header = std::str::from_utf8(header)
        .map_err(|e| Error::damaged(file, format!("its header is not UTF-8: {e}")))?;
    if !header.starts_with('{') {
        return Err(Error::damaged(file, "its header does not begin with {"));
    }
    Ok((header, data))
}

/// Every tensor against its own type and shape and against the file's length.
/// Before the crate's own check, which loses repeated names and, up to 0.8.0, lets huge offsets
/// overflow.
fn check(file: &str, header: &Header, available: usize) -> Result<(), Error> {
    let mut seen = BTreeSet::new();
    for (name, info) in &header.tensors {
        if !seen.insert(name.as_str()) {
            return Err(Error::Duplicate {
                tensor: shown(name),
                first: file.to_owned(),
                second: "the same header".to_owned(),
            });
        }
        let dtype = dtype_of(file, name, &info.dtype)?;
        let (start, end) = info.data_offsets;
        let shape = &info.shape.0;
        let length = match (usize::try_from(start), usize::try_from(end)) {
            (Ok(start), Ok(end)) if end <= available => end.checked_sub(start),
            _ => None,
        };
        let Some(length) = length else {
            return Err(Error::tensor(
                file,
                name,
                format!("lies at bytes {start}..{end} of {available}; the file is damaged"),
            ));
        };
        if byte_length(dtype, shape) != Some(length) {
            return Err(Error::tensor(
                file,
                name,
                format!(
                    "of type {dtype} and shape {shape:?} cannot be {length} bytes; the file is \
                     damaged"
                ),
            ));
        }
    }
    Ok(())
}

fn dtype_of(file: &str, tensor: &str, name: &str) -> Result<Dtype, Error> {
    Dtype::from_name(name).ok_or_else(|| {
        Error::tensor(
            file,
            tensor,
            format!("has the type {}, which is not read; convert it to F32 or BF16", shown(name)),
        )
    })
}

/// A header as it stands, names repeated or not.
struct Header {
    tensors: Vec<(String, Info)>,
    metadata: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Info {
    dtype: String,
    shape: Shape,
    data_offsets: (u64, u64),
}

struct Shape(Vec<usize>);

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Header, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = Header;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let mut tensors = Vec::new();
                let mut metadata = None;
                while let Some(name) = map.next_key::<String>()? {
                    if name != METADATA {
                        tensors.push((name, map.next_value()?));
                    } else if metadata.replace(map.next_value()?).is_some() {
                        return Err(serde::de::Error::duplicate_field(METADATA));
                    }
                }
                Ok(Header { tensors, metadata: metadata.unwrap_or_default() })
            }
        }
        deserializer.deserialize_map(Names)
    }
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Shape, D::Error> {
        struct Sizes;
        impl<'de> Visitor<'de> for Sizes {
            type Value = Shape;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "at most {MAX_RANK} sizes")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Shape, A::Error> {
                let mut shape = Vec::new();
                while let Some(size) = seq.next_element()? {
                    if shape.len() == MAX_RANK {
                        return Err(serde::de::Error::invalid_length(MAX_RANK + 1, &self));
                    }
                    shape.push(size);
                }
                Ok(Shape(shape))
            }
        }
        deserializer.deserialize_seq(Sizes)
    }
}
