//! The gradients of a loss: candle's own, and those that operations add up beside its graph.
//!
//! A weight lies inside its operation, not among the operation's arguments: candle would make zeros
//! for each gradient, add to them, and keep both. What an operation finds for its weights is added
//! where it is kept.

use std::cell::RefCell;
use std::collections::HashMap;

use candle_core::backprop::GradStore;
use candle_core::{Result as CandleResult, Tensor, TensorId, bail};

use crate::Result;
use crate::weight::Part;

thread_local! {
    /// What the backward pass now running on this thread has found for weights.
    static FOUND: RefCell<Option<HashMap<TensorId, Vec<f32>>>> = const { RefCell::new(None) };
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
