//! Questions about a scene, with exact answers in English ("en") and Korean ("ko").

use super::korean::{Particle, numeral, with_particle};
use super::random::Random;
use super::words::{Colour, Figure, Position, Relation, Shape, Size, Thing, counts};
use super::{Kind, Object, Scene, describe};

/// What a question is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Topic {
    /// Which colour.
    Colour,
    /// Which shape, or which thing.
    Shape,
    /// Small or large.
    Size,
    /// How many.
    Count,
    /// Where in the frame.
    Position,
    /// How one lies to another, and which of two lies so.
    Comparison,
    /// Whether something is so.
    YesNo,
    /// What is there, in one phrase; the same picture always has the same.
    Caption,
}

impl Topic {
    /// All of them.
    pub const ALL: [Topic; 8] = [
        Topic::Colour,
        Topic::Shape,
        Topic::Size,
        Topic::Count,
        Topic::Position,
        Topic::Comparison,
        Topic::YesNo,
        Topic::Caption,
    ];

    /// Its name in English.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Topic::Colour => "colour",
            Topic::Shape => "shape",
            Topic::Size => "size",
            Topic::Count => "count",
            Topic::Position => "position",
            Topic::Comparison => "comparison",
            Topic::YesNo => "yes/no",
            Topic::Caption => "caption",
        }
    }
}

/// A question with its one right answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// What it is about.
    pub topic: Topic,
    /// The question.
    pub question: String,
    /// The answer.
    pub answer: String,
}

impl Scene {
    /// A question in `language` ("en" or "ko"), the one that `key` picks: a topic that the scene has an answer to,
    /// then one of its questions. `None` for a language that scenes do not speak.
    #[must_use]
    pub fn question(&self, language: &str, key: u64) -> Option<Asked> {
        let mut random = Random::keyed(&[key, 21]);
        let mut all = self.questions(language, random.next());
        let mut topics: Vec<Topic> = all.iter().map(|asked| asked.topic).collect();
        topics.sort_unstable();
        topics.dedup();
        let topic = random.pick(&topics)?;
        all.retain(|asked| asked.topic == topic);
        let at = random.below(all.len());
        (at < all.len()).then(|| all.swap_remove(at))
    }

    /// Every question in `language`; what is not there in those of [`Topic::YesNo`] is drawn by `key`.
    #[must_use]
    pub fn questions(&self, language: &str, key: u64) -> Vec<Asked> {
        let random = &mut Random::keyed(&[key, 22]);
        match language {
            "en" => english(self, random),
            "ko" => korean(self, random),
            _ => Vec::new(),
        }
    }
}

/// Two things, each with the other, where their names tell them apart.
fn told_apart<'a>(first: &'a Object, second: &'a Object) -> Vec<[&'a Object; 2]> {
    if first.figure == second.figure { Vec::new() } else { vec![[first, second], [second, first]] }
}

/// Another than this one, of the same kind.
fn other_figure(than: Figure, random: &mut Random) -> Figure {
    loop {
        let drawn = match than {
            Figure::Shape(_) => random.pick(&Shape::ALL).map(Figure::Shape),
            Figure::Thing(_) => random.pick(&Thing::ALL).map(Figure::Thing),
        };
        match drawn {
            Some(drawn) if drawn != than => return drawn,
            _ => {}
        }
    }
}

fn other_colour(than: Colour, random: &mut Random) -> Colour {
    loop {
        match random.pick(&Colour::ALL) {
            Some(drawn) if drawn != than => return drawn,
            _ => {}
        }
    }
}

/// Several ways to ask for one answer.
fn add(all: &mut Vec<Asked>, topic: Topic, questions: &[String], answer: &str) {
    let asked = |question: &String| Asked { topic, question: question.clone(), answer: answer.to_owned() };
    all.extend(questions.iter().map(asked));
}

fn english(scene: &Scene, random: &mut Random) -> Vec<Asked> {
    let Some(object) = scene.objects.first() else { return Vec::new() };
    let mut all = Vec::new();
    let mut ask = |topic, questions: &[String], answer: &str| add(&mut all, topic, questions, answer);
    let (figure, colour) = (object.figure, object.colour);
    let usual = |names: super::Names| names.usual("en").unwrap_or("");
    let (noun, hue) = (usual(figure.names()), usual(colour.names()));
    let full = describe(figure, colour, "en").unwrap_or_default();
    let is_shape = matches!(figure, Figure::Shape(_));
    let yes = |is: bool| if is { "yes" } else { "no" };
    if scene.kind != Kind::Related {
        let plural = scene.objects.len() > 1;
        let (is, names) = if plural { ("are", figure.names().plural) } else { ("is", noun) };
        ask(
            Topic::Colour,
            &[
                format!("what colour {is} the {names}?"),
                format!("what color {is} the {names}?"),
                format!(
                    "which colour {} {}?",
                    if plural { "do the" } else { "does the" },
                    format_args!("{names} have")
                ),
            ],
            hue,
        );
        let asked = if is_shape { "what shape is this?" } else { "what is this?" };
        let more = if is_shape { "which shape is in the picture?" } else { "what is in the picture?" };
        ask(Topic::Shape, &[asked.into(), more.into()], noun);
        let colour = if random.chance(50) { colour } else { other_colour(colour, random) };
        let so = yes(colour == object.colour);
        let hue = usual(colour.names());
        ask(Topic::YesNo, &[format!("{is} the {names} {hue}?")], so);
        let drawn = if random.chance(50) { figure } else { other_figure(figure, random) };
        let article = describe(drawn, object.colour, "en").unwrap_or_default();
        ask(Topic::YesNo, &[format!("is there {article}?")], yes(drawn == figure));
    }
    match scene.kind {
        Kind::Single | Kind::Composed => {
            if let Some(size) = scene.size {
                let said = usual(size.names());
                ask(
                    Topic::Size,
                    &[format!("is the {noun} small or large?"), format!("how big is the {noun}?")],
                    said,
                );
                let drawn = random.pick(&Size::ALL).unwrap_or(size);
                ask(Topic::YesNo, &[format!("is the {noun} {}?", usual(drawn.names()))], yes(drawn == size));
            }
            ask(Topic::Caption, &describe_prompts("en"), &full);
        }
        Kind::Counted => {
            let (count, numerals) = (scene.objects.len(), counts());
            let Some(number) = count.checked_sub(1).and_then(|at| numerals.get(at)) else { return all };
            let number = usual(*number);
            let plural = figure.names().plural;
            ask(
                Topic::Count,
                &[format!("how many {plural} are there?"), format!("how many {plural} are in the picture?")],
                number,
            );
            let drawn = if random.chance(50) { count - 1 } else { random.below(numerals.len()) };
            let asked = usual(numerals[drawn]);
            let (are, names) = if drawn == 0 { ("is", noun) } else { ("are", plural) };
            ask(Topic::YesNo, &[format!("{are} there {asked} {names}?")], yes(drawn + 1 == count));
            // One is said as of a scene that shows one.
            let said = if count == 1 { full.clone() } else { format!("{number} {hue} {plural}") };
            ask(Topic::Caption, &describe_prompts("en"), &said);
        }
        Kind::Placed => {
            let Some(position) = scene.position else { return all };
            let place = usual(position.names());
            ask(
                Topic::Position,
                &[format!("where is the {noun}?"), format!("where in the picture is the {noun}?")],
                place,
            );
            let drawn = if random.chance(50) { Some(position) } else { random.pick(&Position::ALL) };
            let drawn = drawn.unwrap_or(position);
            ask(Topic::YesNo, &[format!("is the {noun} {}?", usual(drawn.names()))], yes(drawn == position));
            let said = if position == Position::Center { full.clone() } else { format!("{full} {place}") };
            ask(Topic::Caption, &describe_prompts("en"), &said);
        }
        Kind::Related => {
            let (Some(relation), Some(second)) = (scene.relation, scene.objects.get(1)) else { return all };
            let to = format!("the {} {}", usual(second.colour.names()), usual(second.figure.names()));
            let this = format!("the {hue} {noun}");
            let full_to = describe(second.figure, second.colour, "en").unwrap_or_default();
            let lies = usual(relation.names());
            ask(Topic::Comparison, &[format!("where is {this} from {to}?")], lies);
            ask(Topic::Comparison, &[format!("what is {lies} {to}?")], &full);
            ask(
                Topic::Comparison,
                &[format!("what is {} {this}?", usual(relation.reversed().names()))],
                &full_to,
            );
            let drawn = if random.chance(50) { relation } else { relation.reversed() };
            let said = usual(drawn.names());
            ask(Topic::YesNo, &[format!("is {this} {said} {to}?")], yes(drawn == relation));
            for [object, other] in told_apart(object, second) {
                let noun = usual(object.figure.names());
                let asked = [format!("what colour is the {noun}?"), format!("what color is the {noun}?")];
                ask(Topic::Colour, &asked, usual(object.colour.names()));
                let drawn = if random.chance(50) { object.colour } else { other.colour };
                let so = yes(drawn == object.colour);
                ask(Topic::YesNo, &[format!("is the {noun} {}?", usual(drawn.names()))], so);
            }
            // What is on the left or above is said first.
            let said = match relation {
                Relation::LeftOf | Relation::Above => format!("{full} {lies} {full_to}"),
                Relation::RightOf | Relation::Below => {
                    format!("{full_to} {} {full}", usual(relation.reversed().names()))
                }
            };
            ask(Topic::Caption, &describe_prompts("en"), &said);
        }
    }
    all
}

fn korean(scene: &Scene, random: &mut Random) -> Vec<Asked> {
    let Some(object) = scene.objects.first() else { return Vec::new() };
    let mut all = Vec::new();
    let mut ask = |topic, questions: &[String], answer: &str| add(&mut all, topic, questions, answer);
    let (figure, colour) = (object.figure, object.colour);
    let usual = |names: super::Names| names.usual("ko").unwrap_or("");
    let noun = usual(figure.names());
    let full = describe(figure, colour, "ko").unwrap_or_default();
    let (topic, subject) = (with_particle(noun, Particle::Topic), with_particle(noun, Particle::Subject));
    let is_shape = matches!(figure, Figure::Shape(_));
    let yes = |is: bool| if is { "네" } else { "아니요" };
    if scene.kind != Kind::Related {
        ask(
            Topic::Colour,
            &[
                format!("{topic} 무슨 색이야?"),
                format!("{topic} 무슨 색인가요?"),
                format!("{}의 색은?", noun),
            ],
            colour.korean_noun(),
        );
        let asked = if is_shape { "이건 무슨 도형이야?" } else { "이게 뭐야?" };
        let more = if is_shape { "그림에 어떤 도형이 있어?" } else { "그림에 뭐가 있어?" };
        ask(Topic::Shape, &[asked.into(), more.into()], noun);
        let drawn = if random.chance(50) { colour } else { other_colour(colour, random) };
        ask(Topic::YesNo, &[format!("{topic} {}이야?", drawn.korean_noun())], yes(drawn == colour));
        let drawn = if random.chance(50) { figure } else { other_figure(figure, random) };
        let named = describe(drawn, colour, "ko").unwrap_or_default();
        ask(
            Topic::YesNo,
            &[format!("{} 있어?", with_particle(&named, Particle::Subject))],
            yes(drawn == figure),
        );
    }
    match scene.kind {
        Kind::Single | Kind::Composed => {
            if let Some(size) = scene.size {
                let said = |size: Size| if size == Size::Small { "작아" } else { "커" };
                ask(
                    Topic::Size,
                    &[format!("{topic} 커, 작아?"), format!("{topic} 얼마나 커?")],
                    if size == Size::Small { "작아요" } else { "커요" },
                );
                let drawn = random.pick(&Size::ALL).unwrap_or(size);
                ask(Topic::YesNo, &[format!("{topic} {}?", said(drawn))], yes(drawn == size));
            }
            ask(Topic::Caption, &describe_prompts("ko"), &full);
        }
        Kind::Counted => {
            let count = scene.objects.len();
            let Some(number) = u8::try_from(count).ok().and_then(numeral) else { return all };
            let counter = figure.names().counter;
            ask(
                Topic::Count,
                &[format!("{subject} 몇 {counter} 있어?"), format!("{topic} 몇 {counter}야?")],
                &format!("{number} {counter}"),
            );
            let drawn = if random.chance(50) { count } else { random.below(4) + 1 };
            let asked = u8::try_from(drawn).ok().and_then(numeral).unwrap_or(number);
            ask(Topic::YesNo, &[format!("{subject} {asked} {counter} 있어?")], yes(drawn == count));
            let said = if count == 1 { full.clone() } else { format!("{full} {number} {counter}") };
            ask(Topic::Caption, &describe_prompts("ko"), &said);
        }
        Kind::Placed => {
            let Some(position) = scene.position else { return all };
            let place = usual(position.names());
            ask(Topic::Position, &[format!("{topic} 어디에 있어?"), format!("{subject} 어디 있어?")], place);
            let drawn = if random.chance(50) { Some(position) } else { random.pick(&Position::ALL) };
            let drawn = drawn.unwrap_or(position);
            ask(Topic::YesNo, &[format!("{topic} {}에 있어?", usual(drawn.names()))], yes(drawn == position));
            let said =
                if position == Position::Center { full.clone() } else { format!("{place}에 있는 {full}") };
            ask(Topic::Caption, &describe_prompts("ko"), &said);
        }
        Kind::Related => {
            let (Some(relation), Some(second)) = (scene.relation, scene.objects.get(1)) else { return all };
            let to = describe(second.figure, second.colour, "ko").unwrap_or_default();
            let this = with_particle(&full, Particle::Topic);
            let lies = |relation: Relation| relation.names().korean.first().copied().unwrap_or("");
            ask(Topic::Comparison, &[format!("{this} {to}의 어느 쪽에 있어?")], lies(relation));
            ask(Topic::Comparison, &[format!("{to} {}에 뭐가 있어?", lies(relation))], &full);
            ask(Topic::Comparison, &[format!("{full} {}에 뭐가 있어?", lies(relation.reversed()))], &to);
            let drawn = if random.chance(50) { relation } else { relation.reversed() };
            ask(Topic::YesNo, &[format!("{this} {to} {}에 있어?", lies(drawn))], yes(drawn == relation));
            for [object, other] in told_apart(object, second) {
                let topic = with_particle(usual(object.figure.names()), Particle::Topic);
                let asked = [format!("{topic} 무슨 색이야?"), format!("{topic} 무슨 색인가요?")];
                ask(Topic::Colour, &asked, object.colour.korean_noun());
                let drawn = if random.chance(50) { object.colour } else { other.colour };
                let so = yes(drawn == object.colour);
                ask(Topic::YesNo, &[format!("{topic} {}이야?", drawn.korean_noun())], so);
            }
            let said = match relation {
                Relation::LeftOf | Relation::Above => format!("{to} {}에 있는 {full}", lies(relation)),
                Relation::RightOf | Relation::Below => {
                    format!("{full} {}에 있는 {to}", lies(relation.reversed()))
                }
            };
            ask(Topic::Caption, &describe_prompts("ko"), &said);
        }
    }
    all
}

/// How a caption is asked for in `language` ("en" or "ko").
#[must_use]
pub fn describe_prompts(language: &str) -> Vec<String> {
    let all: &[&str] = match language {
        "ko" => &["그림을 설명해 줘.", "이 그림에 무엇이 있어?", "한 문장으로 설명해 줘."],
        _ => &["describe the picture.", "what does the picture show?", "describe it in one sentence."],
    };
    all.iter().map(|&text| text.to_owned()).collect()
}
