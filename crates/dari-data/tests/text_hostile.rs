//! Folders and texts that no one should have written: each is an error that names the file, or a
//! text like any other, and nothing panics.

use std::path::{Path, PathBuf};

use dari_data::text::{Error, Padding, Reference, TextProcessor};
use dari_files::Folder;
use serde_json::{Value, json};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/text")
}

fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (file, content) in files {
        std::fs::write(folder.path().join(file), content).unwrap();
    }
    folder
}

fn refuse(files: &[(&str, &[u8])], context: usize, expected: &[&str]) -> Error {
    let folder = folder(files);
    let error = TextProcessor::open(folder.path(), context).err().unwrap_or_else(|| {
        panic!(
            "accepted: {:?}",
            files.iter().map(|f| String::from_utf8_lossy(&f.1[..f.1.len().min(90)])).collect::<Vec<_>>()
        )
    });
    let message = error.to_string();
    for part in expected {
        assert!(message.contains(part), "{message:?} without {part:?}");
    }
    assert!(!message.contains('\n'), "{message:?}");
    error
}

fn kept(file: &str) -> Vec<u8> {
    std::fs::read(fixtures().join(file)).unwrap()
}

#[test]
fn no_tokenizer() {
    assert!(matches!(refuse(&[], 77, &["tokenizer.json", "vocab.txt"]), Error::Missing { .. }));
    let error = refuse(&[("spiece.model", b"\x0a\x00")], 64, &["spiece.model", "transformers", "save("]);
    assert!(matches!(error, Error::SentencePieceOnly { .. }));
    assert!(TextProcessor::open(Path::new("no/such/folder"), 77).is_err());
}

/// Files of a folder, and what the error about them says.
type Case<'a> = (&'a [(&'a str, &'a [u8])], &'a [&'a str]);

#[test]
fn damaged_files() {
    let merges = kept("clip/merges.txt");
    let vocabulary = kept("clip/vocab.json");
    let cases: &[Case] = &[
        (&[("tokenizer.json", b"")], &["tokenizer.json"]),
        (&[("tokenizer.json", b"[1, 2]")], &["tokenizer.json"]),
        (&[("tokenizer.json", b"{}")], &["tokenizer.json"]),
        (&[("tokenizer.json", b"\xff\xfe{\x00}\x00")], &["tokenizer.json"]),
        (
            &[("tokenizer.json", br#"{"version":"1.0","model":{"type":"Unigram","vocab":[]}}"#)],
            &["tokenizer.json"],
        ),
        (
            &[(
                "tokenizer.json",
                br#"{"version":"1.0","model":{"type":"Unigram","unk_id":9,"vocab":[["a",0.0]]}}"#,
            )],
            &["tokenizer.json"],
        ),
        (
            &[(
                "tokenizer.json",
                br#"{"version":"1.0","model":{"type":"BPE","vocab":{"a":0},"merges":[["a","b"]]}}"#,
            )],
            &["tokenizer.json"],
        ),
        (
            &[("tokenizer_config.json", b"[]"), ("vocab.txt", b"a\n")],
            &["tokenizer_config.json", "no JSON object"],
        ),
        (&[("vocab.txt", b"a\nb\n")], &["vocab.txt", "[SEP]"]),
        (&[("vocab.txt", b"\xff\xfe\n")], &["vocab.txt", "byte 0", "UTF-8"]),
        (&[("vocab.json", b"[]"), ("merges.txt", &merges)], &["vocab.json"]),
        (&[("vocab.json", b"{\"a\": 0}"), ("merges.txt", b"")], &["vocab.json", "<|startoftext|>"]),
        (
            &[("vocab.json", &vocabulary), ("merges.txt", b"#version: 0.2\na b c\n")],
            &["merges.txt", "line 2", "3 parts"],
        ),
        (&[("vocab.json", &vocabulary), ("merges.txt", "없는 토큰\n".as_bytes())], &["vocab.json"]),
        (
            &[
                ("vocab.json", &vocabulary),
                ("merges.txt", &merges),
                (
                    "open_clip_config.json",
                    br#"{"model_cfg":{"text_cfg":{"tokenizer_kwargs":{"clean":"boil"}}}}"#,
                ),
            ],
            &["open_clip_config.json", "boil", "canonicalize"],
        ),
        (
            &[
                ("vocab.json", &vocabulary),
                ("merges.txt", &merges),
                (
                    "open_clip_config.json",
                    br#"{"model_cfg":{"text_cfg":{"tokenizer_kwargs":{"reduction_mask":"random"}}}}"#,
                ),
            ],
            &["open_clip_config.json", "reduction_mask"],
        ),
    ];
    for (files, expected) in cases {
        refuse(files, 77, expected);
    }
}

#[test]
fn nested_without_end() {
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    refuse(&[("tokenizer.json", deep.as_bytes())], 77, &["tokenizer.json"]);
}

#[test]
fn every_truncation_of_a_tokenizer_is_an_error() {
    let whole = kept("siglip/tokenizer.json");
    for length in (0..whole.len()).step_by(97) {
        refuse(&[("tokenizer.json", &whole[..length])], 64, &["tokenizer.json"]);
    }
}

#[test]
fn damaged_character_maps_do_not_panic() {
    let whole: Value = serde_json::from_slice(&kept("siglip/tokenizer.json")).unwrap();
    let good = whole["normalizer"]["precompiled_charsmap"].as_str().unwrap().to_owned();
    let config = kept("siglip/tokenizer_config.json");
    let mut maps = vec![String::new(), "AAAA".into(), "!!!!".into(), "/////w==".into(), "AAgAAA==".into()];
    for at in (0..good.len()).step_by(211) {
        let mut bytes = good.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'/' } else { b'A' };
        maps.push(String::from_utf8(bytes).unwrap());
    }
    let mut accepted = 0;
    for map in maps {
        let mut tokenizer = whole.clone();
        tokenizer["normalizer"]["precompiled_charsmap"] = json!(map);
        let folder = folder(&[
            ("tokenizer.json", tokenizer.to_string().as_bytes()),
            ("tokenizer_config.json", &config),
        ]);
        if let Ok(processor) = TextProcessor::open(folder.path(), 64) {
            accepted += 1;
            let encoded = processor.encode("각 한글 \u{1100}\u{1161} ﬁ Ａ１ éè \u{200b} x").unwrap();
            assert_eq!(encoded.ids.len(), 64);
        }
    }
    assert!(accepted > 0);
}

#[test]
fn contexts() {
    let files = [("vocab.txt", kept("bert/vocab.txt"))];
    let files: Vec<(&str, &[u8])> = files.iter().map(|(n, b)| (*n, b.as_slice())).collect();
    for context in [0, 1, 2] {
        refuse(&files, context, &["context of", "2 special tokens"]);
    }
    let folder = folder(&files);
    let processor = TextProcessor::open(folder.path(), 3).unwrap();
    let encoded = processor.encode("the cat and the dog").unwrap();
    assert_eq!(encoded.ids.len(), 3);
    assert!(encoded.truncated);
    assert_eq!(encoded.ids.last().copied(), processor.end_id());
    assert!(!processor.encode("").unwrap().truncated);

    // The files lower the context, never raise it.
    let clip = |context| TextProcessor::open(&fixtures().join("clip"), context).unwrap().context();
    assert_eq!((clip(1000), clip(16)), (77, 16));
    let folder = Folder::open(&fixtures().join("clip")).unwrap();
    for context in [3, 4, 77] {
        for reference in [Reference::OpenClip, Reference::Transformers] {
            let processor = TextProcessor::from_folder_as(&folder, context, reference).unwrap();
            let encoded = processor.encode(&"cat ".repeat(100)).unwrap();
            assert!(encoded.truncated);
            assert_eq!(encoded.ids.len(), context);
            assert_eq!(encoded.ids.last().copied(), processor.end_id());
            let exact = "1 ".repeat(75);
            let tokens = processor.encode(&exact).unwrap();
            assert_eq!(tokens.truncated, context < 77, "{context} {reference:?}");
        }
    }
}

#[test]
fn texts_without_end_are_cut() {
    let processor = TextProcessor::open(&fixtures().join("clip"), 77).unwrap();
    let long = "a".repeat(5 << 20);
    assert!(processor.encode(&long).unwrap().truncated);
    let batch = processor.encode_batch(&["a", &long]).unwrap();
    assert_eq!((batch[0].truncated, batch[1].truncated), (false, true));
    assert!(processor.encode(&"가".repeat(100_000)).unwrap().truncated);
}

#[test]
fn batches_have_one_length() {
    let processor = TextProcessor::open(&fixtures().join("clip"), 77).unwrap().with_padding(Padding::Longest);
    let batch = processor.encode_batch(&["a cat", "", "a photo of a very long cat"]).unwrap();
    assert!(batch.iter().all(|encoded| encoded.ids.len() == batch[2].ids.len()));
    assert!(batch.iter().all(|encoded| encoded.ids.len() == encoded.mask.len()));
    assert!(batch[2].mask.iter().all(|&mask| mask == 1));
    assert_eq!(batch[1].mask.iter().filter(|&&mask| mask == 1).count(), 2);
    assert!(processor.encode_batch(&[]).unwrap().is_empty());

    // No padding token: one text is fine, texts of unequal length are not.
    let tokenizer =
        br#"{"version":"1.0","model":{"type":"WordLevel","vocab":{"a":0,"[UNK]":1},"unk_token":"[UNK]"},
        "pre_tokenizer":{"type":"Whitespace"}}"#;
    let folder = folder(&[("tokenizer.json", tokenizer)]);
    let processor = TextProcessor::open(folder.path(), 8).unwrap();
    assert_eq!(processor.encode("a b a").unwrap().ids, [0, 1, 0]);
    assert!(processor.encode_batch(&["a a", "a b"]).is_ok());
    assert!(matches!(processor.encode_batch(&["a", "a b"]), Err(Error::NoPadding { .. })));
}

#[test]
fn processors_are_shared_between_threads() {
    fn shared<T: Send + Sync + std::fmt::Debug>() {}
    shared::<TextProcessor>();
}
