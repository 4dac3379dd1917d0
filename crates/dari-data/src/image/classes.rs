//! The image processor classes of transformers that are followed, and their defaults.

use serde_json::{Value, json};

use super::Error;
use super::config::{Fields, wrong};
use super::resize::Filter;

/// A class of transformers and what it assumes where its file is silent.
pub(super) struct Class {
    pub(super) name: &'static str,
    pub(super) filter: Filter,
    pub(super) mean: [f64; 3],
    pub(super) std: [f64; 3],
    pub(super) size: Size,
    /// Whether a bare number is a square's side; otherwise it is the shorter edge.
    pub(super) square: bool,
    pub(super) crop: Option<u32>,
    pub(super) convert: bool,
}

#[derive(Clone, Copy)]
pub(super) enum Size {
    Square(u32),
    Shortest(u32),
    Patches { patch: u32, most: u32 },
}

pub(super) const CLIP_MEAN: [f64; 3] = [0.48145466, 0.4578275, 0.40821073];
pub(super) const CLIP_STD: [f64; 3] = [0.26862954, 0.26130258, 0.27577711];
const HALF: [f64; 3] = [0.5; 3];
pub(super) const IMAGENET_MEAN: [f64; 3] = [0.485, 0.456, 0.406];
pub(super) const IMAGENET_STD: [f64; 3] = [0.229, 0.224, 0.225];

/// The classes whose pipeline is resize, centre crop, rescale, normalise, pad.
#[rustfmt::skip]
const CLASSES: [Class; 13] = [
    Class { name: "CLIPImageProcessor", filter: Filter::Bicubic, mean: CLIP_MEAN, std: CLIP_STD, size: Size::Shortest(224), square: false, crop: Some(224), convert: true },
    Class { name: "SiglipImageProcessor", filter: Filter::Bicubic, mean: HALF, std: HALF, size: Size::Square(224), square: false, crop: None, convert: true },
    Class { name: "ViTImageProcessor", filter: Filter::Bilinear, mean: HALF, std: HALF, size: Size::Square(224), square: true, crop: None, convert: false },
    Class { name: "BlipImageProcessor", filter: Filter::Bicubic, mean: CLIP_MEAN, std: CLIP_STD, size: Size::Square(384), square: true, crop: None, convert: true },
    Class { name: "DeiTImageProcessor", filter: Filter::Bicubic, mean: HALF, std: HALF, size: Size::Square(256), square: true, crop: Some(224), convert: false },
    Class { name: "BitImageProcessor", filter: Filter::Bicubic, mean: CLIP_MEAN, std: CLIP_STD, size: Size::Shortest(224), square: false, crop: Some(224), convert: true },
    Class { name: "ChineseCLIPImageProcessor", filter: Filter::Bicubic, mean: CLIP_MEAN, std: CLIP_STD, size: Size::Shortest(224), square: false, crop: Some(224), convert: true },
    Class { name: "PvtImageProcessor", filter: Filter::Bicubic, mean: IMAGENET_MEAN, std: IMAGENET_STD, size: Size::Square(224), square: true, crop: None, convert: false },
    Class { name: "MobileNetV1ImageProcessor", filter: Filter::Bilinear, mean: HALF, std: HALF, size: Size::Shortest(256), square: false, crop: Some(224), convert: false },
    Class { name: "VideoMAEImageProcessor", filter: Filter::Bilinear, mean: HALF, std: HALF, size: Size::Shortest(224), square: false, crop: Some(224), convert: false },
    Class { name: "LlavaImageProcessor", filter: Filter::Bicubic, mean: CLIP_MEAN, std: CLIP_STD, size: Size::Shortest(224), square: false, crop: Some(224), convert: true },
    Class { name: SIGLIP2, filter: Filter::Bilinear, mean: HALF, std: HALF, size: Size::Patches { patch: 16, most: 256 }, square: false, crop: None, convert: true },
    Class { name: CONVNEXT, filter: Filter::Bicubic, mean: HALF, std: HALF, size: Size::Shortest(384), square: false, crop: None, convert: false },
];

/// SigLIP 2's class for pictures of any shape.
pub(super) const SIGLIP2: &str = "Siglip2ImageProcessor";
/// ResNet's and ConvNeXT's class: its resize crops by itself.
pub(super) const CONVNEXT: &str = "ConvNextImageProcessor";
/// Its share of the picture that is kept.
pub(super) const CROP_PCT: f64 = 224.0 / 256.0;

/// The class a configuration names, or the one assumed where it names none.
pub(super) fn class_of(fields: &mut Fields, assumed: Option<&str>) -> Result<&'static Class, Error> {
    let image = fields.text("image_processor_type")?;
    let extractor = fields.text("feature_extractor_type")?;
    let Some(written) = image.or(extractor).or(assumed) else {
        return Err(wrong(
            "image_processor_type",
            &Value::Null,
            "the class of the processor; add it to the file, such as \"ViTImageProcessor\" for a ViT",
        ));
    };
    let stem = written
        .trim_end_matches("Pil")
        .trim_end_matches("Fast")
        .replace("FeatureExtractor", "ImageProcessor");
    CLASSES.iter().find(|class| class.name == stem).ok_or_else(|| {
        let names: Vec<&str> = CLASSES.iter().map(|class| class.name).collect();
        wrong("image_processor_type", &json!(written), &format!("one of {}", names.join(", ")))
    })
}
