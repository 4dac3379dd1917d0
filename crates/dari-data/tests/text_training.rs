//! The small bilingual tokenizer: the same file each time, nothing unknown, and the ids that
//! transformers gives with it.

use std::path::{Path, PathBuf};

use dari_data::text::{Padding, TextProcessor, tokenizer_config, train_tokenizer};
use serde_json::Value;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/text")
}

fn captions() -> impl Iterator<Item = String> {
    let colours =
        [("red", "빨간"), ("blue", "파란"), ("green", "초록색"), ("yellow", "노란"), ("purple", "보라색")];
    let shapes = [("circle", "원"), ("square", "정사각형"), ("triangle", "삼각형"), ("star", "별")];
    let sizes = [("small", "작은"), ("large", "큰")];
    let mut captions = Vec::new();
    for (colour, 색) in colours {
        for (shape, 모양) in shapes {
            for (size, 크기) in sizes {
                captions.push(format!("A {size} {colour} {shape} on a white background."));
                captions.push(format!("there is 1 {colour} {shape}, and it is {size}"));
                captions.push(format!("흰 배경 위에 {크기} {색} {모양}이 있다."));
                captions.push(format!("{색} {모양} 하나가 왼쪽에 있습니다"));
            }
        }
    }
    captions.into_iter()
}

fn train() -> Value {
    train_tokenizer(captions(), 480).unwrap()
}

/// The fixture is what `make.py` reads; `DARI_UPDATE_FIXTURES=1` writes it anew.
#[test]
fn training_is_deterministic() {
    let folder = fixtures().join("trained");
    if std::env::var_os("DARI_UPDATE_FIXTURES").is_some() {
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("tokenizer.json"), train().to_string()).unwrap();
        std::fs::write(folder.join("tokenizer_config.json"), tokenizer_config(77).to_string()).unwrap();
        std::fs::write(folder.join("config.json"), r#"{"model_type":"clip"}"#).unwrap();
    }
    let kept: Value = serde_json::from_slice(&std::fs::read(folder.join("tokenizer.json")).unwrap()).unwrap();
    assert_eq!(train(), kept);
    assert_eq!(train().to_string(), train().to_string());
}

#[test]
fn ids_are_those_of_transformers() {
    let expected: Value =
        serde_json::from_slice(&std::fs::read(fixtures().join("expected.json")).unwrap()).unwrap();
    let texts: Value =
        serde_json::from_slice(&std::fs::read(fixtures().join("texts.json")).unwrap()).unwrap();
    let open = || TextProcessor::open(&fixtures().join("trained"), 77).unwrap();
    let processor = open().with_padding(Padding::Longest);
    let rows = expected["trained"]["ids"].as_array().unwrap();
    for (text, row) in texts.as_array().unwrap().iter().zip(rows) {
        let text = match text.as_str() {
            Some(text) => text.to_owned(),
            None => text["repeat"].as_str().unwrap().repeat(text["times"].as_u64().unwrap() as usize),
        };
        let row: Vec<u32> = row.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
        assert_eq!(processor.encode(&text).unwrap().ids, row, "{text:?}");
    }
    assert_eq!(expected["trained"]["decoded"], "a photo of a cat");
    // A CLIP model's texts fill its context, with the end token.
    assert_eq!(open().padding(), Padding::Context);
    let encoded = open().encode("원").unwrap();
    assert_eq!(encoded.ids.len(), 77);
    assert_eq!(encoded.ids.last().copied(), open().end_id());
    assert_eq!(open().pad_id(), open().end_id());
}

#[test]
fn words_of_the_captions_are_short_and_others_known() {
    let processor =
        TextProcessor::open(&fixtures().join("trained"), 77).unwrap().with_padding(Padding::Longest);
    let length = |text: &str| processor.encode(text).unwrap().ids.len() - 2;
    assert_eq!(length("빨간 정사각형"), 2);
    assert_eq!(length("Red Circle"), 2);
    // Composed and decomposed Hangul are one text.
    assert_eq!(processor.encode("원").unwrap(), processor.encode("\u{110b}\u{116f}\u{11ab}").unwrap());
    // An unseen syllable is its three bytes after the boundary.
    assert_eq!(length("쀍"), 4);
}

#[test]
fn what_cannot_be_trained_is_refused() {
    let none = train_tokenizer(std::iter::empty(), 1000).unwrap_err();
    assert!(none.to_string().contains("no letters"), "{none}");
    let blank = train_tokenizer(std::iter::once("  ".to_owned()), 1000).unwrap_err();
    assert!(blank.to_string().contains("no letters"), "{blank}");
    let small = train_tokenizer(captions(), 100).unwrap_err();
    assert!(small.to_string().contains("at least 320"), "{small}");
    // Few texts make a small vocabulary, not an error.
    let few = train_tokenizer(std::iter::once("안녕".to_owned()), 1000).unwrap();
    assert_eq!(few["model"]["vocab"].as_object().unwrap().len(), 261);
}
