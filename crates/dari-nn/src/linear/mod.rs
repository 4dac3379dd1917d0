//! The linear layer: the one product that every layer goes through.

mod frozen;
mod product;
mod trained;

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, CustomOp2, D, Layout, Result as CandleResult, Shape, Tensor, bail};
use dari_kernels::Activation;
use dari_kernels::gemm::{Matrix, Products};

use self::frozen::Frozen;
pub use self::product::product;
pub(crate) use self::product::product_of;
use self::trained::Trained;
use crate::chain::Step;
use crate::ops;
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
        self.apply(x, Then::Nothing)
    }

    /// `activation(forward(x))`.
    pub fn activated(&self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        self.apply(x, Then::Activation(activation))
    }

    /// `residual + forward(x)`.
    pub fn added(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        self.apply(x, Then::Residual(residual))
    }

    /// The layer as a step for one forward and one backward pass; `None` with adapters, and where a bias is trained
    /// beside a weight that is not.
    pub(crate) fn step(&self) -> Option<Step> {
        match &self.form {
            _ if !self.adapters.is_empty() => None,
            Form::Trained(layers) => Some(Step::Linear(Box::new(Trained(layers.clone())))),
            Form::Frozen { bias: Some(bias), .. } if bias.track_op() => None,
            Form::Frozen { weight, bias } => {
                let op = Frozen { weight: weight.clone(), bias: bias.clone(), activation: None };
                Some(Step::Linear(Box::new(op)))
            }
        }
    }

    fn inputs(&self) -> usize {
        match &self.form {
            Form::Frozen { weight, .. } => weight.size()[1],
            Form::Trained(layers) => layers.first().map_or(0, |layer| layer.size[1]),
        }
    }

    fn apply(&self, x: &Tensor, then: Then) -> Result<Tensor> {
        let inputs = self.inputs();
        if x.dims().last() != Some(&inputs) {
            return Err(Error::Config(format!("a linear layer of {inputs} inputs got {:?}", x.dims())));
        }
        if self.adapters.is_empty() {
            return self.plain(x, then);
        }
        let mut y = self.plain(x, Then::Nothing)?;
        for adapter in &self.adapters {
            y = (y + adapter.forward(x)?)?;
        }
        then.of(y)
    }

    /// The layer without its adapters.
    fn plain(&self, x: &Tensor, then: Then) -> Result<Tensor> {
        match &self.form {
            // A bias that is trained beside a weight that is not.
            Form::Frozen { weight, bias: Some(bias) } if bias.track_op() => {
                let op = Frozen { weight: weight.clone(), bias: None, activation: None };
                then.of(run(op, x, None)?.broadcast_add(bias)?)
            }
            Form::Frozen { weight, bias } => {
                let op = Frozen { weight: weight.clone(), bias: bias.clone(), activation: None };
                match then {
                    Then::Activation(then) if !x.track_op() => {
                        Ok(run(Frozen { activation: Some(then), ..op }, x, None)?)
                    }
                    Then::Residual(residual) => Ok(run(op, x, Some(residual))?),
                    then => then.of(run(op, x, None)?),
                }
            }
            // An operation without a tracked argument is no part of the graph.
            Form::Trained(layers) if ops::by_kernel(x) && (x.track_op() || !gradients::is_recording()) => {
                let op = Trained(layers.clone());
                match then {
                    Then::Residual(residual) => Ok(run(op, x, Some(residual))?),
                    then => then.of(run(op, x, None)?),
                }
            }
            Form::Trained(layers) => {
                let each = layers.iter().map(|layer| {
                    let bias = layer.bias.as_ref().map(|bias| bias.view(layer.size[0])).transpose()?;
                    let weight = layer.weight.view((layer.size[0], layer.size[1]))?;
                    product_of(layer.products, x, &weight, bias.as_ref())
                });
                let each = each.collect::<CandleResult<Vec<Tensor>>>()?;
                then.of(match &each[..] {
                    [only] => only.clone(),
                    several => Tensor::cat(several, D::Minus1)?,
                })
            }
        }
    }
}

/// What follows a product.
enum Then<'a> {
    Nothing,
    Activation(Activation),
    Residual(&'a Tensor),
}

impl Then<'_> {
    /// By operations of its own.
    fn of(self, y: Tensor) -> Result<Tensor> {
        match self {
            Then::Nothing => Ok(y),
            Then::Activation(activation) => activation::apply(activation, &y),
            Then::Residual(residual) => Ok((residual + y)?),
        }
    }
}

fn bias_of(weights: &Weights, outputs: usize, wanted: bool) -> Result<Option<Part>> {
    Ok(match wanted {
        true => Some(Part::whole(weights.tensor("bias", &[outputs], Init::ZEROS)?)),
        false => None,
    })
}

/// A layer's product with rows of values that lie one after the other, and what follows it. By itself, or with a
/// residual that is added, it is an operation of candle's graph; or a step of a [`crate::chain`].
pub(crate) trait Operation: Send + Sync {
    fn name(&self) -> &'static str;

    /// Values of a row of the result.
    fn outputs(&self) -> usize;

    fn run(&self, x: &[f32], residual: Option<&[f32]>) -> CandleResult<Vec<f32>>;

    /// The gradient of `x`, where it is wanted; those of the weights are added up in [`crate::Gradients`].
    fn slopes(&self, x: &[f32], dy: &[f32], wanted: bool) -> CandleResult<Option<Vec<f32>>>;
}

/// What is added to so many rows of results.
fn residual_of(residual: Option<&[f32]>, rows: usize, outputs: usize) -> CandleResult<Option<Matrix<'_>>> {
    match residual {
        Some(values) if values.len() != rows * outputs => {
            bail!("a residual of {} values for {rows} rows of {outputs}", values.len())
        }
        residual => Ok(residual.map(|values| Matrix::new(values, rows, outputs))),
    }
}

struct Op<T>(T);

impl<T: Operation> Op<T> {
    fn forward(
        &self,
        x: &CpuStorage,
        layout: &Layout,
        residual: Option<&[f32]>,
    ) -> CandleResult<(CpuStorage, Shape)> {
        let (shape, _) = outcome(layout, self.0.outputs());
        Ok((CpuStorage::F32(self.0.run(ops::view(x, layout)?, residual)?), Shape::from(shape)))
    }

    fn backward(&self, x: &Tensor, dy: &Tensor) -> CandleResult<Option<Tensor>> {
        let dy = dy.contiguous()?;
        let dx = self.0.slopes(&ops::hold::<f32>(x)?, &ops::hold::<f32>(&dy)?, x.track_op())?;
        dx.map(|dx| ops::tensor(dx, x)).transpose()
    }
}

impl<T: Operation> CustomOp1 for Op<T> {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        self.forward(x, layout, None)
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, dy: &Tensor) -> CandleResult<Option<Tensor>> {
        self.backward(x, dy)
    }
}

impl<T: Operation> CustomOp2 for Op<T> {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        residual: &CpuStorage,
        rl: &Layout,
    ) -> CandleResult<(CpuStorage, Shape)> {
        self.forward(x, xl, Some(ops::view(residual, rl)?))
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

fn run<T: Operation + 'static>(op: T, x: &Tensor, residual: Option<&Tensor>) -> CandleResult<Tensor> {
    match residual {
        Some(residual) => x.contiguous()?.apply_op2(&residual.contiguous()?, Op(op)),
        None => x.contiguous()?.apply_op1(Op(op)),
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
