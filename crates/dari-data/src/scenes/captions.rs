//! Captions: exact phrasings of a scene in English ("en") and Korean ("ko").

use super::korean::{Particle, numeral, with_particle};
use super::random::Random;
use super::words::{Attribute, Colour, Figure, Names, Position, Shape, Size, Thing, counts};
use super::{Kind, Object, Scene};
use crate::datasets::Caption;

/// The languages of captions.
pub const LANGUAGES: [&str; 2] = ["en", "ko"];

impl Scene {
    /// Every caption of the scene, English first; several in each language, none twice.
    #[must_use]
    pub fn captions(&self) -> Vec<Caption> {
        let caption = |language: &str, text: String| Caption { text, language: Some(language.to_owned()) };
        LANGUAGES
            .iter()
            .flat_map(|language| {
                let texts = self.texts(language).into_iter();
                texts.map(move |text| caption(language, text))
            })
            .collect()
    }

    /// One caption in `language` ("en" or "ko"), the one that `key` picks; `None` for a language
    /// that scenes do not speak.
    #[must_use]
    pub fn caption(&self, language: &str, key: u64) -> Option<Caption> {
        let mut texts = self.texts(language);
        let chosen = Random::keyed(&[key]).below(texts.len());
        (chosen < texts.len())
            .then(|| Caption { text: texts.swap_remove(chosen), language: Some(language.to_owned()) })
    }

    fn texts(&self, language: &str) -> Vec<String> {
        let mut texts = match language {
            "en" => english(self),
            "ko" => korean(self),
            _ => Vec::new(),
        };
        let mut seen = std::collections::HashSet::new();
        texts.retain(|text| seen.insert(text.clone()));
        texts
    }
}

/// "a red apple", "빨간 사과": a figure and its colour in `language` ("en" or "ko"); `None` for
/// another language.
#[must_use]
pub fn describe(figure: Figure, colour: Colour, language: &str) -> Option<String> {
    let noun = figure.names().usual(language)?;
    let colour = colour.names().usual(language)?;
    Some(match language {
        "en" => article(&format!("{colour} {noun}")),
        _ => format!("{colour} {noun}"),
    })
}

/// The prompts of an attribute's values in `language`, phrased as the captions are, in the order of
/// the values; [`super::Facts::label`] is the index of the right one. Empty for a language other
/// than "en" and "ko".
#[must_use]
pub fn attribute_labels(attribute: Attribute, language: &str) -> Vec<String> {
    let english = match language {
        "en" => true,
        "ko" => false,
        _ => return Vec::new(),
    };
    let named = |names: &[Names], phrase: &dyn Fn(&str) -> String| -> Vec<String> {
        let usual = names.iter().filter_map(|names| names.usual(language));
        usual.map(phrase).collect()
    };
    match attribute {
        Attribute::Colour if english => {
            named(&Colour::ALL.map(Colour::names), &|colour| article(&format!("{colour} shape")))
        }
        Attribute::Colour => {
            Colour::ALL.iter().map(|colour| format!("{} 도형", colour.korean_noun())).collect()
        }
        Attribute::Shape => named(&Shape::ALL.map(Shape::names), &|noun| bare(noun, english)),
        Attribute::Thing => named(&Thing::ALL.map(Thing::names), &|noun| bare(noun, english)),
        Attribute::Count => named(&counts(), &|count| match (english, count) {
            (true, "one") => "one shape".to_owned(),
            (true, _) => format!("{count} shapes"),
            (false, _) => format!("도형 {count} 개"),
        }),
        Attribute::Position => named(&Position::ALL.map(Position::names), &|place| {
            if english { format!("a shape {place}") } else { format!("{place}에 있는 도형") }
        }),
        Attribute::Size => named(&Size::ALL.map(Size::names), &|size| {
            if english { format!("a {size} shape") } else { format!("{size} 도형") }
        }),
    }
}

fn bare(noun: &str, english: bool) -> String {
    if english { article(noun) } else { noun.to_owned() }
}

/// "an apple", "a red apple". Every word here that begins with a vowel letter begins with its sound.
fn article(phrase: &str) -> String {
    let article = if phrase.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {phrase}")
}

/// The usual name and, where there is one, the other that this scene says.
fn two_names(names: &'static [&'static str], key: u64) -> (&'static str, &'static str) {
    let usual = names.first().copied().unwrap_or("");
    let other = Random::keyed(&[key, 7]).pick(names.get(1..).unwrap_or(&[])).unwrap_or(usual);
    (usual, other)
}

/// An object's words in one language.
struct Said {
    noun: &'static str,
    other_noun: &'static str,
    colour: &'static str,
    other_colour: &'static str,
}

fn said(object: &Object, language: &str) -> Said {
    let (noun, other_noun) = two_names(object.figure.names().all(language), object.detail);
    let (colour, other_colour) = two_names(object.colour.names().all(language), object.detail);
    Said { noun, other_noun, colour, other_colour }
}

fn english(scene: &Scene) -> Vec<String> {
    let Some(object) = scene.objects.first() else {
        return Vec::new();
    };
    let Said { noun, other_noun, colour, other_colour } = said(object, "en");
    let is_shape = matches!(object.figure, Figure::Shape(_));
    let full = article(&format!("{colour} {noun}"));
    let mut texts = Vec::new();
    match scene.kind {
        Kind::Single | Kind::Composed => {
            texts.extend([
                full.clone(),
                format!("{colour} {noun}"),
                article(noun),
                article(&format!("{other_colour} {noun}")),
                article(&format!("{colour} {other_noun}")),
                format!("a picture of {full}"),
                format!("a drawing of {full}"),
                format!("an image of {full}"),
                format!("there is {full}"),
                format!("the {noun} is {colour}"),
            ]);
            if is_shape {
                texts.push(article(&format!("{colour} shape")));
            }
            if let Some(size) = scene.size {
                let (size, other_size) = two_names(size.names().english, object.detail);
                texts.extend([
                    format!("a {size} {colour} {noun}"),
                    format!("a {other_size} {colour} {noun}"),
                    format!("a {size} {noun}"),
                    format!("a {size} shape"),
                ]);
            }
            if scene.ground.is_none() {
                let (behind, other) = two_names(scene.backdrop.names().english, object.detail);
                texts.extend([
                    format!("{full} on a {behind} background"),
                    format!("a picture of {full} on a {other} background"),
                ]);
            }
        }
        Kind::Counted => {
            let count = scene.objects.len();
            let counted = counts();
            let Some(numerals) = count.checked_sub(1).and_then(|i| counted.get(i)) else {
                return texts;
            };
            let (number, other_number) = two_names(numerals.english, 0);
            let (nouns, shapes) = match count {
                1 => (noun, "shape"),
                _ => (object.figure.names().plural, "shapes"),
            };
            let there = if count == 1 { "there is" } else { "there are" };
            texts.extend([
                format!("{number} {colour} {nouns}"),
                format!("{other_number} {colour} {nouns}"),
                format!("{number} {other_colour} {nouns}"),
                format!("{number} {nouns}"),
                format!("a picture of {number} {colour} {nouns}"),
                format!("a drawing of {number} {colour} {nouns}"),
                format!("{there} {number} {colour} {nouns}"),
                format!("{there} {number} {nouns} in the picture"),
            ]);
            let (behind, _) = two_names(scene.backdrop.names().english, object.detail);
            texts.push(format!("{number} {colour} {nouns} on a {behind} background"));
            if is_shape {
                texts.push(format!("{number} {shapes}"));
                texts.push(format!("{number} {colour} {shapes}"));
            }
        }
        Kind::Placed => {
            let Some(position) = scene.position else {
                return texts;
            };
            let (place, other_place) = two_names(position.names().english, object.detail);
            texts.extend([
                format!("{full} {place}"),
                format!("{full} {other_place}"),
                format!("{colour} {noun} {place}"),
                format!("{} {place}", article(&format!("{other_colour} {noun}"))),
                format!("{} {place}", article(noun)),
                format!("the {colour} {noun} is {place}"),
                format!("there is {full} {place}"),
                format!("{full} {place} of the picture"),
                format!("a picture with {full} {place}"),
                full.clone(),
            ]);
            if is_shape {
                texts.push(format!("a shape {place}"));
                texts.push(format!("{} {place}", article(&format!("{colour} shape"))));
            }
        }
        Kind::Related => {
            let (Some(relation), Some(second)) = (scene.relation, scene.objects.get(1)) else {
                return texts;
            };
            let to = said(second, "en");
            let full_to = article(&format!("{} {}", to.colour, to.noun));
            let (lies, other) = two_names(relation.names().english, object.detail);
            let (back, other_back) = two_names(relation.reversed().names().english, object.detail);
            texts.extend([
                format!("{full} {lies} {full_to}"),
                format!("{full} {other} {full_to}"),
                format!("{full_to} {back} {full}"),
                format!("{full_to} {other_back} {full}"),
                format!("the {colour} {noun} is {lies} the {} {}", to.colour, to.noun),
                format!("a picture of {full} {lies} {full_to}"),
                format!("{full} and {full_to}"),
                format!("a picture of {full_to} and {full}"),
            ]);
            if object.figure != second.figure {
                texts.push(format!("{} {lies} {}", article(noun), article(to.noun)));
                texts.push(format!("{} and {}", article(noun), article(to.noun)));
            }
        }
    }
    texts
}

fn korean(scene: &Scene) -> Vec<String> {
    let Some(object) = scene.objects.first() else {
        return Vec::new();
    };
    let Said { noun, other_noun, colour, other_colour } = said(object, "ko");
    let is_shape = matches!(object.figure, Figure::Shape(_));
    let coloured_shape = format!("{} 도형", object.colour.korean_noun());
    let full = format!("{colour} {noun}");
    let subject = with_particle(&full, Particle::Subject);
    let mut texts = Vec::new();
    match scene.kind {
        Kind::Single | Kind::Composed => {
            texts.extend([
                full.clone(),
                noun.to_owned(),
                format!("{other_colour} {noun}"),
                format!("{colour} {other_noun}"),
                format!("{full} 그림"),
                format!("{subject} 있는 그림"),
                format!("{} 그린 그림", with_particle(&full, Particle::Object)),
                format!("{subject} 있다"),
                with_particle(&full, Particle::Is),
                format!("{} {}이다", with_particle(noun, Particle::Topic), object.colour.korean_noun()),
            ]);
            if is_shape {
                texts.push(coloured_shape);
            }
            if let Some(size) = scene.size {
                let (size, other_size) = two_names(size.names().korean, object.detail);
                texts.extend([
                    format!("{size} {full}"),
                    format!("{other_size} {full}"),
                    format!("{size} {noun}"),
                    format!("{size} 도형"),
                ]);
            }
            if scene.ground.is_none() {
                let (behind, other) = two_names(scene.backdrop.names().korean, object.detail);
                texts.extend([
                    format!("{behind} 배경의 {full}"),
                    format!("{other} 배경에 {subject} 있는 그림"),
                ]);
            }
        }
        Kind::Counted => {
            let count = scene.objects.len();
            let Some(number) = u8::try_from(count).ok().and_then(numeral) else {
                return texts;
            };
            let counter = object.figure.names().counter;
            texts.extend([
                format!("{full} {number} {counter}"),
                format!("{other_colour} {noun} {number} {counter}"),
                format!("{number} {counter}의 {full}"),
                format!("{noun} {number} {counter}"),
                format!("{subject} {number} {counter} 있다"),
                format!("{subject} {number} {counter} 있는 그림"),
                format!("{full} {number} {counter} 그림"),
                format!("{} {number} {counter} 그린 그림", with_particle(&full, Particle::Object)),
            ]);
            let (behind, _) = two_names(scene.backdrop.names().korean, object.detail);
            texts.push(format!("{behind} 배경의 {full} {number} {counter}"));
            if is_shape {
                texts.push(format!("도형 {number} 개"));
                texts.push(format!("{coloured_shape} {number} 개"));
            }
        }
        Kind::Placed => {
            let Some(position) = scene.position else {
                return texts;
            };
            let (place, other_place) = two_names(position.names().korean, object.detail);
            texts.extend([
                format!("{place}에 있는 {full}"),
                format!("{other_place}에 있는 {full}"),
                format!("{place}에 있는 {other_colour} {noun}"),
                format!("{place}에 있는 {noun}"),
                format!("{subject} {place}에 있다"),
                format!("{place}에 {subject} 있다"),
                format!("그림 {place}에 {subject} 있다"),
                format!("{place}에 {subject} 있는 그림"),
                format!("{place} {full}"),
                format!("{} 그림 {place}에 있다", with_particle(&full, Particle::Topic)),
                full.clone(),
            ]);
            if is_shape {
                texts.push(format!("{place}에 있는 도형"));
                texts.push(format!("{place}에 있는 {coloured_shape}"));
            }
        }
        Kind::Related => {
            let (Some(relation), Some(second)) = (scene.relation, scene.objects.get(1)) else {
                return texts;
            };
            let to = said(second, "ko");
            let full_to = format!("{} {}", to.colour, to.noun);
            let subject_to = with_particle(&full_to, Particle::Subject);
            let lies = relation.names().korean.first().copied().unwrap_or("");
            let back = relation.reversed().names().korean;
            let back = back.first().copied().unwrap_or("");
            texts.extend([
                format!("{full_to} {lies}에 있는 {full}"),
                format!("{full} {back}에 있는 {full_to}"),
                format!("{subject} {full_to} {lies}에 있다"),
                format!("{subject_to} {full} {back}에 있다"),
                format!("{full_to}의 {lies}에 {subject} 있다"),
                format!("{full_to} {lies}에 {subject} 있는 그림"),
                format!("{} {full_to}", with_particle(&full, Particle::And)),
                format!("{} {full}", with_particle(&full_to, Particle::And)),
            ]);
            if object.figure != second.figure {
                texts.push(format!("{} {lies}에 있는 {noun}", to.noun));
                texts.push(format!("{} {}", with_particle(noun, Particle::And), to.noun));
            }
        }
    }
    texts
}
