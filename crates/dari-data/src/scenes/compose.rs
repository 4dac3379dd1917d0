//! Choosing what a scene shows, and laying it out.

use super::palette::{Rgb, backdrop, contrasts, luma, shade};
use super::random::Random;
use super::words::{Backdrop, Colour, Figure, Position, Relation, Shape, Size, Thing, is_held_out};
use super::{Ground, Kind, Object, Scene, SceneOptions, Texture};

/// Nothing is drawn nearer to the frame's edge than this.
const MARGIN: f32 = 0.02;
/// How far an object's corners may reach beyond its radius when it is turned a little.
pub(super) const REACH: f32 = 1.12;

impl Scene {
    /// The scene of `(seed, index)` under `options`.
    #[must_use]
    pub fn draw_with(seed: u64, index: u64, options: &SceneOptions) -> Scene {
        let mut random = Random::keyed(&[seed, index, u64::from(options.held_out)]);
        let kind = options.kind.unwrap_or_else(|| match random.below(100) {
            0..20 => Kind::Single,
            20..40 => Kind::Counted,
            40..55 => Kind::Placed,
            55..70 => Kind::Related,
            _ => Kind::Composed,
        });
        let random = &mut random;
        let things = match kind {
            Kind::Single => false,
            Kind::Composed => true,
            Kind::Counted | Kind::Placed | Kind::Related => random.chance(25),
        };
        let held_out = options.held_out;
        let (figure, colour) = choose(things, held_out, None, random);
        let rgb = shade(colour, random);
        let second = (kind == Kind::Related).then(|| {
            let (figure, colour) = choose(things, held_out, Some(colour), random);
            (figure, colour, shade(colour, random))
        });
        let behind = Behind::choose(
            kind,
            &[Some((figure, rgb)), second.map(|(figure, _, rgb)| (figure, rgb))],
            random,
        );
        let mut scene = Scene {
            kind,
            backdrop: behind.backdrop,
            backdrop_rgb: behind.rgb,
            texture: behind.texture,
            ground: behind.ground,
            objects: Vec::with_capacity(4),
            size: None,
            position: None,
            relation: None,
        };
        let object = loose(figure, colour, rgb, random);
        match kind {
            Kind::Single => scene.lay_single(object, random),
            Kind::Counted => scene.lay_counted(object, random),
            Kind::Placed => scene.lay_placed(object, random),
            Kind::Composed => scene.lay_composed(object, random),
            Kind::Related => {
                if let Some((figure, colour, rgb)) = second {
                    let other = loose(figure, colour, rgb, random);
                    scene.lay_related(object, other, random);
                }
            }
        }
        scene
    }

    fn lay_single(&mut self, object: Object, random: &mut Random) {
        let (size, radius) = if random.chance(50) {
            (Size::Small, random.range(0.15, 0.19))
        } else {
            (Size::Large, random.range(0.33, 0.41))
        };
        self.size = Some(size);
        self.objects.push(near(object, radius, 0.5, 0.5, 0.1, random));
    }

    fn lay_composed(&mut self, object: Object, random: &mut Random) {
        let radius = random.range(0.33, 0.43);
        let object = match self.ground {
            None => near(object, radius, 0.5, 0.5, 0.05, random),
            Some(_) => {
                let radius = radius.min(0.39);
                let mut object = near(object, radius, 0.5, 0.88 - radius, 0.02, random);
                object.rotation = 0.0;
                object
            }
        };
        self.objects.push(object);
    }

    fn lay_placed(&mut self, object: Object, random: &mut Random) {
        let position = random.pick(&Position::ALL).unwrap_or(Position::Center);
        let (x, y) = match position {
            Position::Left => (0.23, 0.5),
            Position::Right => (0.77, 0.5),
            Position::Top => (0.5, 0.23),
            Position::Bottom => (0.5, 0.77),
            Position::Center => (0.5, 0.5),
        };
        self.position = Some(position);
        let radius = random.range(0.16, 0.21);
        self.objects.push(near(object, radius, x, y, 0.04, random));
    }

    fn lay_related(&mut self, first: Object, second: Object, random: &mut Random) {
        let relation = random.pick(&Relation::ALL).unwrap_or(Relation::LeftOf);
        let (x, y) = match relation {
            Relation::LeftOf => (0.25, 0.5),
            Relation::RightOf => (0.75, 0.5),
            Relation::Above => (0.5, 0.25),
            Relation::Below => (0.5, 0.75),
        };
        self.relation = Some(relation);
        for (object, x, y) in [(first, x, y), (second, 1.0 - x, 1.0 - y)] {
            let radius = random.range(0.18, 0.22);
            self.objects.push(near(object, radius, x, y, 0.03, random));
        }
    }

    fn lay_counted(&mut self, object: Object, random: &mut Random) {
        let count = 1 + random.below(4);
        let radius = match count {
            1 => random.range(0.22, 0.34),
            2 => random.range(0.17, 0.20),
            3 => random.range(0.16, 0.195),
            _ => random.range(0.145, 0.185),
        };
        for (x, y) in spread(count, radius, random) {
            let copy = Object { rotation: turn_of(object.figure, random), ..object };
            self.objects.push(near(copy, radius, x, y, 0.0, random));
        }
    }
}

/// Centres of `count` objects (at most four) that do not touch.
fn spread(count: usize, radius: f32, random: &mut Random) -> Vec<(f32, f32)> {
    // The corners of two squares, each turned towards the other, do not reach this far.
    let apart = 2.4 * radius;
    let edge = radius * REACH + MARGIN;
    for _ in 0..24 {
        let centres: Vec<(f32, f32)> =
            (0..count).map(|_| (random.range(edge, 1.0 - edge), random.range(edge, 1.0 - edge))).collect();
        let clear = centres.iter().enumerate().all(|(i, a)| {
            centres.iter().skip(i + 1).all(|b| {
                let (dx, dy) = (a.0 - b.0, a.1 - b.1);
                dx * dx + dy * dy >= apart * apart
            })
        });
        if clear {
            return centres;
        }
    }
    // Chance failed: some of four places, the quarters or, where there is room, the sides.
    let mut places: [(f32, f32); 4] = if apart < 0.39 && random.chance(40) {
        [(0.5, 0.22), (0.22, 0.5), (0.78, 0.5), (0.5, 0.78)]
    } else {
        [(0.26, 0.26), (0.74, 0.26), (0.26, 0.74), (0.74, 0.74)]
    };
    for i in (1..places.len()).rev() {
        places.swap(i, random.below(i + 1));
    }
    let nearest = places.iter().skip(1).fold(1.0, |nearest: f32, place| {
        let (dx, dy) = (place.0 - places[0].0, place.1 - places[0].1);
        nearest.min((dx * dx + dy * dy).sqrt())
    });
    // Two neighbours may both move, each along both axes: 2 * sqrt(2) in all.
    let jitter = (nearest - apart).max(0.0) / 2.83;
    let nudged = places.map(|(x, y)| {
        let dx = random.range(-jitter, jitter);
        (x + dx, y + random.range(-jitter, jitter))
    });
    nudged.into_iter().take(count).collect()
}

/// A figure and a colour among the wanted combinations, the colour not `taken`.
fn choose(things: bool, held_out: bool, taken: Option<Colour>, random: &mut Random) -> (Figure, Colour) {
    let fits =
        |figure: Figure, colour: Colour| is_held_out(figure, colour) == held_out && Some(colour) != taken;
    let colours_of = |figure: Figure| -> Vec<Colour> {
        let colours = figure.colours().iter().copied();
        colours.filter(|&colour| fits(figure, colour)).collect()
    };
    let figures: Vec<Figure> =
        if things { Thing::ALL.map(Figure::Thing).to_vec() } else { Shape::ALL.map(Figure::Shape).to_vec() };
    let able: Vec<(Figure, Vec<Colour>)> = figures
        .into_iter()
        .map(|figure| (figure, colours_of(figure)))
        .filter(|(_, colours)| !colours.is_empty())
        .collect();
    // Both lists hold something for any arguments; a test draws thousands of each.
    let (figure, colours) = match able.get(random.below(able.len())) {
        Some((figure, colours)) => (*figure, colours.as_slice()),
        None => (Figure::Shape(Shape::Circle), Colour::ALL.as_slice()),
    };
    (figure, random.pick(colours).unwrap_or(Colour::Red))
}

/// An object not yet in its place.
fn loose(figure: Figure, colour: Colour, rgb: Rgb, random: &mut Random) -> Object {
    let mirrored = match figure {
        Figure::Shape(shape) => shape == Shape::Crescent && random.chance(25),
        Figure::Thing(thing) => !matches!(thing, Thing::Clock) && random.chance(50),
    };
    Object {
        figure,
        colour,
        rgb,
        x: 0.5,
        y: 0.5,
        radius: 0.2,
        rotation: turn_of(figure, random),
        stretch: random.range(0.96, 1.04),
        mirrored,
        outlined: random.chance(if colour == Colour::White { 70 } else { 25 }),
        detail: random.next(),
    }
}

/// How far a figure is turned: a little, so that a square does not become a diamond.
fn turn_of(figure: Figure, random: &mut Random) -> f32 {
    let little = |random: &mut Random, most: f32| random.range(-most, most);
    match figure {
        Figure::Shape(Shape::Arrow) => random.below(4) as f32 / 4.0 + little(random, 0.03),
        Figure::Shape(Shape::Star) => little(random, 0.05),
        Figure::Shape(Shape::Diamond) => little(random, 0.015),
        Figure::Shape(_) => little(random, 0.03),
        Figure::Thing(_) => little(random, 0.02),
    }
}

/// Puts `object` near a centre, whole inside the frame.
fn near(object: Object, radius: f32, x: f32, y: f32, jitter: f32, random: &mut Random) -> Object {
    let edge = (radius * REACH + MARGIN).min(0.5);
    let mut place = |centre: f32| (centre + random.range(-jitter, jitter)).clamp(edge, 1.0 - edge);
    Object { x: place(x), y: place(y), radius, ..object }
}

/// What is behind the objects.
struct Behind {
    backdrop: Backdrop,
    rgb: Rgb,
    texture: Texture,
    ground: Option<Ground>,
}

impl Behind {
    fn choose(kind: Kind, before: &[Option<(Figure, Rgb)>], random: &mut Random) -> Behind {
        const COMMON: [Backdrop; 14] = [
            Backdrop::White,
            Backdrop::White,
            Backdrop::White,
            Backdrop::White,
            Backdrop::Cream,
            Backdrop::SkyBlue,
            Backdrop::SkyBlue,
            Backdrop::Grey,
            Backdrop::Black,
            Backdrop::Navy,
            Backdrop::Mint,
            Backdrop::Lavender,
            Backdrop::Peach,
            Backdrop::Cream,
        ];
        let before = || before.iter().flatten().copied();
        let night_only = before().any(|(figure, _)| figure == Figure::Thing(Thing::Moon));
        let day_only = before().any(|(figure, _)| match figure {
            Figure::Thing(thing) => !fits_night(thing),
            Figure::Shape(_) => false,
        });
        let mut best = (Backdrop::White, [250; 3], 0);
        for attempt in 0..40 {
            let candidate = random.pick(&COMMON).unwrap_or(Backdrop::White);
            let rgb = backdrop(candidate, random);
            let dark = luma(rgb) < 90;
            let suits = (!dark || !day_only) && (dark || !night_only || attempt > 20);
            let clear = before().filter(|&(_, own)| contrasts(own, rgb)).count();
            let score = 2 * clear + usize::from(suits);
            if score > best.2 {
                best = (candidate, rgb, score);
            }
            if suits && clear == before().count() {
                break;
            }
        }
        let (backdrop, rgb, _) = best;
        let texture = match random.below(100) {
            0..55 => Texture::Plain,
            55..70 => Texture::Grain(random.next()),
            70..85 => Texture::Fade,
            85..94 => Texture::Stripes(4 + random.below(5) as u8, random.chance(50)),
            _ => Texture::Fields(4 + random.below(5) as u8),
        };
        let ground = match before().next() {
            Some((Figure::Thing(thing), own)) if kind == Kind::Composed && luma(rgb) > 90 => {
                ground_of(thing, random).filter(|ground| contrasts(own, ground.rgb()))
            }
            _ => None,
        };
        Behind { backdrop, rgb, texture, ground: ground.filter(|_| random.chance(45)) }
    }
}

fn fits_night(thing: Thing) -> bool {
    matches!(
        thing,
        Thing::Moon | Thing::Rocket | Thing::Snowman | Thing::Cloud | Thing::Smile | Thing::Balloon
    )
}

fn ground_of(thing: Thing, random: &mut Random) -> Option<Ground> {
    match thing {
        Thing::Tree | Thing::House | Thing::Mushroom | Thing::Flower | Thing::Dog => Some(Ground::Grass),
        Thing::Bird => Some(Ground::Grass),
        Thing::Car => random.pick(&[Ground::Road, Ground::Grass]),
        Thing::Boat => Some(Ground::Water),
        Thing::Snowman => Some(Ground::Snow),
        Thing::Ball | Thing::Umbrella => random.pick(&[Ground::Sand, Ground::Grass]),
        _ => None,
    }
}
