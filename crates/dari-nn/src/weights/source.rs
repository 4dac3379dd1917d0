//! Where tensors come from: read from a checkpoint, or drawn.

use candle_core::{DType, Device, Tensor};
use dari_files::{Checkpoint, Dtype, TensorView};
use dari_kernels::gemm::Blocks;
use half::{bf16, f16};

use super::Init;
use crate::random::Key;
use crate::{Error, Result};

/// Something that holds tensors by name: a checkpoint, or one seen under other names.
pub trait Source: Send + Sync {
    /// All names, in any order.
    fn names(&self) -> Vec<String>;
    /// A tensor's shape.
    fn shape(&self, name: &str) -> Option<Vec<usize>>;
    /// A tensor's values.
    fn tensor(&self, name: &str) -> Result<TensorView<'_>, dari_files::Error>;
    /// The name under which a tensor lies in the files.
    fn stored(&self, name: &str) -> String {
        name.to_owned()
    }
    /// The file that holds a tensor, or should, for error messages.
    fn origin(&self, name: &str) -> String;
    /// A tensor's blocks, where it is kept in such; [`Source::tensor`] gives what they stand for.
    fn blocks(&self, _name: &str) -> Option<(Blocks, &[u8])> {
        None
    }
    /// Told that a tensor's bytes are not needed soon.
    fn release(&self, _name: &str) {}
}

impl Source for Checkpoint {
    fn names(&self) -> Vec<String> {
        Checkpoint::names(self).map(str::to_owned).collect()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        Checkpoint::shape(self, name).map(<[usize]>::to_vec)
    }

    fn tensor(&self, name: &str) -> Result<TensorView<'_>, dari_files::Error> {
        Checkpoint::tensor(self, name)
    }

    fn release(&self, name: &str) {
        Checkpoint::release(self, name);
    }

    fn origin(&self, name: &str) -> String {
        match self.file_of(name) {
            Some(path) => path.display().to_string(),
            None => "the checkpoint".to_owned(),
        }
    }
}

pub(super) fn draw(key: Key, shape: &[usize], init: Init, device: &Device) -> Result<Tensor> {
    const LARGEST: usize = 1 << 32;
    let count = shape.iter().try_fold(1usize, |count, &size| count.checked_mul(size));
    let Some(count) = count.filter(|&count| count <= LARGEST) else {
        return Err(Error::Config(format!(
            "a tensor of shape {shape:?} is too large to draw: lower the config's sizes"
        )));
    };
    let values: Vec<f32> = match init {
        Init::Constant(value) => vec![value; count],
        Init::Normal(deviation) => (0..count as u64).map(|i| (deviation * key.normal(i)) as f32).collect(),
    };
    Ok(Tensor::from_vec(values, shape, device)?)
}

pub(super) fn read(
    source: &dyn Source,
    name: &str,
    expected: &[usize],
    dtype: DType,
    device: &Device,
) -> Result<Tensor> {
    let view = find(source, name, expected)?;
    if view.dtype == Dtype::BF16 && dtype == DType::BF16 {
        let values: Vec<bf16> =
            view.data.chunks_exact(2).map(|b| bf16::from_le_bytes([b[0], b[1]])).collect();
        return Ok(Tensor::from_vec(values, expected, device)?);
    }
    let tensor = Tensor::from_vec(numbers(source, name, &view)?, expected, device)?;
    Ok(if dtype == DType::F32 { tensor } else { tensor.to_dtype(dtype)? })
}

pub(super) fn numbers(source: &dyn Source, name: &str, view: &TensorView) -> Result<Vec<f32>> {
    floats(view).ok_or_else(|| not_floats(source, name, view))
}

pub(super) fn not_floats(source: &dyn Source, name: &str, view: &TensorView) -> Error {
    Error::Dtype { origin: source.origin(name), name: name.to_owned(), found: format!("{:?}", view.dtype) }
}

/// Whether there is a tensor of floats of the expected shape.
pub(super) fn check(source: &dyn Source, name: &str, expected: &[usize]) -> Result<()> {
    if source.blocks(name).is_some() {
        return check_shape(source, name, expected);
    }
    let view = find(source, name, expected)?;
    match view.dtype {
        Dtype::F32 | Dtype::F16 | Dtype::BF16 | Dtype::F64 => Ok(()),
        _ => Err(not_floats(source, name, &view)),
    }
}

/// Whether a tensor's numbers are bf16.
pub(super) fn is_bf16(source: &dyn Source, name: &str) -> bool {
    source.blocks(name).is_none() && source.tensor(name).is_ok_and(|view| view.dtype == Dtype::BF16)
}

/// A tensor of the expected shape.
pub(super) fn find<'a>(source: &'a dyn Source, name: &str, expected: &[usize]) -> Result<TensorView<'a>> {
    check_shape(source, name, expected)?;
    Ok(source.tensor(name)?)
}

fn check_shape(source: &dyn Source, name: &str, expected: &[usize]) -> Result<()> {
    let Some(found) = source.shape(name) else {
        return Err(Error::Missing {
            origin: source.origin(name),
            name: name.to_owned(),
            expected: expected.to_vec(),
            hint: nearest(source, name),
        });
    };
    if found != expected {
        return Err(Error::Shape {
            origin: source.origin(name),
            name: name.to_owned(),
            found,
            expected: expected.to_vec(),
        });
    }
    Ok(())
}

/// A tensor's values in f32; `None` for a type that is not floating.
pub fn floats(view: &TensorView) -> Option<Vec<f32>> {
    floats_of(view.dtype, &view.data)
}

pub(super) fn floats_of(dtype: Dtype, bytes: &[u8]) -> Option<Vec<f32>> {
    Some(match dtype {
        Dtype::F32 => bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
        Dtype::BF16 => bytes.as_chunks().0.iter().map(|&b| bf16::from_le_bytes(b).to_f32()).collect(),
        Dtype::F16 => bytes.as_chunks().0.iter().map(|&b| f16::from_le_bytes(b).to_f32()).collect(),
        Dtype::F64 => bytes.as_chunks().0.iter().map(|&b| f64::from_le_bytes(b) as f32).collect(),
        _ => return None,
    })
}

/// A hint at what the checkpoint has instead: a name with the same ending, or the first few.
fn nearest(source: &dyn Source, name: &str) -> String {
    let mut names = source.names();
    names.sort_unstable();
    let tail = |name: &str| name.rsplit('.').take(2).collect::<Vec<_>>().join(".");
    match names.iter().find(|other| tail(other) == tail(name)) {
        Some(other) => format!(" (there is `{other}`)"),
        None if names.is_empty() => " (it holds no tensors)".to_owned(),
        None => {
            let first = names.iter().take(3).map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ");
            format!(" (it holds {} others: {first}, ...)", names.len())
        }
    }
}
