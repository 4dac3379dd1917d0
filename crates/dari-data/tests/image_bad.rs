//! Bad files give one clear line each, and never a picture.

mod image_common;

use dari_data::image::{Error, Limits, decode, open};
use image_common::{Xorshift, fixture, json};

fn bytes(name: &str) -> Vec<u8> {
    std::fs::read(fixture("files").join(name)).expect("the fixture is there")
}

fn refuse(name: &str, bytes: &[u8]) -> Error {
    let error = decode(name, bytes, &Limits::default()).expect_err(name);
    let text = error.to_string();
    assert!(text.starts_with(name), "{text}");
    assert!(!text.contains('\n') && text.len() < 400, "{text}");
    error
}

#[test]
fn empty_absent_and_not_pictures() {
    assert!(matches!(refuse("a", b""), Error::Empty { .. }));
    for (content, sign) in [
        (&b"%PDF-1.7 ..."[..], "a PDF document"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"hello, I am text", "68 65 6c 6c"),
        (b"\0\0\0\x20ftypavif\0\0", "AVIF"),
        (b"\0\0\0\x18ftypheic\0\0", "HEIC"),
        (b"<svg xmlns='x'/>", "SVG"),
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS"),
        (b"BM", "42 4d"),
        (b"\xff", "begins with ff;"),
    ] {
        let error = refuse("a", content);
        assert!(matches!(error, Error::NotPicture { .. }), "{error}");
        assert!(error.to_string().contains(sign), "{error}");
    }
    let absent = open(&fixture("no-such.png"), &Limits::default()).expect_err("absent");
    assert!(absent.to_string().contains("no-such.png"), "{absent}");
    let folder = open(&fixture("files"), &Limits::default()).expect_err("a folder");
    assert!(folder.to_string().contains("files"), "{folder}");
}

#[test]
fn the_extension_is_not_believed() {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, lie) in [("rgb.png", "a.jpg"), ("turned3.jpg", "a.png"), ("rgb.webp", "a.txt")] {
        let path = folder.path().join(lie);
        std::fs::write(&path, bytes(name)).expect("written");
        let expected = decode(name, &bytes(name), &Limits::default()).expect("a picture");
        assert_eq!(open(&path, &Limits::default()).expect("a picture"), expected);
    }
}

#[test]
fn cut_pictures_are_errors() {
    let mut cuts = 0;
    for case in json("exact.json").iter().chain(&json("lossy.json")) {
        let name = case[0].as_str().expect("a name");
        let whole = bytes(name);
        // A GIF is complete with its first frame; what follows may be missing, as in Pillow. Some
        // writers end a TIFF or a BMP with a padding byte or more.
        let may_end = if name.ends_with(".gif") {
            continue;
        } else if name.ends_with(".tiff") || name.ends_with(".bmp") {
            whole.len().saturating_sub(8)
        } else {
            whole.len()
        };
        let step = (may_end / 40).max(1);
        for end in (0..may_end).step_by(step).chain([may_end - 1]) {
            let error = match decode("cut", &whole[..end], &Limits::default()) {
                Ok(_) => panic!("{name} cut at {end} of {} decodes", whole.len()),
                Err(error) => error,
            };
            assert!(!error.to_string().contains('\n'), "{error}");
            cuts += 1;
        }
    }
    for name in ["plain.gif", "inset.gif", "interlaced.gif", "local.gif"] {
        let whole = bytes(name);
        for end in 0..whole.len() - 1 {
            refuse(name, &whole[..end]);
            cuts += 1;
        }
    }
    assert!(cuts > 4000, "{cuts}");
}

#[test]
fn sizes_over_the_limits_are_refused_from_the_header() {
    let huge = |name: &str, at: usize, big: bool, width: u32, height: u32, wide: bool| {
        let mut file = bytes(name);
        for (n, side) in [width, height].into_iter().enumerate() {
            let bytes: Vec<u8> = match (big, wide) {
                (true, true) => side.to_be_bytes().to_vec(),
                (false, true) => side.to_le_bytes().to_vec(),
                (true, false) => (side as u16).to_be_bytes().to_vec(),
                (false, false) => (side as u16).to_le_bytes().to_vec(),
            };
            let place = at + n * bytes.len();
            file[place..place + bytes.len()].copy_from_slice(&bytes);
        }
        file
    };
    let jpeg = bytes("grey-q85.jpg");
    let frame = jpeg.windows(2).position(|pair| pair == [0xff, 0xc0]).expect("a frame header");
    let mut png = huge("rgb.png", 16, true, 10_000, 10_000, true);
    // The header's checksum must hold, or the file is refused for that.
    let checksum = image_common::crc(png[12..29].iter().copied());
    png[29..33].copy_from_slice(&checksum.to_be_bytes());
    for (name, file) in [
        ("png", png),
        ("bmp", huge("rgb.bmp", 18, false, 10_000, 10_000, true)),
        ("gif", huge("plain.gif", 6, false, 10_000, 10_000, false)),
        ("jpeg", huge("grey-q85.jpg", frame + 5, true, 10_000, 10_000, false)),
    ] {
        let error = refuse(name, &file);
        assert!(matches!(error, Error::TooLarge { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("10000 x 10000") && text.contains("89478485"), "{text}");
    }

    let picture = bytes("rgb.png");
    let tight = |limits: Limits| decode("a", &picture, &limits).expect_err("over").to_string();
    let limits = Limits::default;
    for (limits, option) in [
        (Limits { max_width: 20, ..limits() }, "max_width"),
        (Limits { max_height: 12, ..limits() }, "max_height"),
        (Limits { max_pixels: 272, ..limits() }, "max_pixels"),
        (Limits { max_file_bytes: 100, ..limits() }, "max_file_bytes"),
    ] {
        let text = tight(limits);
        assert!(text.contains(option), "{text}");
    }
    let exact = Limits { max_width: 21, max_height: 13, max_pixels: 273, ..limits() };
    for name in ["rgb.png", "rgb.bmp", "raw.tiff", "rgb.webp", "plain.gif"] {
        decode(name, &bytes(name), &exact).expect("just within");
    }
    let path = fixture("files").join("rgb.png");
    let small = Limits { max_file_bytes: 100, ..limits() };
    assert!(matches!(open(&path, &small), Err(Error::FileTooLarge { .. })));
}

#[test]
fn a_size_of_nothing_is_an_error() {
    let mut gif = bytes("plain.gif");
    gif[6..10].fill(0);
    // The frame widens the screen, as in Pillow.
    decode("gif", &gif, &Limits::default()).expect("the frame's own size");
    let mut bmp = bytes("rgb.bmp");
    bmp[18..22].fill(0);
    refuse("bmp", &bmp);
}

#[test]
fn random_bytes_behind_every_mark() {
    let mut random = Xorshift(0x5eed);
    let marks: [&[u8]; 7] = [
        b"\xff\xd8\xff",
        b"\x89PNG\r\n\x1a\n",
        b"RIFF\xf8\0\0\0WEBPVP8 ",
        b"GIF89a",
        b"BM",
        b"II\x2a\0\x08\0\0\0",
        b"",
    ];
    for _ in 0..40 {
        for mark in marks {
            let mut file = mark.to_vec();
            file.extend((0..256).map(|_| random.next() as u8));
            if let Ok(picture) = decode("random", &file, &Limits::default()) {
                // A GIF or BMP of noise can be a picture; a huge one cannot.
                assert!(u64::from(picture.width()) * u64::from(picture.height()) < 90_000_000);
            }
        }
    }
}
