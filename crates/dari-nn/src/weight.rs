//! A layer's weight in the form it is kept in.

use std::sync::{Arc, OnceLock};

use candle_core::{Shape, Tensor};
use dari_files::Checkpoint;
use dari_kernels::Matrix;
use dari_kernels::gemm::{self, Epilogue, Format, Fresh, Lines, Packed, Panels, Products, Threads};
pub use dari_kernels::gemm::{BlockRows, Blocks};

use crate::weights::Source;
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
    /// Frozen, on a CPU: in the order in which the kernels read it, in f32, bf16 or int8; or in the
    /// blocks in which its file has it.
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

/// A weight that is not trained, in memory or in a mapped file.
pub struct PackedWeight {
    outputs: usize,
    inputs: usize,
    /// Whether what meets it is rounded as it is.
    products: Products,
    bytes: Bytes,
}

enum Bytes {
    /// Packed when first used, so that a part of a model that is never asked costs nothing.
    Later {
        format: Format,
        lines: OnceLock<Lines>,
        read: Read,
    },
    Mapped {
        format: Format,
        file: Arc<Checkpoint>,
        name: String,
    },
    /// Rows of tensors of blocks, one below the other; made ready when first used.
    Blocks {
        source: Arc<dyn Source>,
        tensors: Vec<BlockTensor>,
        panels: OnceLock<Vec<Panels>>,
    },
}

/// Some rows of a tensor of blocks.
pub(crate) struct BlockTensor {
    /// Its name.
    pub name: String,
    /// The first of the rows.
    pub first: usize,
    /// How many.
    pub outputs: usize,
}

/// A weight as kernels take it.
enum Kept<'a> {
    Packed(Packed<'a>),
    Blocks(Vec<&'a Panels>),
}

/// Reads a weight's values, one or more `[outputs, inputs]`, one below the other.
pub(crate) type Read = Box<dyn Fn() -> Result<Vec<f32>> + Send + Sync>;

impl PackedWeight {
    /// A weight that is read and packed when it is first used.
    pub(crate) fn later(format: Format, outputs: usize, inputs: usize, read: Read) -> PackedWeight {
        let bytes = Bytes::Later { format, lines: OnceLock::new(), read };
        PackedWeight { outputs, inputs, products: Products::F32, bytes }
    }

    /// Takes a packed weight from a mapped file; `None` where it does not hold one of this size.
    pub(crate) fn mapped(
        file: &Arc<Checkpoint>,
        name: &str,
        format: Format,
        outputs: usize,
        inputs: usize,
    ) -> Option<PackedWeight> {
        let bytes = Bytes::Mapped { format, file: file.clone(), name: name.to_owned() };
        let weight = PackedWeight { outputs, inputs, products: Products::F32, bytes };
        weight.with(|_| ()).ok()?;
        Some(weight)
    }

    /// Rows of tensors of blocks, one below the other; `None` where one does not hold them.
    pub(crate) fn blocks(
        source: &Arc<dyn Source>,
        tensors: Vec<BlockTensor>,
        inputs: usize,
    ) -> Option<PackedWeight> {
        tensors.iter().try_for_each(|tensor| tensor.rows(source.as_ref(), inputs).map(|_| ()))?;
        let outputs = tensors.iter().map(|tensor| tensor.outputs).sum();
        let bytes = Bytes::Blocks { source: source.clone(), tensors, panels: OnceLock::new() };
        Some(PackedWeight { outputs, inputs, products: Products::F32, bytes })
    }

    /// The same of a weight in bf16 whose products may be of bf16 on both sides.
    pub(crate) fn rounding(self) -> PackedWeight {
        PackedWeight { products: Products::Bf16, ..self }
    }

    /// `[outputs, inputs]`.
    pub fn size(&self) -> [usize; 2] {
        [self.outputs, self.inputs]
    }

    /// Bytes that a product with it reads; none of a weight that is packed when used, and was not.
    pub fn bytes_in_use(&self) -> usize {
        match &self.bytes {
            Bytes::Later { lines, .. } => lines.get().map_or(0, |lines| lines.len()),
            Bytes::Mapped { file, name, .. } => file.tensor(name).map_or(0, |tensor| tensor.data.len()),
            Bytes::Blocks { panels, .. } => {
                panels.get().map_or(0, |panels| panels.iter().map(Panels::bytes).sum())
            }
        }
    }

    /// Its packed bytes, given to `run`; `None` for a weight in blocks, which nothing need pack.
    pub fn with_bytes<T>(&self, run: impl FnOnce(&[u8]) -> T) -> Result<Option<T>> {
        match &self.bytes {
            Bytes::Later { format, lines, read } => {
                let lines = match lines.get() {
                    Some(lines) => lines,
                    None => {
                        // Outside the lock, since packing shares its threads with other tasks that may
                        // come here: at worst a weight is packed twice.
                        let packed = gemm::pack(*format, &read()?, self.outputs, self.inputs);
                        lines.get_or_init(|| packed)
                    }
                };
                Ok(Some(run(lines)))
            }
            Bytes::Mapped { file, name, .. } => Ok(Some(run(&file.tensor(name)?.data))),
            Bytes::Blocks { .. } => Ok(None),
        }
    }

    /// The next columns of a result: `x` times this weight, and what follows.
    pub(crate) fn product(&self, out: &mut Fresh, x: Matrix, epilogue: &Epilogue) -> Result<()> {
        self.with(|kept| match kept {
            Kept::Packed(weight) => out.linear(self.products, x, weight, epilogue, Threads::Pool),
            Kept::Blocks(panels) => out.blocks(x, &panels, epilogue),
        })
    }

    /// The gradient of what [`PackedWeight::product`] was given: `dy` times this weight.
    pub(crate) fn backward(&self, dx: &mut Fresh, dy: Matrix) -> Result<()> {
        self.with(|kept| match kept {
            Kept::Packed(weight) => {
                let dense = weight.unpack();
                let weight = Matrix::new(&dense, self.outputs, self.inputs);
                dx.product(Products::F32, dy, weight, &Epilogue::default(), Threads::Pool);
            }
            Kept::Blocks(panels) => dx.blocks_backward(dy, &panels),
        })
    }

    /// The weight as kernels take it, given to `run`.
    fn with<T>(&self, run: impl FnOnce(Kept) -> T) -> Result<T> {
        let wrong = || Error::Config(format!("bytes that do not hold {self:?}"));
        let (outputs, inputs) = (self.outputs, self.inputs);
        match &self.bytes {
            Bytes::Later { format, .. } | Bytes::Mapped { format, .. } => {
                let run =
                    |bytes: &[u8]| Some(run(Kept::Packed(Packed::new(*format, outputs, inputs, bytes)?)));
                self.with_bytes(run)?.flatten().ok_or_else(wrong)
            }
            Bytes::Blocks { source, tensors, panels } => {
                let panels = match panels.get() {
                    Some(panels) => panels,
                    None => {
                        // As above, outside the lock.
                        let pack = |tensor: &BlockTensor| {
                            let rows = tensor.rows(source.as_ref(), inputs).ok_or_else(wrong)?;
                            Ok(Panels::pack_by_stretches(rows, || source.release(&tensor.name)))
                        };
                        let packed = tensors.iter().map(pack).collect::<Result<Vec<Panels>>>()?;
                        panels.get_or_init(|| packed)
                    }
                };
                Ok(run(Kept::Blocks(panels.iter().collect())))
            }
        }
    }
}

impl BlockTensor {
    /// Its rows, of so many inputs, as their file has them.
    fn rows<'a>(&self, source: &'a dyn Source, inputs: usize) -> Option<BlockRows<'a>> {
        let (format, bytes) = source.blocks(&self.name)?;
        let row = format.row_bytes(inputs)?;
        let own = bytes.get(self.first.checked_mul(row)?..)?.get(..row.checked_mul(self.outputs)?)?;
        BlockRows::new(format, self.outputs, inputs, own)
    }
}

impl std::fmt::Debug for PackedWeight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let format = match &self.bytes {
            Bytes::Later { format, .. } | Bytes::Mapped { format, .. } => format!("{format:?}"),
            Bytes::Blocks { source, tensors, .. } => {
                let names = tensors.iter().filter_map(|tensor| source.blocks(&tensor.name));
                names.map(|(format, _)| format.name()).collect::<Vec<_>>().join("+")
            }
        };
        write!(f, "PackedWeight({format} {} x {})", self.outputs, self.inputs)
    }
}
