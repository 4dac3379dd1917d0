//! `dari bench` and `dari models pack`, driven from outside.

mod common;

use std::fs;

use common::recipe::recipe;
use common::{Home, fixture, sample, text};
use serde_json::Value;

/// A tiny CLIP that may be written beside.
fn model(home: &Home) -> String {
    for file in fs::read_dir(fixture("clip-openai")).expect("the fixture") {
        let file = file.expect("an entry").path();
        home.copy(&file, format!("clip/{}", file.file_name().expect("a name").display()));
    }
    home.path("clip").display().to_string()
}

fn positive(report: &Value, names: &[&str]) {
    for name in names {
        assert!(report[name].as_f64().is_some_and(|value| value > 0.0), "{name}: {report}");
    }
}

#[test]
fn embedding_is_measured_in_every_precision() {
    let home = Home::new();
    let model = model(&home);
    for (precision, told) in [("f32", "f32"), ("bf16", "bf16"), ("int8", "int8")] {
        let arguments = ["bench", "embed", "--model", &model, "--precision", precision];
        let more = ["--batch", "3", "--runs", "2", "--json"];
        let report = home.dari(arguments.iter().chain(&more)).ok().json();
        assert_eq!(text(&report, "precision"), told);
        assert_eq!(text(&report, "input"), "pictures");
        assert_eq!((report["batch"].as_u64(), report["runs"].as_u64()), (Some(3), Some(2)));
        positive(&report, &["median_ms", "min_ms", "max_ms", "load_ms", "threads"]);
        let ran = home.dari(arguments.iter().chain(&["--texts", "--runs", "1"])).ok();
        assert!(ran.out.contains("32 texts") && ran.out.contains(" ms"), "{ran}");
    }
}

#[test]
fn texts_of_their_own_lengths_are_measured() {
    let home = Home::new();
    let model = model(&home);
    home.write("ids.json", "[[1, 2, 3], [1, 2], [4, 5, 6, 7, 8]]");
    let arguments = ["bench", "embed", "--model", &model, "--tokens"];
    let report = home.dari(arguments.iter().chain(&["ids.json", "--runs", "1", "--json"])).ok().json();
    assert_eq!(report["batch"], 3);
    home.write("none.json", "[[1], []]");
    let ran = home.dari(arguments.iter().chain(&["none.json"])).exits(2);
    assert!(ran.err.contains("none.json: a text without tokens"), "{ran}");
    home.write("wrong.json", "{");
    assert!(home.dari(arguments.iter().chain(&["wrong.json"])).exits(1).err.contains("wrong.json"));
}

#[test]
fn a_training_step_is_measured_and_leaves_nothing() {
    let home = Home::new();
    home.write("recipe.toml", recipe("[[data]]\nscenes = 3", "steps = 9\nlearning_rate = 1e-3"));
    let report = home.dari(["bench", "train", "recipe.toml", "--runs", "2", "--json"]).ok().json();
    positive(&report, &["median_ms", "forward_ms", "backward_ms", "optimizer_ms", "batch"]);
    let left: Vec<_> = fs::read_dir(home.path("")).expect("the home").collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[test]
fn a_step_of_a_model_that_speaks_says_how_much_it_reads() {
    let home = Home::new();
    let vision = fixture("clip-openai").display().to_string();
    home.write(
        "recipe.toml",
        format!(
            r#"
output = "run"
[model.compose]
vision = "{vision}"
bridge = {{ kind = "mlp" }}
[model.compose.language_config]
model_type = "llama"
hidden_size = 16
intermediate_size = 24
num_hidden_layers = 1
num_attention_heads = 2
max_position_embeddings = 256
tie_word_embeddings = true
[model.tokenizer]
vocabulary = 400
scene_captions = 100
[[data]]
scenes = 1
kind = "questions"
[train]
steps = 4
batch = 3
learning_rate = 1e-3
length = 200
"#
        ),
    );
    let report = home.dari(["bench", "train", "recipe.toml", "--runs", "2", "--json"]).ok().json();
    positive(&report, &["tokens", "said_tokens", "median_ms"]);
    assert_eq!(report["picture_pieces"], 3, "{report}");
    assert!(report["said_tokens"].as_u64() < report["tokens"].as_u64(), "{report}");
}

#[test]
fn packed_weights_give_the_same_vectors() {
    let home = Home::new();
    let model = model(&home);
    let picture = sample("red-apple.png").display().to_string();
    for precision in ["f32", "bf16", "int8"] {
        let embed = || {
            let arguments = ["embed", "--images", &picture, "--texts", "사과", "--json"];
            home.dari(arguments.iter().chain(&["--model", &model, "--precision", precision])).exits(0)
        };
        let before = embed();
        let packed = home.dari(["models", "pack", &model, "--precision", precision, "--json"]).ok().json();
        let file = text(&packed, "file").to_owned();
        assert!(file.ends_with(&format!("packed-{precision}.safetensors")));
        let after = embed();
        assert_eq!(before.out, after.out);
        assert_eq!(after.err, "");
        // Damaged, of another layout, or of weights that changed: passed over, and said so.
        let bytes = fs::read(&file).expect("packed");
        let of_old = String::from_utf8_lossy(&bytes).contains("\"dari_layout\":\"1\"");
        assert!(of_old);
        let layout = bytes.windows(15).position(|part| part == b"\"dari_layout\":\"").expect("its layout");
        let mut other = bytes.clone();
        other[layout + 15] = b'0';
        for (spoilt, what) in [(bytes[..bytes.len() / 2].to_vec(), "half"), (other, "another layout")] {
            fs::write(&file, spoilt).expect("written");
            let again = embed();
            assert_eq!(before.out, again.out, "{what}");
            assert!(again.err.contains("is passed over"), "{what}: {again}");
        }
        home.dari(["models", "pack", &model, "--precision", precision]).ok();
        assert_eq!(embed().err, "");
    }
    let changed = home.path("clip/model.safetensors");
    let weights = fs::read(&changed).expect("the weights");
    fs::write(&changed, weights).expect("written anew");
    let ran = home.dari(["embed", "--texts", "사과", "--json", "--model", &model]).exits(0);
    assert!(ran.err.contains("is passed over"), "{ran}");
}

#[test]
fn what_is_in_the_binary_cannot_be_packed() {
    let ran = Home::new().dari(["models", "pack", "mini"]).exits(1);
    assert!(ran.err.contains("part of the binary"), "{ran}");
}

#[test]
fn language_models_are_measured() {
    let home = Home::new();
    let llama = fixture("llama").display().to_string();
    let seeing = fixture("smolvlm").display().to_string();
    for (what, model, tokens) in [("prefill", &llama, "40"), ("decode", &llama, "5"), ("ask", &seeing, "4")] {
        let arguments = ["bench", what, "--model", model, "--tokens", tokens, "--runs", "2"];
        let report = home.dari(arguments.iter().chain(&["--json"])).ok().json();
        let named = ["tokens_per_second", "time_to_first_token_ms", "load_ms", "threads", "prompt_tokens"];
        positive(&report, &named);
        assert_eq!(report["runs"], 2);
        assert_eq!(report["tokens"], if what == "prefill" { 0 } else { tokens.parse().expect("a number") });
        let shown = home.dari(arguments).ok().out;
        assert!(shown.contains("tokens a second"));
        // Of what writes, beside what memory gives.
        assert_eq!(shown.contains("weights read"), what == "decode");
        if what == "decode" {
            positive(&report, &["weights_gb_per_second", "memory_gb_per_second"]);
        }
    }
    let far = ["bench", "decode", "--model", &llama, "--tokens", "100000"];
    home.dari(far).exits(1).one_error(&["tokens", "context"]);
    let vit = fixture("vit").display().to_string();
    home.dari(["bench", "decode", "--model", &vit]).exits(1).one_error(&["language model"]);
    // Of the embedded models, that which speaks.
    let own = home.dari(["bench", "ask", "--runs", "1", "--json"]).ok().json();
    assert_eq!(own["model"], "mini-voice");
    home.dari(["bench", "ask", "--model", &llama]).exits(1).one_error(&["vision-language"]);
}
