//! Checkpoint folders that lack a file, contradict themselves or lie: one line, the file named.

mod common;

use std::path::Path;

use common::{Home, Ran, fixture, sample};

/// A copy of a fixture to spoil, under the name `model`.
fn model(name: &str) -> Home {
    let home = Home::new();
    copy(&home, &fixture(name), "model");
    home.copy(&sample("red-apple.png"), "apple.png");
    home
}

fn copy(home: &Home, from: &Path, to: &str) {
    for entry in std::fs::read_dir(from).expect("the fixture") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy();
        let to = format!("{to}/{name}");
        match path.is_dir() {
            true => copy(home, &path, &to),
            false => drop(home.copy(&path, to)),
        }
    }
}

fn remove(home: &Home, file: &str) {
    std::fs::remove_file(home.path("model").join(file)).expect("removed");
}

/// Embeds a picture and a text with the spoiled model.
fn embed(home: &Home) -> Ran {
    home.dari(["embed", "--images", "apple.png", "--texts", "a cat", "--model", "model"])
}

#[track_caller]
fn refused(home: &Home, words: &[&str]) {
    let ran = embed(home).exits(1);
    ran.one_error(words);
    assert_eq!(ran.out, "");
    let ran = home.dari(["models", "show", "model"]).exits(1);
    ran.one_error(words);
}

/// Replaces part of a file.
fn edit(home: &Home, file: &str, change: impl Fn(String) -> String) {
    let path = home.path("model").join(file);
    let text = std::fs::read_to_string(&path).expect("text");
    let changed = change(text.clone());
    assert_ne!(text, changed, "the edit changes something");
    std::fs::write(path, changed).expect("written");
}

#[test]
fn an_empty_folder_says_what_is_expected() {
    let home = Home::new();
    home.folder("model");
    home.copy(&sample("red-apple.png"), "apple.png");
    refused(&home, &["model", "config.json"]);
}

#[test]
fn a_folder_without_weights_says_what_was_looked_for() {
    let home = model("clip-openai");
    remove(&home, "model.safetensors");
    refused(&home, &["model", "model.safetensors", "pytorch_model.bin"]);
}

#[test]
fn a_folder_without_config_says_so() {
    let home = model("clip-openai");
    remove(&home, "config.json");
    refused(&home, &["model", "config.json"]);
}

#[test]
fn without_tokenizer_or_preprocessor_one_line_says_so() {
    let home = model("clip-openai");
    home.copy(&sample("blue-car.png"), "p/a.png");
    home.copy(&sample("red-apple.png"), "p/b.png");
    remove(&home, "preprocessor_config.json");
    for arguments in [
        vec!["embed", "--images", "p"],
        vec!["index", "p"],
        vec!["classify", "p", "--labels", "a"],
        vec!["search", "a", "--in", "p"],
    ] {
        let ran = home.dari(arguments.iter().chain(&["--model", "model"]));
        assert_ne!(ran.code, Some(0), "{ran}");
        ran.one_error(&["model", "preprocessor_config.json"]);
    }
    let home = model("clip-openai");
    remove(&home, "tokenizer.json");
    let ran = home.dari(["embed", "--texts", "a", "--model", "model"]);
    assert_ne!(ran.code, Some(0), "{ran}");
    ran.one_error(&["model", "tokenizer"]);
}

#[test]
fn what_a_folder_lacks_is_no_ability() {
    let home = model("clip-openai");
    remove(&home, "preprocessor_config.json");
    let shown = home.dari(["models", "show", "model", "--json"]).ok().json();
    assert_eq!(shown["abilities"]["embed_pictures"], false, "{shown}");
    assert_eq!(shown["abilities"]["compare"], false, "{shown}");
    assert_eq!(shown["abilities"]["embed_texts"], true, "{shown}");
}

#[test]
fn configs_that_are_no_json_are_named_with_the_line() {
    for file in ["config.json", "preprocessor_config.json", "tokenizer.json"] {
        let home = model("clip-openai");
        home.write(format!("model/{file}"), "{\n  \"a\": ,\n}");
        let ran = embed(&home).exits(1);
        ran.one_error(&[file, "line 2"]);
        home.write(format!("model/{file}"), "");
        embed(&home).exits(1).one_error(&[file]);
        home.write(format!("model/{file}"), b"\xff\xfe\x00");
        embed(&home).exits(1).one_error(&[file]);
    }
}

#[test]
fn configs_of_another_kind_are_named() {
    for (text, word) in [
        ("[]", "config.json"),
        ("{}", "model_type"),
        ("null", "config.json"),
        ("{\"model_type\": \"t5\"}", "t5"),
        ("{\"model_type\": 7}", "model_type"),
        ("{\"model_type\": \"clip\"}", "config"),
    ] {
        let home = model("clip-openai");
        home.write("model/config.json", text);
        refused(&home, &[word]);
    }
}

#[test]
fn configs_with_wrong_sizes_are_refused_before_they_cost_memory() {
    for (from, to) in [
        ("\"projection_dim\": 20", "\"projection_dim\": 21"),
        ("\"hidden_size\": 16", "\"hidden_size\": 17"),
        ("\"hidden_size\": 16", "\"hidden_size\": 0"),
        ("\"hidden_size\": 16", "\"hidden_size\": -16"),
        ("\"hidden_size\": 16", "\"hidden_size\": 4611686018427387904"),
        ("\"hidden_size\": 16", "\"hidden_size\": \"16\""),
        ("\"num_attention_heads\": 2", "\"num_attention_heads\": 0"),
        ("\"num_attention_heads\": 2", "\"num_attention_heads\": 3"),
        ("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3"),
        ("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1000000000"),
        ("\"image_size\": 32", "\"image_size\": 0"),
        ("\"image_size\": 32", "\"image_size\": 4294967296"),
        ("\"patch_size\": 8", "\"patch_size\": 0"),
        ("\"patch_size\": 8", "\"patch_size\": 64"),
        ("\"vocab_size\": 554", "\"vocab_size\": 553"),
        ("\"vocab_size\": 554", "\"vocab_size\": 18446744073709551615"),
        ("\"max_position_embeddings\": 24", "\"max_position_embeddings\": 0"),
        ("\"max_position_embeddings\": 24", "\"max_position_embeddings\": 25"),
        ("\"hidden_act\": \"quick_gelu\"", "\"hidden_act\": \"sparkle\""),
    ] {
        let home = model("clip-openai");
        edit(&home, "config.json", |text| text.replace(from, to));
        let ran = embed(&home).exits(1);
        // It names the file that must be mended, or the tensor that does not fit.
        let line = ran.one_error(&["model"]);
        let named = line.contains("config.json") || line.contains('`');
        assert!(named, "{to}: {line}");
        assert_eq!(ran.out, "", "{to}");
    }
}

#[test]
fn a_preprocessor_with_wrong_values_is_named() {
    for text in [
        "[]",
        "{\"size\": {\"height\": 0, \"width\": 0}}",
        "{\"size\": {\"shortest_edge\": -3}}",
        "{\"size\": 99999999999}",
        "{\"size\": 32, \"crop_size\": 32, \"image_std\": [0, 0, 0], \"image_mean\": [0, 0, 0]}",
        "{\"size\": 32, \"crop_size\": 32, \"image_mean\": [0.5]}",
        "{\"size\": 32, \"crop_size\": 32, \"resample\": 77}",
        "{\"size\": 32, \"crop_size\": 32, \"rescale_factor\": \"x\"}",
    ] {
        let home = model("clip-openai");
        home.write("model/preprocessor_config.json", text);
        let ran = embed(&home).exits(1);
        ran.one_error(&["preprocessor_config.json"]);
    }
}

#[test]
fn a_tokenizer_with_other_ids_than_the_model_is_refused() {
    let home = model("clip-openai");
    // The token of an ordinary word gets an id that the embedding table has no row for.
    edit(&home, "tokenizer.json", |text| {
        let mut value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let vocabulary = value["model"]["vocab"].as_object_mut().expect("a table");
        for id in vocabulary.values_mut() {
            *id = serde_json::json!(id.as_u64().unwrap_or(0) + 1_000_000);
        }
        value.to_string()
    });
    let ran = home.dari(["embed", "--texts", "a cat", "--model", "model"]).exits(1);
    ran.one_error(&["model"]);
}

fn safetensors(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

#[test]
fn a_header_that_lies_is_named() {
    let entry = |dtype: &str, shape: &str, offsets: &str| {
        format!("{{\"logit_scale\":{{\"dtype\":\"{dtype}\",\"shape\":{shape},\"data_offsets\":{offsets}}}}}")
    };
    let mut huge = u64::MAX.to_le_bytes().to_vec();
    huge.extend(b"{}");
    let mut beyond = (1u64 << 40).to_le_bytes().to_vec();
    beyond.extend([b' '; 100]);
    for (what, bytes) in [
        ("empty", Vec::new()),
        ("seven bytes", vec![0; 7]),
        ("a header of 2^64-1 bytes", huge),
        ("a header of a terabyte", beyond),
        ("no JSON", safetensors("{nothing", 0)),
        ("a list", safetensors("[]", 0)),
        ("an end beyond the file", safetensors(&entry("F32", "[4]", "[0,16]"), 8)),
        ("a shape unlike its bytes", safetensors(&entry("F32", "[4]", "[0,8]"), 8)),
        ("an end before its start", safetensors(&entry("F32", "[1]", "[8,4]"), 8)),
        (
            "a shape that overflows",
            safetensors(&entry("F32", "[4294967296,4294967296,4294967296]", "[0,8]"), 8),
        ),
        ("an unknown type", safetensors(&entry("Q7", "[4]", "[0,16]"), 16)),
        ("negative offsets", safetensors(&entry("F32", "[1]", "[-4,0]"), 8)),
        (
            "overlaps",
            safetensors(
                "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}",
                12,
            ),
        ),
        ("another file", std::fs::read(sample("red-apple.png")).expect("a sample")),
    ] {
        let home = model("clip-openai");
        home.write("model/model.safetensors", bytes);
        let ran = embed(&home);
        assert_eq!(ran.code, Some(1), "{what}\n{ran}");
        ran.one_error(&["model/model.safetensors"]);
    }
}

#[test]
fn weights_that_are_no_numbers_give_no_answer() {
    let home = model("clip-openai");
    let path = home.path("model/model.safetensors");
    let mut bytes = std::fs::read(&path).expect("weights");
    let length = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + length]).expect("JSON");
    for name in ["visual_projection.weight", "text_projection.weight"] {
        let offsets = &header[name]["data_offsets"];
        let at = |index: usize| offsets[index].as_u64().expect("an offset") as usize + 8 + length;
        for value in bytes[at(0)..at(1)].as_chunks_mut::<4>().0 {
            *value = f32::NAN.to_le_bytes();
        }
    }
    std::fs::write(&path, bytes).expect("written");
    for arguments in [
        vec!["embed", "--images", "apple.png"],
        vec!["embed", "--texts", "a"],
        vec!["classify", "apple.png", "--labels", "a,b"],
        vec!["similarity", "--images", "apple.png", "--texts", "a"],
    ] {
        let ran = home.dari(arguments.iter().chain(&["--model", "model", "--json"]));
        let ran = ran.exits(1);
        assert!(ran.err.contains("finite"), "{ran}");
        assert!(!ran.out.contains("null"), "no number is no answer\n{ran}");
    }
}

#[test]
fn weights_cut_short_are_named() {
    for file in ["model.safetensors", "pytorch_model.bin"] {
        let home = match file {
            "model.safetensors" => model("clip-openai"),
            _ => model("clip-openai-bin"),
        };
        let path = home.path("model").join(file);
        let bytes = std::fs::read(&path).expect("weights");
        for part in [1, 4, 9] {
            std::fs::write(&path, &bytes[..bytes.len() * part / 10]).expect("written");
            let ran = home.dari(["models", "show", "model"]).exits(1);
            ran.one_error(&[file]);
        }
    }
}

#[test]
fn a_missing_tensor_is_named() {
    let home = model("clip-openai");
    let path = home.path("model/model.safetensors");
    let mut bytes = std::fs::read(&path).expect("weights");
    let name = b"text_projection.weight";
    let at = bytes.windows(name.len()).position(|window| window == name);
    let at = at.expect("the tensor's name");
    bytes[at] = b'x';
    std::fs::write(&path, bytes).expect("written");
    refused(&home, &["text_projection.weight"]);
}

#[test]
fn a_missing_shard_is_named() {
    let home = model("clip-openai-sharded");
    remove(&home, "model-00002-of-00003.safetensors");
    refused(&home, &["model-00002-of-00003.safetensors"]);
    let home = model("clip-openai-sharded");
    edit(&home, "model.safetensors.index.json", |text| {
        text.replace("model-00002-of-00003.safetensors", "../../etc/passwd")
    });
    refused(&home, &["model.safetensors.index.json", "../../etc/passwd"]);
}

/// Pickles, protocol 2, that ask for more than tensors.
const PICKLES: [(&str, &[u8]); 4] = [
    ("os system", b"\x80\x02cos\nsystem\nX\x0d\x00\x00\x00touch touched\x85R."),
    ("builtins eval", b"\x80\x02cbuiltins\neval\nX\x01\x00\x00\x001\x85R."),
    ("a plain list", b"\x80\x02]q\x00."),
    ("a stack that runs dry", b"\x80\x02RRRR."),
];

#[test]
fn a_bin_of_anything_but_tensors_is_refused_and_not_run() {
    for (what, pickle) in PICKLES {
        for legacy in [true, false] {
            let home = model("clip-openai-bin");
            let bytes = if legacy { pickle.to_vec() } else { zip("archive/data.pkl", pickle) };
            home.write("model/pytorch_model.bin", bytes);
            let ran = home.dari(["models", "show", "model"]);
            assert_eq!(ran.code, Some(1), "{what}\n{ran}");
            ran.one_error(&["pytorch_model.bin"]);
            assert!(!home.path("touched").exists(), "{what} was run");
        }
    }
    let home = model("clip-openai-bin");
    home.write("model/pytorch_model.bin", zip("archive/data.pkl", PICKLES[0].1));
    let ran = home.dari(["models", "show", "model"]);
    ran.one_error(&["os.system", "state_dict"]);
}

#[test]
fn a_bin_of_nonsense_is_named() {
    for bytes in [
        Vec::new(),
        vec![0x80],
        b"PK\x03\x04".to_vec(),
        zip("archive/other", b"x"),
        vec![0xff; 4096],
        std::fs::read(sample("red-apple.png")).expect("a sample"),
    ] {
        let home = model("clip-openai-bin");
        home.write("model/pytorch_model.bin", bytes);
        let ran = home.dari(["models", "show", "model"]).exits(1);
        ran.one_error(&["pytorch_model.bin"]);
    }
}

/// A ZIP archive of one stored member. Its check sum is left zero: no reader is asked to trust it.
fn zip(name: &str, content: &[u8]) -> Vec<u8> {
    let size = (content.len() as u32).to_le_bytes();
    let name_size = (name.len() as u16).to_le_bytes();
    let mut file = b"PK\x03\x04\x14\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec();
    file.extend([size, size].concat());
    file.extend(name_size);
    file.extend([0, 0]);
    file.extend(name.as_bytes());
    file.extend(content);
    let start = file.len() as u32;
    file.extend(b"PK\x01\x02\x14\0\x14\0\0\0\0\0\0\0\0\0\0\0\0\0");
    file.extend([size, size].concat());
    file.extend(name_size);
    file.extend([0; 16]);
    file.extend(name.as_bytes());
    let length = file.len() as u32 - start;
    file.extend(b"PK\x05\x06\0\0\0\0\x01\0\x01\0");
    file.extend(length.to_le_bytes());
    file.extend(start.to_le_bytes());
    file.extend([0, 0]);
    file
}
