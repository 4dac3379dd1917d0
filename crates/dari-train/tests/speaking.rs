//! Runs of models that speak, at tiny size: composed anew, gone on with, beside an adapter; what goes wrong.

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::Device;
use dari_data::scenes::Scene;
use dari_files::{Checkpoint, Folder};
use dari_models::auto;
use dari_nn::Precision;
use dari_nn::weights::floats;
use dari_train::Outcome;
use serde_json::json;
use support::{Quiet, run};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/parity").join(name)
}

/// `mini`'s kind of system, very small, with every kind of data.
fn composed() -> String {
    format!(
        r#"
seed = 5
output = "run"
[model]
freeze = ["vision.*"]
[model.compose]
vision = "{}"
bridge = {{ kind = "mlp" }}
[model.compose.language_config]
model_type = "llama"
hidden_size = 16
intermediate_size = 24
num_hidden_layers = 2
num_attention_heads = 2
max_position_embeddings = 256
tie_word_embeddings = true
[model.tokenizer]
vocabulary = 400
scene_captions = 100
[[data]]
scenes = 1
kind = "questions"
turns = 2
[[data]]
path = "pairs.jsonl"
prompts = {{ en = ["what?"], ko = ["뭐야?"] }}
[[data]]
path = "talks.json"
kind = "conversations"
[[data]]
path = "questions.json"
kind = "questions"
annotations = "annotations.json"
[[data]]
path = "story.txt"
kind = "text"
[train]
steps = 8
batch = 10
learning_rate = 3e-3
length = 200
checkpoint_every = 1
"#,
        fixture("clip-openai").display()
    )
}

fn workplace(recipe: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: String| std::fs::write(folder.path().join(name), text).expect("written");
    for index in 0..3 {
        Scene::draw(5, index)
            .render(40)
            .write_png(&folder.path().join(format!("{index}.png")))
            .expect("a picture");
    }
    write("pairs.jsonl", r#"{"picture": "0.png", "caption": {"en": "a thing", "ko": "무엇"}}"#.into());
    let said = |from: &str, value: &str| json!({"from": from, "value": value});
    write(
        "talks.json",
        json!([
            {"image": "1.png", "conversations": [said("human", "<image>\nwhat?"), said("gpt", "a shape"),
                said("human", "sure?"), said("gpt", "yes")]},
            {"conversations": [said("human", "hello"), said("gpt", "hello to you")]},
            {"image": "gone.png", "conversations": [said("human", "<image>\nwhat?"), said("gpt", "nothing")]},
        ])
        .to_string(),
    );
    write(
        "questions.json",
        json!({"questions": [{"question_id": 7, "image_id": 2, "question": "how many?"}]}).to_string(),
    );
    write(
        "annotations.json",
        json!({"annotations": [{"question_id": 7, "image_id": 2, "multiple_choice_answer": "2"}]})
            .to_string(),
    );
    write("story.txt", "once there was a fox\n\n여우가 한 마리 있었다".into());
    write("recipe.toml", recipe.to_owned());
    folder
}

fn tensors(file: &Path) -> BTreeMap<String, Vec<f32>> {
    let file = Checkpoint::open(file).unwrap_or_else(|error| panic!("{error}"));
    let value = |name: &str| floats(&file.tensor(name).expect("a tensor")).expect("floats");
    file.names().map(|name| (name.to_owned(), value(name))).collect()
}

#[test]
fn a_new_system_learns_stops_and_goes_on_as_if_it_never_stopped() {
    let folder = workplace(&composed());
    let (mut whole, mut first, mut second) =
        (Quiet::new(), Quiet { stop_at: 3, ..Quiet::new() }, Quiet::new());
    let ended = run(folder.path(), &["output=whole"], false, &mut whole).expect("a run");
    let model = folder.path().join("whole/model");
    assert_eq!(ended, Outcome::Finished(model.clone()));
    assert!(whole.losses.last() < whole.losses.first(), "{:?}", whole.losses);
    assert!(whole.skipped.iter().all(|message| message.contains("gone.png")), "{:?}", whole.skipped);

    assert!(matches!(run(folder.path(), &["output=cut"], false, &mut first), Ok(Outcome::Stopped(_))));
    run(folder.path(), &["output=cut"], true, &mut second).expect("the rest");
    let joined: Vec<f32> = first.losses.iter().chain(&second.losses).copied().collect();
    assert_eq!(joined, whole.losses);
    for file in ["model.safetensors", "language/model.safetensors"] {
        let cut = folder.path().join("cut/model").join(file);
        assert_eq!(tensors(&cut), tensors(&model.join(file)));
    }
    // What was frozen is there byte by byte.
    let read = |path: &Path| std::fs::read(path).expect("weights");
    let eyes = "model.safetensors";
    assert_eq!(read(&model.join("vision").join(eyes)), read(&fixture("clip-openai").join(eyes)));
    let loaded = auto::load(&Folder::open(&model).expect("the model"), &Device::Cpu, Precision::F32);
    let loaded = loaded.expect("loaded");
    assert!(loaded.model.sees().is_some() && loaded.processor.chat().is_ok() && !loaded.ends.is_empty());
}

#[test]
fn parts_of_a_batch_add_up_to_the_whole() {
    let folder = workplace(&composed());
    let losses = |settings: &[&str]| {
        let mut seen = Quiet::new();
        run(folder.path(), settings, false, &mut seen).expect("a run");
        seen.losses
    };
    let whole = losses(&["output=whole"]);
    for other in [
        losses(&["output=parts", "train.micro_batch=3"]),
        losses(&["output=cut", "train.checkpoint_activations=true"]),
    ] {
        for (a, b) in whole.iter().zip(&other) {
            assert!((a - b).abs() < 2e-3, "{whole:?} {other:?}");
        }
    }
}

/// A language model that goes on with plain texts.
fn texts(model: &str, more: &str) -> String {
    format!(
        r#"
seed = 5
output = "run"
[model]
from = "{}"
{more}
[[data]]
path = "story.txt"
kind = "text"
[train]
steps = 4
batch = 2
learning_rate = 1e-3
"#,
        fixture(model).display()
    )
}

#[test]
fn what_lies_turned_is_written_so() {
    let folder = workplace(&texts("gpt2", ""));
    // Steps too small to change anything that can be seen.
    run(folder.path(), &["train.learning_rate=1e-12"], false, &mut Quiet::new()).expect("a run");
    let (before, after) = (
        tensors(&fixture("gpt2").join("model.safetensors")),
        tensors(&folder.path().join("run/model/model.safetensors")),
    );
    let mut compared = 0;
    for (name, values) in &after {
        let Some(old) = before.get(name) else { continue };
        assert!(old.iter().zip(values).all(|(a, b)| (a - b).abs() < 1e-6), "{name}");
        compared += 1;
    }
    assert!(compared > 20);
}

#[test]
fn an_adapter_is_written_alone_and_found_with_its_model() {
    let folder = workplace(&texts(
        "llama",
        "[model.lora]\nrank = 2\nalpha = 8\ntargets = [\"q_proj\", \"down_proj\"]",
    ));
    let mut seen = Quiet::new();
    let ended = run(folder.path(), &["train.steps=12"], false, &mut seen).expect("a run");
    let Outcome::Finished(adapter) = ended else { panic!("{ended:?}") };
    assert!(seen.losses.last() < seen.losses.first(), "{:?}", seen.losses);
    let mut files: Vec<_> =
        std::fs::read_dir(&adapter).expect("a folder").map(|e| e.expect("a file").file_name()).collect();
    files.sort();
    assert_eq!(files, ["adapter_config.json", "adapter_model.safetensors"]);
    let factors = tensors(&adapter.join("adapter_model.safetensors"));
    assert_eq!(factors.len(), 8);
    assert!(factors.keys().all(|name| name.starts_with("base_model.model.model.layers.")));
    let base = Folder::open(&fixture("llama")).expect("the model");
    let both = base.clone().with_adapter(Folder::open(&adapter).expect("the adapter"));
    auto::load(&both, &Device::Cpu, Precision::F32).expect("both");
    // Beside another model it is refused.
    let other = Folder::open(&fixture("gpt2")).expect("the model");
    let other = other.with_adapter(Folder::open(&adapter).expect("the adapter"));
    let message = auto::load(&other, &Device::Cpu, Precision::F32).err().expect("an error").to_string();
    assert!(message.contains("belongs to no layer"), "{message}");
}

#[test]
fn mistakes_are_one_line() {
    let no_end = "{% for m in messages %}{{ m.content }} {% endfor %}";
    let other =
        "{% for m in messages %}{{ m.content }}{% endfor %}{% if add_generation_prompt %}say:{% endif %}";
    let folder = workplace(&composed());
    let template = |text: &str| format!("model.compose.chat_template={}", json!(text));
    for (settings, expected) in [
        (vec!["train.length=4".to_owned()], "train.length"),
        (vec![template(no_end)], "would never stop"),
        (vec![template(other)], "where an answer begins"),
        (vec![template("{{ raise_exception('no') }}")], "no"),
        (vec!["train.length=1".to_owned()], "expected at least 2"),
        (vec!["train.patch_dropout=0.5".to_owned()], "patch_dropout"),
        (vec!["model.compose.bridge.kind=resampler".to_owned()], "unknown variant"),
        (vec!["model.lora.rank=0".to_owned()], "rank"),
        (vec!["model.freeze=[\"*\"]".to_owned()], "leaves nothing"),
        (vec!["model.lora.targets=[\"no_proj\"]".to_owned()], "ends of no layer's name"),
    ] {
        let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
        let error =
            run(folder.path(), &settings, false, &mut Quiet::new()).expect_err("a mistake").to_string();
        assert!(error.contains(expected) && !error.contains('\n'), "{settings:?}: {error}");
        let _ = std::fs::remove_dir_all(folder.path().join("run"));
    }
    // A language model that is shown pictures.
    let blind = texts("llama", "").replace("path = \"story.txt\"\nkind = \"text\"", "scenes = 1");
    std::fs::write(folder.path().join("recipe.toml"), blind).expect("written");
    let error = run(folder.path(), &[], false, &mut Quiet::new()).expect_err("a mistake").to_string();
    assert!(error.contains("sees no pictures"), "{error}");
}
