//! `dari evaluate` and `dari look`: what they say of pictures whose answers are known.

mod common;

use common::pictures::png_size;
use common::{Home, numbers, sample};
use serde_json::json;

/// Two classes of three pictures each.
fn classes(home: &Home) {
    for (class, names) in [
        ("사과", ["red-apple.png", "green-apple.png", "red-mushroom.png"]),
        ("자동차", ["blue-car.png", "yellow-boat.png", "blue-fish.png"]),
    ] {
        for name in names {
            home.copy(&sample(name), format!("set/{class}/{name}"));
        }
    }
}

#[test]
fn zero_shot_by_the_names_of_folders() {
    let home = Home::new();
    classes(&home);
    home.write("set/사과/broken.png", "no picture");
    let ran =
        home.dari(["evaluate", "zero-shot", "set", "--template", "{} 그림", "--save", "kept", "--json"]);
    let ran = ran.exits(1);
    assert!(ran.err.contains("broken"), "{ran}");
    let found = ran.json();
    assert_eq!([&found["pictures"], &found["classes"], &found["failed"]], [&json!(6), &json!(2), &json!(1)]);
    assert_eq!(found["chance"], 0.5);
    assert_eq!(found["top_5"], 1.0);
    let top = found["top_1"].as_f64().expect("a share");
    assert!(top >= 0.5, "{found}");
    let read = |name: &str| std::fs::read_to_string(home.path("kept").join(name)).expect("kept");
    assert_eq!(read("classes.json"), "[\"사과\",\"자동차\"]");
    assert_eq!(read("labels.json"), "[0,0,0,1,1,1]");
    assert!(home.path("kept/pictures.npy").exists() && home.path("kept/classes.npy").exists());
    // A table for people, and a class that was not asked about.
    let ran = home.dari(["evaluate", "zero-shot", "set"]).exits(1);
    assert!(ran.out.contains("top-1") && ran.out.contains("2 classes"), "{ran}");
    home.write("labels.txt", "사과\n배\n");
    let ran = home.dari(["evaluate", "zero-shot", "set", "--labels-file", "labels.txt"]);
    assert!(ran.exits(2).err.contains("자동차"));
}

#[test]
fn retrieval_goes_both_ways() {
    let home = Home::new();
    let mut lines = String::new();
    for name in ["red-apple", "blue-car", "yellow-boat", "three-blue-stars"] {
        home.copy(&sample(&format!("{name}.png")), format!("{name}.png"));
        let caption = json!({"en": [name.replace('-', " ")], "ko": ["그림"]});
        lines += &format!("{}\n", json!({"image": format!("{name}.png"), "caption": caption}));
    }
    home.write("set.jsonl", lines);
    let ran = home.dari(["evaluate", "retrieval", "set.jsonl", "--language", "en", "--json"]);
    let found = ran.ok().json();
    assert_eq!(found["texts"], 4);
    for way in ["text_to_picture", "picture_to_text"] {
        assert_eq!(found[way]["at_1"], 1.0, "{found}");
        assert_eq!(found[way]["at_10"], 1.0);
    }
    // All say the same in Korean: ties go to the lower index, whatever comes first.
    let found = home.dari(["evaluate", "retrieval", "set.jsonl", "--language", "ko", "--json"]).ok().json();
    assert_eq!(found["picture_to_text"]["at_1"], 0.25, "{found}");
    let ran = home.dari(["evaluate", "retrieval", "set.jsonl", "--language", "fr"]);
    assert!(ran.exits(1).err.contains("fr"));
}

#[test]
fn a_linear_probe_learns_and_is_asked() {
    let home = Home::new();
    classes(&home);
    for (class, name) in
        [("사과", "red-flower.png"), ("자동차", "yellow-moon.png"), ("배", "yellow-banana.png")]
    {
        home.copy(&sample(name), format!("test/{class}/{name}"));
    }
    let ran = home.dari([
        "evaluate",
        "linear-probe",
        "--train",
        "set",
        "--test",
        "set",
        "--lambda",
        "1e-4",
        "--json",
    ]);
    let found = ran.ok().json();
    assert_eq!(found["test"]["top_1"], 1.0, "{found}");
    assert_eq!(found["train"], found["test"]);
    assert!(found["fit"]["gradient_norm"].as_f64().expect("a norm") < 1e-6, "{found}");
    let ran = home.dari(["evaluate", "linear-probe", "--train", "set", "--test", "test"]);
    assert!(ran.exits(2).err.contains('배'));
    let ran = home.dari(["evaluate", "linear-probe", "--train", "set", "--test", "nowhere"]);
    assert!(ran.exits(1).err.contains("nowhere"));
}

#[test]
fn looking_tells_where() {
    let home = Home::new();
    let picture = home.copy(&sample("red-star-above-blue-circle.png"), "picture.png");
    let picture = picture.to_str().expect("a path");
    let ran = home.dari(["look", picture, "red star", "파란 원", "--json", "--png", "where.png"]);
    let lines = ran.ok().json_lines();
    assert_eq!(lines.len(), 2);
    // Where the gradient lies, from the top: the star stands above the circle.
    let middle = |line: &serde_json::Value| {
        let rows: Vec<f64> =
            line["gradient"].as_array().expect("rows").iter().map(|r| numbers(r).iter().sum()).collect();
        rows.iter().enumerate().map(|(y, sum)| y as f64 * sum).sum::<f64>() / rows.iter().sum::<f64>()
    };
    assert!(middle(&lines[0]) + 1.0 < middle(&lines[1]), "{} {}", middle(&lines[0]), middle(&lines[1]));
    let (width, height) = png_size(&std::fs::read(home.path("where.png")).expect("a picture"));
    assert!(width > 3 * 448 && height > 2 * 448, "{width} x {height}");
    let ran = home.dari(["look", picture, "red star"]).ok();
    assert!(ran.out.contains("cosine") && !ran.out.contains('\u{1b}'), "{ran}");
    let ran = home.dari(["look", "nothing.png", "a"]);
    assert!(ran.exits(1).err.contains("nothing.png"));
}

#[test]
fn embeddings_as_parquet() {
    let home = Home::new();
    let picture = home.copy(&sample("red-apple.png"), "apple.png");
    let picture = picture.to_str().expect("a path");
    let command = ["embed", "--images", picture, "none.png", "--texts", "사과", "--output"];
    let to = |name: &str| home.dari(command.iter().copied().chain([name])).exits(1);
    to("rows.parquet");
    to("rows.npy");
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::record::Field;
    let file = std::fs::File::open(home.path("rows.parquet")).expect("written");
    let reader = SerializedFileReader::new(file).expect("Parquet");
    let rows: Vec<_> = reader.get_row_iter(None).expect("rows").map(|row| row.expect("a row")).collect();
    assert_eq!(rows.len(), 3);
    let field = |row: usize, name: &str| {
        rows[row].get_column_iter().find(|(own, _)| *own == name).expect("a column").1.clone()
    };
    assert_eq!(field(2, "input"), Field::Str("사과".into()));
    assert_eq!(field(1, "vector"), Field::Null);
    assert!(matches!(field(1, "error"), Field::Str(text) if text.contains("none.png")));
    let Field::ListInternal(list) = field(0, "vector") else { panic!("no list") };
    let npy = std::fs::read(home.path("rows.npy")).expect("written");
    let width = list.elements().len();
    let values = &npy[npy.len() - 3 * width * 4..];
    for (element, bytes) in list.elements().iter().zip(values.chunks_exact(4)) {
        assert_eq!(*element, Field::Float(f32::from_le_bytes(bytes.try_into().expect("4 bytes"))));
    }
}
