//! HTML character references, by the table of the HTML standard (2,231 names, `entities.txt`).
//!
//! [`unescape`] follows the standard as Python's `html.unescape` does: names without a semicolon
//! where the standard allows them, the longest name that begins the text, numbers with the
//! Windows-1252 corrections. [`unescape_strict`] is ftfy's: only what ends in a semicolon, and
//! names that were upper-cased with the text around them.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::repair;

/// A line is a name, with a semicolon where it may not stand without one, and its code points.
const TABLE: &str = include_str!("entities.txt");

/// The longest name.
const NAME: usize = 32;

struct Table {
    /// Names with their semicolon, and without where the standard allows that.
    names: HashMap<&'static str, String>,
    /// Names that stand without a semicolon.
    legacy: HashMap<&'static str, String>,
    /// Lower-case names in capitals, when those are not names themselves.
    capitals: HashMap<String, String>,
}

static ENTITIES: LazyLock<Table> = LazyLock::new(|| {
    let mut table = Table { names: HashMap::new(), legacy: HashMap::new(), capitals: HashMap::new() };
    for line in TABLE.lines() {
        let Some((name, codes)) = line.split_once(' ') else {
            continue;
        };
        let text: String = codes
            .split(' ')
            .filter_map(|code| u32::from_str_radix(code, 16).ok().and_then(char::from_u32))
            .collect();
        let bare = name.trim_end_matches(';');
        if bare == name {
            table.legacy.insert(bare, text.clone());
        }
        table.names.insert(bare, text);
    }
    for (name, text) in &table.names {
        let upper = name.to_ascii_uppercase();
        let is_lower = !name.bytes().any(|byte| byte.is_ascii_uppercase());
        let taken = table.names.contains_key(upper.as_str())
            || (2..upper.len()).any(|end| upper.get(..end).is_some_and(|p| table.legacy.contains_key(p)));
        if is_lower && !taken {
            table.capitals.insert(upper, text.to_uppercase());
        }
    }
    table
});

/// The text with its references replaced, as `html.unescape` does.
pub(super) fn unescape(text: &str) -> String {
    replace(text, |rest| {
        if let Some(digits) = rest.strip_prefix('#') {
            let (number, length) = number(digits)?;
            let after = digits.get(length..).unwrap_or_default();
            let semicolon = usize::from(after.starts_with(';'));
            return Some((numbered(number), 1 + length + semicolon));
        }
        let end = rest
            .char_indices()
            .take(NAME)
            .take_while(|(_, c)| !matches!(c, '\t' | '\n' | '\u{c}' | ' ' | '<' | '&' | '#' | ';'))
            .map(|(at, c)| at + c.len_utf8())
            .last()?;
        let name = rest.get(..end)?;
        if rest.get(end..).is_some_and(|after| after.starts_with(';'))
            && let Some(found) = ENTITIES.names.get(name)
        {
            return Some((found.clone(), end + 1));
        }
        // The longest legacy name that begins it; one letter is no name.
        (2..=end).rev().find_map(|length| {
            let found = ENTITIES.legacy.get(name.get(..length)?)?;
            Some((found.clone(), length))
        })
    })
}

/// The text with its unambiguous references replaced, as ftfy does.
pub(super) fn unescape_strict(text: &str) -> String {
    replace(text, |rest| {
        let digits = rest.strip_prefix('#');
        let name = digits.unwrap_or(rest);
        let length = name.bytes().take_while(u8::is_ascii_alphanumeric).count();
        if length == 0 || length > 24 || !name.get(length..)?.starts_with(';') {
            return None;
        }
        if digits.is_some() {
            let (number, read) = number(name)?;
            return (read == length).then(|| (numbered(number), length + 2));
        }
        let name = name.get(..length)?;
        let found = ENTITIES.names.get(name).or_else(|| ENTITIES.capitals.get(name))?;
        Some((found.clone(), length + 1))
    })
}

/// Replaces what `find` knows after an ampersand; it gives the text and how many bytes that takes.
fn replace(text: &str, find: impl Fn(&str) -> Option<(String, usize)>) -> String {
    let mut replaced = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        replaced.push_str(before);
        match find(after).and_then(|(found, length)| Some((found, after.get(length..)?))) {
            Some((found, tail)) => {
                replaced.push_str(&found);
                rest = tail;
            }
            None => {
                replaced.push('&');
                rest = after;
            }
        }
    }
    replaced.push_str(rest);
    replaced
}

/// The number after `#`, which stays at the largest that fits, and how many bytes it takes.
fn number(digits: &str) -> Option<(u32, usize)> {
    let (radix, prefix) = match digits.as_bytes().first()? {
        b'x' | b'X' => (16, 1),
        _ => (10, 0),
    };
    let digits = digits.get(prefix..)?;
    let length = digits.chars().take_while(|c| c.is_digit(radix)).count();
    let number = digits.chars().take(length).fold(0_u32, |sum, digit| {
        sum.saturating_mul(radix).saturating_add(digit.to_digit(radix).unwrap_or(0))
    });
    (length > 0).then_some((number, prefix + length))
}

/// What a numeric reference stands for: nothing for control characters and non-characters, U+FFFD
/// for what is no character, Windows-1252 for the C1 range.
fn numbered(number: u32) -> String {
    match number {
        0 => "\u{fffd}".into(),
        0x1..=0x8 | 0xb | 0xe..=0x1f | 0x7f | 0xfdd0..=0xfdef => String::new(),
        0x80..=0x9f => char::from_u32(number).map(repair::windows_1252).into_iter().collect(),
        _ if number <= 0x10_ffff && number & 0xfffe == 0xfffe => String::new(),
        _ => char::from_u32(number).unwrap_or('\u{fffd}').into(),
    }
}
