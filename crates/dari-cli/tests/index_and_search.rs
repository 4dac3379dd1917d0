//! `dari index` and `dari search`: only what changed is embedded, and what is found.

mod common;

use common::pictures::numbered;
use common::{Home, Ran, fixture, run, sample, text, wait_until};
use serde_json::Value;

const FEW: [&str; 4] = ["red-apple.png", "blue-car.png", "yellow-boat.png", "green-tree.png"];

fn home() -> Home {
    let home = Home::new();
    for name in FEW {
        home.copy(&sample(name), format!("pictures/{name}"));
    }
    home
}

fn index(home: &Home) -> Value {
    home.dari(["index", "pictures", "--json"]).ok().json()
}

#[track_caller]
fn expect(report: &Value, counts: &[(&str, u64)]) {
    for (name, count) in counts {
        assert_eq!(report[name], *count, "{name} in {report}");
    }
}

fn paths(ran: &Ran) -> Vec<String> {
    let lines = ran.json_lines();
    lines.iter().map(|hit| text(hit, "path").to_owned()).collect()
}

#[test]
fn a_second_run_embeds_nothing() {
    let home = home();
    let first = index(&home);
    expect(&first, &[("seen", 4), ("embedded", 4), ("unchanged", 0)]);
    assert_eq!(first["failed"], serde_json::json!([]));
    assert!(text(&first, "folder").ends_with("pictures"));
    let second = index(&home);
    expect(&second, &[("seen", 4), ("embedded", 0), ("unchanged", 4)]);
    let ran = home.dari(["index", "pictures"]).ok();
    assert!(ran.out.contains("0 embedded") && ran.out.contains("4 unchanged"));
    assert_eq!(ran.out.lines().count(), 1);
}

#[test]
fn renamed_pictures_are_not_embedded_again() {
    let home = home();
    index(&home);
    let (from, to) = (home.path("pictures/red-apple.png"), home.path("pictures/사과.png"));
    std::fs::rename(from, &to).expect("renamed");
    let report = index(&home);
    expect(&report, &[("seen", 4), ("embedded", 0), ("moved", 1), ("unchanged", 3)]);
    let ran = home.dari(["search", "빨간 사과", "--json", "-k", "9"]).ok();
    let found = paths(&ran);
    assert_eq!(found.len(), 4, "{ran}");
    assert!(found[0].ends_with("사과.png"), "{ran}");
    assert!(!found.iter().any(|path| path.contains("red-apple")), "{ran}");
}

#[test]
fn deleted_pictures_are_found_no_more() {
    let home = home();
    index(&home);
    std::fs::remove_file(home.path("pictures/red-apple.png")).expect("removed");
    let report = index(&home);
    expect(&report, &[("seen", 3), ("embedded", 0), ("removed", 1)]);
    let found = paths(&home.dari(["search", "빨간 사과", "--json"]).ok());
    assert_eq!(found.len(), 3);
    assert!(!found.iter().any(|path| path.contains("red-apple")));
}

#[test]
fn new_and_changed_pictures_are_embedded_and_copies_are_not() {
    let home = home();
    index(&home);
    home.copy(&sample("pink-ice-cream.png"), "pictures/deep/er/new.png");
    home.copy(&sample("white-cloud.png"), "pictures/blue-car.png");
    home.copy(&sample("red-apple.png"), "pictures/again.png");
    let report = index(&home);
    expect(&report, &[("seen", 6), ("embedded", 2), ("copied", 1), ("unchanged", 3)]);
}

#[test]
fn another_models_vectors_are_kept_apart() {
    let home = home();
    index(&home);
    let clip = fixture("clip-openai").display().to_string();
    let ran = home.dari(["search", "apple", "--model", &clip]).exits(1);
    ran.one_error(&["no pictures", "index"]);
    let ran = home.dari(["index", "pictures", "--json", "--model", &clip]);
    expect(&ran.ok().json(), &[("embedded", 4), ("unchanged", 0)]);
    let ran = home.dari(["search", "apple", "--json", "--model", &clip]).ok();
    assert_eq!(paths(&ran).len(), 4);
    expect(&index(&home), &[("embedded", 0), ("unchanged", 4)]);
    // Other precision, other vectors.
    let ran = home.dari(["index", "pictures", "--json", "--precision", "bf16"]);
    expect(&ran.ok().json(), &[("embedded", 4)]);
}

#[test]
fn the_model_may_come_from_the_environment() {
    let home = home();
    let mut command = home.command(["index", "pictures", "--json"]);
    command.env("DARI_MODEL", fixture("clip-openai"));
    run(command).ok();
    expect(&index(&home), &[("embedded", 4)]);
}

#[test]
fn what_a_killed_run_had_done_is_kept() {
    for attempt in 0..5 {
        let home = Home::new();
        for number in 0..300 {
            home.write(format!("pictures/{number:03}.png"), numbered(number));
        }
        let mut child = home
            .command(["index", "pictures", "--batch", "2"])
            .stdout(std::process::Stdio::null())
            .spawn()
            .expect("the binary runs");
        let started = wait_until(|| vectors(&home) > 20_000);
        assert!(started, "no vector was written");
        child.kill().expect("killed");
        let ended = child.wait().expect("its end");
        // On a quick machine it may have been done already.
        if ended.success() && attempt < 4 {
            continue;
        }
        let report = index(&home);
        let count = |name: &str| report[name].as_u64().expect("a count");
        assert_eq!(count("seen"), 300);
        assert!(count("unchanged") > 0, "nothing was kept: {report}");
        assert!(count("embedded") > 0, "it had ended before: {report}");
        assert_eq!(count("unchanged") + count("embedded") + count("copied"), 300);
        expect(&index(&home), &[("unchanged", 300), ("embedded", 0)]);
        let ran = home.dari(["search", "x", "--json", "-k", "1000", "--in", "pictures"]);
        assert_eq!(paths(&ran.ok()).len(), 300);
        return;
    }
}

/// Bytes in the files of vectors.
fn vectors(home: &Home) -> u64 {
    let Ok(entries) = std::fs::read_dir(home.path("data")) else {
        return 0;
    };
    let files = entries.filter_map(Result::ok);
    let files = files.filter(|entry| entry.file_name().to_string_lossy().starts_with("vectors"));
    files.filter_map(|entry| entry.metadata().ok()).map(|about| about.len()).sum()
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_says_so_and_is_carried_on() {
    let home = Home::new();
    for number in 0..300 {
        home.write(format!("pictures/{number:03}.png"), numbered(number));
    }
    let child = home
        .command(["index", "pictures", "--batch", "2"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("the binary runs");
    assert!(wait_until(|| vectors(&home) > 20_000), "no vector was written");
    common::interrupt(child.id());
    let output = child.wait_with_output().expect("its end");
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.contains("next run"), "{said}");
    }
    let report = index(&home);
    assert!(report["unchanged"].as_u64() > Some(0), "{report}");
    expect(&index(&home), &[("seen", 300), ("unchanged", 300)]);
}

#[test]
fn two_runs_at_once_do_no_harm() {
    let home = Home::new();
    for number in 0..60 {
        home.write(format!("pictures/{number:03}.png"), numbered(number));
    }
    let spawn = || {
        let mut command = home.command(["index", "pictures", "--batch", "2", "--json"]);
        command.stdout(std::process::Stdio::null());
        command.stderr(std::process::Stdio::piped());
        command.spawn().expect("the binary runs")
    };
    for child in [spawn(), spawn()] {
        let output = child.wait_with_output().expect("its end");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
    }
    expect(&index(&home), &[("seen", 60), ("embedded", 0), ("unchanged", 60)]);
}

#[test]
fn search_tells_rank_score_and_path() {
    let home = home();
    let ran = home.dari(["search", "노란 배", "--in", "pictures", "--json", "-k", "3"]);
    let hits = ran.ok().json_lines();
    let ranks: Vec<_> = hits.iter().map(|hit| hit["rank"].as_u64()).collect();
    assert_eq!(ranks, [Some(1), Some(2), Some(3)]);
    let scores: Vec<f64> = hits.iter().filter_map(|hit| hit["score"].as_f64()).collect();
    assert_eq!(scores.len(), 3);
    assert!(scores.is_sorted_by(|a, b| a >= b), "{scores:?}");
    assert!(std::path::Path::new(text(&hits[0], "path")).is_file());
    assert!(text(&hits[0], "path").ends_with("yellow-boat.png"));
}

#[test]
fn search_by_a_picture_finds_it_first() {
    let home = home();
    let picture = sample("blue-car.png").display().to_string();
    let ran = home.dari(["search", "--image", &picture, "--in", "pictures", "--json"]);
    let hits = ran.ok().json_lines();
    assert!(text(&hits[0], "path").ends_with("blue-car.png"));
    assert!(hits[0]["score"].as_f64() > Some(0.999));
    let ran = home.dari(["search", "파란 자동차", "--image", &picture, "--json"]);
    let hits = ran.ok().json_lines();
    assert!(text(&hits[0], "path").ends_with("blue-car.png"));
}

#[test]
fn search_looks_only_where_it_is_told() {
    let home = home();
    home.copy(&sample("red-balloon.png"), "other/red-balloon.png");
    index(&home);
    let found = paths(&home.dari(["search", "빨간 사과", "--in", "other", "--json"]).ok());
    assert_eq!(found.len(), 1);
    let found = paths(&home.dari(["search", "빨간 사과", "--json"]).ok());
    assert_eq!(found.len(), 5, "without --in, all that was indexed");
}

#[test]
fn the_page_holds_all_it_shows() {
    let home = home();
    let query = "<script>alert('사과')</script> & \"";
    home.copy(&sample("red-apple.png"), "pictures/a<b>&\"c'.png");
    let ran = home.dari(["search", query, "--in", "pictures", "--html", "found.html"]);
    ran.ok();
    let page = std::fs::read_to_string(home.path("found.html")).expect("the page");
    assert!(page.contains("data:image/png;base64,"));
    for outside in ["src=\"http", "href=\"http", "url(http", "src=\"file:", "<link", "@import"] {
        assert!(!page.contains(outside), "{outside} leads out of the page");
    }
    assert!(!page.contains("<script>alert"), "the query is escaped");
    assert!(!page.contains("a<b>"), "names of files are escaped");
    assert!(page.contains("red-apple.png") || page.contains("blue-car.png"));
}

#[test]
fn mistakes_are_told_with_their_way_out() {
    let home = home();
    let ran = home.dari(["search", "사과"]).exits(1);
    ran.one_error(&["--in", "dari index"]);
    home.dari(["search", "  "]).exits(2).one_error(&["QUERY"]);
    home.dari(["search"]).exits(2);
    home.dari(["index"]).exits(2);
    let ran = home.dari(["index", "nowhere"]).exits(1);
    ran.one_error(&["nowhere"]);
    let ran = home.dari(["search", "사과", "--in", "nowhere"]).exits(1);
    ran.one_error(&["nowhere"]);
    let ran = home.dari(["index", "pictures/red-apple.png"]).exits(1);
    ran.one_error(&["red-apple.png", "folder"]);
    let ran = home.dari(["search", "--image", "missing.png", "--in", "pictures"]);
    ran.exits(1).one_error(&["missing.png"]);
}

#[test]
fn models_that_cannot_compare_are_refused() {
    let home = home();
    for model in ["vit", "bert"] {
        let model = fixture(model).display().to_string();
        let ran = home.dari(["search", "a", "--in", "pictures", "--model", &model]);
        ran.exits(2).one_error(&["CLIP", "SigLIP"]);
    }
}
