//! Tables of vectors that are looked up.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use super::source::{Source, floats_of, not_floats};
use crate::{Error, Result};

/// A table of vectors `[entries, width]`.
#[derive(Clone)]
pub enum Table {
    /// A tensor: trained, or on another device.
    Dense(Tensor),
    /// Rows are read from the file as they are asked for.
    Stored {
        /// Where it lies.
        source: Arc<dyn Source>,
        /// Its name there.
        name: String,
        /// Numbers of a row.
        width: usize,
    },
}

impl Table {
    /// The rows of `ids`, `[ids, width]` in f32. The ids lie in the table.
    pub(crate) fn rows(&self, ids: &[u32]) -> Result<Tensor> {
        match self {
            Table::Dense(table) => {
                let ids = Tensor::new(ids, table.device())?;
                Ok(table.index_select(&ids, 0)?.to_dtype(DType::F32)?)
            }
            Table::Stored { source, name, width } if source.blocks(name).is_some() => {
                let mut values = vec![0.0; ids.len() * width];
                if let Some((format, bytes)) = source.blocks(name)
                    && let Some(row) = format.row_bytes(*width)
                {
                    for (&id, out) in ids.iter().zip(values.chunks_exact_mut((*width).max(1))) {
                        let own = bytes.get(id as usize * row..).and_then(|rest| rest.get(..row));
                        let own =
                            own.ok_or_else(|| Error::Config(format!("`{name}` ends before row {id}")))?;
                        format.unpack(own, out);
                    }
                }
                Ok(Tensor::from_vec(values, (ids.len(), *width), &Device::Cpu)?)
            }
            Table::Stored { source, name, width } => {
                let view = source.tensor(name)?;
                let row = width * view.dtype.size();
                let mut values = Vec::with_capacity(ids.len() * width);
                for &id in ids {
                    let bytes = view.data.get(id as usize * row..).and_then(|rest| rest.get(..row));
                    let floats = bytes.and_then(|bytes| floats_of(view.dtype, bytes));
                    values.extend(floats.ok_or_else(|| not_floats(source.as_ref(), name, &view))?);
                }
                Ok(Tensor::from_vec(values, (ids.len(), *width), &Device::Cpu)?)
            }
        }
    }
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Table::Dense(table) => write!(f, "Table({:?})", table.dims()),
            Table::Stored { name, .. } => write!(f, "Table(`{name}`, in its file)"),
        }
    }
}
