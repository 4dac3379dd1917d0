//! Parts of a model that are run twice: once for their result, and again when their gradient is due.
//!
//! What lies inside a segment keeps nothing from its first run, so memory is paid for one segment at
//! a time. A segment around a block is activation checkpointing (Chen et al. 2016); one around a
//! tower's run over part of a batch lets a contrastive loss see a batch that no memory could hold at
//! once (Gao et al. 2021).

use std::cell::Cell;
use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, Layout, Result as CandleResult, Shape, Tensor, Var};

use crate::{Result, gradients};

/// What a segment computes.
pub type Body = Arc<dyn Fn(&Tensor) -> Result<Tensor> + Send + Sync>;

thread_local! {
    static CHECKPOINTS: Cell<bool> = const { Cell::new(false) };
}

/// `body(x)`, run again for the gradient of `x` and of every weight inside.
///
/// `x` must be tracked for the segment to have a gradient; a segment without an input takes
/// [`anchor`].
pub fn segment(x: &Tensor, body: Body) -> Result<Tensor> {
    if !x.track_op() {
        return body(x);
    }
    Ok(x.contiguous()?.apply_op1(Segment { body })?)
}

/// An input for segments whose body reads none.
pub fn anchor() -> Result<Tensor> {
    let zero = Tensor::zeros(1, candle_core::DType::F32, &candle_core::Device::Cpu)?;
    Ok(Var::from_tensor(&zero)?.into_inner())
}

/// Runs `model` with each of its blocks as a segment.
pub fn checkpointed<T>(on: bool, model: impl FnOnce() -> T) -> T {
    let before = CHECKPOINTS.replace(on);
    let result = model();
    CHECKPOINTS.set(before);
    result
}

/// Whether blocks are to be segments now.
pub(crate) fn is_checkpointed() -> bool {
    CHECKPOINTS.get()
}

struct Segment {
    body: Body,
}

impl CustomOp1 for Segment {
    fn name(&self) -> &'static str {
        "segment"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        let values = crate::ops::view::<f32>(x, layout)?.to_vec();
        let x = Tensor::from_vec(values, layout.shape(), &candle_core::Device::Cpu)?;
        let y = gradients::unrecorded(|| checkpointed(false, || (self.body)(&x)))
            .map_err(crate::error::candle)?;
        let y = y.contiguous()?;
        let held = crate::ops::hold::<f32>(&y)?;
        Ok((CpuStorage::F32(held.to_vec()), y.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, dy: &Tensor) -> CandleResult<Option<Tensor>> {
        let x = Var::from_tensor(x)?;
        let y = checkpointed(false, || (self.body)(x.as_tensor())).map_err(crate::error::candle)?;
        let inner = (y * dy)?.sum_all()?.backward()?;
        gradients::take_over(&inner, x.as_tensor())?;
        Ok(inner.get(x.as_tensor()).cloned())
    }
}
