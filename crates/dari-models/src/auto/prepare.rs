//! What a folder's files say of preparing pictures and texts.

use dari_data::image::{ImageProcessor, TileProcessor};
use dari_files::Folder;
use dari_nn::Weights;
use serde_json::Value;

use crate::capability::SeeAndSay;
use crate::language::bert::Pooling;
use crate::processor::Sights;
use crate::{Error, Result, config};

/// The files by any of which a tokenizer is known.
pub(super) const TOKENIZERS: [&str; 4] = ["tokenizer.json", "vocab.json", "vocab.txt", "spiece.model"];

/// How pictures stand among the words. Of the two files that say it older folders have both: one for the
/// words, one for the pictures.
pub(super) fn sights(folder: &Folder, sees: &dyn SeeAndSay, cuts: bool) -> Result<Sights> {
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
        _ => Ok(Sights {
            token: token.unwrap_or_else(|| "<image>".into()),
            queries: sees.queries(),
            tiles,
            is_inline: false,
        }),
    }
}

/// The tokens that end an answer: those of generation_config.json, or else the config's.
pub(super) fn ends_of(folder: &Folder, config: &Value) -> Result<Vec<u32>> {
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
pub(super) fn longest_sentence(folder: &Folder) -> Result<usize> {
    let config = folder.json("sentence_bert_config.json")?.unwrap_or_default();
    let tokens = config.get("max_seq_length").and_then(Value::as_u64);
    Ok(tokens.map_or(usize::MAX, |tokens| tokens.max(2) as usize))
}

/// The image processor by whichever file describes it.
pub(super) fn image_processor(
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
pub(super) fn pooling(folder: &Folder) -> Result<Pooling> {
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
pub(super) fn unused(weights: &Weights) -> Vec<String> {
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
