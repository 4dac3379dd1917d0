//! From a model folder to a model: the only place that lists them all.

mod layout;
mod prepare;

use std::path::PathBuf;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use dari_data::image::ImageProcessor;
use dari_data::text::{ChatTemplate, TextProcessor, Words};
use dari_files::{Checkpoint, Folder};
use dari_nn::{Precision, Training, Weights};
use serde_json::Value;

use self::layout::{Form, Layout};
use self::prepare::{TOKENIZERS, ends_of, image_processor, longest_sentence, pooling, sights, unused};
use crate::capability::{
    CausalLm, ClassifyPictures, Contrastive, EmbedPictures, EmbedTexts, FillMask, Look, SeeAndSay,
};
use crate::contrastive::clip::{Clip, ClipConfig};
use crate::contrastive::open_clip;
use crate::contrastive::siglip::{Siglip, SiglipConfig};
use crate::encoder::VisionTower;
use crate::encoder::resnet::{ResNet, ResNetConfig};
use crate::encoder::vit::{Vit, VitConfig};
use crate::generative::composed::{self, ComposedConfig, LANGUAGE, VISION};
use crate::generative::{VisionLanguage, idefics3, llava};
use crate::language;
use crate::language::bert::{Bert, BertConfig};
use crate::language::gpt2::{Conv1d, Gpt2, Gpt2Config};
use crate::language::llama::Llama;
use crate::packed::{self, Ready};
use crate::processor::Sights;
use crate::{Processor, Result, adapter, config};

pub use crate::config::set_labels;

/// Any model that Dari knows.
#[allow(missing_docs)]
pub enum Model {
    Clip(Clip),
    Siglip(Box<Siglip>),
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
    Composed(VisionLanguage),
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
            Model::Composed(_) => composed::KIND,
        }
    }

    /// Pictures and words in one space.
    pub fn contrastive(&self) -> Option<&dyn Contrastive> {
        match self {
            Model::Clip(model) => Some(model),
            Model::Siglip(model) => Some(model.as_ref()),
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
            Model::Llava(model) | Model::Idefics3(model) | Model::SmolVlm(model) | Model::Composed(model) => {
                Some(model)
            }
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
            Model::Siglip(model) => Some(model.as_ref()),
            Model::Vit(model) => Some(model),
            Model::ResNet(model) => Some(model),
            _ => None,
        }
    }

    /// Where in a picture something is.
    pub fn look(&self) -> Option<&dyn Look> {
        match self {
            Model::Clip(model) => Some(model),
            Model::Siglip(model) => Some(model.as_ref()),
            _ => None,
        }
    }

    /// Texts to vectors.
    pub fn texts(&self) -> Option<&dyn EmbedTexts> {
        match self {
            Model::Clip(model) => Some(model),
            Model::Siglip(model) => Some(model.as_ref()),
            Model::Bert(model) => Some(model),
            _ => None,
        }
    }

    /// Its vision tower by itself, for a bridge.
    fn into_tower(self) -> Option<Box<dyn VisionTower>> {
        match self {
            Model::Clip(model) => Some(model.into_tower()),
            Model::Siglip(model) if model.vision().size().is_some() => Some(Box::new(model.into_vision())),
            Model::Vit(model) => Some(Box::new(model)),
            Model::ResNet(model) => Some(Box::new(model)),
            _ => None,
        }
    }

    /// The same of a language model.
    fn into_causal(self) -> Option<Box<dyn CausalLm>> {
        match self {
            Model::Gpt2(model) => Some(Box::new(model)),
            Model::Llama(model) | Model::Mistral(model) | Model::Qwen2(model) => Some(Box::new(model)),
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
    /// Of a GPT-2: what the names of its weights begin with. Its files have some of them turned.
    gpt2: Option<&'static str>,
    /// Packed weights that were passed over: of another version, or of weights that were replaced.
    pub stale: Option<PathBuf>,
}

impl Loaded {
    /// A tensor of the model as its file has it.
    pub fn as_stored(&self, name: &str, tensor: Tensor) -> Result<Tensor> {
        let own = self.gpt2.is_some_and(|prefix| name.starts_with(prefix));
        Ok(match own && Conv1d::is_turned(name) {
            true => tensor.t()?.contiguous()?,
            false => tensor,
        })
    }
}

/// Loads a folder for inference, its weights packed before where they lie so, with its adapter where it has one.
pub fn load(folder: &Folder, device: &Device, precision: Precision) -> Result<Loaded> {
    let ready = if device.is_cpu() { packed::find(folder, precision) } else { Ready::Absent };
    let (ready, stale) = match ready {
        Ready::Usable(file) => (Some(file), None),
        Ready::Stale(path) => (None, Some(path)),
        Ready::Absent => (None, None),
    };
    Ok(Loaded { stale, ..load_with(folder, device, precision, ready)? })
}

/// Loads a folder for inference from its own weights.
pub fn load_plain(folder: &Folder, device: &Device, precision: Precision) -> Result<Loaded> {
    load_with(folder, device, precision, None)
}

fn load_with(
    folder: &Folder,
    device: &Device,
    precision: Precision,
    ready: Option<Arc<Checkpoint>>,
) -> Result<Loaded> {
    let adapter = adapter::read(folder.adapter().unwrap_or(folder))?;
    let layout = Layout::read(folder)?;
    let source = layout.source(folder)?;
    let Some(adapter) = adapter else {
        return build(folder, layout, Weights::read(source, device, precision, ready));
    };
    let loaded = build(folder, layout, Weights::read_adapted(source, device, precision, adapter.adapters))?;
    match loaded.weights.unused_adapters().first() {
        Some(name) => {
            config::refuse(&adapter.origin, format!("`{name}` belongs to no layer of {}", folder.label()))
        }
        None => Ok(loaded),
    }
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

fn as_variables(folder: &Folder, layout: Layout, device: &Device, mut training: Training) -> Result<Loaded> {
    if let Form::Composed(parts) = &layout.form {
        // What has no weights yet is drawn.
        let mut drawn = Vec::new();
        if !folder.has_weights() {
            drawn.push(format!("{}.", composed::BRIDGE));
        }
        for (prefix, part) in [(VISION, &parts.vision), (LANGUAGE, &parts.language)] {
            if !part.layout.has_weights(&part.folder) {
                drawn.push(format!("{prefix}."));
            }
        }
        training.fresh = Box::new(move |name| drawn.iter().any(|prefix| name.starts_with(prefix.as_str())));
    }
    let source = layout.source(folder)?;
    build(folder, layout, Weights::train(Some(source), device, training))
}

/// Whether a `config.json` is that of a model that names classes of its own.
pub fn is_classifier(config: &Value) -> bool {
    matches!(config.get("model_type").and_then(Value::as_str), Some("vit" | "resnet"))
}

/// Whether a model of this kind writes texts.
pub fn speaks(kind: &str) -> bool {
    ["gpt2", "llama", "mistral", "qwen2", "llava", "idefics3", "smolvlm", composed::KIND].contains(&kind)
}

/// The same of a folder.
pub fn holds_speaker(folder: &Folder) -> Result<bool> {
    Ok(speaks(Layout::read(folder)?.kind()?))
}

/// Whether a folder, in any layout, holds a model that names classes of its own.
pub fn holds_classifier(folder: &Folder) -> Result<bool> {
    Ok(is_classifier(&Layout::read(folder)?.config))
}

/// Draws a new model of a folder's configuration, which needs no weights.
pub fn create(folder: &Folder, device: &Device, training: Training) -> Result<Loaded> {
    let layout = Layout::read(folder)?;
    build(folder, layout, Weights::train(None, device, training))
}

/// The model alone, and most tokens of a text where it reads such without writing them.
fn model(folder: &Folder, layout: &Layout, weights: &Weights) -> Result<(Model, Option<usize>)> {
    let (origin, config) = (&layout.origin, &layout.config);
    Ok(match layout.kind()? {
        "clip" => {
            let config = match layout.form {
                Form::OpenClip => open_clip::parse(config, weights.has("logit_bias"), origin)?,
                _ => ClipConfig::parse(config, origin)?,
            };
            let context = config.text_config.max_position_embeddings;
            let model = Model::Clip(Clip::load(weights, &config, origin)?);
            (model, Some(context))
        }
        "siglip" | "siglip2" => {
            let config = SiglipConfig::parse(config, origin)?;
            let context = config.text_config.max_position_embeddings;
            (Model::Siglip(Box::new(Siglip::load(weights, &config, origin)?)), Some(context))
        }
        "vit" => {
            let config: VitConfig = config::parse(origin, config)?;
            (Model::Vit(Vit::load(weights, &config, origin)?), None)
        }
        "resnet" => {
            let config: ResNetConfig = config::parse(origin, config)?;
            (Model::ResNet(ResNet::load(weights, &config, origin)?), None)
        }
        "bert" => {
            let config: BertConfig = config::parse(origin, config)?;
            let context = config.max_position_embeddings.min(longest_sentence(folder)?);
            let model = Bert::load(weights, &config, pooling(folder)?, origin)?;
            (Model::Bert(model), Some(context))
        }
        "gpt2" => {
            let config: Gpt2Config = config::parse(origin, config)?;
            (Model::Gpt2(Gpt2::load(weights, &config, origin)?), None)
        }
        kind @ ("llama" | "mistral" | "qwen2") => {
            let model = Llama::load(weights, &language::decoder_config(config, origin)?, origin)?;
            let model = match kind {
                "llama" => Model::Llama(model),
                "mistral" => Model::Mistral(model),
                _ => Model::Qwen2(model),
            };
            (model, None)
        }
        composed::KIND => (Model::Composed(compose(layout, weights)?), None),
        "llava" => (Model::Llava(llava::load(weights, config, origin)?), None),
        "idefics3" => (Model::Idefics3(idefics3::load(weights, config, origin)?), None),
        "smolvlm" => (Model::SmolVlm(idefics3::load(weights, config, origin)?), None),
        other => {
            return config::refuse(
                origin,
                format!(
                    "`model_type` is `{other}`; known are clip, siglip, siglip2, vit, resnet, bert, gpt2, llama, mistral, qwen2, llava, idefics3, smolvlm, composed"
                ),
            );
        }
    })
}

/// Any encoder, any bridge, any language model.
fn compose(layout: &Layout, weights: &Weights) -> Result<VisionLanguage> {
    let origin = &layout.origin;
    let Form::Composed(parts) = &layout.form else {
        return config::refuse(origin, "a composed model's parts are not there");
    };
    let said = ComposedConfig::parse(&layout.config, origin)?;
    let (vision, _) = model(&parts.vision.folder, &parts.vision.layout, &weights.pp(VISION))?;
    let (language, _) = model(&parts.language.folder, &parts.language.layout, &weights.pp(LANGUAGE))?;
    let (seen, spoken) = (vision.kind(), language.kind());
    let preparation = parts.vision.layout.preparation.as_ref();
    let image = image_processor(&parts.vision.folder, vision.picture_size(), vision.flexible(), preparation)?;
    let Some(tower) = vision.into_tower() else {
        let problem = format!(
            "`{seen}` is no encoder for a bridge; known are clip, siglip and siglip2 of one size, vit, resnet"
        );
        return config::refuse(&parts.vision.folder.label(), problem);
    };
    let Some(language) = language.into_causal() else {
        let problem = format!("`{spoken}` writes no texts; known are gpt2, llama, mistral, qwen2");
        return config::refuse(&parts.language.folder.label(), problem);
    };
    let side = match image.map(|image| image.size()) {
        Some((height, width)) if height == width => height,
        found => {
            let problem = format!("pictures of {found:?} are prepared for it, expected squares");
            return config::refuse(&parts.vision.folder.label(), problem);
        }
    };
    composed::load(weights, &said, tower, side, language, origin)
}

fn build(folder: &Folder, layout: Layout, weights: Weights) -> Result<Loaded> {
    let (model, context) = model(folder, &layout, &weights)?;
    // A composed model's sides are prepared as their own folders say.
    let own = (folder, &layout);
    let (pictures, texts) = match &layout.form {
        Form::Composed(parts) => (parts.vision.parts(), parts.language.parts()),
        _ => (own, own),
    };
    let image = prepared_pictures(&model, pictures)?;
    let text = match context {
        Some(context) if TOKENIZERS.iter().any(|file| folder.has(file)) => {
            Some(TextProcessor::from_folder(folder, context)?)
        }
        _ => None,
    };
    let mut processor = Processor::new(folder.label(), image, text);
    let (mut ends, mut placeholder) = (Vec::new(), None);
    if model.causal().is_some() {
        ends = ends_of(texts.0, &texts.1.config)?;
        if let Some((mut words, mut chat)) = spoken_words(texts)? {
            if let Form::Composed(_) = layout.form {
                let said = ComposedConfig::parse(&layout.config, &layout.origin)?;
                placeholder = Some(words.add_special(&said.image_token)?);
                chat = ChatTemplate::from_folder(folder, words.roles())?.or(chat);
            }
            processor = processor.with_words(words, chat);
        }
    }
    if let Some(sees) = model.sees() {
        let id = ["image_token_id", "image_token_index"]
            .into_iter()
            .find_map(|key| layout.config.get(key)?.as_u64());
        placeholder = placeholder.or(Some(id.and_then(|id| u32::try_from(id).ok()).unwrap_or(32000)));
        processor = processor.with_sights(match &model {
            Model::Composed(_) => {
                let token = ComposedConfig::parse(&layout.config, &layout.origin)?.image_token;
                Sights { token, queries: sees.queries(), tiles: None, is_inline: true }
            }
            _ => sights(folder, sees, matches!(model, Model::Idefics3(_) | Model::SmolVlm(_)))?,
        });
    }
    let context = context.or(model.causal().map(CausalLm::context));
    let unused = unused(&weights);
    let gpt2 = match (&layout.form, texts.1.kind()) {
        (Form::Composed(parts), Ok("gpt2")) if parts.language.folder.gguf().is_none() => Some("language."),
        (Form::Transformers, Ok("gpt2")) => Some(""),
        _ => None,
    };
    Ok(Loaded {
        processor: Arc::new(processor),
        placeholder,
        ends,
        model,
        weights,
        config: layout.config,
        context,
        unused,
        gpt2,
        stale: None,
    })
}

/// How a model's pictures are prepared, where it takes any.
fn prepared_pictures(model: &Model, (folder, layout): (&Folder, &Layout)) -> Result<Option<ImageProcessor>> {
    let preparation = layout.preparation.as_ref();
    match (model, model.sees()) {
        (Model::Llava(_), Some(sees)) => image_processor(folder, Some(sees.side()), None, None),
        (Model::Composed(_), Some(sees)) => image_processor(folder, Some(sees.side()), None, preparation),
        _ if model.pictures().is_some() => {
            image_processor(folder, model.picture_size(), model.flexible(), preparation)
        }
        _ => Ok(None),
    }
}

/// A language model's tokenizer and chat template, where its folder has a tokenizer.
fn spoken_words((folder, layout): (&Folder, &Layout)) -> Result<Option<(Words, Option<ChatTemplate>)>> {
    if let Form::Gguf(file) = &layout.form {
        return Ok(Some(dari_data::text::gguf::words(folder, file)?));
    }
    if !TOKENIZERS.iter().any(|file| folder.has(file)) {
        return Ok(None);
    }
    let words = Words::from_folder(folder)?;
    let chat = ChatTemplate::from_folder(folder, words.roles())?;
    Ok(Some((words, chat)))
}
