//! Which files a folder has, and by which names they hold a model's tensors.

use std::sync::Arc;

use dari_files::gguf::Gguf;
use dari_files::{Checkpoint, Folder, TensorView};
use dari_nn::weight::Blocks;
use dari_nn::weights::Source;
use serde_json::Value;

use crate::contrastive::open_clip::OpenClip;
use crate::encoder::resnet::{self, Torchvision};
use crate::generative::composed::{self, LANGUAGE, VISION};
use crate::language::gguf::{self, Renamed};
use crate::language::gpt2::Conv1d;
use crate::{Result, config};

/// Which config file a folder has, and what it says.
pub(super) struct Layout {
    /// The config's file, for errors.
    pub origin: String,
    pub config: Value,
    pub form: Form,
    /// How pictures are prepared, where no file of the folder says so.
    pub preparation: Option<Value>,
}

/// Whose tensor names a folder has.
pub(super) enum Form {
    Transformers,
    OpenClip,
    /// timm's, too.
    Torchvision,
    /// llama.cpp's.
    Gguf(Arc<Gguf>),
    /// Two other folders, and a bridge.
    Composed(Box<Parts>),
}

/// The folders that a composed one holds.
pub(super) struct Parts {
    pub vision: Part,
    pub language: Part,
}

/// A folder within another.
pub(super) struct Part {
    pub folder: Folder,
    pub layout: Layout,
}

impl Part {
    /// Both of it.
    pub fn parts(&self) -> (&Folder, &Layout) {
        (&self.folder, &self.layout)
    }

    fn read(of: &Folder, name: &str) -> Result<Part> {
        let Some(folder) = of.below(name)? else {
            return config::refuse(
                &of.label(),
                format!("no folder `{name}`: a composed model holds its parts"),
            );
        };
        let layout = Layout::read(&folder)?;
        match layout.form {
            Form::Composed(_) => config::refuse(&folder.label(), "a composed model within another"),
            _ => Ok(Part { folder, layout }),
        }
    }
}

impl Layout {
    pub fn read(folder: &Folder) -> Result<Layout> {
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
            Some(config) if config.get("model_type").and_then(Value::as_str) == Some(composed::KIND) => {
                let (vision, language) = (Part::read(folder, VISION)?, Part::read(folder, LANGUAGE)?);
                let form = Form::Composed(Box::new(Parts { vision, language }));
                Ok(Layout { origin: place("config.json"), config, form, preparation: None })
            }
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

    pub fn source(&self, folder: &Folder) -> Result<Box<dyn Source>> {
        let checkpoint = match &self.form {
            Form::Gguf(file) => return Ok(Box::new(Renamed(file.clone()))),
            Form::OpenClip => return Ok(Box::new(OpenClip::new(folder.weights()?))),
            Form::Torchvision => return Ok(Box::new(Torchvision::new(folder.weights()?))),
            Form::Composed(parts) => {
                let mut all = Vec::new();
                for (prefix, Part { folder, layout }) in
                    [(VISION, &parts.vision), (LANGUAGE, &parts.language)]
                {
                    if layout.has_weights(folder) {
                        all.push((prefix, layout.source(folder)?));
                    }
                }
                if folder.has_weights() {
                    all.push(("", Box::new(folder.weights()?) as Box<dyn Source>));
                }
                return Ok(Box::new(Joined(all)));
            }
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

    /// Whether the folder has weights; one that is to be trained anew has none.
    pub fn has_weights(&self, folder: &Folder) -> bool {
        matches!(self.form, Form::Gguf(_)) || folder.has_weights()
    }

    /// The kind of model.
    pub fn kind(&self) -> Result<&str> {
        match self.form {
            Form::OpenClip => Ok("clip"),
            Form::Composed(_) => Ok(composed::KIND),
            Form::Transformers | Form::Torchvision | Form::Gguf(_) => {
                match self.config.get("model_type").and_then(Value::as_str) {
                    Some(kind) => Ok(kind),
                    None => config::refuse(
                        &self.origin,
                        "`model_type` is missing: the config of a transformers checkpoint names it",
                    ),
                }
            }
        }
    }
}

/// Several sources, each below a name of its own; what lies below none of them is the last one's, where its name
/// is empty.
struct Joined(Vec<(&'static str, Box<dyn Source>)>);

impl Joined {
    fn find<'a>(&self, name: &'a str) -> Option<(&'static str, &dyn Source, &'a str)> {
        self.0.iter().find_map(|(prefix, source)| {
            let rest = match *prefix {
                "" => name,
                prefix => name.strip_prefix(prefix)?.strip_prefix('.')?,
            };
            Some((*prefix, source.as_ref(), rest))
        })
    }

    fn full(prefix: &str, name: &str) -> String {
        if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") }
    }
}

impl Source for Joined {
    fn names(&self) -> Vec<String> {
        let own = |(prefix, source): &(&str, Box<dyn Source>)| -> Vec<String> {
            source.names().into_iter().map(|name| Joined::full(prefix, &name)).collect()
        };
        self.0.iter().flat_map(own).collect()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        let (_, source, rest) = self.find(name)?;
        source.shape(rest)
    }

    fn tensor(&self, name: &str) -> Result<TensorView<'_>, dari_files::Error> {
        match self.find(name) {
            Some((_, source, rest)) => source.tensor(rest),
            None => Err(dari_files::Error::NoWeights {
                folder: "the composed model".into(),
                looked_for: name.to_owned(),
            }),
        }
    }

    fn stored(&self, name: &str) -> String {
        self.find(name).map_or_else(
            || name.to_owned(),
            |(prefix, source, rest)| Joined::full(prefix, &source.stored(rest)),
        )
    }

    fn origin(&self, name: &str) -> String {
        self.find(name).map_or_else(|| "the composed model".into(), |(_, source, rest)| source.origin(rest))
    }

    fn blocks(&self, name: &str) -> Option<(Blocks, &[u8])> {
        let (_, source, rest) = self.find(name)?;
        source.blocks(rest)
    }

    fn release(&self, name: &str) {
        if let Some((_, source, rest)) = self.find(name) {
            source.release(rest);
        }
    }
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
