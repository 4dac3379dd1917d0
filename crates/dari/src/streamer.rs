//! An answer's text while its tokens come.

use dari_data::text::{Stream, Words};

/// Takes one answer's tokens, and tells its text as far as it is known.
pub(crate) struct Streamer<'a> {
    stream: Stream<'a>,
    writer: Writer<'a>,
    text: String,
    is_stopped: bool,
    problem: Option<dari_data::text::Error>,
}

impl<'a> Streamer<'a> {
    pub(crate) fn new(words: &'a Words, stops: &'a [String]) -> Streamer<'a> {
        let (stream, writer) = (words.stream(), Writer::new(stops));
        Streamer { stream, writer, text: String::new(), is_stopped: false, problem: None }
    }

    /// Takes one more token; gives whether the answer goes on.
    pub(crate) fn push(&mut self, token: u32, heard: &mut dyn FnMut(&str) -> bool) -> bool {
        let piece = match self.stream.push(token) {
            Ok(piece) => piece,
            Err(error) => {
                self.problem = Some(error);
                return false;
            }
        };
        let (told, found) = self.writer.push(&piece);
        self.text.push_str(&told);
        self.is_stopped = found;
        heard(&told) && !found
    }

    /// The whole text, and whether a text that ends an answer ended it.
    pub(crate) fn finish(
        mut self,
        heard: &mut dyn FnMut(&str) -> bool,
    ) -> dari_models::Result<(String, bool)> {
        if let Some(problem) = self.problem {
            return Err(problem.into());
        }
        if !self.is_stopped {
            let (mut rest, _) = self.writer.push(&self.stream.finish()?);
            rest += &self.writer.finish();
            heard(&rest);
            self.text.push_str(&rest);
        }
        Ok((self.text, self.is_stopped))
    }
}

/// Holds back what may be the beginning of a text that ends the answer.
pub(crate) struct Writer<'a> {
    stops: &'a [String],
    kept: String,
}

impl<'a> Writer<'a> {
    pub(crate) fn new(stops: &'a [String]) -> Writer<'a> {
        Writer { stops, kept: String::new() }
    }

    /// What may be told of the text so far, and whether an ending text was found.
    pub(crate) fn push(&mut self, piece: &str) -> (String, bool) {
        self.kept.push_str(piece);
        let found = self
            .stops
            .iter()
            .filter(|stop| !stop.is_empty())
            .filter_map(|stop| self.kept.find(stop.as_str()))
            .min();
        if let Some(at) = found {
            self.kept.truncate(at);
            return (std::mem::take(&mut self.kept), true);
        }
        let begins = |at: usize| self.stops.iter().any(|stop| stop.starts_with(&self.kept[at..]));
        let hold =
            self.kept.char_indices().map(|(at, _)| at).find(|&at| begins(at)).unwrap_or(self.kept.len());
        let rest = self.kept.split_off(hold);
        (std::mem::replace(&mut self.kept, rest), false)
    }

    /// What was held back for nothing.
    pub(crate) fn finish(&mut self) -> String {
        std::mem::take(&mut self.kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ending_text_is_never_told_in_part() {
        let stops = vec!["</end>".to_owned(), "끝".to_owned()];
        for (pieces, told, found) in [
            (&["ab<", "/e", "nd>c"][..], "ab", true),
            (&["a</e", "x</", "en"], "a</ex</en", false),
            (&["그리고 ", "끝", "."], "그리고 ", true),
            (&["plain"], "plain", false),
        ] {
            let mut writer = Writer::new(&stops);
            let mut text = String::new();
            let mut stopped = false;
            for piece in pieces {
                let (more, now) = writer.push(piece);
                text += &more;
                if now {
                    stopped = true;
                    break;
                }
            }
            if !stopped {
                text += &writer.finish();
            }
            assert_eq!((text.as_str(), stopped), (told, found), "{pieces:?}");
        }
    }
}
