//! What a person sees on a terminal: progress, warnings, heat maps. Silence in a pipe.

pub mod canvas;
pub mod curve;
pub mod heat;
pub mod live;

use std::io::{IsTerminal, Write};

use dari::Picture;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::language::language;

/// An error's one line on stderr.
pub fn error(message: &str) {
    line(&format!("dari: {}: {}", language().pick("error", "오류"), one_line(message)));
}

/// A warning's one line on stderr.
pub fn warn(message: &str) {
    line(&format!("dari: {}: {}", language().pick("warning", "주의"), one_line(message)));
}

/// A note's one line on stderr, on a terminal only.
pub fn note(message: &str) {
    if std::io::stderr().is_terminal() {
        line(&one_line(message));
    }
}

fn line(message: &str) {
    // A closed stderr leaves nobody to tell.
    let _ = writeln!(std::io::stderr().lock(), "{message}");
}

/// A message on one line, with nothing in it that could move a terminal's cursor.
fn one_line(message: &str) -> String {
    let lines = message.split(['\n', '\r']).map(str::trim).filter(|part| !part.is_empty());
    let joined = lines.collect::<Vec<_>>().join(" ");
    clean(&joined)
}

/// A name as it may be printed: with nothing in it that could move a terminal's cursor.
pub fn clean(name: &str) -> String {
    name.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// What a model wrote, as it may be printed: lines and tabs stay.
pub fn text(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c }).collect()
}

/// Writes a line to stdout.
pub fn print(line: &str) -> std::io::Result<()> {
    writeln!(std::io::stdout().lock(), "{line}")
}

/// Whether stdout shows colours.
pub fn is_coloured() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

/// Prints pictures of one height beside each other, two pixels a letter.
pub fn print_pictures(pictures: &[Picture]) -> std::io::Result<()> {
    let height = pictures.iter().map(|picture| picture.height() as usize).max().unwrap_or(0);
    for y in (0..height).step_by(2) {
        let mut line = String::new();
        for picture in pictures {
            let width = picture.width() as usize;
            let at = |x: usize, y: usize| picture.rgb().get((y * width + x) * 3..(y * width + x) * 3 + 3);
            for x in 0..width {
                let above = at(x, y).unwrap_or(&[255; 3]);
                let below = at(x, y + 1).unwrap_or(above);
                line += &format!(
                    "\x1b[38;2;{};{};{}m\x1b[48;2;{};{};{}m▀",
                    above[0], above[1], above[2], below[0], below[1], below[2]
                );
            }
            line += "\x1b[0m  ";
        }
        print(&line)?;
    }
    Ok(())
}

/// Prints a value as one line of JSON.
pub fn json(value: &serde_json::Value) -> std::io::Result<()> {
    print(&value.to_string())
}

/// A progress bar on a terminal, nothing in a pipe.
pub fn bar(length: u64, unit: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr());
    let template = format!("{{bar:30}} {{pos}}/{{len}} {unit}  {{per_sec}}  {{eta}}  {{msg}}");
    if let Ok(style) = ProgressStyle::with_template(&template) {
        bar.set_style(style);
    }
    bar
}

/// Shows files being fetched.
#[derive(Default)]
pub struct Fetching {
    bar: Option<(String, ProgressBar)>,
}

impl Fetching {
    /// Shows how far a file is.
    pub fn show(&mut self, file: &str, done: u64, total: u64) {
        if self.bar.as_ref().is_none_or(|(name, _)| name != file) {
            self.bar = Some((file.to_owned(), bar(total, "bytes").with_message(file.to_owned())));
        }
        if let Some((_, bar)) = &self.bar {
            bar.set_length(total);
            bar.set_position(done);
        }
    }
}

/// Columns that a text takes on a terminal: Hangul, Han, kana and emoji take two.
pub fn columns(text: &str) -> usize {
    let wide = |c: char| matches!(c as u32, 0x1100..=0x115f | 0x2e80..=0xa4cf | 0xac00..=0xd7a3 | 0xf900..=0xfaff | 0xfe30..=0xfe6f | 0xff00..=0xff60 | 0xffe0..=0xffe6 | 0x1f300..=0x1faff | 0x20000..=0x3fffd);
    text.chars().map(|c| if wide(c) { 2 } else { 1 }).sum()
}

/// A text cut or padded to a number of columns.
pub fn fit(text: &str, width: usize) -> String {
    let mut fitted = String::new();
    let mut used = 0;
    let whole = columns(text) <= width;
    for c in text.chars() {
        let next = columns(c.encode_utf8(&mut [0; 4]));
        if used + next > if whole { width } else { width.saturating_sub(1) } {
            break;
        }
        fitted.push(c);
        used += next;
    }
    if !whole && width > 0 {
        fitted.push('…');
        used += 1;
    }
    fitted.push_str(&" ".repeat(width.saturating_sub(used)));
    fitted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hangul_takes_two_columns() {
        assert_eq!(columns("빨간 apple"), 10);
        assert_eq!(fit("빨간 사과", 6), "빨간 … ".trim_end());
        assert_eq!(fit("ab", 4), "ab  ");
        assert_eq!(columns(&fit("빨간 사과", 7)), 7);
    }

    #[test]
    fn messages_stay_on_their_line() {
        assert_eq!(one_line("a\nb\r\n  c\u{1b}[2J"), "a b c\u{fffd}[2J");
    }
}
