//! What scenes are made of, and its names in English and Korean.

use super::random::mix;

/// The names of one thing in both languages.
///
/// The first name of a list is the usual one; the others are said as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Names {
    /// English, singular: "apple".
    pub english: &'static [&'static str],
    /// The plural of the usual English name: "apples". Empty for words that are not counted.
    pub plural: &'static str,
    /// Korean: "사과". For colours the form before a noun: "빨간".
    pub korean: &'static [&'static str],
    /// The Korean counter: "개", "마리". Empty for words that are not counted.
    pub counter: &'static str,
}

impl Names {
    /// The usual name in `language` ("en" or "ko").
    #[must_use]
    pub fn usual(&self, language: &str) -> Option<&'static str> {
        self.all(language).first().copied()
    }

    /// All names in `language` ("en" or "ko"); none for another language.
    #[must_use]
    pub fn all(&self, language: &str) -> &'static [&'static str] {
        match language {
            "en" => self.english,
            "ko" => self.korean,
            _ => &[],
        }
    }
}

/// Declares an enum whose every member has [`Names`], in one table.
macro_rules! named {
    ($(#[$doc:meta])* $name:ident { $($member:ident: $english:tt / $plural:literal, $korean:tt / $counter:literal;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name {
            $(#[doc = concat!("`", stringify!($english), "`, `", stringify!($korean), "`.")] $member,)*
        }

        impl $name {
            /// Every member, in the order of the table.
            pub const ALL: [$name; [$($name::$member),*].len()] = [$($name::$member),*];

            /// Its names.
            #[must_use]
            pub fn names(self) -> Names {
                match self {
                    $($name::$member => Names {
                        english: &$english, plural: $plural, korean: &$korean, counter: $counter,
                    },)*
                }
            }
        }
    };
}

named! {
    /// The colour of an object.
    Colour {
        Red: ["red"] / "", ["빨간", "빨간색"] / "";
        Orange: ["orange"] / "", ["주황색", "주황"] / "";
        Yellow: ["yellow"] / "", ["노란", "노란색"] / "";
        Green: ["green"] / "", ["초록색", "녹색", "초록"] / "";
        Blue: ["blue"] / "", ["파란", "파란색"] / "";
        Purple: ["purple", "violet"] / "", ["보라색", "보라"] / "";
        Pink: ["pink"] / "", ["분홍색", "핑크색"] / "";
        Brown: ["brown"] / "", ["갈색"] / "";
        Black: ["black"] / "", ["검은", "검은색", "검정"] / "";
        White: ["white"] / "", ["하얀", "흰색", "흰"] / "";
        Grey: ["grey", "gray"] / "", ["회색"] / "";
        SkyBlue: ["sky blue", "light blue"] / "", ["하늘색"] / "";
    }
}

named! {
    /// A plain shape.
    Shape {
        Circle: ["circle"] / "circles", ["원", "동그라미"] / "개";
        Square: ["square"] / "squares", ["정사각형", "네모"] / "개";
        Triangle: ["triangle"] / "triangles", ["삼각형", "세모"] / "개";
        Star: ["star"] / "stars", ["별"] / "개";
        Heart: ["heart"] / "hearts", ["하트"] / "개";
        Diamond: ["diamond", "rhombus"] / "diamonds", ["마름모", "다이아몬드"] / "개";
        Cross: ["cross", "plus sign"] / "crosses", ["십자가", "더하기 기호"] / "개";
        Crescent: ["crescent", "crescent moon"] / "crescents", ["초승달"] / "개";
        Ring: ["ring"] / "rings", ["고리"] / "개";
        Arrow: ["arrow"] / "arrows", ["화살표"] / "개";
        Pentagon: ["pentagon"] / "pentagons", ["오각형"] / "개";
        Hexagon: ["hexagon"] / "hexagons", ["육각형"] / "개";
    }
}

named! {
    /// A thing composed of primitives, such as a person would search for.
    Thing {
        Apple: ["apple"] / "apples", ["사과"] / "개";
        Banana: ["banana"] / "bananas", ["바나나"] / "개";
        Carrot: ["carrot"] / "carrots", ["당근"] / "개";
        Strawberry: ["strawberry"] / "strawberries", ["딸기"] / "개";
        Mushroom: ["mushroom"] / "mushrooms", ["버섯"] / "개";
        IceCream: ["ice cream", "ice cream cone"] / "ice creams", ["아이스크림"] / "개";
        Tree: ["tree"] / "trees", ["나무"] / "그루";
        Flower: ["flower"] / "flowers", ["꽃"] / "송이";
        Leaf: ["leaf"] / "leaves", ["나뭇잎", "잎"] / "장";
        Sun: ["sun"] / "suns", ["해", "태양"] / "개";
        Moon: ["moon", "full moon"] / "moons", ["달", "보름달"] / "개";
        Cloud: ["cloud"] / "clouds", ["구름"] / "개";
        Cat: ["cat", "cat face"] / "cats", ["고양이", "고양이 얼굴"] / "마리";
        Dog: ["dog", "puppy"] / "dogs", ["강아지", "개"] / "마리";
        Fish: ["fish"] / "fish", ["물고기"] / "마리";
        Bird: ["bird"] / "birds", ["새"] / "마리";
        Butterfly: ["butterfly"] / "butterflies", ["나비"] / "마리";
        Snowman: ["snowman"] / "snowmen", ["눈사람"] / "개";
        Smile: ["smiley face", "smiling face"] / "smiley faces", ["웃는 얼굴", "스마일"] / "개";
        House: ["house"] / "houses", ["집"] / "채";
        Car: ["car"] / "cars", ["자동차", "차"] / "대";
        Boat: ["boat", "sailboat"] / "boats", ["배", "돛단배"] / "척";
        Rocket: ["rocket"] / "rockets", ["로켓"] / "대";
        Balloon: ["balloon"] / "balloons", ["풍선"] / "개";
        Ball: ["ball", "beach ball"] / "balls", ["공", "비치볼"] / "개";
        Umbrella: ["umbrella"] / "umbrellas", ["우산"] / "개";
        Cup: ["cup", "mug"] / "cups", ["컵", "머그컵"] / "개";
        Key: ["key"] / "keys", ["열쇠"] / "개";
        Book: ["book"] / "books", ["책"] / "권";
        Clock: ["clock"] / "clocks", ["시계"] / "개";
        Pencil: ["pencil"] / "pencils", ["연필"] / "자루";
        Gift: ["gift box", "present"] / "gift boxes", ["선물 상자", "선물"] / "개";
        Hat: ["hat"] / "hats", ["모자"] / "개";
        Shirt: ["t-shirt", "shirt"] / "t-shirts", ["티셔츠", "셔츠"] / "장";
    }
}

named! {
    /// The size of a single shape.
    Size {
        Small: ["small", "little"] / "", ["작은", "조그만"] / "";
        Large: ["large", "big"] / "", ["큰", "커다란"] / "";
    }
}

named! {
    /// Where in the frame a placed object is. The names fit "on the left", "왼쪽에 있는".
    Position {
        Left: ["on the left", "on the left side"] / "", ["왼쪽"] / "";
        Right: ["on the right", "on the right side"] / "", ["오른쪽"] / "";
        Top: ["at the top"] / "", ["위쪽", "맨 위"] / "";
        Bottom: ["at the bottom"] / "", ["아래쪽", "맨 아래"] / "";
        Center: ["in the center", "in the middle"] / "", ["가운데", "한가운데"] / "";
    }
}

named! {
    /// How the first of two objects lies to the second.
    Relation {
        LeftOf: ["to the left of", "left of"] / "", ["왼쪽"] / "";
        RightOf: ["to the right of", "right of"] / "", ["오른쪽"] / "";
        Above: ["above", "over"] / "", ["위"] / "";
        Below: ["below", "under"] / "", ["아래"] / "";
    }
}

named! {
    /// What is behind the objects. The Korean names fit "하얀 배경".
    Backdrop {
        White: ["white"] / "", ["하얀", "흰색"] / "";
        Grey: ["grey", "gray"] / "", ["회색"] / "";
        Black: ["black"] / "", ["검은", "검은색"] / "";
        SkyBlue: ["sky blue", "light blue"] / "", ["하늘색"] / "";
        Cream: ["cream"] / "", ["크림색"] / "";
        Mint: ["mint", "mint green"] / "", ["민트색"] / "";
        Lavender: ["lavender"] / "", ["연보라색"] / "";
        Peach: ["peach"] / "", ["살구색"] / "";
        Navy: ["navy", "dark blue"] / "", ["남색"] / "";
    }
}

impl Relation {
    /// How the second object lies to the first.
    #[must_use]
    pub fn reversed(self) -> Relation {
        match self {
            Relation::LeftOf => Relation::RightOf,
            Relation::RightOf => Relation::LeftOf,
            Relation::Above => Relation::Below,
            Relation::Below => Relation::Above,
        }
    }
}

impl Colour {
    /// The Korean name as a noun: "빨간색".
    #[must_use]
    pub fn korean_noun(self) -> &'static str {
        match self {
            Colour::Red => "빨간색",
            Colour::Orange => "주황색",
            Colour::Yellow => "노란색",
            Colour::Green => "초록색",
            Colour::Blue => "파란색",
            Colour::Purple => "보라색",
            Colour::Pink => "분홍색",
            Colour::Brown => "갈색",
            Colour::Black => "검은색",
            Colour::White => "흰색",
            Colour::Grey => "회색",
            Colour::SkyBlue => "하늘색",
        }
    }
}

/// What an object is: a shape or a thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Figure {
    /// A plain shape.
    Shape(Shape),
    /// A composed thing.
    Thing(Thing),
}

impl Figure {
    /// Its names.
    #[must_use]
    pub fn names(self) -> Names {
        match self {
            Figure::Shape(shape) => shape.names(),
            Figure::Thing(thing) => thing.names(),
        }
    }

    /// The colours it may have: all for a shape, the natural ones for a thing.
    #[must_use]
    pub fn colours(self) -> &'static [Colour] {
        use Colour::{Black, Blue, Brown, Green, Grey, Orange, Pink, Purple, Red, SkyBlue, White, Yellow};
        let Figure::Thing(thing) = self else {
            return &Colour::ALL;
        };
        match thing {
            Thing::Apple => &[Red, Green, Yellow],
            Thing::Banana => &[Yellow, Green],
            Thing::Carrot => &[Orange],
            Thing::Strawberry => &[Red, Pink],
            Thing::Mushroom => &[Red, Brown, Orange, Purple],
            Thing::IceCream => &[Pink, White, Brown, SkyBlue, Yellow],
            Thing::Tree => &[Green, Orange, Red, Yellow, Pink],
            Thing::Flower => &[Red, Pink, Yellow, Purple, White, Blue, Orange],
            Thing::Leaf => &[Green, Yellow, Red, Brown, Orange],
            Thing::Sun => &[Yellow, Orange, Red],
            Thing::Moon => &[Yellow, White, Grey],
            Thing::Cloud => &[White, Grey, Pink],
            Thing::Cat => &[Orange, Grey, Black, White, Brown, Yellow],
            Thing::Dog => &[Brown, White, Grey, Black, Orange],
            Thing::Fish => &[Red, Orange, Yellow, Green, Blue, Purple, Pink],
            Thing::Bird => &[Red, Yellow, Blue, Green, White, Black, SkyBlue, Orange],
            Thing::Butterfly => &[Yellow, Orange, Blue, Purple, Pink, Red, White, SkyBlue],
            Thing::Snowman => &[White],
            Thing::Smile => &[Yellow, Green, Pink, Orange],
            Thing::House => &[Red, Blue, Yellow, White, Orange, Brown, Pink, Green],
            Thing::Car => &[Red, Blue, Yellow, White, Black, Grey, Green, Orange],
            Thing::Boat => &[Red, Blue, Yellow, White, Green, Brown],
            Thing::Rocket => &[Red, White, Blue, Grey, Orange],
            Thing::Clock => &[Red, Blue, Black, Brown, Green, Grey],
            Thing::Pencil => &[Yellow, Red, Blue, Green, Orange, Purple],
            Thing::Key => &[Yellow, Grey, Brown, Black],
            Thing::Cup | Thing::Shirt => {
                &[Red, Orange, Yellow, Green, Blue, Purple, Pink, Brown, Black, White, Grey, SkyBlue]
            }
            Thing::Balloon | Thing::Ball | Thing::Umbrella | Thing::Gift => {
                &[Red, Orange, Yellow, Green, Blue, Purple, Pink, SkyBlue]
            }
            Thing::Book | Thing::Hat => &[Red, Yellow, Green, Blue, Purple, Pink, Brown, Black, Orange],
        }
    }
}

/// Whether a combination is kept from training.
///
/// About a tenth of the (figure, colour) combinations is held out, always the same ones, so that it
/// can be measured whether a model puts together what it saw apart. Things of fewer than three
/// colours hold out none.
#[must_use]
pub fn is_held_out(figure: Figure, colour: Colour) -> bool {
    let key = match figure {
        Figure::Shape(shape) => shape as u64,
        Figure::Thing(thing) => 0x100 + thing as u64,
    };
    figure.colours().len() >= 3 && mix(mix(HELD_OUT ^ key) ^ colour as u64).is_multiple_of(10)
}

/// Chosen so that the combinations which the documentation searches for are trained on.
const HELD_OUT: u64 = 137_493;

/// What a scene can be asked for, see [`attribute_labels`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Attribute {
    /// The colour of a shape.
    Colour,
    /// Which shape.
    Shape,
    /// Which thing.
    Thing,
    /// How many shapes, one to four.
    Count,
    /// Where the shape is.
    Position,
    /// How large the shape is.
    Size,
}

impl Attribute {
    /// All attributes.
    pub const ALL: [Attribute; 6] = [
        Attribute::Colour,
        Attribute::Shape,
        Attribute::Thing,
        Attribute::Count,
        Attribute::Position,
        Attribute::Size,
    ];
}

/// The words for one to four.
const COUNTS: [Names; 4] = [
    count_names(&["one", "a single"], &["한", "하나"]),
    count_names(&["two", "2"], &["두", "둘"]),
    count_names(&["three", "3"], &["세", "셋"]),
    count_names(&["four", "4"], &["네", "넷"]),
];

const fn count_names(english: &'static [&'static str], korean: &'static [&'static str]) -> Names {
    Names { english, plural: "", korean, counter: "개" }
}

/// The names of the colours, in the order of [`Colour::ALL`].
#[must_use]
pub fn colours() -> Vec<Names> {
    Colour::ALL.map(Colour::names).to_vec()
}

/// The names of the shapes, in the order of [`Shape::ALL`].
#[must_use]
pub fn shapes() -> Vec<Names> {
    Shape::ALL.map(Shape::names).to_vec()
}

/// The numerals one to four.
#[must_use]
pub fn counts() -> Vec<Names> {
    COUNTS.to_vec()
}

/// The names of the positions, in the order of [`Position::ALL`].
#[must_use]
pub fn positions() -> Vec<Names> {
    Position::ALL.map(Position::names).to_vec()
}

/// The names of the things, in the order of [`Thing::ALL`].
#[must_use]
pub fn things() -> Vec<Names> {
    Thing::ALL.map(Thing::names).to_vec()
}
