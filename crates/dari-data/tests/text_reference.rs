//! Ids equal to those of transformers and open_clip, text by text (`fixtures/text/make.py`).

use std::path::{Path, PathBuf};

use dari_data::text::{Cleaning, Encoded, Padding, Reference, TextProcessor};
use dari_files::Folder;
use serde_json::Value;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/text")
}

fn read(path: &str) -> Value {
    serde_json::from_slice(&std::fs::read(fixtures().join(path)).unwrap()).unwrap()
}

fn texts() -> Vec<String> {
    let texts = read("texts.json");
    let expand = |entry: &Value| match entry.as_str() {
        Some(text) => text.to_owned(),
        None => entry["repeat"].as_str().unwrap().repeat(entry["times"].as_u64().unwrap() as usize),
    };
    texts.as_array().unwrap().iter().map(expand).collect()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// Every text whose ids differ, for one message about all of them.
fn compare(name: &str, expected: &Value, encode: impl Fn(&str) -> Vec<u32>) {
    let texts = texts();
    let expected = expected.as_array().unwrap();
    assert_eq!(texts.len(), expected.len());
    let mut wrong = Vec::new();
    for (text, expected) in texts.iter().zip(expected) {
        let (found, expected) = (encode(text), ids(expected));
        if found != expected {
            let start: String = text.chars().take(60).collect();
            wrong.push(format!("{start:?}\n  found    {found:?}\n  expected {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{name}: {} of {}\n{}", wrong.len(), texts.len(), wrong.join("\n"));
}

fn bare(processor: &TextProcessor, text: &str) -> Vec<u32> {
    let encoded = processor.encode(text).unwrap();
    assert!(encoded.mask.iter().all(|&mask| mask == 1));
    encoded.ids
}

fn check_hugging_face(name: &str, folder: &Path, pads: bool) {
    let expected = &read("expected.json")[name];
    let context = expected["context"].as_u64().unwrap() as usize;
    let open = || TextProcessor::open(folder, context).unwrap();

    let natural = open().with_padding(Padding::Longest);
    compare(name, &expected["ids"], |text| bare(&natural, text));

    let usual = if pads { Padding::Context } else { Padding::Longest };
    assert_eq!(open().padding(), usual, "{name}");
    let padded = open().with_padding(Padding::Context);
    for (at, text) in texts().iter().enumerate().skip(3).take(1) {
        let Encoded { ids: found, mask, truncated } = padded.encode(text).unwrap();
        assert_eq!(found, ids(&expected["padded"][at - 3]), "{name} {text:?}");
        let expected: Vec<u8> = ids(&expected["mask"][at - 3]).iter().map(|&m| m as u8).collect();
        assert_eq!(mask, expected, "{name} {text:?}");
        assert!(!truncated);
    }
    let all = texts();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let batch = open().encode_batch(&all).unwrap();
    assert!(batch.iter().all(|encoded| encoded.ids.len() == context));
    assert!(batch.iter().any(|encoded| encoded.truncated));
}

#[test]
fn clip_from_vocabulary_and_merges() {
    check_hugging_face("clip", &fixtures().join("clip"), true);
}

#[test]
fn clip_from_tokenizer_json() {
    check_hugging_face("clip", &fixtures().join("clip_json"), true);
}

#[test]
fn siglip() {
    check_hugging_face("siglip", &fixtures().join("siglip"), true);
}

#[test]
fn siglip2_is_lowered() {
    check_hugging_face("siglip2", &fixtures().join("siglip2"), true);
}

#[test]
fn gemma_of_a_siglip_folder_is_not() {
    let folder = tempfile::tempdir().unwrap();
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(fixtures().join("siglip2").join(file), folder.path().join(file)).unwrap();
    }
    std::fs::write(folder.path().join("config.json"), r#"{"model_type": "siglip"}"#).unwrap();
    check_hugging_face("gemma", folder.path(), true);
}

#[test]
fn bert() {
    for name in ["bert", "bert_cased", "bert_accents"] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::copy(fixtures().join("bert/vocab.txt"), folder.path().join("vocab.txt")).unwrap();
        let config = &read("expected.json")[name]["config"];
        std::fs::write(folder.path().join("tokenizer_config.json"), config.to_string()).unwrap();
        check_hugging_face(name, folder.path(), false);
    }
    let expected = &read("expected.json")["bert"]["batch"];
    let processor = TextProcessor::open(&fixtures().join("bert"), 64).unwrap();
    let texts = texts();
    let batch: Vec<&str> = texts.iter().skip(3).take(5).map(String::as_str).collect();
    for (encoded, row) in processor.encode_batch(&batch).unwrap().iter().zip(expected.as_array().unwrap()) {
        assert_eq!(encoded.ids, ids(row));
    }
}

fn strip(mut ids: Vec<u32>, pad: u32) -> Vec<u32> {
    while ids.last() == Some(&pad) {
        ids.pop();
    }
    ids
}

#[test]
fn open_clip() {
    let folder = Folder::open(&fixtures().join("clip")).unwrap();
    let processor = TextProcessor::from_folder_as(&folder, 77, Reference::OpenClip).unwrap();
    let expected = read("expected.json");
    compare("lower", &expected["open_clip_lower"]["zero_padded"], |text| {
        let encoded = processor.encode(text).unwrap();
        assert_eq!(encoded.ids.len(), 77);
        strip(encoded.ids, 0)
    });

    // Without transformers' config.json the folder is open_clip's.
    let folder = tempfile::tempdir().unwrap();
    for file in ["vocab.json", "merges.txt", "tokenizer_config.json"] {
        std::fs::copy(fixtures().join("clip").join(file), folder.path().join(file)).unwrap();
    }
    let config = r#"{"model_cfg": {"text_cfg": {"tokenizer_kwargs": {"clean": "whitespace"}}}}"#;
    std::fs::write(folder.path().join("open_clip_config.json"), config).unwrap();
    let processor = TextProcessor::open(folder.path(), 77).unwrap();
    compare("whitespace", &expected["open_clip_whitespace"]["zero_padded"], |text| {
        strip(processor.encode(text).unwrap().ids, 0)
    });
}

#[test]
fn open_clip_around_hugging_face() {
    let expected = read("expected.json");
    for clean in ["canonicalize", "whitespace"] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::copy(fixtures().join("siglip/tokenizer.json"), folder.path().join("tokenizer.json"))
            .unwrap();
        let files = [
            ("tokenizer_config.json", r#"{"tokenizer_class": "T5Tokenizer", "eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>"}"#.to_owned()),
            ("open_clip_config.json", format!(
                r#"{{"model_cfg": {{"text_cfg": {{"context_length": 64, "hf_tokenizer_name": "some/name", "tokenizer_kwargs": {{"clean": "{clean}"}}}}}}}}"#
            )),
        ];
        for (file, content) in files {
            std::fs::write(folder.path().join(file), content).unwrap();
        }
        let processor = TextProcessor::open(folder.path(), 77).unwrap();
        let name = format!("open_clip_siglip_{clean}");
        compare(&name, &expected[&name]["full_padded"], |text| {
            let encoded = processor.encode(text).unwrap();
            assert_eq!(encoded.ids.len(), 64);
            strip(encoded.ids, 1)
        });
    }
    let folder = tempfile::tempdir().unwrap();
    for file in ["vocab.txt", "tokenizer_config.json"] {
        std::fs::copy(fixtures().join("bert").join(file), folder.path().join(file)).unwrap();
    }
    let config = r#"{"model_cfg": {"text_cfg": {"context_length": 64, "hf_tokenizer_name": "b", "tokenizer_kwargs": {"strip_sep_token": true}}}}"#;
    std::fs::write(folder.path().join("open_clip_config.json"), config).unwrap();
    let processor = TextProcessor::open(folder.path(), 64).unwrap();
    compare("open_clip_bert", &expected["open_clip_bert"]["full_padded"], |text| {
        strip(processor.encode(text).unwrap().ids, 0)
    });
}

#[test]
fn cleaning() {
    let expected = &read("expected.json")["clean"];
    for name in ["whitespace", "lower", "canonicalize"] {
        let cleaning = Cleaning::from_name(name).unwrap();
        let texts = texts();
        let short = texts.iter().filter(|text| text.chars().count() < 400);
        for (text, expected) in short.zip(expected[name].as_array().unwrap()) {
            assert_eq!(cleaning.apply(text), expected.as_str().unwrap(), "{name} of {text:?}");
        }
    }
}
