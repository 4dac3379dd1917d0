//! A layer's weight in the form it is kept in.

use std::sync::Arc;

use candle_core::{DType, Shape, Tensor};
use dari_files::Checkpoint;
use dari_kernels::gemm::{self, Format, Lines, Packed, WeightView};

/// A linear layer's weight, `[outputs, inputs]`. The model's code cannot tell which form it has.
#[derive(Clone, Debug)]
pub enum Weight {
    /// As stored: trained weights, and other devices.
    Dense(Part, [usize; 2]),
    /// Frozen, on a CPU: in the order in which the kernels read it, in f32, bf16 or int8.
    Packed(Arc<PackedWeight>),
}

impl Weight {
    /// `[outputs, inputs]`.
    pub fn size(&self) -> [usize; 2] {
        match self {
            Weight::Dense(_, size) => *size,
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
    Owned(Lines),
    Mapped { file: Arc<Checkpoint>, name: String },
}

impl PackedWeight {
    /// Packs the values of one or more weights `[outputs, inputs]`, one below the other.
    pub(crate) fn pack(format: Format, values: &[f32], outputs: usize, inputs: usize) -> PackedWeight {
        let lines = gemm::pack(format, WeightView::F32(values), outputs, inputs);
        PackedWeight { format, outputs, inputs, bytes: Bytes::Owned(lines) }
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
        weight.bytes.with(|bytes| Packed::new(format, outputs, inputs, bytes).is_some())?.then_some(weight)
    }

    /// `[outputs, inputs]`.
    pub fn size(&self) -> [usize; 2] {
        [self.outputs, self.inputs]
    }

    /// How its numbers are kept.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Its bytes, given to `read`.
    pub fn with_bytes<T>(&self, read: impl FnOnce(&[u8]) -> T) -> Option<T> {
        self.bytes.with(read)
    }

    /// The weight as kernels take it, given to `run`; `None` where a mapped file lost it.
    pub(crate) fn with<T>(&self, run: impl FnOnce(Packed) -> T) -> Option<T> {
        self.bytes.with(|bytes| Packed::new(self.format, self.outputs, self.inputs, bytes).map(run))?
    }
}

impl Bytes {
    fn with<T>(&self, read: impl FnOnce(&[u8]) -> T) -> Option<T> {
        match self {
            Bytes::Owned(lines) => Some(read(lines)),
            Bytes::Mapped { file, name } => file.tensor(name).ok().map(|view| read(&view.data)),
        }
    }
}

impl std::fmt::Debug for PackedWeight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PackedWeight({:?} {} x {})", self.format, self.outputs, self.inputs)
    }
}

/// The element type in which tables are kept beside weights of a format.
pub(crate) fn table_dtype(format: Format) -> DType {
    match format {
        Format::F32 => DType::F32,
        Format::Bf16 | Format::Int8 => DType::BF16,
    }
}
