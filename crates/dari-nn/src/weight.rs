//! A layer's weight in the form it is kept in.

use std::sync::{Arc, OnceLock};

use candle_core::{Shape, Tensor};
use dari_files::Checkpoint;
use dari_kernels::gemm::{self, Format, Lines, Packed, Products};

use crate::{Error, Result};

/// A linear layer's weight, `[outputs, inputs]`. The model's code cannot tell which form it has.
#[derive(Clone, Debug)]
pub enum Weight {
    /// As stored: trained weights, and other devices.
    Dense {
        /// Its values.
        part: Part,
        /// `[outputs, inputs]`.
        size: [usize; 2],
        /// How training multiplies it.
        products: Products,
    },
    /// Frozen, on a CPU: in the order in which the kernels read it, in f32, bf16 or int8.
    Packed(Arc<PackedWeight>),
}

impl Weight {
    /// `[outputs, inputs]`.
    pub fn size(&self) -> [usize; 2] {
        match self {
            Weight::Dense { size, .. } => *size,
            Weight::Packed(packed) => packed.size(),
        }
    }
}

/// Values side by side of a tensor: one of several weights that a checkpoint keeps as one, or all.
#[derive(Clone, Debug)]
pub struct Part {
    tensor: Tensor,
    start: usize,
    count: usize,
}

impl Part {
    /// All of it; the tensor is contiguous.
    pub fn whole(tensor: Tensor) -> Part {
        let count = tensor.elem_count();
        Part { tensor, start: 0, count }
    }

    /// `count` values from `start`.
    pub fn of(tensor: Tensor, start: usize, count: usize) -> Part {
        Part { tensor, start, count }
    }

    /// The tensor that it is part of.
    pub(crate) fn tensor(&self) -> &Tensor {
        &self.tensor
    }

    /// Where it lies in the tensor.
    pub(crate) fn range(&self) -> std::ops::Range<usize> {
        self.start..self.start + self.count
    }

    /// Whether it is trained.
    pub(crate) fn tracked(&self) -> bool {
        self.tensor.track_op()
    }

    /// As a tensor of its own, by candle's operations.
    pub(crate) fn view(&self, shape: impl Into<Shape>) -> candle_core::Result<Tensor> {
        let flat = self.tensor.flatten_all()?;
        let part =
            if self.count == flat.elem_count() { flat } else { flat.narrow(0, self.start, self.count)? };
        part.reshape(shape.into())
    }
}

/// A packed weight, in memory or in a mapped file.
pub struct PackedWeight {
    format: Format,
    outputs: usize,
    inputs: usize,
    bytes: Bytes,
}

enum Bytes {
    /// Packed when first used, so that a part of a model that is never asked costs nothing.
    Later {
        lines: OnceLock<Lines>,
        read: Read,
    },
    Mapped {
        file: Arc<Checkpoint>,
        name: String,
    },
}

/// Reads a weight's values, one or more `[outputs, inputs]`, one below the other.
pub(crate) type Read = Box<dyn Fn() -> Result<Vec<f32>> + Send + Sync>;

impl PackedWeight {
    /// A weight that is read and packed when it is first used.
    pub(crate) fn later(format: Format, outputs: usize, inputs: usize, read: Read) -> PackedWeight {
        PackedWeight { format, outputs, inputs, bytes: Bytes::Later { lines: OnceLock::new(), read } }
    }

    /// Takes a packed weight from a mapped file; `None` where it does not hold one of this size.
    pub(crate) fn mapped(
        file: &Arc<Checkpoint>,
        name: &str,
        format: Format,
        outputs: usize,
        inputs: usize,
    ) -> Option<PackedWeight> {
        let bytes = Bytes::Mapped { file: file.clone(), name: name.to_owned() };
        let weight = PackedWeight { format, outputs, inputs, bytes };
        weight.with(|_| ()).ok()?;
        Some(weight)
    }

    /// `[outputs, inputs]`.
    pub fn size(&self) -> [usize; 2] {
        [self.outputs, self.inputs]
    }

    /// How its numbers are kept.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Its bytes, given to `run`.
    pub fn with_bytes<T>(&self, run: impl FnOnce(&[u8]) -> T) -> Result<T> {
        match &self.bytes {
            Bytes::Later { lines, read } => {
                let lines = match lines.get() {
                    Some(lines) => lines,
                    None => {
                        // Outside the lock, since packing shares its threads with other tasks that may
                        // come here: at worst a weight is packed twice.
                        let packed = gemm::pack(self.format, &read()?, self.outputs, self.inputs);
                        lines.get_or_init(|| packed)
                    }
                };
                Ok(run(lines))
            }
            Bytes::Mapped { file, name } => Ok(run(&file.tensor(name)?.data)),
        }
    }

    /// The weight as kernels take it, given to `run`.
    pub(crate) fn with<T>(&self, run: impl FnOnce(Packed) -> T) -> Result<T> {
        self.with_bytes(|bytes| match Packed::new(self.format, self.outputs, self.inputs, bytes) {
            Some(packed) => Ok(run(packed)),
            None => Err(Error::Config(format!("packed bytes that do not hold {self:?}"))),
        })?
    }
}

impl std::fmt::Debug for PackedWeight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PackedWeight({:?} {} x {})", self.format, self.outputs, self.inputs)
    }
}
