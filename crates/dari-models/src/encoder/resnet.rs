//! Residual networks (He et al. 2016): transformers' `ResNetModel` and `ResNetForImageClassification`,
//! and the same nets under the names of timm and torchvision.

use std::collections::BTreeMap;

use candle_core::{D, Tensor};
use dari_files::{Checkpoint, TensorView};
use dari_nn::conv::{self, ConvNorm, Sizes};
use dari_nn::weights::Source;
use dari_nn::{Activation, Linear, Weights, activation};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Features, VisionTower};
use crate::capability::{ClassifyPictures, EmbedPictures};
use crate::{Result, config};

/// `config.json` of a `resnet` checkpoint.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
#[allow(missing_docs)] // the checkpoint's own field names
pub struct ResNetConfig {
    pub num_channels: usize,
    pub embedding_size: usize,
    pub hidden_sizes: Vec<usize>,
    pub depths: Vec<usize>,
    pub layer_type: String,
    pub hidden_act: String,
    pub downsample_in_first_stage: bool,
    pub downsample_in_bottleneck: bool,
    pub id2label: BTreeMap<String, String>,
}

impl Default for ResNetConfig {
    fn default() -> Self {
        ResNetConfig {
            num_channels: 3,
            embedding_size: 64,
            hidden_sizes: vec![256, 512, 1024, 2048],
            depths: vec![3, 4, 6, 3],
            layer_type: "bottleneck".into(),
            hidden_act: "relu".into(),
            downsample_in_first_stage: false,
            downsample_in_bottleneck: false,
            id2label: BTreeMap::new(),
        }
    }
}

/// Convolutions and a way around them.
pub(super) struct Residual {
    /// All but the last are followed by the activation.
    pub path: Vec<ConvNorm>,
    /// Windows whose mean is taken before the last convolution; 1 for none.
    pub pool: usize,
    /// Where the sizes change: a convolution, behind a mean of the windows of `pool`.
    pub shortcut: Option<ConvNorm>,
    pub activation: Activation,
}

impl Residual {
    /// `[batch, height, width, channels]` to the same, of other sizes where the block begins a stage.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let pooled = |x: &Tensor| match self.pool {
            1 => Ok(x.clone()),
            side => conv::mean_pool(x, side),
        };
        let mut y = x.clone();
        for (number, layer) in self.path.iter().enumerate() {
            y = match number + 1 == self.path.len() {
                true => layer.forward(&pooled(&y)?)?,
                false => layer.activated(&y, self.activation)?,
            };
        }
        let around = match &self.shortcut {
            Some(shortcut) => shortcut.forward(&pooled(x)?)?,
            None => x.clone(),
        };
        Ok(activation::apply(self.activation, &(around + y)?)?)
    }
}

/// The net, with the classifier that the checkpoint has.
pub struct ResNet {
    stem: ConvNorm,
    blocks: Vec<Residual>,
    classifier: Option<Linear>,
    activation: Activation,
    labels: Vec<String>,
    width: usize,
    /// How often a picture is halved on its way to the last feature map.
    halvings: usize,
}

impl ResNet {
    /// Reads a net, below `resnet` or at the root.
    pub fn load(root: &Weights, config: &ResNetConfig, origin: &str) -> Result<ResNet> {
        let c = config;
        check(c, origin)?;
        let activation = config::activation(origin, &c.hidden_act)?;
        let below = root.has("resnet.embedder.embedder.convolution.weight");
        let weights = if below { root.pp("resnet") } else { root.clone() };
        let layer = |at: &Weights, inputs, outputs, side, stride| {
            let sizes = Sizes { inputs, outputs, side, stride };
            ConvNorm::load(&at.pp("convolution"), &at.pp("normalization"), sizes)
        };
        let mut blocks = Vec::new();
        let mut inputs = c.embedding_size;
        for (stage, (&outputs, &depth)) in c.hidden_sizes.iter().zip(&c.depths).enumerate() {
            for number in 0..depth {
                let first = number == 0 && (stage > 0 || c.downsample_in_first_stage);
                let stride = if first { 2 } else { 1 };
                let at = weights.pp(format!("encoder.stages.{stage}.layers.{number}"));
                let path = |index| at.pp(format!("layer.{index}"));
                let path = match c.layer_type.as_str() {
                    "basic" => {
                        vec![
                            layer(&path(0), inputs, outputs, 3, stride)?,
                            layer(&path(1), outputs, outputs, 3, 1)?,
                        ]
                    }
                    _ => {
                        let inner = outputs / 4;
                        let strides = if c.downsample_in_bottleneck { [stride, 1] } else { [1, stride] };
                        vec![
                            layer(&path(0), inputs, inner, 1, strides[0])?,
                            layer(&path(1), inner, inner, 3, strides[1])?,
                            layer(&path(2), inner, outputs, 1, 1)?,
                        ]
                    }
                };
                let shortcut = match inputs != outputs || stride != 1 {
                    true => Some(layer(&at.pp("shortcut"), inputs, outputs, 1, stride)?),
                    false => None,
                };
                blocks.push(Residual { path, pool: 1, shortcut, activation });
                inputs = outputs;
            }
        }
        let labels = config::labels(&c.id2label, origin)?;
        let classifier = match root.has("classifier.1.weight") {
            true => Some(Linear::load(&root.pp("classifier.1"), inputs, labels.len(), true)?),
            false => None,
        };
        let stem = layer(&weights.pp("embedder.embedder"), c.num_channels, c.embedding_size, 7, 2)?;
        // The stem's two, and those of the stages.
        let halvings = 1 + c.hidden_sizes.len() + usize::from(c.downsample_in_first_stage);
        Ok(ResNet { stem, blocks, classifier, activation, labels, width: inputs, halvings })
    }

    /// `[batch, channels, height, width]` to features: a token a place of the last feature map, row by
    /// row, and their mean.
    pub fn forward(&self, pixels: &Tensor) -> Result<Features> {
        let x = self.stem.activated(&conv::channels_last(pixels)?, self.activation)?;
        let mut x = conv::max_pool(&x, 3, 2)?;
        for block in &self.blocks {
            x = block.forward(&x)?;
        }
        let tokens = x.flatten(1, 2)?;
        let pooled = tokens.mean(D::Minus2)?;
        Ok(Features { tokens, pooled })
    }

    /// The same model's classifier, where the checkpoint has one.
    pub fn classifier(&self) -> Option<&dyn ClassifyPictures> {
        self.classifier.is_some().then_some(self as &dyn ClassifyPictures)
    }
}

impl EmbedPictures for ResNet {
    fn picture_dim(&self) -> usize {
        self.width
    }

    fn embed_pictures(&self, pixels: &Tensor) -> Result<Tensor> {
        Ok(self.forward(pixels)?.pooled)
    }
}

impl ClassifyPictures for ResNet {
    fn labels(&self) -> &[String] {
        &self.labels
    }

    fn classify(&self, pixels: &Tensor) -> Result<Tensor> {
        match &self.classifier {
            Some(classifier) => Ok(classifier.forward(&self.forward(pixels)?.pooled)?),
            None => {
                config::refuse("this resnet checkpoint", "it has no classifier; its features can be embedded")
            }
        }
    }
}

fn check(c: &ResNetConfig, origin: &str) -> Result<()> {
    config::check_width(origin, "embedding_size", c.embedding_size)?;
    for &width in &c.hidden_sizes {
        config::check_width(origin, "hidden_sizes", width)?;
    }
    let blocks = c.depths.iter().fold(0usize, |sum, &depth| sum.saturating_add(depth));
    let problem = if c.num_channels != 3 {
        format!("`num_channels` is {}, expected 3: pictures are read in colour", c.num_channels)
    } else if !["basic", "bottleneck"].contains(&c.layer_type.as_str()) {
        format!("`layer_type` is `{}`, expected basic or bottleneck", c.layer_type)
    } else if c.hidden_sizes.is_empty() || c.hidden_sizes.len() != c.depths.len() || blocks > 4096 {
        format!(
            "`hidden_sizes` {:?} with `depths` {:?}: expected one of each a stage, at most 4096 blocks",
            c.hidden_sizes, c.depths
        )
    } else if c.layer_type == "bottleneck" && c.hidden_sizes.iter().any(|width| width % 4 != 0) {
        format!("`hidden_sizes` {:?}: a bottleneck's width divides by 4", c.hidden_sizes)
    } else {
        return Ok(());
    };
    config::refuse(origin, problem)
}

/// A checkpoint under the names of torchvision, which timm shares, seen by those of transformers.
pub struct Torchvision(Checkpoint);

impl Torchvision {
    /// Wraps a checkpoint.
    pub fn new(checkpoint: Checkpoint) -> Torchvision {
        Torchvision(checkpoint)
    }

    /// Whether a checkpoint has such names.
    pub fn fits(checkpoint: &Checkpoint) -> bool {
        ["conv1.weight", "bn1.running_var", "layer1.0.conv1.weight"]
            .iter()
            .all(|name| checkpoint.shape(name).is_some())
    }

    /// What the tensors' shapes say of the net, as transformers' `config.json`. `labels` are the classes' names, where known.
    pub fn config(&self, labels: Vec<String>, origin: &str) -> Result<Value> {
        let shape = |name: String| self.0.shape(&name).map(<[usize]>::to_vec);
        let has = |name: String| self.0.shape(&name).is_some();
        let bottleneck = has("layer1.0.conv3.weight".into());
        let last = if bottleneck { "conv3" } else { "conv2" };
        let (mut hidden_sizes, mut depths) = (Vec::new(), Vec::new());
        for stage in 1..=8 {
            let depth =
                (0..4096).take_while(|block| has(format!("layer{stage}.{block}.conv1.weight"))).count();
            if depth == 0 {
                break;
            }
            let width =
                shape(format!("layer{stage}.0.{last}.weight")).and_then(|shape| shape.first().copied());
            hidden_sizes.push(width.unwrap_or(0));
            depths.push(depth);
        }
        let stem = shape("conv1.weight".into()).unwrap_or_default();
        if stem.get(1..) != Some(&[3, 7, 7]) {
            let problem = format!(
                "`conv1.weight` is {stem:?}, expected [width, 3, 7, 7]: only the plain stem of ResNet is read"
            );
            return config::refuse(origin, problem);
        }
        if has("layer1.0.se.fc1.weight".into()) || has("layer1.0.downsample.2.weight".into()) {
            return config::refuse(
                origin,
                "only plain ResNet is read from such names, found a variant of it",
            );
        }
        let classes = shape("fc.weight".into()).and_then(|shape| shape.first().copied()).unwrap_or(0);
        let named = labels.len() == classes;
        let label = |class: usize| match labels.get(class).filter(|_| named) {
            Some(label) => label.clone(),
            None => format!("LABEL_{class}"),
        };
        let names: BTreeMap<String, String> =
            (0..classes).map(|class| (class.to_string(), label(class))).collect();
        Ok(json!({
            "model_type": "resnet",
            "embedding_size": stem[0],
            "hidden_sizes": hidden_sizes,
            "depths": depths,
            "layer_type": if bottleneck { "bottleneck" } else { "basic" },
            "id2label": names,
        }))
    }

    fn place(name: &str) -> String {
        let rest = name.strip_prefix("resnet.").unwrap_or(name);
        if let Some(rest) = rest.strip_prefix("embedder.embedder.") {
            return rest.replace("convolution", "conv1").replace("normalization", "bn1");
        }
        if let Some(rest) = rest.strip_prefix("classifier.1.") {
            return format!("fc.{rest}");
        }
        let block = || {
            let (stage, rest) = rest.strip_prefix("encoder.stages.")?.split_once(".layers.")?;
            let (number, rest) = rest.split_once('.')?;
            let own = match rest.strip_prefix("layer.") {
                Some(rest) => {
                    let (index, rest) = rest.split_once('.')?;
                    let index = index.parse::<usize>().ok()? + 1;
                    rest.replace("convolution", &format!("conv{index}"))
                        .replace("normalization", &format!("bn{index}"))
                }
                None => rest
                    .replace("shortcut.convolution", "downsample.0")
                    .replace("shortcut.normalization", "downsample.1"),
            };
            Some(format!("layer{}.{number}.{own}", stage.parse::<usize>().ok()? + 1))
        };
        block().unwrap_or_else(|| rest.to_owned())
    }
}

impl Source for Torchvision {
    fn names(&self) -> Vec<String> {
        Source::names(&self.0)
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        Source::shape(&self.0, &Self::place(name))
    }

    fn tensor(&self, name: &str) -> Result<TensorView<'_>, dari_files::Error> {
        self.0.tensor(&Self::place(name))
    }

    fn stored(&self, name: &str) -> String {
        Self::place(name)
    }

    fn origin(&self, name: &str) -> String {
        Source::origin(&self.0, &Self::place(name))
    }

    fn release(&self, name: &str) {
        self.0.release(&Self::place(name));
    }
}

/// How torchvision prepares pictures for its ResNets (`ResNet50_Weights.IMAGENET1K_V1`): what is
/// assumed where a checkpoint is weights alone.
pub fn torchvision_preparation() -> Value {
    json!({ "pretrained_cfg": {
        "input_size": [3, 224, 224],
        "crop_pct": 0.875,
        "interpolation": "bilinear",
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
    } })
}

impl VisionTower for ResNet {
    fn width(&self) -> usize {
        self.width
    }

    fn side(&self) -> Option<usize> {
        None
    }

    fn places(&self, side: usize) -> usize {
        let down = (0..self.halvings).fold(side, |side, _| side.div_ceil(2));
        down * down
    }

    fn last(&self, pixels: &Tensor) -> Result<Tensor> {
        Ok(self.forward(pixels)?.tokens)
    }
}
