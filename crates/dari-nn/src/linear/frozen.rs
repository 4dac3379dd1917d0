//! Products with weights that are not trained.

use std::sync::Arc;

use candle_core::{CpuStorage, Layout, Result as CandleResult, Shape, Tensor, bail};
use dari_kernels::Activation;
use dari_kernels::gemm::{Epilogue, Fresh, Matrix};

use super::{Operation, outcome};
use crate::ops::{self, view};
use crate::weight::PackedWeight;

/// A product with a packed weight and what follows it.
#[derive(Clone)]
pub(super) struct Frozen {
    pub weight: Arc<PackedWeight>,
    pub bias: Option<Tensor>,
    pub activation: Option<Activation>,
}

impl Operation for Frozen {
    const NAME: &str = "product with a packed weight";

    fn forward(
        &self,
        x: &CpuStorage,
        layout: &Layout,
        residual: Option<&[f32]>,
    ) -> CandleResult<(CpuStorage, Shape)> {
        let [outputs, inputs] = self.weight.size();
        let (shape, rows) = outcome(layout, outputs);
        let x = view::<f32>(x, layout)?;
        if residual.is_some_and(|residual| residual.len() != rows * outputs) {
            bail!("a residual of another shape than {shape:?}");
        }
        let mut out = Fresh::new(rows, outputs);
        let bias = self.bias.as_ref().map(ops::hold::<f32>).transpose()?;
        let epilogue = Epilogue {
            bias: bias.as_deref().unwrap_or_default(),
            activation: self.activation,
            residual: residual.map(|residual| Matrix::new(residual, rows, outputs)),
            ..Epilogue::default()
        };
        let x = Matrix::new(x, rows, inputs);
        self.weight.product(&mut out, x, &epilogue).map_err(crate::error::candle)?;
        Ok((CpuStorage::F32(out.finish()), Shape::from(shape)))
    }

    fn backward(&self, x: &Tensor, dy: &Tensor) -> CandleResult<Option<Tensor>> {
        if !x.track_op() {
            return Ok(None);
        }
        let [outputs, inputs] = self.weight.size();
        let dy = dy.contiguous()?;
        let dy = ops::hold::<f32>(&dy)?;
        let rows = dy.len() / outputs.max(1);
        let mut dx = Fresh::new(rows, inputs);
        self.weight.backward(&mut dx, Matrix::new(&dy, rows, outputs)).map_err(crate::error::candle)?;
        Ok(Some(ops::tensor(dx.finish(), x)?))
    }
}
