//! Whatever the bytes are: an answer, no panic, no endless loop, no more memory than allowed.

use std::path::Path;
use std::time::{Duration, Instant};

use dari_data::image::jpeg::{Decoded, Error, Scale, decode, header};

const LIMIT: usize = 16 << 20;

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/jpeg").join(name)).unwrap()
}

/// Small files of each kind: baseline of several subsamplings, progressive, restarts, several scans, CMYK.
fn small_files() -> Vec<(&'static str, Vec<u8>)> {
    [
        "7x9-420.jpg",
        "7x9-422.jpg",
        "33x5-444.jpg",
        "grey-1x1.jpg",
        "cmyk-progressive.jpg",
        "progressive-small.jpg",
        "restart-small.jpg",
        "tiny-three-scans.jpg",
        "tiny-411-progressive.jpg",
    ]
    .map(|name| (name, fixture(name)))
    .to_vec()
}

/// Each outcome is checked for what any must be.
fn check(bytes: &[u8], scale: Scale) -> Result<Decoded, Error> {
    let outcome = decode(bytes, scale, LIMIT);
    match &outcome {
        Ok(decoded) => {
            assert_eq!(decoded.pixels.len(), decoded.width as usize * decoded.height as usize * 3);
            let header = header(bytes).unwrap();
            let n = scale.denominator() as u32;
            let expected = (header.width.div_ceil(n), header.height.div_ceil(n));
            assert_eq!((decoded.width, decoded.height), expected);
        }
        Err(error) => assert!(!error.to_string().contains('\n'), "{error:?}"),
    }
    outcome
}

#[test]
fn every_cut_file_is_refused() {
    for (name, bytes) in small_files() {
        for length in 0..bytes.len() {
            for scale in Scale::ALL {
                let outcome = check(&bytes[..length], scale);
                let refused = matches!(outcome, Err(Error::Damaged(_)));
                assert!(refused, "{name}, {length} of {} bytes: {outcome:?}", bytes.len());
            }
        }
    }
}

#[test]
fn every_changed_byte_gets_an_answer() {
    for (name, bytes) in small_files() {
        // All values of every byte for two; for the others, each bit and what means something to a JPEG.
        let all = ["7x9-420.jpg", "progressive-small.jpg"].contains(&name);
        let mut changed = bytes.clone();
        for (at, &was) in bytes.iter().enumerate() {
            let bits = (0..8).map(|bit| was ^ 1 << bit).chain([0, 1, 63, 0xc0, 0xd0, 0xd9, 0xda, 0xff]);
            let values: Vec<u8> = if all { (0..=255).collect() } else { bits.collect() };
            for value in values {
                changed[at] = value;
                // The scales in turn: each value of a byte at one of them.
                let scale = Scale::ALL[(at + usize::from(value)) % 4];
                let start = Instant::now();
                let _ = check(&changed, scale);
                assert!(start.elapsed() < Duration::from_secs(20), "{name}: {value:#x} at {at}");
            }
            changed[at] = was;
        }
    }
}

#[test]
fn random_bytes_get_an_answer() {
    let mut state = 0x1234_5678_9abc_def1_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let whole = fixture("7x9-420.jpg");
    let scan = whole.windows(2).position(|w| w == [0xff, 0xda]).unwrap() + 14;
    for _ in 0..10_000 {
        let noise: Vec<u8> = (0..random() % 300).map(|_| random() as u8).collect();
        let scale = Scale::ALL[(random() % 4) as usize];
        let _ = check(&noise, scale);
        // And as segments, and as entropy-coded data.
        let _ = check(&[&[0xff, 0xd8, 0xff], noise.as_slice()].concat(), scale);
        let _ = check(&[&whole[..scan], noise.as_slice(), &[0xff, 0xd9]].concat(), scale);
    }
}

fn segment(marker: u8, content: &[u8]) -> Vec<u8> {
    let length = (content.len() as u16 + 2).to_be_bytes();
    [&[0xff, marker], length.as_slice(), content].concat()
}

fn frame(marker: u8, width: u16, height: u16, components: &[[u8; 3]]) -> Vec<u8> {
    let [h0, h1] = height.to_be_bytes();
    let [w0, w1] = width.to_be_bytes();
    let head = [8, h0, h1, w0, w1, components.len() as u8];
    segment(marker, &[head.as_slice(), components.concat().as_slice()].concat())
}

/// A start mark, a quantisation table of ones, and tables whose one code, 0, is of symbol 0.
fn preamble() -> Vec<u8> {
    let huffman = |class: u8| {
        let mut content = vec![class << 4, 1];
        content.extend([0; 15]);
        content.push(0);
        segment(0xc4, &content)
    };
    let quantisation = segment(0xdb, &[&[0u8], [1u8; 64].as_slice()].concat());
    [vec![0xff, 0xd8], quantisation, huffman(0), huffman(1)].concat()
}

fn scan(first: u8, last: u8, high: u8, low: u8, data: &[u8]) -> Vec<u8> {
    let mut out = segment(0xda, &[1, 1, 0, first, last, high << 4 | low]);
    out.extend(data);
    out
}

const END: [u8; 2] = [0xff, 0xd9];

#[test]
fn scans_without_end_are_refused() {
    // One block of grey, whose coefficients come one by one, bit by bit: 64 x 14 lawful scans.
    let mut file = [preamble(), frame(0xc2, 8, 8, &[[1, 0x11, 0]])].concat();
    for low in (0..=13).rev() {
        for position in 0..64 {
            let high = if low == 13 { 0 } else { low + 1 };
            file.extend(scan(position, position, high, low, &[0x7f]));
        }
    }
    file.extend(END);
    let outcome = decode(&file, Scale::Whole, LIMIT);
    assert_eq!(outcome, Err(Error::Damaged("it has too many scans: over 100 for each block".into())));
    // The first 64, at full precision, are fine.
    let mut file = [preamble(), frame(0xc2, 8, 8, &[[1, 0x11, 0]])].concat();
    for position in 0..64 {
        file.extend(scan(position, position, 0, 0, &[0x7f]));
    }
    // Unless one of them comes again.
    let again = [file.as_slice(), &scan(5, 5, 0, 0, &[0x7f]), &END].concat();
    file.extend(END);
    assert_eq!(decode(&file, Scale::Whole, LIMIT).unwrap().pixels, [128; 192]);
    let outcome = decode(&again, Scale::Whole, LIMIT);
    assert!(matches!(&outcome, Err(Error::Damaged(m)) if m.contains("out of turn")), "{outcome:?}");
}

#[test]
fn unfinished_progressive_pictures_are_left_to_others() {
    let head = [preamble(), frame(0xc2, 8, 8, &[[1, 0x11, 0]])].concat();
    let only_dc = [head.clone(), scan(0, 0, 0, 0, &[0x7f]), END.to_vec()].concat();
    assert!(matches!(decode(&only_dc, Scale::Whole, LIMIT), Err(Error::Unsupported(_))));
    let none = [head, END.to_vec()].concat();
    assert!(matches!(decode(&none, Scale::Whole, LIMIT), Err(Error::Damaged(_))));
}

#[test]
fn large_pictures_are_refused_before_they_take_memory() {
    let three = [[1, 0x22, 0], [2, 0x11, 0], [3, 0x11, 0]];
    for marker in [0xc0, 0xc1, 0xc2] {
        let last = if marker == 0xc2 { 0 } else { 63 };
        let sos = segment(0xda, &[3, 1, 0, 2, 0, 3, 0, 0, last, 0]);
        let file = [preamble(), frame(marker, 65_535, 65_535, &three), sos, vec![0; 100]].concat();
        for scale in Scale::ALL {
            let outcome = decode(&file, scale, LIMIT);
            assert!(matches!(outcome, Err(Error::TooLarge { limit: 0x0100_0000, .. })), "{outcome:?}");
        }
        assert_eq!(header(&file).unwrap().width, 65_535);
    }
    // The limit holds to the byte.
    let bytes = fixture("progressive-small.jpg");
    let Err(Error::TooLarge { needed, limit: 0 }) = decode(&bytes, Scale::Whole, 0) else { panic!() };
    let needed = usize::try_from(needed).unwrap();
    assert!(decode(&bytes, Scale::Whole, needed).is_ok());
    assert!(matches!(decode(&bytes, Scale::Whole, needed - 1), Err(Error::TooLarge { .. })));
}

#[test]
fn wide_pictures_without_data_end_at_once() {
    let file =
        [preamble(), frame(0xc0, 65_535, 60_000, &[[1, 0x11, 0]]), scan(0, 63, 0, 0, &[]), END.to_vec()]
            .concat();
    let start = Instant::now();
    let outcome = decode(&file, Scale::Eighth, 1 << 30);
    assert!(matches!(&outcome, Err(Error::Damaged(m)) if m.contains("ends too soon")), "{outcome:?}");
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

#[test]
fn other_processes_are_unsupported() {
    let grey = [[1, 0x11, 0]];
    for marker in [0xc3, 0xc5, 0xc6, 0xc7, 0xc9, 0xca, 0xcb, 0xcd, 0xce, 0xcf] {
        let file = [preamble(), frame(marker, 8, 8, &grey)].concat();
        for outcome in [decode(&file, Scale::Whole, LIMIT).map(|_| ()), header(&file).map(|_| ())] {
            assert!(matches!(outcome, Err(Error::Unsupported(_))), "{marker:#x}: {outcome:?}");
        }
    }
    let mut twelve = frame(0xc1, 8, 8, &grey);
    twelve[4] = 12;
    let no_height = frame(0xc0, 8, 0, &grey);
    let two = frame(0xc0, 8, 8, &[[1, 0x11, 0], [2, 0x11, 0]]);
    let thirds = frame(0xc0, 8, 8, &[[1, 0x31, 0], [2, 0x21, 0], [3, 0x11, 0]]);
    for frame in [twelve, no_height, two, thirds] {
        let outcome = header(&[preamble(), frame].concat());
        assert!(matches!(outcome, Err(Error::Unsupported(_))), "{outcome:?}");
    }
}

#[test]
fn bytes_that_belong_to_nothing_are_passed_by() {
    let bytes = fixture("7x9-420.jpg");
    let expected = decode(&bytes, Scale::Whole, LIMIT).unwrap();
    let (whole, end) = bytes.split_at(bytes.len() - 2);
    // After the coded data, before the end mark; fill bytes; a stray restart marker; bytes after the end.
    for between in [&[0x12, 0x34][..], &[0xff, 0xff, 0xff], &[0xff, 0xd0], &[]] {
        let padded = [whole, between, end, &[1, 2, 3]].concat();
        assert_eq!(decode(&padded, Scale::Whole, LIMIT).as_ref(), Ok(&expected), "{between:?}");
    }
}
