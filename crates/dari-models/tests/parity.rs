//! Every model against what the reference libraries compute from the same files; see `parity/`.
//!
//! `cargo test --workspace --test parity -- --nocapture` prints the table of differences.
#![allow(clippy::print_stdout)]

mod support;

use candle_core::{Device, Tensor};
use dari_data::image::Picture;
use dari_files::Folder;
use dari_models::language::bert::Pooling;
use dari_models::{Loaded, Model, auto};
use dari_nn::{Precision, loss};
use support::{Expected, HINT, load, repository};

const CLOSE: f32 = 1e-4;

fn of(case: &str) -> Expected {
    Expected::of(case, HINT)
}

/// Places in one row, laid out down and across as the expected tensor has them.
fn check_places(expected: &Expected, name: &str, found: &Tensor, tolerance: f32) {
    let shape = expected.tensor(name).dims().to_vec();
    expected.check(name, &found.reshape(shape).expect("as many values"), tolerance);
}

/// Prepared pictures of one size.
fn tensor(loaded: &Loaded, pictures: &[Picture]) -> Tensor {
    let pictures = loaded.processor.pixels(pictures, &Device::Cpu).expect("pixels");
    pictures.tensor().expect("one size").clone()
}

fn contrastive(case: &str) {
    contrastive_of(&load(case), &load(case), &of(case));
}

/// `prepare` has the processor, `loaded` the weights.
fn contrastive_of(prepare: &Loaded, loaded: &Loaded, expected: &Expected) {
    let prepared = prepare.processor.pixels(&expected.pictures(), &Device::Cpu).expect("pixels");
    let pixels = prepared.tensor();
    if let Some(pixels) = pixels.filter(|_| expected.has("pixel_values")) {
        expected.check("pixel_values", pixels, 1e-6);
    }
    let tokens = expected.tokens(prepare);
    let model = loaded.model.contrastive().expect("a contrastive model");
    let pictures = prepared.each(|pixels| model.embed_pictures(pixels)).expect("pictures");
    let pictures = loss::normalise(&pictures).expect("unit");
    let texts = loss::normalise(&model.embed_texts(&tokens).expect("texts")).expect("unit");
    expected.check("image_embeddings", &pictures, CLOSE);
    expected.check("text_embeddings", &texts, CLOSE);
    let logits = model.logits(&pictures, &texts).expect("logits");
    expected.check("logits_per_image", &logits, 5e-4);
    if let Some(pixels) = pixels.filter(|_| expected.has("vision_last_hidden_state")) {
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
        let expected = Expected::at("clip-openai-bf16", HINT, "clip-openai");
        contrastive_of(&prepare, &load(case), &expected);
        let folder = Folder::open(&repository("fixtures/parity").join(case)).expect("the fixture");
        let packed = auto::load(&folder, &Device::Cpu, Precision::Bf16).expect("bf16");
        if dari_nn::has_bf16_products() {
            // What they are multiplied with is rounded as well.
            let pixels = tensor(&prepare, &expected.pictures());
            let model = packed.model.contrastive().expect("a contrastive model");
            let pictures = loss::normalise(&model.embed_pictures(&pixels).expect("pictures"));
            let texts = loss::normalise(&model.embed_texts(&expected.tokens(&prepare)).expect("texts"));
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
    let (loaded, expected) = (load("vit"), of("vit"));
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
    let (loaded, expected) = (load("vit-pooler"), of("vit-pooler"));
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
    let (loaded, expected) = (load("bert"), of("bert"));
    let tokens = expected.tokens(&loaded);
    let Model::Bert(bert) = &loaded.model else { panic!("not a BERT") };
    for (name, pooling) in [("mean_embeddings", Pooling::Mean), ("class_embeddings", Pooling::Class)] {
        let pooled = bert.embed(&tokens, pooling).expect("pooled");
        expected.check(name, &loss::normalise(&pooled).expect("unit"), CLOSE);
    }
    expected.check("pooled", &bert.pooled(&tokens).expect("pooled").expect("a pooler"), CLOSE);
}

#[test]
fn bert_fills_masks() {
    let (loaded, expected) = (load("bert-masked"), of("bert-masked"));
    let tokens = expected.tokens(&loaded);
    let logits = loaded.model.fill_mask().expect("a word head").mask_logits(&tokens).expect("logits");
    let rows: Vec<Tensor> = expected
        .whole_numbers("masked_places")
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
    let (loaded, expected) = (load("clip-resnet-openai"), of("clip-resnet-openai"));
    let pixels = tensor(&loaded, &expected.pictures());
    let Model::Clip(clip) = &loaded.model else { panic!("not a CLIP") };
    let map = clip.resnet().expect("a ResNet").feature_map(&pixels).expect("features");
    expected.check("vision_feature_map", &map.permute((0, 3, 1, 2)).expect("channels first"), 5e-4);
    let features = loaded.model.pictures().expect("embeds").embed_pictures(&pixels).expect("features");
    expected.check("image_features", &features, 5e-4);
    assert_eq!(loaded.unused, Vec::<String>::new());
}

fn resnet(case: &str) -> (Loaded, Expected, Tensor) {
    let (loaded, expected) = (load(case), of(case));
    let pixels = tensor(&loaded, &expected.pictures());
    expected.check("pixel_values", &pixels, 1e-6);
    let Model::ResNet(net) = &loaded.model else { panic!("{case}: not a ResNet") };
    let features = net.forward(&pixels).expect("features");
    let map = features.tokens.transpose(1, 2).expect("channels first");
    check_places(&expected, "last_hidden_state", &map, 5e-4);
    expected.check("pooled", &features.pooled, 5e-4);
    if expected.has("logits") {
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
    let (loaded, expected) = (load(case), of(case));
    // torchvision's own size; the fixture's smaller pictures are given as they are.
    let pictures = expected.pictures();
    let pixels = tensor(&loaded, &pictures);
    assert_eq!(pixels.dims()[2..], [224, 224]);
    let Model::ResNet(net) = &loaded.model else { panic!("not a ResNet") };
    expected.check("pooled_224", &net.forward(&pixels).expect("features").pooled, 5e-4);
    let classifier = loaded.model.classifier().expect("a classifier");
    expected.check("logits_224", &classifier.classify(&pixels).expect("logits"), 5e-4);
    let pixels = expected.tensor("pixel_values");
    let features = net.forward(&pixels).expect("features");
    check_places(
        &expected,
        "last_hidden_state",
        &features.tokens.transpose(1, 2).expect("channels first"),
        5e-4,
    );
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
    let (loaded, expected) = (load(case), of(case));
    assert_eq!(loaded.model.kind(), "siglip2");
    let shape = expected.tensor("pixel_values").dims().to_vec();
    let found = patches(&expected.pictures(), &loaded, shape[1]);
    expected.check("pixel_values", &Tensor::from_vec(found, shape, &Device::Cpu).expect("patches"), 1e-6);
    let Model::Siglip(siglip) = &loaded.model else { panic!("not a SigLIP") };
    for grid in [[2, 10], [3, 3], [5, 4], [6, 1]] {
        let name = format!("position_embeddings_{}x{}", grid[0], grid[1]);
        check_places(&expected, &name, &siglip.vision().positions(grid).expect("positions"), 1e-6);
    }
}
