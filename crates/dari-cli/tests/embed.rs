//! `dari embed`: order, formats, lengths, precision.

mod common;

use common::{Home, Npy, cosine, fixture, length, numbers, sample, text};

fn home() -> Home {
    let home = Home::new();
    for name in ["red-apple.png", "blue-car.png"] {
        home.copy(&sample(name), name);
    }
    home
}

#[test]
fn rows_are_pictures_then_texts_in_the_order_given() {
    let home = home();
    let ran = home.dari(["embed", "--texts", "둘", "one", "--images", "red-apple.png", "blue-car.png"]);
    let rows = ran.ok().json_lines();
    let inputs: Vec<_> = rows.iter().map(|row| text(row, "input")).collect();
    assert_eq!(inputs, ["red-apple.png", "blue-car.png", "둘", "one"]);
    let kinds: Vec<_> = rows.iter().map(|row| text(row, "kind")).collect();
    assert_eq!(kinds, ["picture", "picture", "text", "text"]);
    for row in &rows {
        assert!((length(&numbers(&row["vector"])) - 1.0).abs() < 1e-5);
    }
}

#[test]
fn the_npy_file_holds_the_same_vectors() {
    let home = home();
    let inputs = ["embed", "--images", "blue-car.png", "red-apple.png", "--texts", "사과"];
    let lines = home.dari(inputs).ok().json_lines();
    home.dari(inputs.iter().chain(&["--output", "v.npy"])).ok();
    let array = Npy::read(&home.path("v.npy"));
    let dim = numbers(&lines[0]["vector"]).len();
    assert_eq!(array.shape, (3, dim));
    for (line, row) in lines.iter().zip(&array.rows) {
        for (a, b) in numbers(&line["vector"]).iter().zip(row) {
            assert!((a - f64::from(*b)).abs() < 1e-6);
        }
    }
    let left = std::fs::read_dir(home.path("")).expect("the folder");
    let partial = |entry: std::io::Result<std::fs::DirEntry>| {
        let name = entry.expect("an entry").file_name();
        name.to_string_lossy().contains("partial")
    };
    assert!(!left.into_iter().any(partial), "nothing half-written stays");
}

#[test]
fn the_jsonl_file_holds_what_stdout_would() {
    let home = home();
    let inputs = ["embed", "--images", "blue-car.png", "--texts", "사과"];
    let lines = home.dari(inputs).ok().out;
    let with_output = inputs.iter().chain(&["--output", "v.jsonl"]);
    let ran = home.dari(with_output).ok();
    assert_eq!(ran.out, "");
    let written = std::fs::read_to_string(home.path("v.jsonl")).expect("the file");
    assert_eq!(written, lines);
}

#[test]
fn a_failed_picture_keeps_its_row() {
    let home = home();
    home.write("broken.png", "");
    let inputs = ["embed", "--images", "blue-car.png", "broken.png", "red-apple.png", "--texts", "사과"];
    let ran = home.dari(inputs.iter().chain(&["--output", "v.npy"]));
    let ran = ran.exits(1);
    ran.one_error(&["broken.png", "empty"]);
    let array = Npy::read(&home.path("v.npy"));
    assert_eq!(array.shape.0, 4);
    for (index, row) in array.rows.iter().enumerate() {
        if index == 1 {
            assert!(row.iter().all(|x| x.is_nan()), "{row:?}");
        } else {
            assert!(row.iter().all(|x| x.is_finite()), "{row:?}");
        }
    }
    let lines = home.dari(inputs).exits(1).json_lines();
    assert!(text(&lines[1], "error").contains("broken.png"));
    assert!(lines[1].get("vector").is_none());
    assert!(lines[2].get("error").is_none());
}

#[test]
fn a_batch_of_one_gives_the_same_vectors() {
    let home = home();
    let inputs = ["embed", "--images", "blue-car.png", "red-apple.png"];
    let all = home.dari(inputs).ok().json_lines();
    let inputs = inputs.iter().chain(&["--batch", "1", "--threads", "1"]);
    let single = home.dari(inputs).ok().json_lines();
    for (a, b) in all.iter().zip(&single) {
        for (a, b) in numbers(&a["vector"]).iter().zip(numbers(&b["vector"])) {
            assert!((a - b).abs() < 1e-5);
        }
    }
}

#[test]
fn bf16_weights_give_nearly_the_same() {
    let home = home();
    let inputs = ["embed", "--images", "red-apple.png", "--texts", "빨간 사과", "a blue car"];
    let clip = fixture("clip-openai").display().to_string();
    for model in ["mini", &clip] {
        let run = |precision| {
            let options = ["--model", model, "--precision", precision];
            home.dari(inputs.iter().chain(&options)).ok().json_lines()
        };
        let (exact, half) = (run("f32"), run("bf16"));
        for (a, b) in exact.iter().zip(&half) {
            let near = cosine(&numbers(&a["vector"]), &numbers(&b["vector"]));
            assert!(near > 0.995, "{model}: {near}");
        }
    }
}

#[test]
fn vectors_as_the_model_gives_them_keep_their_length() {
    let home = home();
    let inputs = ["embed", "--images", "red-apple.png", "--texts", "사과"];
    let unit = home.dari(inputs).ok().json_lines();
    let inputs = inputs.iter().chain(&["--no-normalize"]);
    let as_is = home.dari(inputs).ok().json_lines();
    for (a, b) in unit.iter().zip(&as_is) {
        let (a, b) = (numbers(&a["vector"]), numbers(&b["vector"]));
        assert!(cosine(&a, &b) > 0.999_99);
        assert!((length(&b) - 1.0).abs() > 1e-3, "{}", length(&b));
    }
}

#[test]
fn texts_come_from_a_file_without_its_blank_lines_and_mark() {
    let home = home();
    home.write("texts.txt", "\u{feff}사과\r\n\r\n  a boat  \n\n");
    let ran = home.dari(["embed", "--texts", "first", "--texts-file", "texts.txt"]);
    let rows = ran.ok().json_lines();
    let inputs: Vec<_> = rows.iter().map(|row| text(row, "input")).collect();
    assert_eq!(inputs, ["first", "사과", "a boat"]);
}

#[test]
fn folders_give_their_pictures_in_order() {
    let home = Home::new();
    for name in ["b.png", "a/z.png", "c.PNG"] {
        home.copy(&sample("red-apple.png"), format!("all/{name}"));
    }
    home.write("all/notes.txt", "no picture");
    let rows = home.dari(["embed", "--images", "all"]).ok().json_lines();
    let inputs: Vec<_> = rows.iter().map(|row| text(row, "input")).collect();
    assert_eq!(inputs, ["all/a/z.png", "all/b.png", "all/c.PNG"]);
}

#[test]
fn one_picture_has_one_vector_in_every_format() {
    let home = Home::new();
    let paint = |x: u32, y: u32| [(x * 10) as u8, (y * 8) as u8, 90];
    home.write("a.png", common::pictures::png(24, 30, &paint));
    home.write("a.bmp", common::pictures::bmp(24, 30, &paint));
    let rows = home.dari(["embed", "--images", "a.png", "a.bmp"]).ok();
    let rows = rows.json_lines();
    assert_eq!(rows[0]["vector"], rows[1]["vector"]);
}

#[test]
fn a_wrong_command_line_is_told_with_its_way_out() {
    let home = home();
    let nothing = home.dari(["embed"]).exits(2);
    nothing.one_error(&["--images", "--texts"]);
    let ending = home.dari(["embed", "--texts", "a", "--output", "v.txt"]);
    ending.exits(2).one_error(&["v.txt", ".npy", ".jsonl"]);
    let device = home.dari(["embed", "--texts", "a", "--device", "tpu"]);
    device.exits(2).one_error(&["tpu", "cpu"]);
    home.dari(["embed", "--texts", "a", "--batch", "0"]).exits(2);
    home.dari(["embed", "--texts", "a", "--threads", "0"]).exits(2);
    home.dari(["embed", "--texts", "a", "--precision", "f64"]).exits(2);
    home.dari(["embed", "--nonsense"]).exits(2);
}

#[test]
fn an_output_that_cannot_be_written_is_named() {
    let home = home();
    let ran = home.dari(["embed", "--texts", "a", "--output", "no/such/v.npy"]);
    ran.exits(1).one_error(&["no/such/v.npy"]);
}
