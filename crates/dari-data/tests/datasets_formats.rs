//! Every layout of pairs, sound and corrupt.

use std::path::Path;

use dari_data::datasets::{Caption, Error, Pair, Pairs, open};
use dari_data::image::{Limits, Picture};

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn write(path: impl AsRef<Path>, content: impl AsRef<[u8]>) {
    let path = path.as_ref();
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

/// A picture of one grey.
fn draw(path: impl AsRef<Path>, grey: u8) {
    let path = path.as_ref();
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    Picture::from_rgb(2, 3, vec![grey; 18]).unwrap().write_png(path).unwrap();
}

fn read(path: impl AsRef<Path>) -> Box<dyn Pairs> {
    open(path.as_ref(), &Limits::default()).unwrap()
}

fn refuse(path: impl AsRef<Path>, expected: &[&str]) -> Error {
    let error = open(path.as_ref(), &Limits::default()).err().expect("an error");
    mentions(&error, expected);
    error
}

fn mentions(error: &Error, expected: &[&str]) {
    let message = error.to_string();
    for part in expected {
        assert!(message.contains(part), "{message:?} without {part:?}");
    }
    assert!(!message.contains('\n'), "{message:?}");
}

fn fails(pairs: &dyn Pairs, index: usize, expected: &[&str]) {
    mentions(&pairs.get(index).unwrap_err(), expected);
}

fn captions(pair: &Pair) -> Vec<(Option<&str>, &str)> {
    pair.captions.iter().map(|c| (c.language.as_deref(), c.text.as_str())).collect()
}

#[test]
fn a_folder_of_pictures() {
    let folder = folder();
    let root = folder.path();
    draw(root.join("b.png"), 2);
    write(root.join("b.txt"), "\u{feff}two\r\n\n  zwei  \n");
    draw(root.join("a.PNG"), 1);
    write(root.join("a.ko.txt"), "하나");
    write(root.join("a.en.txt"), "one\nuno");
    draw(root.join("deep/er/c.d.png"), 3);
    write(root.join("deep/er/c.d.txt"), "three");
    draw(root.join("deep/er/c.png"), 4);
    write(root.join("deep/er/c.long.txt"), "no language has four letters");
    draw(root.join("alone.png"), 5);
    write(root.join("alone.md"), "no caption");
    write(root.join("words.txt"), "no picture");

    let pairs = read(root);
    assert_eq!(pairs.len(), 3);
    assert!(!pairs.is_empty());
    assert!(pairs.describe().contains("3 pictures with captions, 2 more without"), "{}", pairs.describe());
    let pair = pairs.get(0).unwrap();
    assert_eq!(pair.key, "a");
    assert_eq!(pair.picture.rgb(), [1; 18]);
    assert_eq!(captions(&pair), [(Some("en"), "one"), (Some("en"), "uno"), (Some("ko"), "하나")]);
    assert_eq!(captions(&pairs.get(1).unwrap()), [(None, "two"), (None, "zwei")]);
    assert_eq!(pairs.get(2).unwrap().key, "deep/er/c.d");
    mentions(&pairs.get(3).unwrap_err(), &["pair 3 of 3"]);
    fails(&*pairs, usize::MAX, &["of 3"]);
}

#[test]
fn corrupt_records_of_a_folder() {
    let folder = folder();
    let root = folder.path();
    draw(root.join("a.png"), 1);
    write(root.join("a.txt"), "fine");
    draw(root.join("b.png"), 1);
    write(root.join("b.txt"), " \n\n");
    draw(root.join("c.png"), 1);
    write(root.join("c.txt"), b"caf\xe9");
    write(root.join("d.png"), "no picture at all");
    write(root.join("d.txt"), "words");
    write(root.join("e.png"), "");
    write(root.join("e.txt"), "words");
    draw(root.join("f.png"), 1);
    write(root.join("f.txt"), "x".repeat(2 << 20));
    let pairs = read(root);
    assert_eq!(pairs.len(), 6);
    assert!(pairs.get(0).is_ok());
    fails(&*pairs, 1, &["b.txt", "empty"]);
    fails(&*pairs, 2, &["c.txt", "byte 3", "UTF-8"]);
    fails(&*pairs, 3, &["d.png"]);
    fails(&*pairs, 4, &["e.png"]);
    fails(&*pairs, 5, &["f.txt", "bytes"]);
    std::fs::remove_file(root.join("a.png")).unwrap();
    fails(&*pairs, 0, &["a.png"]);
}

#[cfg(unix)]
#[test]
fn links_in_circles() {
    let folder = folder();
    let root = folder.path();
    draw(root.join("in/a.png"), 1);
    write(root.join("in/a.txt"), "one");
    std::os::unix::fs::symlink(root, root.join("in/again")).unwrap();
    std::os::unix::fs::symlink("nowhere", root.join("in/nowhere")).unwrap();
    std::os::unix::fs::symlink(root.join("in/a.png"), root.join("b.png")).unwrap();
    write(root.join("b.txt"), "linked");
    let pairs = read(root);
    let keys: Vec<String> = (0..pairs.len()).map(|index| pairs.get(index).unwrap().key).collect();
    assert_eq!(keys, ["b", "in/a"]);
}

#[test]
fn nothing_usable() {
    let folder = folder();
    let root = folder.path();
    let error = refuse(root, &["0 pictures", "a.txt"]);
    assert!(matches!(error, Error::NoPairs { .. }));
    draw(root.join("a.png"), 1);
    refuse(root, &["1 pictures"]);
    write(root.join("a.txt"), "");
    refuse(root, &["first of 1 errors", "a.txt", "empty"]);
    refuse(root.join("missing"), &["missing"]);
    refuse(root.join("missing.csv"), &["missing.csv"]);
    write(root.join("x.parquet"), "");
    assert!(matches!(refuse(root.join("x.parquet"), &["x.parquet", ".jsonl"]), Error::Unknown { .. }));
    write(root.join("x.tar.gz"), "");
    refuse(root.join("x.tar.gz"), &["unpack it first"]);
    write(root.join("x"), "");
    refuse(root.join("x"), &["tells no format"]);
    for name in ["e.csv", "e.tsv", "e.jsonl", "e.tar"] {
        write(root.join(name), "");
        refuse(root.join(name), &[name]);
    }
    write(root.join("header.csv"), "image,caption\n");
    refuse(root.join("header.csv"), &["header.csv", "no record"]);
    write(root.join("all.jsonl"), "{}\n[]\nnonsense\n");
    refuse(root.join("all.jsonl"), &["first of 3 errors", "line 1"]);
}

#[test]
fn tables() {
    let folder = folder();
    let root = folder.path();
    draw(root.join("pictures/a.png"), 1);
    draw(root.join("pictures/b, c.png"), 2);
    let absolute = root.join("pictures/a.png");
    let table = format!(
        "\u{feff}id, Image ,caption,caption_ko,caption_id\r\n1,pictures/a.png,\"a \"\"quoted\"\"\nred, picture\",빨간 그림,77\r\n\r\n2,\"pictures/b, c.png\", two ,,78\n3,{},three,,\n",
        absolute.display()
    );
    write(root.join("pairs.csv"), table);
    let pairs = read(root.join("pairs.csv"));
    assert_eq!(pairs.len(), 3);
    let pair = pairs.get(0).unwrap();
    assert_eq!(captions(&pair), [(None, "a \"quoted\"\nred, picture"), (Some("ko"), "빨간 그림")]);
    assert_eq!(pair.key, "pictures/a.png");
    let pair = pairs.get(1).unwrap();
    assert_eq!(captions(&pair), [(None, "two")]);
    assert_eq!(pair.picture.rgb(), [2; 18]);
    assert!(pairs.get(2).is_ok());
    assert!(pairs.describe().contains("3 records"));

    for (name, content) in [
        ("open_clip.csv", "filepath\ttitle\npictures/a.png\tone, two\n"),
        ("semicolons.csv", "file;text\npictures/a.png;one, two\n"),
        ("tabs.tsv", "title\tfilepath\none, two\tpictures/a.png\n"),
        ("quoted.csv", "\u{feff}\"picture\",\"text\"\r\"pictures/a.png\",\"one, two\"\r"),
    ] {
        write(root.join(name), content);
        assert_eq!(captions(&read(root.join(name)).get(0).unwrap()), [(None, "one, two")], "{name}");
    }
}

#[test]
fn corrupt_records_of_a_table() {
    let folder = folder();
    let root = folder.path();
    draw(root.join("a.png"), 1);
    let mut table = b"image,caption\na.png,one\na.png\na.png,caf\xe9\nmissing.png,two\na.png,  \n,three\n\"a.png\",four\n".to_vec();
    table.extend(b"../../../../etc/passwd,five\na.png,\"not closed\n");
    table.extend(b"a.png,x\n".repeat(200_000));
    write(root.join("pairs.csv"), table);
    let pairs = read(root.join("pairs.csv"));
    assert_eq!(pairs.len(), 9);
    assert!(pairs.get(0).is_ok());
    fails(&*pairs, 1, &["pairs.csv", "line 3", "1 fields", "at least 2"]);
    fails(&*pairs, 2, &["line 4", "byte 3", "UTF-8"]);
    fails(&*pairs, 3, &["line 5", "missing.png"]);
    fails(&*pairs, 4, &["line 6", "empty caption"]);
    fails(&*pairs, 5, &["line 7", "no picture"]);
    assert!(pairs.get(6).is_ok());
    fails(&*pairs, 7, &["line 9", "passwd"]);
    fails(&*pairs, 8, &["line 10", "quotation mark"]);

    write(root.join("columns.csv"), "name,words\na,b\n");
    let error = refuse(root.join("columns.csv"), &["\"name\", \"words\"", "filepath", "caption_ko"]);
    assert!(matches!(error, Error::Header { .. }));
    write(root.join("bytes.csv"), b"im\xffage,caption\na.png,b\n");
    refuse(root.join("bytes.csv"), &["byte 2", "UTF-8"]);
}

#[test]
fn json_lines() {
    let folder = folder();
    let root = folder.path();
    draw(root.join("a.png"), 1);
    let lines = [
        r#"{"image": "a.png", "caption": "one"}"#,
        r#"{"picture": "a.png", "text": ["one", " ", "two"], "other": {"deep": [1]}}"#,
        "",
        r#"{"image": "a.png", "caption": {"en": ["one", "two"], "ko": "하나"}}"#,
        r#"{"image": "a.png", "caption_ko": "하나", "caption_id": 12}"#,
        r#"{"image": "a.png"}"#,
        r#"{"image": "a.png", "caption": ""}"#,
        r#"{"image": "a.png", "caption": 7}"#,
        r#"{"image": "a.png", "caption": {"en": {"deeper": "x"}}}"#,
        r#"{"caption": "one"}"#,
        r#"{"image": 3, "caption": "one"}"#,
        r#"{"image": "b.png", "caption": "one"}"#,
        r#"{"image": "a.png", "caption": "one""#,
        r#"["a.png", "one"]"#,
        "\u{7f}",
    ];
    let mut content = lines.join("\n").into_bytes();
    content.extend(b"\n{\"image\": \"a.png\", \"caption\": \"\xff\"}\n");
    content.extend("[".repeat(100_000).bytes());
    write(root.join("pairs.jsonl"), content);
    let pairs = read(root.join("pairs.jsonl"));
    assert_eq!(pairs.len(), 16);
    assert_eq!(captions(&pairs.get(0).unwrap()), [(None, "one")]);
    assert_eq!(captions(&pairs.get(1).unwrap()), [(None, "one"), (None, "two")]);
    let expected = [(Some("en"), "one"), (Some("en"), "two"), (Some("ko"), "하나")];
    assert_eq!(captions(&pairs.get(2).unwrap()), expected);
    assert_eq!(captions(&pairs.get(3).unwrap()), [(Some("ko"), "하나")]);
    let caption = Caption { text: "one".into(), language: None };
    assert_eq!(pairs.get(0).unwrap().captions, [caption]);
    let errors: [(usize, &[&str]); 12] = [
        (4, &["pairs.jsonl", "line 6", "no \"caption\""]),
        (5, &["line 7", "empty caption"]),
        (6, &["line 8", "a number"]),
        (7, &["line 9", "an object"]),
        (8, &["line 10", "\"image\""]),
        (9, &["line 11", "\"image\""]),
        (10, &["line 12", "b.png"]),
        (11, &["line 13", "column", "not JSON"]),
        (12, &["line 14", "no JSON object"]),
        (13, &["line 15", "not JSON"]),
        (14, &["line 16", "UTF-8"]),
        (15, &["line 17", "not JSON"]),
    ];
    for (index, expected) in errors {
        fails(&*pairs, index, expected);
    }
}

#[test]
fn paths_stay_as_written() {
    let folder = folder();
    draw(folder.path().join("a.png"), 1);
    write(folder.path().join("data/pairs.ndjson"), r#"{"image": "../a.png", "caption": "one"}"#);
    assert_eq!(read(folder.path().join("data/pairs.ndjson")).get(0).unwrap().key, "../a.png");
}

#[test]
fn pairs_are_shared_between_threads() {
    let folder = folder();
    for index in 0..8 {
        draw(folder.path().join(format!("{index}.png")), index);
        write(folder.path().join(format!("{index}.txt")), index.to_string());
    }
    let pairs = read(folder.path());
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let pairs = &pairs;
            scope.spawn(move || {
                for index in (0..8).map(|index| (index * 3 + thread) % 8) {
                    let pair = pairs.get(index).unwrap();
                    assert_eq!(pair.captions[0].text, index.to_string());
                    assert_eq!(usize::from(pair.picture.rgb()[0]), index);
                }
            });
        }
    });
}

#[test]
fn a_folder_a_class() {
    let home = folder();
    for (name, grey) in [("cat/a.png", 1), ("cat/deep/b.png", 2), ("강아지/c.png", 3), ("loose.png", 4)] {
        let path = home.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        draw(&path, grey);
    }
    let pairs = read(home.path());
    assert_eq!(pairs.len(), 3);
    let said = |index| pairs.get(index).expect("a pair").captions[0].text.clone();
    assert_eq!([said(0), said(1), said(2)], ["cat", "cat", "강아지"]);
    // One caption anywhere, and captions are what counts.
    write(home.path().join("cat/a.txt"), "a cat");
    assert_eq!(read(home.path()).len(), 1);
}

#[test]
fn coco_captions() {
    let home = folder();
    for part in ["annotations", "val2017"] {
        std::fs::create_dir(home.path().join(part)).expect("a folder");
    }
    draw(home.path().join("val2017/1.png"), 9);
    let file = home.path().join("annotations/captions_val2017.json");
    let images = r#"[{"id": 7, "file_name": "1.png"}, {"id": 8, "file_name": "2.png"}, {"id": 9, "file_name": "3.png"}]"#;
    let captions = r#"[{"image_id": 7, "caption": "a cat"}, {"image_id": 8, "caption": "lost"}, {"image_id": 7, "caption": " two "}]"#;
    write(&file, format!(r#"{{"info": {{}}, "images": {images}, "annotations": {captions}}}"#));
    let pairs = read(&file);
    assert_eq!(pairs.len(), 2);
    let pair = pairs.get(0).expect("a pair");
    assert_eq!(captions_of(&pair), ["a cat", "two"]);
    fails(&*pairs, 1, &["2.png"]);
    write(&file, format!(r#"{{"images": {images}, "annotations": [{{"image_id": 1, "caption": "x"}}]}}"#));
    refuse(&file, &["image 1"]);
    write(&file, "[]");
    refuse(&file, &["captions_val2017.json", "annotations"]);
}

fn captions_of(pair: &Pair) -> Vec<&str> {
    pair.captions.iter().map(|caption| caption.text.as_str()).collect()
}

/// Two row groups of three rows: pictures in `{bytes, path}`, a list of captions, a class by number.
fn parquet(path: &Path, pictures: [&[u8]; 3]) {
    use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
    use parquet::file::metadata::KeyValue;
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    let schema = "message m {
        optional group image { optional binary bytes; optional binary path (UTF8); }
        optional group caption (LIST) { repeated group list { optional binary element (UTF8); } }
        optional int64 label;
    }";
    let schema = std::sync::Arc::new(parquet::schema::parser::parse_message_type(schema).expect("a schema"));
    let names = r#"{"info": {"features": {"label": {"_type": "ClassLabel", "names": ["cat", "개"]}}}}"#;
    let about = vec![KeyValue { key: "huggingface".into(), value: Some(names.into()) }];
    let properties = WriterProperties::builder().set_key_value_metadata(Some(about)).build();
    let file = std::fs::File::create(path).expect("a file");
    let mut writer = SerializedFileWriter::new(file, schema, properties.into()).expect("a writer");
    let bytes = |all: &[&[u8]]| all.iter().map(|one| ByteArray::from(one.to_vec())).collect::<Vec<_>>();
    for _ in 0..2 {
        let mut group = writer.next_row_group().expect("a group");
        let mut number = 0;
        while let Some(mut column) = group.next_column().expect("a column") {
            match number {
                0 => column.typed::<ByteArrayType>().write_batch(&bytes(&pictures), Some(&[2, 2, 2]), None),
                1 => column.typed::<ByteArrayType>().write_batch(&[], Some(&[1, 1, 1]), None),
                2 => column.typed::<ByteArrayType>().write_batch(
                    &bytes(&[b"one", b"two", b"three"]),
                    Some(&[3, 3, 3, 0]),
                    Some(&[0, 1, 0, 0]),
                ),
                _ => column.typed::<Int64Type>().write_batch(&[0, 1, 7], Some(&[1, 1, 1]), None),
            }
            .expect("written");
            column.close().expect("closed");
            number += 1;
        }
        group.close().expect("closed");
    }
    writer.close().expect("closed");
}

#[test]
fn parquet_with_pictures_inside() {
    let home = folder();
    draw(home.path().join("a.png"), 7);
    let png = std::fs::read(home.path().join("a.png")).expect("a picture");
    let path = home.path().join("set.parquet");
    parquet(&path, [&png, b"no picture", &png]);
    let pairs = read(&path);
    assert_eq!(pairs.len(), 6);
    assert_eq!(captions_of(&pairs.get(0).expect("a pair")), ["one", "two"]);
    assert_eq!(captions_of(&pairs.get(3).expect("a pair")), ["one", "two"]);
    fails(&*pairs, 1, &["row 2"]);
    // Row 3 has no caption: the class counts only where no column has any.
    fails(&*pairs, 2, &["row 3", "no words"]);
    let whole = std::fs::read(&path).expect("the file");
    for length in (0..whole.len()).step_by(7) {
        let cut = home.path().join("cut.parquet");
        write(&cut, &whole[..length]);
        assert!(open(&cut, &Limits::default()).is_err(), "{length} bytes");
    }
    for at in 0..whole.len() {
        let mut spoilt = whole.clone();
        spoilt[at] ^= 0x55;
        let file = home.path().join("spoilt.parquet");
        write(&file, &spoilt);
        // Whatever comes of it, it comes to an end.
        if let Ok(pairs) = open(&file, &Limits::default()) {
            for index in 0..pairs.len().min(8) {
                let _ = pairs.get(index);
            }
        }
    }
}

#[test]
fn a_class_counts_where_there_is_no_caption() {
    let home = folder();
    draw(home.path().join("a.png"), 3);
    write(home.path().join("both.csv"), "image,caption,label\na.png,a cat,7\n");
    write(home.path().join("class.csv"), "image,label\na.png,cat\n");
    write(home.path().join("both.jsonl"), "{\"image\": \"a.png\", \"label\": 3, \"caption\": \"a cat\"}");
    write(home.path().join("class.jsonl"), "{\"image\": \"a.png\", \"label\": 3}");
    let said = |name: &str| captions_of(&read(home.path().join(name)).get(0).expect("a pair")).join("|");
    assert_eq!(said("both.csv"), "a cat");
    assert_eq!(said("class.csv"), "cat");
    assert_eq!(said("both.jsonl"), "a cat");
    assert_eq!(said("class.jsonl"), "3");
}
