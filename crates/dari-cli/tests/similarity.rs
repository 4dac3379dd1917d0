//! `dari similarity`: the matrix, and its picture.

mod common;

use common::pictures::png_size;
use common::{Home, fixture, numbers, sample};

fn home() -> Home {
    let home = Home::new();
    for name in ["red-apple.png", "blue-car.png", "yellow-boat.png"] {
        home.copy(&sample(name), name);
    }
    home
}

#[test]
fn the_matrices_have_a_row_a_picture() {
    let home = home();
    let ran = home.dari([
        "similarity",
        "--images",
        "red-apple.png",
        "blue-car.png",
        "yellow-boat.png",
        "--texts",
        "빨간 사과",
        "파란 자동차",
        "--json",
    ]);
    let found = ran.ok().json();
    assert_eq!(found["pictures"], serde_json::json!(["red-apple.png", "blue-car.png", "yellow-boat.png"]));
    assert_eq!(found["texts"], serde_json::json!(["빨간 사과", "파란 자동차"]));
    let matrix = |name: &str| -> Vec<Vec<f64>> {
        let rows = found[name].as_array().expect("a matrix");
        rows.iter().map(numbers).collect()
    };
    let (cosine, probability) = (matrix("cosine"), matrix("probability"));
    assert_eq!((cosine.len(), probability.len()), (3, 3));
    assert!(cosine.iter().flatten().all(|c| (-1.0..=1.0).contains(c)));
    assert!(cosine[0][0] > cosine[0][1], "the apple: {cosine:?}");
    assert!(cosine[1][1] > cosine[1][0], "the car: {cosine:?}");
    for row in probability {
        assert!((row.iter().sum::<f64>() - 1.0).abs() < 1e-4);
    }
}

#[test]
fn the_heat_map_is_a_picture() {
    let home = home();
    let arguments = |texts: &'static [&str]| {
        let mut all = vec!["similarity", "--images", "red-apple.png", "blue-car.png"];
        all.extend(["--png", "map.png", "--texts"]);
        all.extend(texts);
        all
    };
    home.dari(arguments(&["사과"])).ok();
    let narrow = std::fs::read(home.path("map.png")).expect("a picture");
    home.dari(arguments(&["사과", "배", "자동차"])).ok();
    let wide = std::fs::read(home.path("map.png")).expect("a picture");
    let (narrow, wide) = (png_size(&narrow), png_size(&wide));
    assert!(wide.0 > narrow.0, "a column a text: {narrow:?} {wide:?}");
    assert_eq!(wide.1, narrow.1, "a row a picture");
    // It can be read back as a picture by the program itself.
    home.dari(["embed", "--images", "map.png"]).ok();
}

#[test]
fn what_is_shown_names_pictures_and_texts() {
    let home = home();
    let ran = home.dari(["similarity", "--images", "red-apple.png", "--texts", "사과", "배"]);
    let out = ran.ok().out;
    assert!(out.contains("red-apple.png") && out.contains("사과") && out.contains("배"));
    assert!(!out.contains('\u{1b}'), "no colours in a pipe");
}

#[test]
fn one_bad_picture_spoils_no_other() {
    let home = home();
    home.write("bad.png", "");
    let ran = home.dari([
        "similarity",
        "--images",
        "bad.png",
        "red-apple.png",
        "--texts",
        "사과",
        "--json",
        "--png",
        "map.png",
    ]);
    let ran = ran.exits(1);
    ran.one_error(&["bad.png"]);
    let found = ran.json();
    assert_eq!(found["pictures"], serde_json::json!(["red-apple.png"]));
    assert_eq!(found["cosine"].as_array().map(Vec::len), Some(1));
    assert!(home.path("map.png").is_file());
}

#[test]
fn nothing_readable_at_all_is_still_an_answer() {
    let home = home();
    home.write("bad.png", "");
    let bad = ["similarity", "--images", "bad.png", "--texts", "사과"];
    home.dari(bad).exits(1).one_error(&["bad.png"]);
    let ran = home.dari(bad.iter().chain(&["--json"])).exits(1);
    assert_eq!(ran.json()["pictures"], serde_json::json!([]));
    home.dari(bad.iter().chain(&["--png", "map.png"])).exits(1);
}

#[test]
fn a_model_of_one_side_says_what_to_take() {
    let home = home();
    for model in ["vit", "bert"] {
        let model = fixture(model).display().to_string();
        let ran = home.dari(["similarity", "--images", "red-apple.png", "--texts", "a", "--model", &model]);
        // As `dari search` answers to the same mistake.
        let ran = ran.exits(2);
        let line = ran.one_error(&["CLIP", "SigLIP"]);
        assert!(line.contains(&model), "{line}");
    }
}

#[test]
fn both_sides_are_asked_for() {
    let home = home();
    home.dari(["similarity", "--images", "red-apple.png"]).exits(2);
    home.dari(["similarity", "--texts", "a"]).exits(2);
}
