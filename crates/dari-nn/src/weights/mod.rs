//! A model's weights by the checkpoint's own names: read from one, or drawn anew for training.

mod source;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{DType, Device, Tensor, Var};
use dari_files::Checkpoint;
use dari_kernels::gemm::{Format, Products};

pub use self::source::{Source, floats};
use self::source::{check, draw, find, is_bf16, numbers, read};
pub use self::table::Table;
use crate::random::Key;
use crate::weight::{BlockTensor, PackedWeight, Part, Weight};
use crate::{Error, Result};

/// The precision in which frozen linear weights and token tables are kept; everything else is f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// Single precision; weights that a checkpoint has in bfloat16 stay so, which loses nothing.
    #[default]
    F32,
    /// bfloat16 weights; products of bf16 where the machine has them, else of f32; sums in f32.
    Bf16,
    /// Eight-bit weights and products, each row's values quantised on the way; the rest in f32.
    Int8,
}

impl Precision {
    /// The name as options spell it.
    pub fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
            Precision::Int8 => "int8",
        }
    }

    fn format(self) -> Format {
        match self {
            Precision::F32 => Format::F32,
            Precision::Bf16 => Format::Bf16,
            Precision::Int8 => Format::Int8,
        }
    }
}

/// How a tensor is drawn where there is no checkpoint.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// All the same.
    Constant(f32),
    /// Normal around zero with this standard deviation.
    Normal(f64),
}

impl Init {
    /// Zeros.
    pub const ZEROS: Init = Init::Constant(0.0);
    /// Ones.
    pub const ONES: Init = Init::Constant(1.0);

    /// Normal with deviation `1 / sqrt(inputs)`.
    pub fn fan_in(inputs: usize) -> Init {
        Init::Normal((inputs.max(1) as f64).powf(-0.5))
    }
}

/// A place in a model's tree of weights: `weights.pp("vision_model").pp("encoder")`.
#[derive(Clone)]
pub struct Weights {
    shared: Arc<Shared>,
    prefix: String,
}

/// Changes a weight's values, `[outputs, inputs]`, before they are packed.
pub type Prepare = Box<dyn Fn(Vec<f32>) -> Vec<f32> + Send + Sync>;

/// Decides by a tensor's full name whether it stays as it is.
pub type Frozen = Box<dyn Fn(&str) -> bool + Send + Sync>;

struct Shared {
    source: Option<Arc<dyn Source>>,
    device: Device,
    precision: Precision,
    training: Option<Training>,
    adapters: Option<Adapters>,
    /// Weights packed before, mapped.
    ready: Option<Arc<Checkpoint>>,
    taken: Mutex<BTreeMap<String, Taken>>,
    packed: Mutex<BTreeMap<String, Arc<PackedWeight>>>,
}

/// How weights are trained.
pub struct Training {
    /// What is drawn follows from it.
    pub seed: u64,
    /// What stays as it is.
    pub frozen: Frozen,
    /// What is drawn anew although the checkpoint has it, as a head for other classes.
    pub fresh: Frozen,
    /// The numbers that linear layers multiply, forward and backward.
    pub products: Products,
    /// Factors beside frozen layers; they are trained whatever else is frozen.
    pub adapters: Option<Adapters>,
}

/// Low-rank factors beside linear layers (LoRA: Hu et al. 2021), by the names that PEFT gives them.
pub struct Adapters {
    /// Inner width of the factors.
    pub rank: usize,
    /// What their product is multiplied by.
    pub scale: f64,
    /// Decides by a layer's full name whether it has them.
    pub targets: Frozen,
    /// Where they lie; drawn anew where absent, so that at first they change nothing.
    pub source: Option<Box<dyn Source>>,
}

/// What PEFT puts before a layer's name.
pub const ADAPTED: &str = "base_model.model.";

impl Training {
    /// Everything is trained, in f32.
    pub fn all(seed: u64) -> Training {
        let (frozen, fresh): (Frozen, Frozen) = (Box::new(|_| false), Box::new(|_| false));
        Training { seed, frozen, fresh, products: Products::F32, adapters: None }
    }
}

struct Taken {
    /// None where the tensor was only packed.
    tensor: Option<Tensor>,
    variable: Option<Var>,
    elements: usize,
}

impl Weights {
    /// Weights for inference. What `ready` holds packed is taken from there.
    pub fn read(
        source: Box<dyn Source>,
        device: &Device,
        precision: Precision,
        ready: Option<Arc<Checkpoint>>,
    ) -> Weights {
        Self::root(Some(source), device, precision, None, ready, None)
    }

    /// The same with adapters beside some layers.
    pub fn read_adapted(
        source: Box<dyn Source>,
        device: &Device,
        precision: Precision,
        adapters: Adapters,
    ) -> Weights {
        Self::root(Some(source), device, precision, None, None, Some(adapters))
    }

    /// Weights to be trained in f32, from a checkpoint, or drawn where there is none.
    pub fn train(source: Option<Box<dyn Source>>, device: &Device, mut training: Training) -> Weights {
        let adapters = training.adapters.take();
        Self::root(source, device, Precision::F32, Some(training), None, adapters)
    }

    fn root(
        source: Option<Box<dyn Source>>,
        device: &Device,
        precision: Precision,
        training: Option<Training>,
        ready: Option<Arc<Checkpoint>>,
        adapters: Option<Adapters>,
    ) -> Weights {
        let (taken, packed) = Default::default();
        let (source, device) = (source.map(Arc::from), device.clone());
        let shared = Shared { source, device, precision, training, adapters, ready, taken, packed };
        Weights { shared: Arc::new(shared), prefix: String::new() }
    }

    /// The place below, by one or more names joined with dots.
    pub fn pp(&self, name: impl std::fmt::Display) -> Weights {
        Weights { shared: self.shared.clone(), prefix: self.full(&name.to_string()) }
    }

    /// The device that tensors are put on.
    pub fn device(&self) -> &Device {
        &self.shared.device
    }

    fn full(&self, name: &str) -> String {
        match (self.prefix.as_str(), name) {
            ("", name) => name.to_owned(),
            (prefix, "") => prefix.to_owned(),
            (prefix, name) => format!("{prefix}.{name}"),
        }
    }

    /// Whether the checkpoint has such a tensor; true where everything is drawn anew.
    pub fn has(&self, name: &str) -> bool {
        let name = self.full(name);
        self.shared.source.as_ref().is_none_or(|source| source.shape(&name).is_some() || self.is_fresh(&name))
    }

    /// Whether everything is drawn, and nothing read.
    pub fn is_new(&self) -> bool {
        self.shared.source.is_none()
    }

    fn is_fresh(&self, name: &str) -> bool {
        self.shared.training.as_ref().is_some_and(|training| (training.fresh)(name))
    }

    /// A tensor used outside products, in f32.
    pub fn tensor(&self, name: &str, shape: &[usize], init: Init) -> Result<Tensor> {
        self.take(name, shape, init, DType::F32)
    }

    /// A table of vectors that are looked up. For inference on a CPU it stays in its file.
    pub fn table(&self, name: &str, shape: [usize; 2], init: Init) -> Result<Table> {
        match &self.shared.source {
            Some(source) if self.keeps(name) => {
                let name = self.full(name);
                check(source.as_ref(), &name, &shape)?;
                let mut taken = self.shared.taken.lock().unwrap_or_else(PoisonError::into_inner);
                let elements = shape.iter().product();
                taken.entry(name.clone()).or_insert(Taken { tensor: None, variable: None, elements });
                Ok(Table::Stored { source: source.clone(), name, width: shape[1] })
            }
            _ => Ok(Table::Dense(self.take(name, &shape, init, self.dtype())?)),
        }
    }

    /// The type in which dense weights are kept.
    fn dtype(&self) -> DType {
        match self.shared.precision {
            Precision::F32 => DType::F32,
            Precision::Bf16 | Precision::Int8 => DType::BF16,
        }
    }

    /// A product's weight, in the precision asked for. It may be stored in more dimensions (a
    /// patch embedding's `[width, channels, patch, patch]`); it is used as `[outputs, the rest]`.
    pub fn weight(&self, name: &str, stored: &[usize], init: Init) -> Result<Weight> {
        let outputs = stored.first().copied().unwrap_or(1);
        self.part(name, stored, init, 0, outputs)
    }

    /// A product's weight as a tensor, whether or not training changes it.
    pub(crate) fn dense(&self, name: &str, [outputs, inputs]: [usize; 2], init: Init) -> Result<Weight> {
        let tensor = self.take(name, &[outputs, inputs], init, self.dtype())?;
        Ok(Weight::Dense { part: Part::whole(tensor), size: [outputs, inputs], products: self.products() })
    }

    /// Outputs `start..start + count` of a weight.
    pub fn part(
        &self,
        name: &str,
        stored: &[usize],
        init: Init,
        start: usize,
        count: usize,
    ) -> Result<Weight> {
        if !self.keeps(name) {
            let tensor = self.take(name, stored, init, self.dtype())?;
            let inputs: usize = stored.iter().skip(1).product();
            let part = Part::of(tensor, start * inputs, count * inputs);
            return Ok(Weight::Dense { part, size: [count, inputs], products: self.products() });
        }
        let (full, inputs) = (self.full(name), stored.iter().skip(1).product());
        let key = match (start, count) == (0, stored.first().copied().unwrap_or(1)) {
            true => full.clone(),
            false => format!("{full}[{start}..{}]", start + count),
        };
        let rows = start * inputs..(start + count) * inputs;
        self.pack(&key, inputs, vec![(full, stored.to_vec(), rows)], None)
    }

    /// Several weights `[outputs, inputs]` of one input as one, one below the other; `None` where
    /// weights are not packed, since each is a variable of its own there.
    pub fn joined(&self, each: &[(String, usize)], inputs: usize) -> Result<Option<Weight>> {
        if !each.iter().all(|(name, _)| self.keeps(name)) {
            return Ok(None);
        }
        let full: Vec<String> = each.iter().map(|(name, _)| self.full(name)).collect();
        let key = full.join("+");
        let parts = full.into_iter().zip(each);
        let parts = parts.map(|(name, &(_, outputs))| (name, vec![outputs, inputs], 0..outputs * inputs));
        Ok(Some(self.pack(&key, inputs, parts.collect(), None)?))
    }

    /// A product's weight whose values are changed before they are packed: put in another order, or
    /// scaled by a norm behind it. `None` where weights are not packed.
    pub fn prepared(&self, name: &str, stored: &[usize], prepare: Prepare) -> Result<Option<Weight>> {
        if !self.keeps(name) {
            return Ok(None);
        }
        let full = self.full(name);
        let outputs = stored.first().copied().unwrap_or(1);
        let inputs = stored.iter().skip(1).product();
        let part = (full.clone(), stored.to_vec(), 0..outputs * inputs);
        Ok(Some(self.pack(&full, inputs, vec![part], Some(prepare))?))
    }

    /// A tensor that training changes by itself and that has no gradient, as a batch norm's running
    /// mean. It is saved with the others.
    pub fn buffer(&self, name: &str, shape: &[usize], init: Init) -> Result<Var> {
        let tensor = self.read_or_draw(&self.full(name), shape, init, DType::F32)?;
        let variable = Var::from_tensor(&tensor)?;
        let (elements, tensor) = (tensor.elem_count(), Some(variable.as_detached_tensor()));
        let mut taken = self.shared.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.insert(self.full(name), Taken { tensor, variable: None, elements });
        Ok(variable)
    }

    /// Whether training changes this tensor.
    pub fn is_trained(&self, name: &str) -> bool {
        self.shared.training.as_ref().is_some_and(|training| !(training.frozen)(&self.full(name)))
    }

    /// How training multiplies.
    pub fn products(&self) -> Products {
        self.shared.training.as_ref().map_or(Products::F32, |training| training.products)
    }

    /// Whether weights are packed: for inference on a CPU.
    pub(crate) fn packs(&self) -> bool {
        self.shared.training.is_none() && self.shared.source.is_some() && self.shared.device.is_cpu()
    }

    /// Whether a weight stays as it is on a CPU: packed for its products, or in its file. So do those that
    /// training leaves alone.
    fn keeps(&self, name: &str) -> bool {
        let is_frozen = self.shared.training.as_ref().is_some_and(|training| {
            let name = self.full(name);
            (training.frozen)(&name) && !(training.fresh)(&name)
        });
        self.packs() || (is_frozen && self.shared.source.is_some() && self.shared.device.is_cpu())
    }

    /// The two factors beside the linear layer here, `[rank, inputs]` and `[outputs, rank]`, and what their
    /// product is multiplied by; `None` where it has none.
    pub(crate) fn adapter(&self, inputs: usize, outputs: usize) -> Result<Option<(Tensor, Tensor, f64)>> {
        let Some(adapters) = self.shared.adapters.as_ref().filter(|all| (all.targets)(&self.prefix)) else {
            return Ok(None);
        };
        let factor = |which: &str, shape: [usize; 2], init: Init| -> Result<Tensor> {
            let name = format!("{ADAPTED}{}.lora_{which}.weight", self.prefix);
            let device = &self.shared.device;
            let tensor = match &adapters.source {
                Some(source) => read(source.as_ref(), &name, &shape, DType::F32, device)?,
                None => {
                    let seed = self.shared.training.as_ref().map_or(0, |training| training.seed);
                    draw(Key::new(seed).with(&name), &shape, init, device)?
                }
            };
            let variable = self.shared.training.as_ref().map(|_| Var::from_tensor(&tensor)).transpose()?;
            let tensor = variable.as_ref().map_or(tensor, |variable| variable.as_tensor().clone());
            let elements = tensor.elem_count();
            let mut taken = self.shared.taken.lock().unwrap_or_else(PoisonError::into_inner);
            taken.insert(name, Taken { tensor: Some(tensor.clone()), variable, elements });
            Ok(tensor)
        };
        // As wide as PEFT's uniform draw.
        let init = Init::Normal((3.0 * inputs.max(1) as f64).powf(-0.5));
        let rank = adapters.rank;
        Ok(Some((
            factor("A", [rank, inputs], init)?,
            factor("B", [outputs, rank], Init::ZEROS)?,
            adapters.scale,
        )))
    }

    /// Names in the adapters' file that no layer took.
    pub fn unused_adapters(&self) -> Vec<String> {
        let taken = self.shared.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let source = self.shared.adapters.as_ref().and_then(|adapters| adapters.source.as_ref());
        let mut names = source.map_or_else(Vec::new, |source| source.names());
        names.retain(|name| !taken.contains_key(name));
        names.sort_unstable();
        names
    }

    /// Of each named tensor of a shape some values, one after the other, packed when they are used.
    fn pack(
        &self,
        key: &str,
        inputs: usize,
        parts: Vec<(String, Vec<usize>, std::ops::Range<usize>)>,
        prepare: Option<Prepare>,
    ) -> Result<Weight> {
        let row = inputs.max(1);
        let outputs = parts.iter().map(|(_, _, range)| range.len() / row).sum();
        let locked = || self.shared.packed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(there) = locked().get(key) {
            return Ok(Weight::Packed(there.clone())); // tied weights
        }
        let Some(source) = self.shared.source.clone() else {
            return Err(Error::Config("weights that are drawn anew are not packed".into()));
        };
        let mut taken = self.shared.taken.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, stored, _) in &parts {
            // What does not fit is told now, not at the first use.
            check(source.as_ref(), name, stored)?;
            let elements = stored.iter().product();
            taken.entry(name.clone()).or_insert(Taken { tensor: None, variable: None, elements });
        }
        drop(taken);
        let precision = self.shared.precision;
        let bf16 = |(name, ..): &(String, Vec<usize>, std::ops::Range<usize>)| is_bf16(source.as_ref(), name);
        let format = match precision {
            // It loses nothing, and takes half of the memory.
            Precision::F32 if prepare.is_none() && parts.iter().all(bf16) => Format::Bf16,
            _ => precision.format(),
        };
        let ready = self.shared.ready.as_ref();
        let ready = ready.and_then(|ready| PackedWeight::mapped(ready, key, format, outputs, inputs));
        let tensors = parts.iter().map(|(name, _, range)| {
            let rows = [range.start, range.len()].map(|at| at.is_multiple_of(row).then_some(at / row));
            Some(BlockTensor { name: name.clone(), first: rows[0]?, outputs: rows[1]? })
        });
        let tensors: Option<Vec<BlockTensor>> = tensors.collect();
        let tensors = tensors.filter(|_| prepare.is_none());
        let as_stored = tensors.and_then(|tensors| PackedWeight::blocks(&source, tensors, inputs));
        let packed = match ready.or(as_stored) {
            Some(ready) => ready,
            None => {
                let read = move || {
                    let mut values = Vec::with_capacity(outputs * inputs);
                    for (name, stored, range) in &parts {
                        let all = numbers(source.as_ref(), name, &find(source.as_ref(), name, stored)?)?;
                        values.extend_from_slice(&all[range.clone()]);
                        source.release(name);
                    }
                    Ok(match &prepare {
                        Some(prepare) => prepare(values),
                        None => values,
                    })
                };
                PackedWeight::later(format, outputs, inputs, Box::new(read))
            }
        };
        let packed = Arc::new(if precision == Precision::Bf16 { packed.rounding() } else { packed });
        locked().insert(key.to_owned(), packed.clone());
        Ok(Weight::Packed(packed))
    }

    /// The packed weights, by key.
    pub fn packed(&self) -> Vec<(String, Arc<PackedWeight>)> {
        let packed = self.shared.packed.lock().unwrap_or_else(PoisonError::into_inner);
        packed.iter().map(|(key, weight)| (key.clone(), weight.clone())).collect()
    }

    /// How many numbers the model took from its checkpoint or drew.
    pub fn count(&self) -> usize {
        let taken = self.shared.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.values().map(|entry| entry.elements).sum()
    }

    fn take(&self, name: &str, shape: &[usize], init: Init, dtype: DType) -> Result<Tensor> {
        let name = self.full(name);
        let mut taken = self.shared.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(there) = taken.get(&name).and_then(|there| there.tensor.as_ref()) {
            return Ok(there.clone()); // tied weights
        }
        let tensor = self.read_or_draw(&name, shape, init, dtype)?;
        let trained = self.shared.training.as_ref().is_some_and(|training| !(training.frozen)(&name));
        let elements = tensor.elem_count();
        let (tensor, variable) = if trained {
            let variable = Var::from_tensor(&tensor)?;
            (variable.as_tensor().clone(), Some(variable))
        } else {
            (tensor, None)
        };
        taken.insert(name, Taken { tensor: Some(tensor.clone()), variable, elements });
        Ok(tensor)
    }

    fn read_or_draw(&self, name: &str, shape: &[usize], init: Init, dtype: DType) -> Result<Tensor> {
        let shared = &*self.shared;
        let dtype = if shared.training.is_some() { DType::F32 } else { dtype };
        match &shared.source {
            Some(source) if !self.is_fresh(name) => read(source.as_ref(), name, shape, dtype, &shared.device),
            _ => {
                let seed = shared.training.as_ref().map_or(0, |training| training.seed);
                draw(Key::new(seed).with(name), shape, init, &shared.device)
            }
        }
    }

    /// The tensors that training changes, by full name, in the names' order.
    pub fn variables(&self) -> Vec<(String, Var)> {
        let taken = self.shared.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.iter().filter_map(|(name, entry)| Some((name.clone(), entry.variable.clone()?))).collect()
    }

    /// Every tensor that the model took and did not pack, by full name, as stored.
    pub fn tensors(&self) -> Vec<(String, Tensor)> {
        let taken = self.shared.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.iter().filter_map(|(name, entry)| Some((name.clone(), entry.tensor.clone()?))).collect()
    }

    /// Every tensor that the model took, by full name, as trained or as its checkpoint has it; those that
    /// stayed there are read anew.
    pub fn whole(&self) -> Result<Vec<(String, Tensor)>> {
        let entries: Vec<(String, Option<Tensor>)> = {
            let taken = self.shared.taken.lock().unwrap_or_else(PoisonError::into_inner);
            taken.iter().map(|(name, entry)| (name.clone(), entry.tensor.clone())).collect()
        };
        let mut all = Vec::with_capacity(entries.len());
        for (name, tensor) in entries {
            let tensor = match (tensor, &self.shared.source) {
                (Some(tensor), _) => tensor,
                (None, Some(source)) => {
                    let shape = source.shape(&name).unwrap_or_default();
                    let tensor = read(source.as_ref(), &name, &shape, DType::F32, &Device::Cpu)?;
                    source.release(&name);
                    tensor
                }
                (None, None) => continue,
            };
            all.push((name, tensor));
        }
        Ok(all)
    }

    /// The weights that adapters stand beside, by full name.
    pub fn adapted(&self) -> Vec<String> {
        let taken = self.shared.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let layer = |name: &String| {
            let layer = name.strip_prefix(ADAPTED)?.strip_suffix(".lora_A.weight")?;
            Some(format!("{layer}.weight"))
        };
        taken.keys().filter_map(layer).collect()
    }

    /// [`Weights::whole`] with the adapters' products added to the weights that they stand beside.
    pub fn merged(&self) -> Result<Vec<(String, Tensor)>> {
        let mut all: BTreeMap<String, Tensor> = self.whole()?.into_iter().collect();
        let names: Vec<String> = all.keys().filter(|name| name.starts_with(ADAPTED)).cloned().collect();
        let scale = self.shared.adapters.as_ref().map_or(0.0, |adapters| adapters.scale);
        for name in names {
            let Some(factor) = all.remove(&name) else { continue };
            let layer = name.strip_prefix(ADAPTED).and_then(|name| name.strip_suffix(".lora_A.weight"));
            let Some(layer) = layer else { continue };
            let other = all.remove(&format!("{ADAPTED}{layer}.lora_B.weight"));
            let base = all.remove(&format!("{layer}.weight"));
            let (Some(other), Some(base)) = (other, base) else {
                return Err(Error::Config(format!("`{layer}` has one factor of two, or no weight")));
            };
            let product = (other.to_device(&Device::Cpu)?.matmul(&factor.to_device(&Device::Cpu)?)? * scale)?;
            all.insert(format!("{layer}.weight"), (base.to_device(&Device::Cpu)? + product)?);
        }
        Ok(all.into_iter().collect())
    }

    /// Names in the checkpoint that no layer took.
    pub fn unused(&self) -> Vec<String> {
        let taken = self.shared.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(source) = &self.shared.source else {
            return Vec::new();
        };
        let stored: BTreeSet<String> = taken.keys().map(|name| source.stored(name)).collect();
        let mut names = source.names();
        names.retain(|name| !stored.contains(name));
        names.sort_unstable();
        names
    }
}
