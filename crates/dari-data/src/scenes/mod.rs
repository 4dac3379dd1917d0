//! Synthetic pictures with exact captions in English and Korean, drawn on the fly.
//!
//! A scene is one to four objects before a backdrop. It is a function of `(seed, index)` alone: the
//! same on every machine and in any order, so a training set of any length needs no file.
//!
//! ```
//! use dari_data::scenes::Scene;
//!
//! let scene = Scene::draw(7, 0);
//! let picture = scene.render(48);
//! assert_eq!((picture.width(), picture.height()), (48, 48));
//! for caption in scene.captions() {
//!     assert!(!caption.text.is_empty());
//! }
//! ```

mod captions;
mod compose;
mod draw;
mod korean;
mod nature;
mod objects;
mod palette;
mod questions;
mod random;
mod shapes;
#[cfg(test)]
mod tests;
mod words;

pub use captions::{LANGUAGES, attribute_labels, describe};
pub use korean::{Particle, numeral, particle, with_particle};
pub use questions::{Asked, Topic, describe_prompts};
pub use words::{
    Attribute, Backdrop, Colour, Figure, Names, Position, Relation, Shape, Size, Thing, colours, counts,
    is_held_out, positions, shapes, things,
};

use palette::Rgb;

/// What a scene is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// One shape, small or large, near the middle.
    Single,
    /// One to four of the same.
    Counted,
    /// One object at a place of the frame.
    Placed,
    /// Two objects side by side or one above the other.
    Related,
    /// One thing, large.
    Composed,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Kind; 5] = [Kind::Single, Kind::Counted, Kind::Placed, Kind::Related, Kind::Composed];
}

/// Which scenes to draw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SceneOptions {
    /// `false`, for training: no combination of [`is_held_out`] is drawn.
    /// `true`, for measuring: every object is such a combination.
    pub held_out: bool,
    /// Only scenes of this kind; `None` mixes all in fixed proportions.
    pub kind: Option<Kind>,
}

/// A picture before it is drawn: what is in it, and where.
#[derive(Clone, Debug, PartialEq)]
pub struct Scene {
    kind: Kind,
    backdrop: Backdrop,
    backdrop_rgb: Rgb,
    texture: Texture,
    ground: Option<Ground>,
    objects: Vec<Object>,
    size: Option<Size>,
    position: Option<Position>,
    relation: Option<Relation>,
}

/// One object of a scene. Lengths are fractions of the frame's side.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Object {
    figure: Figure,
    colour: Colour,
    rgb: Rgb,
    /// Centre, from the left and from the top.
    x: f32,
    y: f32,
    /// Half the side of the square that the object fills.
    radius: f32,
    /// Clockwise, in turns.
    rotation: f32,
    /// Width over height of what would be equal.
    stretch: f32,
    mirrored: bool,
    outlined: bool,
    /// Key of the object's details: how many petals, which sail.
    detail: u64,
}

/// How a backdrop is worked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Texture {
    Plain,
    /// Fine noise.
    Grain(u64),
    /// A little darker downwards.
    Fade,
    /// Faint stripes: how many across the frame, and whether slanted.
    Stripes(u8, bool),
    /// A faint chessboard: fields across the frame.
    Fields(u8),
}

/// What a thing stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ground {
    Grass,
    Sand,
    Water,
    Snow,
    Road,
}

/// What is true of a scene; `None` where it is not well defined or the scene does not show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The kind of scene.
    pub kind: Kind,
    /// The shape, when all objects are one shape.
    pub shape: Option<Shape>,
    /// The thing, when all objects are one thing.
    pub thing: Option<Thing>,
    /// The colour that all objects share.
    pub colour: Option<Colour>,
    /// How many objects, 1 to 4, when all are the same.
    pub count: Option<u8>,
    /// The size, of [`Kind::Single`].
    pub size: Option<Size>,
    /// The place, of [`Kind::Placed`].
    pub position: Option<Position>,
    /// How the first object lies to the second, of [`Kind::Related`].
    pub relation: Option<Relation>,
    /// First and second object, of [`Kind::Related`].
    pub related: Option<[(Figure, Colour); 2]>,
    /// What is behind the objects.
    pub backdrop: Backdrop,
}

impl Facts {
    /// The index of the right label among [`attribute_labels`] for `attribute`, in either language.
    ///
    /// `None` where the scene is no fair question of it: nothing is asked of [`Kind::Related`];
    /// colours, counts, places and sizes are asked of shapes alone, the count only of
    /// [`Kind::Counted`], in which one to four are equally likely.
    #[must_use]
    pub fn label(&self, attribute: Attribute) -> Option<usize> {
        if self.kind == Kind::Related {
            return None;
        }
        if attribute == Attribute::Thing {
            return index_of(&Thing::ALL, self.thing?);
        }
        let shape = self.shape?;
        match attribute {
            Attribute::Shape => index_of(&Shape::ALL, shape),
            Attribute::Colour => index_of(&Colour::ALL, self.colour?),
            Attribute::Size => index_of(&Size::ALL, self.size?),
            Attribute::Position => index_of(&Position::ALL, self.position?),
            Attribute::Count if self.kind == Kind::Counted => usize::from(self.count?).checked_sub(1),
            Attribute::Thing | Attribute::Count => None,
        }
    }
}

fn index_of<T: PartialEq>(all: &[T], member: T) -> Option<usize> {
    all.iter().position(|other| *other == member)
}

impl Scene {
    /// The scene of `(seed, index)` among those for training.
    #[must_use]
    pub fn draw(seed: u64, index: u64) -> Scene {
        Scene::draw_with(seed, index, &SceneOptions::default())
    }

    /// What is true of the scene.
    #[must_use]
    pub fn facts(&self) -> Facts {
        let first = self.objects.first();
        let shared = |same: fn(&Object, &Object) -> bool| {
            first.filter(|first| self.objects.iter().all(|object| same(first, object)))
        };
        let figure = shared(|a, b| a.figure == b.figure).map(|object| object.figure);
        let colour = shared(|a, b| a.colour == b.colour).map(|object| object.colour);
        let related = match (self.kind, self.objects.as_slice()) {
            (Kind::Related, [a, b]) => Some([(a.figure, a.colour), (b.figure, b.colour)]),
            _ => None,
        };
        let count = u8::try_from(self.objects.len()).ok();
        Facts {
            kind: self.kind,
            shape: match figure {
                Some(Figure::Shape(shape)) => Some(shape),
                _ => None,
            },
            thing: match figure {
                Some(Figure::Thing(thing)) => Some(thing),
                _ => None,
            },
            colour,
            count: count.filter(|_| figure.is_some() && colour.is_some()),
            size: self.size,
            position: self.position,
            relation: self.relation,
            related,
            backdrop: self.backdrop,
        }
    }
}
