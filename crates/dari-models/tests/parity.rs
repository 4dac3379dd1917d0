//! Every model against what the reference libraries compute from the same files; see `parity/`.
//!
//! `cargo test --workspace --test parity -- --nocapture` prints the table of differences.
#![allow(clippy::print_stdout)]

use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use dari_data::image::{Limits, Picture};
use dari_files::{Checkpoint, Folder};
use dari_models::capability::Tokens;
use dari_models::language::bert::Pooling;
use dari_models::{Loaded, Model, auto};
use dari_nn::{Precision, loss, weights::floats};
use serde_json::Value;

const CLOSE: f32 = 1e-4;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/parity")
}

fn load(case: &str) -> Loaded {
    let folder = Folder::open(&fixtures().join(case)).expect("the fixture");
    auto::load(&folder, &Device::Cpu, Precision::F32).unwrap_or_else(|error| panic!("{case}: {error}"))
}

struct Expected {
    case: String,
    file: Checkpoint,
    inputs: Value,
}

impl Expected {
    fn of(case: &str) -> Expected {
        Expected::at(case, &fixtures().join(case), &fixtures().join(case))
    }

    fn at(case: &str, outputs: &Path, inputs: &Path) -> Expected {
        let text = std::fs::read_to_string(inputs.join("inputs.json")).expect("inputs.json");
        Expected {
            case: case.to_owned(),
            file: Checkpoint::open(&outputs.join("expected.safetensors")).expect("expected.safetensors"),
            inputs: serde_json::from_str(&text).expect("JSON"),
        }
    }

    fn strings(&self, field: &str) -> Vec<String> {
        let list = self.inputs[field].as_array().expect("a list");
        list.iter().map(|entry| entry.as_str().expect("a string").to_owned()).collect()
    }

    fn pictures(&self) -> Vec<Picture> {
        let open = |name: String| {
            let path = fixtures().join("pictures").join(name);
            dari_data::image::open(&path, &Limits::default()).expect("a picture")
        };
        self.strings("pictures").into_iter().map(open).collect()
    }

    fn values(&self, name: &str) -> Vec<f32> {
        floats(&self.file.tensor(name).expect("an expected tensor")).expect("floats")
    }

    fn ids(&self, name: &str) -> Vec<Vec<u32>> {
        let view = self.file.tensor(name).expect("expected ids");
        let flat: Vec<u32> = view
            .data
            .chunks_exact(8)
            .map(|b| i64::from_le_bytes(b.try_into().expect("8 bytes")) as u32)
            .collect();
        flat.chunks(view.shape[1]).map(<[u32]>::to_vec).collect()
    }

    /// Compares a tensor with the expected one of that name; prints a line of the parity table.
    fn check(&self, name: &str, found: &Tensor, tolerance: f32) {
        let expected = self.values(name);
        let found = found.flatten_all().and_then(|t| t.to_vec1::<f32>()).expect("values");
        assert_eq!(found.len(), expected.len(), "{} {name}: number of values", self.case);
        let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        println!("| {} | {name} | {worst:.1e} |", self.case);
        assert!(
            worst <= tolerance && !found.iter().any(|x| x.is_nan()),
            "{} {name}: off by {worst}",
            self.case
        );
    }
}

/// Prepared pictures of one size.
fn tensor(loaded: &Loaded, pictures: &[Picture]) -> Tensor {
    let pictures = loaded.processor.pixels(pictures, &Device::Cpu).expect("pixels");
    pictures.tensor().expect("one size").clone()
}

fn tokens(loaded: &Loaded, expected: &Expected) -> Tokens {
    let texts = expected.strings("texts");
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let tokens = loaded.processor.tokens(&texts).expect("tokens").tokens;
    for (index, (ours, theirs)) in tokens.ids.iter().zip(expected.ids("input_ids")).enumerate() {
        assert_eq!(ours, &theirs, "{}: ids of {:?}", expected.case, texts[index]);
    }
    tokens
}

fn contrastive(case: &str) {
    contrastive_of(&load(case), &load(case), &Expected::of(case));
}

/// `prepare` has the processor, `loaded` the weights.
fn contrastive_of(prepare: &Loaded, loaded: &Loaded, expected: &Expected) {
    let prepared = prepare.processor.pixels(&expected.pictures(), &Device::Cpu).expect("pixels");
    let pixels = prepared.tensor();
    if let Some(pixels) = pixels.filter(|_| expected.file.shape("pixel_values").is_some()) {
        expected.check("pixel_values", pixels, 1e-6);
    }
    let tokens = tokens(prepare, expected);
    let model = loaded.model.contrastive().expect("a contrastive model");
    let pictures = prepared.each(|pixels| model.embed_pictures(pixels)).expect("pictures");
    let pictures = loss::normalise(&pictures).expect("unit");
    let texts = loss::normalise(&model.embed_texts(&tokens).expect("texts")).expect("unit");
    expected.check("image_embeddings", &pictures, CLOSE);
    expected.check("text_embeddings", &texts, CLOSE);
    let logits = model.logits(&pictures, &texts).expect("logits");
    expected.check("logits_per_image", &logits, 5e-4);
    if let Some(pixels) = pixels.filter(|_| expected.file.shape("vision_last_hidden_state").is_some()) {
        let features = match &loaded.model {
            Model::Clip(clip) => clip.vision().expect("a ViT").forward(pixels),
            Model::Siglip(siglip) => siglip.vision().forward(pixels, None),
            _ => panic!("{}: not contrastive", expected.case),
        }
        .expect("features");
        expected.check("vision_last_hidden_state", &features.tokens, 5e-4);
        expected.check("vision_pooled", &features.pooled, 5e-4);
        let pooled = match &loaded.model {
            Model::Clip(clip) => clip.text().pooled(&tokens),
            Model::Siglip(siglip) => siglip.text().pooled(&tokens),
            _ => panic!("{}: not contrastive", expected.case),
        };
        expected.check("text_pooled", &pooled.expect("pooled"), 5e-4);
    }
    batch_equals_singles(prepare, loaded, expected, &pictures, &texts);
}

fn batch_equals_singles(
    prepare: &Loaded,
    loaded: &Loaded,
    expected: &Expected,
    pictures: &Tensor,
    texts: &Tensor,
) {
    let model = loaded.model.contrastive().expect("a contrastive model");
    let close = |batch: Tensor, single: Tensor, what: &str| {
        let single = loss::normalise(&single).expect("unit");
        let off = (batch - single)
            .and_then(|d| d.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>())
            .expect("difference");
        assert!(off <= 1e-5, "{}: {what} in a batch is off by {off}", expected.case);
    };
    for (index, picture) in expected.pictures().into_iter().enumerate() {
        let pixels = tensor(prepare, &[picture]);
        close(
            pictures.narrow(0, index, 1).expect("a row"),
            model.embed_pictures(&pixels).expect("one"),
            "a picture",
        );
    }
    for (index, text) in expected.strings("texts").iter().enumerate() {
        let tokens = prepare.processor.tokens(&[text]).expect("tokens").tokens;
        close(texts.narrow(0, index, 1).expect("a row"), model.embed_texts(&tokens).expect("one"), "a text");
    }
}

#[test]
fn clip_openai_pools_at_the_largest_id() {
    contrastive("clip-openai");
}

#[test]
fn clip_laion_pools_at_the_end_token() {
    contrastive("clip-laion");
}

#[test]
fn clip_in_bf16_sharded_and_pickled() {
    let prepare = load("clip-openai");
    for case in ["clip-openai-bf16", "clip-openai-sharded", "clip-openai-bin"] {
        let expected =
            Expected::at(case, &fixtures().join("clip-openai-bf16"), &fixtures().join("clip-openai"));
        contrastive_of(&prepare, &load(case), &expected);
        let folder = Folder::open(&fixtures().join(case)).expect("the fixture");
        let packed = auto::load(&folder, &Device::Cpu, Precision::Bf16).expect("bf16");
        if dari_nn::has_bf16_products() {
            // What they are multiplied with is rounded as well.
            let pixels = tensor(&prepare, &expected.pictures());
            let model = packed.model.contrastive().expect("a contrastive model");
            let pictures = loss::normalise(&model.embed_pictures(&pixels).expect("pictures"));
            let texts = loss::normalise(&model.embed_texts(&tokens(&prepare, &expected)).expect("texts"));
            expected.check("image_embeddings", &pictures.expect("unit"), 1e-2);
            expected.check("text_embeddings", &texts.expect("unit"), 1e-2);
        } else {
            // Weights kept in bf16 that were bf16 already lose nothing.
            contrastive_of(&prepare, &packed, &expected);
        }
    }
}

#[test]
fn open_clip_layouts() {
    contrastive("open-clip");
    contrastive("open-clip-custom");
}

#[test]
fn siglip_and_siglip_2() {
    contrastive("siglip");
    contrastive("siglip2");
}

#[test]
fn vit_classifies() {
    let (loaded, expected) = (load("vit"), Expected::of("vit"));
    let pixels = tensor(&loaded, &expected.pictures());
    expected.check("pixel_values", &pixels, 1e-6);
    let classifier = loaded.model.classifier().expect("a classifier");
    expected.check("logits", &classifier.classify(&pixels).expect("logits"), 5e-4);
    assert_eq!(classifier.labels()[3], "고양이");
    let Model::Vit(vit) = &loaded.model else { panic!("not a ViT") };
    expected.check("last_hidden_state", &vit.forward(&pixels).expect("features").tokens, 5e-4);
}

#[test]
fn vit_features() {
    let (loaded, expected) = (load("vit-pooler"), Expected::of("vit-pooler"));
    let pixels = tensor(&loaded, &expected.pictures());
    let Model::Vit(vit) = &loaded.model else { panic!("not a ViT") };
    let features = vit.forward(&pixels).expect("features");
    expected.check("last_hidden_state", &features.tokens, 5e-4);
    expected.check("pooled", &features.pooled, CLOSE);
    let class = loaded.model.pictures().expect("embeds").embed_pictures(&pixels).expect("class token");
    expected.check("class_embeddings", &loss::normalise(&class).expect("unit"), CLOSE);
    assert!(loaded.model.classifier().is_none());
}

#[test]
fn bert_pools() {
    let (loaded, expected) = (load("bert"), Expected::of("bert"));
    let tokens = tokens(&loaded, &expected);
    let Model::Bert(bert) = &loaded.model else { panic!("not a BERT") };
    for (name, pooling) in [("mean_embeddings", Pooling::Mean), ("class_embeddings", Pooling::Class)] {
        let pooled = bert.embed(&tokens, pooling).expect("pooled");
        expected.check(name, &loss::normalise(&pooled).expect("unit"), CLOSE);
    }
    expected.check("pooled", &bert.pooled(&tokens).expect("pooled").expect("a pooler"), CLOSE);
}

#[test]
fn bert_fills_masks() {
    let (loaded, expected) = (load("bert-masked"), Expected::of("bert-masked"));
    let tokens = tokens(&loaded, &expected);
    let logits = loaded.model.fill_mask().expect("a word head").mask_logits(&tokens).expect("logits");
    let rows: Vec<Tensor> = expected
        .ids("masked_places")
        .iter()
        .map(|place| {
            logits.get(place[0] as usize).and_then(|row| row.get(place[1] as usize)).expect("a place")
        })
        .collect();
    expected.check("masked_logits", &Tensor::stack(&rows, 0).expect("rows"), 5e-4);
}

#[test]
fn nothing_in_a_checkpoint_is_passed_over() {
    for case in [
        "clip-openai",
        "clip-laion",
        "open-clip",
        "open-clip-custom",
        "siglip",
        "siglip2",
        "vit",
        "vit-pooler",
        "bert",
        "bert-masked",
    ] {
        assert_eq!(load(case).unused, Vec::<String>::new(), "{case}");
    }
}

#[test]
fn clip_with_a_resnet_tower() {
    contrastive("clip-resnet-openai");
    let (loaded, expected) = (load("clip-resnet-openai"), Expected::of("clip-resnet-openai"));
    let pixels = tensor(&loaded, &expected.pictures());
    let Model::Clip(clip) = &loaded.model else { panic!("not a CLIP") };
    let map = clip.resnet().expect("a ResNet").feature_map(&pixels).expect("features");
    expected.check("vision_feature_map", &map.permute((0, 3, 1, 2)).expect("channels first"), 5e-4);
    let features = loaded.model.pictures().expect("embeds").embed_pictures(&pixels).expect("features");
    expected.check("image_features", &features, 5e-4);
    assert_eq!(loaded.unused, Vec::<String>::new());
}

fn resnet(case: &str) -> (Loaded, Expected, Tensor) {
    let (loaded, expected) = (load(case), Expected::of(case));
    let pixels = tensor(&loaded, &expected.pictures());
    expected.check("pixel_values", &pixels, 1e-6);
    let Model::ResNet(net) = &loaded.model else { panic!("{case}: not a ResNet") };
    let features = net.forward(&pixels).expect("features");
    let map = features.tokens.transpose(1, 2).expect("channels first");
    expected.check("last_hidden_state", &map, 5e-4);
    expected.check("pooled", &features.pooled, 5e-4);
    if expected.file.shape("logits").is_some() {
        let classifier = loaded.model.classifier().expect("a classifier");
        let logits = classifier.classify(&pixels).expect("logits");
        expected.check("logits", &logits, 5e-4);
        assert_eq!(classifier.labels().len(), logits.dims()[1]);
    }
    assert_eq!(loaded.unused, Vec::<String>::new());
    (loaded, expected, pixels)
}

#[test]
fn resnets_of_transformers() {
    resnet("resnet");
    let (basic, ..) = resnet("resnet-basic");
    assert!(basic.model.classifier().is_none());
}

#[test]
fn resnets_of_timm() {
    let (loaded, ..) = resnet("resnet-timm");
    let labels = loaded.model.classifier().expect("a classifier").labels();
    assert!(!labels[0].starts_with("LABEL"), "{labels:?}");
}

#[test]
fn resnets_of_torchvision_are_known_by_their_weights_alone() {
    let case = "resnet-torchvision";
    let (loaded, expected) = (load(case), Expected::of(case));
    // torchvision's own size; the fixture's smaller pictures are given as they are.
    let pictures = expected.pictures();
    let pixels = tensor(&loaded, &pictures);
    assert_eq!(pixels.dims()[2..], [224, 224]);
    let Model::ResNet(net) = &loaded.model else { panic!("not a ResNet") };
    expected.check("pooled_224", &net.forward(&pixels).expect("features").pooled, 5e-4);
    let classifier = loaded.model.classifier().expect("a classifier");
    expected.check("logits_224", &classifier.classify(&pixels).expect("logits"), 5e-4);
    let shape = expected.file.shape("pixel_values").expect("pixels").to_vec();
    let pixels = Tensor::from_vec(expected.values("pixel_values"), shape, &Device::Cpu).expect("pixels");
    let features = net.forward(&pixels).expect("features");
    expected.check("last_hidden_state", &features.tokens.transpose(1, 2).expect("channels first"), 5e-4);
    expected.check("logits", &classifier.classify(&pixels).expect("logits"), 5e-4);
}

/// `[count, patches, values]` of pictures cut row by row, zeros behind each.
fn patches(pictures: &[Picture], loaded: &Loaded, most: usize) -> Vec<f32> {
    let image = loaded.processor.image().expect("an image processor");
    let (side, _) = image.patches().expect("patches");
    let mut all = Vec::new();
    for picture in pictures {
        let pixels = image.process(picture);
        let (down, across) = (pixels.height / side, pixels.width / side);
        let mut rows = Vec::new();
        for place in 0..down * across {
            let (y, x) = (place / across * side, place % across * side);
            for inside in 0..side * side {
                let at = (y + inside / side) * pixels.width + x + inside % side;
                rows.extend((0..3).map(|channel| pixels.values[channel * pixels.height * pixels.width + at]));
            }
        }
        rows.resize(most * side * side * 3, 0.0);
        all.extend(rows);
    }
    all
}

#[test]
fn siglip_2_of_any_shape() {
    let case = "siglip2-naflex";
    contrastive(case);
    let (loaded, expected) = (load(case), Expected::of(case));
    assert_eq!(loaded.model.kind(), "siglip2");
    let shape = expected.file.shape("pixel_values").expect("pixels").to_vec();
    let found = patches(&expected.pictures(), &loaded, shape[1]);
    expected.check("pixel_values", &Tensor::from_vec(found, shape, &Device::Cpu).expect("patches"), 1e-6);
    let Model::Siglip(siglip) = &loaded.model else { panic!("not a SigLIP") };
    for grid in [[2, 10], [3, 3], [5, 4], [6, 1]] {
        let name = format!("position_embeddings_{}x{}", grid[0], grid[1]);
        expected.check(&name, &siglip.vision().positions(grid).expect("positions"), 1e-6);
    }
}
