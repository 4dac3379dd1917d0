//! Models that look, against transformers with its Pillow processors: rendered chats, tokens, pixels, what the
//! tower and the bridge give, logits, greedy text; see `parity/`.
#![allow(clippy::print_stdout)]

mod support;

use candle_core::{Device, Tensor};
use dari_data::image::{self, Picture};
use dari_files::Folder;
use dari_models::capability::SeeAndSay;
use dari_models::generate::{Decoder, Prompt, Sampling, generate};
use dari_models::generative::{VisionLanguage, illustrate};
use dari_models::processor::Sights;
use dari_models::{Loaded, Model, auto};
use dari_nn::Precision;
use serde_json::Value;
use support::{Expected, HINT, repository};

const CASES: [&str; 4] = ["llava-clip", "llava-siglip", "idefics3", "smolvlm"];

/// The chat that the fixtures have with its pictures in one piece as well.
const UNSPLIT: usize = 4;

fn load(case: &str) -> (Loaded, Expected) {
    let loaded = support::load(case);
    (loaded, Expected::of(case, HINT))
}

fn system(loaded: &Loaded) -> &VisionLanguage {
    match &loaded.model {
        Model::Llava(model) | Model::Idefics3(model) | Model::SmolVlm(model) => model,
        _ => panic!("not a model that looks"),
    }
}

fn pictures(chat: &Value) -> Vec<Picture> {
    let parts = chat.as_array().expect("messages").iter();
    let parts = parts.filter_map(|message| message["content"].as_array()).flatten();
    let open = |name: &str| {
        let path = repository("fixtures/parity/pictures").join(name);
        image::open(&path, &Default::default()).expect("a picture")
    };
    parts.filter_map(|part| part["picture"].as_str()).map(open).collect()
}

/// A chat's prompt, and the pixels of its pictures.
fn prompt(loaded: &Loaded, chat: &Value) -> (Prompt, Option<Tensor>) {
    let text = loaded.processor.chat().expect("a template").render(chat, true).expect("a chat");
    let pictures = pictures(chat);
    let sizes: Vec<_> = pictures.iter().map(|picture| (picture.height(), picture.width())).collect();
    let ids = loaded.processor.illustrated(&text, &sizes).expect("a prompt");
    if pictures.is_empty() {
        return (Prompt::words(ids), None);
    }
    let pieces = pictures.iter().map(|picture| loaded.processor.pieces(picture, &Device::Cpu));
    let pixels: Vec<Tensor> = pieces.collect::<Result<_, _>>().expect("pieces");
    let pixels = Tensor::cat(&pixels, 0).expect("of one size");
    let placeholder = loaded.placeholder.expect("a placeholder");
    let model = system(loaded);
    let seen = model.see(&pixels).expect("seen");
    (illustrate(model, ids, placeholder, &seen).expect("embeddings"), Some(pixels))
}

/// `[tokens, vocabulary]`.
fn logits(model: &VisionLanguage, prompt: &Prompt) -> Tensor {
    let language = model.language();
    let x = match &prompt.embeddings {
        Some(x) => x.unsqueeze(0).expect("a batch"),
        None => {
            let ids = Tensor::new(&prompt.ids[..], &Device::Cpu).and_then(|ids| ids.unsqueeze(0));
            language.embed(&ids.expect("ids")).expect("embeddings")
        }
    };
    let logits = language
        .logits(&language.forward(&x, &[x.dim(1).expect("tokens")]).expect("hidden"))
        .expect("logits");
    logits.squeeze(0).expect("a text")
}

/// A case's folder with other files of these names.
fn altered(case: &str, files: &[(&str, Option<Value>)]) -> (tempfile::TempDir, dari_models::Result<Loaded>) {
    let folder = tempfile::tempdir().expect("a folder");
    for entry in std::fs::read_dir(repository("fixtures/parity").join(case)).expect("the fixture") {
        let entry = entry.expect("a file");
        std::fs::copy(entry.path(), folder.path().join(entry.file_name())).expect("a copy");
    }
    for (name, contents) in files {
        let path = folder.path().join(name);
        match contents {
            Some(json) => std::fs::write(path, json.to_string()).expect("written"),
            None => std::fs::remove_file(path).expect("removed"),
        }
    }
    let opened = Folder::open(folder.path()).expect("the folder");
    let loaded = auto::load(&opened, &Device::Cpu, Precision::F32);
    (folder, loaded)
}

fn processor_config(case: &str) -> Value {
    let path = repository("fixtures/parity").join(case).join("processor_config.json");
    serde_json::from_str(&std::fs::read_to_string(path).expect("the config")).expect("JSON")
}

fn near(case: &str, name: &str, found: &Tensor, expected: &[f32], tolerance: f32) {
    let found = found.flatten_all().and_then(|x| x.to_vec1::<f32>()).expect("values");
    assert_eq!(found.len(), expected.len(), "{case} {name}");
    let worst = found.iter().zip(expected).fold(0f32, |worst, (a, b)| worst.max((a - b).abs()));
    println!("| {case} | {name} | {worst:.1e} |");
    assert!(worst <= tolerance, "{case} {name}: off by {worst}");
}

#[test]
fn everything_is_transformers_own() {
    for case in CASES {
        let (loaded, expected) = load(case);
        let model = system(&loaded);
        let chats = expected.field("chats").as_array().expect("chats").clone();
        let mut prompts = Vec::new();
        for (number, chat) in chats.iter().enumerate() {
            let name = |what: &str| format!("{what}_{number}");
            let text = loaded.processor.chat().expect("a template").render(chat, true).expect("a chat");
            assert_eq!(text, expected.field("rendered")[number], "{case} {number}");
            let (prompt, pixels) = prompt(&loaded, chat);
            assert_eq!(prompt.ids, expected.rows(&name("input_ids")).concat(), "{case} {number}");
            if let Some(pixels) = &pixels {
                if expected.has(&name("pixel_values")) {
                    near(case, &name("pixel_values"), pixels, &expected.values(&name("pixel_values")), 0.0);
                }
                let hidden = model.hidden(pixels).expect("hidden");
                near(case, &name("vision_hidden"), &hidden, &expected.values(&name("vision_hidden")), 1e-4);
                let seen = model.see(pixels).expect("seen");
                near(case, &name("image_features"), &seen, &expected.values(&name("image_features")), 1e-4);
            }
            let logits = logits(model, &prompt);
            let theirs = expected.values(&name("logits"));
            let rows = theirs.len() / model.language().vocabulary();
            let last = logits.narrow(0, prompt.ids.len() - rows, rows).expect("the last");
            near(case, &name("logits"), &last, &theirs, 5e-4);
            prompts.push(prompt);
        }
        let greedy = |prompts: &[Prompt]| {
            let mut states = vec![model.language().begin(); prompts.len()];
            let ends = &loaded.ends;
            generate(model.language(), &mut states, prompts, Sampling::default(), ends, 16, &mut |_, _| true)
                .expect("answers")
        };
        let check = |tokens: &[u32], theirs: Vec<u32>, what: &str| {
            let mut theirs = theirs;
            if theirs.last().is_some_and(|last| loaded.ends.contains(last)) {
                theirs.pop();
            }
            assert_eq!(tokens, theirs, "{case} {what}");
        };
        for (number, prompt) in prompts.iter().enumerate() {
            let alone = greedy(std::slice::from_ref(prompt));
            check(
                &alone[0].tokens,
                expected.rows(&format!("greedy_{number}")).concat(),
                &format!("{number}"),
            );
        }
        for (number, said) in greedy(&prompts).iter().enumerate() {
            check(
                &said.tokens,
                expected.rows(&format!("greedy_{number}")).concat(),
                &format!("{number} in a batch"),
            );
        }
    }
}

#[test]
fn pictures_in_one_piece() {
    for case in ["idefics3", "smolvlm"] {
        let expected = Expected::of(case, HINT);
        let mut config = processor_config(case);
        config["image_processor"]["do_image_splitting"] = false.into();
        let (_folder, loaded) = altered(case, &[("processor_config.json", Some(config))]);
        let loaded = loaded.expect("a model");
        let (prompt, pixels) = prompt(&loaded, &expected.field("chats")[UNSPLIT]);
        let pixels = pixels.expect("pictures");
        assert_eq!(prompt.ids, expected.rows("unsplit_input_ids").concat(), "{case}");
        near(case, "unsplit_pixel_values", &pixels, &expected.values("unsplit_pixel_values"), 0.0);
        let seen = system(&loaded).see(&pixels).expect("seen");
        near(case, "unsplit_image_features", &seen, &expected.values("unsplit_image_features"), 1e-4);
        let logits = logits(system(&loaded), &prompt);
        let theirs = expected.tensor("unsplit_logits");
        let rows = theirs.dims()[0];
        let last = logits.narrow(0, prompt.ids.len() - rows, rows).expect("the last");
        near(case, "unsplit_logits", &last, &expected.values("unsplit_logits"), 5e-4);
    }
}

#[test]
fn older_folders_say_in_two_files_how_pictures_stand_among_words() {
    for case in ["idefics3", "smolvlm"] {
        let (loaded, expected) = load(case);
        let config = processor_config(case);
        let words = serde_json::json!({"image_seq_len": 4, "processor_class": config["processor_class"]});
        let files = |pictures| [("processor_config.json", Some(words.clone())), pictures];
        let pictures = ("preprocessor_config.json", Some(config["image_processor"].clone()));
        let (_folder, older) = altered(case, &files(pictures));
        let older = older.expect("a model");
        for chat in expected.field("chats").as_array().expect("chats") {
            assert_eq!(prompt(&older, chat).0.ids, prompt(&loaded, chat).0.ids, "{case}");
        }
        let (_folder, neither) = altered(case, &[("processor_config.json", Some(words))]);
        let error = neither.err().expect("refused").to_string();
        assert!(error.contains("how pictures are cut"), "{error}");
    }
}

#[test]
fn a_picture_costs_what_is_told_beforehand() {
    for case in CASES {
        let (loaded, expected) = load(case);
        let sights: &Sights = loaded.processor.sights().expect("sights");
        for chat in expected.field("chats").as_array().expect("chats") {
            let (prompt, _) = prompt(&loaded, chat);
            let placeholder = loaded.placeholder.expect("a placeholder");
            let places = prompt.ids.iter().filter(|&&id| id == placeholder).count();
            let told: usize = pictures(chat).iter().map(|p| sights.cost(p.height(), p.width())).sum();
            assert_eq!(told, places, "{case}");
        }
    }
}

#[test]
fn pictures_that_do_not_fit_the_text_are_told() {
    let (loaded, _) = load("idefics3");
    let chat =
        serde_json::json!([{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "x"}]}]);
    let text = loaded.processor.chat().expect("a template").render(&chat, true).expect("a chat");
    let error = loaded.processor.illustrated(&text, &[]).expect_err("no picture");
    assert!(error.to_string().contains("1 places for pictures"), "{error}");
}
