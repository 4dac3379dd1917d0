//! What the files beside a tokenizer say about texts: `tokenizer_config.json`,
//! `special_tokens_map.json`, `config.json` and `open_clip_config.json`.

use dari_files::Folder;
use serde_json::Value;

use super::clean::Cleaning;
use super::error::Error;

/// The library whose way with texts is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reference {
    /// transformers: `AutoTokenizer` of the folder.
    Transformers,
    /// open_clip: `open_clip.get_tokenizer` of the folder.
    OpenClip,
}

/// Tokenizers that are more than their `tokenizer.json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Clip,
    Siglip,
    Siglip2,
    Bert,
    Other,
}

/// How open_clip's wrapper around a Hugging Face tokenizer differs from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrapped {
    pub cleaning: Cleaning,
    /// Separators become 0.
    pub strip_separator: bool,
    /// The class token goes last, behind the padding.
    pub class_last: bool,
}

/// What open_clip does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum OpenClip {
    /// Its own CLIP tokenizer.
    Simple(Cleaning),
    /// A Hugging Face tokenizer.
    Wrapped(Wrapped),
}

/// A special token as the files write it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SpecialToken {
    pub content: String,
    /// The whole entry of an added token, where one is written.
    pub flags: Option<Value>,
}

pub(super) struct Settings {
    pub family: Family,
    pub open_clip: Option<OpenClip>,
    /// Positions, if the files limit them further than the model does.
    pub limit: Option<usize>,
    /// The model pads to its context (CLIP, SigLIP).
    pub pad_to_context: bool,
    config: Value,
    special: Value,
}

const CONFIG: &str = "tokenizer_config.json";
const SPECIAL: &str = "special_tokens_map.json";

impl Settings {
    pub fn read(folder: &Folder, reference: Option<Reference>) -> Result<Settings, Error> {
        let config = object(folder, CONFIG)?;
        let special = object(folder, SPECIAL)?;
        let model = object(folder, "config.json")?;
        let open_clip = object(folder, "open_clip_config.json")?;

        let model_type = model.get("model_type").and_then(Value::as_str).unwrap_or_default();
        let family = family(folder, &config, model_type);
        // A folder with both serves both; its config.json is transformers'.
        let reference = reference.unwrap_or(if !open_clip.is_null() && model_type.is_empty() {
            Reference::OpenClip
        } else {
            Reference::Transformers
        });
        let text = open_clip.pointer("/model_cfg/text_cfg").unwrap_or(&Value::Null);
        let context = |value: &Value| value.as_u64().and_then(|n| usize::try_from(n).ok());
        let (open_clip, limit) = match reference {
            Reference::Transformers => (None, config.get("model_max_length").and_then(context)),
            Reference::OpenClip => (
                Some(read_open_clip(folder, text)?),
                Some(text.get("context_length").and_then(context).unwrap_or(77)),
            ),
        };
        let pad_to_context = matches!(family, Family::Clip | Family::Siglip | Family::Siglip2)
            || matches!(model_type, "clip" | "clip_text_model" | "siglip" | "siglip_text_model")
            || open_clip.is_some();
        Ok(Settings { family, open_clip, limit, pad_to_context, config, special })
    }

    /// A special token by its role, such as `pad_token`.
    pub fn token(&self, role: &str) -> Option<SpecialToken> {
        [&self.config, &self.special].into_iter().find_map(|file| match file.get(role)? {
            Value::String(content) => Some(SpecialToken { content: content.clone(), flags: None }),
            entry => {
                let content = entry.get("content")?.as_str()?.to_owned();
                Some(SpecialToken { content, flags: Some(entry.clone()) })
            }
        })
    }

    /// An option that is true, false or not written.
    pub fn flag(&self, name: &str) -> Option<bool> {
        self.config.get(name).and_then(Value::as_bool)
    }

    /// `left` or `right`.
    pub fn side(&self, name: &str) -> Option<&str> {
        self.config.get(name).and_then(Value::as_str)
    }
}

/// The JSON object in the file, null if there is no such file.
fn object(folder: &Folder, file: &'static str) -> Result<Value, Error> {
    match folder.json(file)? {
        None => Ok(Value::Null),
        Some(value) if value.is_object() => Ok(value),
        Some(_) => Err(Error::Invalid {
            folder: folder.label(),
            file,
            problem: "no JSON object; expected {\"option\": value, ...}".into(),
        }),
    }
}

/// The tokenizer's class decides, then the kind of model, then the files that are there.
fn family(folder: &Folder, config: &Value, model_type: &str) -> Family {
    let class = config.get("tokenizer_class").and_then(Value::as_str).unwrap_or_default();
    match class.strip_suffix("Fast").unwrap_or(class) {
        // transformers knows that checkpoints of this kind name the wrong class.
        _ if matches!(model_type, "siglip2" | "siglip2_text_model") => Family::Siglip2,
        "CLIPTokenizer" => Family::Clip,
        "SiglipTokenizer" => Family::Siglip,
        "Siglip2Tokenizer" => Family::Siglip2,
        "BertTokenizer" | "DistilBertTokenizer" | "ElectraTokenizer" => Family::Bert,
        "" => match model_type {
            "clip" | "clip_text_model" => Family::Clip,
            "siglip" | "siglip_text_model" => Family::Siglip,
            "bert" | "distilbert" | "electra" => Family::Bert,
            _ if folder.has("merges.txt") => Family::Clip,
            _ if folder.has("vocab.txt") => Family::Bert,
            _ => Family::Other,
        },
        _ => Family::Other,
    }
}

fn read_open_clip(folder: &Folder, text: &Value) -> Result<OpenClip, Error> {
    let invalid =
        |problem: String| Error::Invalid { folder: folder.label(), file: "open_clip_config.json", problem };
    let wrapped = text.get("hf_tokenizer_name").and_then(Value::as_str).is_some_and(|name| !name.is_empty());
    let options = text.get("tokenizer_kwargs").unwrap_or(&Value::Null);
    if let Some(mask) = options.get("reduction_mask").and_then(Value::as_str).filter(|m| !m.is_empty()) {
        return Err(invalid(format!(
            "reduction_mask {mask:?} drops words at random; expected none: remove it to tokenize \
             whole texts"
        )));
    }
    let cleaning = match options.get("clean").and_then(Value::as_str) {
        Some(name) => Cleaning::from_name(name)
            .ok_or_else(|| invalid(format!("clean {name:?}; expected lower, whitespace or canonicalize")))?,
        None if wrapped => Cleaning::Whitespace,
        None => Cleaning::Lower,
    };
    if !wrapped {
        return Ok(OpenClip::Simple(cleaning));
    }
    let class_last = match text.get("tokenizer_mode").and_then(Value::as_str) {
        None | Some("") => false,
        Some("clips") => true,
        Some(mode) => {
            return Err(invalid(format!("tokenizer_mode {mode:?}; expected clips or none")));
        }
    };
    let strip_separator = options.get("strip_sep_token").and_then(Value::as_bool).unwrap_or(false);
    Ok(OpenClip::Wrapped(Wrapped { cleaning, strip_separator, class_last }))
}
