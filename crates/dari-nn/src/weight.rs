//! A layer's weight in the form it is kept in.

use candle_core::{DType, Tensor};
use half::bf16;

use crate::ops::{self, Held};

/// A linear layer's weight, `[outputs, inputs]`. The model's code cannot tell which form it has.
#[derive(Clone, Debug)]
pub enum Weight {
    /// Single precision, trained or frozen.
    Dense(Tensor),
    /// Frozen, stored in bf16 and multiplied in f32.
    Bf16(Tensor),
}

impl Weight {
    /// Wraps a tensor by its element type.
    pub fn new(tensor: Tensor) -> Weight {
        match tensor.dtype() {
            DType::BF16 => Weight::Bf16(tensor),
            _ => Weight::Dense(tensor),
        }
    }

    /// The tensor as stored.
    pub fn tensor(&self) -> &Tensor {
        match self {
            Weight::Dense(tensor) | Weight::Bf16(tensor) => tensor,
        }
    }

    /// Rows `start..start + count` of the weight.
    pub fn rows(&self, start: usize, count: usize) -> candle_core::Result<Weight> {
        Ok(Weight::new(self.tensor().narrow(0, start, count)?))
    }
}

/// A weight's values, held while this lives.
pub(crate) enum HeldWeight<'a> {
    F32(Held<'a, f32>),
    Bf16(Held<'a, bf16>),
}

impl HeldWeight<'_> {
    pub fn hold(tensor: &Tensor) -> candle_core::Result<HeldWeight<'_>> {
        Ok(match tensor.dtype() {
            DType::BF16 => HeldWeight::Bf16(ops::hold(tensor)?),
            _ => HeldWeight::F32(ops::hold(tensor)?),
        })
    }
}
