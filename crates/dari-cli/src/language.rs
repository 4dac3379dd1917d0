//! Which language a person reads: Korean and English are equal here.

use std::sync::OnceLock;

/// A language of the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// English.
    English,
    /// Korean.
    Korean,
}

/// The user's language: `DARI_LANG`, else the locale.
pub fn language() -> Language {
    static LANGUAGE: OnceLock<Language> = OnceLock::new();
    *LANGUAGE.get_or_init(|| from(|name| std::env::var(name).ok()))
}

fn from(variable: impl Fn(&str) -> Option<String>) -> Language {
    let names = ["DARI_LANG", "LC_ALL", "LC_MESSAGES", "LANG"];
    let set = names.into_iter().filter_map(variable).find(|value| !value.is_empty());
    match set {
        Some(value) if value.to_ascii_lowercase().starts_with("ko") => Language::Korean,
        _ => Language::English,
    }
}

impl Language {
    /// The text in this language.
    pub fn pick<'a>(self, english: &'a str, korean: &'a str) -> &'a str {
        match self {
            Language::English => english,
            Language::Korean => korean,
        }
    }

    /// Its code.
    pub fn code(self) -> &'static str {
        self.pick("en", "ko")
    }
}

/// A formatted text in the user's language: `say!("{n} found", "{n}개 찾음")`.
macro_rules! say {
    ($english:literal, $korean:literal) => {
        match $crate::language::language() {
            $crate::language::Language::English => format!($english),
            $crate::language::Language::Korean => format!($korean),
        }
    };
}
pub(crate) use say;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_variable_set_decides() {
        let with = |pairs: &'static [(&str, &str)]| {
            from(move |name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
        };
        assert_eq!(with(&[("LANG", "ko_KR.UTF-8")]), Language::Korean);
        assert_eq!(with(&[("LANG", "ko_KR.UTF-8"), ("LC_ALL", "C")]), Language::English);
        assert_eq!(with(&[("DARI_LANG", "ko"), ("LC_ALL", "C")]), Language::Korean);
        assert_eq!(with(&[("LC_ALL", ""), ("LANG", "ko")]), Language::Korean);
        assert_eq!(with(&[]), Language::English);
    }
}
