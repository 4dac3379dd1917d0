//! Whole runs at tiny size: new models, going on from checkpoints, interruptions, damage.

mod support;

use std::collections::BTreeMap;
use std::path::Path;

use dari_data::scenes::Scene;
use dari_files::{Checkpoint, Folder};
use dari_train::{Error, Outcome};
use support::{Quiet, run};

const CLIP: &str = r#"
seed = 3
output = "run"

[model]
freeze = []
[model.config]
model_type = "clip"
projection_dim = 16
[model.config.vision_config]
hidden_size = 16
intermediate_size = 32
num_hidden_layers = 1
num_attention_heads = 2
image_size = 16
patch_size = 8
[model.config.text_config]
hidden_size = 16
intermediate_size = 32
num_hidden_layers = 1
num_attention_heads = 2
max_position_embeddings = 16
[model.preprocessor]
image_processor_type = "CLIPImageProcessor"
do_resize = true
size = { height = 16, width = 16 }
resample = 3
do_center_crop = false
do_rescale = true
rescale_factor = 0.00392156862745098
do_normalize = true
image_mean = [0.5, 0.5, 0.5]
image_std = [0.5, 0.5, 0.5]
[model.tokenizer]
vocabulary = 360
scene_captions = 200

[[data]]
scenes = 1
weight = 1.0

[[data]]
path = "pairs.jsonl"
weight = 1.0

[augment]
crop = 0.6

[train]
steps = 12
batch = 6
learning_rate = 1e-3
warmup = 2
checkpoint_every = 1
keep = 2
"#;

/// A folder with the recipe and five pictures with captions, one of them damaged.
fn workplace(recipe: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let mut lines = String::new();
    for index in 0..5 {
        let name = format!("{index}.png");
        let path = folder.path().join(&name);
        let scene = Scene::draw(77, index);
        scene.render(20).write_png(&path).expect("written");
        if index == 3 {
            std::fs::write(&path, b"\x89PNG\r\n\x1a\nbroken").expect("written");
        }
        lines += &format!(
            "{{\"picture\": \"{name}\", \"caption\": {{\"en\": \"drawing {index}\", \"ko\": \"그림 {index}\"}}}}\n"
        );
    }
    std::fs::write(folder.path().join("pairs.jsonl"), lines).expect("written");
    std::fs::write(folder.path().join("recipe.toml"), recipe).expect("written");
    folder
}

fn weights(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let file = Checkpoint::open(&folder.join("model.safetensors")).expect("weights");
    file.names()
        .map(|name| (name.to_owned(), file.tensor(name).expect("a tensor").data.into_owned()))
        .collect()
}

#[test]
fn an_interrupted_run_goes_on_as_if_it_never_was() {
    let folder = workplace(CLIP);
    let mut whole = Quiet::new();
    let ended = run(folder.path(), &["output=whole"], false, &mut whole).expect("a run");
    assert_eq!(ended, Outcome::Finished(folder.path().join("whole/model")));
    assert_eq!(whole.losses.len(), 12);
    assert!(
        whole.skipped.iter().any(|message| message.contains("3.png") || message.contains("line 4")),
        "{:?}",
        whole.skipped
    );

    let mut first = Quiet { stop_at: 7, ..Quiet::new() };
    assert!(matches!(run(folder.path(), &["output=cut"], false, &mut first), Ok(Outcome::Stopped(_))));
    let mut second = Quiet::new();
    run(folder.path(), &["output=cut"], true, &mut second).expect("the rest");
    let joined: Vec<f32> = first.losses.iter().chain(&second.losses).copied().collect();
    assert_eq!(joined, whole.losses);
    assert_eq!(weights(&folder.path().join("cut/model")), weights(&folder.path().join("whole/model")));
    let log = |name: &str| {
        std::fs::read_to_string(folder.path().join(name).join("metrics.jsonl")).expect("metrics")
    };
    let losses = |text: &str| -> Vec<f64> {
        text.lines()
            .map(|line| {
                serde_json::from_str::<serde_json::Value>(line).expect("JSON")["loss"].as_f64().expect("loss")
            })
            .collect()
    };
    assert_eq!(losses(&log("cut")), losses(&log("whole")));

    // Its tokenizer outlives the checkpoint that it was taken up from.
    let folder_of = |name: &str| Folder::open(&folder.path().join(name)).expect("a model");
    let (cut, start) = (folder_of("cut/model"), folder_of("cut/start"));
    assert_eq!(cut.read("tokenizer.json").expect("read"), start.read("tokenizer.json").expect("read"));
    assert!(cut.has("tokenizer.json") && cut.has("tokenizer_config.json"));

    // A run that is there is not written over, nor taken up under other settings.
    let error =
        run(folder.path(), &["output=cut"], false, &mut Quiet::new()).expect_err("refused").to_string();
    assert!(error.contains("--resume"), "{error}");
    let error = run(folder.path(), &["output=cut", "train.batch=8"], true, &mut Quiet::new())
        .expect_err("refused")
        .to_string();
    assert!(error.contains("recipe has changed"), "{error}");
}

#[test]
fn a_trained_model_is_gone_on_from_with_part_of_it_frozen() {
    let folder = workplace(CLIP);
    run(folder.path(), &["train.steps=3"], false, &mut Quiet::new()).expect("a run");
    let start = folder.path().join("run/model");
    let recipe = CLIP.split("[model]").next().expect("the head").to_owned()
        + "[model]\nfrom = \"START\"\nfreeze = [\"vision_model.*\", \"visual_projection.*\"]\n[[data]]\nscenes = 2\n[train]\nsteps = 3\nbatch = 4\nlearning_rate = 1e-2\n";
    let text = recipe.replace("START", start.to_str().expect("a path")).replace("\"run\"", "\"tuned\"");
    std::fs::write(folder.path().join("recipe.toml"), text).expect("written");
    run(folder.path(), &[], false, &mut Quiet::new()).expect("tuned");
    let (before, after) = (weights(&start), weights(&folder.path().join("tuned/model")));
    for (name, old) in &before {
        let frozen = name.starts_with("vision_model") || name.starts_with("visual_projection");
        // No weight decay reaches a vector whose gradient is zero; only matrices must have moved.
        if frozen {
            assert_eq!(old, &after[name], "{name} is frozen");
        } else if name.ends_with("fc1.weight") {
            assert_ne!(old, &after[name], "{name} is trained");
        }
    }
}

#[test]
fn siglip_trains_too() {
    let recipe = CLIP
        .replace("model_type = \"clip\"", "model_type = \"siglip\"")
        .replace("CLIPImageProcessor", "SiglipImageProcessor")
        .replace("do_center_crop = false\n", "");
    let folder = workplace(&recipe);
    let mut observer = Quiet::new();
    run(folder.path(), &["train.steps=8", "train.learning_rate=5e-3"], false, &mut observer).expect("a run");
    assert!(observer.losses[7] < observer.losses[0], "{:?}", observer.losses);
}

#[test]
fn a_number_that_is_none_stops_the_run_and_keeps_the_last_good_checkpoint() {
    let folder = workplace(CLIP);
    let settings =
        ["train.learning_rate=1e30", "train.warmup=0", "train.checkpoint_every=1", "optimizer.clip=0"];
    let error = run(folder.path(), &settings, false, &mut Quiet::new()).expect_err("a stop");
    let Error::NotFinite { step, what, kept } = &error else { panic!("{error}") };
    assert!(*step >= 1 && !what.is_empty(), "{error}");
    let list = std::fs::read_dir(folder.path().join("run/checkpoints")).map(|list| list.count()).unwrap_or(0);
    assert_eq!(kept == "none", list == 0, "{error}");
}

#[test]
fn a_set_with_no_usable_pair_is_an_error_at_once() {
    let folder = workplace(CLIP);
    for index in 0..5 {
        std::fs::write(folder.path().join(format!("{index}.png")), b"no picture").expect("written");
    }
    let error = run(folder.path(), &[], false, &mut Quiet::new()).expect_err("refused").to_string();
    assert!(error.contains("pairs.jsonl"), "{error}");
    let recipe = CLIP.replace("pairs.jsonl", "absent.jsonl");
    std::fs::write(folder.path().join("recipe.toml"), recipe).expect("written");
    let error = run(folder.path(), &[], false, &mut Quiet::new()).expect_err("refused").to_string();
    assert!(error.contains("absent.jsonl"), "{error}");
}

#[test]
fn half_written_checkpoints_are_passed_over() {
    let folder = workplace(CLIP);
    let mut first = Quiet { stop_at: 5, ..Quiet::new() };
    run(folder.path(), &[], false, &mut first).expect("stopped");
    let checkpoints = folder.path().join("run/checkpoints");
    std::fs::create_dir_all(checkpoints.join("step-00000009")).expect("made");
    std::fs::create_dir_all(checkpoints.join(".step-00000010.partial")).expect("made");
    let mut second = Quiet::new();
    run(folder.path(), &[], true, &mut second).expect("went on");
    assert_eq!(first.losses.len() + second.losses.len(), 12);
}

fn losses(settings: &[&str]) -> Vec<f32> {
    let folder = workplace(CLIP);
    let mut observer = Quiet::new();
    run(folder.path(), settings, false, &mut observer)
        .unwrap_or_else(|error| panic!("{settings:?}: {error}"));
    assert!(!observer.losses.is_empty());
    observer.losses
}

fn assert_near(some: &[f32], others: &[f32], what: &str) {
    assert_eq!(some.len(), others.len());
    for (loss, other) in some.iter().zip(others) {
        assert!((loss - other).abs() < 1e-4, "{what}: {loss} {other}");
    }
}

#[test]
fn parts_of_a_batch_and_segments_train_as_the_whole() {
    let whole = losses(&[]);
    for (name, settings) in [
        ("parts", &["train.micro_batch=3"][..]),
        ("segments", &["train.checkpoint_activations=true"]),
        ("both", &["train.micro_batch=2", "train.checkpoint_activations=true"]),
    ] {
        assert_near(&whole, &losses(settings), name);
    }
}

#[test]
fn patches_are_left_out_until_told() {
    let dropout = "train.patch_dropout=0.5";
    let (whole, half) = (losses(&[]), losses(&[dropout]));
    assert_ne!(whole[0], half[0]);
    assert_near(&half, &losses(&[dropout, "train.micro_batch=3"]), "parts");
    assert_eq!(whole, losses(&[dropout, "train.patch_dropout_until=0"]));
    // The first six of twelve steps.
    let first = losses(&[dropout, "train.patch_dropout_until=0.5"]);
    assert_eq!(first[..6], half[..6]);
    assert_ne!(first[6], half[6]);
}

fn numbers(folder: &Path) -> BTreeMap<String, Vec<f32>> {
    let file = Checkpoint::open(&folder.join("model.safetensors")).expect("weights");
    let read = |name: &str| dari_nn::weights::floats(&file.tensor(name).expect("a tensor")).expect("floats");
    file.names().map(|name| (name.to_owned(), read(name))).collect()
}

#[test]
fn the_finished_model_is_the_mean_of_the_steps() {
    let folder = workplace(CLIP);
    run(folder.path(), &["output=plain"], false, &mut Quiet::new()).expect("finished");
    let setting = "train.average=0.5";
    run(folder.path(), &[setting, "output=mean"], false, &mut Quiet::new()).expect("finished");
    let mut first = Quiet { stop_at: 5, ..Quiet::new() };
    run(folder.path(), &[setting, "output=again"], false, &mut first).expect("stopped");
    run(folder.path(), &[setting, "output=again"], true, &mut Quiet::new()).expect("went on");
    let of = |name: &str| numbers(&folder.path().join(name).join("model"));
    let (plain, mean) = (of("plain"), of("mean"));
    assert_eq!(mean, of("again"), "a run taken up again has another mean");
    // The last checkpoint holds the last step's weights in either case.
    let last = |name: &str| numbers(&folder.path().join(name).join("checkpoints/step-00000012"));
    assert_eq!(last("plain"), last("mean"));
    assert_eq!(last("plain"), plain);
    assert_ne!(mean, plain);
    let name = "visual_projection.weight";
    let before = numbers(&folder.path().join("mean/checkpoints/step-00000011"));
    for ((mean, last), before) in mean[name].iter().zip(&plain[name]).zip(&before[name]) {
        // Half of it is the last step, a quarter the one before: near both at this learning rate.
        assert!((mean - last).abs() <= 4.0 * (last - before).abs() + 4e-3, "{mean} {last} {before}");
    }
}

#[test]
fn rates_go_by_pattern() {
    let folder = workplace(CLIP);
    let rates = "train.rates={ \"text_model.*\" = 0.0, \"text_model.final*\" = 1.0 }";
    run(folder.path(), &[rates], false, &mut Quiet::new()).expect("finished");
    run(folder.path(), &["train.steps=3", "output=short", rates], false, &mut Quiet::new())
        .expect("finished");
    let (long, short) =
        (numbers(&folder.path().join("run/model")), numbers(&folder.path().join("short/model")));
    for (name, values) in &long {
        let still = name.starts_with("text_model.") && !name.starts_with("text_model.final");
        assert_eq!(*values == short[name], still, "{name}");
    }
    let wrong = run(folder.path(), &["train.rates={ \"x\" = -1.0 }", "output=o"], false, &mut Quiet::new());
    let message = wrong.expect_err("refused").to_string();
    assert!(message.contains("`train.rates` has -1 for \"x\""), "{message}");
}

#[test]
fn bf16_products_train_alike() {
    let folder = workplace(CLIP);
    let mut losses = Vec::new();
    for products in ["f32", "bf16"] {
        let mut observer = Quiet::new();
        let settings = [format!("train.products={products}"), format!("output={products}")];
        run(folder.path(), &settings.each_ref().map(String::as_str), false, &mut observer).expect("finished");
        losses.push(observer.losses);
    }
    for (f32, bf16) in losses[0].iter().zip(&losses[1]) {
        assert!((f32 - bf16).abs() < 0.02, "{losses:?}");
    }
    if dari_nn::has_bf16_products() {
        assert_ne!(losses[0], losses[1]);
    }
}
