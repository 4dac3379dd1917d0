//! GGUF, llama.cpp's file format: metadata and tensors, most of them in blocks of few bits a number.
//!
//! A file is a header, key-value pairs, descriptions of tensors, padding, and the tensors' bytes
//! (<https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>). Versions 2 and 3, little-endian.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::{Path, PathBuf};

use crate::checkpoint::{Bytes, map};
use crate::error::{Error, shown};

const MAGIC: &[u8; 4] = b"GGUF";
/// No tensor has more dimensions than this.
const MAX_RANK: u32 = 4;
/// Where a tensor may begin, unless the file says otherwise.
const ALIGNMENT: u64 = 32;

/// A memory-mapped GGUF file. Header and descriptions are read and checked; weights stay on disk.
pub struct Gguf {
    path: PathBuf,
    bytes: Bytes,
    metadata: BTreeMap<String, Value>,
    tensors: BTreeMap<String, Tensor>,
}

/// A value of the metadata.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Any whole number.
    Integer(i128),
    /// A floating number.
    Float(f64),
    /// True or false.
    Bool(bool),
    /// A text.
    Text(String),
    /// A list of whole numbers or truth values.
    Integers(Vec<i64>),
    /// A list of floating numbers.
    Floats(Vec<f32>),
    /// A list of texts.
    Texts(Vec<String>),
}

impl Value {
    /// A whole number that is not negative.
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Value::Integer(value) => u64::try_from(*value).ok(),
            _ => None,
        }
    }

    /// A number.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Value::Float(value) => Some(*value),
            Value::Integer(value) => Some(*value as f64),
            _ => None,
        }
    }

    /// True or false.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Value::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// A text.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::Text(value) => Some(value),
            _ => None,
        }
    }
}

/// How a tensor's numbers are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// ggml's number for it.
    pub number: u32,
    /// ggml's name for it.
    pub name: &'static str,
    /// Numbers of a block.
    pub block: usize,
    /// Bytes of a block.
    pub bytes: usize,
}

/// ggml's types: number, name, numbers of a block, bytes of a block.
const KINDS: &[(u32, &str, usize, usize)] = &[
    (0, "F32", 1, 4),
    (1, "F16", 1, 2),
    (2, "Q4_0", 32, 18),
    (3, "Q4_1", 32, 20),
    (6, "Q5_0", 32, 22),
    (7, "Q5_1", 32, 24),
    (8, "Q8_0", 32, 34),
    (9, "Q8_1", 32, 36),
    (10, "Q2_K", 256, 84),
    (11, "Q3_K", 256, 110),
    (12, "Q4_K", 256, 144),
    (13, "Q5_K", 256, 176),
    (14, "Q6_K", 256, 210),
    (15, "Q8_K", 256, 292),
    (16, "IQ2_XXS", 256, 66),
    (17, "IQ2_XS", 256, 74),
    (18, "IQ3_XXS", 256, 98),
    (19, "IQ1_S", 256, 50),
    (20, "IQ4_NL", 32, 18),
    (21, "IQ3_S", 256, 110),
    (22, "IQ2_S", 256, 82),
    (23, "IQ4_XS", 256, 136),
    (24, "I8", 1, 1),
    (25, "I16", 1, 2),
    (26, "I32", 1, 4),
    (27, "I64", 1, 8),
    (28, "F64", 1, 8),
    (29, "IQ1_M", 256, 56),
    (30, "BF16", 1, 2),
    (34, "TQ1_0", 256, 54),
    (35, "TQ2_0", 256, 66),
    (39, "MXFP4", 32, 17),
];

impl Kind {
    fn of(number: u32) -> Option<Kind> {
        let &(number, name, block, bytes) = KINDS.iter().find(|kind| kind.0 == number)?;
        Some(Kind { number, name, block, bytes })
    }
}

/// Where a tensor lies, and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// How its numbers are kept.
    pub kind: Kind,
    /// The slowest dimension first, as elsewhere here; the file has it the other way round.
    pub shape: Vec<usize>,
    start: usize,
    bytes: usize,
}

/// Whether a path is that of such a file, by its name's ending.
pub fn is_one(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("gguf")) && path.is_file()
}

impl Gguf {
    /// Opens a file.
    ///
    /// # Errors
    /// What the system refuses, and a file that contradicts itself.
    pub fn open(path: &Path) -> Result<Gguf, Error> {
        Gguf::read(path.to_owned(), map(path)?)
    }

    /// A file held in memory; `name` is what errors call it.
    ///
    /// # Errors
    /// As [`Gguf::open`].
    pub fn from_vec(name: &str, bytes: Vec<u8>) -> Result<Gguf, Error> {
        Gguf::read(PathBuf::from(name), Bytes::Owned(bytes))
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A value of the metadata.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.metadata.get(key)
    }

    /// All tensors, by name.
    pub fn tensors(&self) -> &BTreeMap<String, Tensor> {
        &self.tensors
    }

    /// A tensor's bytes.
    ///
    /// # Errors
    /// [`Error::NoTensor`].
    pub fn bytes(&self, name: &str) -> Result<&[u8], Error> {
        let found = self.tensors.get(name);
        let bytes = found.and_then(|tensor| self.bytes.as_slice().get(tensor.start..)?.get(..tensor.bytes));
        bytes.ok_or_else(|| Error::NoTensor {
            file: self.path.display().to_string(),
            tensor: shown(name),
            held: format!("{} tensors", self.tensors.len()),
        })
    }

    /// Lets the system take back the memory in which a tensor was read; reading it again brings it back from
    /// the file.
    pub fn release(&self, name: &str) {
        if let Some(tensor) = self.tensors.get(name) {
            self.bytes.release(tensor.start, tensor.bytes);
        }
    }

    fn read(path: PathBuf, bytes: Bytes) -> Result<Gguf, Error> {
        let file = path.display().to_string();
        let (metadata, tensors) = Reader { file: &file, bytes: bytes.as_slice(), at: 0 }.read()?;
        Ok(Gguf { path, bytes, metadata, tensors })
    }
}

/// A place in the file. Whatever it reads lies in the file, so nothing larger is allocated.
struct Reader<'a> {
    file: &'a str,
    bytes: &'a [u8],
    at: usize,
}

type Found = (BTreeMap<String, Value>, BTreeMap<String, Tensor>);

impl Reader<'_> {
    fn read(mut self) -> Result<Found, Error> {
        if self.bytes.get(..4) != Some(MAGIC) {
            return Err(self.damaged("it does not begin with `GGUF`"));
        }
        self.at = 4;
        let version = self.u32()?;
        if version.swap_bytes() < 1 << 16 && version >= 1 << 16 {
            return Err(self.unsupported("it is big-endian", "convert it for little-endian machines"));
        }
        if !(2..=3).contains(&version) {
            let found = format!("it is GGUF of version {version}, read are 2 and 3");
            return Err(self.unsupported(&found, "convert the model with a llama.cpp of today"));
        }
        // A description takes at least 24 bytes, a pair 13.
        let tensors = self.count("tensors", 24)?;
        let pairs = self.count("pairs of metadata", 13)?;
        let mut metadata = BTreeMap::new();
        for _ in 0..pairs {
            let key = self.text()?;
            let kind = self.u32()?;
            let value = self.value(&key, kind)?;
            if metadata.insert(key.clone(), value).is_some() {
                return Err(self.damaged(&format!("the key `{}` is there twice", shown(&key))));
            }
        }
        if metadata.get("split.count").and_then(Value::as_u64).is_some_and(|count| count > 1) {
            return Err(self
                .unsupported("it is one part of several", "join the parts with `llama-gguf-split --merge`"));
        }
        let alignment = metadata.get("general.alignment").map_or(Some(ALIGNMENT), Value::as_u64);
        let Some(alignment) = alignment.filter(|a| a.is_power_of_two() && (8..=1 << 20).contains(a)) else {
            return Err(self.damaged("`general.alignment` is no power of two from 8 to 1048576"));
        };
        let mut described = Vec::new();
        for _ in 0..tensors {
            described.push(self.described()?);
        }
        let base = (self.at as u64).next_multiple_of(alignment);
        let mut tensors = BTreeMap::new();
        for (name, kind, shape, bytes, offset) in described {
            let refuse = |problem: String| Err(Error::tensor(self.file, &name, problem));
            if offset % alignment != 0 {
                return refuse(format!("begins at {offset}, which does not divide by {alignment}"));
            }
            let end = base.checked_add(offset).and_then(|start| start.checked_add(bytes as u64));
            if end.is_none_or(|end| end > self.bytes.len() as u64) {
                return refuse(format!(
                    "of {bytes} bytes at {base} + {offset} reaches beyond the file's {} bytes; the file is cut short, get it again",
                    self.bytes.len()
                ));
            }
            let start = (base + offset) as usize;
            match tensors.entry(name) {
                Entry::Vacant(place) => place.insert(Tensor { kind, shape, start, bytes }),
                Entry::Occupied(there) => {
                    return Err(self.damaged(&format!("the tensor `{}` is there twice", shown(there.key()))));
                }
            };
        }
        Ok((metadata, tensors))
    }

    /// A tensor's name, kind, shape, bytes and offset.
    fn described(&mut self) -> Result<(String, Kind, Vec<usize>, usize, u64), Error> {
        let name = self.text()?;
        let refuse = |problem: String| Err(Error::tensor(self.file, &name, problem));
        let rank = self.u32()?;
        if rank > MAX_RANK {
            return refuse(format!("has {rank} dimensions, expected at most {MAX_RANK}"));
        }
        let mut shape = Vec::new();
        for _ in 0..rank {
            let side = self.u64()?;
            let Ok(side) = usize::try_from(side) else {
                return refuse(format!("has a side of {side}"));
            };
            shape.insert(0, side);
        }
        let number = self.u32()?;
        let Some(kind) = Kind::of(number) else {
            return refuse(format!("is of ggml's type {number}, which is not known here"));
        };
        let row = shape.last().copied().unwrap_or(1);
        if !row.is_multiple_of(kind.block) {
            return refuse(format!(
                "has rows of {row}, which {} keeps in blocks of {}",
                kind.name, kind.block
            ));
        }
        let count = shape.iter().try_fold(1usize, |count, &side| count.checked_mul(side));
        let bytes = count.and_then(|count| (count / kind.block).checked_mul(kind.bytes));
        let Some(bytes) = bytes else {
            return refuse(format!("has the shape {shape:?}, which no memory holds"));
        };
        Ok((name.clone(), kind, shape, bytes, self.u64()?))
    }

    fn value(&mut self, key: &str, kind: u32) -> Result<Value, Error> {
        Ok(match kind {
            0 => Value::Integer(self.take::<1>()?[0].into()),
            1 => Value::Integer(i8::from_le_bytes(self.take()?).into()),
            2 => Value::Integer(u16::from_le_bytes(self.take()?).into()),
            3 => Value::Integer(i16::from_le_bytes(self.take()?).into()),
            4 => Value::Integer(self.u32()?.into()),
            5 => Value::Integer(i32::from_le_bytes(self.take()?).into()),
            6 => Value::Float(f32::from_le_bytes(self.take()?).into()),
            7 => Value::Bool(self.take::<1>()?[0] != 0),
            8 => Value::Text(self.text()?),
            9 => self.list(key)?,
            10 => Value::Integer(self.u64()?.into()),
            11 => Value::Integer(i64::from_le_bytes(self.take()?).into()),
            12 => Value::Float(f64::from_le_bytes(self.take()?)),
            _ => {
                return Err(
                    self.damaged(&format!("the key `{}` has a value of unknown type {kind}", shown(key)))
                );
            }
        })
    }

    fn list(&mut self, key: &str) -> Result<Value, Error> {
        let kind = self.u32()?;
        let size = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            8 | 10..=12 => 8,
            _ => {
                return Err(self.damaged(&format!("the key `{}` is a list of type {kind}", shown(key))));
            }
        };
        let count = self.count("entries of a list", size)?;
        Ok(match kind {
            6 | 12 => {
                let mut list = Vec::with_capacity(count);
                for _ in 0..count {
                    list.push(match kind {
                        6 => f32::from_le_bytes(self.take()?),
                        _ => f64::from_le_bytes(self.take()?) as f32,
                    });
                }
                Value::Floats(list)
            }
            8 => {
                let mut list = Vec::with_capacity(count);
                for _ in 0..count {
                    list.push(self.text()?);
                }
                Value::Texts(list)
            }
            _ => {
                let mut list = Vec::with_capacity(count);
                for _ in 0..count {
                    let value = match self.value(key, kind)? {
                        Value::Integer(value) => i64::try_from(value).ok(),
                        Value::Bool(value) => Some(value.into()),
                        _ => None,
                    };
                    let too_large =
                        || self.damaged(&format!("the key `{}` has too large a number", shown(key)));
                    list.push(value.ok_or_else(too_large)?);
                }
                Value::Integers(list)
            }
        })
    }

    /// A number of things of at least `least` bytes each, which must lie in what is left.
    fn count(&mut self, what: &str, least: usize) -> Result<usize, Error> {
        let count = self.u64()?;
        let left = self.bytes.len() - self.at;
        match usize::try_from(count).ok().filter(|count| *count <= left / least) {
            Some(count) => Ok(count),
            None => Err(self.damaged(&format!("it claims {count} {what} in the {left} bytes that are left"))),
        }
    }

    fn text(&mut self) -> Result<String, Error> {
        let length = self.count("bytes of a text", 1)?;
        let bytes = &self.bytes[self.at..self.at + length];
        self.at += length;
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(self.damaged("a text is not UTF-8")),
        }
    }

    fn u32(&mut self) -> Result<u32, Error> {
        Ok(u32::from_le_bytes(self.take()?))
    }

    fn u64(&mut self) -> Result<u64, Error> {
        Ok(u64::from_le_bytes(self.take()?))
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        match self.bytes.get(self.at..).and_then(<[u8]>::first_chunk::<N>) {
            Some(bytes) => {
                self.at += N;
                Ok(*bytes)
            }
            None => Err(self.damaged("it ends in the middle of its header")),
        }
    }

    fn damaged(&self, problem: &str) -> Error {
        Error::damaged(self.file, format!("{problem} (at byte {})", self.at))
    }

    fn unsupported(&self, problem: &str, remedy: &'static str) -> Error {
        Error::Unsupported { file: self.file.to_owned(), problem: problem.to_owned(), remedy }
    }
}
