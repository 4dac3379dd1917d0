//! Checkpoints in the public layout, written so that a half-written one is never taken for one.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor, Var};
use dari_data::image::ImageProcessor;
use dari_files::{CONFIGS, Checkpoint, Dtype, Folder, safetensors, write_atomically};
use dari_models::adapter::{self, Lora};
use dari_models::generative::composed::{self, LANGUAGE, VISION};
use dari_models::{Loaded, auto};
use dari_nn::Precision;
use dari_nn::weights::ADAPTED;
use half::bf16;
use serde::{Deserialize, Serialize};

use crate::optimizer::Moments;
use crate::{Error, Result};

/// Files of a model folder that training writes itself; all others are carried over unchanged.
const WRITTEN: [&str; 4] =
    ["config.json", "preprocessor_config.json", "processor_config.json", "open_clip_config.json"];

/// A composed model's own chat template.
const TEMPLATE: &str = "chat_template.jinja";

const STATE: &str = "trainer.json";
const TRAINED: &str = "trained.safetensors";
const MOMENTS: &str = "optimizer.safetensors";

/// Where a run stands.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    /// Steps done.
    pub step: u64,
    /// What must be equal to go on; see [`crate::Recipe::fingerprint`].
    pub recipe: String,
    /// Records skipped so far.
    pub skipped: u64,
    /// How many pairs each source had; the order of a run depends on them.
    #[serde(default)]
    pub lengths: Vec<usize>,
}

/// The type in which a model's weights are saved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Saved {
    /// As trained.
    #[default]
    F32,
    /// Half the size.
    Bf16,
}

/// Files that training carries over unchanged, read before the folder they lie in may go.
pub type Carried = Vec<(&'static str, Vec<u8>)>;

/// Reads the files of a model folder that training carries over.
pub fn carried(from: &Folder) -> Result<Carried> {
    let mut files = Vec::new();
    for file in CONFIGS.into_iter().filter(|file| !WRITTEN.contains(file)) {
        if let Some(bytes) = from.read(file)? {
            files.push((file, bytes.into_owned()));
        }
    }
    Ok(files)
}

/// Writes `folder` as a model in the public layout: config, weights, processor files.
pub fn write_model(folder: &Path, loaded: &Loaded, carried: &Carried, saved: Saved) -> Result<()> {
    fs::create_dir_all(folder).map_err(Error::file(folder))?;
    let mut config = loaded.config.clone();
    config["dtype"] = serde_json::json!(match saved {
        Saved::F32 => "float32",
        Saved::Bf16 => "bfloat16",
    });
    write_json(&folder.join("config.json"), &config)?;
    if let Ok(image) = loaded.processor.image() {
        write_json(&folder.join("preprocessor_config.json"), &ImageProcessor::to_config(image))?;
    }
    for (file, bytes) in carried {
        let path = folder.join(file);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(Error::file(parent))?;
        }
        write_atomically(&path, bytes)?;
    }
    write_tensors(&folder.join("model.safetensors"), loaded, loaded.weights.merged()?, "", saved)
}

/// Writes tensors, their names without a prefix that is theirs all, as their files have them.
fn write_tensors(
    path: &Path,
    loaded: &Loaded,
    tensors: Vec<(String, Tensor)>,
    prefix: &str,
    saved: Saved,
) -> Result<()> {
    let mut entries = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        let tensor = loaded.as_stored(&name, tensor)?;
        entries.push(encode(name.strip_prefix(prefix).unwrap_or(&name), &tensor, saved)?);
    }
    Ok(safetensors::write(path, &entries, &BTreeMap::new())?)
}

/// Writes a composed model: its bridge, and its two sides as they were or as trained. `start` is the folder that
/// it was loaded from.
/// With `lora` the factors are written beside it, else they are folded in.
pub fn write_composed(
    to: &Path,
    start: &Folder,
    loaded: &Loaded,
    saved: Saved,
    lora: Option<&Lora>,
) -> Result<()> {
    fs::create_dir_all(to).map_err(Error::file(to))?;
    write_json(&to.join("config.json"), &loaded.config)?;
    if let Some(template) = start.read(TEMPLATE)? {
        write_atomically(&to.join(TEMPLATE), &template)?;
    }
    let mut changed: Vec<String> = loaded.weights.variables().into_iter().map(|(name, _)| name).collect();
    let mut all = match lora {
        Some(lora) => {
            write_adapter(to, loaded, lora, "")?;
            let mut all = loaded.weights.whole()?;
            all.retain(|(name, _)| !name.starts_with(ADAPTED));
            changed.retain(|name| !name.starts_with(ADAPTED));
            all
        }
        None => {
            changed.extend(loaded.weights.adapted());
            loaded.weights.merged()?
        }
    };
    for part in [VISION, LANGUAGE] {
        let Some(folder) = start.below(part)? else { continue };
        let (prefix, place) = (format!("{part}."), to.join(part));
        let own;
        (own, all) = all.into_iter().partition(|(name, _)| name.starts_with(&prefix));
        if !changed.iter().any(|name| name.starts_with(&prefix)) {
            folder.copy_to(&place)?;
            continue;
        }
        let Some(config) = folder.json("config.json")? else {
            let problem = "weights in a GGUF file cannot be written back: freeze them, or train an adapter";
            return Err(Error::Recipe { origin: folder.label(), problem: problem.into() });
        };
        fs::create_dir_all(&place).map_err(Error::file(&place))?;
        write_json(&place.join("config.json"), &config)?;
        for file in CONFIGS.into_iter().filter(|file| *file != "config.json") {
            if let Some(bytes) = folder.read(file)? {
                write_atomically(&place.join(file), &bytes)?;
            }
        }
        write_tensors(&place.join("model.safetensors"), loaded, own, &prefix, saved)?;
    }
    write_tensors(&to.join("model.safetensors"), loaded, all, "", saved)
}

/// Writes low-rank factors alone, in PEFT's layout; `base` is the model that they stand beside.
pub fn write_adapter(to: &Path, loaded: &Loaded, lora: &Lora, base: &str) -> Result<()> {
    fs::create_dir_all(to).map_err(Error::file(to))?;
    let mut config = lora.to_config(base);
    // GPT-2's files have their weights turned, and PEFT wants to be told.
    config["fan_in_fan_out"] = (loaded.model.kind() == "gpt2").into();
    write_json(&to.join(adapter::CONFIG), &config)?;
    let mut own = loaded.weights.variables();
    own.retain(|(name, _)| name.starts_with(ADAPTED));
    let entries = own.iter().map(|(name, variable)| encode(name, variable.as_tensor(), Saved::F32));
    let entries: Vec<Entry> = entries.collect::<Result<_>>()?;
    Ok(safetensors::write(&to.join(adapter::WEIGHTS), &entries, &BTreeMap::new())?)
}

/// Writes a model with its adapter folded in, as one of its own layout.
pub fn write_merged(to: &Path, folder: &Folder, saved: Saved) -> Result<()> {
    let loaded = auto::load_plain(folder, &Device::Cpu, Precision::F32)?;
    match loaded.model.kind() == composed::KIND {
        true => write_composed(to, folder, &loaded, saved, None),
        false => write_model(to, &loaded, &carried(folder)?, saved),
    }
}

type Entry = (String, Dtype, Vec<usize>, Vec<u8>);

fn encode(name: &str, tensor: &Tensor, saved: Saved) -> Result<Entry> {
    let values = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
    let shape = tensor.dims().to_vec();
    Ok(match saved {
        Saved::F32 => {
            (name.to_owned(), Dtype::F32, shape, values.iter().flat_map(|v| v.to_le_bytes()).collect())
        }
        Saved::Bf16 => {
            let bytes = values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect();
            (name.to_owned(), Dtype::BF16, shape, bytes)
        }
    })
}

/// What a checkpoint keeps of a model.
pub enum Kept<'a> {
    /// All of it, as a model folder.
    Model(&'a Loaded, &'a Carried),
    /// What is trained alone; the rest lies where the run began.
    Trained(&'a [(String, Var)]),
}

/// Puts what a checkpoint of [`Kept::Trained`] holds into variables; `false` where it does not fit them.
pub fn restore(folder: &Path, variables: &[(String, Var)]) -> Result<bool> {
    let file = Checkpoint::open(&folder.join(TRAINED))?;
    for (name, variable) in variables {
        if file.shape(name) != Some(variable.dims()) {
            return Ok(false);
        }
        let Some(values) = dari_nn::weights::floats(&file.tensor(name)?) else { return Ok(false) };
        variable.set(&Tensor::from_vec(values, variable.shape(), variable.device())?)?;
    }
    Ok(file.names().count() == variables.len())
}

/// A run's folder of checkpoints, `step-00001000` and so on.
pub struct Checkpoints {
    folder: PathBuf,
    keep: usize,
}

impl Checkpoints {
    /// Checkpoints below a run's output folder, the newest `keep` of them kept.
    pub fn new(output: &Path, keep: usize) -> Checkpoints {
        Checkpoints { folder: output.join("checkpoints"), keep }
    }

    /// Writes everything that a run needs to go on: into a folder of another name first, which is
    /// renamed when it is whole.
    pub fn write(&self, state: &State, kept: Kept, moments: BTreeMap<String, Moments>) -> Result<PathBuf> {
        let name = format!("step-{:08}", state.step);
        let (partial, whole) = (self.folder.join(format!(".{name}.partial")), self.folder.join(&name));
        for old in [&partial, &whole] {
            if old.exists() {
                fs::remove_dir_all(old).map_err(Error::file(old))?;
            }
        }
        match kept {
            Kept::Model(loaded, carried) => write_model(&partial, loaded, carried, Saved::F32)?,
            Kept::Trained(variables) => {
                fs::create_dir_all(&partial).map_err(Error::file(&partial))?;
                let entries = variables.iter().map(|(name, variable)| encode(name, variable, Saved::F32));
                let entries: Vec<Entry> = entries.collect::<Result<_>>()?;
                safetensors::write(&partial.join(TRAINED), &entries, &BTreeMap::new())?;
            }
        }
        let bytes = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
        let entries: Vec<Entry> = moments
            .iter()
            .flat_map(|(name, m)| {
                let entry = |kind: &str, values: &[f32]| {
                    (format!("{kind}.{name}"), Dtype::F32, vec![values.len()], bytes(values))
                };
                let average = (!m.average.is_empty()).then(|| entry("average", &m.average));
                [entry("first", &m.first), entry("second", &m.second)].into_iter().chain(average)
            })
            .collect();
        safetensors::write(&partial.join(MOMENTS), &entries, &BTreeMap::new())?;
        let text = serde_json::to_value(state).unwrap_or_default();
        write_json(&partial.join(STATE), &text)?;
        fs::rename(&partial, &whole).map_err(Error::file(&whole))?;
        sync(&self.folder);
        self.prune()?;
        Ok(whole)
    }

    /// Whole checkpoints, oldest first.
    pub fn list(&self) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(found),
            Err(error) => {
                return Err(Error::File { path: self.folder.clone(), error });
            }
        };
        for entry in entries {
            let path = entry.map_err(Error::file(&self.folder))?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("");
            if name.starts_with("step-") && path.join(STATE).is_file() {
                found.push(path);
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    fn prune(&self) -> Result<()> {
        let all = self.list()?;
        for old in &all[..all.len().saturating_sub(self.keep)] {
            fs::remove_dir_all(old).map_err(Error::file(old))?;
        }
        Ok(())
    }
}

/// Reads back where a run stands, and its optimizer.
pub fn read(folder: &Path) -> Result<(State, BTreeMap<String, Moments>)> {
    let path = folder.join(STATE);
    let text = fs::read_to_string(&path).map_err(Error::file(&path))?;
    let state: State = serde_json::from_str(&text)
        .map_err(|error| Error::Recipe { origin: path.display().to_string(), problem: error.to_string() })?;
    let file = Checkpoint::open(&folder.join(MOMENTS))?;
    let mut moments: BTreeMap<String, Moments> = BTreeMap::new();
    let names: Vec<String> = file.names().map(str::to_owned).collect();
    for name in names {
        let Some(values) = dari_nn::weights::floats(&file.tensor(&name)?) else {
            continue;
        };
        match name.split_once('.') {
            Some(("first", of)) => moments.entry(of.to_owned()).or_default().first = values,
            Some(("second", of)) => moments.entry(of.to_owned()).or_default().second = values,
            Some(("average", of)) => moments.entry(of.to_owned()).or_default().average = values,
            _ => {}
        }
    }
    Ok((state, moments))
}

fn write_json(path: &Path, value: &serde_json::Value) -> Result<()> {
    let text = serde_json::to_string_pretty(value).unwrap_or_default();
    Ok(write_atomically(path, text.as_bytes())?)
}

/// Makes a rename last; where a folder cannot be synced there is nothing more to do.
fn sync(folder: &Path) {
    if let Ok(folder) = fs::File::open(folder) {
        let _ = folder.sync_all();
    }
}
