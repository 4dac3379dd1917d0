//! The linear layer: the one product that every layer goes through.

use std::sync::{Arc, OnceLock};

use candle_core::{
    CpuStorage, CustomOp1, CustomOp2, CustomOp3, D, DType, Device, Layout, Result as CandleResult, Shape,
    Tensor, bail,
};
use dari_kernels::Activation;
use dari_kernels::gemm::{self, Epilogue, Fresh, Matrix, MatrixMut, Products, Threads};

use crate::ops::{self, view};
use crate::weight::{PackedWeight, Part, Weight};
use crate::weights::{Init, Weights};
use crate::{Error, Result, activation, gradients};

/// `y = x W^T + b` on the last dimension.
#[derive(Clone, Debug)]
pub struct Linear {
    form: Form,
    adapters: Vec<Adapter>,
}

/// Two factors beside a layer: `x A^T B^T`, scaled, is added to its outputs (LoRA: Hu et al. 2021).
#[derive(Clone, Debug)]
struct Adapter {
    /// `[rank, inputs]`.
    down: Tensor,
    /// `[outputs, rank]`.
    up: Tensor,
    scale: f64,
    /// The outputs before those that it is added to, and behind them.
    around: [usize; 2],
}

impl Adapter {
    fn load(weights: &Weights, inputs: usize, outputs: usize, around: [usize; 2]) -> Result<Option<Adapter>> {
        let factors = weights.adapter(inputs, outputs)?;
        Ok(factors.map(|(down, up, scale)| Adapter { down, up, scale, around }))
    }

    /// Those of layers whose outputs stand side by side.
    fn load_each(weights: &Weights, each: &[(&str, usize)], inputs: usize) -> Result<Vec<Adapter>> {
        let all: usize = each.iter().map(|(_, outputs)| outputs).sum();
        let (mut adapters, mut before) = (Vec::new(), 0);
        for &(name, outputs) in each {
            let around = [before, all - before - outputs];
            adapters.extend(Adapter::load(&weights.pp(name), inputs, outputs, around)?);
            before += outputs;
        }
        Ok(adapters)
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = (product(&product(x, &self.down, None)?, &self.up, None)? * self.scale)?;
        match self.around {
            [0, 0] => Ok(y),
            [before, behind] => Ok(y.pad_with_zeros(D::Minus1, before, behind)?),
        }
    }
}

#[derive(Clone, Debug)]
enum Form {
    Frozen {
        weight: Arc<PackedWeight>,
        bias: Option<Tensor>,
    },
    /// Layers of one input whose outputs stand side by side.
    Trained(Vec<Layer>),
}

/// One weight with its bias, as trained.
#[derive(Clone, Debug)]
struct Layer {
    weight: Part,
    size: [usize; 2],
    bias: Option<Part>,
    products: Products,
}

impl Linear {
    /// Reads `weight` `[outputs, inputs]` and, with `bias`, `bias` `[outputs]`.
    pub fn load(weights: &Weights, inputs: usize, outputs: usize, bias: bool) -> Result<Linear> {
        let weight = weights.weight("weight", &[outputs, inputs], Init::fan_in(inputs))?;
        let bias = bias_of(weights, outputs, bias)?;
        let adapters = Adapter::load(weights, inputs, outputs, [0, 0])?.into_iter().collect();
        Ok(Linear { adapters, ..Linear::new(weight, bias)? })
    }

    /// Reads several layers of one input as one whose outputs stand side by side.
    pub fn load_joined(
        weights: &Weights,
        names: &[&str],
        inputs: usize,
        outputs: usize,
        bias: bool,
    ) -> Result<Linear> {
        let each: Vec<(&str, usize)> = names.iter().map(|&name| (name, outputs)).collect();
        if let Some(frozen) = Linear::load_frozen_joined(weights, &each, inputs, bias)? {
            return Ok(frozen);
        }
        let mut layers = Vec::with_capacity(names.len());
        for name in names {
            let weights = weights.pp(name);
            let weight = weights.dense("weight", [outputs, inputs], Init::fan_in(inputs))?;
            if let Form::Trained(layer) = Linear::new(weight, bias_of(&weights, outputs, bias)?)?.form {
                layers.extend(layer);
            }
        }
        let adapters = Adapter::load_each(weights, &each, inputs)?;
        Ok(Linear { form: Form::Trained(layers), adapters })
    }

    /// Layers of one input, each with so many outputs, as one whose outputs stand side by side; `None` where their
    /// weights are not frozen.
    pub fn load_frozen_joined(
        weights: &Weights,
        each: &[(&str, usize)],
        inputs: usize,
        bias: bool,
    ) -> Result<Option<Linear>> {
        let names: Vec<(String, usize)> =
            each.iter().map(|(name, outputs)| (format!("{name}.weight"), *outputs)).collect();
        let Some(Weight::Packed(weight)) = weights.joined(&names, inputs)? else {
            return Ok(None);
        };
        let mut biases = Vec::new();
        for (name, outputs) in each.iter().filter(|_| bias) {
            biases.push(weights.pp(name).tensor("bias", &[*outputs], Init::ZEROS)?);
        }
        let bias = if bias { Some(Tensor::cat(&biases, 0)?) } else { None };
        let adapters = Adapter::load_each(weights, each, inputs)?;
        Ok(Some(Linear { form: Form::Frozen { weight, bias }, adapters }))
    }

    /// Puts a layer together from its parts.
    pub fn new(weight: Weight, bias: Option<Part>) -> Result<Linear> {
        let form = match weight {
            Weight::Packed(weight) => {
                let outputs = weight.size()[0];
                let bias = bias.map(|bias| bias.view(outputs)).transpose()?;
                Form::Frozen { weight, bias }
            }
            Weight::Dense { part, size, products } => {
                Form::Trained(vec![Layer { weight: part, size, bias, products }])
            }
        };
        Ok(Linear { form, adapters: Vec::new() })
    }

    /// `[.., inputs]` to `[.., outputs]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.apply(x, None, None)
    }

    /// `activation(forward(x))`.
    pub fn activated(&self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        self.apply(x, Some(activation), None)
    }

    /// `residual + forward(x)`.
    pub fn added(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        self.apply(x, None, Some(residual))
    }

    /// The layer as an operation with its activation, for one forward and one backward pass; `None` for
    /// packed weights and with adapters.
    pub(crate) fn trained(&self, activation: Option<Activation>) -> Option<Trained> {
        match &self.form {
            Form::Trained(layers) if self.adapters.is_empty() => Some(Trained::new(layers, activation)),
            Form::Trained(_) | Form::Frozen { .. } => None,
        }
    }

    fn inputs(&self) -> usize {
        match &self.form {
            Form::Frozen { weight, .. } => weight.size()[1],
            Form::Trained(layers) => layers.first().map_or(0, |layer| layer.size[1]),
        }
    }

    fn apply(&self, x: &Tensor, then: Option<Activation>, residual: Option<&Tensor>) -> Result<Tensor> {
        let inputs = self.inputs();
        if x.dims().last() != Some(&inputs) {
            return Err(Error::Config(format!("a linear layer of {inputs} inputs got {:?}", x.dims())));
        }
        if !self.adapters.is_empty() {
            let plain = self.plain(x, None, None)?;
            let y = self
                .adapters
                .iter()
                .try_fold(plain, |y, adapter| Ok::<_, Error>((y + adapter.forward(x)?)?))?;
            let y = then.map_or(Ok(y.clone()), |then| activation::apply(then, &y))?;
            return Ok(match residual {
                Some(residual) => (residual + y)?,
                None => y,
            });
        }
        self.plain(x, then, residual)
    }

    /// The layer without its adapters.
    fn plain(&self, x: &Tensor, then: Option<Activation>, residual: Option<&Tensor>) -> Result<Tensor> {
        match &self.form {
            // A bias that is trained beside a weight that is not.
            Form::Frozen { weight, bias: Some(bias) } if bias.track_op() => {
                let op = Frozen { weight: weight.clone(), bias: None, activation: None };
                let y = run(op, x, residual.filter(|_| then.is_none()))?.broadcast_add(bias)?;
                Ok(match (then, residual) {
                    (Some(then), None) => activation::apply(then, &y)?,
                    (Some(then), Some(residual)) => (residual + activation::apply(then, &y)?)?,
                    (None, _) => y,
                })
            }
            Form::Frozen { weight, bias } => {
                // The slope of an activation asks for what it was given.
                let fused = then.filter(|_| !x.track_op());
                let op = Frozen { weight: weight.clone(), bias: bias.clone(), activation: fused };
                let y = run(op, x, residual)?;
                Ok(match then {
                    Some(then) if fused.is_none() => activation::apply(then, &y)?,
                    _ => y,
                })
            }
            // An operation without a tracked argument is no part of the graph.
            Form::Trained(layers) if ops::by_kernel(x) && (x.track_op() || !gradients::is_recording()) => {
                Ok(run(Trained::new(layers, then), x, residual)?)
            }
            Form::Trained(layers) => {
                let each = layers.iter().map(|layer| {
                    let bias = layer.bias.as_ref().map(|bias| bias.view(layer.size[0])).transpose()?;
                    let weight = layer.weight.view((layer.size[0], layer.size[1]))?;
                    product_of(layer.products, x, &weight, bias.as_ref())
                });
                let each = each.collect::<CandleResult<Vec<Tensor>>>()?;
                let y = match &each[..] {
                    [only] => only.clone(),
                    several => Tensor::cat(several, D::Minus1)?,
                };
                let y = then.map_or(Ok(y.clone()), |then| activation::apply(then, &y))?;
                Ok(match residual {
                    Some(residual) => (residual + y)?,
                    None => y,
                })
            }
        }
    }
}

fn bias_of(weights: &Weights, outputs: usize, wanted: bool) -> Result<Option<Part>> {
    Ok(match wanted {
        true => Some(Part::whole(weights.tensor("bias", &[outputs], Init::ZEROS)?)),
        false => None,
    })
}

fn run<T>(op: T, x: &Tensor, residual: Option<&Tensor>) -> CandleResult<Tensor>
where
    T: CustomOp1 + CustomOp2 + Send + Sync + 'static,
{
    match residual {
        Some(residual) => x.contiguous()?.apply_op2(&residual.contiguous()?, op),
        None => x.contiguous()?.apply_op1(op),
    }
}

/// The shape of a product, and how many rows it has.
fn outcome(layout: &Layout, outputs: usize) -> (Vec<usize>, usize) {
    let mut shape = layout.dims().to_vec();
    if let Some(last) = shape.last_mut() {
        *last = outputs;
    }
    let rows = shape.iter().rev().skip(1).product();
    (shape, rows)
}

/// Products with trained weights and what follows them. The weights' gradients are added up in
/// [`crate::Gradients`].
pub(crate) struct Trained {
    layers: Vec<Layer>,
    activation: Option<Activation>,
    /// What the activation was given, saved for the backward pass.
    before: OnceLock<Vec<f32>>,
}

impl Trained {
    fn new(layers: &[Layer], activation: Option<Activation>) -> Trained {
        Trained { layers: layers.to_vec(), activation, before: OnceLock::new() }
    }

    fn outputs(&self) -> usize {
        self.layers.iter().map(|layer| layer.size[0]).sum()
    }

    fn inputs(&self) -> usize {
        self.layers.first().map_or(0, |layer| layer.size[1])
    }

    fn forward(
        &self,
        x: &CpuStorage,
        layout: &Layout,
        residual: Option<&[f32]>,
    ) -> CandleResult<(CpuStorage, Shape)> {
        let (shape, _) = outcome(layout, self.outputs());
        Ok((CpuStorage::F32(self.run(view::<f32>(x, layout)?, residual)?), Shape::from(shape)))
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

    fn backward(&self, x: &Tensor, dy: &Tensor) -> CandleResult<Option<Tensor>> {
        let dy = dy.contiguous()?;
        let (values, dy) = (ops::hold::<f32>(x)?, ops::hold::<f32>(&dy)?);
        let dx = self.all_slopes(&values, &dy, x.track_op())?;
        dx.map(|dx| ops::tensor(dx, x)).transpose()
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

impl CustomOp1 for Trained {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        self.forward(x, layout, None)
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, dy: &Tensor) -> CandleResult<Option<Tensor>> {
        self.backward(x, dy)
    }
}

impl CustomOp2 for Trained {
    fn name(&self) -> &'static str {
        "linear, added"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        residual: &CpuStorage,
        rl: &Layout,
    ) -> CandleResult<(CpuStorage, Shape)> {
        self.forward(x, xl, Some(view(residual, rl)?))
    }

    fn bwd(
        &self,
        x: &Tensor,
        residual: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> CandleResult<(Option<Tensor>, Option<Tensor>)> {
        Ok((self.backward(x, dy)?, residual.track_op().then(|| dy.clone())))
    }
}

/// A product with a packed weight and what follows it.
#[derive(Clone)]
struct Frozen {
    weight: Arc<PackedWeight>,
    bias: Option<Tensor>,
    activation: Option<Activation>,
}

impl Frozen {
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

impl CustomOp1 for Frozen {
    fn name(&self) -> &'static str {
        "product with a packed weight"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        self.forward(x, layout, None)
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, dy: &Tensor) -> CandleResult<Option<Tensor>> {
        self.backward(x, dy)
    }
}

impl CustomOp2 for Frozen {
    fn name(&self) -> &'static str {
        "product with a packed weight, added"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        residual: &CpuStorage,
        rl: &Layout,
    ) -> CandleResult<(CpuStorage, Shape)> {
        self.forward(x, xl, Some(view(residual, rl)?))
    }

    fn bwd(
        &self,
        x: &Tensor,
        residual: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> CandleResult<(Option<Tensor>, Option<Tensor>)> {
        Ok((self.backward(x, dy)?, residual.track_op().then(|| dy.clone())))
    }
}

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
