//! The linear layer: the one product that every layer goes through.

use candle_core::{
    CpuStorage, CustomOp2, CustomOp3, Device, Layout, Result as CandleResult, Shape, Tensor, bail,
};
use dari_kernels::gemm::{self, Matrix, MatrixMut, Threads, WeightView};

use crate::Result;
use crate::ops::{self, view};
use crate::weight::{HeldWeight, Weight};
use crate::weights::{Init, Weights};

/// `y = x W^T + b` on the last dimension.
#[derive(Clone, Debug)]
pub struct Linear {
    weight: Weight,
    bias: Option<Tensor>,
}

impl Linear {
    /// Reads `weight` `[outputs, inputs]` and, with `bias`, `bias` `[outputs]`.
    pub fn load(weights: &Weights, inputs: usize, outputs: usize, bias: bool) -> Result<Linear> {
        let weight = weights.weight("weight", &[outputs, inputs], Init::fan_in(inputs))?;
        let bias = if bias { Some(weights.tensor("bias", &[outputs], Init::ZEROS)?) } else { None };
        Ok(Linear { weight, bias })
    }

    /// Puts a layer together from its parts.
    pub fn new(weight: Weight, bias: Option<Tensor>) -> Linear {
        Linear { weight, bias }
    }

    /// `[.., inputs]` to `[.., outputs]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(product(x, self.weight.tensor(), self.bias.as_ref())?)
    }
}

/// `x weight^T + bias`: `[.., inputs]` by `[outputs, inputs]` to `[.., outputs]`.
pub fn product(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> CandleResult<Tensor> {
    let (_, inputs) = weight.dims2()?;
    if x.dims().last() != Some(&inputs) {
        bail!("a product got {:?} for a weight of {:?}", x.dims(), weight.dims());
    }
    if !ops::by_kernel(x) {
        return composed(x, weight, bias);
    }
    let (x, weight) = (x.contiguous()?, weight.contiguous()?);
    let needs =
        Needs { x: x.track_op(), weight: weight.track_op(), bias: bias.is_some_and(Tensor::track_op) };
    match bias {
        Some(bias) => x.apply_op3(&weight, &bias.contiguous()?, Product { needs }),
        None => x.apply_op2(&weight, Product { needs }),
    }
}

/// The same of candle's own operations: other devices, and what the kernel is checked against.
fn composed(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> CandleResult<Tensor> {
    let weight = weight.to_dtype(x.dtype())?;
    let (outputs, inputs) = weight.dims2()?;
    let mut shape = x.dims().to_vec();
    if let Some(last) = shape.last_mut() {
        *last = outputs;
    }
    let y = x.reshape(((), inputs))?.matmul(&weight.t()?)?.reshape(shape)?;
    match bias {
        Some(bias) => y.broadcast_add(bias),
        None => Ok(y),
    }
}

/// Which arguments want a gradient; the others get and keep none.
#[derive(Clone, Copy, Debug)]
struct Needs {
    x: bool,
    weight: bool,
    bias: bool,
}

#[derive(Clone, Copy, Debug)]
struct Product {
    needs: Needs,
}

impl Product {
    fn forward(
        (x, x_layout): (&CpuStorage, &Layout),
        (weight, weight_layout): (&CpuStorage, &Layout),
        bias: &[f32],
    ) -> CandleResult<(CpuStorage, Shape)> {
        let (outputs, inputs) = weight_layout.shape().dims2()?;
        let mut shape = x_layout.dims().to_vec();
        if let Some(last) = shape.last_mut() {
            *last = outputs;
        }
        let x = view::<f32>(x, x_layout)?;
        let weight = match weight {
            CpuStorage::BF16(_) => WeightView::Bf16(view(weight, weight_layout)?),
            _ => WeightView::F32(view(weight, weight_layout)?),
        };
        let mut out = vec![0.0; shape.iter().product()];
        gemm::linear(x, weight, bias, inputs, outputs, &mut out);
        Ok((CpuStorage::F32(out), Shape::from(shape)))
    }

    fn backward(&self, x: &Tensor, weight: &Tensor, dy: &Tensor) -> CandleResult<[Option<Tensor>; 3]> {
        let (outputs, inputs) = weight.dims2()?;
        let dy = dy.contiguous()?;
        let dy = ops::hold::<f32>(&dy)?;
        let rows = dy.len() / outputs.max(1);
        let slopes = Matrix::new(&dy, rows, outputs);
        let dx = if self.needs.x {
            let mut dx = vec![0.0; rows * inputs];
            let expanded;
            let held = HeldWeight::hold(weight)?;
            let values: &[f32] = match &held {
                HeldWeight::F32(values) => values,
                HeldWeight::Bf16(values) => {
                    let mut wide = vec![0.0; values.len()];
                    gemm::expand(values, &mut wide);
                    expanded = wide;
                    &expanded
                }
            };
            let weight = Matrix::new(values, outputs, inputs);
            gemm::product(MatrixMut::new(&mut dx, rows, inputs), slopes, weight, 1.0, false, Threads::Pool);
            Some(ops::tensor(dx, x)?)
        } else {
            None
        };
        let dweight = if self.needs.weight {
            let mut dweight = vec![0.0; outputs * inputs];
            let x = ops::hold::<f32>(x)?;
            let x = Matrix::new(&x, rows, inputs);
            let out = MatrixMut::new(&mut dweight, outputs, inputs);
            gemm::product(out, slopes.transposed(), x, 1.0, false, Threads::Pool);
            Some(ops::tensor(dweight, weight)?)
        } else {
            None
        };
        let dbias = if self.needs.bias {
            let mut dbias = vec![0.0; outputs];
            gemm::column_sums(&dy, outputs, &mut dbias);
            Some(Tensor::from_vec(dbias, outputs, &Device::Cpu)?)
        } else {
            None
        };
        Ok([dx, dweight, dbias])
    }
}

impl CustomOp2 for Product {
    fn name(&self) -> &'static str {
        "product"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        w: &CpuStorage,
        wl: &Layout,
    ) -> CandleResult<(CpuStorage, Shape)> {
        Product::forward((x, xl), (w, wl), &[])
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> CandleResult<(Option<Tensor>, Option<Tensor>)> {
        let [dx, dweight, _] = self.backward(x, weight, dy)?;
        Ok((dx, dweight))
    }
}

impl CustomOp3 for Product {
    fn name(&self) -> &'static str {
        "product with bias"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        w: &CpuStorage,
        wl: &Layout,
        b: &CpuStorage,
        bl: &Layout,
    ) -> CandleResult<(CpuStorage, Shape)> {
        Product::forward((x, xl), (w, wl), view(b, bl)?)
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> CandleResult<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [dx, dweight, dbias] = self.backward(x, weight, dy)?;
        Ok((dx, dweight, dbias))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::DType;

    use super::*;

    #[test]
    fn the_kernel_agrees_with_candle() -> CandleResult<()> {
        let x = Tensor::randn(0f32, 1., (3, 5, 7), &Device::Cpu)?;
        let weight = Tensor::randn(0f32, 1., (4, 7), &Device::Cpu)?;
        let bias = Tensor::randn(0f32, 1., 4, &Device::Cpu)?;
        for weight in [weight.clone(), weight.to_dtype(DType::BF16)?] {
            let ours = product(&x, &weight, Some(&bias))?;
            let theirs = composed(&x, &weight, Some(&bias))?;
            assert_eq!(ours.dims(), [3, 5, 4]);
            let difference = (ours - theirs)?.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()?;
            assert!(difference < 1e-5, "{difference}");
        }
        assert!(product(&x, &Tensor::zeros((4, 6), DType::F32, &Device::Cpu)?, None).is_err());
        Ok(())
    }
}
