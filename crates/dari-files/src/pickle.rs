//! PyTorch's `.bin`, `.pt` and `.pth` files: the zip form that `torch.save` has written since
//! PyTorch 1.6, read without Python and without running anything.
//!
//! A file is a zip of stored entries: `NAME/data.pkl`, a pickle that describes the tensors, and
//! `NAME/data/0`, `NAME/data/1`, ..., the storages' bytes. [`machine`] reads the pickle; here its
//! tensors are named and placed in the file.

mod machine;
mod values;

use crate::checkpoint::{Entry, MAX_RANK};
use crate::dtype::byte_length;
use crate::error::{Error, shown};
use machine::Machine;
use std::collections::BTreeMap;
use std::ops::Range;
use values::{Id, Node, Tensor};

/// What `torch.save` wraps a state dict in, by common custom.
const WRAPPERS: [&str; 4] = ["state_dict", "model_state_dict", "model", "module"];
const MAX_DEPTH: usize = 16;
/// Values looked at while naming tensors: a pickle may refer to one dict many times.
const MAX_VISITS: usize = 1 << 22;
const MAX_NAME_BYTES: usize = 1024;
/// Names and shapes in all.
const MAX_ENTRIES_BYTES: usize = 64 << 20;
/// A stride of 0 lets one byte stand for any number of them; beyond this size a tensor may not
/// be larger than its storage.
const MAX_EXPANDED_BYTES: usize = 64 << 20;

const CONVERT: &str = "load it in PyTorch 1.6 or newer and save it again with torch.save";

/// Reads the descriptions of all tensors; the weights stay where they are.
///
/// Nested dicts are flattened to names joined by dots; a dict named `state_dict`,
/// `model_state_dict`, `model` or `module` beside no tensors is taken instead of its holder.
/// Numbers, strings and lists are skipped.
pub(crate) fn read(file: &str, bytes: &[u8]) -> Result<Vec<Entry>, Error> {
    let archive = Archive::open(file, bytes)?;
    let mut machine = Machine::new(archive.pickle);
    let top = machine.run().map_err(|stop| stop.into_error(file))?;
    let mut names =
        Names { file, machine: &machine, archive: &archive, found: Vec::new(), visits: 0, entry_bytes: 0 };
    let top = names.unwrap(top)?;
    names.flatten(top, "", 0)?;
    Ok(names.found)
}

/// The zip, its parts found and its kind checked.
struct Archive<'a> {
    pickle: &'a [u8],
    prefix: &'a str,
    entries: BTreeMap<&'a str, Range<usize>>,
}

impl<'a> Archive<'a> {
    fn open(file: &str, bytes: &'a [u8]) -> Result<Archive<'a>, Error> {
        let unsupported = |problem: &str, remedy| Error::Unsupported {
            file: file.to_owned(),
            problem: problem.to_owned(),
            remedy,
        };
        if bytes.is_empty() {
            return Err(Error::damaged(file, "is empty"));
        }
        if !bytes.starts_with(crate::archive::MAGIC) {
            return Err(match bytes {
                [0x80, ..] => unsupported(
                    "is in PyTorch's legacy form, from before version 1.6 (a bare pickle)",
                    CONVERT,
                ),
                _ => unsupported("is not a zip file as torch.save writes it", CONVERT),
            });
        }
        let entries = crate::archive::entries(bytes).map_err(|p| Error::damaged(file, p))?;
        let mut prefix = None;
        for name in entries.keys() {
            if let Some(before) = name.strip_suffix("/data.pkl")
                && !before.contains('/')
                && prefix.replace(before).is_some()
            {
                return Err(Error::damaged(file, "holds data.pkl twice"));
            }
        }
        let Some(prefix) = prefix else {
            return Err(unsupported("is a zip without data.pkl, so not made by torch.save", CONVERT));
        };
        let find = |name: &str| entries.get(format!("{prefix}/{name}").as_str()).cloned();
        if find("constants.pkl").is_some() {
            return Err(unsupported(
                "is a TorchScript program, not a checkpoint",
                "load it with torch.jit.load and save its state_dict()",
            ));
        }
        let order = find("byteorder").and_then(|range| bytes.get(range));
        match order {
            None | Some(b"little") => {}
            Some(b"big") => {
                return Err(unsupported(
                    "was written by a big-endian machine",
                    "save it again on a little-endian one (x86, Arm)",
                ));
            }
            Some(other) => {
                let other = shown(&String::from_utf8_lossy(other));
                return Err(Error::damaged(file, format!("its byte order is `{other}`")));
            }
        }
        let pickle = find("data.pkl").and_then(|range| bytes.get(range));
        Ok(Archive { pickle: pickle.unwrap_or_default(), prefix, entries })
    }

    fn storage(&self, key: &str) -> Option<Range<usize>> {
        let name = format!("{}/data/{key}", self.prefix);
        self.entries.get(name.as_str()).cloned()
    }
}

/// The walk from nested dicts to named tensors.
struct Names<'m, 'a> {
    file: &'m str,
    machine: &'m Machine<'a>,
    archive: &'m Archive<'a>,
    found: Vec<Entry>,
    visits: usize,
    entry_bytes: usize,
}

impl<'a> Names<'_, 'a> {
    fn node(&self, id: Id) -> &Node<'a> {
        self.machine.node(id)
    }

    /// From what was saved to the dict that holds the tensors.
    fn unwrap(&self, mut top: Id) -> Result<Id, Error> {
        for _ in 0..WRAPPERS.len() {
            let Node::Dict(items) = self.node(top) else {
                let held = match self.node(top) {
                    Node::Tensor(_) => "a single tensor",
                    _ => "no dict",
                };
                return Err(Error::Unsupported {
                    file: self.file.to_owned(),
                    problem: format!("holds {held}, not tensors by name"),
                    remedy: "save a state_dict() with torch.save",
                });
            };
            if items.iter().any(|(_, value)| matches!(self.node(*value), Node::Tensor(_))) {
                break;
            }
            let wrapped = WRAPPERS.iter().find_map(|wrapper| {
                items.iter().find_map(|(key, value)| {
                    let named = matches!(self.node(*key), Node::Text(key) if key == wrapper);
                    let dict = matches!(self.node(*value), Node::Dict(_));
                    (named && dict).then_some(*value)
                })
            });
            match wrapped {
                Some(inner) => top = inner,
                None => break,
            }
        }
        Ok(top)
    }

    fn flatten(&mut self, dict: Id, prefix: &str, depth: usize) -> Result<(), Error> {
        let machine = self.machine;
        let Node::Dict(items) = machine.node(dict) else {
            return Ok(());
        };
        if depth > MAX_DEPTH {
            return Err(Error::damaged(self.file, format!("nests dicts more than {MAX_DEPTH} deep")));
        }
        for &(key, value) in items {
            self.visits += 1;
            if self.visits > MAX_VISITS {
                return Err(Error::damaged(self.file, format!("holds more than {MAX_VISITS} values")));
            }
            let is_dict = matches!(self.node(value), Node::Dict(_));
            if !is_dict && !matches!(self.node(value), Node::Tensor(_)) {
                continue;
            }
            let key = match self.node(key) {
                Node::Text(key) => (*key).to_owned(),
                Node::Int(key) => key.to_string(),
                _ => continue,
            };
            let dot = if prefix.is_empty() { "" } else { "." };
            let name = format!("{prefix}{dot}{key}");
            if name.len() > MAX_NAME_BYTES {
                return Err(Error::tensor(
                    self.file,
                    &name,
                    format!("has a name longer than {MAX_NAME_BYTES} bytes"),
                ));
            }
            match machine.node(value) {
                Node::Dict(_) => self.flatten(value, &name, depth + 1)?,
                Node::Tensor(tensor) => {
                    self.entry_bytes += size_of::<Entry>() + name.len() + 16 * tensor.shape.len();
                    if self.entry_bytes > MAX_ENTRIES_BYTES {
                        return Err(Error::damaged(self.file, "names too many tensors"));
                    }
                    let entry = self.place(&name, tensor);
                    self.found.push(entry.map_err(|problem| Error::tensor(self.file, &name, problem))?);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Finds the tensor's bytes in the file and checks that they are there; the error is the
    /// problem.
    fn place(&self, name: &str, tensor: &Tensor<'a>) -> Result<Entry, String> {
        let Tensor { dtype, storage, offset, shape, strides } = tensor;
        let (dtype, offset) = (*dtype, *offset);
        if shape.len() > MAX_RANK || shape.len() != strides.len() {
            return Err(format!(
                "has {} sizes and {} strides; equally many are expected, at most {MAX_RANK}",
                shape.len(),
                strides.len()
            ));
        }
        let range = self
            .archive
            .storage(storage.key)
            .ok_or_else(|| format!("has its bytes in data/{}, missing", shown(storage.key)))?;
        let held = range.end.saturating_sub(range.start);
        if storage.bytes > held {
            return Err(format!(
                "needs {} bytes of data/{}, which has {held}",
                storage.bytes,
                shown(storage.key)
            ));
        }
        let bytes = byte_length(dtype, shape).ok_or_else(|| format!("has the impossible shape {shape:?}"))?;
        let elements = storage.bytes / dtype.size();
        // One past the last element that the view touches.
        let end = if bytes == 0 {
            Some(offset)
        } else {
            shape
                .iter()
                .zip(strides)
                .try_fold(offset, |at, (&size, &stride)| {
                    at.checked_add(size.saturating_sub(1).checked_mul(stride)?)
                })
                .and_then(|last| last.checked_add(1))
        };
        if end.is_none_or(|end| end > elements) {
            return Err(format!(
                "of shape {shape:?}, strides {strides:?} and offset {offset} leaves its storage \
                 of {elements} elements"
            ));
        }
        let contiguous = bytes == 0 || is_contiguous(shape, strides);
        if !contiguous && bytes > held && bytes > MAX_EXPANDED_BYTES {
            return Err(format!("of shape {shape:?} expands {held} bytes to {bytes}; save it contiguous"));
        }
        let start = offset
            .checked_mul(dtype.size())
            .and_then(|start| start.checked_add(range.start))
            .ok_or_else(|| format!("has the impossible offset {offset}"))?;
        Ok(Entry {
            name: name.to_owned(),
            dtype,
            shape: shape.clone(),
            start,
            bytes,
            strides: (!contiguous).then(|| strides.clone()),
        })
    }
}

/// True if the elements lie row-major without gaps; strides of dimensions of size 1 do not count.
fn is_contiguous(shape: &[usize], strides: &[usize]) -> bool {
    let mut expected = 1usize;
    shape.iter().zip(strides).rev().all(|(&size, &stride)| {
        let fits = size == 1 || stride == expected;
        expected = expected.saturating_mul(size);
        fits
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contiguity() {
        assert!(is_contiguous(&[], &[]));
        assert!(is_contiguous(&[2, 3], &[3, 1]));
        assert!(is_contiguous(&[1, 3], &[0, 1]));
        assert!(is_contiguous(&[2, 1, 3], &[3, 77, 1]));
        assert!(!is_contiguous(&[2, 3], &[1, 2]));
        assert!(!is_contiguous(&[2, 3], &[0, 1]));
        assert!(!is_contiguous(&[4], &[2]));
    }
}
