//! Steps that follow each other, as one operation of the graph.
//!
//! For every result that candle tracks it clears a gradient of the same size, adds to it, and keeps
//! both. In a chain what lies between the first and the last step is handed on as it is.

use std::sync::{Mutex, MutexGuard, PoisonError};

use candle_core::{CpuStorage, CustomOp1, Layout, Result as CandleResult, Shape, Tensor, bail};
use dari_kernels::Activation;

use crate::attention::Joined;
use crate::linear::Operation;
use crate::mlp::GatedJoined;
use crate::norm::Rows;
use crate::ops;

/// One step, on rows of values. It keeps what its own backward pass needs beside what it was given.
pub(crate) enum Step {
    Norm(Rows),
    Linear(Box<dyn Operation>),
    Activation(Activation),
    Gate(GatedJoined),
    /// Turns what it is given where that lies.
    Attention(Joined),
}

impl Step {
    fn forward(&self, x: &[f32], residual: Option<&[f32]>) -> CandleResult<Vec<f32>> {
        match (self, residual) {
            (Step::Linear(linear), _) => linear.run(x, residual),
            (_, Some(_)) => bail!("a chain that does not end with a linear layer has no residual"),
            (Step::Norm(norm), _) => norm.run(x),
            (Step::Activation(activation), _) => Ok(activation.of(x)),
            (Step::Gate(gate), _) => Ok(gate.run(x)),
            (Step::Attention(_), _) => bail!("a chain that starts with attention"),
        }
    }

    /// The gradient of `x`, from what the step made of it and the gradient of that.
    fn backward(&self, x: &[f32], y: &[f32], dy: &[f32]) -> CandleResult<Vec<f32>> {
        match self {
            Step::Norm(norm) => norm.slopes(x, dy),
            Step::Linear(linear) => Ok(linear.slopes(x, dy, true)?.unwrap_or_default()),
            Step::Activation(activation) => Ok(activation.slopes(x, dy)),
            Step::Gate(gate) => Ok(gate.slopes(x, dy)),
            Step::Attention(attention) => attention.slopes(x, y, dy),
        }
    }
}

/// `x + steps(x)`; the last step is a linear layer back to the width of `x`.
pub(crate) fn added(x: &Tensor, steps: Vec<Step>) -> CandleResult<Tensor> {
    x.contiguous()?.apply_op1(Chain { steps, between: Mutex::default() })
}

struct Chain {
    steps: Vec<Step>,
    /// What lies between the steps, saved by the forward pass and freed by the backward pass; one that runs again
    /// makes it again.
    between: Mutex<Vec<Vec<f32>>>,
}

impl Chain {
    /// What each step makes, the last with `first` added.
    fn made(&self, first: &[f32]) -> CandleResult<Vec<Vec<f32>>> {
        let mut made: Vec<Vec<f32>> = Vec::with_capacity(self.steps.len());
        for (index, step) in self.steps.iter().enumerate() {
            let residual = (index + 1 == self.steps.len()).then_some(first);
            let next = match (step, made.last_mut()) {
                (Step::Attention(attention), Some(joined)) if residual.is_none() => {
                    attention.turn(joined);
                    attention.run(joined)
                }
                (step, given) => step.forward(given.map_or(first, |given| given), residual)?,
            };
            made.push(next);
        }
        Ok(made)
    }

    fn between(&self) -> MutexGuard<'_, Vec<Vec<f32>>> {
        self.between.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CustomOp1 for Chain {
    fn name(&self) -> &'static str {
        "chain"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        let mut made = self.made(ops::view::<f32>(x, layout)?)?;
        let Some(last) = made.pop() else {
            bail!("a chain without steps");
        };
        *self.between() = made;
        Ok((CpuStorage::F32(last), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, dy: &Tensor) -> CandleResult<Option<Tensor>> {
        let dy = dy.contiguous()?;
        let (first, dy) = (ops::hold::<f32>(x)?, ops::hold::<f32>(&dy)?);
        let mut between = std::mem::take(&mut *self.between());
        if between.len() + 1 != self.steps.len() {
            between = self.made(&first)?;
            between.pop();
        }
        let mut slopes: Option<Vec<f32>> = None;
        // The last step's result is no step's input, and only attention asks for its own.
        let mut made: Vec<f32> = Vec::new();
        for step in self.steps.iter().rev() {
            let given = between.pop();
            let x = given.as_deref().unwrap_or(&first);
            slopes = Some(step.backward(x, &made, slopes.as_deref().unwrap_or(&dy))?);
            made = given.unwrap_or_default();
        }
        let mut slopes = slopes.unwrap_or_default();
        dari_kernels::add(&mut slopes, &dy);
        Ok(Some(ops::tensor(slopes, x)?))
    }
}
