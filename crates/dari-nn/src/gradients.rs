//! The gradients of a loss: candle's own, and those that operations add up beside its graph.
//!
//! A weight lies inside its operation, not among the operation's arguments: candle would make zeros
//! for each gradient, add to them, and keep both. What an operation finds for its weights is added
//! where it is kept.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use candle_core::backprop::GradStore;
use candle_core::{Result as CandleResult, Tensor, TensorId, bail};

use crate::Result;
use crate::weight::Part;

thread_local! {
    /// What the backward pass now running on this thread has found for weights.
    static FOUND: RefCell<Option<HashMap<TensorId, Vec<f32>>>> = const { RefCell::new(None) };
    /// Whether operations on plain inputs record the weights that they use.
    static RECORDING: Cell<bool> = const { Cell::new(true) };
}

/// Runs what needs no gradient: weights are then no reason to build a graph.
pub(crate) fn unrecorded<T>(run: impl FnOnce() -> T) -> T {
    let before = RECORDING.replace(false);
    let result = run();
    RECORDING.set(before);
    result
}

/// Whether weights are a reason to build a graph.
pub(crate) fn is_recording() -> bool {
    RECORDING.get()
}

/// Adds the gradients that a segment's own graph has found for all but its input.
pub(crate) fn take_over(inner: &GradStore, input: &Tensor) -> CandleResult<()> {
    FOUND.with_borrow_mut(|found| {
        let Some(found) = found else {
            bail!("gradients of a loss with weights are taken by dari_nn::Gradients::of");
        };
        for &id in inner.get_ids().filter(|&&id| id != input.id()) {
            let Some(gradient) = inner.get_id(id) else {
                continue;
            };
            let gradient = gradient.flatten_all()?.to_vec1::<f32>()?;
            let total = found.entry(id).or_insert_with(|| vec![0.0; gradient.len()]);
            for (total, gradient) in total.iter_mut().zip(gradient) {
                *total += gradient;
            }
        }
        Ok(())
    })
}

/// The gradients of a loss.
pub struct Gradients {
    graph: GradStore,
    weights: HashMap<TensorId, Tensor>,
}

impl Gradients {
    /// Runs the backward pass of a scalar.
    pub fn of(loss: &Tensor) -> Result<Gradients> {
        FOUND.set(Some(HashMap::new()));
        let graph = loss.backward();
        let found = FOUND.take().unwrap_or_default();
        let graph = graph?;
        let mut weights = HashMap::with_capacity(found.len());
        for (id, values) in found {
            let count = values.len();
            weights.insert(id, Tensor::from_vec(values, count, loss.device())?);
        }
        Ok(Gradients { graph, weights })
    }

    /// A variable's gradient; `None` where the loss does not depend on it.
    pub fn get(&self, variable: &Tensor) -> Result<Option<Tensor>> {
        let inside = match self.weights.get(&variable.id()) {
            Some(inside) => Some(inside.reshape(variable.shape())?),
            None => None,
        };
        Ok(match (inside, self.graph.get(variable)) {
            (Some(inside), Some(graph)) => Some((inside + graph)?),
            (inside, graph) => inside.or_else(|| graph.cloned()),
        })
    }
}

/// Lets `add` write or add (`keep`) to the gradient of part of a variable.
pub(crate) fn accumulate(part: &Part, add: impl FnOnce(&mut [f32], bool)) -> CandleResult<()> {
    FOUND.with_borrow_mut(|found| {
        let Some(found) = found else {
            bail!("gradients of a loss with weights are taken by dari_nn::Gradients::of");
        };
        let whole = part.tensor().elem_count();
        let known = found.contains_key(&part.tensor().id());
        let values = found.entry(part.tensor().id()).or_insert_with(|| vec![0.0; whole]);
        let range = part.range();
        let keep = known || range.len() < whole;
        add(&mut values[range], keep);
        Ok(())
    })
}
