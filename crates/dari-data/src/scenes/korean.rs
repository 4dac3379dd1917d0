//! Korean grammar that captions need: particles by final consonant, native numerals.

/// A particle (조사) whose form follows the final consonant of the word before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Particle {
    /// 이 / 가, the subject.
    Subject,
    /// 은 / 는, the topic.
    Topic,
    /// 을 / 를, the object.
    Object,
    /// 과 / 와, "and" between nouns.
    And,
    /// 으로 / 로, "to, with"; a final ㄹ takes 로.
    Toward,
    /// 이다 / 다, "is".
    Is,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    Open,
    Rieul,
    Closed,
}

/// How the last word of `text` ends when read aloud. Digits are read as Sino-Korean numbers, single
/// Latin letters by their Korean names; whatever else counts as a vowel.
fn ending(text: &str) -> Ending {
    let Some(last) = text.chars().rev().find(|c| c.is_alphanumeric()) else {
        return Ending::Open;
    };
    match last {
        // Unicode composes a syllable as 28 endings to each pair of initial and vowel.
        '가'..='힣' => match (u32::from(last) - 0xac00) % 28 {
            0 => Ending::Open,
            8 => Ending::Rieul,
            _ => Ending::Closed,
        },
        '1' | '7' | '8' | 'l' | 'L' | 'r' | 'R' => Ending::Rieul,
        '0' | '3' | '6' | 'm' | 'M' | 'n' | 'N' => Ending::Closed,
        _ => Ending::Open,
    }
}

/// The form of `particle` that follows `word`: `particle("사과", Particle::Subject)` is "가".
#[must_use]
pub fn particle(word: &str, particle: Particle) -> &'static str {
    let ending = ending(word);
    let (closed, open) = match particle {
        Particle::Subject => ("이", "가"),
        Particle::Topic => ("은", "는"),
        Particle::Object => ("을", "를"),
        Particle::And => ("과", "와"),
        Particle::Is => ("이다", "다"),
        Particle::Toward if ending == Ending::Rieul => return "로",
        Particle::Toward => ("으로", "로"),
    };
    if ending == Ending::Open { open } else { closed }
}

/// `word` with `particle` joined: "사과가", "원이".
#[must_use]
pub fn with_particle(word: &str, kind: Particle) -> String {
    format!("{word}{}", particle(word, kind))
}

/// The native numeral before a counter, 한 to 네; `None` beyond four.
#[must_use]
pub fn numeral(count: u8) -> Option<&'static str> {
    match count {
        1 => Some("한"),
        2 => Some("두"),
        3 => Some("세"),
        4 => Some("네"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn particles_follow_the_final_consonant() {
        use Particle::{And, Is, Object, Subject, Topic, Toward};
        let cases = [
            ("사과", Subject, "사과가"),
            ("원", Subject, "원이"),
            ("삼각형", Subject, "삼각형이"),
            ("십자가", Subject, "십자가가"),
            ("초승달", Subject, "초승달이"),
            ("나무", Topic, "나무는"),
            ("집", Topic, "집은"),
            ("웃는 얼굴", Topic, "웃는 얼굴은"),
            ("배", Object, "배를"),
            ("꽃", Object, "꽃을"),
            ("컵", Object, "컵을"),
            ("별", And, "별과"),
            ("하트", And, "하트와"),
            ("고양이", And, "고양이와"),
            ("책", Is, "책이다"),
            ("열쇠", Is, "열쇠다"),
            ("왼쪽", Toward, "왼쪽으로"),
            ("위", Toward, "위로"),
            ("연필", Toward, "연필로"),
            ("3", Subject, "3이"),
            ("2", Subject, "2가"),
            ("\"집\"", Subject, "\"집\"이"),
            ("model", Topic, "model은"),
            ("", Subject, "가"),
        ];
        for (word, kind, expected) in cases {
            assert_eq!(with_particle(word, kind), expected);
        }
    }

    #[test]
    fn numerals_go_to_four() {
        let four: Vec<_> = (0..=5).map(numeral).collect();
        assert_eq!(four, [None, Some("한"), Some("두"), Some("세"), Some("네"), None]);
    }
}
