//! The training step against PyTorch: loss, every gradient, and twenty AdamW steps; see `parity/`.
#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use dari_files::{Checkpoint, Folder};
use dari_models::capability::Tokens;
use dari_models::{Loaded, auto};
use dari_nn::{Gradients, Products, Training, loss, weights::floats};
use dari_train::optimizer::{AdamW, AdamWConfig};
use serde_json::Value;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/parity")
}

fn values(file: &Checkpoint, name: &str) -> Vec<f32> {
    floats(&file.tensor(name).expect("an expected tensor")).expect("floats")
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
}

impl Case {
    fn open(case: &str, source: &str, training: Training) -> Case {
        let folder = Folder::open(&fixtures().join(source)).expect("the model");
        let loaded = auto::load_for_training(&folder, &Device::Cpu, training).expect("loaded");
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
        Case { loaded, pixels, tokens: Tokens { ids, mask }, expected, gradients }
    }
}

fn check(case: &str, source: &str) {
    let Case { loaded, pixels, tokens, expected, gradients } = Case::open(case, source, Training::all(0));
    let variables: BTreeMap<_, _> = loaded.weights.variables().into_iter().collect();
    let found = Gradients::of(&total_loss(&loaded, &pixels, &tokens)).expect("gradients");
    let rows = integers(&gradients, "token_rows");
    let mut worst: f64 = 0.0;
    for name in gradients.names().filter(|name| *name != "token_rows") {
        let variable = variables.get(name).unwrap_or_else(|| panic!("{case}: `{name}` is not trained"));
        let gradient = found
            .get(variable.as_tensor())
            .expect("gradients")
            .unwrap_or_else(|| panic!("{case}: `{name}` has no gradient"));
        let all = gradient.flatten_all().and_then(|g| g.to_vec1::<f32>()).expect("values");
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
            false => all,
        };
        let theirs = values(&gradients, name);
        assert_eq!(ours.len(), theirs.len(), "{case} {name}");
        let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|v| v * v).sum::<f64>().sqrt();
        let size = norm(&mut theirs.iter().map(|&v| v as f64));
        let off = norm(&mut ours.iter().zip(&theirs).map(|(&a, &b)| (a - b) as f64));
        // A key's bias has no slope but rounding: nothing to be relative to.
        let allowed = if name.ends_with("k_proj.bias") { 1e-6 } else { 1e-4 * size + 1e-8 };
        assert!(off <= allowed, "{case} {name}: off by {off} of {size}");
        if !name.ends_with("k_proj.bias") {
            worst = worst.max(off / size.max(1e-12));
        }
    }
    println!("| {case} | largest difference of a gradient over its norm | {worst:.1e} |");

    let config = AdamWConfig { beta1: 0.9, beta2: 0.98, epsilon: 1e-6, weight_decay: 0.1, clip: 0.0 };
    let optimizer = AdamW::new(config, loaded.weights.variables());
    let losses = values(&expected, "losses");
    let mut furthest: f32 = 0.0;
    for (step, &theirs) in losses.iter().enumerate() {
        let loss = total_loss(&loaded, &pixels, &tokens);
        let ours = loss.to_scalar::<f32>().expect("a number");
        furthest = furthest.max((ours - theirs).abs());
        assert!((ours - theirs).abs() < 1e-3, "{case}, step {step}: loss {ours}, expected {theirs}");
        if step + 1 < losses.len() {
            let gradients = Gradients::of(&loss).expect("gradients");
            optimizer.update(&gradients, 1e-3, step as u64 + 1, 1.0).expect("a step");
        }
    }
    println!("| {case} | largest difference of a loss over 20 steps | {furthest:.1e} |");
    for name in expected
        .names()
        .filter_map(|name| name.strip_prefix("trained."))
        .filter(|name| !name.ends_with("k_proj.bias"))
    {
        let ours = variables[name].flatten_all().and_then(|v| v.to_vec1::<f32>()).expect("values");
        let theirs = values(&expected, &format!("trained.{name}"));
        for (a, b) in ours.iter().zip(&theirs) {
            assert!((a - b).abs() < 1e-4, "{case}: {name} is {a}, expected {b}");
        }
    }
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
