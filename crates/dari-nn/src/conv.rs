//! Convolutional layers over channels-last pictures, `[batch, height, width, channels]`.

use candle_core::{
    CpuStorage, CustomOp1, CustomOp3, DType, Layout, Result as CandleResult, Shape, Tensor, Var,
};
use dari_kernels::Activation;
use dari_kernels::batch_norm as kernel_norm;
use dari_kernels::conv::{self as kernel, Window};
use dari_kernels::gemm::Products;

use crate::linear::{self, Linear};
use crate::ops::{self, view};
use crate::weight::Part;
use crate::weights::{Init, Weights};
use crate::{Error, Result, activation, gradients};

/// PyTorch's, of a batch norm.
const EPSILON: f64 = 1e-5;
/// The share that a batch has in the running statistics; PyTorch's.
const MOMENTUM: f64 = 0.1;
/// Values of windows that go through a product at once: what the caches hold.
const AT_ONCE: usize = 1 << 20;

/// `[batch, channels, height, width]` to `[batch, height, width, channels]`.
pub fn channels_last(x: &Tensor) -> Result<Tensor> {
    Ok(x.permute((0, 2, 3, 1))?.contiguous()?)
}

/// The sizes of a convolution.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Channels that it reads.
    pub inputs: usize,
    /// Channels that it gives.
    pub outputs: usize,
    /// Side of its window.
    pub side: usize,
    /// Pixels from one window to the next. The padding is half of the side.
    pub stride: usize,
}

impl Sizes {
    fn window(&self, x: &Tensor) -> Result<Window> {
        let (_, height, width, channels) = x.dims4()?;
        let Sizes { inputs, side, stride, .. } = *self;
        let window = Window { height, width, channels, side, stride, padding: side / 2 };
        if channels != inputs || window.places().0 == 0 || window.places().1 == 0 {
            return Err(Error::Config(format!(
                "pictures of {:?} do not fit a convolution of {self:?}",
                x.dims()
            )));
        }
        Ok(window)
    }
}

/// A convolution without bias and the batch norm behind it.
#[derive(Clone, Debug)]
pub struct ConvNorm {
    form: Form,
    sizes: Sizes,
}

#[derive(Clone, Debug)]
enum Form {
    /// For inference on a CPU: one product, the norm folded into its weight and bias.
    Folded(Linear),
    /// Elsewhere: the weight as stored, `[outputs, inputs, side, side]`.
    Plain { weight: Tensor, norm: BatchNorm, products: Products },
}

impl ConvNorm {
    /// Reads `weight` `[outputs, inputs, side, side]` below `convolution`, and the [`BatchNorm`]'s
    /// tensors below `norm`.
    pub fn load(convolution: &Weights, norm: &Weights, sizes: Sizes) -> Result<ConvNorm> {
        let Sizes { inputs, outputs, side, .. } = sizes;
        let stored = [outputs, inputs, side, side];
        let form = if convolution.packs() {
            let (scale, bias) = BatchNorm::load(norm, outputs)?.folded()?;
            let place = side * side;
            let prepare = Box::new(move |values: Vec<f32>| {
                let mut out = vec![0.0; values.len()];
                let each = inputs * place;
                for ((out, values), scale) in out.chunks_mut(each).zip(values.chunks(each)).zip(&scale) {
                    for (at, out) in out.iter_mut().enumerate() {
                        // Stored by channel and then by place, used the other way round.
                        *out = values[at % inputs * place + at / inputs] * scale;
                    }
                }
                out
            });
            let weight = convolution.prepared("weight", &stored, prepare)?;
            let weight = weight.ok_or_else(|| Error::Config("a weight that is not packed".into()))?;
            let bias = Tensor::from_vec(bias, outputs, convolution.device())?;
            Form::Folded(Linear::new(weight, Some(Part::whole(bias)))?)
        } else {
            Form::Plain {
                // He et al. 2015, by the outputs: what torchvision draws.
                weight: convolution.tensor(
                    "weight",
                    &stored,
                    Init::Normal((2.0 / (outputs * side * side).max(1) as f64).sqrt()),
                )?,
                norm: BatchNorm::load(norm, outputs)?,
                products: convolution.products(),
            }
        };
        Ok(ConvNorm { form, sizes })
    }

    /// `[batch, height, width, inputs]` to `[batch, down, across, outputs]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.apply(x, None)
    }

    /// `activation(forward(x))`.
    pub fn activated(&self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        self.apply(x, Some(activation))
    }

    fn apply(&self, x: &Tensor, then: Option<Activation>) -> Result<Tensor> {
        let window = self.sizes.window(x)?;
        match &self.form {
            Form::Folded(linear) => {
                let batch = x.dim(0)?;
                let (down, across) = window.places();
                let at_once = (AT_ONCE / (down * across * window.values()).max(1)).clamp(1, batch.max(1));
                let mut parts = Vec::new();
                for first in (0..batch).step_by(at_once) {
                    let part = x.narrow(0, first, at_once.min(batch - first))?;
                    let rows = unfold(window, &part)?;
                    parts.push(match then {
                        Some(then) => linear.activated(&rows, then)?,
                        None => linear.forward(&rows)?,
                    });
                }
                match &parts[..] {
                    [all] => Ok(all.clone()),
                    _ => Ok(Tensor::cat(&parts, 0)?),
                }
            }
            Form::Plain { weight, norm, products } => {
                let y = match ops::by_kernel(x) {
                    true => {
                        let weight = weight.permute((0, 2, 3, 1))?.flatten_from(1)?;
                        linear::product_of(*products, &unfold(window, x)?, &weight, None)?
                    }
                    false => {
                        let x = x.permute((0, 3, 1, 2))?.contiguous()?;
                        channels_last(&x.conv2d(weight, window.padding, window.stride, 1, 1)?)?
                    }
                };
                let y = norm.forward(&y)?;
                then.map_or(Ok(y.clone()), |then| activation::apply(then, &y))
            }
        }
    }
}

/// Batch norm over the last dimension (Ioffe and Szegedy 2015; PyTorch's `BatchNorm2d`).
///
/// Where its weight is trained it norms by the batch at hand, and keeps running statistics; a frozen
/// one norms by those, as in inference.
#[derive(Clone, Debug)]
pub struct BatchNorm {
    weight: Tensor,
    bias: Tensor,
    mean: Var,
    variance: Var,
    by_batch: bool,
}

impl BatchNorm {
    /// Reads `weight`, `bias`, `running_mean` and `running_var`, each `[width]`.
    pub fn load(weights: &Weights, width: usize) -> Result<BatchNorm> {
        Ok(BatchNorm {
            weight: weights.tensor("weight", &[width], Init::ONES)?,
            bias: weights.tensor("bias", &[width], Init::ZEROS)?,
            mean: weights.buffer("running_mean", &[width], Init::ZEROS)?,
            variance: weights.buffer("running_var", &[width], Init::ONES)?,
            by_batch: weights.is_trained("weight"),
        })
    }

    /// What a frozen norm comes to: a factor and a term for each channel.
    fn folded(&self) -> Result<(Vec<f32>, Vec<f32>)> {
        let read = |tensor: &Tensor| tensor.to_vec1::<f32>();
        let (weight, bias) = (read(&self.weight)?, read(&self.bias)?);
        let (mean, variance) = (read(self.mean.as_tensor())?, read(self.variance.as_tensor())?);
        let scales =
            weight.iter().zip(&variance).map(|(w, v)| f64::from(*w) / (f64::from(*v) + EPSILON).sqrt());
        let scales: Vec<f64> = scales.collect();
        let terms = bias.iter().zip(&mean).zip(&scales);
        let terms = terms.map(|((bias, mean), scale)| (f64::from(*bias) - f64::from(*mean) * scale) as f32);
        Ok((scales.iter().map(|scale| *scale as f32).collect(), terms.collect()))
    }

    /// Moves the running statistics towards those of a batch of `rows`.
    fn keep(&self, rows: usize, (means, variances): &(Vec<f64>, Vec<f64>)) -> Result<()> {
        // A segment's first run is not the one that counts.
        if !gradients::is_recording() {
            return Ok(());
        }
        let unbiased = rows as f64 / (rows.max(2) - 1) as f64;
        for (running, found, factor) in [(&self.mean, means, 1.0), (&self.variance, variances, unbiased)] {
            let old = running.to_vec1::<f32>()?;
            let new = old
                .iter()
                .zip(found)
                .map(|(old, found)| (f64::from(*old) * (1.0 - MOMENTUM) + found * factor * MOMENTUM) as f32);
            let new: Vec<f32> = new.collect();
            running.set(&Tensor::from_vec(new, old.len(), running.device())?)?;
        }
        Ok(())
    }

    /// `[.., width]` to the same.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let width = self.weight.elem_count();
        let rows = x.reshape(((), width))?;
        let (centred, variance) = match self.by_batch {
            true if ops::by_kernel(x) => {
                let x = x.contiguous()?;
                let moments = kernel_norm::moments(&ops::hold::<f32>(&x)?, width);
                self.keep(x.elem_count() / width.max(1), &moments)?;
                let scales = moments.1.iter().map(|variance| (variance + EPSILON).powf(-0.5)).collect();
                let op = ByBatch { means: moments.0, scales };
                return Ok(x.apply_op3(&self.weight, &self.bias, op)?);
            }
            true => {
                let mean = rows.mean_keepdim(0)?;
                let centred = rows.broadcast_sub(&mean)?;
                let variance = centred.sqr()?.mean_keepdim(0)?;
                let read = |x: &Tensor| -> CandleResult<Vec<f64>> {
                    x.detach().flatten_all()?.to_dtype(DType::F64)?.to_vec1()
                };
                self.keep(rows.dim(0)?, &(read(&mean)?, read(&variance)?))?;
                (centred, variance)
            }
            false => (
                rows.broadcast_sub(&self.mean.as_detached_tensor())?,
                self.variance.as_detached_tensor().unsqueeze(0)?,
            ),
        };
        let normed = centred.broadcast_div(&(variance + EPSILON)?.sqrt()?)?;
        Ok(normed.broadcast_mul(&self.weight)?.broadcast_add(&self.bias)?.reshape(x.shape())?)
    }
}

/// Batch norm by the moments of the batch at hand.
struct ByBatch {
    means: Vec<f64>,
    scales: Vec<f64>,
}

impl CustomOp3 for ByBatch {
    fn name(&self) -> &'static str {
        "batch norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        weight: &CpuStorage,
        wl: &Layout,
        bias: &CpuStorage,
        bl: &Layout,
    ) -> CandleResult<(CpuStorage, Shape)> {
        let (x, weight, bias) = (view::<f32>(x, xl)?, view::<f32>(weight, wl)?, view::<f32>(bias, bl)?);
        let y = kernel_norm::forward(x, &self.means, &self.scales, weight, bias);
        Ok((CpuStorage::F32(y), xl.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> CandleResult<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let dy = dy.contiguous()?;
        let (dx, dweight, dbias) = kernel_norm::backward(
            &ops::hold::<f32>(x)?,
            &self.means,
            &self.scales,
            &ops::hold::<f32>(weight)?,
            &ops::hold::<f32>(&dy)?,
        );
        let wanted = |of: &Tensor, values| of.track_op().then(|| ops::tensor(values, of)).transpose();
        Ok((wanted(x, dx)?, wanted(weight, dweight)?, wanted(bias, dbias)?))
    }
}

/// The mean of windows of `side`, as far apart: `[batch, height, width, channels]` to a `side`th.
pub fn mean_pool(x: &Tensor, side: usize) -> Result<Tensor> {
    slide(Slide::Mean, x, side, side, 0)
}

/// The largest of windows of `side`, `stride` apart, half of the side added on each edge.
pub fn max_pool(x: &Tensor, side: usize, stride: usize) -> Result<Tensor> {
    slide(Slide::Largest, x, side, stride, side / 2)
}

fn slide(what: Slide, x: &Tensor, side: usize, stride: usize, padding: usize) -> Result<Tensor> {
    let (_, height, width, channels) = x.dims4()?;
    let window = Window { height, width, channels, side, stride, padding };
    if window.places().0 == 0 || window.places().1 == 0 {
        return Err(Error::Config(format!("a pool of {side} does not fit pictures of {:?}", x.dims())));
    }
    if ops::by_kernel(x) {
        return Ok(x.contiguous()?.apply_op1(Windows { window, what })?);
    }
    let x = x.permute((0, 3, 1, 2))?;
    let y = match what {
        Slide::Mean => x.avg_pool2d_with_stride(side, stride)?,
        // Only what lies behind a ReLU is pooled so: zeros are as good as no value.
        _ => {
            let padded = x.pad_with_zeros(2, padding, padding)?.pad_with_zeros(3, padding, padding)?;
            padded.max_pool2d_with_stride(side, stride)?
        }
    };
    channels_last(&y)
}

/// Cuts channels-last pictures into patches, pixel by pixel: to `[batch, down, across, patch * patch *
/// channels]`. What does not fill a patch is left out.
pub fn patches(x: &Tensor, patch: usize) -> Result<Tensor> {
    let (batch, height, width, channels) = x.dims4()?;
    let window = Window { height, width, channels, side: patch, stride: patch, padding: 0 };
    if ops::by_kernel(x) {
        return unfold(window, x);
    }
    let (down, across) = window.places();
    let whole = x.narrow(1, 0, down * patch)?.narrow(2, 0, across * patch)?;
    let cut = whole.reshape(&[batch, down, patch, across, patch, channels][..])?.transpose(2, 3)?;
    Ok(cut.reshape((batch, down, across, window.values()))?)
}

/// `[batch, height, width, channels]` to rows of windows, `[batch, down, across, values]`.
fn unfold(window: Window, x: &Tensor) -> Result<Tensor> {
    if (window.side, window.stride) == (1, 1) {
        return Ok(x.clone());
    }
    Ok(x.contiguous()?.apply_op1(Windows { window, what: Slide::Unfold })?)
}

#[derive(Clone, Copy, Debug)]
enum Slide {
    Unfold,
    Mean,
    Largest,
}

struct Windows {
    window: Window,
    what: Slide,
}

impl CustomOp1 for Windows {
    fn name(&self) -> &'static str {
        "windows"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        let (down, across) = self.window.places();
        let values = match self.what {
            Slide::Unfold => self.window.values(),
            Slide::Mean | Slide::Largest => self.window.channels,
        };
        let shape = Shape::from((layout.dims()[0], down, across, values));
        let mut out = vec![0.0; shape.elem_count()];
        let x = view::<f32>(x, layout)?;
        match self.what {
            Slide::Unfold => kernel::unfold(self.window, x, &mut out),
            Slide::Mean => kernel::mean(self.window, x, &mut out),
            Slide::Largest => kernel::largest(self.window, x, &mut out),
        }
        Ok((CpuStorage::F32(out), shape))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, dy: &Tensor) -> CandleResult<Option<Tensor>> {
        if !x.track_op() {
            return Ok(None);
        }
        let dy = dy.contiguous()?;
        let dy = ops::hold::<f32>(&dy)?;
        let mut dx = vec![0.0; x.elem_count()];
        match self.what {
            Slide::Unfold => kernel::fold(self.window, &dy, &mut dx),
            Slide::Mean => kernel::mean_backward(self.window, &dy, &mut dx),
            Slide::Largest => kernel::largest_backward(self.window, &ops::hold::<f32>(x)?, &dy, &mut dx),
        }
        Ok(Some(ops::tensor(dx, x)?))
    }
}
