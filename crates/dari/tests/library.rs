//! The facade on the parity fixtures and the embedded model.

use std::path::{Path, PathBuf};

use dari::{Asking, Ended, Engine, Error, Options, Precision, Sampling, cosine, rank};
use serde_json::json;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn fixture(case: &str) -> Engine {
    let folder = root().join("fixtures/parity").join(case);
    Engine::open(folder.to_str().expect("a path"), &Options::default()).expect("the fixture")
}

#[test]
fn a_model_does_what_it_says_it_can() {
    let clip = fixture("clip-openai").abilities();
    assert!(clip.embed_pictures && clip.embed_texts && clip.compare && !clip.classify && !clip.fill_mask);
    let vit = fixture("vit").abilities();
    assert!(vit.embed_pictures && vit.classify && !vit.embed_texts && !vit.compare);
    let bert = fixture("bert-masked").abilities();
    assert!(bert.embed_texts && bert.fill_mask && !bert.embed_pictures);
}

#[test]
fn one_bad_file_spoils_no_other() {
    let engine = fixture("clip-openai");
    let pictures = root().join("fixtures/parity/pictures");
    let files = ["landscape.png", "absent.png", "square.png"].map(|name| pictures.join(name));
    let answers = engine.embed_files(&files);
    assert!(answers[0].is_ok() && answers[2].is_ok());
    let message = answers[1].as_ref().expect_err("no such file").to_string();
    assert!(message.contains("absent.png"), "{message}");
    let norm = answers[0].as_ref().map(|v| cosine(v, v)).expect("a vector");
    assert!((norm - 1.0).abs() < 1e-5);
}

#[test]
fn what_a_model_cannot_do_is_said_with_what_can() {
    let message = fixture("vit").embed_texts(&["cat"]).expect_err("no texts").to_string();
    assert!(message.contains("CLIP"), "{message}");
    let message = fixture("bert").logits(&[vec![1.0]], &[vec![1.0]]).expect_err("no pictures").to_string();
    assert!(message.contains("CLIP"), "{message}");
    assert!(matches!(Engine::open("no such model", &Options::default()), Err(Error::Option { .. })));
    let options = Options { device: "tpu".into(), ..Options::default() };
    assert!(matches!(Engine::open("mini", &options), Err(Error::Option { option: "device", .. })));
}

#[test]
fn masks_are_filled() {
    let engine = fixture("bert-masked");
    let filled = engine.fill_mask("the red [MASK] is left of the blue [MASK].", 3).expect("filled");
    assert_eq!((filled.len(), filled[0].len()), (2, 3));
    assert!(filled[0][0].probability >= filled[0][1].probability);
    assert!(engine.fill_mask("no mask", 3).is_err());
}

#[test]
fn chats_that_are_answered_together_get_what_each_gets_alone() {
    let engine = fixture("smolvlm");
    let pictures = root().join("fixtures/parity/pictures");
    let open = |name: &str| engine.open_picture(&pictures.join(name)).expect("a picture");
    let (square, wide) = (open("square.png"), open("landscape.png"));
    let asking = Asking { most: 8, ..Asking::default() };
    let asked = |text: &str, pictures: usize| json!([engine.message("user", text, pictures)]);
    let far = asked(&"too long ".repeat(4000), 0);
    let chats = [
        (asked("a cat?", 1), vec![&square]),
        (asked("a cat?", 1), vec![&wide]),
        (asked("and what else?", 2), vec![&wide, &square]),
        (far, vec![]),
        (asked("which?", 0), vec![]),
    ];
    let mut talk = engine.talk().expect("a language model");
    let mut told = vec![String::new(); chats.len()];
    let mut rest = &chats[..];
    let mut lengths = Vec::new();
    while !rest.is_empty() {
        let done = chats.len() - rest.len();
        let answers = talk.answer_together(rest, &asking, &mut |number, text| {
            told[done + number] += text;
            true
        });
        let Ok(answers) = answers else {
            assert_eq!(done, 3, "the one that is too long");
            lengths.push(0);
            rest = &rest[1..];
            continue;
        };
        for (number, answer) in answers.iter().enumerate() {
            let (messages, pictures) = &rest[number];
            let mut alone = engine.talk().expect("a language model");
            let alone = alone.answer(messages, pictures, &asking, &mut |_| true).expect("an answer");
            assert_eq!(answer.text, alone.text);
            assert!((answer.confidence - alone.confidence).abs() < 1e-6);
            assert_eq!(told[done + number], alone.text);
        }
        lengths.push(answers.len());
        rest = &rest[answers.len()..];
    }
    // The first by itself, those before the one that is too long, and what is behind it.
    assert_eq!(lengths, [1, 2, 0, 1]);
    // What is drawn goes one by one.
    let drawn = Asking { sampling: Sampling { temperature: 1.0, ..Sampling::default() }, ..asking.clone() };
    let answers = talk.answer_together(&chats[..3], &drawn, &mut |_, _| true).expect("an answer");
    assert!(answers.len() == 1 && !talk.is_together(&drawn));
    // One that says stop ends for itself.
    let stopped = talk.answer_together(&chats[..2], &asking, &mut |number, _| number > 0);
    let ended: Vec<Ended> = stopped.expect("answers").iter().map(|answer| answer.ended).collect();
    assert!(
        ended.len() == 2 && ended[0] == Ended::Interrupted && ended[1] != Ended::Interrupted,
        "{ended:?}"
    );
}

#[test]
fn templates_are_averaged() {
    let engine = fixture("clip-openai");
    let labels = ["cat".to_owned(), "dog".to_owned()];
    let templates = ["a {}".to_owned(), "the {}".to_owned()];
    let mixed = engine.embed_labels(&labels, &templates).expect("labels").vectors;
    let parts = engine.embed_texts(&["a cat", "the cat"]).expect("texts");
    let sum: Vec<f32> = parts[0].iter().zip(&parts[1]).map(|(a, b)| a + b).collect();
    let norm = cosine(&sum, &sum).sqrt();
    for (a, b) in mixed[0].iter().zip(&sum) {
        assert!((a - b / norm).abs() < 1e-5);
    }
}

#[test]
fn bf16_stays_near() {
    let folder = root().join("fixtures/parity/clip-openai");
    let options = Options { precision: Precision::Bf16, ..Options::default() };
    let half = Engine::open(folder.to_str().expect("a path"), &options).expect("bf16");
    let full = fixture("clip-openai");
    let texts = ["a photo of a cat", "고양이 두 마리"];
    for (a, b) in half.embed_texts(&texts).expect("bf16").iter().zip(full.embed_texts(&texts).expect("f32")) {
        assert!(cosine(a, &b) > 0.999);
    }
    assert_ne!(half.fingerprint().expect("hash"), full.fingerprint().expect("hash"));
}

#[test]
fn the_embedded_model_finds_the_red_apple_in_both_languages() {
    let engine = Engine::open(dari::EMBEDDED, &Options::default()).expect("mini");
    let mut files: Vec<PathBuf> = std::fs::read_dir(root().join("samples"))
        .expect("samples")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    let pictures: Vec<Vec<f32>> =
        engine.embed_files(&files).into_iter().map(|v| v.expect("a sample")).collect();
    for query in ["빨간 사과", "a red apple"] {
        let words = engine.embed_texts(&[query]).expect("words");
        let best = rank(&words[0], &pictures, 1)[0].index;
        assert!(files[best].ends_with("red-apple.png"), "{query}: {}", files[best].display());
    }
}
