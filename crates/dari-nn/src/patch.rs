//! Patch embedding: a strided convolution as one product (Dosovitskiy et al. 2021).

use candle_core::{CpuStorage, CustomOp1, Layout, Result as CandleResult, Shape, Tensor};
use dari_kernels::patch::{self as kernel, Grid};

use crate::conv;
use crate::linear::Linear;
use crate::ops::{self, view};
use crate::weight::Part;
use crate::weights::{Init, Weights};
use crate::{Error, Result};

/// Pictures to one vector per patch.
#[derive(Clone, Debug)]
pub struct PatchEmbedding {
    linear: Linear,
    channels: usize,
    patch: usize,
    order: Order,
}

/// In which order the weight has a patch's values.
#[derive(Clone, Copy, Debug)]
enum Order {
    /// Channel by channel: a convolution's weight.
    Channels,
    /// Pixel by pixel: a linear layer's weight over patches cut beforehand.
    Pixels,
}

impl PatchEmbedding {
    /// Reads `weight`, `[width, channels, patch, patch]`, and, with `bias`, `bias`.
    pub fn load(
        weights: &Weights,
        channels: usize,
        patch: usize,
        width: usize,
        bias: bool,
    ) -> Result<PatchEmbedding> {
        let init = Init::fan_in(channels * patch * patch);
        let weight = weights.weight("weight", &[width, channels, patch, patch], init)?;
        let bias = match bias {
            true => Some(Part::whole(weights.tensor("bias", &[width], Init::ZEROS)?)),
            false => None,
        };
        Ok(PatchEmbedding { linear: Linear::new(weight, bias)?, channels, patch, order: Order::Channels })
    }

    /// Reads `weight`, `[width, patch * patch * channels]`, and `bias`.
    pub fn load_linear(
        weights: &Weights,
        channels: usize,
        patch: usize,
        width: usize,
    ) -> Result<PatchEmbedding> {
        let linear = Linear::load(weights, patch * patch * channels, width, true)?;
        Ok(PatchEmbedding { linear, channels, patch, order: Order::Pixels })
    }

    /// `[batch, channels, height, width]` to `[batch, patches, width]`, row by row of patches.
    pub fn forward(&self, pixels: &Tensor) -> Result<Tensor> {
        let (_, channels, height, width) = pixels.dims4()?;
        if channels != self.channels || height < self.patch || width < self.patch {
            return Err(Error::Config(format!(
                "pictures of {:?} do not fit a patch embedding of {} channels and patches of {}",
                pixels.dims(),
                self.channels,
                self.patch
            )));
        }
        match self.order {
            Order::Channels => {
                let grid = Grid { channels, height, width, patch: self.patch };
                self.linear.forward(&unfold(pixels, grid)?)
            }
            Order::Pixels => {
                let patches = conv::patches(&conv::channels_last(pixels)?, self.patch)?;
                self.linear.forward(&patches.flatten(1, 2)?)
            }
        }
    }
}

/// Puts a class token `[.., width]` before each picture's patches `[batch, patches, width]`.
pub fn prepend_class(class: &Tensor, patches: &Tensor) -> Result<Tensor> {
    let (batch, _, width) = patches.dims3()?;
    Ok(Tensor::cat(&[&class.broadcast_as((batch, 1, width))?, patches], 1)?)
}

/// Some of each picture's patches: `[batch, patches, width]` and their numbers `[batch, kept]` (u32) to
/// `[batch, kept, width]`.
pub fn keep(patches: &Tensor, kept: &Tensor) -> Result<Tensor> {
    let (batch, count, width) = patches.dims3()?;
    let first = Tensor::arange_step(0u32, (batch * count) as u32, count as u32, patches.device())?;
    let rows = kept.broadcast_add(&first.reshape((batch, 1))?)?.flatten_all()?;
    let picked = patches.reshape((batch * count, width))?.index_select(&rows, 0)?;
    Ok(picked.reshape((batch, kept.dim(1)?, width))?)
}

/// A square table of places, `[side * side, width]`, brought to another grid: bilinear, with the
/// filter widened where it shrinks (PyTorch's `interpolate` with `antialias` and no aligned corners).
pub fn resize_places(table: &Tensor, [height, width]: [usize; 2]) -> Result<Tensor> {
    let (places, values) = table.dims2()?;
    let side = places.isqrt();
    let down = Tensor::from_vec(shares(side, height), (height, side), table.device())?;
    let across = Tensor::from_vec(shares(side, width), (width, side), table.device())?;
    // One axis after the other, the columns first: [side, side, values] to [side, width, values].
    let columns = table.reshape((side, side, values))?.transpose(0, 1)?.contiguous()?;
    let columns = across.matmul(&columns.reshape((side, side * values))?)?;
    let rows = columns.reshape((width, side, values))?.transpose(0, 1)?.contiguous()?;
    let rows = down.matmul(&rows.reshape((side, width * values))?)?;
    Ok(rows.reshape((height * width, values))?)
}

/// What each of `inputs` points in a row gives to each of `outputs`, `[outputs, inputs]`.
fn shares(inputs: usize, outputs: usize) -> Vec<f32> {
    let scale = inputs as f32 / outputs.max(1) as f32;
    let reach = scale.max(1.0);
    let mut all = vec![0.0; outputs * inputs];
    for (output, all) in all.chunks_exact_mut(inputs.max(1)).enumerate() {
        let centre = scale * (output as f32 + 0.5);
        let first = (centre - reach + 0.5).max(0.0) as usize;
        let last = ((centre + reach + 0.5) as usize).min(inputs);
        for (input, share) in all.iter_mut().enumerate().take(last).skip(first) {
            *share = (1.0 - ((input as f32 - centre + 0.5) / reach).abs()).max(0.0);
        }
        let total: f32 = all.iter().sum();
        all.iter_mut().for_each(|share| *share /= total);
    }
    all
}

fn unfold(pixels: &Tensor, grid: Grid) -> Result<Tensor> {
    if ops::by_kernel(pixels) {
        return Ok(pixels.contiguous()?.apply_op1(Unfold(grid))?);
    }
    let batch = pixels.dim(0)?;
    let ((down, across), side) = (grid.patches(), grid.patch);
    let whole = pixels.narrow(2, 0, down * side)?.narrow(3, 0, across * side)?;
    let cut = whole.reshape(&[batch, grid.channels, down, side, across, side][..])?;
    let ordered = cut.permute(vec![0, 2, 4, 1, 3, 5])?;
    Ok(ordered.reshape((batch, down * across, grid.values()))?)
}

struct Unfold(Grid);

impl CustomOp1 for Unfold {
    fn name(&self) -> &'static str {
        "unfold"
    }

    fn cpu_fwd(&self, pixels: &CpuStorage, layout: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        let batch = layout.dims().first().copied().unwrap_or(0);
        let (down, across) = self.0.patches();
        let shape = Shape::from((batch, down * across, self.0.values()));
        let mut out = vec![0.0; shape.elem_count()];
        kernel::unfold(self.0, view(pixels, layout)?, &mut out);
        Ok((CpuStorage::F32(out), shape))
    }

    fn bwd(&self, pixels: &Tensor, _: &Tensor, dy: &Tensor) -> CandleResult<Option<Tensor>> {
        let dy = dy.contiguous()?;
        let mut gradient = vec![0.0; pixels.elem_count()];
        kernel::fold(self.0, &ops::hold::<f32>(&dy)?, &mut gradient);
        Ok(Some(ops::tensor(gradient, pixels)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn patches_are_kept_by_number() -> Result<()> {
        let patches = Tensor::arange(0f32, 12., &Device::Cpu)?.reshape((2, 3, 2))?;
        let kept = keep(&patches, &Tensor::new(&[[2u32, 0], [1, 1]], &Device::Cpu)?)?;
        assert_eq!(kept.to_vec3::<f32>()?, [[[4., 5.], [0., 1.]], [[8., 9.], [8., 9.]]]);
        Ok(())
    }

    #[test]
    fn unfolding_agrees_with_a_convolution() -> Result<()> {
        let pixels = Tensor::randn(0f32, 1., (2, 3, 9, 7), &Device::Cpu)?;
        let weight = Tensor::randn(0f32, 1., (5, 3, 2, 2), &Device::Cpu)?;
        let grid = Grid { channels: 3, height: 9, width: 7, patch: 2 };
        let ours = crate::linear::product(&unfold(&pixels, grid)?, &weight.reshape((5, 12))?, None)?;
        let theirs = pixels.conv2d(&weight, 0, 2, 1, 1)?.flatten_from(2)?.transpose(1, 2)?;
        let difference = (ours - theirs)?.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()?;
        assert!(difference < 1e-4, "{difference}");
        Ok(())
    }
}
