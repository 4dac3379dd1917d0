//! Texts and labels that are empty, huge or not text.

mod common;

use common::{Home, sample, text};

const TEN_MB: usize = 10_000_000;

#[test]
fn an_empty_text_file_says_so() {
    let home = Home::new();
    home.write("empty.txt", "");
    let ran = home.dari(["embed", "--texts-file", "empty.txt"]).exits(2);
    ran.one_error(&["empty.txt"]);
}

#[test]
fn an_empty_file_beside_other_inputs_spoils_nothing() {
    let home = Home::new();
    home.write("empty.txt", "\n\n");
    let ran = home.dari(["embed", "--texts", "사과", "--texts-file", "empty.txt"]);
    assert_eq!(ran.exits(0).json_lines().len(), 1);
}

#[test]
fn ten_megabytes_in_one_line_are_named_and_the_rest_goes_on() {
    let home = Home::new();
    let huge = "a red apple ".repeat(TEN_MB / 12);
    home.write("texts.txt", format!("사과\n{huge}\na boat\n"));
    home.copy(&sample("red-apple.png"), "a.png");
    let ran = home.dari(["embed", "--images", "a.png", "--texts-file", "texts.txt"]);
    // Cut to what the model reads, with a warning, or refused: either way in one line.
    assert_eq!(ran.err.lines().count(), 1, "{ran}");
    let lines = ran.json_lines();
    assert_eq!(lines.len(), 4, "a row an input");
    for index in [0, 1, 3] {
        assert!(lines[index].get("vector").is_some(), "{}", lines[index]);
    }
    if lines[2].get("vector").is_none() {
        assert_eq!(ran.code, Some(1));
        ran.one_error(&["texts.txt", "2"]);
    }
}

#[test]
fn ten_megabytes_as_a_query_or_a_label_end_in_one_line() {
    let home = Home::new();
    home.copy(&sample("red-apple.png"), "p/a.png");
    home.write("labels.txt", "사과 ".repeat(TEN_MB / 7));
    let ran = home.dari(["classify", "p", "--labels-file", "labels.txt", "--json"]);
    assert_eq!(ran.err.lines().count(), 1, "{ran}");
    if ran.code != Some(0) {
        ran.one_error(&["labels.txt"]);
    }
}

#[test]
fn a_long_query_is_cut_with_a_warning() {
    let home = Home::new();
    home.copy(&sample("red-apple.png"), "p/a.png");
    let long = "빨간 사과 ".repeat(2000);
    let ran = home.dari(["search", &long, "--in", "p", "--json"]).exits(0);
    assert_eq!(ran.warnings().len(), 1, "{ran}");
    assert_eq!(ran.err.lines().count(), 1, "{ran}");
    assert_eq!(ran.json_lines().len(), 1);
}

#[test]
fn a_file_that_is_no_text_is_named() {
    let home = Home::new();
    home.write("latin.txt", b"ok\ncaf\xe9\n");
    let ran = home.dari(["embed", "--texts-file", "latin.txt"]).exits(1);
    ran.one_error(&["latin.txt", "UTF-8"]);
    home.copy(&sample("red-apple.png"), "a.png");
    let ran = home.dari(["classify", "a.png", "--labels-file", "latin.txt"]).exits(1);
    ran.one_error(&["latin.txt", "UTF-8"]);
    let ran = home.dari(["classify", "a.png", "--labels-file", "a.png"]).exits(1);
    ran.one_error(&["a.png", "UTF-8"]);
}

#[test]
fn a_missing_file_and_a_folder_are_named() {
    let home = Home::new();
    home.folder("folder");
    let ran = home.dari(["embed", "--texts-file", "missing.txt"]).exits(1);
    ran.one_error(&["missing.txt", "No such file"]);
    let ran = home.dari(["embed", "--texts-file", "folder"]).exits(1);
    ran.one_error(&["folder", "directory"]);
}

#[test]
fn odd_texts_have_vectors() {
    let home = Home::new();
    let odd = [
        "",
        " ",
        "\u{200b}",
        "\u{feff}",
        "👩‍👩‍👧‍👦🇰🇷",
        "ᄒ\u{1161}\u{11ab}글",
        "\u{202e}right to left",
        "<|endoftext|><|startoftext|>",
        "\u{10ffff}\u{fffd}",
        "a\tb\r\nc\u{7}",
        "x".repeat(3000).leak(),
    ];
    let arguments = ["embed", "--texts"].into_iter().chain(odd);
    let ran = home.dari(arguments).exits(0);
    let lines = ran.json_lines();
    assert_eq!(lines.len(), odd.len());
    for (line, given) in lines.iter().zip(odd) {
        assert_eq!(text(line, "input"), given);
        let vector = common::numbers(&line["vector"]);
        assert!((common::length(&vector) - 1.0).abs() < 1e-4, "{given:?}");
    }
}

#[cfg(unix)]
#[test]
fn a_query_that_is_no_unicode_is_a_wrong_command_line() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let home = Home::new();
    home.copy(&sample("red-apple.png"), "p/a.png");
    let arguments = ["search", "\u{0}", "--in", "p"].map(OsStr::new);
    let bad = OsStr::from_bytes(b"\xff\xfe");
    home.dari([arguments[0], bad, arguments[2], arguments[3]]).exits(2);
}
