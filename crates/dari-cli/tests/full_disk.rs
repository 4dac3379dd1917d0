//! A full disk: one line, nothing written before is lost, and the work goes on once there is room.

#![cfg(target_os = "linux")]

mod common;

use common::pictures::numbered;
use common::recipe::scenes;
use common::{Home, on_small_disk};

/// What a script wrote into a file of the home.
fn said(home: &Home, file: &str) -> String {
    std::fs::read_to_string(home.path(file)).expect("the script's answer")
}

/// Expects one error's line about space on the disk.
#[track_caller]
fn one_line_about_space(said: &str) {
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.starts_with("dari: error: "), "{said}");
    assert!(said.to_lowercase().contains("space"), "{said}");
    assert!(said.contains("disk/"), "no file is named: {said}");
    common::check_line(said.trim_end());
}

#[test]
fn indexing_keeps_what_it_had_and_goes_on_later() {
    let home = Home::new();
    for number in 0..40 {
        home.write(format!("few/{number}.png"), numbered(number));
    }
    for number in 0..600 {
        home.write(format!("many/{number}.png"), numbered(1000 + number));
    }
    let script = r#"
        export DARI_DATA_HOME="$DISK/data"
        "$DARI" index few --json > first.json 2> first.err || exit 11
        "$DARI" index many --batch 8 > full.out 2> full.err
        echo $? > full.code
        "$DARI" index few --json > again.json 2> again.err
        "$DARI" search x --in few --json -k 100 > found.json 2> found.err
        mount -o remount,size=64m "$DISK" || exit 12
        "$DARI" index many --json > room.json 2> room.err || exit 13
        "$DARI" index few --json > last.json 2> last.err || exit 14
    "#;
    if on_small_disk(&home, "240k", script).is_none() {
        return;
    }
    assert_eq!(said(&home, "full.code").trim(), "1", "{}", said(&home, "full.err"));
    one_line_about_space(&said(&home, "full.err"));
    let json = |file: &str| -> serde_json::Value { serde_json::from_str(&said(&home, file)).expect("JSON") };
    assert_eq!(json("first.json")["embedded"], 40);
    let room = json("room.json");
    assert_eq!(room["seen"], 600);
    let kept = room["unchanged"].as_u64().expect("a count");
    assert!(kept > 0, "what was indexed before the disk was full stays: {room}");
    assert!(room["embedded"].as_u64() > Some(0), "the disk was never full: {room}");
    assert_eq!(json("last.json")["unchanged"], 40);
    assert_eq!(said(&home, "last.err"), "");
    // Reading needs no room.
    assert_eq!(said(&home, "found.json").lines().count(), 40, "{}", said(&home, "found.err"));
}

#[test]
fn training_keeps_the_last_good_checkpoint_and_goes_on_later() {
    let home = Home::new();
    scenes(&home, "steps = 30\nlearning_rate = 1e-3\ncheckpoint_every = 5\nkeep = 50");
    let script = r#"
        "$DARI" train recipe.toml --set output=whole 2> whole.err || exit 11
        "$DARI" train recipe.toml --set "output=$DISK/run" > full.out 2> full.err
        echo $? > full.code
        ls "$DISK/run/checkpoints" > kept
        "$DARI" models show "$DISK/run/checkpoints/$(tail -1 kept)" > show.out 2> show.err || exit 12
        mount -o remount,size=64m "$DISK" || exit 13
        "$DARI" train recipe.toml --set "output=$DISK/run" --resume > room.out 2> room.err || exit 14
        cp "$DISK/run/metrics.jsonl" metrics.jsonl
        cmp "$DISK/run/model/model.safetensors" whole/model/model.safetensors || exit 15
    "#;
    if on_small_disk(&home, "560k", script).is_none() {
        return;
    }
    assert_eq!(said(&home, "full.code").trim(), "1", "{}", said(&home, "full.err"));
    one_line_about_space(&said(&home, "full.err"));
    let kept = said(&home, "kept");
    let kept: Vec<&str> = kept.lines().filter(|name| name.starts_with("step-")).collect();
    assert!((1..6).contains(&kept.len()), "{kept:?}");
    assert_eq!(said(&home, "room.err"), "");
    assert_eq!(said(&home, "metrics.jsonl").lines().count(), 30);
}

#[test]
fn embedding_leaves_no_half_of_a_file() {
    let home = Home::new();
    home.write("texts.txt", "a red apple\n".repeat(400));
    let script = r#"
        "$DARI" embed --texts a --output "$DISK/v.npy" || exit 11
        cp "$DISK/v.npy" before.npy
        "$DARI" embed --texts-file texts.txt --output "$DISK/v.npy" 2> full.err
        echo $? > full.code
        cmp "$DISK/v.npy" before.npy || exit 12
        ls -A "$DISK" > left
    "#;
    if on_small_disk(&home, "64k", script).is_none() {
        return;
    }
    assert_eq!(said(&home, "full.code").trim(), "1");
    one_line_about_space(&said(&home, "full.err"));
    assert_eq!(said(&home, "left").trim(), "v.npy");
}

#[test]
fn pages_and_heat_maps_leave_no_half_of_a_file() {
    let home = Home::new();
    for number in 0..30 {
        home.write(format!("p/{number}.png"), numbered(number));
    }
    let script = r#"
        "$DARI" index p > /dev/null || exit 11
        "$DARI" search x -k 1 --html "$DISK/page.html" > /dev/null || exit 12
        "$DARI" similarity --images p/1.png --texts a --png "$DISK/map.png" > /dev/null || exit 13
        cp "$DISK/page.html" page.html
        cp "$DISK/map.png" map.png
        dd if=/dev/zero of="$DISK/filler" bs=1k 2> /dev/null
        "$DARI" search x -k 30 --html "$DISK/page.html" > page.out 2> page.err
        echo $? > page.code
        "$DARI" similarity --images p --texts a b c d --png "$DISK/map.png" > map.out 2> map.err
        echo $? > map.code
        cmp "$DISK/page.html" page.html && cmp "$DISK/map.png" map.png && echo same > same
        exit 0
    "#;
    if on_small_disk(&home, "128k", script).is_none() {
        return;
    }
    for what in ["page", "map"] {
        assert_eq!(said(&home, &format!("{what}.code")).trim(), "1", "{what}");
        one_line_about_space(&said(&home, &format!("{what}.err")));
    }
    assert!(home.path("same").exists(), "what was there before was overwritten with a half");
}
