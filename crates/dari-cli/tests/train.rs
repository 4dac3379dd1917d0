//! `dari train`: runs, goes on after an end of any kind, and stops where it must.

mod common;

use std::path::Path;

use common::recipe::{self, folder, scenes};
use common::{Home, numbers, run, sample, wait_until};
use serde_json::Value;

const LONG: &str = "steps = 80\nwarmup = 4\nlearning_rate = 1e-3\ncheckpoint_every = 5";
const SHORT: &str = "steps = 6\nlearning_rate = 1e-3\ncheckpoint_every = 2";

/// The lines of a run's `metrics.jsonl`, without what depends on the clock.
fn metrics(run: &Path) -> Vec<Value> {
    let lines = std::fs::read_to_string(run.join("metrics.jsonl")).expect("metrics");
    let parse = |line: &str| {
        let mut value: Value = serde_json::from_str(line).expect("JSON");
        let line = value.as_object_mut().expect("an object");
        assert!(line.remove("pairs_per_second").is_some());
        value
    };
    lines.lines().map(parse).collect()
}

/// The names of a run's checkpoints, the oldest first.
fn checkpoints(run: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(run.join("checkpoints")) else {
        return Vec::new();
    };
    let entries = entries.filter_map(Result::ok);
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| name.starts_with("step-")).collect();
    names.sort();
    names
}

#[test]
fn a_run_leaves_metrics_checkpoints_and_a_model_that_works() {
    let home = Home::new();
    scenes(&home, SHORT);
    let ran = home.dari(["train", "recipe.toml"]).ok();
    assert!(ran.out.contains("model"), "{ran}");
    let metrics = metrics(&home.path("run"));
    let steps: Vec<_> = metrics.iter().map(|line| line["step"].as_u64()).collect();
    assert_eq!(steps, (1..=6).map(Some).collect::<Vec<_>>());
    for line in &metrics {
        assert!(line["loss"].as_f64().is_some_and(f64::is_finite), "{line}");
        assert_eq!(line["skipped"], 0);
    }
    assert_eq!(checkpoints(&home.path("run")), ["step-00000004", "step-00000006"]);
    for model in ["run/model", "run/checkpoints/step-00000004"] {
        let ran = home.dari(["embed", "--texts", "사과", "a car", "--model", model]);
        for line in ran.ok().json_lines() {
            assert_eq!(numbers(&line["vector"]).len(), 16);
        }
    }
    let last = home.dari(["embed", "--texts", "a", "--model", "run/checkpoints/step-00000006"]);
    let model = home.dari(["embed", "--texts", "a", "--model", "run/model"]);
    assert_eq!(last.ok().out, model.ok().out);
}

#[test]
fn the_same_recipe_gives_the_same_run_on_any_number_of_threads() {
    let home = Home::new();
    scenes(&home, SHORT);
    home.dari(["train", "recipe.toml"]).ok();
    let other = ["train", "recipe.toml", "--set", "output=other", "--set", "train.workers=3"];
    home.dari(other.iter().chain(&["--threads", "1"])).ok();
    assert_eq!(metrics(&home.path("run")), metrics(&home.path("other")));
    let seeded = ["train", "recipe.toml", "--set", "output=seeded", "--set", "seed=8"];
    home.dari(seeded).ok();
    assert_ne!(metrics(&home.path("run")), metrics(&home.path("seeded")));
}

#[test]
fn json_gives_a_line_a_step() {
    let home = Home::new();
    scenes(&home, SHORT);
    let lines = home.dari(["train", "recipe.toml", "--json"]).ok().json_lines();
    assert_eq!(lines.len(), 6);
    assert_eq!(lines[5]["step"], 6);
    assert_eq!(lines[5]["steps"], 6);
    assert!(lines[0]["loss"].is_number() && lines[0]["pairs_per_second"].is_number());
}

#[test]
fn a_killed_run_is_taken_up_as_if_never_interrupted() {
    let home = Home::new();
    scenes(&home, LONG);
    home.dari(["train", "recipe.toml", "--set", "output=whole"]).ok();
    let whole = metrics(&home.path("whole"));
    assert_eq!(whole.len(), 80);
    for attempt in 0..5 {
        let output = format!("killed-{attempt}");
        let setting = format!("output={output}");
        let arguments = ["train", "recipe.toml", "--set", &setting];
        let mut child = home.command(arguments).spawn().expect("the binary runs");
        let folder = home.path(&output);
        assert!(wait_until(|| checkpoints(&folder).len() > 1), "no checkpoint");
        child.kill().expect("killed");
        // On a quick machine it may have been done already.
        if child.wait().expect("its end").success() {
            continue;
        }
        assert!(!folder.join("model/model.safetensors").exists());
        let again = arguments.iter().chain(&["--resume"]);
        home.dari(again).ok();
        assert_eq!(metrics(&folder), whole);
        let file = "model/model.safetensors";
        let bytes = |folder: &str| std::fs::read(home.path(folder).join(file)).expect("a model");
        assert!(bytes("whole") == bytes(&output), "the finished models differ");
        return;
    }
    panic!("the run always ended before it was killed");
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_ends_with_a_checkpoint() {
    let home = Home::new();
    scenes(&home, &LONG.replace("checkpoint_every = 5", "checkpoint_every = 80"));
    home.dari(["train", "recipe.toml", "--set", "output=whole"]).ok();
    let child = home
        .command(["train", "recipe.toml", "--json"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn();
    let mut child = child.expect("the binary runs");
    let mut lines =
        std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().expect("its stdout")));
    let first = lines.next().expect("a step").expect("a line");
    assert!(first.contains("\"step\":1"), "{first}");
    common::interrupt(child.id());
    let rest = lines.count();
    let output = child.wait_with_output().expect("its end");
    let said = String::from_utf8_lossy(&output.stderr);
    if rest < 79 {
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.contains("--resume") && said.contains("step-"), "{said}");
        assert_eq!(checkpoints(&home.path("run")).len(), 1);
    }
    home.dari(["train", "recipe.toml", "--resume"]).ok();
    assert_eq!(metrics(&home.path("run")), metrics(&home.path("whole")));
}

#[test]
fn a_second_run_into_the_same_folder_is_refused() {
    let home = Home::new();
    scenes(&home, SHORT);
    home.dari(["train", "recipe.toml"]).ok();
    let before = metrics(&home.path("run"));
    let ran = home.dari(["train", "recipe.toml"]).exits(1);
    ran.one_error(&["run", "--resume", "output"]);
    assert_eq!(metrics(&home.path("run")), before, "nothing is lost");
    let ran = home.dari(["train", "recipe.toml", "--resume", "--set", "train.learning_rate=2e-3"]);
    ran.exits(1).one_error(&["changed", "step-00000006"]);
    assert_eq!(metrics(&home.path("run")), before, "nothing is lost");
    home.dari(["train", "recipe.toml", "--resume"]).ok();
    assert_eq!(metrics(&home.path("run")), before, "there was nothing left to do");
}

#[test]
fn a_damaged_checkpoint_is_named() {
    let home = Home::new();
    scenes(&home, SHORT);
    home.dari(["train", "recipe.toml"]).ok();
    for file in ["trainer.json", "optimizer.safetensors", "model.safetensors"] {
        let path = home.path("run/checkpoints/step-00000006").join(file);
        let whole = std::fs::read(&path).expect("the file");
        std::fs::write(&path, &whole[..whole.len() / 2]).expect("written");
        let ran = home.dari(["train", "recipe.toml", "--resume"]).exits(1);
        ran.one_error(&[file, "step-00000006"]);
        std::fs::write(&path, whole).expect("written");
    }
    home.dari(["train", "recipe.toml", "--resume"]).ok();
}

/// A folder of eight pictures with captions, of which two are broken.
fn partly_broken(home: &Home) {
    let names = [
        "red-apple.png",
        "blue-car.png",
        "yellow-boat.png",
        "green-tree.png",
        "white-cloud.png",
        "brown-dog.png",
    ];
    for (number, name) in names.iter().enumerate() {
        home.copy(&sample(name), format!("data/{number}.png"));
        home.write(format!("data/{number}.txt"), name.replace(['-', '.'], " "));
    }
    home.write("data/broken.png", "this is no picture");
    home.write("data/broken.txt", "a broken picture");
    home.write("data/wordless.png", common::pictures::numbered(5));
    home.write("data/wordless.txt", "\n");
}

#[test]
fn records_that_cannot_be_used_are_named_counted_and_passed_over() {
    let home = Home::new();
    partly_broken(&home);
    folder(&home, "data", "steps = 12\nlearning_rate = 1e-3\ncheckpoint_every = 4");
    let ran = home.dari(["train", "recipe.toml"]).exits(0);
    let warnings = ran.warnings();
    assert!(warnings.iter().any(|line| line.contains("broken.png")), "{ran}");
    assert!(warnings.iter().any(|line| line.contains("wordless.txt")), "{ran}");
    assert_eq!(ran.errors().len(), 0, "{ran}");
    let metrics = metrics(&home.path("run"));
    assert_eq!(metrics.len(), 12);
    let skipped = metrics[11]["skipped"].as_u64().expect("a count");
    assert!(skipped >= 2, "{skipped} skipped");
    // What is told on stderr ends with the same number, or names each one.
    let told = warnings.len() as u64 == skipped;
    assert!(told || ran.err.contains(&format!("{skipped} ")), "{skipped} skipped\n{ran}");
}

#[test]
fn a_data_set_without_one_good_pair_is_an_error_at_once() {
    let home = Home::new();
    folder(&home, "data", SHORT);
    home.folder("data");
    home.dari(["train", "recipe.toml"]).exits(1).one_error(&["data", "expected"]);
    home.write("data/a.png", "");
    home.write("data/a.txt", "a picture");
    home.dari(["train", "recipe.toml"]).exits(1).one_error(&["a.png"]);
    std::fs::remove_dir_all(home.path("data")).expect("removed");
    home.dari(["train", "recipe.toml"]).exits(1).one_error(&["data", "No such file"]);
    for (file, content) in [
        ("data.csv", ""),
        ("data.csv", "a,b\n1,2\n"),
        ("data.jsonl", ""),
        ("data.jsonl", "nothing\n"),
        ("data.tar", ""),
        ("data.xyz", "what?"),
    ] {
        home.write(file, content);
        folder(&home, file, SHORT);
        let ran = home.dari(["train", "recipe.toml"]).exits(1);
        ran.one_error(&[file]);
    }
}

#[test]
fn wrong_settings_are_named() {
    let home = Home::new();
    scenes(&home, SHORT);
    for (setting, word) in [
        ("train.lr=1", "lr"),
        ("trian.steps=1", "trian"),
        ("nonsense", "nonsense"),
        ("=3", "=3"),
        ("train.steps=0", "train.steps"),
        ("train.batch=1", "train.batch"),
        ("train.learning_rate=-1", "learning_rate"),
        ("augment.crop=0", "augment.crop"),
        ("train.checkpoint_every=0", "checkpoint_every"),
        ("data=[]", "data"),
        ("train.schedule=sideways", "sideways"),
    ] {
        let ran = home.dari(["train", "recipe.toml", "--set", setting]).exits(2);
        ran.one_error(&[word]);
        assert!(!home.path("run/checkpoints").exists());
    }
}

#[test]
fn settings_of_a_wrong_type_are_named() {
    let home = Home::new();
    scenes(&home, SHORT);
    for (setting, key) in [
        ("train.steps=abc", "steps"),
        ("train.steps=-4", "steps"),
        ("train.batch=4.5", "batch"),
        ("train.learning_rate=fast", "learning_rate"),
        ("augment.flip=3", "flip"),
        ("seed=[1]", "seed"),
        ("train.learning_rate=nan", "learning_rate"),
    ] {
        let ran = home.dari(["train", "recipe.toml", "--set", setting]).exits(2);
        ran.one_error(&[key]);
    }
}

#[test]
fn recipes_that_cannot_be_followed_are_named() {
    let home = Home::new();
    let ran = home.dari(["train", "missing.toml"]).exits(1);
    ran.one_error(&["missing.toml", "No such file"]);
    home.write("recipe.toml", "output = ");
    home.dari(["train", "recipe.toml"]).exits(2).one_error(&["recipe.toml", "line 1"]);
    home.write("recipe.toml", "");
    home.dari(["train", "recipe.toml"]).exits(2).one_error(&["recipe.toml", "missing field"]);
    home.write("recipe.toml", b"\xff\xfe");
    let ran = home.dari(["train", "recipe.toml"]);
    assert_ne!(ran.code, Some(0));
    ran.one_error(&["recipe.toml"]);
    let text = recipe::recipe("[[data]]\nscenes = 1", SHORT);
    for (from, to, word) in [
        ("hidden_size = 16", "hidden_size = 17", "17"),
        ("patch_size = 8", "patch_size = 0", "patch_size"),
        ("vocabulary = 320", "vocabulary = 0", "vocabulary"),
        ("scenes = 1", "scenes = 1\nweight = 0.0", "weight"),
    ] {
        home.write("recipe.toml", text.replacen(from, to, 1));
        let ran = home.dari(["train", "recipe.toml"]);
        assert_ne!(ran.code, Some(0), "{to}\n{ran}");
        ran.one_error(&[word]);
    }
}

#[test]
fn a_language_that_no_caption_has_is_named() {
    let home = Home::new();
    let data = "[[data]]\nscenes = 1\nlanguages = [\"xx\"]";
    home.write("recipe.toml", recipe::recipe(data, SHORT));
    let ran = home.dari(["train", "recipe.toml"]);
    assert_ne!(ran.code, Some(0), "{ran}");
    ran.one_error(&["`xx`"]);
}

#[test]
fn a_model_without_a_loss_is_refused_at_once() {
    let home = Home::new();
    partly_broken(&home);
    let text = recipe::recipe("", SHORT);
    let (_, train) = text.split_once("[train]").expect("a part");
    for model in ["bert", "bert-masked"] {
        let path = common::fixture(model).display().to_string();
        let head = format!("output = \"{model}\"\n[model]\nfrom = \"{path}\"\n");
        home.write("from.toml", format!("{head}[[data]]\npath = \"data\"\n[train]{train}"));
        let ran = home.dari(["train", "from.toml"]);
        assert_ne!(ran.code, Some(0), "{ran}");
        ran.one_error(&["loss"]);
    }
}

#[test]
fn the_projects_own_recipes_are_sound() {
    let home = Home::new();
    for entry in std::fs::read_dir(common::repository("recipes")).expect("recipes") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            // Their data is elsewhere: a folder that is missing comes after all else is read.
            let path = path.display().to_string();
            let nowhere = format!("data_folder={}", home.path("nowhere").display());
            let output = format!("output={}", home.path("run").display());
            let data = "data=[{path=\"nothing\"}]";
            let mut settings = vec!["--set", &nowhere, "--set", &output, "--set", data];
            // What goes on from an earlier run is tried on what came of it.
            let goes_on = std::fs::read_to_string(&path).expect("a recipe").contains("from = \"../runs");
            if goes_on {
                settings.extend(["--set", "model.from=mini-voice"]);
            }
            let ran = home.dari(["train", &path].iter().chain(&settings)).exits(1);
            ran.one_error(&["nowhere"]);
        }
    }
}

#[test]
fn going_on_from_a_checkpoint_with_some_of_it_frozen() {
    let home = Home::new();
    scenes(&home, SHORT);
    home.dari(["train", "recipe.toml"]).ok();
    let text = recipe::recipe("[[data]]\nscenes = 2", SHORT);
    let (before, rest) = text.split_once("[model.config]").expect("a model");
    let (_, after) = rest.split_once("[[data]]").expect("data");
    let model = "[model]\nfrom = \"run/model\"\nfreeze = [\"vision_model.*\"]\n";
    let next = format!("{before}{model}[[data]]{after}").replace("\"run\"", "\"next\"");
    home.write("next.toml", next);
    home.dari(["train", "next.toml"]).ok();
    let shown = home.dari(["models", "show", "next/model", "--json"]).ok().json();
    assert_eq!(common::text(&shown, "kind"), "clip");
}

#[test]
fn numbers_that_are_none_end_the_run_with_the_last_good_checkpoint() {
    let home = Home::new();
    scenes(&home, "steps = 20\nlearning_rate = 1e30\ncheckpoint_every = 1");
    let ran = home.dari(["train", "recipe.toml"]).exits(1);
    let line = ran.one_error(&["step ", "not finite", "learning rate"]).to_owned();
    assert!(line.contains("loss") || line.contains('`'), "what is not finite: {line}");
    assert!(!home.path("run/model/model.safetensors").exists());
    let kept = checkpoints(&home.path("run"));
    match kept.last() {
        None => assert!(line.contains("none"), "{line}"),
        Some(last) => {
            assert!(line.contains(last.as_str()), "{line}");
            let model = format!("run/checkpoints/{last}");
            home.dari(["models", "show", &model]).ok();
        }
    }
}

#[test]
fn a_wrong_device_is_a_wrong_command_line() {
    let home = Home::new();
    scenes(&home, SHORT);
    let ran = home.dari(["train", "recipe.toml", "--device", "tpu"]).exits(2);
    ran.one_error(&["tpu", "cpu"]);
    let mut command = home.command(["train", "recipe.toml"]);
    command.env("DARI_MODEL", "no-such-model");
    run(command).ok();
}

/// Pictures of one colour each, a folder a class.
fn colours(home: &Home, classes: &[(&str, [u8; 3])]) {
    for (class, colour) in classes {
        for number in 0..6u8 {
            let rgb: Vec<u8> =
                (0..16 * 16).flat_map(|_| colour.map(|c| c.saturating_add(number * 3))).collect();
            let picture = dari::Picture::from_rgb(16, 16, rgb).expect("a picture").to_png().expect("a PNG");
            home.write(format!("set/{class}/{number}.png"), picture);
        }
    }
}

fn classifier(config: &str) -> String {
    format!(
        r#"
output = "run"
[model.config]
{config}
[model.preprocessor]
image_processor_type = "ViTImageProcessor"
size = {{ height = 32, width = 32 }}
[[data]]
path = "set"
[train]
steps = 40
batch = 8
learning_rate = 1e-2
label_smoothing = 0.1
tensorboard = true
"#
    )
}

#[test]
fn classifiers_learn_the_folders_they_are_given() {
    let vit = "model_type = \"vit\"\nhidden_size = 16\nintermediate_size = 32\nnum_hidden_layers = 1\nnum_attention_heads = 2\nimage_size = 32\npatch_size = 16";
    let resnet = "model_type = \"resnet\"\nembedding_size = 8\nhidden_sizes = [8, 16]\ndepths = [1, 1]\nlayer_type = \"basic\"";
    for config in [vit, resnet] {
        let home = Home::new();
        colours(&home, &[("빨강", [200, 20, 20]), ("green", [20, 200, 20]), ("blue", [20, 20, 200])]);
        home.write("recipe.toml", classifier(config));
        home.dari(["train", "recipe.toml"]).ok();
        let last = metrics(&home.path("run")).pop().expect("a line");
        assert_eq!(last["accuracy"], 1.0, "{last}");
        assert!(last.get("logit_scale").is_none());
        assert!(home.path("run/loss.png").exists() && home.path("run/tensorboard").is_dir());
        let found = home.dari(["classify", "set/빨강/0.png", "--model", "run/model", "--json"]).ok().json();
        assert_eq!(found["labels"][0]["label"], "빨강", "{found}");
        // Gone on with, for other classes: a new head.
        std::fs::rename(home.path("set/blue"), home.path("set/하양")).expect("renamed");
        let from = "output = \"again\"\n[model]\nfrom = \"run/model\"\n[[data]]\npath = \"set\"\n[train]\nsteps = 20\nbatch = 6\nlearning_rate = 1e-2\nmicro_batch = 3\n";
        home.write("again.toml", from);
        home.dari(["train", "again.toml"]).ok();
        let found = home.dari(["classify", "set/하양/0.png", "--model", "again/model", "--json"]).ok().json();
        let labels: Vec<_> =
            found["labels"].as_array().expect("labels").iter().map(|l| &l["label"]).collect();
        assert!(labels.contains(&&Value::from("하양")) && labels.len() == 3, "{found}");
    }
}
