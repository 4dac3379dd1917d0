//! Products with weights that are not trained.

use std::sync::Arc;

use candle_core::{Result as CandleResult, Tensor};
use dari_kernels::Activation;
use dari_kernels::gemm::{Epilogue, Fresh, Matrix};

use super::{Operation, residual_of};
use crate::ops;
use crate::weight::PackedWeight;

/// A product with a packed weight and what follows it. Where a gradient is wanted no activation does, since its slope asks
/// for what it was given.
#[derive(Clone)]
pub(super) struct Frozen {
    pub weight: Arc<PackedWeight>,
    pub bias: Option<Tensor>,
    pub activation: Option<Activation>,
}

impl Operation for Frozen {
    fn name(&self) -> &'static str {
        "product with a packed weight"
    }

    fn outputs(&self) -> usize {
        self.weight.size()[0]
    }

    fn run(&self, x: &[f32], residual: Option<&[f32]>) -> CandleResult<Vec<f32>> {
        let [outputs, inputs] = self.weight.size();
        let rows = x.len() / inputs.max(1);
        let bias = self.bias.as_ref().map(ops::hold::<f32>).transpose()?;
        let epilogue = Epilogue {
            bias: bias.as_deref().unwrap_or_default(),
            activation: self.activation,
            residual: residual_of(residual, rows, outputs)?,
            ..Epilogue::default()
        };
        let mut out = Fresh::new(rows, outputs);
        self.weight
            .product(&mut out, Matrix::new(x, rows, inputs), &epilogue)
            .map_err(crate::error::candle)?;
        Ok(out.finish())
    }

    fn slopes(&self, _: &[f32], dy: &[f32], wanted: bool) -> CandleResult<Option<Vec<f32>>> {
        if !wanted {
            return Ok(None);
        }
        let [outputs, inputs] = self.weight.size();
        let rows = dy.len() / outputs.max(1);
        let mut dx = Fresh::new(rows, inputs);
        self.weight.backward(&mut dx, Matrix::new(dy, rows, outputs)).map_err(crate::error::candle)?;
        Ok(Some(dx.finish()))
    }
}
