//! [`ImageProcessor`]: from a [`Picture`] to a model's input, as its configuration says.
//!
//! References: the `…ImageProcessorPil` classes of transformers 5 (the classes without `Pil` resize by
//! torchvision there and give other pixels), and open_clip's and timm's inference transforms on PIL pictures.
//! open_clip resizes before it converts to RGB: for a palette or alpha picture, which Pillow resizes in
//! its own mode, the results differ; for RGB and grey pictures they are the same.

use serde_json::{Map, Value, json};

use super::classes::{
    CLIP_MEAN, CLIP_STD, CONVNEXT, CROP_PCT, IMAGENET_MEAN, IMAGENET_STD, SIGLIP2, Size, class_of,
};
use super::config::{Fields, side, wrong};
use super::pipeline::{self, Crop, CropRule, Scale, SizeRule};
use super::resize::Filter;
use super::{Error, Picture};

/// A picture made ready for a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Pixels {
    /// `[3, height, width]`.
    pub values: Vec<f32>,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

/// Preprocessing of pictures for one model.
#[derive(Debug, Clone)]
pub struct ImageProcessor {
    settings: Settings,
    resize: Option<(SizeRule, Filter)>,
    crop: Option<Crop>,
    table: Box<[[f32; 256]; 3]>,
    /// Height and width of the output, where it does not follow the picture's shape.
    output: (usize, usize),
}

/// What was asked for, kept to be written again.
#[derive(Debug, Clone)]
enum Settings {
    Transformers(Map<String, Value>),
    OpenClip(Map<String, Value>),
    Timm(Map<String, Value>),
}

const FOLLOWED: &str = "do_resize, size, patch_size, max_num_patches, default_to_square, resample, do_center_crop, crop_size, crop_pct, do_rescale, rescale_factor, do_normalize, image_mean, image_std, do_pad, pad_size";

impl ImageProcessor {
    /// A processor from a `preprocessor_config.json`, a `processor_config.json` that holds one under
    /// `image_processor`, an `open_clip_config.json`, or timm's `config.json` with its `pretrained_cfg`.
    ///
    /// # Errors
    /// [`Error::Config`] naming the field: a class or field that is not followed, a value out of range,
    /// or a pipeline whose output size would depend on the picture.
    pub fn from_config(config: &Value) -> Result<ImageProcessor, Error> {
        ImageProcessor::read(config, None)
    }

    /// The same, for old files that name no class: `class` (`"ViTImageProcessor"`) is then assumed, as
    /// transformers does from the model's type.
    ///
    /// # Errors
    /// As [`ImageProcessor::from_config`].
    pub fn from_config_as(config: &Value, class: &str) -> Result<ImageProcessor, Error> {
        ImageProcessor::read(config, Some(class))
    }

    fn read(config: &Value, class: Option<&str>) -> Result<ImageProcessor, Error> {
        let mut fields = Fields::of("the image processor's configuration", config)?;
        if let Some(nested) = fields.get("image_processor") {
            return transformers(nested, class);
        }
        match (fields.get("preprocess_cfg"), fields.get("pretrained_cfg")) {
            (Some(preprocess), _) => open_clip(preprocess, fields.get("model_cfg")),
            (None, Some(pretrained)) => timm(pretrained),
            (None, None) => transformers(config, class),
        }
    }

    /// Height and width of what [`ImageProcessor::process`] yields, in pixels; where they follow the
    /// picture's shape, those of a square one.
    pub fn size(&self) -> (usize, usize) {
        self.size_of(1, 1)
    }

    /// Height and width of what a picture of this height and width becomes.
    pub fn size_of(&self, height: u32, width: u32) -> (usize, usize) {
        match self.patches() {
            None => self.output,
            Some(_) => {
                let (height, width) = self.resized(height, width);
                (height as usize, width as usize)
            }
        }
    }

    /// Side of a patch and the most patches, where the output follows the picture's shape.
    pub fn patches(&self) -> Option<(usize, usize)> {
        match self.resize {
            Some((SizeRule::Patches { patch, most }, _)) => Some((patch as usize, most as usize)),
            _ => None,
        }
    }

    /// Height and width to which a picture of this height and width is resized.
    pub fn resized(&self, height: u32, width: u32) -> (u32, u32) {
        self.resize.map_or((height, width), |(rule, _)| rule.target(height, width))
    }

    /// Which part of a picture of this height and width the model sees: left, top, width and height, in
    /// the picture's own pixels.
    pub fn region(&self, height: u32, width: u32) -> [f64; 4] {
        pipeline::region((height, width), self.resize, self.crop)
    }

    /// The model's input.
    pub fn process(&self, picture: &Picture) -> Pixels {
        let (height, width) = self.size_of(picture.height(), picture.width());
        let mut values = vec![0.0; 3 * height * width];
        pipeline::run(picture, self.resize, self.crop, &self.table, (height, width), &mut values);
        Pixels { values, height, width }
    }

    /// The configuration in the layout it came from, every field spelled out: a
    /// `preprocessor_config.json` that transformers reads back as the same processor, or, for a
    /// processor of open_clip or timm (whose crop rounds in a way no class of transformers has), the
    /// `preprocess_cfg` of an `open_clip_config.json` or the `pretrained_cfg` of a `config.json`.
    pub fn to_config(&self) -> Value {
        match &self.settings {
            Settings::Transformers(map) => Value::Object(map.clone()),
            Settings::OpenClip(map) => json!({ "preprocess_cfg": map }),
            Settings::Timm(map) => json!({ "pretrained_cfg": map }),
        }
    }
}

fn transformers(config: &Value, assumed: Option<&str>) -> Result<ImageProcessor, Error> {
    let mut fields = Fields::of("image_processor", config)?;
    let class = class_of(&mut fields, assumed)?;
    fields.skip(&[
        "processor_class",
        "_processor_class",
        "_valid_processor_keys",
        "_valid_kwargs_names",
        "_name_or_path",
        "_commit_hash",
        "transformers_version",
        "device",
        "return_tensors",
        "disable_grouping",
        "image_seq_length",
        "model_input_names",
        // Changes segmentation maps, not pictures.
        "do_reduce_labels",
    ]);
    // The layout of the input array, and of the output, which is channels first here.
    for field in ["data_format", "input_data_format"] {
        match fields.get(field) {
            None => {}
            Some(value) if value == "channels_first" => {}
            Some(value) => return Err(wrong(field, value, "\"channels_first\"")),
        }
    }
    if let Some(value) = fields.get("num_channels").filter(|value| **value != json!(3)) {
        return Err(wrong("num_channels", value, "3"));
    }
    let mut out = Map::new();
    out.insert("image_processor_type".into(), json!(class.name));
    // A Picture is RGB already; the flag is kept for whoever reads the file next.
    let convert = fields.flag("do_convert_rgb")?.unwrap_or(class.convert);
    out.insert("do_convert_rgb".into(), json!(convert));

    let filter = match fields.get("resample") {
        None => class.filter,
        Some(value) => value
            .as_u64()
            .and_then(Filter::from_pillow)
            .ok_or_else(|| wrong("resample", value, "Pillow's number of a filter, 0 to 5"))?,
    };
    out.insert("resample".into(), json!(filter.to_pillow()));
    let square = fields.flag("default_to_square")?.unwrap_or(class.square);
    out.insert("default_to_square".into(), json!(square));
    let rule = match fields.get("size") {
        Some(value) => size_rule("size", value, square)?,
        None => match class.size {
            Size::Square(side) => SizeRule::Exact { height: side, width: side },
            Size::Shortest(side) => SizeRule::Shortest(side),
            Size::Patches { patch, most } => {
                let patch = match fields.get("patch_size") {
                    Some(value) => side("patch_size", value)?,
                    None => patch,
                };
                let most = match fields.get("max_num_patches") {
                    Some(value) => side("max_num_patches", value)?,
                    None => most,
                };
                out.insert("patch_size".into(), json!(patch));
                out.insert("max_num_patches".into(), json!(most));
                SizeRule::Patches { patch, most }
            }
        },
    };
    if class.name != SIGLIP2 {
        out.insert("size".into(), size_json(rule));
    }
    let mut resize = fields.flag("do_resize")?.unwrap_or(true).then_some((rule, filter));
    out.insert("do_resize".into(), json!(resize.is_some()));

    let crop_size = match fields.get("crop_size") {
        Some(value) => Some(exact("crop_size", value)?),
        None => class.crop.map(|side| (side, side)),
    };
    let do_crop = fields.flag("do_center_crop")?.unwrap_or(class.crop.is_some());
    out.insert("do_center_crop".into(), json!(do_crop));
    if let Some((height, width)) = crop_size {
        let size = json!({ "height": height, "width": width });
        out.insert("crop_size".into(), size);
    }
    let mut crop = match (do_crop, crop_size) {
        (false, _) => None,
        (true, Some((height, width))) => Some(centre(height, width)),
        (true, None) => {
            return Err(wrong("crop_size", &Value::Null, "a size, as do_center_crop is true"));
        }
    };
    if class.name == SIGLIP2 && crop.is_some() {
        return Err(wrong("do_center_crop", &json!(true), "false: this class keeps the picture whole"));
    }
    if class.name == CONVNEXT {
        let share = fields.positive("crop_pct")?.unwrap_or(CROP_PCT);
        out.insert("crop_pct".into(), json!(share));
        if resize.is_some() {
            if crop.is_some() {
                return Err(wrong("do_center_crop", &json!(true), "false: this class crops as it resizes"));
            }
            let (rule, own_crop) = convnext(rule, share)?;
            resize = Some((rule, filter));
            crop = own_crop;
        }
    }

    let factor = fields.positive("rescale_factor")?.unwrap_or(1.0 / 255.0);
    let rescale = fields.flag("do_rescale")?.unwrap_or(true);
    out.insert("rescale_factor".into(), json!(factor));
    out.insert("do_rescale".into(), json!(rescale));
    let mean = fields.channels("image_mean")?.unwrap_or(class.mean);
    let std = fields.divisors("image_std")?.unwrap_or(class.std);
    let normalize = fields.flag("do_normalize")?.unwrap_or(true);
    // Written back as given: transformers keeps one number for all channels as one number.
    let written = |values: [f64; 3], given: Option<&Value>| match given {
        Some(value) => value.clone(),
        None => json!(values),
    };
    out.insert("image_mean".into(), written(mean, fields.get("image_mean")));
    out.insert("image_std".into(), written(std, fields.get("image_std")));
    out.insert("do_normalize".into(), json!(normalize));

    let inner = match (crop, resize) {
        (Some(crop), _) => (crop.height, crop.width),
        (None, Some((SizeRule::Exact { height, width }, _))) => (height, width),
        (None, Some((SizeRule::Patches { patch, .. }, _))) => (patch, patch),
        _ => {
            return Err(wrong(
                "size",
                &size_json(rule),
                "a \"height\" and a \"width\", or a centre crop: without either the output's size would differ from picture to picture",
            ));
        }
    };
    let pad_size = fields.get("pad_size");
    let mut output = inner;
    let do_pad = fields.flag("do_pad")?.unwrap_or(false);
    out.insert("do_pad".into(), json!(do_pad));
    if do_pad {
        let pads = !["LlavaImageProcessor", CONVNEXT, SIGLIP2].contains(&class.name);
        let Some(size) = pad_size.filter(|_| pads) else {
            return Err(wrong(
                "do_pad",
                &json!(true),
                "false, or, in a class that pads at the end, true beside a pad_size",
            ));
        };
        output = exact("pad_size", size)?;
        if output.0 < inner.0 || output.1 < inner.1 {
            let expected = format!("at least {} x {}", inner.0, inner.1);
            return Err(wrong("pad_size", size, &expected));
        }
        let size = json!({ "height": output.0, "width": output.1 });
        out.insert("pad_size".into(), size);
    }
    fields.finish(FOLLOWED)?;

    let scale = if rescale { Scale::Times(factor) } else { Scale::None };
    Ok(ImageProcessor {
        settings: Settings::Transformers(out),
        resize,
        crop,
        table: pipeline::table(scale, normalize.then_some((mean, std))),
        output: (output.0 as usize, output.1 as usize),
    })
}

fn centre(height: u32, width: u32) -> Crop {
    Crop { height, width, rule: CropRule::Transformers, fill: 0 }
}

/// ConvNeXT's resize: below 384 the shorter edge goes to `edge / crop_pct` and the centre is cropped;
/// from 384 on the picture is squashed.
fn convnext(rule: SizeRule, share: f64) -> Result<(SizeRule, Option<Crop>), Error> {
    let SizeRule::Shortest(edge) = rule else {
        return Err(wrong("size", &size_json(rule), "a \"shortest_edge\" alone"));
    };
    if edge >= 384 {
        let squash = SizeRule::Exact { height: edge, width: edge };
        return Ok((squash, None));
    }
    let longer = json!((f64::from(edge) / share) as u64);
    let longer = side("size / crop_pct", &longer)?;
    Ok((SizeRule::Shortest(longer), Some(centre(edge, edge))))
}

/// A size in any of the ways transformers writes one.
fn size_rule(field: &str, value: &Value, square: bool) -> Result<SizeRule, Error> {
    let Some(object) = value.as_object() else {
        return match value {
            Value::Number(_) if !square => Ok(SizeRule::Shortest(side(field, value)?)),
            _ => {
                let (height, width) = exact(field, value)?;
                Ok(SizeRule::Exact { height, width })
            }
        };
    };
    let mut keys: Vec<&str> =
        object.iter().filter(|(_, value)| !value.is_null()).map(|(key, _)| key.as_str()).collect();
    keys.sort_unstable();
    let part = |key: &str| side(&format!("{field}.{key}"), &value[key]);
    match keys.as_slice() {
        ["height", "width"] => Ok(SizeRule::Exact { height: part("height")?, width: part("width")? }),
        ["shortest_edge"] => Ok(SizeRule::Shortest(part("shortest_edge")?)),
        ["longest_edge", "shortest_edge"] => {
            Ok(SizeRule::ShortestCapped { shortest: part("shortest_edge")?, longest: part("longest_edge")? })
        }
        _ => Err(wrong(
            field,
            value,
            "\"height\" and \"width\", \"shortest_edge\", or \"shortest_edge\" and \"longest_edge\"",
        )),
    }
}

/// A height and a width: a number for both, a list of two, or an object.
fn exact(field: &str, value: &Value) -> Result<(u32, u32), Error> {
    match value {
        Value::Array(list) if list.len() == 2 => Ok((side(field, &list[0])?, side(field, &list[1])?)),
        Value::Object(_) => match size_rule(field, value, true)? {
            SizeRule::Exact { height, width } => Ok((height, width)),
            _ => Err(wrong(field, value, "\"height\" and \"width\"")),
        },
        value => {
            let side = side(field, value)?;
            Ok((side, side))
        }
    }
}

fn size_json(rule: SizeRule) -> Value {
    match rule {
        SizeRule::Exact { height, width } => json!({ "height": height, "width": width }),
        SizeRule::Shortest(edge) => json!({ "shortest_edge": edge }),
        SizeRule::ShortestCapped { shortest, longest } => {
            json!({ "shortest_edge": shortest, "longest_edge": longest })
        }
        SizeRule::KeepRatio { height, width, .. } => json!([height, width]),
        SizeRule::Patches { patch, most } => json!({ "patch_size": patch, "max_num_patches": most }),
    }
}

/// open_clip's inference transform (`image_transform` with `is_train=False`).
fn open_clip(preprocess: &Value, model: Option<&Value>) -> Result<ImageProcessor, Error> {
    let mut fields = Fields::of("preprocess_cfg", preprocess)?;
    // The tower's image_size has the last word there, with 224 where its configuration is silent.
    let own = fields.get("size");
    let tower = model.and_then(|model| model.get("vision_cfg"));
    let default = json!(224);
    let size = match tower {
        Some(tower) => tower.get("image_size").filter(|size| !size.is_null()).unwrap_or(&default),
        None => own.unwrap_or(&default),
    };
    let (height, width) = exact("size", size)?;
    match fields.get("mode") {
        None => {}
        Some(mode) if mode == "RGB" => {}
        Some(mode) => return Err(wrong("mode", mode, "\"RGB\"")),
    }
    let mean = fields.channels("mean")?.unwrap_or(CLIP_MEAN);
    let std = fields.divisors("std")?.unwrap_or(CLIP_STD);
    let interpolation = fields.text("interpolation")?.unwrap_or("bicubic");
    let filter = match interpolation {
        "bilinear" => Filter::Bilinear,
        // "random" is for training; for inference it is bicubic.
        "bicubic" | "random" => Filter::Bicubic,
        other => {
            return Err(wrong("interpolation", &json!(other), "\"bicubic\", \"bilinear\" or \"random\""));
        }
    };
    let fill = match fields.get("fill_color") {
        None => 0,
        Some(value) => value
            .as_u64()
            .and_then(|fill| u8::try_from(fill).ok())
            .ok_or_else(|| wrong("fill_color", value, "a whole number from 0 to 255"))?,
    };
    let crop = |fill| Crop { height, width, rule: CropRule::Torchvision, fill };
    let keep = |longest| SizeRule::KeepRatio { height, width, longest };
    let mode = fields.text("resize_mode")?.unwrap_or("shortest");
    let (resize, crop) = match mode {
        "squash" => ((SizeRule::Exact { height, width }, filter), None),
        "longest" => ((keep(true), filter), Some(crop(fill))),
        "shortest" if height == width => ((SizeRule::Shortest(height), filter), Some(crop(0))),
        // The reference resizes to an oblong by bicubic, whatever `interpolation` says.
        "shortest" => ((keep(false), Filter::Bicubic), Some(crop(0))),
        other => {
            return Err(wrong("resize_mode", &json!(other), "\"shortest\", \"longest\" or \"squash\""));
        }
    };
    fields.finish("size, mode, mean, std, interpolation, resize_mode, fill_color")?;
    let size = if height == width { json!(height) } else { json!([height, width]) };
    let out = json!({
        "size": size,
        "mode": "RGB",
        "mean": mean,
        "std": std,
        "interpolation": interpolation,
        "resize_mode": mode,
        "fill_color": fill,
    });
    Ok(ImageProcessor {
        settings: Settings::OpenClip(out.as_object().cloned().unwrap_or_default()),
        resize: Some(resize),
        crop,
        table: pipeline::table(Scale::By255, Some((mean, std))),
        output: (height as usize, width as usize),
    })
}

/// timm's inference transform (`create_transform` with `is_training=False`).
fn timm(pretrained: &Value) -> Result<ImageProcessor, Error> {
    let mut fields = Fields::of("pretrained_cfg", pretrained)?;
    fields.skip(&[
        "tag",
        "custom_load",
        "fixed_input_size",
        "min_input_size",
        "pool_size",
        "num_classes",
        "first_conv",
        "classifier",
        "url",
        "file",
        "hf_hub_id",
        "hf_hub_filename",
        "paper_ids",
        "paper_name",
        "license",
        "origin_url",
        "architecture",
        "label_names",
        "label_descriptions",
        // A larger size that some nets are also tested at; timm's own default is `input_size`.
        "test_input_size",
        "test_crop_pct",
    ]);
    let (height, width) = match fields.get("input_size") {
        None => (224, 224),
        Some(Value::Array(size)) if size.len() == 3 && size[0] == json!(3) => {
            (side("input_size", &size[1])?, side("input_size", &size[2])?)
        }
        Some(value) => return Err(wrong("input_size", value, "[3, height, width]")),
    };
    let share = fields.positive("crop_pct")?.unwrap_or(CROP_PCT);
    let interpolation = fields.text("interpolation")?.unwrap_or("bicubic");
    let filter = match interpolation {
        "nearest" => Filter::Nearest,
        "lanczos" => Filter::Lanczos,
        "bilinear" => Filter::Bilinear,
        "bicubic" => Filter::Bicubic,
        "box" => Filter::Box,
        "hamming" => Filter::Hamming,
        other => return Err(wrong("interpolation", &json!(other), "the name of one of Pillow's filters")),
    };
    let mean = fields.channels("mean")?.unwrap_or(IMAGENET_MEAN);
    let std = fields.divisors("std")?.unwrap_or(IMAGENET_STD);
    let longer = |length: u32| side("input_size / crop_pct", &json!((f64::from(length) / share) as u64));
    let (tall, wide) = (longer(height)?, longer(width)?);
    let mode = fields.text("crop_mode")?.unwrap_or("center");
    let rule = match mode {
        "squash" => SizeRule::Exact { height: tall, width: wide },
        "center" if tall == wide => SizeRule::Shortest(tall),
        "center" => SizeRule::KeepRatio { height: tall, width: wide, longest: false },
        other => return Err(wrong("crop_mode", &json!(other), "\"center\" or \"squash\"")),
    };
    fields.finish("input_size, crop_pct, crop_mode, interpolation, mean, std")?;
    let out = json!({
        "input_size": [3, height, width],
        "crop_pct": share,
        "crop_mode": mode,
        "interpolation": interpolation,
        "mean": mean,
        "std": std,
    });
    Ok(ImageProcessor {
        settings: Settings::Timm(out.as_object().cloned().unwrap_or_default()),
        resize: Some((rule, filter)),
        crop: Some(Crop { height, width, rule: CropRule::Torchvision, fill: 0 }),
        table: pipeline::table(Scale::By255, Some((mean, std))),
        output: (height as usize, width as usize),
    })
}
