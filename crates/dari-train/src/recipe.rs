//! A training run as a TOML file: what model, on what data, how.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use dari_data::image::augment::Variation;
use dari_models::adapter::Lora;
use dari_models::auto;
use dari_models::bridge::BridgeConfig;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::checkpoint::Saved;
use crate::optimizer::AdamWConfig;
use crate::schedule::Shape;
use crate::{Error, Result};

/// A whole recipe. Relative paths are relative to the recipe's folder; those laid over it on the
/// command line, to where it was typed.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Everything random follows from it.
    #[serde(default)]
    pub seed: u64,
    /// Where checkpoints, metrics and the finished model go.
    pub output: PathBuf,
    /// Where `data` paths start; the recipe's own folder when absent.
    #[serde(default)]
    pub data_folder: Option<PathBuf>,
    /// What is trained.
    pub model: ModelRecipe,
    /// What it learns from.
    pub data: Vec<DataRecipe>,
    /// How pictures are varied before the model's own preparation. Scenes are not: they speak of left
    /// and right, sizes and colours.
    #[serde(default)]
    pub augment: Variation,
    /// How long and how fast.
    pub train: TrainRecipe,
    /// The optimizer.
    #[serde(default)]
    pub optimizer: AdamWConfig,
    /// Where the recipe lies.
    #[serde(skip)]
    pub folder: PathBuf,
}

/// What is trained: a checkpoint to go on from, or a new model.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelRecipe {
    /// A model folder, or a hub id, to go on from.
    #[serde(default)]
    pub from: Option<String>,
    /// `config.json` of a new model, in the public layout.
    #[serde(default)]
    pub config: Option<Value>,
    /// `preprocessor_config.json` of a new model.
    #[serde(default)]
    pub preprocessor: Option<Value>,
    /// The tokenizer of a new model.
    #[serde(default)]
    pub tokenizer: Option<TokenizerRecipe>,
    /// An encoder, a bridge and a language model, to be joined to a new system.
    #[serde(default)]
    pub compose: Option<Compose>,
    /// Patterns of tensor names that stay as they are; `*` stands for anything.
    #[serde(default)]
    pub freeze: Vec<String>,
    /// Low-rank factors beside a language model's layers, trained in their place: all else stays as it is, but a
    /// new bridge.
    #[serde(default)]
    pub lora: Option<Lora>,
    /// The type in which the finished model is saved; checkpoints are f32 always.
    #[serde(default, skip_serializing)]
    pub save: Saved,
}

/// A new system of three blocks. Its tensors' names begin with `vision.`, `bridge.` and `language.`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Compose {
    /// The encoder: a model folder, or a hub id.
    pub vision: String,
    /// Layers of the encoder whose tokens the bridge takes, side by side, counted from the last (-1); what it leaves
    /// where absent.
    #[serde(default)]
    pub vision_layers: Option<Vec<i64>>,
    /// The bridge.
    pub bridge: BridgeConfig,
    /// The language model: a model folder, a GGUF file, or a hub id.
    #[serde(default)]
    pub language: Option<String>,
    /// `config.json` of a new language model, whose tokenizer `model.tokenizer` describes.
    #[serde(default)]
    pub language_config: Option<Value>,
    /// What stands for a picture in a chat.
    #[serde(default)]
    pub image_token: Option<String>,
    /// The chat template, in Jinja; the language model's own where absent.
    #[serde(default)]
    pub chat_template: Option<String>,
}

/// A tokenizer of its own, trained on the recipe's captions.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizerRecipe {
    /// Entries at most.
    pub vocabulary: usize,
    /// Captions drawn from each scene source for it.
    #[serde(default = "default_scene_captions")]
    pub scene_captions: usize,
}

fn default_scene_captions() -> usize {
    20_000
}

/// One source of pairs.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataRecipe {
    /// A folder with sidecar captions, CSV, TSV, JSON Lines or WebDataset shards.
    #[serde(default)]
    pub path: Option<String>,
    /// Synthetic scenes, drawn under this seed.
    #[serde(default)]
    pub scenes: Option<u64>,
    /// Of a model that speaks: what the records are.
    #[serde(default)]
    pub kind: DataKind,
    /// Of VQAv2's questions: the file of their answers.
    #[serde(default)]
    pub annotations: Option<String>,
    /// Of scenes' questions: how many are asked of each, one after the other.
    #[serde(default = "one_turn")]
    pub turns: usize,
    /// Of captions: how they are asked for, by language; one is drawn.
    #[serde(default)]
    pub prompts: BTreeMap<String, Vec<String>>,
    /// Share of each batch, relative to the other sources'.
    #[serde(default = "one")]
    pub weight: f64,
    /// Languages of the captions, drawn equally; all that a record has when empty.
    #[serde(default)]
    pub languages: Vec<String>,
}

/// What a model that speaks learns from a source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DataKind {
    /// To describe pictures.
    #[default]
    Captions,
    /// LLaVA's conversations.
    Conversations,
    /// VQAv2's questions; of scenes their own.
    Questions,
    /// To go on with plain texts, no picture and no chat.
    Text,
}

fn one_turn() -> usize {
    1
}

fn one() -> f64 {
    1.0
}

/// How long and how fast.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainRecipe {
    /// Batches in all.
    pub steps: u64,
    /// Pairs in a batch.
    pub batch: usize,
    /// Pairs that go through the towers at once; the loss sees the whole batch all the same. Each
    /// tower then runs twice, and memory is paid for these pairs alone. All of the batch when absent.
    #[serde(default)]
    pub micro_batch: Option<usize>,
    /// Keeps each block's input alone and runs the block again for its gradient: less memory, a
    /// third more work.
    #[serde(default)]
    pub checkpoint_activations: bool,
    /// What the linear layers multiply, forward and backward; weights, sums and everything else are
    /// f32 in either case.
    #[serde(default)]
    pub products: Products,
    /// The highest learning rate.
    pub learning_rate: f64,
    /// What the learning rate is multiplied by for tensors whose names fit a pattern; `*` stands for
    /// anything, and the longest pattern that fits counts.
    #[serde(default)]
    pub rates: BTreeMap<String, f64>,
    /// The finished model's weights are a running mean over the steps, each step keeping this share of
    /// the mean (0.999 is some thousand steps long); 0 for the weights of the last step.
    #[serde(default)]
    pub average: f64,
    /// Share of each picture's patches that is left out, others at each step: quicker steps, and nothing
    /// learned by heart.
    #[serde(default)]
    pub patch_dropout: f64,
    /// Share of the steps after which pictures are whole, for the last ones to be like use.
    #[serde(default = "one")]
    pub patch_dropout_until: f64,
    /// Of a model that speaks: most tokens of a text, its pictures' among them.
    #[serde(default = "thousand")]
    pub length: usize,
    /// Of a classifier: the share of a picture's weight that goes to all classes alike.
    #[serde(default)]
    pub label_smoothing: f64,
    /// Steps in which it rises from zero.
    #[serde(default)]
    pub warmup: u64,
    /// What follows.
    #[serde(default)]
    pub schedule: Shape,
    /// Writes TensorBoard's event files as well, below `tensorboard` of the output.
    #[serde(default)]
    pub tensorboard: bool,
    /// Steps between checkpoints.
    #[serde(default = "five_hundred")]
    pub checkpoint_every: u64,
    /// Checkpoints kept, the newest.
    #[serde(default = "two")]
    pub keep: usize,
    /// Threads that draw and decode ahead.
    #[serde(default = "two")]
    pub workers: usize,
}

impl TrainRecipe {
    /// How many of a picture's `patches` a step looks at.
    pub fn patches_kept(&self, step: u64, patches: usize) -> usize {
        let whole = step as f64 > self.patch_dropout_until * self.steps as f64;
        let kept = (patches as f64 * (1.0 - self.patch_dropout)).round() as usize;
        if whole { patches } else { kept.clamp(patches.min(1), patches) }
    }

    /// What a tensor's learning rate is multiplied by.
    pub fn rate_of(&self, name: &str) -> f64 {
        let fits = self.rates.iter().filter(|(pattern, _)| matches_one(pattern, name));
        fits.max_by_key(|(pattern, _)| pattern.len()).map_or(1.0, |(_, factor)| *factor)
    }
}

/// The numbers that linear layers multiply in training.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Products {
    /// Single precision.
    #[default]
    F32,
    /// Rounded to bf16 where the processor multiplies such numbers; elsewhere f32, which is as fast
    /// there.
    Bf16,
}

impl From<Products> for dari_nn::Products {
    fn from(products: Products) -> dari_nn::Products {
        match products {
            Products::F32 => dari_nn::Products::F32,
            Products::Bf16 => dari_nn::Products::Bf16,
        }
    }
}

fn thousand() -> usize {
    1024
}

fn five_hundred() -> u64 {
    500
}

fn two() -> usize {
    2
}

impl Recipe {
    /// Reads a recipe and lays `key=value` settings over it, the keys dotted as in
    /// `train.batch=128`; values are TOML, or plain words.
    pub fn read(path: &Path, settings: &[String]) -> Result<Recipe> {
        let text = std::fs::read_to_string(path).map_err(Error::file(path))?;
        let origin = path.display().to_string();
        let mut table: toml::Table =
            text.parse().map_err(|error: toml::de::Error| refuse(&origin, one_line(&error.to_string())))?;
        for setting in settings {
            set(&mut table, setting)?;
        }
        let mut recipe: Recipe = table
            .try_into()
            .map_err(|error: toml::de::Error| refuse(&origin, one_line(&error.to_string())))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        // What was typed is meant from where it was typed.
        let typed = |key: &str| settings.iter().any(|s| s.split('=').next().is_some_and(|k| k.trim() == key));
        let beside = |key: &str| if typed(key) { Path::new("") } else { folder };
        recipe.output = beside("output").join(home(&recipe.output));
        recipe.data_folder = Some(match &recipe.data_folder {
            Some(data) => beside("data_folder").join(home(data)),
            None => folder.to_owned(),
        });
        recipe.folder = folder.to_owned();
        recipe.check(&origin)?;
        Ok(recipe)
    }

    fn check(&self, origin: &str) -> Result<()> {
        let problem = if self.data.is_empty() {
            "`data` names no source".to_owned()
        } else if [self.model.from.is_some(), self.model.config.is_some(), self.model.compose.is_some()]
            .iter()
            .filter(|&&given| given)
            .count()
            != 1
        {
            "`model` needs either `from` (a checkpoint), `config` (a new model) or `compose` (a new system of blocks)"
                .to_owned()
        } else if let Some(problem) = self.model.compose.as_ref().and_then(|compose| {
            let tokenizer = self.model.tokenizer.is_some();
            (compose.language.is_some() == compose.language_config.is_some()
                || compose.language_config.is_some() != tokenizer)
                .then(|| {
                    "`model.compose` needs either `language` (a checkpoint) or `language_config` (a new one, with `model.tokenizer`)"
                        .to_owned()
                })
        }) {
            problem
        } else if let Some(problem) = self.model.lora.as_ref().and_then(Lora::problem) {
            format!("`model.lora`: {problem}")
        } else if let Some(source) = self.data.iter().find(|source| source.turns == 0 || source.turns > 64) {
            format!("`data.turns` is {}, expected 1 to 64", source.turns)
        } else if self.train.length < 2 {
            format!("`train.length` is {}, expected at least 2", self.train.length)
        } else if let Some(problem) = self.model.config.as_ref().and_then(config_problem) {
            problem
        } else if let Some(problem) = self.optimizer.problem() {
            problem
        } else if self.train.batch < self.data.len().max(2) || self.train.batch > 1 << 20 {
            format!(
                "`train.batch` is {}, expected {} to 1048576: a pair is told from the others of its batch, and every source has one in it",
                self.train.batch,
                self.data.len().max(2)
            )
        } else if self.train.micro_batch == Some(0) {
            "`train.micro_batch` is 0, expected at least 1".to_owned()
        } else if self.train.steps == 0 || self.train.warmup > self.train.steps {
            format!(
                "`train.steps` is {} with `train.warmup` {}, expected at least 1 and no more warm-up than steps",
                self.train.steps, self.train.warmup
            )
        } else if !(self.train.learning_rate > 0.0 && self.train.learning_rate.is_finite()) {
            format!("`train.learning_rate` is {}, expected a number above 0", self.train.learning_rate)
        } else if let Some(problem) = self.augment.problem() {
            format!("`augment.{problem}")
        } else if !(0.0..1.0).contains(&self.train.average) {
            format!("`train.average` is {}, expected 0 (none) to below 1", self.train.average)
        } else if !(0.0..1.0).contains(&self.train.label_smoothing) {
            format!("`train.label_smoothing` is {}, expected 0 (none) to below 1", self.train.label_smoothing)
        } else if !(0.0..1.0).contains(&self.train.patch_dropout) {
            format!("`train.patch_dropout` is {}, expected 0 (none) to below 1", self.train.patch_dropout)
        } else if !(0.0..=1.0).contains(&self.train.patch_dropout_until) {
            format!("`train.patch_dropout_until` is {}, expected 0 to 1", self.train.patch_dropout_until)
        } else if let Some((pattern, factor)) =
            self.train.rates.iter().find(|(_, factor)| !(**factor >= 0.0 && factor.is_finite()))
        {
            format!("`train.rates` has {factor} for \"{pattern}\", expected a number of 0 or more")
        } else if self.train.checkpoint_every == 0
            || self.train.keep == 0
            || self.train.workers == 0
            || self.train.workers > 256
        {
            "`train.checkpoint_every`, `train.keep` and `train.workers` must be at least 1 (and at most 256 workers)".to_owned()
        } else if let Some(source) =
            self.data.iter().find(|source| source.path.is_none() == source.scenes.is_none())
        {
            format!("a source of `data` needs either `path` or `scenes`, found {source:?}")
        } else if let Some(source) =
            self.data.iter().find(|source| !(source.weight > 0.0 && source.weight.is_finite()))
        {
            format!("`data.weight` is {}, expected a number above 0", source.weight)
        } else {
            return Ok(());
        };
        Err(refuse(origin, problem))
    }

    /// Which setting differs from those of a [`Recipe::fingerprint`], if any.
    pub fn changed_since(&self, fingerprint: &str) -> Option<String> {
        if self.fingerprint() == fingerprint {
            return None;
        }
        let parse = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
        difference(&parse(fingerprint), &parse(&self.fingerprint())).or(Some("its form".to_owned()))
    }

    /// Whether the model that it makes speaks; of one that it goes on from its folder says it.
    pub fn makes_a_speaker(&self) -> bool {
        let kind = self.model.config.as_ref().and_then(|config| config.get("model_type")?.as_str());
        self.model.compose.is_some() || kind.is_some_and(auto::speaks)
    }

    /// Where `model.from` lies: beside the recipe, where there is such a folder; else as it stands.
    pub fn start(&self, from: &str) -> String {
        let path = home(Path::new(from));
        let beside = self.folder.join(&path);
        if beside.exists() { beside.display().to_string() } else { path.display().to_string() }
    }

    /// What must be equal for a run to be taken up again: everything but where it writes and finds
    /// its data, how often it saves and how much it keeps, how many threads prepare batches, and in
    /// what type the finished model is saved.
    pub fn fingerprint(&self) -> String {
        let mut same = self.clone();
        same.output = PathBuf::new();
        same.data_folder = None;
        same.train.checkpoint_every = 1;
        same.train.keep = 1;
        same.train.workers = 1;
        same.train.tensorboard = false;
        serde_json::to_string(&same).unwrap_or_default()
    }
}

/// What is wrong with the config of a new model, before anything is made for it.
fn config_problem(config: &Value) -> Option<String> {
    let kind = config.get("model_type").and_then(Value::as_str);
    match kind {
        Some("clip" | "siglip" | "siglip2") => {}
        // They have one tower, or none.
        Some("gpt2" | "llama" | "mistral" | "qwen2") => return None,
        _ if auto::is_classifier(config) => return None,
        _ => {
            return Some(format!(
                "`model.config.model_type` is {kind:?}, expected \"clip\", \"siglip\", \"siglip2\", \"vit\", \"resnet\", \"gpt2\", \"llama\", \"mistral\" or \"qwen2\""
            ));
        }
    }
    let text = config.get("text_config").is_some_and(Value::is_object);
    (!text).then(|| "`model.config.text_config` is missing, expected a table".to_owned())
}

/// The dotted key of the first place where two values differ.
fn difference(old: &Value, new: &Value) -> Option<String> {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            let keys: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
            keys.into_iter().find_map(|key| {
                let null = Value::Null;
                let below = difference(old.get(key).unwrap_or(&null), new.get(key).unwrap_or(&null))?;
                Some(if below.is_empty() { key.clone() } else { format!("{key}.{below}") })
            })
        }
        _ => (old != new).then(String::new),
    }
}

fn refuse(origin: &str, problem: impl Into<String>) -> Error {
    Error::Recipe { origin: origin.to_owned(), problem: problem.into() }
}

/// TOML's errors draw the place over several lines; ours are one.
fn one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

/// `~` at the start is the user's folder.
fn home(path: &Path) -> PathBuf {
    match (path.strip_prefix("~"), std::env::home_dir()) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path.to_owned(),
    }
}

/// Lays one `key=value` over a table.
fn set(table: &mut toml::Table, setting: &str) -> Result<()> {
    let bad = || refuse("--set", format!("`{setting}` is not KEY=VALUE with a key such as train.batch"));
    let (key, value) = setting.split_once('=').ok_or_else(bad)?;
    let value = match format!("v = {value}").parse::<toml::Table>() {
        Ok(mut parsed) => parsed.remove("v").ok_or_else(bad)?,
        Err(_) => toml::Value::String(value.to_owned()),
    };
    let mut parts: Vec<&str> = key.trim().split('.').collect();
    let last = parts.pop().filter(|last| !last.is_empty()).ok_or_else(bad)?;
    let mut at = table;
    for part in parts {
        let entry = at.entry(part).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        at = entry.as_table_mut().ok_or_else(bad)?;
    }
    at.insert(last.to_owned(), value);
    Ok(())
}

/// Whether `name` is one of `patterns`, in which `*` stands for anything.
pub fn matches(patterns: &[String], name: &str) -> bool {
    patterns.iter().any(|pattern| matches_one(pattern, name))
}

fn matches_one(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or("");
    let Some(mut rest) = name.strip_prefix(first) else {
        return false;
    };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else {
        return rest.is_empty();
    };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = r#"
        output = "out"
        [model]
        from = "somewhere"
        freeze = ["vision_model.*"]
        [[data]]
        scenes = 1
        [train]
        steps = 10
        batch = 8
        learning_rate = 1e-3
    "#;

    fn read(text: &str, settings: &[&str]) -> Result<Recipe> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("recipe.toml");
        std::fs::write(&path, text).expect("written");
        let settings: Vec<String> = settings.iter().map(|s| (*s).to_owned()).collect();
        Recipe::read(&path, &settings)
    }

    #[test]
    fn settings_lie_over_the_file() {
        let recipe = read(SMALL, &["train.batch=16", "seed=3", "model.from=other", "augment.flip=true"])
            .expect("a recipe");
        assert_eq!((recipe.train.batch, recipe.seed), (16, 3));
        assert_eq!(recipe.model.from.as_deref(), Some("other"));
        assert!(recipe.augment.flip);
    }

    #[test]
    fn mistakes_are_named_in_one_line() {
        for (settings, word) in [
            (vec!["train.batch=1"], "train.batch"),
            (vec!["train.learning_rate=0"], "learning_rate"),
            (vec!["train.lr=1"], "lr"),
            (vec!["augment.crop=2"], "crop"),
            (vec!["train.patch_dropout=1"], "patch_dropout"),
            (vec!["nothing"], "KEY=VALUE"),
            (vec!["train.warmup=11"], "warmup"),
            (vec!["model.config={}"], "model"),
        ] {
            let message = read(SMALL, &settings).expect_err("a mistake").to_string();
            assert!(message.contains(word) && !message.contains('\n'), "{settings:?}: {message}");
        }
        let message = read("output = ", &[]).expect_err("no TOML").to_string();
        assert!(!message.contains('\n'), "{message}");
    }

    #[test]
    fn the_projects_own_recipes_are_sound() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes");
        let mut count = 0;
        for entry in std::fs::read_dir(folder).expect("recipes/") {
            let path = entry.expect("an entry").path();
            Recipe::read(&path, &[]).unwrap_or_else(|error| panic!("{error}"));
            count += 1;
        }
        assert!(count >= 4);
    }

    #[test]
    fn a_changed_setting_is_named() {
        let old = read(SMALL, &[]).expect("a recipe").fingerprint();
        let changed = |setting: &str| read(SMALL, &[setting]).expect("a recipe").changed_since(&old);
        assert_eq!(changed("train.batch=16").as_deref(), Some("train.batch"));
        assert_eq!(changed("model.freeze=[]").as_deref(), Some("model.freeze"));
        assert_eq!(changed("output=elsewhere"), None);
    }

    #[test]
    fn patterns() {
        let one = |pattern: &str, name: &str| matches(&[pattern.to_owned()], name);
        assert!(one("vision_model.*", "vision_model.encoder.x"));
        assert!(!one("vision_model.*", "text_model.x"));
        assert!(one("*.bias", "a.b.bias") && !one("*.bias", "a.bias.c"));
        assert!(one("a*b*c", "a1b2c") && !one("a*b*c", "a1c2b"));
        assert!(one("logit_scale", "logit_scale") && !one("logit", "logit_scale"));
    }
}
