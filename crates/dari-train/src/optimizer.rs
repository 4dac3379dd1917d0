//! AdamW with decoupled decay, none on norms, biases and scalars, and gradient clipping by norm.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use candle_core::{CpuStorage, DType, Device, InplaceOp2, Layout, Result as CandleResult, Tensor, Var};
use dari_kernels::adamw::{self, Step};
use dari_nn::Gradients;
use serde::{Deserialize, Serialize};

use crate::Result;

/// The optimizer's numbers.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdamWConfig {
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the denominator.
    pub epsilon: f32,
    /// Decoupled weight decay of matrices and tables.
    pub weight_decay: f32,
    /// The gradients' common norm is cut to this; 0 for no limit.
    pub clip: f32,
}

impl AdamWConfig {
    /// What is wrong with the numbers, if anything.
    pub(crate) fn problem(&self) -> Option<String> {
        let share = |x: f32| (0.0..1.0).contains(&x);
        let size = |x: f32| x >= 0.0 && x.is_finite();
        if !share(self.beta1) || !share(self.beta2) {
            return Some(format!(
                "`optimizer.beta1` {} and `beta2` {} must be from 0 to below 1",
                self.beta1, self.beta2
            ));
        }
        if !(self.epsilon > 0.0 && size(self.epsilon)) {
            return Some(format!("`optimizer.epsilon` is {}, expected a number above 0", self.epsilon));
        }
        if !size(self.weight_decay) || !size(self.clip) {
            let (decay, clip) = (self.weight_decay, self.clip);
            return Some(format!("`optimizer.weight_decay` {decay} and `clip` {clip} must be 0 or more"));
        }
        None
    }
}

impl Default for AdamWConfig {
    fn default() -> Self {
        AdamWConfig { beta1: 0.9, beta2: 0.98, epsilon: 1e-6, weight_decay: 0.1, clip: 1.0 }
    }
}

/// What is kept of one tensor.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Moments {
    /// Running mean of the gradient.
    pub first: Vec<f32>,
    /// Running mean of its square.
    pub second: Vec<f32>,
    /// Running mean of the weights, where one is kept.
    pub average: Vec<f32>,
}

/// AdamW over named variables.
pub struct AdamW {
    config: AdamWConfig,
    variables: Vec<(String, Var)>,
    /// What each variable's learning rate is multiplied by.
    factors: Vec<f64>,
    /// The share of the weights' running mean that a step keeps; 0 for none.
    average: f64,
    moments: Vec<Mutex<Moments>>,
}

impl AdamW {
    /// Starts with zero moments.
    pub fn new(config: AdamWConfig, variables: Vec<(String, Var)>) -> AdamW {
        let zero = |variable: &Var| {
            let count = variable.elem_count();
            Mutex::new(Moments { first: vec![0.0; count], second: vec![0.0; count], average: Vec::new() })
        };
        let moments = variables.iter().map(|(_, variable)| zero(variable)).collect();
        let factors = vec![1.0; variables.len()];
        AdamW { config, variables, factors, average: 0.0, moments }
    }

    /// Multiplies the learning rate of each variable by what `factor` says of its name.
    pub fn with_rates(mut self, factor: impl Fn(&str) -> f64) -> AdamW {
        self.factors = self.variables.iter().map(|(name, _)| factor(name)).collect();
        self
    }

    /// Keeps a running mean of the weights (Polyak and Juditsky 1992), shorter in the first steps.
    pub fn with_average(mut self, share: f64) -> AdamW {
        self.average = share;
        self
    }

    /// Puts the running mean in the weights' place, where one is kept.
    pub fn settle(&self) -> Result<()> {
        for ((_, variable), moments) in self.variables.iter().zip(&self.moments) {
            let average = moments.lock().unwrap_or_else(PoisonError::into_inner).average.clone();
            if !average.is_empty() {
                variable.set(&Tensor::from_vec(average, variable.shape(), variable.device())?)?;
            }
        }
        Ok(())
    }

    /// The variables, by name.
    pub fn variables(&self) -> &[(String, Var)] {
        &self.variables
    }

    /// The moments by the variables' names, for a checkpoint.
    pub fn moments(&self) -> BTreeMap<String, Moments> {
        let locked = |m: &Mutex<Moments>| m.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.variables.iter().zip(&self.moments).map(|((name, _), m)| (name.clone(), locked(m))).collect()
    }

    /// Takes moments up again; `false` where they do not fit the variables.
    pub fn restore(&mut self, mut from: BTreeMap<String, Moments>) -> bool {
        for ((name, variable), slot) in self.variables.iter().zip(&mut self.moments) {
            let Some(moments) = from.remove(name) else {
                return false;
            };
            let (count, averaged) = (variable.elem_count(), moments.average.len());
            // A variable that no loss has reached yet has no mean.
            if [moments.first.len(), moments.second.len()] != [count; 2] || ![0, count].contains(&averaged) {
                return false;
            }
            *slot = Mutex::new(moments);
        }
        true
    }

    /// The common norm of all gradients; the name of the first that is not finite as an error.
    pub fn gradient_norm(&self, gradients: &Gradients) -> Result<Result<f64, String>> {
        let (mut names, mut squares) = (Vec::new(), Vec::new());
        for (name, variable) in &self.variables {
            if let Some(gradient) = gradients.get(variable.as_tensor())? {
                names.push(name);
                squares.push(gradient.to_dtype(DType::F32)?.sqr()?.sum_all()?);
            }
        }
        if squares.is_empty() {
            return Ok(Ok(0.0));
        }
        // Brought from the device at once.
        let squares = Tensor::stack(&squares, 0)?.to_vec1::<f32>()?;
        if let Some((name, _)) = names.iter().zip(&squares).find(|(_, square)| !square.is_finite()) {
            return Ok(Err(format!("the gradient of `{name}`")));
        }
        let total: f64 = squares.into_iter().map(f64::from).sum();
        Ok(Ok(total.sqrt()))
    }

    /// One update of all variables; `count` is the step from 1, `norm` what
    /// [`AdamW::gradient_norm`] found.
    pub fn update(&self, gradients: &Gradients, rate: f64, count: u64, norm: f64) -> Result<()> {
        let clip = self.config.clip as f64;
        // As PyTorch's clip_grad_norm_, its 1e-6 included.
        let scale = if clip > 0.0 { (clip / (norm + 1e-6)).min(1.0) } else { 1.0 };
        // As in TensorFlow: a mean over ten thousand steps says nothing in the first hundred.
        let share = self.average.min((1 + count) as f64 / (10 + count) as f64) as f32;
        for (((_, variable), moments), factor) in self.variables.iter().zip(&self.moments).zip(&self.factors)
        {
            let Some(gradient) = gradients.get(variable.as_tensor())? else {
                continue;
            };
            let step = Step {
                rate: (rate * factor) as f32,
                beta1: self.config.beta1,
                beta2: self.config.beta2,
                epsilon: self.config.epsilon,
                decay: if decays(variable) { self.config.weight_decay } else { 0.0 },
                gradient_scale: scale as f32,
                count,
            };
            let op = Update { step, share: (self.average > 0.0).then_some(share), moments };
            in_place(variable, |weights| {
                weights.inplace_op2(&gradient.to_device(&Device::Cpu)?.contiguous()?, &op)
            })?;
        }
        Ok(())
    }
}

/// Matrices and tables shrink; norms, biases, class tokens and temperatures do not.
fn decays(variable: &Var) -> bool {
    variable.dims().len() >= 2
}

struct Update<'a> {
    step: Step,
    share: Option<f32>,
    moments: &'a Mutex<Moments>,
}

impl InplaceOp2 for Update<'_> {
    fn name(&self) -> &'static str {
        "adamw"
    }

    fn cpu_fwd(
        &self,
        weights: &mut CpuStorage,
        wl: &Layout,
        gradient: &CpuStorage,
        gl: &Layout,
    ) -> CandleResult<()> {
        let (Some((start, end)), Some((from, to))) = (wl.contiguous_offsets(), gl.contiguous_offsets())
        else {
            candle_core::bail!("AdamW needs contiguous tensors");
        };
        let CpuStorage::F32(weights) = weights else {
            candle_core::bail!("AdamW trains f32 weights only");
        };
        let gradient = &gradient.as_slice::<f32>()?[from..to];
        let mut moments = self.moments.lock().unwrap_or_else(PoisonError::into_inner);
        let Moments { first, second, average } = &mut *moments;
        let weights = &mut weights[start..end];
        adamw::update(self.step, weights, gradient, first, second);
        match self.share {
            Some(_) if average.is_empty() => average.extend_from_slice(weights),
            Some(share) => {
                for (average, weight) in average.iter_mut().zip(weights) {
                    *average += (1.0 - share) * (*weight - *average);
                }
            }
            None => {}
        }
        Ok(())
    }
}

/// Keeps a scalar variable between 0 and a bound (CLIP's temperature: ln 100).
pub fn clamp(variable: &Var, most: f32) -> Result<()> {
    struct Clamp(f32);
    impl candle_core::InplaceOp1 for Clamp {
        fn name(&self) -> &'static str {
            "clamp"
        }

        fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> CandleResult<()> {
            if let (CpuStorage::F32(values), Some((start, end))) = (storage, layout.contiguous_offsets()) {
                for value in &mut values[start..end] {
                    *value = value.clamp(0.0, self.0);
                }
            }
            Ok(())
        }
    }
    in_place(variable, |values| values.inplace_op1(&Clamp(most)))
}

/// Changes a variable by an operation of the CPU, wherever it lies.
fn in_place(variable: &Var, change: impl FnOnce(&Tensor) -> CandleResult<()>) -> Result<()> {
    if variable.device().is_cpu() {
        return Ok(change(variable.as_tensor())?);
    }
    let here = variable.as_detached_tensor().to_device(&Device::Cpu)?;
    change(&here)?;
    variable.set(&here.to_device(variable.device())?)?;
    Ok(())
}
