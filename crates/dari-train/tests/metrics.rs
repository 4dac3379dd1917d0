//! What is measured, against an independent script on the same embeddings; see `parity/evaluate.py`.

use std::path::{Path, PathBuf};

use dari_train::classification::zero_shot;
use dari_train::probe::{Examples, Probe};
use dari_train::retrieval::{Recalls, both_ways};
use serde_json::Value;

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/parity/evaluate").join(name)
}

fn json(name: &str) -> Value {
    let text = std::fs::read_to_string(example(name)).expect(name);
    serde_json::from_str(&text).expect(name)
}

fn whole(name: &str) -> Vec<usize> {
    json(name).as_array().expect("a list").iter().map(|n| n.as_u64().expect("a number") as usize).collect()
}

/// The shape and the rows of an array of `<f4`.
fn array(name: &str) -> (Vec<usize>, Vec<Vec<f32>>) {
    let bytes = std::fs::read(example(name)).expect(name);
    let length = u16::from_le_bytes([bytes[8], bytes[9]]) as usize;
    let head = std::str::from_utf8(&bytes[10..10 + length]).expect("a header");
    assert!(head.contains("'<f4'") && head.contains("'fortran_order': False"), "{head}");
    let inside = head.split_once('(').and_then(|(_, rest)| rest.split_once(')')).expect("a shape").0;
    let shape: Vec<usize> = inside.split(',').filter_map(|n| n.trim().parse().ok()).collect();
    let values = bytes[10 + length..].chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("4")));
    let values: Vec<f32> = values.collect();
    let rows = values.chunks(*shape.last().expect("a width")).map(<[f32]>::to_vec).collect();
    (shape, rows)
}

fn unit(rows: Vec<Vec<f32>>) -> Vec<Vec<f32>> {
    let one = |row: Vec<f32>| {
        let norm = row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
        row.iter().map(|&x| (f64::from(x) / norm) as f32).collect()
    };
    rows.into_iter().map(one).collect()
}

fn near(found: f64, expected: &Value, what: &str) {
    let expected = expected.as_f64().expect("a number");
    assert!((found - expected).abs() < 1e-6, "{what}: {found}, expected {expected}");
}

#[test]
fn zero_shot_agrees() {
    let pictures = unit(array("zero-shot/pictures.npy").1);
    let (shape, all) = array("zero-shot/classes.npy");
    let mean = |of: &[Vec<f32>]| -> Vec<f32> {
        (0..shape[2]).map(|at| of.iter().map(|row| row[at]).sum::<f32>() / of.len() as f32).collect()
    };
    let classes = unit(unit(all).chunks(shape[1]).map(mean).collect());
    let found = zero_shot(&pictures, &classes, &whole("zero-shot/labels.json"));
    let expected = &json("expected.json")["zero-shot"];
    near(found.top_1, &expected["top_1"], "top-1");
    near(found.top_5, &expected["top_5"], "top-5");
    near(found.mean_per_class, &expected["mean_per_class"], "mean per class");
}

#[test]
fn retrieval_agrees() {
    let (pictures, texts) = (unit(array("retrieval/pictures.npy").1), unit(array("retrieval/texts.npy").1));
    let found = both_ways(&pictures, &texts, &whole("retrieval/pairs.json"));
    let expected = &json("expected.json")["retrieval"];
    let check = |found: Recalls, way: &str| {
        near(found.at_1, &expected[way]["recall_at_1"], way);
        near(found.at_5, &expected[way]["recall_at_5"], way);
        near(found.at_10, &expected[way]["recall_at_10"], way);
    };
    check(found.0, "text_to_picture");
    check(found.1, "picture_to_text");
}

#[test]
fn the_linear_probe_agrees() {
    let read = |part: &str| {
        (array(&format!("linear-probe/{part}.npy")).1, whole(&format!("linear-probe/{part}-labels.json")))
    };
    let ((train, labels), (test, test_labels)) = (read("train"), read("test"));
    let classes = labels.iter().chain(&test_labels).max().expect("a class") + 1;
    for (name, standardise) in [("linear-probe", false), ("linear-probe-standardised", true)] {
        let expected = &json("expected.json")[name];
        let lambda = expected["lambda"].as_f64().expect("lambda");
        let given = Examples { features: &train, labels: &labels };
        let probe = Probe::fit(given, classes, lambda, standardise).expect("a fit");
        let objective = expected["objective"].as_f64().expect("a number");
        assert!((probe.fit.objective - objective).abs() < 1e-9, "{:?}, expected {objective}", probe.fit);
        for (part, examples) in
            [("train", given), ("test", Examples { features: &test, labels: &test_labels })]
        {
            let found = probe.accuracy(examples);
            near(found.top_1, &expected[part]["top_1"], part);
            near(found.mean_per_class, &expected[part]["mean_per_class"], part);
        }
    }
}
