//! From a recipe to a run: the model that it begins with or is taken up with, the data, the optimizer.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use candle_core::Device;
use dari_files::Folder;
use dari_models::adapter::Lora;
use dari_models::capability::EmbedPictures;
use dari_models::generative::composed::LANGUAGE;
use dari_models::{Loaded, auto};
use dari_nn::Training;
use dari_nn::weights::ADAPTED;

use super::{Run, Task};
use crate::batches::{Batch, Mixture, Samples};
use crate::checkpoint::{self, Checkpoints, State};
use crate::lessons::{Lessons, Teacher};
use crate::optimizer::AdamW;
use crate::recipe::{Recipe, matches};
use crate::{Error, Result, start};

/// Everything that a run needs before its first step.
pub(super) fn prepare<'a>(
    recipe: &'a Recipe,
    resume: bool,
    device: &'a Device,
    open: &dyn Fn(&str) -> Result<Folder>,
) -> Result<(Run<'a>, State)> {
    let train = &recipe.train;
    let refuse = |problem: String| Error::Recipe { origin: "the recipe".into(), problem };
    let parts = train.micro_batch.is_some_and(|part| part < train.batch);
    if !device.is_cpu() && (parts || train.checkpoint_activations) {
        let problem = "`train.micro_batch` and `train.checkpoint_activations` are for the cpu: leave them out, or the device";
        return Err(refuse(problem.into()));
    }
    let checkpoints = Checkpoints::new(&recipe.output, recipe.train.keep);
    let newest = checkpoints.list()?.pop();
    if let (Some(there), false) = (&newest, resume) {
        let problem = format!(
            "there is a run already ({}): take it up with --resume, or choose another `output`",
            there.display()
        );
        return Err(Error::Recipe { origin: recipe.output.display().to_string(), problem });
    }
    fs::create_dir_all(&recipe.output).map_err(Error::file(&recipe.output))?;
    let from = match &recipe.model.from {
        Some(from) => Some(open(&recipe.start(from))?),
        None => None,
    };
    let speaks = match &from {
        Some(folder) => auto::holds_speaker(folder)?,
        None => recipe.makes_a_speaker(),
    };
    let mut data = match speaks {
        true => Data::Lessons(Lessons::open(recipe)?),
        false => Data::Pairs(Mixture::open(recipe)?),
    };
    let (freeze, lora) = (recipe.model.freeze.clone(), recipe.model.lora.is_some());
    if lora && !speaks {
        return Err(refuse("`model.lora` is for models that speak: leave it out".into()));
    }
    // Beside adapters a bridge alone is trained, where there is a new one.
    let stays = move |name: &str| matches(&freeze, name) || (lora && !name.starts_with("bridge."));
    let training = Training {
        frozen: Box::new(stays),
        products: recipe.train.products.into(),
        adapters: recipe.model.lora.as_ref().map(Lora::new_adapters),
        ..Training::all(recipe.seed)
    };
    let (state, moments) = match &newest {
        Some(path) => {
            let (state, moments) = checkpoint::read(path)?;
            check_unchanged(recipe, path, &state, &data)?;
            (state, Some(moments))
        }
        None => {
            let lengths = data.lengths();
            (State { step: 0, recipe: recipe.fingerprint(), skipped: 0, lengths }, None)
        }
    };
    let started = recipe.output.join(START);
    let (folder, loaded) = match (&newest, &data, from) {
        // Checkpoints of models that speak hold what is trained alone.
        (Some(path), Data::Pairs(_), _) => {
            let folder = Folder::open(path)?;
            let loaded = auto::load_for_training(&folder, device, training, None)?;
            (folder, loaded)
        }
        (_, Data::Lessons(_), Some(folder)) => {
            let loaded = auto::load_for_training(&folder, device, training, None)?;
            (folder, loaded)
        }
        (None, Data::Pairs(mixture), Some(folder)) => {
            let classes = auto::holds_classifier(&folder)?.then(|| mixture.classes());
            let loaded = auto::load_for_training(&folder, device, training, classes.as_deref())?;
            (folder, loaded)
        }
        (None, Data::Pairs(mixture), None) => {
            let folder = start::contrastive(recipe, mixture, &started)?;
            let loaded = auto::create(&folder, device, training)?;
            (folder, loaded)
        }
        (newest, Data::Lessons(lessons), None) => {
            if newest.is_none() {
                start::speaker(recipe, lessons, open, &started)?;
            }
            let folder = Folder::open(&started)?;
            let loaded = match recipe.model.compose.is_some() {
                true => auto::load_for_training(&folder, device, training, None)?,
                false => auto::create(&folder, device, training)?,
            };
            (folder, loaded)
        }
    };
    if let (Some(path), Data::Lessons(_)) = (&newest, &data)
        && !checkpoint::restore(path, &loaded.weights.variables())?
    {
        let problem = "what it holds does not fit the model that the run began with".to_owned();
        return Err(Error::Recipe { origin: path.display().to_string(), problem });
    }
    let task = Task::of(&loaded, recipe)?;
    data = match (&task, data) {
        (Task::Classes { .. }, Data::Pairs(mixture)) => Data::Pairs(mixture.of_classes()),
        (_, data) => data,
    };
    if let Data::Lessons(lessons) = &data
        && lessons.shows()
        && loaded.model.sees().is_none()
    {
        let problem = format!(
            "a `{}` model sees no pictures: give it plain texts (`kind = \"text\"`), or compose it with an encoder",
            loaded.model.kind()
        );
        return Err(refuse(problem));
    }
    let variables = loaded.weights.variables();
    let in_blocks = match folder.below(LANGUAGE)? {
        Some(part) if part.gguf().is_some() => {
            variables.iter().any(|(name, _)| name.starts_with("language."))
        }
        _ => folder.gguf().is_some() && variables.iter().any(|(name, _)| !name.starts_with(ADAPTED)),
    };
    if in_blocks {
        let problem = "weights in a GGUF file are not trained, only what stands beside them: freeze the language \
                       model (`model.freeze`), or train an adapter (`model.lora`)";
        return Err(refuse(problem.into()));
    }
    if let Some(lora) = &recipe.model.lora
        && !variables.iter().any(|(name, _)| name.starts_with(ADAPTED))
    {
        let problem = format!("`model.lora.targets` {:?} are the ends of no layer's name", lora.targets);
        return Err(refuse(problem));
    }
    let patches = loaded.model.pictures().map_or(0, EmbedPictures::patches);
    if recipe.train.patch_dropout > 0.0 && (patches == 0 || !matches!(task, Task::Pairs)) {
        let problem =
            "`train.patch_dropout` is for clip and siglip models with a tower of patches: leave it out";
        return Err(refuse(problem.into()));
    }
    let mut optimizer = AdamW::new(recipe.optimizer, loaded.weights.variables())
        .with_rates(|name| recipe.train.rate_of(name))
        .with_average(recipe.train.average);
    if let Some(moments) = moments
        && !optimizer.restore(moments)
    {
        let problem = "its optimizer does not fit its model: the folder was changed".to_owned();
        return Err(Error::Recipe { origin: folder.label(), problem });
    }
    if optimizer.variables().is_empty() {
        let problem = format!("`model.freeze` {:?} leaves nothing to train", recipe.model.freeze);
        return Err(refuse(problem));
    }
    let carried = checkpoint::carried(&folder)?;
    let (data, loaded) = (Arc::new(data), Arc::new(loaded));
    Ok((Run { recipe, device, folder, carried, checkpoints, optimizer, task, data, loaded }, state))
}

/// Refuses to go on from a checkpoint with another recipe or other data.
fn check_unchanged(recipe: &Recipe, path: &Path, state: &State, data: &Data) -> Result<()> {
    let refuse = |problem: String| Error::Recipe { origin: path.display().to_string(), problem };
    if let Some(key) = recipe.changed_since(&state.recipe) {
        return Err(refuse(format!(
            "the recipe has changed since this checkpoint was written, in `{key}`: give back its old setting, or choose another `output`"
        )));
    }
    let (old, new) = (&state.lengths, data.lengths());
    if !old.is_empty() && *old != new {
        return Err(refuse(format!(
            "its data had {old:?} pairs, found {new:?}: give back the old data, or choose another `output`"
        )));
    }
    Ok(())
}

/// Where a run's new model lies before its first step, below its output.
const START: &str = "start";

/// What a run learns from.
pub(super) enum Data {
    Pairs(Mixture),
    Lessons(Lessons),
}

impl Data {
    fn lengths(&self) -> Vec<usize> {
        match self {
            Data::Pairs(mixture) => mixture.lengths(),
            Data::Lessons(lessons) => lessons.lengths(),
        }
    }

    pub fn describe(&self) -> Vec<String> {
        match self {
            Data::Pairs(mixture) => mixture.describe(),
            Data::Lessons(lessons) => lessons.describe(),
        }
    }

    /// The batch of a step, made for this model.
    pub fn batch(&self, step: u64, loaded: &Loaded) -> Result<Batch> {
        match self {
            Data::Pairs(mixture) => mixture.batch(step, &loaded.processor),
            Data::Lessons(lessons) => {
                let teacher = Teacher { processor: &loaded.processor, ends: &loaded.ends };
                let (lessons, skipped) = lessons.batch(step, &teacher)?;
                Ok(Batch { step, samples: Samples::Lessons(lessons), skipped })
            }
        }
    }
}
