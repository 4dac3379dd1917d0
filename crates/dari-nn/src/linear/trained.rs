//! Products with weights that are trained.

use std::sync::OnceLock;

use candle_core::{CpuStorage, Layout, Result as CandleResult, Shape, Tensor, bail};
use dari_kernels::Activation;
use dari_kernels::gemm::{self, Epilogue, Fresh, Matrix, MatrixMut, Threads};

use super::{Layer, Operation, outcome};
use crate::gradients;
use crate::ops::{self, view};

/// Products with trained weights and what follows them. The weights' gradients are added up in
/// [`crate::Gradients`].
pub(crate) struct Trained {
    layers: Vec<Layer>,
    activation: Option<Activation>,
    /// What the activation was given, saved for the backward pass.
    before: OnceLock<Vec<f32>>,
}

impl Trained {
    pub(super) fn new(layers: &[Layer], activation: Option<Activation>) -> Trained {
        Trained { layers: layers.to_vec(), activation, before: OnceLock::new() }
    }

    fn outputs(&self) -> usize {
        self.layers.iter().map(|layer| layer.size[0]).sum()
    }

    fn inputs(&self) -> usize {
        self.layers.first().map_or(0, |layer| layer.size[1])
    }

    /// The products with rows that lie one after the other, and what follows them.
    pub(crate) fn run(&self, x: &[f32], residual: Option<&[f32]>) -> CandleResult<Vec<f32>> {
        let (outputs, inputs) = (self.outputs(), self.inputs());
        let rows = x.len() / inputs.max(1);
        if residual.is_some_and(|residual| residual.len() != rows * outputs) {
            bail!("a residual that does not fit {rows} rows of {outputs} values");
        }
        let mut out = Fresh::new(rows, outputs);
        let mut first = 0;
        for Layer { weight, size: [count, inputs], bias, products } in &self.layers {
            let values = ops::hold::<f32>(weight.tensor())?;
            let biases = bias.as_ref().map(|bias| ops::hold::<f32>(bias.tensor())).transpose()?;
            let biases = match (&biases, bias) {
                (Some(values), Some(bias)) => &values[bias.range()],
                _ => &[],
            };
            let residual = residual.map(|all| Matrix::new(all, rows, outputs).columns(first, *count));
            let epilogue = Epilogue { bias: biases, residual, ..Epilogue::default() };
            let weight = Matrix::new(&values[weight.range()], *count, *inputs);
            let x = Matrix::new(x, rows, *inputs);
            out.product(*products, x, weight.transposed(), &epilogue, Threads::Pool);
            first += count;
        }
        let mut out = out.finish();
        if let Some(activation) = self.activation {
            let activated = activation.of(&out);
            let before = std::mem::replace(&mut out, activated);
            self.before.get_or_init(|| before);
        }
        Ok(out)
    }

    /// The gradient of `x`; those of the weights are added up in [`crate::Gradients`].
    pub(crate) fn slopes(&self, x: &[f32], dy: &[f32]) -> CandleResult<Vec<f32>> {
        Ok(self.all_slopes(x, dy, true)?.unwrap_or_default())
    }

    fn all_slopes(&self, x: &[f32], dy: &[f32], wanted: bool) -> CandleResult<Option<Vec<f32>>> {
        let through;
        let dy: &[f32] = match (self.activation, self.before.get()) {
            (Some(activation), Some(given)) => {
                through = activation.slopes(given, dy);
                &through
            }
            (Some(_), None) => bail!("a linear layer's backward pass ran before its forward pass"),
            (None, _) => dy,
        };
        let (outputs, inputs) = (self.outputs(), self.inputs());
        let rows = dy.len() / outputs.max(1);
        let slopes = Matrix::new(dy, rows, outputs);
        let plain = Epilogue::default();
        let mut dx: Option<Vec<f32>> = None;
        let x = Matrix::new(x, rows, inputs);
        let mut first = 0;
        for Layer { weight, size: [count, inputs], bias, products } in &self.layers {
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

impl Operation for Trained {
    const NAME: &str = "linear";

    fn forward(
        &self,
        x: &CpuStorage,
        layout: &Layout,
        residual: Option<&[f32]>,
    ) -> CandleResult<(CpuStorage, Shape)> {
        let (shape, _) = outcome(layout, self.outputs());
        Ok((CpuStorage::F32(self.run(view::<f32>(x, layout)?, residual)?), Shape::from(shape)))
    }

    fn backward(&self, x: &Tensor, dy: &Tensor) -> CandleResult<Option<Tensor>> {
        let dy = dy.contiguous()?;
        let (values, dy) = (ops::hold::<f32>(x)?, ops::hold::<f32>(&dy)?);
        let dx = self.all_slopes(&values, &dy, x.track_op())?;
        dx.map(|dx| ops::tensor(dx, x)).transpose()
    }
}
