//! Real weights against the reference libraries: a BERT, a ResNet, a LLaMA, a language model in four-bit blocks. They are
//! not in the repository: `python scripts/fetch_weights.py all` fetches them; without them a test says so and passes.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod support;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use dari_files::Folder;
use dari_models::generate::{Decoder as _, Prompt, Sampling, generate};
use dari_models::{Loaded, auto};
use dari_nn::{Precision, loss};
use support::Expected;

/// Of unit vectors.
const CLOSE: f32 = 1e-4;
/// Of features that reach 7 and numbers that reach 23.
const WIDE: f32 = 1e-3;

/// Where the script puts a model, if it did.
fn weights(folder: &str, script: &str, size: &str) -> Option<PathBuf> {
    file(folder, "model.safetensors", script, size)
}

/// The same of a folder that holds this file.
fn file(folder: &str, name: &str, script: &str, size: &str) -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = || set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")));
    let found = set("DARI_WEIGHTS")
        .or_else(|| Some(cache()?.join("dari").join("weights")))
        .map(|root| root.join(folder))
        .filter(|folder| folder.join(name).is_file());
    if found.is_none() {
        // Past the capture of passing tests' output: a skip is told, and counted.
        let _ = writeln!(
            std::io::stderr(),
            "skipped: no weights of {folder} ({size}): fetch them with \
             `python scripts/fetch_weights.py {script}`, or say with DARI_WEIGHTS which folder holds {folder}/"
        );
    }
    found
}

fn expected(name: &'static str) -> Expected {
    let fixture = format!("the fixture is `python parity/make_fixtures.py --only {name}`'s");
    Expected::of(name, format!("{fixture}, the weights `python scripts/fetch_weights.py {name}`'s"))
}

fn open(path: &Path) -> Loaded {
    let folder = Folder::open(path).expect("the folder");
    let loaded = auto::load(&folder, &Device::Cpu, Precision::F32).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(loaded.unused, Vec::<String>::new());
    loaded
}

#[test]
fn a_real_bert_embeds_sentences() {
    let Some(path) = weights("all-MiniLM-L6-v2", "minilm", "91 MB") else { return };
    let loaded = open(&path);
    let expected = expected("minilm");
    let tokens = expected.tokens(&loaded);
    let masks: Vec<Vec<u32>> =
        tokens.mask.iter().map(|row| row.iter().map(|&bit| u32::from(bit)).collect()).collect();
    assert!(masks == expected.whole_numbers("attention_mask"), "the masks differ");
    let model = loaded.model.texts().expect("embeds texts");
    let batch = loss::normalise(&model.embed_texts(&tokens).expect("vectors")).expect("unit");
    expected.check("embeddings", &batch, CLOSE);

    // Each text by itself, without padding.
    let alone: Vec<Tensor> = expected
        .strings("texts")
        .iter()
        .map(|text| {
            let tokens = loaded.processor.tokens(&[text]).expect("tokens").tokens;
            loss::normalise(&model.embed_texts(&tokens).expect("a vector")).expect("unit")
        })
        .collect();
    expected.check("embeddings", &Tensor::cat(&alone, 0).expect("rows"), CLOSE);
}

#[test]
fn a_real_resnet_sees_pictures() {
    let Some(path) = weights("resnet-50-augnet", "resnet50", "101 MB") else { return };
    let loaded = open(&path);
    let expected = expected("resnet50");
    let samples = expected.strings("samples");
    let open = |name: &String| {
        dari_data::image::open(&support::repository("samples").join(name), &Default::default())
            .expect("a sample")
    };
    let pictures: Vec<_> = samples.iter().map(open).collect();
    let pixels = loaded.processor.pixels(&pictures, &Device::Cpu).expect("pixels");
    let pooled = loaded.model.pictures().expect("embeds pictures");
    let pooled = pixels.each(|pixels| pooled.embed_pictures(pixels)).expect("features");
    expected.check("pooled", &pooled, WIDE);
    let classifier = loaded.model.classifier().expect("has a last layer");
    let logits = pixels.each(|pixels| classifier.classify(pixels)).expect("logits");
    expected.check("logits", &logits, WIDE);
}

/// The fixture of a language model's script, and the ids in it.
fn cases(name: &str) -> Vec<serde_json::Value> {
    let path = support::repository("fixtures/parity").join(name).join("expected.json");
    let text = std::fs::read_to_string(path).expect("the fixture");
    let expected: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    expected["cases"].as_array().expect("cases").clone()
}

fn ids(value: &serde_json::Value) -> Vec<u32> {
    value.as_array().expect("ids").iter().map(|id| id.as_u64().expect("an id") as u32).collect()
}

/// Asserts that each prompt goes on as the reference says; the tokens that were said.
fn goes_on(loaded: &Loaded, cases: &[serde_json::Value], special: bool) -> usize {
    let model = loaded.model.causal().expect("a language model");
    let words = loaded.processor.words().expect("a tokenizer");
    let said = cases.iter().map(|case| {
        let prompt = words.encode(case["prompt"].as_str().expect("a prompt"), special).expect("ids");
        assert_eq!(prompt, ids(&case["ids"]));
        let (greedy, mut states) = (ids(&case["greedy"]), [model.begin()]);
        let prompts = [Prompt::words(prompt)];
        let found =
            generate(model, &mut states, &prompts, Sampling::default(), &[], greedy.len(), &mut |_, _| true);
        assert_eq!(found.expect("an answer")[0].tokens, greedy, "{}", case["prompt"]);
        greedy.len()
    });
    said.sum()
}

#[test]
fn a_real_llama_tells_the_stories_that_llama2_c_tells() {
    let Some(path) = weights("stories15m", "stories15m", "61 MB") else { return };
    let said = goes_on(&open(&path), &cases("stories15m"), true);
    assert!(said > 600, "{said}");
}

#[test]
fn a_real_language_model_in_blocks_says_what_its_f32_weights_say() {
    const FILE: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";
    let Some(path) = file("smollm2", FILE, "smollm2", "92 MB") else { return };
    let loaded = open(&path.join(FILE));
    let said = goes_on(&loaded, &cases("smollm2"), false);
    assert!(said > 60, "{said}");
    // Its chat template is in the file too.
    let chat = loaded.processor.chat().expect("a template");
    let asked = chat.render(&serde_json::json!([{"role": "user", "content": "Hi"}]), true).expect("a chat");
    assert!(asked.ends_with("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"), "{asked}");
}
