//! Every encoder with every bridge and every language model: forward, backward, saved, loaded, the same.
#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{Device, Tensor};
use dari_data::image::Pixels;
use dari_files::Folder;
use dari_models::bridge::BridgeConfig;
use dari_models::generative::composed::ComposedConfig;
use dari_models::generative::illustrate;
use dari_models::{Loaded, auto};
use dari_nn::{Gradients, Precision, Training};
use dari_train::checkpoint::{self, Saved};
use dari_train::optimizer::{AdamW, AdamWConfig};
use dari_train::speech::{self, Lesson};

/// A checkpoint of each kind of tower.
const ENCODERS: [&str; 5] = ["clip-openai", "clip-resnet-openai", "siglip", "vit", "resnet"];
/// One of each kind of language model, and two in a GGUF file's blocks, which stay as they are.
const LANGUAGES: [&str; 6] = ["gpt2", "llama", "mistral", "qwen2", "gguf-llama", "gguf-qwen2"];

fn fixture(name: &str) -> Folder {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/parity").join(name);
    Folder::open(&path).unwrap_or_else(|error| panic!("{error}"))
}

fn fixture_file(name: &str) -> Folder {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/parity").join(name);
    Folder::open(&path.join("model.gguf")).unwrap_or_else(|error| panic!("{error}"))
}

fn compose(at: &Path, encoder: &str, bridge: BridgeConfig, language: &str) -> Folder {
    fixture(encoder).copy_to(&at.join("vision")).expect("the encoder");
    match language.starts_with("gguf") {
        true => fixture_file(language).copy_to(&at.join("language")),
        false => fixture(language).copy_to(&at.join("language")),
    }
    .expect("the language model");
    let config =
        ComposedConfig { bridge, vision_layers: None, unsure_below: None, image_token: "<image>".into() };
    std::fs::write(at.join("config.json"), config.to_json().to_string()).expect("the config");
    Folder::open(at).expect("the folder")
}

/// A bridge that takes squares takes those that divide this many places.
fn fitting(bridge: BridgeConfig, places: usize) -> BridgeConfig {
    let side = places.isqrt();
    match bridge {
        BridgeConfig::PixelShuffle { .. } => {
            let scale = (2..=side).find(|scale| side.is_multiple_of(*scale)).unwrap_or(1);
            BridgeConfig::PixelShuffle { scale }
        }
        other => other,
    }
}

fn lesson(loaded: &Loaded) -> Lesson {
    let sees = loaded.model.sees().expect("a model that sees");
    let mut ids = vec![7];
    ids.extend(vec![loaded.placeholder.expect("a placeholder"); sees.queries()]);
    ids.extend([11, 5, 9]);
    let said = (0..ids.len()).map(|at| at + 2 >= ids.len()).collect();
    let side = sees.side();
    let values = (0..3 * side * side).map(|i| ((i * 37 % 101) as f32) / 50.0 - 1.0).collect();
    Lesson { ids, said, pieces: vec![Pixels { values, height: side, width: side }] }
}

/// What it makes of the lesson: logits behind every token.
fn logits(loaded: &Loaded, lesson: &Lesson) -> Vec<f32> {
    let (sees, side) = (loaded.model.sees().expect("sees"), lesson.pieces[0].height);
    let pixels = Tensor::from_vec(lesson.pieces[0].values.clone(), (1, 3, side, side), &Device::Cpu);
    let seen = sees.see(&pixels.expect("pixels")).expect("seen");
    let placeholder = loaded.placeholder.expect("a placeholder");
    let prompt = illustrate(sees, lesson.ids.clone(), placeholder, &seen).expect("a prompt");
    let x = prompt.embeddings.expect("embeddings").unsqueeze(0).expect("a batch");
    let hidden = sees.language().forward(&x, &[lesson.ids.len()]).expect("hidden");
    sees.language().logits(&hidden).and_then(|x| Ok(x.flatten_all()?.to_vec1()?)).expect("logits")
}

fn walk(encoder: &str, bridge: BridgeConfig, language: &str, freeze: &'static [&'static str]) {
    let what = format!("{encoder} + {bridge:?} + {language}, frozen {freeze:?}");
    let (start, end) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    // How many places there are is known when a bridge that takes any has been tried.
    let places = {
        let folder = compose(start.path(), encoder, BridgeConfig::Linear, language);
        let loaded = auto::load_for_training(&folder, &Device::Cpu, Training::all(0), None);
        loaded.unwrap_or_else(|error| panic!("{what}: {error}")).model.sees().expect("sees").queries()
    };
    let folder = compose(start.path(), encoder, fitting(bridge, places), language);
    let frozen = move |name: &str| freeze.iter().any(|prefix| name.starts_with(prefix));
    let training = Training { frozen: Box::new(frozen), ..Training::all(3) };
    let loaded = auto::load_for_training(&folder, &Device::Cpu, training, None);
    let loaded = Arc::new(loaded.unwrap_or_else(|error| panic!("{what}: {error}")));
    let lesson = lesson(&loaded);
    let loss = speech::loss(&loaded, vec![lesson.clone()], 1, &Device::Cpu).expect("a loss");
    let gradients = Gradients::of(&loss).expect("gradients");
    let variables: BTreeMap<_, _> = loaded.weights.variables().into_iter().collect();
    let moved = |prefix: &str| {
        let own = variables.iter().filter(|(name, _)| name.starts_with(prefix));
        let sizes = own.map(|(name, variable)| {
            let gradient = gradients.get(variable.as_tensor()).expect("gradients");
            let size = gradient.map_or(0.0, |gradient| {
                let sum = gradient.sqr().and_then(|g| g.sum_all()).and_then(|g| g.to_scalar::<f32>());
                sum.expect("a number")
            });
            assert!(size.is_finite(), "{what}: {name}");
            size
        });
        sizes.sum::<f32>()
    };
    for prefix in ["vision.", "bridge.", "language."] {
        let is_frozen = freeze.contains(&prefix);
        assert_eq!(variables.keys().any(|name| name.starts_with(prefix)), !is_frozen, "{what}");
        assert!(is_frozen || moved(prefix) > 0.0, "{what}: nothing of {prefix} is moved");
    }
    let optimizer = AdamW::new(AdamWConfig::default(), loaded.weights.variables());
    optimizer.update(&gradients, 1e-5, 1, 1.0).expect("a step");
    let after = speech::loss(&loaded, vec![lesson.clone()], 1, &Device::Cpu).expect("a loss");
    let value = |loss: &Tensor| loss.to_scalar::<f32>().expect("a number");
    assert!(value(&after) < value(&loss), "{what}: {} after a step, {} before", value(&after), value(&loss));

    checkpoint::write_composed(end.path(), &folder, &loaded, Saved::F32, None).expect("saved");
    let again = Folder::open(end.path()).expect("the model");
    let again = auto::load(&again, &Device::Cpu, Precision::F32);
    let again = again.unwrap_or_else(|error| panic!("{what}, loaded again: {error}"));
    assert_eq!(again.unused, Vec::<String>::new(), "{what}");
    let (before, now) = (logits(&loaded, &lesson), logits(&again, &lesson));
    let most = before.iter().fold(1f32, |most, x| most.max(x.abs()));
    let far = before.iter().zip(&now).fold(0f32, |far, (a, b)| far.max((a - b).abs()));
    assert!(before.len() == now.len() && far < 2e-4 * most, "{what}: off by {far} of {most}");
}

#[test]
fn every_encoder_bridge_and_language_model_compose() {
    let mut count = 0;
    for encoder in ENCODERS {
        for bridge in BridgeConfig::EACH {
            for language in LANGUAGES {
                walk(encoder, bridge, language, &["vision.", "language."]);
                count += 1;
            }
        }
    }
    println!("{count} systems composed");
    assert_eq!(count, ENCODERS.len() * BridgeConfig::EACH.len() * LANGUAGES.len());
}

#[test]
fn all_three_blocks_can_be_trained() {
    walk("clip-openai", BridgeConfig::Mlp, "gpt2", &[]);
    walk("siglip", BridgeConfig::Linear, "qwen2", &["vision."]);
}

#[test]
fn layers_of_the_tower_stand_side_by_side() {
    let start = tempfile::tempdir().expect("a folder");
    let _ = compose(start.path(), "clip-openai", BridgeConfig::Mlp, "llama");
    let set = |layers: &[i64]| {
        let config = ComposedConfig {
            bridge: BridgeConfig::Mlp,
            vision_layers: Some(layers.to_vec()),
            unsure_below: None,
            image_token: "<image>".into(),
        };
        std::fs::write(start.path().join("config.json"), config.to_json().to_string()).expect("the config");
        let folder = Folder::open(start.path()).expect("the folder");
        auto::load_for_training(&folder, &Device::Cpu, Training::all(0), None)
    };
    let width = |loaded: &Loaded| {
        let all = loaded.weights.tensors();
        all.iter().find(|(name, _)| name == "bridge.linear_1.weight").expect("the bridge").1.dims()[1]
    };
    let (one, two) = (set(&[-2]).expect("one"), set(&[-2, 1]).expect("two"));
    assert_eq!(2 * width(&one), width(&two));
    assert!(!logits(&two, &lesson(&two)).is_empty());
    assert!(set(&[]).is_err());
}

#[test]
fn parts_that_do_not_fit_are_refused_in_one_line() {
    let at: PathBuf = tempfile::tempdir().expect("a folder").keep();
    for (encoder, language, bridge, expected) in [
        ("bert", "llama", r#"{"kind":"mlp"}"#, "no encoder"),
        ("vit", "bert", r#"{"kind":"mlp"}"#, "writes no texts"),
        ("vit", "llama", r#"{"kind":"q_former"}"#, "unknown variant"),
        ("vit", "llama", r#"{"kind":"pixel_shuffle","scale":7}"#, "does not divide"),
    ] {
        let folder = compose(&at, encoder, BridgeConfig::Mlp, language);
        let config = format!(r#"{{"model_type":"composed","bridge":{bridge}}}"#);
        std::fs::write(at.join("config.json"), config).expect("the config");
        let loaded = auto::load_for_training(&folder, &Device::Cpu, Training::all(0), None);
        let message = loaded.err().expect("an error").to_string();
        assert!(message.contains(expected) && !message.contains('\n'), "{message}");
        std::fs::remove_dir_all(at.join("vision")).expect("removed");
        std::fs::remove_dir_all(at.join("language")).expect("removed");
    }
    std::fs::write(at.join("config.json"), r#"{"model_type":"composed","bridge":{"kind":"mlp"}}"#)
        .expect("written");
    let folder = Folder::open(&at).expect("the folder");
    let loaded = auto::load(&folder, &Device::Cpu, Precision::F32);
    assert!(loaded.err().expect("an error").to_string().contains("no folder `vision`"));
    let _ = std::fs::remove_dir_all(&at);
}
