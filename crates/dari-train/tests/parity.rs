//! The training step against PyTorch: loss, every gradient, and twenty AdamW steps; see `parity/`.
#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{Device, Tensor};
use dari_data::image::Pixels;
use dari_files::{Checkpoint, Folder};
use dari_models::adapter;
use dari_models::capability::Tokens;
use dari_models::language::gpt2::Conv1d;
use dari_models::{Loaded, auto};
use dari_nn::{Gradients, Precision, Products, Training, loss, weights::floats};
use dari_train::checkpoint::{self, Saved};
use dari_train::optimizer::{AdamW, AdamWConfig};
use dari_train::speech::{self, Lesson};
use serde_json::Value;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/parity")
}

fn values(file: &Checkpoint, name: &str) -> Vec<f32> {
    floats(&file.tensor(name).expect("an expected tensor")).expect("floats")
}

/// Every `step`th row of a gradient, where the fixture keeps no more.
fn thinned(inputs: &Value, name: &str, gradient: &Tensor, values: Vec<f32>) -> Vec<f32> {
    match inputs["gradient_row_steps"].get(name).and_then(Value::as_u64) {
        Some(step) => {
            let width = gradient.elem_count() / gradient.dims()[0];
            values.chunks(width).step_by(step as usize).flatten().copied().collect()
        }
        None => values,
    }
}

fn integers(file: &Checkpoint, name: &str) -> Vec<u32> {
    let view = file.tensor(name).expect("expected integers");
    view.data.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().expect("8 bytes")) as u32).collect()
}

fn total_loss(loaded: &Loaded, pixels: &Tensor, tokens: &Tokens) -> Tensor {
    let model = loaded.model.contrastive().expect("a contrastive model");
    let pictures = loss::normalise(&model.embed_pictures(pixels).expect("pictures")).expect("unit");
    let texts = loss::normalise(&model.embed_texts(tokens).expect("texts")).expect("unit");
    model.loss(&pictures, &texts).expect("a loss")
}

/// A model with its inputs, and what PyTorch found for them.
struct Case {
    loaded: Loaded,
    pixels: Tensor,
    tokens: Tokens,
    expected: Checkpoint,
    gradients: Checkpoint,
    inputs: Value,
}

impl Case {
    fn open(case: &str, source: &str, training: Training) -> Case {
        let folder = Folder::open(&fixtures().join(source)).expect("the model");
        let loaded = auto::load_for_training(&folder, &Device::Cpu, training, None).expect("loaded");
        Case::with(case, source, loaded)
    }

    fn with(case: &str, source: &str, loaded: Loaded) -> Case {
        let text = std::fs::read_to_string(fixtures().join(case).join("inputs.json")).expect("inputs");
        let inputs: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(inputs["model"], source);
        let open = |file: &str| Checkpoint::open(&fixtures().join(case).join(file)).expect("expected values");
        let (expected, gradients) = (open("expected.safetensors"), open("expected_gradients.safetensors"));
        let prepared =
            Checkpoint::open(&fixtures().join(source).join("expected.safetensors")).expect("pixels");
        let shape = prepared.shape("pixel_values").expect("pixels").to_vec();
        let pixels =
            Tensor::from_vec(values(&prepared, "pixel_values"), shape, &Device::Cpu).expect("pixels");
        let length = expected.shape("input_ids").expect("ids")[1];
        let ids: Vec<Vec<u32>> =
            integers(&expected, "input_ids").chunks(length).map(<[u32]>::to_vec).collect();
        let mask = ids.iter().map(|row| vec![1; row.len()]).collect();
        Case { loaded, pixels, tokens: Tokens { ids, mask }, expected, gradients, inputs }
    }
}

/// GPT-2's files have some weights turned.
fn as_stored(case: &str, name: &str, tensor: Tensor) -> Tensor {
    match case.starts_with("gpt2") && Conv1d::is_turned(name) {
        true => tensor.t().and_then(|turned| turned.contiguous()).expect("turned"),
        false => tensor,
    }
}

fn norm(x: impl Iterator<Item = f32>) -> f64 {
    x.map(|v| f64::from(v).powi(2)).sum::<f64>().sqrt()
}

/// Whether rounding is all that a gradient is: nothing to be relative to.
fn is_noise(name: &str) -> bool {
    name.ends_with("k_proj.bias") || name.ends_with("key.bias")
}

fn check(case: &str, source: &str) {
    let Case { loaded, pixels, tokens, expected, gradients, inputs } =
        Case::open(case, source, Training::all(0));
    follow(case, &loaded, &expected, &gradients, &inputs, &|| total_loss(&loaded, &pixels, &tokens));
}

/// Compares the first gradients, the losses and what is trained with PyTorch's.
fn follow(
    case: &str,
    loaded: &Loaded,
    expected: &Checkpoint,
    gradients: &Checkpoint,
    inputs: &Value,
    lost: &dyn Fn() -> Tensor,
) {
    let variables: BTreeMap<_, _> = loaded.weights.variables().into_iter().collect();
    let first = lost();
    let found = Gradients::of(&first).expect("gradients");
    let rows = match gradients.shape("token_rows") {
        Some(_) => integers(gradients, "token_rows"),
        None => Vec::new(),
    };
    let (mut worst, mut compared) = (0f64, 0);
    // Those of a tower under open_clip's names are compared where ours are the same.
    let ours = |name: &&str| !name.starts_with("norm.") && variables.contains_key(*name);
    for name in gradients.names().filter(ours) {
        let gradient = found.get(variables[name].as_tensor()).expect("gradients");
        let gradient = gradient.unwrap_or_else(|| panic!("{case}: `{name}` has no gradient"));
        let gradient = as_stored(case, name, gradient);
        let all = gradient.flatten_all().and_then(|g| g.to_vec1::<f32>()).expect("values");
        if gradients.shape(&format!("norm.{name}")).is_some() {
            let theirs = f64::from(values(gradients, &format!("norm.{name}"))[0]);
            let size = norm(all.iter().copied());
            assert!((size - theirs).abs() <= 1e-4 * theirs, "{case} {name}: norm {size}, expected {theirs}");
        }
        let ours = match name.ends_with("token_embedding.weight") {
            true => {
                let width = gradient.dims()[1];
                let kept = |row: usize| rows.contains(&(row as u32));
                let other = all.chunks(width).enumerate().filter(|(row, _)| !kept(*row));
                assert!(
                    other.flat_map(|(_, values)| values).all(|&g| g == 0.0),
                    "{case}: tokens that do not occur"
                );
                rows.iter().flat_map(|&row| all[row as usize * width..][..width].to_vec()).collect()
            }
            false => thinned(inputs, name, &gradient, all),
        };
        let theirs = values(gradients, name);
        assert_eq!(ours.len(), theirs.len(), "{case} {name}");
        let size = norm(theirs.iter().copied());
        let off = norm(ours.iter().zip(&theirs).map(|(a, b)| a - b));
        let allowed = if is_noise(name) { 1e-6 } else { 1e-4 * size + 1e-8 };
        assert!(off <= allowed, "{case} {name}: off by {off} of {size}");
        if !is_noise(name) {
            worst = worst.max(off / size.max(1e-12));
        }
        compared += 1;
    }
    assert!(compared * 3 >= variables.len() * 2, "{case}: {compared} gradients of {}", variables.len());
    println!("| {case} | largest difference of a gradient over its norm | {worst:.1e} |");

    let config = AdamWConfig { beta1: 0.9, beta2: 0.98, epsilon: 1e-6, weight_decay: 0.1, clip: 0.0 };
    let optimizer = AdamW::new(config, loaded.weights.variables());
    let losses = values(expected, "losses");
    let mut furthest: f32 = 0.0;
    let mut near = |step: usize, loss: &Tensor| {
        let (ours, theirs) = (loss.to_scalar::<f32>().expect("a number"), losses[step]);
        furthest = furthest.max((ours - theirs).abs());
        assert!((ours - theirs).abs() < 1e-3, "{case}, step {step}: loss {ours}, expected {theirs}");
    };
    near(0, &first);
    optimizer.update(&found, 1e-3, 1, 1.0).expect("a step");
    for step in 1..losses.len() - 1 {
        let loss = lost();
        near(step, &loss);
        let slopes = Gradients::of(&loss).expect("gradients");
        optimizer.update(&slopes, 1e-3, step as u64 + 1, 1.0).expect("a step");
    }
    let all: BTreeMap<_, _> = loaded.weights.tensors().into_iter().collect();
    let mut held = 0;
    for name in
        expected.names().filter_map(|name| name.strip_prefix("trained.")).filter(|name| !is_noise(name))
    {
        let Some(ours) = all.get(name) else { continue };
        let ours = as_stored(case, name, ours.clone());
        let ours = ours.flatten_all().and_then(|v| v.to_vec1::<f32>()).expect("values");
        let theirs = values(expected, &format!("trained.{name}"));
        for (a, b) in ours.iter().zip(&theirs) {
            let allowed = 1e-4 * b.abs().max(1.0);
            assert!((a - b).abs() < allowed, "{case}: {name} is {a}, expected {b}");
        }
        held += 1;
    }
    assert!(held > 0, "{case}: nothing trained was compared");
    // Last, since a batch norm keeps count of every pass.
    near(losses.len() - 1, &lost());
    println!("| {case} | largest difference of a loss over {} steps | {furthest:.1e} |", losses.len() - 1);
}

/// Each tensor's gradient with products of bf16 points where PyTorch's in f32 does. Where the processor
/// has no such products this says nothing new.
fn check_bf16(case: &str, source: &str) {
    let training = Training { products: Products::Bf16, ..Training::all(0) };
    let Case { loaded, pixels, tokens, gradients, .. } = Case::open(case, source, training);
    let found = Gradients::of(&total_loss(&loaded, &pixels, &tokens)).expect("gradients");
    let variables: BTreeMap<_, _> = loaded.weights.variables().into_iter().collect();
    let mut least: f64 = 1.0;
    // Rows of a table come apart from the rest, and a key's bias has no slope but rounding.
    let whole = |name: &str| {
        name != "token_rows" && !name.ends_with("token_embedding.weight") && !name.ends_with("k_proj.bias")
    };
    for name in gradients.names().filter(|name| whole(name)) {
        let ours = found.get(variables[name].as_tensor()).expect("gradients").expect("a gradient");
        let ours = ours.flatten_all().and_then(|g| g.to_vec1::<f32>()).expect("values");
        let theirs = values(&gradients, name);
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| a as f64 * b as f64).sum::<f64>();
        let cosine = dot(&ours, &theirs) / (dot(&ours, &ours) * dot(&theirs, &theirs)).sqrt();
        assert!(cosine >= 0.999, "{case} {name}: cosine {cosine}");
        least = least.min(cosine);
    }
    println!("| {case}, products of bf16 | least cosine of a gradient with PyTorch's in f32 | {least:.5} |");
}

#[test]
fn gradients_with_bf16_products_point_the_same_way() {
    check_bf16("clip-training", "clip-laion");
    check_bf16("siglip-training", "siglip");
}

#[test]
fn clip_trains_as_in_pytorch() {
    check("clip-training", "clip-laion");
}

#[test]
fn siglip_trains_as_in_pytorch() {
    check("siglip-training", "siglip");
}

#[test]
fn siglip_2_of_any_shape_trains_as_in_pytorch() {
    let (case, source) = ("siglip2-naflex-training", "siglip2-naflex");
    let folder = Folder::open(&fixtures().join(source)).expect("the model");
    let loaded = auto::load_for_training(&folder, &Device::Cpu, Training::all(0), None).expect("loaded");
    let (expected, gradients, inputs) = read(case);
    let length = expected.shape("input_ids").expect("ids")[1];
    let ids: Vec<Vec<u32>> = integers(&expected, "input_ids").chunks(length).map(<[u32]>::to_vec).collect();
    let tokens = Tokens { mask: ids.iter().map(|row| vec![1; row.len()]).collect(), ids };
    let text = std::fs::read_to_string(fixtures().join(source).join("inputs.json")).expect("inputs");
    let names: Value = serde_json::from_str(&text).expect("JSON");
    let open = |name: &Value| {
        let path = fixtures().join("pictures").join(name.as_str().expect("a name"));
        dari_data::image::open(&path, &Default::default()).expect("a picture")
    };
    let pictures: Vec<_> = names["pictures"].as_array().expect("names").iter().take(4).map(open).collect();
    let pictures = loaded.processor.pixels(&pictures, &Device::Cpu).expect("pixels");
    assert!(pictures.tensor().is_none(), "pictures of one size prove nothing");
    let lost = || {
        let model = loaded.model.contrastive().expect("a contrastive model");
        let seen = pictures.each(|pixels| model.embed_pictures(pixels)).expect("pictures");
        let texts = model.embed_texts(&tokens).expect("texts");
        let unit = |x: &Tensor| loss::normalise(x).expect("unit");
        model.loss(&unit(&seen), &unit(&texts)).expect("a loss")
    };
    follow(case, &loaded, &expected, &gradients, &inputs, &lost);
}

/// What PyTorch found, and from what.
fn read(case: &str) -> (Checkpoint, Checkpoint, Value) {
    let folder = fixtures().join(case);
    let open = |file: &str| Checkpoint::open(&folder.join(file)).expect("expected values");
    let text = std::fs::read_to_string(folder.join("inputs.json")).expect("inputs");
    let inputs = serde_json::from_str(&text).expect("JSON");
    (open("expected.safetensors"), open("expected_gradients.safetensors"), inputs)
}

#[test]
fn classifiers_train_as_in_pytorch() {
    for source in ["vit", "resnet"] {
        let case = format!("classifier-training/{source}");
        let folder = Folder::open(&fixtures().join(source)).expect("the model");
        let loaded = auto::load_for_training(&folder, &Device::Cpu, Training::all(0), None).expect("loaded");
        let (expected, gradients, inputs) = read(&case);
        let prepared =
            Checkpoint::open(&fixtures().join(source).join("expected.safetensors")).expect("pixels");
        let shape = prepared.shape("pixel_values").expect("pixels").to_vec();
        let pixels =
            Tensor::from_vec(values(&prepared, "pixel_values"), shape, &Device::Cpu).expect("pixels");
        let labels = integers(&expected, "labels");
        let smoothing = inputs["label_smoothing"].as_f64().expect("a share") as f32;
        let lost = |smoothing: f32| {
            let model = loaded.model.classifier().expect("a classifier");
            loss::cross_entropy(&model.classify(&pixels).expect("logits"), &labels, smoothing)
                .expect("a loss")
        };
        if source == "vit" {
            // Without smoothing as well; a batch norm would keep count of it.
            let plain = lost(0.0).to_scalar::<f32>().expect("a number");
            assert!((plain - values(&expected, "first_loss_without_smoothing")[0]).abs() < 1e-5);
        }
        follow(&case, &loaded, &expected, &gradients, &inputs, &|| lost(smoothing));
    }
}

#[test]
fn clip_with_a_resnet_tower_trains_as_in_pytorch() {
    let (case, source) = ("clip-resnet-training", "clip-resnet-openai");
    let folder = Folder::open(&fixtures().join(source)).expect("the model");
    let loaded = auto::load_any_for_training(&folder, &Device::Cpu, Training::all(0)).expect("loaded");
    let Case { loaded, pixels, tokens, expected, gradients, inputs } = Case::with(case, source, loaded);
    follow(case, &loaded, &expected, &gradients, &inputs, &|| total_loss(&loaded, &pixels, &tokens));
}

/// What graphics cards run.
#[test]
fn by_candles_own_operations_they_train_the_same() {
    dari_nn::without_kernels(|| {
        check("clip-training", "clip-laion");
        check("siglip-training", "siglip");
    });
}

/// The texts of a case, without their padding.
fn lessons(expected: &Checkpoint) -> Vec<Lesson> {
    let length = expected.shape("input_ids").expect("ids")[1];
    let rows = |name: &str| -> Vec<Vec<u32>> {
        integers(expected, name).chunks(length).map(<[u32]>::to_vec).collect()
    };
    let kept = rows("attention_mask").into_iter().map(|row| row.iter().filter(|&&bit| bit == 1).count());
    let rows = rows("input_ids").into_iter().zip(rows("labels")).zip(kept);
    let lesson = |((ids, labels), kept): ((Vec<u32>, Vec<u32>), usize)| Lesson {
        said: labels[..kept].iter().map(|&label| label as i32 != -100).collect(),
        ids: ids[..kept].to_vec(),
        pieces: Vec::new(),
    };
    rows.map(lesson).collect()
}

fn speaks(case: &str, source: &str, training: Training, parts: usize) {
    let folder = Folder::open(&fixtures().join(source)).expect("the model");
    let loaded = auto::load_for_training(&folder, &Device::Cpu, training, None).expect("loaded");
    let (expected, gradients, inputs) = read(case);
    let mut lessons = lessons(&expected);
    if let Some(sees) = loaded.model.sees() {
        let prepared =
            Checkpoint::open(&fixtures().join(source).join("expected.safetensors")).expect("pixels");
        let side = sees.side();
        for (lesson, chat) in lessons.iter_mut().zip(inputs["chats"].as_array().expect("chats")) {
            let pixels = values(&prepared, &format!("pixel_values_{chat}"));
            let piece = |values: &[f32]| Pixels { values: values.to_vec(), height: side, width: side };
            lesson.pieces = pixels.chunks(3 * side * side).map(piece).collect();
        }
    }
    let loaded = Arc::new(loaded);
    let lost = || speech::loss(&loaded, lessons.clone(), parts, &Device::Cpu).expect("a loss");
    follow(case, &loaded, &expected, &gradients, &inputs, &lost);
}

#[test]
fn language_models_train_as_in_pytorch() {
    speaks("llama-training", "llama", Training::all(0), 8);
    speaks("gpt2-training", "gpt2", Training::all(0), 8);
    // In parts, and by candle's own operations.
    speaks("llama-training", "llama", Training::all(0), 2);
    dari_nn::without_kernels(|| {
        speaks("llama-training", "llama", Training::all(0), 8);
        speaks("gpt2-training", "gpt2", Training::all(0), 8);
    });
}

#[test]
fn what_follows_the_last_word_to_say_is_not_read() {
    let folder = Folder::open(&fixtures().join("llama")).expect("the model");
    let loaded = auto::load_for_training(&folder, &Device::Cpu, Training::all(0), None).expect("loaded");
    let loaded = Arc::new(loaded);
    let (expected, ..) = read("llama-training");
    let lessons = lessons(&expected);
    let longer: Vec<Lesson> = lessons
        .iter()
        .map(|lesson| {
            let mut lesson = lesson.clone();
            lesson.ids.extend([3, 5, 7]);
            lesson.said.extend([false; 3]);
            lesson
        })
        .collect();
    let silent = Lesson { said: vec![false; lessons[0].ids.len()], ..lessons[0].clone() };
    for (lesson, longer) in lessons.iter().zip(&longer) {
        assert_eq!(longer.read(), lesson.read());
        assert!(lesson.read().len() < lesson.ids.len());
    }
    assert!(silent.read().is_empty());
    let lost = |lessons: Vec<Lesson>| {
        let loss = speech::loss(&loaded, lessons, 8, &Device::Cpu).expect("a loss");
        loss.to_scalar::<f32>().expect("a number")
    };
    let of_lessons = lost(lessons);
    assert_eq!(lost(longer.clone()), of_lessons);
    assert_eq!(lost([vec![silent], longer].concat()), of_lessons);
}

#[test]
fn low_rank_adapters_train_as_in_peft() {
    let adapter = || {
        let folder = Folder::open(&fixtures().join("llama-lora")).expect("the adapter");
        adapter::read(&folder).expect("an adapter").expect("an adapter").adapters
    };
    let training = || Training { frozen: Box::new(|_| true), adapters: Some(adapter()), ..Training::all(0) };
    speaks("llama-lora", "llama", training(), 8);
    dari_nn::without_kernels(|| speaks("llama-lora", "llama", training(), 8));
}

#[test]
fn bridges_train_alone_as_in_pytorch() {
    let training = || Training {
        frozen: Box::new(|name| !name.starts_with("multi_modal_projector.")),
        ..Training::all(0)
    };
    speaks("llava-training", "llava-clip", training(), 8);
    speaks("llava-training", "llava-clip", training(), 1);
}

/// What an adapter computes beside its model, and the model that it is merged into.
#[test]
fn low_rank_adapters_compute_what_pefts_do() {
    let open = |case: &str| Folder::open(&fixtures().join(case)).expect("a folder");
    let folder = open("llama").with_adapter(open("llama-lora"));
    let (expected, ..) = read("llama-lora");
    let length = expected.shape("input_ids").expect("ids")[1];
    let ids = &integers(&expected, "input_ids")[..length];
    let out = tempfile::tempdir().expect("a folder");
    checkpoint::write_merged(out.path(), &folder, Saved::F32).expect("merged");
    let loaded = auto::load(&folder, &Device::Cpu, Precision::F32).expect("adapted");
    let merged = auto::load(&Folder::open(out.path()).expect("the model"), &Device::Cpu, Precision::F32)
        .expect("merged");
    for loaded in [&loaded, &merged] {
        let model = loaded.model.causal().expect("a language model");
        let x = Tensor::new(ids, &Device::Cpu).and_then(|ids| ids.unsqueeze(0)).expect("ids");
        let x = model.embed(&x).expect("embeddings");
        let logits = model.logits(&model.forward(&x, &[length]).expect("hidden")).expect("logits");
        let ours = logits.flatten_all().and_then(|x| x.to_vec1::<f32>()).expect("values");
        let theirs = values(&expected, "logits");
        let worst = ours.iter().zip(&theirs).fold(0f32, |worst, (a, b)| worst.max((a - b).abs()));
        assert!(ours.len() == theirs.len() && worst < 1e-4, "{worst}");
    }
    let file = Checkpoint::open(&out.path().join("model.safetensors")).expect("weights");
    for layer in ["q_proj", "v_proj"] {
        let name = format!("model.layers.0.self_attn.{layer}.weight");
        let (ours, theirs) = (values(&file, &name), values(&expected, &format!("merged.{name}")));
        assert!(ours.iter().zip(&theirs).all(|(a, b)| (a - b).abs() < 1e-6), "{name}");
    }
}
