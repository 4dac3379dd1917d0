//! A case of `fixtures/parity`: its inputs, what the reference computed, and the comparison.

#![allow(dead_code)] // each test file uses its own part

use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use dari_data::image::{Limits, Picture};
use dari_files::{Checkpoint, Folder};
use dari_models::capability::Tokens;
use dari_models::{Loaded, auto};
use dari_nn::{Precision, weights::floats};
use serde_json::Value;

/// A path from the repository's root.
pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

/// What failing comparisons with most cases say.
pub const HINT: &str = "fixtures/parity is `python parity/make_fixtures.py`'s";

/// The model of a case.
pub fn load(case: &str) -> Loaded {
    let folder = Folder::open(&repository("fixtures/parity").join(case)).expect("the folder");
    auto::load(&folder, &Device::Cpu, Precision::F32).unwrap_or_else(|error| panic!("{case}: {error}"))
}

pub struct Expected {
    pub case: String,
    /// Said wherever a comparison fails.
    hint: String,
    file: Checkpoint,
    inputs: Value,
}

impl Expected {
    pub fn of(case: &str, hint: impl Into<String>) -> Expected {
        Expected::at(case, hint, case)
    }

    /// Of a case that shares its inputs with another.
    pub fn at(case: &str, hint: impl Into<String>, inputs: &str) -> Expected {
        let folder = |case| repository("fixtures/parity").join(case);
        let text = std::fs::read_to_string(folder(inputs).join("inputs.json")).expect("inputs.json");
        Expected {
            case: case.to_owned(),
            hint: hint.into(),
            file: Checkpoint::open(&folder(case).join("expected.safetensors")).expect("expected.safetensors"),
            inputs: serde_json::from_str(&text).expect("JSON"),
        }
    }

    /// A field of inputs.json.
    pub fn field(&self, field: &str) -> &Value {
        &self.inputs[field]
    }

    /// Whether there is such an expected tensor.
    pub fn has(&self, name: &str) -> bool {
        self.file.shape(name).is_some()
    }

    /// An expected tensor by itself.
    pub fn tensor(&self, name: &str) -> Tensor {
        let shape = self.file.shape(name).expect("an expected tensor").to_vec();
        Tensor::from_vec(self.values(name), shape, &Device::Cpu).expect("a tensor")
    }

    pub fn pictures(&self) -> Vec<Picture> {
        let open = |name: String| {
            let path = repository("fixtures/parity/pictures").join(name);
            dari_data::image::open(&path, &Limits::default()).expect("a picture")
        };
        self.strings("pictures").into_iter().map(open).collect()
    }

    /// An expected tensor's numbers.
    pub fn values(&self, name: &str) -> Vec<f32> {
        floats(&self.file.tensor(name).expect("an expected tensor")).expect("floats")
    }

    /// Rows of whole numbers; what fills them up, -1, is left out.
    pub fn rows(&self, name: &str) -> Vec<Vec<u32>> {
        let view = self.file.tensor(name).expect("expected numbers");
        let flat = view.data.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().expect("8 bytes")));
        let flat: Vec<i64> = flat.collect();
        let row = view.shape.last().copied().unwrap_or(1).max(1);
        let kept = |row: &[i64]| row.iter().filter_map(|&id| u32::try_from(id).ok()).collect();
        flat.chunks(row).map(kept).collect()
    }

    pub fn strings(&self, field: &str) -> Vec<String> {
        let list = self.inputs[field].as_array().expect("a list");
        list.iter().map(|entry| entry.as_str().expect("a string").to_owned()).collect()
    }

    pub fn whole_numbers(&self, name: &str) -> Vec<Vec<u32>> {
        let view = self.file.tensor(name).expect("expected numbers");
        let flat: Vec<u32> = view
            .data
            .chunks_exact(8)
            .map(|b| i64::from_le_bytes(b.try_into().expect("8 bytes")) as u32)
            .collect();
        flat.chunks(view.shape[1]).map(<[u32]>::to_vec).collect()
    }

    /// The case's texts as the model's folder prepares them; the ids must be the reference's.
    pub fn tokens(&self, loaded: &Loaded) -> Tokens {
        let texts = self.strings("texts");
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let tokens = loaded.processor.tokens(&texts).expect("tokens").tokens;
        let expected = self.whole_numbers("input_ids");
        assert_eq!(tokens.ids.len(), expected.len(), "{}: {}", self.case, self.hint);
        for (index, (ours, theirs)) in tokens.ids.iter().zip(&expected).enumerate() {
            assert_eq!(ours, theirs, "{}: ids of {:?}; {}", self.case, texts[index], self.hint);
        }
        tokens
    }

    /// Compares a tensor with the expected one of that name; prints a line of the parity table.
    pub fn check(&self, name: &str, found: &Tensor, tolerance: f32) {
        let view = self.file.tensor(name).expect("an expected tensor");
        assert_eq!(found.dims(), view.shape, "{} {name}: shape; {}", self.case, self.hint);
        let expected = floats(&view).expect("floats");
        let found = found.flatten_all().and_then(|t| t.to_vec1::<f32>()).expect("values");
        let off: Vec<f32> = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).collect();
        let worst = off.iter().copied().fold(0.0, f32::max);
        println!("| {} | {name} | {worst:.1e} |", self.case);
        assert!(
            off.iter().all(|&off| off <= tolerance), // false for NaN
            "{} {name}: off by {worst}; {}",
            self.case,
            self.hint
        );
    }
}
