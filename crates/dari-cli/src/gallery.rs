//! The page of a search: one HTML file that holds its pictures, its style and nothing from outside.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// One picture on the page.
#[derive(Debug, Clone, Copy)]
pub struct GalleryItem<'a> {
    /// Where the picture lies; its caption and the link to it.
    pub path: &'a Path,
    /// Cosine similarity with the query.
    pub score: f32,
    /// A small PNG of it, if it could be made. The page shows it at most about 480 pixels wide.
    pub thumbnail: Option<&'a [u8]>,
}

/// What a page says in one language.
struct Words {
    /// The `lang` of the page.
    code: &'static str,
    title: &'static str,
    count: fn(usize) -> String,
    nothing: &'static str,
    similarity: &'static str,
    missing: &'static str,
}

const ENGLISH: Words = Words {
    code: "en",
    title: "Pictures found by Dari",
    count: |count| match count {
        1 => "1 picture, found by Dari".to_owned(),
        _ => format!("{count} pictures, the best first, found by Dari"),
    },
    nothing: "Nothing was found.",
    similarity: "Similarity",
    missing: "no preview",
};

const KOREAN: Words = Words {
    code: "ko",
    title: "다리로 찾은 그림",
    count: |count| format!("다리(Dari)로 찾은 그림 {count}장, 가까운 순"),
    nothing: "찾은 그림이 없습니다.",
    similarity: "유사도",
    missing: "미리보기 없음",
};

const STYLE: &str = "\
:root{color-scheme:light dark;--page:#f6f5f2;--card:#fff;--ink:#1d1d1f;--soft:#6b6b70;--line:#e4e2dc;\
--bar:#2f6f5e}\
@media(prefers-color-scheme:dark){:root{--page:#141416;--card:#1e1e21;--ink:#ececee;--soft:#9a9aa1;\
--line:#303035;--bar:#6cc3a9}}\
*{box-sizing:border-box}\
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.5 system-ui,-apple-system,\
\"Apple SD Gothic Neo\",\"Malgun Gothic\",\"Noto Sans CJK KR\",\"Noto Sans KR\",sans-serif}\
header,main{max-width:1500px;margin:0 auto;padding:0 clamp(16px,3vw,40px)}\
header{padding-top:clamp(28px,5vw,56px);padding-bottom:24px}\
h1{margin:0;font-size:clamp(1.5rem,3.2vw,2.3rem);line-height:1.25;font-weight:650;\
letter-spacing:-.015em;overflow-wrap:anywhere;text-wrap:balance}\
header p{margin:6px 0 0;color:var(--soft)}\
ol{list-style:none;margin:0;padding:0 0 56px;display:grid;gap:clamp(12px,1.6vw,22px);\
grid-template-columns:repeat(auto-fill,minmax(min(100%,clamp(160px,22vw,230px)),1fr))}\
figure,figure>*{height:100%;display:flex;flex-direction:column}\
figure{margin:0;background:var(--card);border:1px solid var(--line);border-radius:14px;\
overflow:hidden}\
a{color:inherit;text-decoration:none}\
a:focus-visible{outline:3px solid var(--bar);outline-offset:-3px;border-radius:14px}\
.view{position:relative;aspect-ratio:4/3;background:var(--page);display:grid;place-items:center;overflow:hidden;\
color:var(--soft)}\
.view img{position:absolute;inset:0;width:100%;height:100%;object-fit:contain}\
figcaption{flex:1;display:flex;flex-direction:column;justify-content:space-between;\
padding:12px 14px 14px;border-top:1px solid var(--line)}\
.name{font-weight:550;overflow-wrap:anywhere;display:-webkit-box;-webkit-box-orient:vertical;\
-webkit-line-clamp:2;overflow:hidden}\
a:hover .name{text-decoration:underline;text-underline-offset:3px}\
.score{display:flex;align-items:center;gap:10px;margin-top:8px;color:var(--soft);font-size:.85rem;\
font-variant-numeric:tabular-nums}\
.score i{flex:1;height:5px;border-radius:3px;background:var(--line);overflow:hidden}\
.score b{display:block;height:100%;border-radius:3px;background:var(--bar)}\
@media print{figure{break-inside:avoid}}";

/// Writes the page of a search for `query` to `page`, best pictures first as given.
///
/// `language` is a tag such as `ko` or `en-GB`: Korean for the first, English for all others. The
/// page is written beside its place and then renamed, so an error leaves an older page as it was.
///
/// # Errors
/// What the system answers.
pub fn write(page: &Path, query: &str, language: &str, items: &[GalleryItem<'_>]) -> io::Result<()> {
    let mut name = page.as_os_str().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let new = PathBuf::from(name);
    let write = || -> io::Result<()> {
        let mut file = BufWriter::new(File::create(&new)?);
        print(&mut file, query, language, items)?;
        file.into_inner()?.sync_all()?;
        std::fs::rename(&new, page)
    };
    write().inspect_err(|_| {
        // Only tidies up; the first error is the one to tell.
        let _ = std::fs::remove_file(&new);
    })
}

/// Writes the page to `file`.
fn print(file: &mut impl Write, query: &str, language: &str, items: &[GalleryItem<'_>]) -> io::Result<()> {
    let primary = language.split(['-', '_', '.']).next().unwrap_or_default();
    let words = if primary.eq_ignore_ascii_case("ko") { &KOREAN } else { &ENGLISH };
    let query = query.trim();
    let title = match query {
        "" => words.title.to_owned(),
        _ => format!("{} · Dari", escape(query)),
    };
    let heading = match query {
        "" => words.title.to_owned(),
        _ => escape(query),
    };
    let count = match items.len() {
        0 => words.nothing.to_owned(),
        count => (words.count)(count),
    };
    let code = words.code;
    // The policy forbids the page to load anything, whatever a file's name holds.
    write!(
        file,
        "<!DOCTYPE html>\n<html lang=\"{code}\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; \
         img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'\">\n\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n\
         <meta name=\"referrer\" content=\"no-referrer\">\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n\
         <header>\n<h1><bdi>{heading}</bdi></h1>\n<p>{count}</p>\n</header>\n<main>\n"
    )?;
    if !items.is_empty() {
        writeln!(file, "<ol>")?;
        // A bar is as long as its score is near the best: scores of text and picture are small.
        let best = items.iter().map(|item| item.score).filter(|score| score.is_finite()).fold(0.0, f32::max);
        for item in items {
            print_item(file, words, item, best)?;
        }
        writeln!(file, "</ol>")?;
    }
    write!(file, "</main>\n</body>\n</html>\n")
}

fn print_item(file: &mut impl Write, words: &Words, item: &GalleryItem<'_>, best: f32) -> io::Result<()> {
    let name = item.path.file_name().unwrap_or(item.path.as_os_str());
    let name = escape(&name.to_string_lossy());
    let path = escape(&item.path.to_string_lossy());
    write!(file, "<li><figure>")?;
    let link = link_to(item.path);
    match &link {
        Some(link) => write!(file, "<a href=\"{link}\" title=\"{path}\">")?,
        None => write!(file, "<div title=\"{path}\">")?,
    }
    match item.thumbnail {
        Some(png) => {
            write!(
                file,
                "<div class=\"view\"><img alt=\"{name}\" decoding=\"async\" \
                 src=\"data:image/png;base64,"
            )?;
            write_base64(file, png)?;
            write!(file, "\"></div>")?;
        }
        None => write!(file, "<div class=\"view\">{}</div>", words.missing)?,
    }
    let (score, length) = if item.score.is_finite() {
        let length = if best > 0.0 { (item.score / best).clamp(0.0, 1.0) * 100.0 } else { 0.0 };
        (format!("{:.3}", item.score), length)
    } else {
        ("–".to_owned(), 0.0)
    };
    let similarity = words.similarity;
    write!(
        file,
        "<figcaption><bdi class=\"name\">{name}</bdi><div class=\"score\" \
         title=\"{similarity} {score}\"><i aria-hidden=\"true\">\
         <b style=\"width:{length:.1}%\"></b></i><span aria-label=\"{similarity} {score}\">{score}</span>\
         </div></figcaption>"
    )?;
    write!(file, "{}", if link.is_some() { "</a>" } else { "</div>" })?;
    writeln!(file, "</figure></li>")
}

/// `text` with all that HTML gives a meaning to written as text.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // Line ends and tabs show as spaces, other control characters not at all.
            '\n' | '\r' | '\t' => escaped.push(' '),
            _ if letter.is_control() => escaped.push('\u{fffd}'),
            _ => escaped.push(letter),
        }
    }
    escaped
}

/// The `file:` address of a picture (RFC 8089), or nothing where it has none.
fn link_to(path: &Path) -> Option<String> {
    let full = std::path::absolute(path).ok()?;
    #[cfg(unix)]
    let bytes = {
        use std::os::unix::ffi::OsStrExt;
        full.as_os_str().as_bytes().to_vec()
    };
    #[cfg(not(unix))]
    let bytes = {
        let text = full.to_str()?.replace('\\', "/");
        // Paths made canonical on Windows begin with a marker that addresses do not have.
        let text = text.strip_prefix("//?/").unwrap_or(&text);
        format!("/{}", text.trim_start_matches('/')).into_bytes()
    };
    let mut link = String::from("file://");
    for byte in bytes {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'.' | b'_' | b'~' => {
                link.push(char::from(byte));
            }
            b':' if cfg!(windows) => link.push(':'),
            _ => {
                let _ = write!(link, "%{byte:02X}");
            }
        }
    }
    Some(link)
}

/// Writes bytes as Base64 (RFC 4648, with padding).
fn write_base64(file: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for chunk in bytes.chunks(3) {
        let part = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let bits = part(0) << 16 | part(1) << 8 | part(2);
        let mut letters = [b'='; 4];
        for (place, letter) in letters.iter_mut().enumerate().take(chunk.len() + 1) {
            let index = (bits >> (18 - 6 * place)) & 63;
            *letter = LETTERS.get(index as usize).copied().unwrap_or(b'=');
        }
        file.write_all(&letters)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(query: &str, language: &str, items: &[GalleryItem<'_>]) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("page.html");
        std::fs::write(&path, "older").unwrap();
        write(&path, query, language, items).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        std::fs::read_to_string(path).unwrap()
    }

    fn item<'a>(path: &'a Path, score: f32, thumbnail: Option<&'a [u8]>) -> GalleryItem<'a> {
        GalleryItem { path, score, thumbnail }
    }

    #[test]
    fn base64_as_in_the_rfc() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foobar", "Zm9vYmFy"),
            ("\u{3ff}\u{7f}~", "z79/fg=="),
        ] {
            let mut written = Vec::new();
            write_base64(&mut written, bytes.as_bytes()).unwrap();
            assert_eq!(String::from_utf8(written).unwrap(), text);
        }
    }

    #[test]
    fn a_page_in_each_language() {
        let path = Path::new("/p/고양이.png");
        let korean = page("고양이", "ko-KR", &[item(path, 0.31, Some(b"png"))]);
        assert!(korean.contains("<html lang=\"ko\">") && korean.contains("그림 1장"));
        assert!(korean.contains("<title>고양이 · Dari</title>"));
        assert!(korean.contains("alt=\"고양이.png\"") && korean.contains("base64,cG5n\""));
        let english = page("cat", "fr", &[item(path, 0.31, None); 2]);
        assert!(english.contains("<html lang=\"en\">") && english.contains("2 pictures"));
        assert!(english.contains("no preview"));
        assert!(page("", "en", &[]).contains("Nothing was found."));
        assert!(page(" ", "ko", &[]).contains("찾은 그림이 없습니다."));
    }

    #[test]
    fn nothing_comes_from_outside_and_nothing_breaks_out() {
        let path = Path::new("/p/\"><script src='http:'>&\u{202e}\n.png");
        let query = "</title><img src=x onerror=\"alert(1)\">";
        let html = page(query, "en", &[item(path, 0.5, Some(&[0; 10]))]);
        assert!(!html.contains("<script") && !html.contains("<img src=x"));
        assert!(html.contains("&quot;&gt;&lt;script src=&#39;http:&#39;&gt;&amp;"));
        if cfg!(unix) {
            assert!(html.contains("href=\"file:///p/%22%3E%3Cscript%20src%3D%27http%3A%27%3E%26"));
        }
        for marker in ["http://", "https://", "url(", "@import", "<link"] {
            assert!(!html.contains(marker), "{marker}");
        }
        assert_eq!(html.matches("<img").count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn names_that_are_not_unicode_link_to_their_bytes() {
        use std::os::unix::ffi::OsStrExt;
        let path = Path::new(std::ffi::OsStr::from_bytes(b"/p/\xffa.png"));
        let html = page("x", "en", &[item(path, 0.5, None)]);
        assert!(html.contains("href=\"file:///p/%FFa.png\""));
        assert!(html.contains(">\u{fffd}a.png<"));
    }

    #[test]
    fn bars_follow_the_scores() {
        let path = Path::new("/a.png");
        let scores = [0.4, 0.1, -0.2, f32::NAN, f32::INFINITY];
        let html = page("x", "en", &scores.map(|score| item(path, score, None)));
        for width in ["width:100.0%", "width:25.0%", "width:0.0%"] {
            assert!(html.contains(width), "{width}");
        }
        assert!(html.contains(">0.400<") && html.contains(">-0.200<") && html.contains(">–<"));
        assert!(!html.contains("NaN") && !html.contains("inf"));
        let below = page("x", "en", &[item(path, -0.3, None)]);
        assert!(below.contains("width:0.0%"));
    }

    #[test]
    fn an_error_leaves_the_older_page() {
        let folder = tempfile::tempdir().unwrap();
        assert!(write(&folder.path().join("no/page.html"), "x", "en", &[]).is_err());
        let page = folder.path().join("folder.html");
        std::fs::create_dir(&page).unwrap();
        std::fs::write(page.join("x"), "x").unwrap();
        assert!(write(&page, "x", "en", &[]).is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
