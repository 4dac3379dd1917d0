//! An index that is damaged, foreign or out of reach: named, with the way out, and made anew.

mod common;

use std::path::PathBuf;

use common::{Home, run, sample, text};

fn home() -> Home {
    let home = Home::new();
    for name in ["red-apple.png", "blue-car.png", "yellow-boat.png"] {
        home.copy(&sample(name), format!("p/{name}"));
    }
    home.dari(["index", "p"]).ok();
    home
}

fn vectors(home: &Home) -> PathBuf {
    let entries = std::fs::read_dir(home.path("data")).expect("the index");
    let mut paths = entries.map(|entry| entry.expect("an entry").path());
    let found = paths.find(|path| path.extension().is_some_and(|e| e == "f32"));
    found.expect("vectors")
}

#[test]
fn a_foreign_database_is_named_and_left_alone() {
    let home = home();
    let junk = "this is no database\n".repeat(500);
    home.write("data/index.sqlite", &junk);
    for arguments in [vec!["index", "p"], vec!["search", "사과"], vec!["search", "사과", "--in", "p"]] {
        let ran = home.dari(&arguments).exits(1);
        ran.one_error(&["index.sqlite", "move it away"]);
    }
    let left = std::fs::read_to_string(home.path("data/index.sqlite")).expect("the file");
    assert_eq!(left, junk, "what is not ours is not written over");
    std::fs::rename(home.path("data/index.sqlite"), home.path("away")).expect("moved");
    let ran = home.dari(["index", "p", "--json"]).exits(0);
    assert_eq!(ran.json()["embedded"], 3);
    home.dari(["search", "빨간 사과"]).ok();
}

#[test]
fn a_database_cut_short_is_named() {
    let home = home();
    let path = home.path("data/index.sqlite");
    let whole = std::fs::read(&path).expect("the database");
    for part in [30, 60, 95] {
        std::fs::write(&path, &whole[..whole.len() * part / 100]).expect("written");
        let ran = home.dari(["search", "사과"]);
        if ran.code != Some(0) {
            ran.one_error(&["index.sqlite"]);
        }
    }
}

#[test]
fn damaged_vectors_are_made_anew() {
    for spoil in ["remove", "empty", "cut", "overwrite"] {
        let home = home();
        let path = vectors(&home);
        let mut bytes = std::fs::read(&path).expect("vectors");
        match spoil {
            "remove" => std::fs::remove_file(&path).expect("removed"),
            "empty" => std::fs::write(&path, "").expect("written"),
            "cut" => std::fs::write(&path, &bytes[..bytes.len() / 2]).expect("written"),
            _ => {
                bytes.fill(0x41);
                std::fs::write(&path, bytes).expect("written");
            }
        }
        let ran = home.dari(["search", "사과"]).exits(1);
        ran.one_error(&["vectors-", "dari index"]);
        let ran = home.dari(["index", "p", "--json"]).exits(0);
        assert!(ran.json()["embedded"].as_u64() > Some(0), "{spoil}\n{ran}");
        let ran = home.dari(["search", "빨간 사과", "--json"]).ok();
        let hits = ran.json_lines();
        assert_eq!(hits.len(), 3, "{spoil}");
        assert!(text(&hits[0], "path").ends_with("red-apple.png"), "{spoil}");
    }
}

#[test]
fn one_damaged_vector_costs_only_itself() {
    let home = home();
    let path = vectors(&home);
    let mut bytes = std::fs::read(&path).expect("vectors");
    let last = bytes.len() - 5;
    bytes[last] ^= 0x40;
    std::fs::write(&path, bytes).expect("written");
    home.dari(["index", "p"]).exits(0);
    let ran = home.dari(["search", "빨간 사과", "--json"]).ok();
    assert_eq!(ran.json_lines().len(), 3);
}

#[test]
fn a_data_folder_that_cannot_be_made_is_named() {
    let home = home();
    home.write("file", "no folder");
    for place in ["file", "file/below"] {
        let mut command = home.command(["index", "p"]);
        command.env("DARI_DATA_HOME", home.path(place));
        let ran = run(command).exits(1);
        ran.one_error(&["file"]);
    }
    let kept = std::fs::read_to_string(home.path("file")).expect("the file");
    assert_eq!(kept, "no folder");
}

#[cfg(target_os = "linux")]
#[test]
fn without_a_word_the_index_lies_where_the_system_has_it() {
    let home = home();
    let mut command = home.command(["index", "p"]);
    command.env_remove("DARI_DATA_HOME");
    command.env("XDG_DATA_HOME", home.path("xdg"));
    run(command).ok();
    assert!(home.path("xdg/dari/index.sqlite").is_file());
}

#[test]
fn numbers_without_sense_do_no_harm() {
    let home = home();
    let most = usize::MAX.to_string();
    let ran = home.dari(["search", "사과", "--json", "-k", &most]).ok();
    assert_eq!(ran.json_lines().len(), 3);
    home.dari(["search", "사과", "-k", "-1"]).exits(2);
    home.dari(["search", "사과", "-k", "many"]).exits(2);
    home.dari(["classify", "p", "--labels", "a", "--top", &most]).ok();
    home.dari(["index", "p", "--batch", "4096", "--threads", "64"]).ok();
}

#[test]
fn to_show_nothing_is_a_wrong_command_line() {
    let home = home();
    home.dari(["search", "사과", "-k", "0"]).exits(2);
    home.dari(["classify", "p", "--labels", "a", "--top", "0"]).exits(2);
}
