//! Tables of vectors, looked up by token.

use candle_core::Tensor;

use crate::weights::{Init, Table, Weights};
use crate::{Error, Result};

/// A table `[entries, width]`.
#[derive(Clone, Debug)]
pub struct Embedding {
    table: Table,
    entries: usize,
}

impl Embedding {
    /// Reads `weight`, `[entries, width]`.
    pub fn load(weights: &Weights, entries: usize, width: usize) -> Result<Embedding> {
        let table = weights.table("weight", [entries, width], Init::Normal(0.02))?;
        Ok(Embedding { table, entries })
    }

    /// `[batch, tokens]` in u32 to `[batch, tokens, width]`.
    pub fn forward(&self, ids: &Tensor) -> Result<Tensor> {
        let (batch, tokens) = ids.dims2()?;
        let flat = ids.flatten_all()?.to_vec1::<u32>()?;
        if let Some(&id) = flat.iter().find(|&&id| id as usize >= self.entries) {
            return Err(Error::Config(format!(
                "token {id} is not in an embedding of {} entries: do tokenizer and checkpoint belong together?",
                self.entries
            )));
        }
        let rows = self.table.rows(&flat)?;
        Ok(rows.reshape((batch, tokens, ()))?)
    }
}
