//! From a model folder to a model: the only place that lists them all.

use std::path::PathBuf;
use std::sync::Arc;

use candle_core::Device;
use dari_data::image::{ImageProcessor, TileProcessor};
use dari_data::text::{ChatTemplate, TextProcessor, Words};
use dari_files::gguf::Gguf;
use dari_files::{Checkpoint, Folder, TensorView};
use dari_nn::weights::Source;
use dari_nn::{Precision, Training, Weights};
use serde_json::Value;

use crate::capability::{
    CausalLm, ClassifyPictures, Contrastive, EmbedPictures, EmbedTexts, FillMask, Look, SeeAndSay,
};
use crate::contrastive::clip::{Clip, ClipConfig};
use crate::contrastive::open_clip::{self, OpenClip};
use crate::contrastive::siglip::{Siglip, SiglipConfig};
use crate::encoder::resnet::{self, ResNet, ResNetConfig, Torchvision};
use crate::encoder::vit::{Vit, VitConfig};
use crate::generative::{VisionLanguage, idefics3, llava};
use crate::language;
use crate::language::bert::{Bert, BertConfig, Pooling};
use crate::language::gguf::{self, Renamed};
use crate::language::gpt2::{Conv1d, Gpt2, Gpt2Config};
use crate::language::llama::Llama;
use crate::packed::{self, Ready};
use crate::processor::Sights;
use crate::{Error, Processor, Result, config};

pub use crate::config::set_labels;

/// Any model that Dari knows.
#[allow(missing_docs)]
pub enum Model {
    Clip(Clip),
    Siglip(Siglip),
    Vit(Vit),
    ResNet(ResNet),
    Bert(Bert),
    Gpt2(Gpt2),
    Llama(Llama),
    Mistral(Llama),
    Qwen2(Llama),
    Llava(VisionLanguage),
    Idefics3(VisionLanguage),
    SmolVlm(VisionLanguage),
}

impl Model {
    /// The name of its kind, as `config.json` spells it.
    pub fn kind(&self) -> &'static str {
        match self {
            Model::Clip(_) => "clip",
            Model::Siglip(model) if model.vision().size().is_none() => "siglip2",
            Model::Siglip(_) => "siglip",
            Model::Vit(_) => "vit",
            Model::ResNet(_) => "resnet",
            Model::Bert(_) => "bert",
            Model::Gpt2(_) => "gpt2",
            Model::Llama(_) => "llama",
            Model::Mistral(_) => "mistral",
            Model::Qwen2(_) => "qwen2",
            Model::Llava(_) => "llava",
            Model::Idefics3(_) => "idefics3",
            Model::SmolVlm(_) => "smolvlm",
        }
    }

    /// Pictures and words in one space.
    pub fn contrastive(&self) -> Option<&dyn Contrastive> {
        match self {
            Model::Clip(model) => Some(model),
            Model::Siglip(model) => Some(model),
            _ => None,
        }
    }

    /// How a text goes on.
    pub fn causal(&self) -> Option<&dyn CausalLm> {
        match self {
            Model::Gpt2(model) => Some(model),
            Model::Llama(model) | Model::Mistral(model) | Model::Qwen2(model) => Some(model),
            _ => self.sees().map(SeeAndSay::language),
        }
    }

    /// What pictures show, in words.
    pub fn sees(&self) -> Option<&dyn SeeAndSay> {
        match self {
            Model::Llava(model) | Model::Idefics3(model) | Model::SmolVlm(model) => Some(model),
            _ => None,
        }
    }

    /// The side of the pictures that it takes, in pixels; `None` where it takes any, or none.
    pub fn picture_size(&self) -> Option<usize> {
        match self {
            Model::Clip(model) => Some(model.size()),
            Model::Siglip(model) => model.vision().size(),
            Model::Vit(model) => Some(model.size()),
            _ => None,
        }
    }

    /// The side of its patches, where it takes pictures of any shape in whole patches.
    fn flexible(&self) -> Option<usize> {
        match self {
            Model::Siglip(model) if model.vision().size().is_none() => Some(model.vision().patch()),
            _ => None,
        }
    }

    /// Pictures to vectors.
    pub fn pictures(&self) -> Option<&dyn EmbedPictures> {
        match self {
            Model::Clip(model) => Some(model),
            Model::Siglip(model) => Some(model),
            Model::Vit(model) => Some(model),
            Model::ResNet(model) => Some(model),
            _ => None,
        }
    }

    /// Where in a picture something is.
    pub fn look(&self) -> Option<&dyn Look> {
        match self {
            Model::Clip(model) => Some(model),
            Model::Siglip(model) => Some(model),
            _ => None,
        }
    }

    /// Texts to vectors.
    pub fn texts(&self) -> Option<&dyn EmbedTexts> {
        match self {
            Model::Clip(model) => Some(model),
            Model::Siglip(model) => Some(model),
            Model::Bert(model) => Some(model),
            _ => None,
        }
    }

    /// The checkpoint's own labels.
    pub fn classifier(&self) -> Option<&dyn ClassifyPictures> {
        match self {
            Model::Vit(model) => model.classifier(),
            Model::ResNet(model) => model.classifier(),
            _ => None,
        }
    }

    /// Masked words.
    pub fn fill_mask(&self) -> Option<&dyn FillMask> {
        match self {
            Model::Bert(model) => model.word_head(),
            _ => None,
        }
    }
}

/// A model with everything that its folder says of it.
pub struct Loaded {
    /// The model.
    pub model: Model,
    /// How its pictures and texts are prepared; shared with threads that prepare ahead.
    pub processor: Arc<Processor>,
    /// Its weights, for training and saving.
    pub weights: Weights,
    /// The model's config file, as read.
    pub config: Value,
    /// Most tokens of a text.
    pub context: Option<usize>,
    /// Of a language model: the tokens that end an answer.
    pub ends: Vec<u32>,
    /// Of a model that speaks about pictures: the token in whose places they stand.
    pub placeholder: Option<u32>,
    /// Tensors in the checkpoint that the model has no place for.
    pub unused: Vec<String>,
    /// Packed weights that were passed over: of another version, or of weights that were replaced.
    pub stale: Option<PathBuf>,
}

/// Loads a folder for inference, its weights packed before where they lie so.
pub fn load(folder: &Folder, device: &Device, precision: Precision) -> Result<Loaded> {
    let ready = if device.is_cpu() { packed::find(folder, precision) } else { Ready::Absent };
    let (ready, stale) = match ready {
        Ready::Usable(file) => (Some(file), None),
        Ready::Stale(path) => (None, Some(path)),
        Ready::Absent => (None, None),
    };
    let layout = Layout::read(folder)?;
    let source = layout.source(folder)?;
    let loaded = build(folder, layout, Weights::read(source, device, precision, ready))?;
    Ok(Loaded { stale, ..loaded })
}

/// Loads a folder for inference from its own weights.
pub fn load_plain(folder: &Folder, device: &Device, precision: Precision) -> Result<Loaded> {
    let layout = Layout::read(folder)?;
    let source = layout.source(folder)?;
    build(folder, layout, Weights::read(source, device, precision, None))
}

/// Loads a folder to go on training it. A classifier that knows other classes than `classes` gets a
/// new head for them.
pub fn load_for_training(
    folder: &Folder,
    device: &Device,
    mut training: Training,
    classes: Option<&[String]>,
) -> Result<Loaded> {
    let mut layout = Layout::read(folder)?;
    if let Some(classes) = classes
        && config::labels_of(&layout.config, &layout.origin)? != classes
    {
        config::set_labels(&mut layout.config, classes);
        training.fresh = Box::new(|name| name.starts_with("classifier."));
    }
    if matches!(layout.form, Form::OpenClip) {
        // What open_clip does to texts, and a bias on CLIP's logits, have no place in the layout
        // that training writes.
        let problem = "training goes on from transformers' layout only: convert the checkpoint first";
        return config::refuse(&layout.origin, problem);
    }
    as_variables(folder, layout, device, training)
}

/// Loads a folder of any layout with its weights as variables; what is trained of open_clip's cannot be
/// written back.
pub fn load_any_for_training(folder: &Folder, device: &Device, training: Training) -> Result<Loaded> {
    as_variables(folder, Layout::read(folder)?, device, training)
}

fn as_variables(folder: &Folder, layout: Layout, device: &Device, training: Training) -> Result<Loaded> {
    let source = layout.source(folder)?;
    build(folder, layout, Weights::train(Some(source), device, training))
}

/// Whether a `config.json` is that of a model that names classes of its own.
pub fn is_classifier(config: &Value) -> bool {
    matches!(config.get("model_type").and_then(Value::as_str), Some("vit" | "resnet"))
}

/// The same of a folder, in any layout.
pub fn holds_classifier(folder: &Folder) -> Result<bool> {
    Ok(is_classifier(&Layout::read(folder)?.config))
}

/// Draws a new model of a folder's configuration, which needs no weights.
pub fn create(folder: &Folder, device: &Device, training: Training) -> Result<Loaded> {
    let layout = Layout::read(folder)?;
    build(folder, layout, Weights::train(None, device, training))
}

/// Which config file a folder has, and what it says.
struct Layout {
    origin: String,
    config: Value,
    form: Form,
    /// How pictures are prepared, where no file of the folder says so.
    preparation: Option<Value>,
}

/// Whose tensor names a folder has.
enum Form {
    Transformers,
    OpenClip,
    /// timm's, too.
    Torchvision,
    /// llama.cpp's.
    Gguf(Arc<Gguf>),
}

impl Layout {
    fn read(folder: &Folder) -> Result<Layout> {
        let place = |file: &str| format!("{}/{file}", folder.label());
        if let Some(file) = folder.gguf() {
            let (origin, config) = (folder.label(), gguf::config(file)?);
            return Ok(Layout { origin, config, form: Form::Gguf(file.clone()), preparation: None });
        }
        let plain = folder.json("config.json")?;
        // A folder that serves both libraries is read by transformers' files.
        if plain.as_ref().is_none_or(|config| config.get("model_type").is_none())
            && let Some(config) = folder.json("open_clip_config.json")?
        {
            let (origin, form) = (place("open_clip_config.json"), Form::OpenClip);
            return Ok(Layout { origin, config, form, preparation: None });
        }
        // timm's config names an architecture; torchvision's files have no config at all.
        if plain.as_ref().is_none_or(|config| config.get("architecture").is_some())
            && let Ok(checkpoint) = folder.weights()
            && Torchvision::fits(&checkpoint)
        {
            let timm = plain.is_some();
            let labels = plain.as_ref().and_then(|config| config.get("label_names")?.as_array().cloned());
            let labels = labels.into_iter().flatten().filter_map(|label| Some(label.as_str()?.to_owned()));
            let origin = if timm { place("config.json") } else { folder.label() };
            let config = Torchvision::new(checkpoint).config(labels.collect(), &origin)?;
            let preparation = if timm { None } else { Some(resnet::torchvision_preparation()) };
            return Ok(Layout { origin, config, form: Form::Torchvision, preparation });
        }
        match plain {
            Some(config) => Ok(Layout {
                origin: place("config.json"),
                config,
                form: Form::Transformers,
                preparation: None,
            }),
            None => config::refuse(
                &folder.label(),
                "no config.json or open_clip_config.json: a model folder as the hub lays it out is expected",
            ),
        }
    }

    fn source(&self, folder: &Folder) -> Result<Box<dyn Source>> {
        let checkpoint = match &self.form {
            Form::Gguf(file) => return Ok(Box::new(Renamed(file.clone()))),
            Form::OpenClip => return Ok(Box::new(OpenClip::new(folder.weights()?))),
            Form::Torchvision => return Ok(Box::new(Torchvision::new(folder.weights()?))),
            Form::Transformers => folder.weights()?,
        };
        if self.config.get("model_type").and_then(Value::as_str) == Some("gpt2") {
            return Ok(Box::new(Conv1d(checkpoint)));
        }
        // The oldest BERT files call a norm's weights gamma and beta.
        if checkpoint.names().any(|name| name.ends_with(".LayerNorm.gamma")) {
            return Ok(Box::new(OldNorms(checkpoint)));
        }
        Ok(Box::new(checkpoint))
    }
}

fn build(folder: &Folder, layout: Layout, weights: Weights) -> Result<Loaded> {
    let origin = layout.origin.clone();
    let kind = match layout.form {
        Form::OpenClip => "clip",
        Form::Transformers | Form::Torchvision | Form::Gguf(_) => {
            match layout.config.get("model_type").and_then(Value::as_str) {
                Some(kind) => kind,
                None => {
                    return config::refuse(
                        &origin,
                        "`model_type` is missing: the config of a transformers checkpoint names it",
                    );
                }
            }
        }
    };
    let (model, context) = match kind {
        "clip" => {
            let config = match layout.form {
                Form::OpenClip => open_clip::parse(&layout.config, weights.has("logit_bias"), &origin)?,
                _ => ClipConfig::parse(&layout.config, &origin)?,
            };
            let context = config.text_config.max_position_embeddings;
            let model = Model::Clip(Clip::load(&weights, &config, &origin)?);
            (model, Some(context))
        }
        "siglip" | "siglip2" => {
            let config = SiglipConfig::parse(&layout.config, &origin)?;
            let context = config.text_config.max_position_embeddings;
            (Model::Siglip(Siglip::load(&weights, &config, &origin)?), Some(context))
        }
        "vit" => {
            let config: VitConfig = config::parse(&origin, &layout.config)?;
            (Model::Vit(Vit::load(&weights, &config, &origin)?), None)
        }
        "resnet" => {
            let config: ResNetConfig = config::parse(&origin, &layout.config)?;
            (Model::ResNet(ResNet::load(&weights, &config, &origin)?), None)
        }
        "bert" => {
            let config: BertConfig = config::parse(&origin, &layout.config)?;
            let context = config.max_position_embeddings.min(longest_sentence(folder)?);
            let model = Bert::load(&weights, &config, pooling(folder)?, &origin)?;
            (Model::Bert(model), Some(context))
        }
        "gpt2" => {
            let config: Gpt2Config = config::parse(&origin, &layout.config)?;
            (Model::Gpt2(Gpt2::load(&weights, &config, &origin)?), None)
        }
        "llama" | "mistral" | "qwen2" => {
            let model = Llama::load(&weights, &language::decoder_config(&layout.config, &origin)?, &origin)?;
            let model = match kind {
                "llama" => Model::Llama(model),
                "mistral" => Model::Mistral(model),
                _ => Model::Qwen2(model),
            };
            (model, None)
        }
        "llava" => (Model::Llava(llava::load(&weights, &layout.config, &origin)?), None),
        "idefics3" => (Model::Idefics3(idefics3::load(&weights, &layout.config, &origin)?), None),
        "smolvlm" => (Model::SmolVlm(idefics3::load(&weights, &layout.config, &origin)?), None),
        other => {
            return config::refuse(
                &origin,
                format!(
                    "`model_type` is `{other}`; known are clip, siglip, siglip2, vit, resnet, bert, gpt2, llama, mistral, qwen2, llava, idefics3, smolvlm"
                ),
            );
        }
    };
    let image = match model.pictures() {
        Some(_) => {
            let preparation = layout.preparation.as_ref();
            image_processor(folder, model.picture_size(), model.flexible(), preparation)?
        }
        None => match (&model, model.sees()) {
            (Model::Llava(_), Some(sees)) => image_processor(folder, Some(sees.side()), None, None)?,
            _ => None,
        },
    };
    let text = match context {
        Some(context) if TOKENIZERS.iter().any(|file| folder.has(file)) => {
            Some(TextProcessor::from_folder(folder, context)?)
        }
        _ => None,
    };
    let mut processor = Processor::new(folder.label(), image, text);
    let mut ends = Vec::new();
    if model.causal().is_some() {
        ends = ends_of(folder, &layout.config)?;
        if let Form::Gguf(file) = &layout.form {
            let (words, chat) = dari_data::text::gguf::words(folder, file)?;
            processor = processor.with_words(words, chat);
        } else if TOKENIZERS.iter().any(|file| folder.has(file)) {
            let words = Words::from_folder(folder)?;
            let chat = ChatTemplate::from_folder(folder, words.roles())?;
            processor = processor.with_words(words, chat);
        }
    }
    let mut placeholder = None;
    if let Some(sees) = model.sees() {
        let id = ["image_token_id", "image_token_index"]
            .into_iter()
            .find_map(|key| layout.config.get(key)?.as_u64());
        placeholder = Some(id.and_then(|id| u32::try_from(id).ok()).unwrap_or(32000));
        let cuts = matches!(model, Model::Idefics3(_) | Model::SmolVlm(_));
        processor = processor.with_sights(sights(folder, sees, cuts)?);
    }
    let context = context.or(model.causal().map(CausalLm::context));
    let unused = unused(&weights);
    Ok(Loaded {
        processor: Arc::new(processor),
        placeholder,
        ends,
        model,
        weights,
        config: layout.config,
        context,
        unused,
        stale: None,
    })
}

/// The files by any of which a tokenizer is known.
const TOKENIZERS: [&str; 4] = ["tokenizer.json", "vocab.json", "vocab.txt", "spiece.model"];

/// How pictures stand among the words. Of the two files that say it older folders have both: one for the
/// words, one for the pictures.
fn sights(folder: &Folder, sees: &dyn SeeAndSay, cuts: bool) -> Result<Sights> {
    let (mut token, mut tiles) = (None, None);
    for file in ["processor_config.json", "preprocessor_config.json"] {
        let Some(said) = folder.json(file)? else { continue };
        token = token.or_else(|| Some(said.get("image_token")?.as_str()?.to_owned()));
        tiles = match tiles {
            None => TileProcessor::from_config(&said)?,
            found => found,
        };
    }
    match tiles.as_ref().map(TileProcessor::side) {
        Some(side) if side != sees.side() => config::refuse(
            &folder.label(),
            format!("tiles are {side} pixels a side, but the tower takes {}", sees.side()),
        ),
        None if cuts => config::refuse(
            &folder.label(),
            "neither processor_config.json nor preprocessor_config.json says how pictures are cut: expected \
             an Idefics3ImageProcessor or a SmolVLMImageProcessor",
        ),
        _ => Ok(Sights { token: token.unwrap_or_else(|| "<image>".into()), queries: sees.queries(), tiles }),
    }
}

/// The tokens that end an answer: those of generation_config.json, or else the config's.
fn ends_of(folder: &Folder, config: &Value) -> Result<Vec<u32>> {
    let generation = folder.json("generation_config.json")?.unwrap_or_default();
    let text = config.get("text_config").and_then(|text| text.get("eos_token_id"));
    let said = [generation.get("eos_token_id"), config.get("eos_token_id"), text];
    let said = said.into_iter().flatten().find(|value| !value.is_null());
    let one = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    Ok(match said {
        Some(Value::Array(list)) => list.iter().filter_map(one).collect(),
        Some(value) => one(value).into_iter().collect(),
        None => Vec::new(),
    })
}

/// sentence-transformers cuts texts before the model's positions end.
fn longest_sentence(folder: &Folder) -> Result<usize> {
    let config = folder.json("sentence_bert_config.json")?.unwrap_or_default();
    let tokens = config.get("max_seq_length").and_then(Value::as_u64);
    Ok(tokens.map_or(usize::MAX, |tokens| tokens.max(2) as usize))
}

/// The image processor by whichever file describes it.
fn image_processor(
    folder: &Folder,
    size: Option<usize>,
    flexible: Option<usize>,
    assumed: Option<&Value>,
) -> Result<Option<ImageProcessor>> {
    let mut said = None;
    for file in ["preprocessor_config.json", "processor_config.json", "open_clip_config.json", "config.json"]
    {
        let config = folder.json(file)?;
        // Of those in config.json, timm's alone says how pictures are prepared.
        let config = config.filter(|config| file != "config.json" || config.get("pretrained_cfg").is_some());
        if let Some(config) = config {
            said = Some((format!("{}/{file}", folder.label()), config));
            break;
        }
    }
    let Some((origin, config)) = said.or_else(|| Some((folder.label(), assumed?.clone()))) else {
        return Ok(None);
    };
    let processor = ImageProcessor::from_config(&config)
        .map_err(|error| Error::Config { origin: origin.clone(), problem: error.to_string() })?;
    let patch = processor.patches().map(|(patch, _)| patch);
    if patch != flexible {
        let say = |patch: Option<usize>| {
            patch.map_or("one size".to_owned(), |patch| format!("any shape in patches of {patch}"))
        };
        let (makes, asks) = (say(patch), say(flexible));
        let problem = format!("it makes pictures of {makes}, but the model's config asks for {asks}");
        return config::refuse(&origin, problem);
    }
    let (height, width) = processor.size();
    if let Some(size) = size
        && (height, width) != (size, size)
    {
        let problem =
            format!("it makes pictures of {width} x {height}, but the model's config says {size} x {size}");
        return config::refuse(&origin, problem);
    }
    Ok(Some(processor))
}

/// Refuses sentence-transformers' modules that would change the vectors unseen.
fn check_modules(folder: &Folder) -> Result<()> {
    const FILE: &str = "modules.json";
    let modules = folder.json(FILE)?.unwrap_or_default();
    let kinds = modules.as_array().into_iter().flatten().filter_map(|module| module.get("type")?.as_str());
    for kind in kinds {
        let name = kind.rsplit('.').next().unwrap_or(kind);
        if !["Transformer", "Pooling", "Normalize"].contains(&name) {
            let origin = format!("{}/{FILE}", folder.label());
            return config::refuse(
                &origin,
                format!("a module of type `{kind}`; Transformer, Pooling and Normalize are known"),
            );
        }
    }
    Ok(())
}

/// sentence-transformers' pooling file; the mean where there is none.
fn pooling(folder: &Folder) -> Result<Pooling> {
    const FILE: &str = "1_Pooling/config.json";
    check_modules(folder)?;
    let Some(config) = folder.json(FILE)? else {
        return Ok(Pooling::Mean);
    };
    let origin = format!("{}/{FILE}", folder.label());
    let is_on =
        |(name, on): &(&String, &Value)| name.starts_with("pooling_mode_") && **on == Value::Bool(true);
    let all: Vec<&String> =
        config.as_object().into_iter().flatten().filter(is_on).map(|(name, _)| name).collect();
    if all.len() > 1 {
        return config::refuse(
            &origin,
            format!("{all:?} together; mean or class-token pooling alone is known"),
        );
    }
    let on = |field: &str| config.get(field).and_then(Value::as_bool) == Some(true);
    let mode = config.get("pooling_mode").and_then(Value::as_str);
    match (mode, on("pooling_mode_cls_token"), on("pooling_mode_mean_tokens")) {
        (Some("cls"), ..) | (None, true, false) => Ok(Pooling::Class),
        (Some("mean"), ..) | (None, false, true) => Ok(Pooling::Mean),
        _ => config::refuse(&origin, "only mean or class-token pooling is known"),
    }
}

/// Names that no model needs: positions counted up, kept by older versions of transformers.
fn unused(weights: &Weights) -> Vec<String> {
    let mut names = weights.unused();
    const QUIET: [&str; 4] =
        ["position_ids", "attn_mask", "cls.predictions.decoder.weight", "num_batches_tracked"];
    names.retain(|name| {
        let quiet = QUIET.iter().any(|end| name.ends_with(end));
        // BERT's next-sentence head, and its decoder's copy of the bias.
        !quiet && !name.starts_with("cls.seq_relationship") && name != "cls.predictions.decoder.bias"
    });
    names
}

/// A checkpoint whose norms carry their oldest names.
struct OldNorms(Checkpoint);

impl OldNorms {
    fn old(&self, name: &str) -> String {
        for (new, old) in [(".LayerNorm.weight", ".LayerNorm.gamma"), (".LayerNorm.bias", ".LayerNorm.beta")]
        {
            if let Some(stem) = name.strip_suffix(new) {
                return format!("{stem}{old}");
            }
        }
        name.to_owned()
    }
}

impl Source for OldNorms {
    fn names(&self) -> Vec<String> {
        Source::names(&self.0)
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        Source::shape(&self.0, &self.old(name))
    }

    fn tensor(&self, name: &str) -> Result<TensorView<'_>, dari_files::Error> {
        self.0.tensor(&self.old(name))
    }

    fn stored(&self, name: &str) -> String {
        self.old(name)
    }

    fn origin(&self, name: &str) -> String {
        Source::origin(&self.0, &self.old(name))
    }

    fn release(&self, name: &str) {
        self.0.release(&self.old(name));
    }
}
