//! What the program is for: pictures found by words, out of the box.

mod common;

use common::{Home, repository, sample, text};

#[test]
fn a_red_apple_is_found_by_its_korean_name() {
    let home = Home::new();
    let samples = repository("samples").display().to_string();
    let ran = home.dari(["search", "빨간 사과", "--in", &samples]).ok();
    let first = ran.out.lines().next().expect("a first line");
    assert!(first.ends_with("red-apple.png"), "{ran}");
    assert!(first.trim_start().starts_with("1 "), "{ran}");
    assert_eq!(ran.out.lines().count(), 10, "ten are shown unless told");
}

#[test]
fn a_red_apple_is_found_by_its_english_name() {
    let home = Home::new();
    let samples = repository("samples").display().to_string();
    let ran = home.dari(["search", "a red apple", "--json", "--in", &samples]);
    let hits = ran.ok().json_lines();
    assert!(text(&hits[0], "path").ends_with("red-apple.png"));
    assert_eq!(hits[0]["rank"], 1);
}

#[test]
fn nothing_is_written_among_the_pictures() {
    let home = Home::new();
    home.copy(&sample("red-apple.png"), "pictures/red-apple.png");
    home.dari(["search", "사과", "--in", "pictures"]).ok();
    let left: Vec<_> = std::fs::read_dir(home.path("pictures"))
        .expect("the folder")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    assert_eq!(left, ["red-apple.png"]);
    assert!(home.path("data").is_dir(), "the index is in the data folder");
}

#[test]
fn classify_says_apple_of_an_apple() {
    let home = Home::new();
    home.copy(&sample("red-apple.png"), "apple.png");
    let ran = home.dari(["classify", "apple.png", "--labels", "자동차,사과", "--json"]);
    let answer = ran.ok().json();
    assert_eq!(text(&answer["labels"][0], "label"), "사과");
}

#[test]
fn a_closed_pipe_is_no_error() {
    let home = Home::new();
    let samples = repository("samples").display().to_string();
    for arguments in [
        vec!["search", "사과", "-k", "25", "--in", &samples],
        vec!["embed", "--json", "--images", &samples],
        vec!["classify", &samples, "--labels", "사과,배"],
        vec!["models", "list"],
        vec!["man"],
        vec!["completions", "bash"],
        vec!["--help"],
    ] {
        let mut child = home
            .command(&arguments)
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .expect("the binary runs");
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("its end");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
        assert_eq!(said, "", "{arguments:?}");
    }
}
