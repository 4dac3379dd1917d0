//! `dari classify`: labels given, labels of the checkpoint's own.

mod common;

use common::{Home, fixture, sample, text};
use serde_json::Value;

fn home() -> Home {
    let home = Home::new();
    home.copy(&sample("red-apple.png"), "apple.png");
    home.copy(&sample("blue-car.png"), "car.png");
    home
}

fn labels(answer: &Value) -> Vec<&str> {
    let labels = answer["labels"].as_array().expect("labels");
    labels.iter().map(|label| text(label, "label")).collect()
}

fn probabilities(answer: &Value) -> Vec<f64> {
    let labels = answer["labels"].as_array().expect("labels");
    let one = |label: &Value| label["probability"].as_f64().expect("a number");
    labels.iter().map(one).collect()
}

#[test]
fn probabilities_sum_to_one_and_fall() {
    let home = home();
    let ran = home.dari(["classify", "apple.png", "car.png", "--labels", "사과, 자동차 ,boat", "--json"]);
    let answers = ran.ok().json_lines();
    assert_eq!(text(&answers[0], "picture"), "apple.png");
    assert_eq!(text(&answers[1], "picture"), "car.png");
    for answer in &answers {
        let mut found = labels(answer);
        found.sort_unstable();
        assert_eq!(found, ["boat", "사과", "자동차"]);
        let probabilities = probabilities(answer);
        assert!((probabilities.iter().sum::<f64>() - 1.0).abs() < 1e-4);
        assert!(probabilities.is_sorted_by(|a, b| a >= b));
    }
}

#[test]
fn a_label_given_twice_counts_once_and_is_told() {
    let home = home();
    home.write("labels.txt", "boat\napple\n");
    let once = home.dari(["classify", "apple.png", "--labels", "apple,boat", "--json"]);
    let once = once.ok().json();
    let ran = home.dari([
        "classify",
        "apple.png",
        "--labels",
        "apple,boat,apple",
        "--labels",
        "apple",
        "--labels-file",
        "labels.txt",
        "--json",
    ]);
    let ran = ran.exits(0);
    let warnings = ran.warnings();
    assert_eq!(warnings.len(), 1, "{ran}");
    assert!(warnings[0].contains("apple") && warnings[0].contains("boat"));
    assert_eq!(ran.json(), once);
}

#[test]
fn labels_may_come_from_a_file_and_hold_commas_there() {
    let home = home();
    home.write("labels.txt", "a cat, sleeping\n\n배\n");
    let ran = home.dari(["classify", "apple.png", "--labels-file", "labels.txt", "--json"]);
    let answer = ran.ok().json();
    let mut found = labels(&answer);
    found.sort_unstable();
    assert_eq!(found, ["a cat, sleeping", "배"]);
}

#[test]
fn templates_take_the_label_where_they_say() {
    let home = home();
    let answer = |extra: &[&str]| {
        let mut arguments = vec!["classify", "apple.png", "--json", "--labels"];
        arguments.extend(extra);
        home.dari(arguments).ok().json()
    };
    let templated = answer(&["apple,car", "--template", "a red {}"]);
    let written = answer(&["a red apple,a red car"]);
    assert_eq!(probabilities(&templated), probabilities(&written));
    assert_eq!(labels(&templated).len(), 2);
    assert!(labels(&templated).contains(&"apple"), "not the whole sentence");
    let both = answer(&["apple,car", "--template", "a red {}", "--template", "{}"]);
    assert_ne!(probabilities(&both), probabilities(&templated));
    let sum: f64 = probabilities(&both).iter().sum();
    assert!((sum - 1.0).abs() < 1e-4);
}

#[test]
fn top_bounds_what_is_shown() {
    let home = home();
    let ran = home.dari(["classify", "apple.png", "--labels", "a,b,c,d,e,f,g", "--json"]);
    assert_eq!(labels(&ran.ok().json()).len(), 5, "five unless told");
    let ran = home.dari(["classify", "apple.png", "--labels", "a,b,c", "-k", "2", "--json"]);
    assert_eq!(labels(&ran.ok().json()).len(), 2);
    let ran = home.dari(["classify", "apple.png", "--labels", "a,b,c", "--top", "1"]);
    assert_eq!(ran.ok().out.lines().count(), 2, "the picture, then its label");
}

#[test]
fn siglip_gives_each_label_its_own_probability() {
    let home = home();
    let model = fixture("siglip").display().to_string();
    let ran = home.dari(["classify", "apple.png", "--labels", "cat,dog", "--json", "--model", &model]);
    let both = ran.ok().json();
    let ran = home.dari(["classify", "apple.png", "--labels", "cat", "--json", "--model", &model]);
    let alone = ran.ok().json();
    let at = labels(&both).iter().position(|label| *label == "cat");
    let cat = probabilities(&both)[at.expect("cat")];
    assert!((cat - probabilities(&alone)[0]).abs() < 1e-6);
    assert!(cat > 0.0 && cat < 1.0);
}

#[test]
fn a_classifier_has_its_own_labels() {
    let home = home();
    let model = fixture("vit").display().to_string();
    let ran = home.dari(["classify", "apple.png", "--model", &model, "--json"]);
    let answer = ran.ok().json();
    let mut found = labels(&answer);
    found.sort_unstable();
    assert_eq!(found, ["Siamese cat, Siamese", "cat", "dog", "tabby", "고양이"]);
    assert!((probabilities(&answer).iter().sum::<f64>() - 1.0).abs() < 1e-4);
    let ran = home.dari(["classify", "apple.png", "--model", &model, "--labels", "a"]);
    ran.exits(2).one_error(&["labels"]);
}

#[test]
fn one_bad_picture_spoils_no_other() {
    let home = home();
    home.write("bad.png", "not a picture");
    let arguments = ["classify", "apple.png", "bad.png", "car.png", "--labels", "사과,자동차"];
    let ran = home.dari(arguments.iter().chain(&["--json"])).exits(1);
    ran.one_error(&["bad.png"]);
    let answers = ran.json_lines();
    assert_eq!(answers.len(), 3);
    assert!(text(&answers[1], "error").contains("bad.png"));
    assert_eq!(labels(&answers[2])[0], "자동차");
    let ran = home.dari(arguments).exits(1);
    assert!(ran.out.contains("apple.png") && ran.out.contains("car.png"));
    ran.one_error(&["bad.png"]);
}

#[test]
fn without_labels_the_way_out_is_named() {
    let home = home();
    let ran = home.dari(["classify", "apple.png"]).exits(2);
    ran.one_error(&["mini", "--labels"]);
    let ran = home.dari(["classify", "apple.png", "--labels", " , ,"]).exits(2);
    ran.one_error(&["--labels"]);
    let ran = home.dari(["classify", "apple.png", "--labels-file", "missing.txt"]);
    ran.exits(1).one_error(&["missing.txt"]);
    home.dari(["classify", "--labels", "a"]).exits(2);
}

#[test]
fn an_empty_file_of_labels_is_named() {
    let home = home();
    home.write("empty.txt", "\n \n");
    let ran = home.dari(["classify", "apple.png", "--labels-file", "empty.txt"]);
    ran.exits(2).one_error(&["empty.txt"]);
}
