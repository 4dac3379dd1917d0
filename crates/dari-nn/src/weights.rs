//! A model's weights by the checkpoint's own names: read from one, or drawn anew for training.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{DType, Device, Tensor, Var};
use dari_files::{Checkpoint, Dtype, TensorView};
use half::{bf16, f16};

use crate::random::Key;
use crate::weight::Weight;
use crate::{Error, Result};

/// Something that holds tensors by name: a checkpoint, or one seen under other names.
pub trait Source: Send + Sync {
    /// All names, in any order.
    fn names(&self) -> Vec<String>;
    /// A tensor's shape.
    fn shape(&self, name: &str) -> Option<Vec<usize>>;
    /// A tensor's values.
    fn tensor(&self, name: &str) -> Result<TensorView<'_>, dari_files::Error>;
    /// The name under which a tensor lies in the files.
    fn stored(&self, name: &str) -> String {
        name.to_owned()
    }
    /// The file that holds a tensor, or should, for error messages.
    fn origin(&self, name: &str) -> String;
}

impl Source for Checkpoint {
    fn names(&self) -> Vec<String> {
        Checkpoint::names(self).map(str::to_owned).collect()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        Checkpoint::shape(self, name).map(<[usize]>::to_vec)
    }

    fn tensor(&self, name: &str) -> Result<TensorView<'_>, dari_files::Error> {
        Checkpoint::tensor(self, name)
    }

    fn origin(&self, name: &str) -> String {
        match self.file_of(name) {
            Some(path) => path.display().to_string(),
            None => "the checkpoint".to_owned(),
        }
    }
}

/// The precision in which frozen linear weights and token tables are kept; everything else is f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// Single precision.
    #[default]
    F32,
    /// bfloat16 weights, f32 arithmetic.
    Bf16,
}

impl Precision {
    /// The name as options spell it.
    pub fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
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

/// Decides by a tensor's full name whether it stays as it is.
pub type Frozen = Box<dyn Fn(&str) -> bool + Send + Sync>;

struct Shared {
    source: Option<Box<dyn Source>>,
    device: Device,
    precision: Precision,
    training: Option<Training>,
    taken: Mutex<BTreeMap<String, Taken>>,
}

struct Training {
    seed: u64,
    frozen: Frozen,
}

#[derive(Clone)]
struct Taken {
    tensor: Tensor,
    variable: Option<Var>,
}

impl Weights {
    /// Weights for inference.
    pub fn read(source: Box<dyn Source>, device: &Device, precision: Precision) -> Weights {
        Self::root(Some(source), device, precision, None)
    }

    /// Weights to be trained in f32, from a checkpoint, or drawn from `seed` where there is none.
    pub fn train(source: Option<Box<dyn Source>>, device: &Device, seed: u64, frozen: Frozen) -> Weights {
        Self::root(source, device, Precision::F32, Some(Training { seed, frozen }))
    }

    fn root(
        source: Option<Box<dyn Source>>,
        device: &Device,
        precision: Precision,
        training: Option<Training>,
    ) -> Weights {
        let shared = Shared { source, device: device.clone(), precision, training, taken: Mutex::default() };
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
        self.shared.source.as_ref().is_none_or(|source| source.shape(&name).is_some())
    }

    /// A tensor used outside products, in f32.
    pub fn tensor(&self, name: &str, shape: &[usize], init: Init) -> Result<Tensor> {
        self.take(name, shape, init, DType::F32)
    }

    /// A product's weight, in the precision asked for. It may be stored in more dimensions (a
    /// patch embedding's `[width, channels, patch, patch]`); it is used as `[outputs, the rest]`.
    pub fn weight(&self, name: &str, stored: &[usize], init: Init) -> Result<Weight> {
        let dtype = match self.shared.precision {
            Precision::F32 => DType::F32,
            Precision::Bf16 => DType::BF16,
        };
        let tensor = self.take(name, stored, init, dtype)?;
        if stored.len() == 2 {
            return Ok(Weight::new(tensor));
        }
        let outputs = stored.first().copied().unwrap_or(1);
        Ok(Weight::new(tensor.reshape((outputs, ()))?))
    }

    fn take(&self, name: &str, shape: &[usize], init: Init, dtype: DType) -> Result<Tensor> {
        let name = self.full(name);
        let mut taken = self.shared.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(there) = taken.get(&name) {
            return Ok(there.tensor.clone()); // tied weights
        }
        let shared = &*self.shared;
        let dtype = if shared.training.is_some() { DType::F32 } else { dtype };
        let tensor = match &shared.source {
            Some(source) => read(source.as_ref(), &name, shape, dtype, &shared.device)?,
            None => {
                let seed = shared.training.as_ref().map_or(0, |training| training.seed);
                draw(Key::new(seed).with(&name), shape, init, &shared.device)?
            }
        };
        let trained = shared.training.as_ref().is_some_and(|training| !(training.frozen)(&name));
        let entry = if trained {
            let variable = Var::from_tensor(&tensor)?;
            Taken { tensor: variable.as_tensor().clone(), variable: Some(variable) }
        } else {
            Taken { tensor, variable: None }
        };
        taken.insert(name, entry.clone());
        Ok(entry.tensor)
    }

    /// The tensors that training changes, by full name, in the names' order.
    pub fn variables(&self) -> Vec<(String, Var)> {
        let taken = self.shared.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.iter().filter_map(|(name, entry)| Some((name.clone(), entry.variable.clone()?))).collect()
    }

    /// Every tensor that the model took, by full name, as stored.
    pub fn tensors(&self) -> Vec<(String, Tensor)> {
        let taken = self.shared.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.iter().map(|(name, entry)| (name.clone(), entry.tensor.clone())).collect()
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

fn draw(key: Key, shape: &[usize], init: Init, device: &Device) -> Result<Tensor> {
    const LARGEST: usize = 1 << 32;
    let count = shape.iter().try_fold(1usize, |count, &size| count.checked_mul(size));
    let Some(count) = count.filter(|&count| count <= LARGEST) else {
        return Err(Error::Config(format!(
            "a tensor of shape {shape:?} is too large to draw: lower the config's sizes"
        )));
    };
    let values: Vec<f32> = match init {
        Init::Constant(value) => vec![value; count],
        Init::Normal(deviation) => (0..count as u64).map(|i| (deviation * key.normal(i)) as f32).collect(),
    };
    Ok(Tensor::from_vec(values, shape, device)?)
}

fn read(
    source: &dyn Source,
    name: &str,
    expected: &[usize],
    dtype: DType,
    device: &Device,
) -> Result<Tensor> {
    let Some(found) = source.shape(name) else {
        return Err(Error::Missing {
            origin: source.origin(name),
            name: name.to_owned(),
            expected: expected.to_vec(),
            hint: nearest(source, name),
        });
    };
    if found != expected {
        return Err(Error::Shape {
            origin: source.origin(name),
            name: name.to_owned(),
            found,
            expected: expected.to_vec(),
        });
    }
    let view = source.tensor(name)?;
    if view.dtype == Dtype::BF16 && dtype == DType::BF16 {
        let values: Vec<bf16> =
            view.data.chunks_exact(2).map(|b| bf16::from_le_bytes([b[0], b[1]])).collect();
        return Ok(Tensor::from_vec(values, expected, device)?);
    }
    let values = floats(&view).ok_or_else(|| Error::Dtype {
        origin: source.origin(name),
        name: name.to_owned(),
        found: format!("{:?}", view.dtype),
    })?;
    let tensor = Tensor::from_vec(values, expected, device)?;
    Ok(if dtype == DType::F32 { tensor } else { tensor.to_dtype(dtype)? })
}

/// A tensor's values in f32; `None` for a type that is not floating.
pub fn floats(view: &TensorView) -> Option<Vec<f32>> {
    let bytes = &view.data;
    Some(match view.dtype {
        Dtype::F32 => bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
        Dtype::BF16 => bytes.chunks_exact(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
        Dtype::F16 => bytes.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
        Dtype::F64 => bytes
            .chunks_exact(8)
            .map(|b| f64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]) as f32)
            .collect(),
        _ => return None,
    })
}

/// A hint at what the checkpoint has instead: a name with the same ending, or the first few.
fn nearest(source: &dyn Source, name: &str) -> String {
    let mut names = source.names();
    names.sort_unstable();
    let tail = |name: &str| name.rsplit('.').take(2).collect::<Vec<_>>().join(".");
    match names.iter().find(|other| tail(other) == tail(name)) {
        Some(other) => format!(" (there is `{other}`)"),
        None if names.is_empty() => " (it holds no tensors)".to_owned(),
        None => {
            let first = names.iter().take(3).map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ");
            format!(" (it holds {} others: {first}, ...)", names.len())
        }
    }
}
