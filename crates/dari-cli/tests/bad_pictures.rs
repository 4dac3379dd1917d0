//! Pictures that are none, and folders that mislead: each is named in one line, the rest goes on.

mod common;

use common::pictures::{chunk, numbered, png, png_of, zlib};
use common::{Home, Npy, Ran, run, sample, text};

/// Names and contents of files that are no sound pictures.
fn broken() -> Vec<(&'static str, Vec<u8>)> {
    let good = std::fs::read(sample("red-apple.png")).expect("a sample");
    let third = good.len() / 3;
    let mut overwritten = good.clone();
    overwritten[third..third + 40].fill(0xaa);
    // A bomb: a small file that claims to be 60000 x 60000.
    let bomb = png_of(60_000, 60_000, &[0; 100]);
    let mut bmp = b"BM".to_vec();
    bmp.extend([0xff; 52]);
    let mut webp = b"RIFF\xff\xff\xff\xffWEBPVP8L".to_vec();
    webp.extend([0xff; 40]);
    let mut tiff = b"II*\0\x08\0\0\0\xff\xff".to_vec();
    tiff.extend([0xff; 60]);
    let mut gif = b"GIF89a\xff\xff\xff\xff\xf7\0\0".to_vec();
    gif.extend([0xff; 40]);
    let mut zero = b"\x89PNG\r\n\x1a\n".to_vec();
    chunk(&mut zero, b"IHDR", &[0, 0, 0, 0, 0, 0, 0, 0, 8, 2, 0, 0, 0]);
    chunk(&mut zero, b"IDAT", &zlib(&[]));
    chunk(&mut zero, b"IEND", &[]);
    let mut long = b"\x89PNG\r\n\x1a\n".to_vec();
    long.extend([0xff, 0xff, 0xff, 0xff]);
    long.extend(b"IHDR");
    vec![
        ("bomb.png", bomb),
        ("cut.png", good[..third].to_vec()),
        ("empty.png", Vec::new()),
        ("gif.gif", gif),
        ("header-only.png", good[..8].to_vec()),
        ("jpeg.jpg", b"\xff\xd8\xff\xe0\0\x10JFIF\0nothing more".to_vec()),
        ("long-chunk.png", long),
        ("nothing-in-it.png", zero),
        ("one-byte.png", vec![0x89]),
        ("overwritten.png", overwritten),
        ("rows-missing.png", png_of(16, 16, &[0; 49])),
        ("table.bmp", bmp),
        ("text.png", b"this is no picture".to_vec()),
        ("tiff.tiff", tiff),
        ("web.webp", webp),
        ("zip.png", b"PK\x03\x04and so on".to_vec()),
    ]
}

/// A home whose folder `mixed` holds all of them and two good pictures.
fn mixed() -> (Home, Vec<&'static str>) {
    let home = Home::new();
    let broken = broken();
    for (name, bytes) in &broken {
        home.write(format!("mixed/{name}"), bytes);
    }
    home.copy(&sample("red-apple.png"), "mixed/good-apple.png");
    home.copy(&sample("blue-car.png"), "mixed/good-car.png");
    (home, broken.into_iter().map(|(name, _)| name).collect())
}

/// Each broken file has its line, and there are no other lines.
#[track_caller]
fn check_names(ran: &Ran, names: &[&str]) {
    for name in names {
        ran.names(&format!("mixed/{name}"));
    }
    assert_eq!(ran.err.lines().count(), names.len(), "{ran}");
}

#[test]
fn embed_names_each_and_goes_on() {
    let (home, names) = mixed();
    let ran = home.dari(["embed", "--images", "mixed", "--output", "v.npy"]);
    let ran = ran.exits(1);
    check_names(&ran, &names);
    let array = Npy::read(&home.path("v.npy"));
    assert_eq!(array.shape.0, names.len() + 2);
    let good = array.rows.iter().filter(|row| row.iter().all(|x| x.is_finite()));
    assert_eq!(good.count(), 2);
    let lines = home.dari(["embed", "--images", "mixed"]).exits(1).json_lines();
    assert_eq!(lines.iter().filter(|line| line.get("error").is_some()).count(), names.len());
}

#[test]
fn classify_names_each_and_goes_on() {
    let (home, names) = mixed();
    let ran = home.dari(["classify", "mixed", "--labels", "사과,자동차", "--json"]);
    let ran = ran.exits(1);
    check_names(&ran, &names);
    let answers = ran.json_lines();
    let good: Vec<_> = answers.iter().filter(|answer| answer.get("labels").is_some()).collect();
    assert_eq!(good.len(), 2);
    assert_eq!(text(&good[0]["labels"][0], "label"), "사과");
    assert_eq!(text(&good[1]["labels"][0], "label"), "자동차");
}

#[test]
fn similarity_names_each_and_goes_on() {
    let (home, names) = mixed();
    let ran = home.dari(["similarity", "--images", "mixed", "--texts", "사과", "--json"]);
    let ran = ran.exits(1);
    check_names(&ran, &names);
    assert_eq!(ran.json()["pictures"], serde_json::json!(["mixed/good-apple.png", "mixed/good-car.png"]));
}

#[test]
fn index_names_each_and_goes_on() {
    let (home, names) = mixed();
    for round in 0..2 {
        let ran = home.dari(["index", "mixed", "--json"]).exits(1);
        check_names(&ran, &names);
        let report = ran.json();
        assert_eq!(report["embedded"], if round == 0 { 2 } else { 0 });
        let failed = report["failed"].as_array().expect("failures");
        assert_eq!(failed.len(), names.len());
        for failure in failed {
            assert!(text(failure, "picture").contains("mixed/"));
            assert!(!text(failure, "error").is_empty());
        }
    }
    let ran = home.dari(["index", "mixed"]).exits(1);
    assert!(ran.out.contains("16 failed"), "the sum leaves out what failed\n{ran}");
}

#[test]
fn search_names_each_and_finds_the_rest() {
    let (home, names) = mixed();
    let ran = home.dari(["search", "사과", "--in", "mixed", "--json", "--html", "p.html"]);
    let ran = ran.exits(1);
    check_names(&ran, &names);
    let hits = ran.json_lines();
    assert_eq!(hits.len(), 2);
    assert!(text(&hits[0], "path").ends_with("good-apple.png"));
    assert!(home.path("p.html").is_file());
}

#[test]
fn every_message_says_what_is_wrong_and_what_to_do() {
    let home = Home::new();
    for (name, bytes) in broken() {
        home.write(name, bytes);
        let ran = home.dari(["embed", "--images", name]).exits(1);
        let line = ran.one_error(&[name]);
        assert!(line.contains(';'), "no way out: {line}");
    }
}

#[test]
fn a_picture_under_another_name_is_read_all_the_same() {
    let home = Home::new();
    home.copy(&sample("red-apple.png"), "a.jpg");
    home.copy(&sample("red-apple.png"), "a.png");
    home.copy(&sample("red-apple.png"), "a");
    let ran = home.dari(["embed", "--images", "a.jpg", "a.png", "a"]).ok();
    let lines = ran.json_lines();
    assert_eq!(lines[0]["vector"], lines[1]["vector"]);
    assert_eq!(lines[2]["vector"], lines[1]["vector"]);
}

#[test]
fn extreme_shapes_are_pictures_too() {
    let home = Home::new();
    home.write("dot.png", png(1, 1, &|_, _| [200, 10, 10]));
    home.write("thread.png", png(4000, 1, &|x, _| [x as u8, 0, 0]));
    home.write("needle.png", png(1, 4000, &|_, y| [0, y as u8, 0]));
    home.dari(["embed", "--images", "dot.png", "thread.png", "needle.png"]).ok();
}

#[test]
fn a_folder_without_pictures_says_what_is_looked_for() {
    let home = Home::new();
    home.folder("empty");
    home.write("texts/a.txt", "no picture");
    home.write("texts/.hidden.png", numbered(1));
    for folder in ["empty", "texts"] {
        for arguments in [
            vec!["embed", "--images", folder],
            vec!["classify", folder, "--labels", "a"],
            vec!["similarity", "--images", folder, "--texts", "a"],
            vec!["index", folder],
            vec!["search", "a", "--in", folder],
        ] {
            let ran = home.dari(&arguments).exits(1);
            ran.one_error(&[folder, "no pictures", "png"]);
        }
    }
}

#[test]
fn a_missing_picture_is_named_once() {
    let home = Home::new();
    home.copy(&sample("red-apple.png"), "a.png");
    let ran = home.dari(["embed", "--images", "missing.png", "a.png"]).exits(1);
    ran.one_error(&["missing.png", "No such file"]);
    assert_eq!(ran.json_lines().len(), 2);
}

#[cfg(unix)]
mod unix {
    use super::*;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::os::unix::process::CommandExt;
    use std::path::Path;

    #[test]
    fn links_in_circles_end() {
        let home = Home::new();
        home.copy(&sample("red-apple.png"), "tree/in/a.png");
        symlink(home.path("tree"), home.path("tree/in/up")).expect("a link");
        symlink(home.path("tree"), home.path("tree/in/up.png")).expect("a link");
        symlink("b", home.path("tree/a")).expect("a link");
        symlink("a", home.path("tree/b")).expect("a link");
        let report = home.dari(["index", "tree", "--json"]).ok().json();
        assert_eq!(report["seen"], 1, "{report}");
        assert_eq!(home.dari(["embed", "--images", "tree"]).ok().json_lines().len(), 1);
    }

    #[test]
    fn links_that_lead_nowhere_are_named() {
        let home = Home::new();
        home.copy(&sample("red-apple.png"), "p/a.png");
        symlink("nothing.png", home.path("p/dangling.png")).expect("a link");
        symlink("self.png", home.path("p/self.png")).expect("a link");
        let ran = home.dari(["index", "p", "--json"]).exits(1);
        ran.names("dangling.png");
        ran.names("self.png");
        assert_eq!(ran.json()["embedded"], 1);
        // The same folder, the same answer: what failed is an input that failed.
        let ran = home.dari(["embed", "--images", "p"]).exits(1);
        assert!(ran.err.contains("dangling.png") && ran.err.contains("self.png"));
        assert_eq!(ran.err.lines().count(), 2, "{ran}");
    }

    #[test]
    fn pipes_and_sockets_in_a_folder_are_not_waited_for() {
        let home = Home::new();
        home.copy(&sample("red-apple.png"), "p/a.png");
        let pipe = home.path("p/pipe.png");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.expect("mkfifo runs").success());
        let socket = home.path("p/socket.png");
        let _listening = std::os::unix::net::UnixListener::bind(&socket).expect("a socket");
        let ran = home.dari(["index", "p", "--json"]).exits(1);
        ran.names("pipe.png");
        ran.names("socket.png");
        assert_eq!(ran.json()["embedded"], 1);
        let ran = home.dari(["embed", "--images", "p"]);
        assert!(ran.err.contains("pipe.png") && ran.err.contains("socket.png"));
    }

    #[test]
    fn names_that_are_no_unicode_do() {
        let home = Home::new();
        let name = OsStr::from_bytes(b"p/\xff\xfe apple.png");
        home.copy(&sample("red-apple.png"), Path::new(name));
        home.copy(&sample("blue-car.png"), "p/car\n\u{1b}[31m.png");
        let broken = OsStr::from_bytes(b"p/\xff\n broken.png");
        home.write(Path::new(broken), "");
        let ran = home.dari(["index", "p", "--json"]).exits(1);
        assert_eq!(ran.json()["embedded"], 2);
        ran.one_error(&["broken.png"]);
        let ran = home.dari(["search", "빨간 사과", "--json"]).ok();
        assert!(text(&ran.json_lines()[0], "path").ends_with(" apple.png"));
        let argument = [OsStr::new("embed"), OsStr::new("--images"), name];
        home.dari(argument).ok();
        let page = ["search", "사과", "--html", "found.html"];
        home.dari(page).exits(0);
        assert!(home.path("found.html").is_file());
    }

    #[test]
    fn what_is_printed_moves_no_cursor() {
        let home = Home::new();
        home.copy(&sample("blue-car.png"), "p/car\n\u{1b}[31m.png");
        let ran = home.dari(["search", "자동차", "--in", "p"]).ok();
        assert_eq!(ran.out.lines().count(), 1, "one line a hit\n{ran}");
        assert!(!ran.out.contains('\u{1b}'), "{ran}");
        let ran = home.dari(["classify", "p", "--labels", "자동차"]).ok();
        assert_eq!(ran.out.lines().count(), 2, "{ran}");
        assert!(!ran.out.contains('\u{1b}'), "{ran}");
    }

    #[test]
    fn what_may_not_be_read_is_named() {
        let home = Home::new();
        home.copy(&sample("red-apple.png"), "p/a.png");
        let shut = home.copy(&sample("red-apple.png"), "p/shut.png");
        home.copy(&sample("red-apple.png"), "p/closed/b.png");
        let set = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("set");
        };
        set(&shut, 0);
        set(&home.path("p/closed"), 0);
        // Root reads everything: then the program runs as nobody.
        let root = std::fs::read(&shut).is_ok();
        set(&home.path(""), 0o777);
        let command = |arguments: &[&str]| {
            let mut command = home.command(arguments);
            if root {
                command.gid(65_534).uid(65_534);
            }
            command
        };
        if command(&["--version"]).output().is_err() {
            common::skipped("nobody may not run the binary here");
            return;
        }
        let ran = run(command(&["index", "p", "--json"])).exits(1);
        ran.names("shut.png");
        ran.names("p/closed");
        assert_eq!(ran.json()["embedded"], 1);
        let ran = run(command(&["embed", "--images", "p"])).exits(1);
        assert!(ran.err.contains("shut.png") && ran.err.contains("closed"));
        set(&home.path("p/closed"), 0o755);
    }
}
