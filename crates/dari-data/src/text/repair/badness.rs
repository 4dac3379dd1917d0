//! Whether a text holds characters side by side that are rarely neighbours except in mojibake:
//! the heuristic of ftfy 6 (`ftfy.badness`), its classes and neighbourhoods as tables.

use std::collections::HashMap;
use std::sync::LazyLock;

const COMMON: u16 = 1;
const C1: u16 = 1 << 1;
const BAD: u16 = 1 << 2;
const LAW: u16 = 1 << 3;
const CURRENCY: u16 = 1 << 4;
const OPENING: u16 = 1 << 5;
const CLOSING: u16 = 1 << 6;
const NUMERIC: u16 = 1 << 7;
const KAOMOJI: u16 = 1 << 8;
const UPPER_ACCENTED: u16 = 1 << 9;
const LOWER_ACCENTED: u16 = 1 << 10;
const UPPER_COMMON: u16 = 1 << 11;
const LOWER_COMMON: u16 = 1 << 12;
const BOX: u16 = 1 << 13;

const ACCENTED: u16 = UPPER_ACCENTED | LOWER_ACCENTED;
const BESIDE_BAD: u16 = ACCENTED | BOX | OPENING | CLOSING | CURRENCY | NUMERIC | LAW;

/// Each class as ranges of code points, both ends included.
#[rustfmt::skip]
const CLASSES: [(u16, &[(u32, u32)]); 14] = [
    (COMMON, &[(0xa0, 0xa0), (0xad, 0xad), (0xb4, 0xb4), (0xb7, 0xb7), (0x2013, 0x2015),
        (0x2019, 0x2019), (0x2026, 0x2026)]),
    (C1, &[(0x80, 0x9f)]),
    (BAD, &[(0xa4, 0xa4), (0xa6, 0xa6), (0xa8, 0xa8), (0xaa, 0xaa), (0xac, 0xac), (0xaf, 0xaf),
        (0xb8, 0xb8), (0xba, 0xba), (0x192, 0x192), (0x2c6, 0x2c7), (0x2d8, 0x2d8),
        (0x2db, 0x2dc), (0x2020, 0x2021), (0x2030, 0x2030), (0x2310, 0x2310), (0x25ca, 0x25ca),
        (0xfffd, 0xfffd)]),
    (LAW, &[(0xa7, 0xa7), (0xb6, 0xb6)]),
    (CURRENCY, &[(0xa2, 0xa3), (0xa5, 0xa5), (0x20a7, 0x20a7), (0x20ac, 0x20ac)]),
    (OPENING, &[(0xa1, 0xa1), (0xa9, 0xa9), (0xab, 0xab), (0xbf, 0xbf), (0x384, 0x385),
        (0x2018, 0x2018), (0x201a, 0x201a), (0x201c, 0x201c), (0x201e, 0x201e),
        (0x2022, 0x2022), (0x2039, 0x2039), (0xf8ff, 0xf8ff)]),
    (CLOSING, &[(0xae, 0xae), (0xbb, 0xbb), (0x2dd, 0x2dd), (0x201d, 0x201d), (0x203a, 0x203a),
        (0x2122, 0x2122)]),
    (NUMERIC, &[(0xb1, 0xb3), (0xb5, 0xb5), (0xb9, 0xb9), (0xbc, 0xbe), (0xd7, 0xd7),
        (0xf7, 0xf7), (0x2044, 0x2044), (0x2116, 0x2116), (0x2202, 0x2202), (0x2206, 0x2206),
        (0x220f, 0x220f), (0x2211, 0x2211), (0x221a, 0x221a), (0x221e, 0x221e),
        (0x2229, 0x2229), (0x222b, 0x222b), (0x2248, 0x2248), (0x2260, 0x2261),
        (0x2264, 0x2265)]),
    (KAOMOJI, &[(0xb0, 0xb0), (0xd2, 0xd6), (0xd9, 0xdc), (0xf2, 0xf6), (0xf8, 0xfc),
        (0x14c, 0x14c), (0x150, 0x150), (0x16a, 0x16a), (0x172, 0x172)]),
    (UPPER_ACCENTED, &[(0xc0, 0xd1), (0xd8, 0xd8), (0xdc, 0xdd), (0x100, 0x100), (0x102, 0x102),
        (0x104, 0x104), (0x106, 0x106), (0x10c, 0x10c), (0x10e, 0x10e), (0x110, 0x110),
        (0x112, 0x112), (0x116, 0x116), (0x118, 0x118), (0x11a, 0x11a), (0x11e, 0x11e),
        (0x122, 0x122), (0x12a, 0x12a), (0x130, 0x130), (0x136, 0x136), (0x139, 0x139),
        (0x13b, 0x13b), (0x13d, 0x13d), (0x141, 0x141), (0x143, 0x143), (0x145, 0x145),
        (0x147, 0x147), (0x152, 0x152), (0x158, 0x158), (0x15a, 0x15a), (0x15e, 0x15e),
        (0x160, 0x160), (0x162, 0x162), (0x164, 0x164), (0x16e, 0x16e), (0x170, 0x170),
        (0x178, 0x179), (0x17b, 0x17b), (0x17d, 0x17d), (0x490, 0x490)]),
    (LOWER_ACCENTED, &[(0xdf, 0xf1), (0xfc, 0xfc), (0x101, 0x101), (0x103, 0x103), (0x105, 0x105),
        (0x107, 0x107), (0x10d, 0x10d), (0x10f, 0x10f), (0x111, 0x111), (0x113, 0x113),
        (0x117, 0x117), (0x119, 0x119), (0x11b, 0x11b), (0x11f, 0x11f), (0x123, 0x123),
        (0x12b, 0x12b), (0x12f, 0x12f), (0x137, 0x137), (0x13a, 0x13a), (0x13c, 0x13c),
        (0x13e, 0x13e), (0x142, 0x142), (0x153, 0x153), (0x155, 0x155), (0x15b, 0x15b),
        (0x15f, 0x15f), (0x161, 0x161), (0x165, 0x165), (0x17a, 0x17a), (0x17c, 0x17c),
        (0x17e, 0x17e), (0x491, 0x491), (0xfb01, 0xfb02)]),
    (UPPER_COMMON, &[(0xde, 0xde), (0x386, 0x386), (0x388, 0x38a), (0x38c, 0x38c),
        (0x38e, 0x38f), (0x391, 0x3ab), (0x401, 0x42f)]),
    (LOWER_COMMON, &[(0x3ac, 0x3c9), (0x430, 0x45f)]),
    (BOX, &[(0x2502, 0x2502), (0x250c, 0x250c), (0x2510, 0x2510), (0x2518, 0x2518),
        (0x251c, 0x251c), (0x2524, 0x2524), (0x252c, 0x252c), (0x253c, 0x253c),
        (0x2550, 0x256c), (0x2580, 0x2580), (0x2584, 0x2584), (0x2588, 0x2588),
        (0x258c, 0x258c), (0x2590, 0x2593)]),
];

/// Classes of two neighbours.
const PAIRS: [(u16, u16); 10] = [
    (BESIDE_BAD | BAD, BAD),
    (BAD, BESIDE_BAD),
    (LOWER_ACCENTED | LOWER_COMMON | BOX | CLOSING | CURRENCY | NUMERIC, UPPER_ACCENTED),
    (BOX | CLOSING | CURRENCY | NUMERIC, LOWER_ACCENTED),
    (LOWER_ACCENTED | BOX | CLOSING, CURRENCY),
    (UPPER_ACCENTED | BOX, NUMERIC | LAW),
    (CURRENCY | NUMERIC | BOX, OPENING),
    (BOX, KAOMOJI),
    (ACCENTED | CURRENCY | NUMERIC | OPENING | CLOSING | LAW, BOX),
    (BOX, CLOSING),
];

/// Classes of three neighbours.
const TRIPLES: [(u16, u16, u16); 2] = [
    (ACCENTED | BOX | CURRENCY | CLOSING, OPENING, NUMERIC),
    (ACCENTED | CURRENCY | NUMERIC | BOX | LAW, CLOSING, OPENING),
];

/// Characters that one of the second list follows only in mojibake: of Windows-1252 (accents, the
/// first letters of South Asian scripts), of MacRoman, of Windows-1251, 1253 and 1257.
const LETTER_PAIRS: [(&str, &str); 8] = [
    ("ÂÃÎÐ", "€œŠš¢£Ÿž\u{a0}\u{ad}®©°·»–—´"),
    ("×", "²³"),
    ("à", "²µ¹¼½¾"),
    ("√", "±∂†≠®™´≤≥¥µø"),
    ("≈", "°¢"),
    ("в", "Ђ"),
    ("Ã", "\u{a0}¡"),
    ("ā", "€"),
];

/// The same for three characters.
const LETTER_TRIPLES: [(&str, &str, &str); 3] =
    [("‚", "Ä", "ìîïòôúùû†°¢π"), ("‚", "âó", "àä°ê"), ("β", "€", "™\u{a0}Ά\u{ad}®°")];

static TABLE: LazyLock<HashMap<char, u16>> = LazyLock::new(|| {
    let mut table = HashMap::new();
    for (class, ranges) in CLASSES {
        for code in ranges.iter().flat_map(|&(first, last)| first..=last) {
            if let Some(character) = char::from_u32(code) {
                *table.entry(character).or_insert(0) |= class;
            }
        }
    }
    table
});

/// Whether the text looks like mojibake somewhere.
pub(super) fn is_bad(text: &[char]) -> bool {
    let classes: Vec<u16> = text.iter().map(|character| TABLE.get(character).copied().unwrap_or(0)).collect();
    (0..text.len()).any(|place| is_bad_at(text, &classes, place))
}

fn is_bad_at(text: &[char], classes: &[u16], place: usize) -> bool {
    let character = |offset: usize| text.get(place + offset).copied();
    let class = |offset: usize| classes.get(place + offset).copied().unwrap_or(0);
    let is = |offset: usize, wanted: u16| class(offset) & wanted != 0;
    let among = |offset: usize, list: &str| character(offset).is_some_and(|c| list.contains(c));
    let latin = |offset: usize| character(offset).is_some_and(|c| c.is_ascii_alphabetic());
    let latin_small = |offset: usize| character(offset).is_some_and(|c| c.is_ascii_lowercase());
    let space = |offset: usize| character(offset).is_some_and(super::super::clean::is_space);

    if is(0, C1)
        || PAIRS.iter().any(|&(left, right)| is(0, left) && is(1, right))
        || TRIPLES.iter().any(|&(left, middle, right)| is(0, left) && is(1, middle) && is(2, right))
        || LETTER_PAIRS.iter().any(|&(left, right)| among(0, left) && among(1, right))
        || LETTER_TRIPLES.iter().any(|&(a, b, c)| among(0, a) && among(1, b) && among(2, c))
    {
        return true;
    }
    let word = |offset: usize| character(offset).is_some_and(|c| c.is_alphanumeric() || c == '_');
    let any = |offset: usize| character(offset).is_some();
    // Letters of Arabic misread as Windows-1252: two pairs in a row, because one may be sound.
    let arabic = |offset: usize| {
        among(offset, "ØÙ")
            && (is(offset + 1, COMMON | CURRENCY | BAD | NUMERIC | OPENING) || among(offset + 1, "ŸŠ®°µ»"))
    };
    // A Cyrillic or Greek lead byte on both sides of what is not a letter.
    let lead = |list: &str, middle: &str| {
        among(0, list)
            && (is(1, C1 | BAD | OPENING | CLOSING | CURRENCY) || among(1, middle))
            && among(2, list)
    };
    let a_with_space = |offset: usize| among(offset, "ÃÂ") && character(offset + 1) == Some(' ');

    (latin(0) && is(1, LOWER_COMMON | UPPER_COMMON) && is(2, BAD))
        || (space(0) && is(1, UPPER_ACCENTED) && is(2, CURRENCY))
        || (latin_small(0) && is(1, UPPER_ACCENTED) && is(2, OPENING | CURRENCY))
        || (is(0, ACCENTED) && is(1, OPENING | CLOSING) && word(2))
        || (among(0, "Œœ") && any(1) && !latin(1))
        || (is(0, UPPER_ACCENTED) && character(1) == Some('°'))
        || (among(0, "ÂÃÎÐ") && is(1, OPENING | CLOSING))
        || (arabic(0) && arabic(2))
        || lead("ВГРС", "°µ")
        || lead("ΒΓΞΟ", "°")
        || ("ГўВЂВ".chars().enumerate().all(|(offset, c)| character(offset) == Some(c))
            && character(5).is_some_and(|c| c != '\n')
            && (latin(6) || character(6) == Some(' ')))
        || (latin_small(0) && (a_with_space(1) || (space(1) && a_with_space(2))))
        || (place == 0 && a_with_space(0))
        || ((latin_small(0) || among(0, ".,?!") || is(0, CLOSING))
            && character(1) == Some('Â')
            && (character(2) == Some(' ') || is(2, OPENING | CLOSING)))
}
