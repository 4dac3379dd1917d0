//! Repair of broken Unicode, as open_clip does with ftfy before it tokenizes.
//!
//! Written after the behaviour of ftfy 6.3 (`ftfy.fix_text` with its defaults): HTML entities
//! (unless a `<` stands in the text so far), mojibake through ten single-byte encodings, C1
//! controls, Latin ligatures, full and half width, curly quotes, line breaks, terminal escapes,
//! control characters, then NFC, again and again until nothing changes.
//!
//! What differs: Unicode tables are those of the Rust crates (newer than CPython's), a terminal
//! escape's digits are ASCII's, a segment is at most 1,000,000 characters as in ftfy but rounds of
//! repair are bounded by [`ROUNDS`], where ftfy has no bound.

mod badness;
mod encodings;

use badness::is_bad;
pub(super) use encodings::windows_1252;
use encodings::{CLUES, ENCODINGS};
use unicode_normalization::UnicodeNormalization;

use super::entities;

/// No text that is not made for it needs more than a handful.
const ROUNDS: usize = 32;

/// How deep mojibake inside mojibake is followed.
const DEPTH: usize = 8;

/// The longest run of characters repaired as a whole.
const SEGMENT: usize = 1_000_000;

/// The text as `ftfy.fix_text` gives it back.
pub(super) fn fix_text(text: &str) -> String {
    let mut fixed = String::with_capacity(text.len());
    let mut entities = true;
    for line in text.split_inclusive('\n') {
        let mut rest = line;
        while !rest.is_empty() {
            let end = rest.char_indices().nth(SEGMENT).map_or(rest.len(), |(at, _)| at);
            let (segment, tail) = rest.split_at(end);
            entities &= !segment.contains('<');
            fixed.push_str(&fix_segment(segment, entities));
            rest = tail;
        }
    }
    fixed
}

fn fix_segment(segment: &str, entities: bool) -> String {
    let mut text = segment.to_owned();
    for _ in 0..ROUNDS {
        let mut next = if entities { entities::unescape_strict(&text) } else { text.clone() };
        if !next.is_ascii() {
            let characters: Vec<char> = next.chars().collect();
            next = fix_encoding(characters, 0).into_iter().collect();
        }
        next = fix_characters(&next);
        next = remove_terminal_escapes(&next);
        next.retain(|character| !is_removed(character));
        let next: String = next.nfc().collect();
        if next == text {
            break;
        }
        text = next;
    }
    text
}

/// The steps that look at one character at a time (a line break of two is one).
fn fix_characters(text: &str) -> String {
    let mut fixed = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        // C1 controls are taken for Windows-1252, as web browsers do.
        let character = windows_1252(character);
        if let Some(letters) = ligature(character) {
            letters.chars().for_each(|letter| fixed.push(quote(letter)));
            continue;
        }
        match character {
            '\u{3000}' => fixed.push(' '),
            '\u{ff01}'..='\u{ffef}' => {
                fixed.extend(std::iter::once(character).nfkc().map(quote));
            }
            '\r' => {
                if characters.peek() == Some(&'\n') {
                    characters.next();
                }
                fixed.push('\n');
            }
            '\u{2028}' | '\u{2029}' => fixed.push('\n'),
            other => fixed.push(quote(other)),
        }
    }
    fixed
}

fn quote(character: char) -> char {
    match character {
        '\u{2bc}' | '\u{2018}'..='\u{201b}' => '\'',
        '\u{201c}'..='\u{201f}' => '"',
        other => other,
    }
}

/// Ligatures and digraphs of Latin letters; æ and œ are letters and stay.
fn ligature(character: char) -> Option<&'static str> {
    Some(match character {
        'Ĳ' => "IJ",
        'ĳ' => "ij",
        'ŉ' => "ʼn",
        'Ǳ' => "DZ",
        'ǲ' => "Dz",
        'ǳ' => "dz",
        'Ǆ' => "DŽ",
        'ǅ' => "Dž",
        'ǆ' => "dž",
        'Ǉ' => "LJ",
        'ǈ' => "Lj",
        'ǉ' => "lj",
        'Ǌ' => "NJ",
        'ǋ' => "Nj",
        'ǌ' => "nj",
        'ﬀ' => "ff",
        'ﬁ' => "fi",
        'ﬂ' => "fl",
        'ﬃ' => "ffi",
        'ﬄ' => "ffl",
        'ﬅ' => "ſt",
        'ﬆ' => "st",
        _ => return None,
    })
}

/// Control characters that are removed; tab, line feed, form feed and carriage return are not, nor
/// are the joiners and direction marks that shape what is drawn.
fn is_removed(character: char) -> bool {
    matches!(
        character,
        '\0'..='\u{8}'
            | '\u{b}'
            | '\u{e}'..='\u{1f}'
            | '\u{7f}'
            | '\u{206a}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffc}'
    )
}

/// `ESC [ digits and semicolons letter` is dropped.
fn remove_terminal_escapes(text: &str) -> String {
    let mut fixed = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("\u{1b}[") {
        let (before, escape) = rest.split_at(at);
        fixed.push_str(before);
        let parameters = escape.get(2..).unwrap_or_default();
        let tail = parameters.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';');
        if tail.starts_with(|c: char| c.is_ascii_alphabetic()) {
            rest = tail.get(1..).unwrap_or_default();
        } else {
            fixed.push_str("\u{1b}[");
            rest = parameters;
        }
    }
    fixed.push_str(rest);
    fixed
}

/// Undoes misread encodings until the text stays as it is.
fn fix_encoding(mut text: Vec<char>, depth: usize) -> Vec<char> {
    for _ in 0..ROUNDS {
        match fix_encoding_once(&text, depth) {
            Some(next) if next != text => text = next,
            _ => break,
        }
    }
    text
}

fn fix_encoding_once(text: &[char], depth: usize) -> Option<Vec<char>> {
    if text.iter().all(char::is_ascii) || !is_bad(text) {
        return None;
    }
    let mut latin_1 = None;
    for (index, encoding) in ENCODINGS.iter().enumerate() {
        let Some(mut bytes) = encoding.encode(text) else {
            continue;
        };
        if index == 0 {
            latin_1 = Some(bytes.clone());
        }
        if !encoding.keeps_spaces && has_altered_sequence(&bytes) {
            bytes = restore_byte_a0(&bytes);
        }
        if encoding.sloppy {
            bytes = replace_lossy_sequences(&bytes);
        }
        if let Some(decoded) = decode_utf8_variants(&bytes) {
            return Some(decoded.chars().collect());
        }
    }
    if let Some(fixed) = decode_inconsistent_utf8(text, depth).filter(|fixed| fixed != text) {
        return Some(fixed);
    }
    // Latin-1 with C1 controls was meant to be Windows-1252.
    if let Some(bytes) = latin_1 {
        let holes = [0x81, 0x8d, 0x8f, 0x90, 0x9d];
        if bytes.iter().all(|byte| !holes.contains(byte)) {
            let fixed: Vec<char> = text.iter().map(|&c| windows_1252(c)).collect();
            if fixed != text {
                return Some(fixed);
            }
        }
    }
    Some(text.iter().map(|&character| windows_1252(character)).collect())
}

/// Repairs only the runs that look like UTF-8 misread, where the whole text has no one encoding.
fn decode_inconsistent_utf8(text: &[char], depth: usize) -> Option<Vec<char>> {
    if depth >= DEPTH {
        return None;
    }
    let mut fixed = Vec::with_capacity(text.len());
    let mut place = 0;
    let mut found = false;
    while let Some(&character) = text.get(place) {
        let after_later = place
            .checked_sub(1)
            .and_then(|before| text.get(before))
            .is_some_and(|before| CLUES.later_strict.contains(before));
        let run = if after_later { 0 } else { run_length(text.get(place..).unwrap_or_default()) };
        match text.get(place..place + run) {
            Some(part) if run > 0 => {
                found = true;
                if run < text.len() && is_bad(part) {
                    fixed.extend(fix_encoding(part.to_vec(), depth + 1));
                } else {
                    fixed.extend_from_slice(part);
                }
                place += run;
            }
            _ => {
                fixed.push(character);
                place += 1;
            }
        }
    }
    found.then_some(fixed)
}

/// How many characters from the start look like UTF-8 sequences, one after another.
fn run_length(text: &[char]) -> usize {
    let mut length = 0;
    loop {
        let rest = text.get(length..).unwrap_or_default();
        let Some((first, tail)) = rest.split_first() else {
            return length;
        };
        let later = tail.iter().take(3).take_while(|c| CLUES.later.contains(c)).count();
        length += if later >= 1 && CLUES.first_of_2.contains(first) {
            2
        } else if later >= 2 && CLUES.first_of_3.contains(first) {
            3
        } else if later >= 3 && CLUES.first_of_4.contains(first) {
            4
        } else {
            return length;
        };
    }
}

/// The length of the sequence at the start of `bytes` that would be UTF-8 if its space (0x20) were
/// the byte 0xa0; only lead bytes with which that gives likely characters.
fn altered_sequence(bytes: &[u8]) -> Option<usize> {
    let later = |byte: u8| matches!(byte, 0x80..=0xbf);
    // Not 0x85, the ellipsis, nor 0xa0 itself.
    let middle = |byte: u8| matches!(byte, 0x80..=0x84 | 0x86..=0x9f | 0xa1..=0xbf);
    match *bytes {
        [0xc2 | 0xc3 | 0xc5 | 0xce | 0xd0 | 0xd9, b' ', ..] => Some(2),
        [0xe2 | 0xe3, b' ', c, ..] if middle(c) => Some(3),
        [0xe0..=0xe3, b, b' ', ..] if middle(b) => Some(3),
        [0xf0, b' ', c, d, ..] if later(c) && later(d) => Some(4),
        [0xf0, b, b' ', d, ..] if later(b) && later(d) => Some(4),
        [0xf0, b, c, b' ', ..] if later(b) && later(c) => Some(4),
        _ => None,
    }
}

fn has_altered_sequence(bytes: &[u8]) -> bool {
    (0..bytes.len()).any(|at| altered_sequence(bytes.get(at..).unwrap_or_default()).is_some())
}

fn restore_byte_a0(bytes: &[u8]) -> Vec<u8> {
    // "Ã " before a word is the word "à": it keeps its space, except in Portuguese contractions.
    let mut spaced = Vec::with_capacity(bytes.len() + 8);
    let mut rest = bytes;
    while let Some((&byte, tail)) = rest.split_first() {
        spaced.push(byte);
        rest = tail;
        if byte == 0xc3
            && let Some(after) = tail.strip_prefix(b" ")
            && ![&b" "[..], b"quele", b"quela", b"quilo", b"s "].iter().any(|p| after.starts_with(p))
        {
            spaced.extend_from_slice(b"\xa0 ");
            rest = after;
        }
    }
    let mut restored = Vec::with_capacity(spaced.len());
    let mut rest = spaced.as_slice();
    while let Some((&byte, tail)) = rest.split_first() {
        match altered_sequence(rest).and_then(|length| rest.split_at_checked(length)) {
            Some((sequence, after)) => {
                restored.extend(sequence.iter().map(|&b| if b == b' ' { 0xa0 } else { b }));
                rest = after;
            }
            None => {
                restored.push(byte);
                rest = tail;
            }
        }
    }
    restored
}

/// The length of a UTF-8 or CESU-8 sequence at the start of `bytes` in which a later byte was lost
/// (0x1a, the place of U+FFFD, or one question mark).
fn lossy_sequence(bytes: &[u8]) -> Option<usize> {
    let later = |byte: u8| matches!(byte, 0x80..=0xbf);
    let lost = |byte: u8| matches!(byte, 0x1a | b'?');
    let either = |byte: u8| byte == 0x1a || later(byte);
    match *bytes {
        [0xc2..=0xdf, 0x1a, ..] | [0xc2..=0xc3, b'?', ..] => Some(2),
        [0xed, 0xa0..=0xaf, c, 0xed, 0xb0..=0xbf, f, ..]
            if (lost(c) && (lost(f) || later(f))) || ((lost(c) || later(c)) && lost(f)) =>
        {
            Some(6)
        }
        [0xe0..=0xef, b, c, ..] if (lost(b) && either(c)) || (either(b) && lost(c)) => Some(3),
        [0xf0..=0xf4, b, c, d, ..]
            if (lost(b) && either(c) && either(d))
                || (either(b) && lost(c) && either(d))
                || (either(b) && either(c) && lost(d)) =>
        {
            Some(4)
        }
        [0x1a, ..] => Some(1),
        _ => None,
    }
}

fn replace_lossy_sequences(bytes: &[u8]) -> Vec<u8> {
    let mut replaced = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&byte, tail)) = rest.split_first() {
        match lossy_sequence(rest) {
            Some(length) => {
                replaced.extend_from_slice("\u{fffd}".as_bytes());
                rest = rest.get(length..).unwrap_or_default();
            }
            None => {
                replaced.push(byte);
                rest = tail;
            }
        }
    }
    replaced
}

/// UTF-8, in which surrogate pairs of three bytes each (CESU-8) and Java's two-byte null are
/// understood too.
fn decode_utf8_variants(bytes: &[u8]) -> Option<String> {
    if !bytes.iter().any(|byte| matches!(byte, 0xed | 0xc0)) {
        return std::str::from_utf8(bytes).ok().map(str::to_owned);
    }
    let mut plain = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&byte, tail)) = rest.split_first() {
        match *rest {
            [0xc0, 0x80, ref after @ ..] => {
                plain.push(0);
                rest = after;
            }
            [
                0xed,
                b @ 0xa0..=0xaf,
                c @ 0x80..=0xbf,
                0xed,
                e @ 0xb0..=0xbf,
                f @ 0x80..=0xbf,
                ref after @ ..,
            ] => {
                let bits = |byte: u8, mask: u8| u32::from(byte & mask);
                let code = 0x10000
                    + (bits(b, 0x0f) << 16)
                    + (bits(c, 0x3f) << 10)
                    + (bits(e, 0x0f) << 6)
                    + bits(f, 0x3f);
                plain.extend_from_slice(char::from_u32(code)?.encode_utf8(&mut [0; 4]).as_bytes());
                rest = after;
            }
            _ => {
                plain.push(byte);
                rest = tail;
            }
        }
    }
    String::from_utf8(plain).ok()
}
