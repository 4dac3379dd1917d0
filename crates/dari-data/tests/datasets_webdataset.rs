//! WebDataset shards: those of Python's tarfile, patterns and folders of them, hostile ones.

use std::path::{Path, PathBuf};

use dari_data::datasets::{Pair, Pairs, open};
use dari_data::image::{Limits, Picture};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/datasets")
}

fn read(path: impl AsRef<Path>) -> Box<dyn Pairs> {
    open(path.as_ref(), &Limits::default()).unwrap()
}

fn captions(pair: &Pair) -> Vec<(Option<&str>, &str)> {
    pair.captions.iter().map(|c| (c.language.as_deref(), c.text.as_str())).collect()
}

fn png() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.png");
    Picture::from_rgb(1, 1, vec![9; 3]).unwrap().write_png(&file).unwrap();
    std::fs::read(file).unwrap()
}

/// A member with a right check sum.
fn member_of_size(name: &str, content: &[u8], size: u64) -> Vec<u8> {
    let mut block = vec![0; 512];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
    block[156] = b'0';
    block[257..263].copy_from_slice(b"ustar\0");
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    block.extend(content);
    block.resize(block.len().next_multiple_of(512), 0);
    block
}

fn member(name: &str, content: impl AsRef<[u8]>) -> Vec<u8> {
    member_of_size(name, content.as_ref(), content.as_ref().len() as u64)
}

fn fails(pairs: &dyn Pairs, index: usize, expected: &[&str]) {
    let message = pairs.get(index).unwrap_err().to_string();
    for part in expected {
        assert!(message.contains(part), "{message:?} without {part:?}");
    }
}

#[test]
fn shards_of_every_format() {
    let long = "a long folder of shards/".repeat(5);
    for (name, count) in [("ustar.tar", 3), ("gnu.tar", 4), ("pax.tar", 4)] {
        let pairs = read(fixtures().join(name));
        assert_eq!(pairs.len(), count, "{name}");
        let pair = pairs.get(0).unwrap();
        assert_eq!(pair.key, "folder/000");
        assert_eq!((pair.picture.width(), pair.picture.height()), (3, 2));
        assert_eq!(&pair.picture.rgb()[..3], [255, 0, 0]);
        assert_eq!(captions(&pair), [(None, "a red picture")]);
        let pair = pairs.get(1).unwrap();
        assert_eq!(pair.key, "001");
        assert_eq!(captions(&pair), [(Some("ko"), "파란 그림"), (None, "a blue picture")]);
        let pair = pairs.get(2).unwrap();
        assert_eq!(pair.key, format!("{long}002"), "{name}");
        assert_eq!(captions(&pair), [(Some("en"), "green"), (Some("ko"), "초록"), (Some("ko"), "초록색")]);
        if count == 4 {
            let pair = pairs.get(3).unwrap();
            assert_eq!(pair.key, format!("한글 이름/{}", "가".repeat(120)), "{name}");
            assert_eq!((pair.picture.width(), pair.picture.height()), (1, 2));
        }
        let describe = pairs.describe();
        assert!(describe.contains(&format!("{count} pairs in 1 shards")), "{describe}");
    }
}

#[test]
fn folders_and_patterns() {
    let folder = tempfile::tempdir().unwrap();
    for shard in [10, 2, 9] {
        let content = [member("k.png", png()), member("k.txt", format!("of {shard}"))].concat();
        std::fs::write(folder.path().join(format!("s-{shard:03}.tar")), content).unwrap();
    }
    let words = |pairs: &dyn Pairs| -> Vec<String> {
        (0..pairs.len()).map(|index| pairs.get(index).unwrap().captions[0].text.clone()).collect()
    };
    assert_eq!(words(&*read(folder.path())), ["of 2", "of 9", "of 10"]);
    assert_eq!(words(&*read(folder.path().join("s-{009..010}.tar"))), ["of 9", "of 10"]);
    let refuse = |pattern: &str, part: &str| {
        let error = open(&folder.path().join(pattern), &Limits::default()).err().unwrap();
        assert!(error.to_string().contains(part), "{error}");
    };
    refuse("s-{002..003}.tar", "s-003.tar");
    refuse("s-{3..2}.tar", "rising");
    refuse("s-{0..9999999}.tar", "rising one of at most");
    refuse("s-*.tar", "s-*.tar");
}

#[test]
fn corrupt_samples() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.tar");
    let members = [
        member("../../../etc/a.png", png()),
        member("../../../etc/a.txt", "climbs, and is only a key"),
        member("b.png", "no picture"),
        member("b.txt", "words"),
        member("c.png", png()),
        member("c.txt", b"\xff"),
        member("d.png", png()),
        member("d.txt", " \n"),
        member("e.png", png()),
        member("e.json", "{\"caption\": "),
        member("f.png", png()),
        member("f.json", "{\"width\": 3}"),
        member("g.png", png()),
        member("g.txt", "once"),
        member("g.jpg", png()),
        member("h.png", png()),
        member("i.txt", "alone"),
        member("._a.png", "a file manager's"),
        member("/absolute.png", png()),
        member("/absolute.txt", "a key too"),
        member("noextension", "x"),
        member("j.png", png()),
        member("j.txt", "x".repeat(2 << 20)),
    ];
    std::fs::write(&path, members.concat()).unwrap();
    let pairs = read(&path);
    assert_eq!(pairs.len(), 9);
    assert_eq!(pairs.get(0).unwrap().key, "../../../etc/a");
    fails(&*pairs, 1, &["x.tar", "b.png"]);
    fails(&*pairs, 2, &["x.tar", "c.txt", "UTF-8"]);
    fails(&*pairs, 3, &["d.txt", "empty"]);
    fails(&*pairs, 4, &["e.json", "not JSON"]);
    fails(&*pairs, 5, &["f.json", "caption"]);
    fails(&*pairs, 6, &["g.jpg", "two members"]);
    assert_eq!(pairs.get(7).unwrap().key, "/absolute");
    fails(&*pairs, 8, &["j.txt", "bytes"]);
    assert!(pairs.describe().contains("2 more without"), "{}", pairs.describe());
    assert!(!folder.path().join("../../../etc/a.png").exists());
}

#[test]
fn shards_that_lie() {
    let folder = tempfile::tempdir().unwrap();
    let good = [member("a.png", png()), member("a.txt", "fine")].concat();
    // Larger than the file, smaller than the truth, no header, cut short.
    let larger = member_of_size("b.png", &png(), 1 << 32);
    let smaller = [member_of_size("b.png", &[7; 2048], 3), member("b.txt", "x")].concat();
    let cut = member("b.png", vec![1; 4096])[..3000].to_vec();
    let cases = [
        (larger, "b.png"),
        (smaller, "no tar header"),
        (vec![1; 700], "no tar header"),
        (cut, "to the end of the file"),
        (vec![1; 100], "ends within a header"),
    ];
    for (content, problem) in cases {
        let path = folder.path().join("x.tar");
        std::fs::write(&path, [good.clone(), content].concat()).unwrap();
        let pairs = read(&path);
        assert_eq!(pairs.len(), 2, "{problem}");
        assert!(pairs.get(0).is_ok());
        fails(&*pairs, 1, &["x.tar", problem, "not read"]);
    }
    let path = folder.path().join("none.tar");
    std::fs::write(&path, vec![3; 5000]).unwrap();
    let error = open(&path, &Limits::default()).err().unwrap().to_string();
    assert!(error.contains("none.tar") && error.contains("no tar header"), "{error}");
    std::fs::write(&path, vec![0; 1024]).unwrap();
    assert!(open(&path, &Limits::default()).is_err());
}

#[test]
fn every_truncation_and_flip_of_a_shard_ends() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.tar");
    let whole = std::fs::read(fixtures().join("pax.tar")).unwrap();
    for step in (0..whole.len()).step_by(89) {
        let mut flipped = whole.clone();
        flipped[step] ^= 0xff;
        for content in [&whole[..step], &flipped] {
            std::fs::write(&path, content).unwrap();
            if let Ok(pairs) = open(&path, &Limits::default()) {
                (0..pairs.len()).for_each(|index| drop(pairs.get(index)));
            }
        }
    }
}

#[test]
fn limits_hold_for_members() {
    let limits = Limits { max_file_bytes: 10, ..Limits::default() };
    let error = open(&fixtures().join("gnu.tar"), &limits).err().unwrap().to_string();
    assert!(error.contains("at most 10"), "{error}");
}
