//! Tables of vectors, looked up by token.

use candle_core::{DType, Tensor};

use crate::weights::{Init, Weights};
use crate::{Error, Result};

/// A table `[entries, width]`.
#[derive(Clone, Debug)]
pub struct Embedding {
    table: Tensor,
    entries: usize,
}

impl Embedding {
    /// Reads `weight`, `[entries, width]`.
    pub fn load(weights: &Weights, entries: usize, width: usize) -> Result<Embedding> {
        let table = weights.table("weight", &[entries, width], Init::Normal(0.02))?;
        Ok(Embedding { table, entries })
    }

    /// `[batch, tokens]` in u32 to `[batch, tokens, width]`.
    pub fn forward(&self, ids: &Tensor) -> Result<Tensor> {
        let (batch, tokens) = ids.dims2()?;
        let flat = ids.flatten_all()?;
        if let Some(&id) = flat.to_vec1::<u32>()?.iter().find(|&&id| id as usize >= self.entries) {
            return Err(Error::Config(format!(
                "token {id} is not in an embedding of {} entries: do tokenizer and checkpoint belong together?",
                self.entries
            )));
        }
        let rows = self.table.index_select(&flat, 0)?.to_dtype(DType::F32)?;
        Ok(rows.reshape((batch, tokens, ()))?)
    }
}
