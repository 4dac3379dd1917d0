//! Products with weights that are trained.

use candle_core::Result as CandleResult;
use dari_kernels::gemm::{self, Epilogue, Fresh, Matrix, MatrixMut, Threads};

use super::{Layer, Operation, residual_of};
use crate::gradients;
use crate::ops;

/// Products with trained weights. The weights' gradients are added up in [`crate::Gradients`].
pub(super) struct Trained(pub Vec<Layer>);

impl Operation for Trained {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn outputs(&self) -> usize {
        self.0.iter().map(|layer| layer.size[0]).sum()
    }

    fn run(&self, x: &[f32], residual: Option<&[f32]>) -> CandleResult<Vec<f32>> {
        let (outputs, inputs) = (self.outputs(), self.inputs());
        let rows = x.len() / inputs.max(1);
        let residual = residual_of(residual, rows, outputs)?;
        let mut out = Fresh::new(rows, outputs);
        let mut first = 0;
        for Layer { weight, size: [count, inputs], bias, products } in &self.0 {
            let values = ops::hold::<f32>(weight.tensor())?;
            let biases = bias.as_ref().map(|bias| ops::hold::<f32>(bias.tensor())).transpose()?;
            let biases = match (&biases, bias) {
                (Some(values), Some(bias)) => &values[bias.range()],
                _ => &[],
            };
            let residual = residual.map(|all| all.columns(first, *count));
            let epilogue = Epilogue { bias: biases, residual, ..Epilogue::default() };
            let weight = Matrix::new(&values[weight.range()], *count, *inputs);
            let x = Matrix::new(x, rows, *inputs);
            out.product(*products, x, weight.transposed(), &epilogue, Threads::Pool);
            first += count;
        }
        Ok(out.finish())
    }

    fn slopes(&self, x: &[f32], dy: &[f32], wanted: bool) -> CandleResult<Option<Vec<f32>>> {
        let (outputs, inputs) = (self.outputs(), self.inputs());
        let rows = dy.len() / outputs.max(1);
        let slopes = Matrix::new(dy, rows, outputs);
        let plain = Epilogue::default();
        let mut dx: Option<Vec<f32>> = None;
        let x = Matrix::new(x, rows, inputs);
        let mut first = 0;
        for Layer { weight, size: [count, inputs], bias, products } in &self.0 {
            let slopes = slopes.columns(first, *count);
            if wanted {
                let values = ops::hold::<f32>(weight.tensor())?;
                let weight = Matrix::new(&values[weight.range()], *count, *inputs);
                if let Some(dx) = &mut dx {
                    let to = MatrixMut::new(dx, rows, *inputs);
                    gemm::product_of(*products, to, slopes, weight, &plain, true, Threads::Pool);
                } else {
                    let mut fresh = Fresh::new(rows, *inputs);
                    fresh.product(*products, slopes, weight, &plain, Threads::Pool);
                    dx = Some(fresh.finish());
                }
            }
            if weight.tracked() {
                gradients::accumulate(weight, |total, keep| {
                    let to = MatrixMut::new(total, *count, *inputs);
                    gemm::product_of(*products, to, slopes.transposed(), x, &plain, keep, Threads::Pool);
                })?;
            }
            if let Some(bias) = bias.as_ref().filter(|bias| bias.tracked()) {
                gradients::accumulate(bias, |total, _| gemm::add_column_sums(slopes, total))?;
            }
            first += count;
        }
        Ok(dx)
    }
}

impl Trained {
    fn inputs(&self) -> usize {
        self.0.first().map_or(0, |layer| layer.size[1])
    }
}
