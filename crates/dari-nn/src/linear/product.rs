//! The product of two tensors, of which either may want a gradient.

use candle_core::{
    CpuStorage, CustomOp2, CustomOp3, DType, Device, Layout, Result as CandleResult, Shape, Tensor, bail,
};
use dari_kernels::gemm::{self, Epilogue, Fresh, Matrix, Products, Threads};

use super::outcome;
use crate::ops::{self, view};

/// `x weight^T + bias`: `[.., inputs]` by `[outputs, inputs]` to `[.., outputs]`.
pub fn product(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> CandleResult<Tensor> {
    product_of(Products::F32, x, weight, bias)
}

pub(crate) fn product_of(
    products: Products,
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
) -> CandleResult<Tensor> {
    let (_, inputs) = weight.dims2()?;
    if x.dims().last() != Some(&inputs) {
        bail!("a product got {:?} for a weight of {:?}", x.dims(), weight.dims());
    }
    if !ops::by_kernel(x) {
        return composed(x, weight, bias);
    }
    let (x, weight) = (x.contiguous()?, weight.to_dtype(DType::F32)?.contiguous()?);
    let needs =
        Needs { x: x.track_op(), weight: weight.track_op(), bias: bias.is_some_and(Tensor::track_op) };
    match bias {
        Some(bias) => x.apply_op3(&weight, &bias.contiguous()?, Product { needs, products }),
        None => x.apply_op2(&weight, Product { needs, products }),
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
    products: Products,
}

impl Product {
    fn forward(
        &self,
        (x, x_layout): (&CpuStorage, &Layout),
        (weight, weight_layout): (&CpuStorage, &Layout),
        bias: &[f32],
    ) -> CandleResult<(CpuStorage, Shape)> {
        let (outputs, inputs) = weight_layout.shape().dims2()?;
        let (shape, rows) = outcome(x_layout, outputs);
        let (x, weight) = (view::<f32>(x, x_layout)?, view::<f32>(weight, weight_layout)?);
        let (x, weight) = (Matrix::new(x, rows, inputs), Matrix::new(weight, outputs, inputs));
        let mut out = Fresh::new(rows, outputs);
        out.product(self.products, x, weight.transposed(), &Epilogue::bias(bias), Threads::Pool);
        Ok((CpuStorage::F32(out.finish()), Shape::from(shape)))
    }

    fn backward(&self, x: &Tensor, weight: &Tensor, dy: &Tensor) -> CandleResult<[Option<Tensor>; 3]> {
        let (outputs, inputs) = weight.dims2()?;
        let dy = dy.contiguous()?;
        let dy = ops::hold::<f32>(&dy)?;
        let rows = dy.len() / outputs.max(1);
        let slopes = Matrix::new(&dy, rows, outputs);
        let plain = Epilogue::default();
        let dx = if self.needs.x {
            let held = ops::hold::<f32>(weight)?;
            let mut dx = Fresh::new(rows, inputs);
            dx.product(self.products, slopes, Matrix::new(&held, outputs, inputs), &plain, Threads::Pool);
            Some(ops::tensor(dx.finish(), x)?)
        } else {
            None
        };
        let dweight = if self.needs.weight {
            let x = ops::hold::<f32>(x)?;
            let x = Matrix::new(&x, rows, inputs);
            let mut dweight = Fresh::new(outputs, inputs);
            dweight.product(self.products, slopes.transposed(), x, &plain, Threads::Pool);
            Some(ops::tensor(dweight.finish(), weight)?)
        } else {
            None
        };
        let dbias = if self.needs.bias {
            let mut dbias = vec![0.0; outputs];
            gemm::add_column_sums(slopes, &mut dbias);
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
        self.forward((x, xl), (w, wl), &[])
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
        self.forward((x, xl), (w, wl), view(b, bl)?)
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
