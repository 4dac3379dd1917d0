//! Help in both languages, manual pages and completions.
//!
//! The texts are kept under `snapshots/`; after a wanted change, run with `DARI_UPDATE_SNAPSHOTS=1`
//! and read the difference.

mod common;

use std::path::Path;

use common::{Home, run};

const COMMANDS: [&str; 19] = [
    "",
    "embed",
    "classify",
    "similarity",
    "look",
    "index",
    "search",
    "models",
    "models list",
    "models show",
    "models pull",
    "doctor",
    "train",
    "evaluate",
    "evaluate zero-shot",
    "evaluate retrieval",
    "evaluate linear-probe",
    "completions",
    "man",
];

fn help(home: &Home, command: &str, language: &str) -> String {
    let mut dari = home.command(command.split_whitespace().chain(["--help"]));
    // A terminal's width would change where the lines break.
    dari.env("DARI_LANG", language).env("COLUMNS", "100");
    run(dari).ok().out
}

fn compare(name: &str, found: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots").join(name);
    if std::env::var_os("DARI_UPDATE_SNAPSHOTS").is_some_and(|value| value == "1") {
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        std::fs::write(&path, found).expect("written");
        return;
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        found, kept,
        "{name} has changed; if that is wanted: DARI_UPDATE_SNAPSHOTS=1 cargo test --test help"
    );
}

fn compare_all(language: &str) {
    let home = Home::new();
    for command in COMMANDS {
        let name = match command {
            "" => "dari".to_owned(),
            command => command.replace(' ', "-"),
        };
        // A program may be called dari.exe.
        let found = help(&home, command, language).replace("dari.exe", "dari");
        compare(&format!("{language}/{name}.txt"), &found);
    }
}

#[test]
fn english_help_is_as_it_was() {
    compare_all("en");
}

#[test]
fn korean_help_is_as_it_was() {
    compare_all("ko");
}

fn is_korean(text: &str) -> bool {
    text.chars().any(|c| ('가'..='힣').contains(&c))
}

#[test]
fn korean_help_speaks_korean_throughout() {
    let home = Home::new();
    for command in COMMANDS {
        let found = help(&home, command, "ko");
        for english in ["Print help", "Print this message", "Usage:", "Options:"] {
            assert!(!found.contains(english), "`{english}` in the help of `{command}`:\n{found}");
        }
    }
}

#[test]
fn no_line_is_broken_twice() {
    let home = Home::new();
    for language in ["en", "ko"] {
        for command in COMMANDS {
            let found = help(&home, command, language);
            let lines: Vec<&str> = found.lines().collect();
            for pair in lines.windows(2) {
                // A lone word after a full line: wrapped by hand, and once more by the program.
                let lone = !pair[1].is_empty() && !pair[1].trim().contains(' ');
                let starts = pair[1].chars().next().is_some_and(char::is_lowercase);
                let full = pair[0].chars().count() > 85;
                assert!(!(lone && starts && full), "{language} {command}: {pair:?}");
            }
        }
    }
}

#[test]
fn the_language_follows_the_locale() {
    let home = Home::new();
    let help = |variables: &[(&str, &str)]| {
        let mut dari = home.command(["--help"]);
        for name in ["DARI_LANG", "LC_ALL", "LC_MESSAGES", "LANG"] {
            dari.env_remove(name);
        }
        dari.envs(variables.iter().copied());
        run(dari).ok().out
    };
    assert!(is_korean(&help(&[("LANG", "ko_KR.UTF-8")])));
    assert!(is_korean(&help(&[("DARI_LANG", "ko"), ("LC_ALL", "C")])));
    let english = help(&[("DARI_LANG", "en"), ("LANG", "ko_KR.UTF-8")]);
    assert!(english.starts_with("See, speak and understand"));
    assert!(help(&[]).starts_with("See, speak and understand"));
}

#[test]
fn messages_come_in_korean_too() {
    let home = Home::new();
    home.folder("empty");
    for arguments in [
        vec!["search", "사과"],
        vec!["index", "empty"],
        vec!["embed"],
        vec!["search", " "],
        vec!["classify", "empty", "--labels", ","],
        vec!["embed", "--texts", "a", "--output", "a.txt"],
    ] {
        let mut dari = home.command(&arguments);
        dari.env("DARI_LANG", "ko");
        let ran = run(dari);
        let line = ran.err.lines().next().unwrap_or_default();
        let said = line.strip_prefix("dari: 오류: ").unwrap_or_default();
        assert!(is_korean(said), "{ran}");
    }
}

#[test]
fn completions_know_the_commands() {
    let home = Home::new();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let found = home.dari(["completions", shell]).ok().out;
        assert!(found.contains("similarity") && found.contains("precision"), "{shell}");
    }
    home.dari(["completions", "cmd"]).exits(2);
}

#[test]
fn the_manual_is_written() {
    let home = Home::new();
    let found = home.dari(["man"]).ok().out;
    assert!(found.contains(".TH dari 1") && found.contains("classify"));
    home.dari(["man", "--output", "man"]).ok();
    for page in ["dari.1", "dari-embed.1", "dari-search.1", "dari-models-show.1"] {
        let about = std::fs::metadata(home.path("man").join(page));
        assert!(about.is_ok_and(|about| about.len() > 200), "{page}");
    }
}

#[test]
fn version_and_help_end_well_and_nonsense_does_not() {
    let home = Home::new();
    let ran = home.dari(["--version"]).ok();
    assert_eq!(ran.out.trim(), concat!("dari ", env!("CARGO_PKG_VERSION")));
    home.dari::<&str>([]).exits(2);
    let ran = home.dari(["nonsense"]).exits(2);
    assert!(ran.err.contains("nonsense") && ran.err.contains("--help"));
}

#[test]
fn help_tells_of_json_and_gives_examples() {
    let home = Home::new();
    for command in ["embed", "classify", "similarity", "index", "search"] {
        let found = help(&home, command, "en");
        assert!(found.contains("JSON, one object"), "{command}");
        assert!(found.contains(&format!("dari {command} ")), "{command}");
    }
}
