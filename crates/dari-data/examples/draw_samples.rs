//! Draws the project's pictures: `samples/*.png` and `docs/banner.png`.
//!
//! `cargo run --release --example draw_samples [ROOT]`, where ROOT is the folder that
//! holds both, by default the repository. The samples are scenes of a seed of their own, so that no
//! training set holds them.

use dari_data::scenes::{Colour, Facts, Figure, Kind, Position, Relation, Scene, SceneOptions, Shape, Thing};
use image::ImageEncoder;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use std::error::Error;
use std::path::{Path, PathBuf};
use tiny_skia::{Color, FillRule, LineCap, LineJoin, Paint, PathBuilder, Pixmap, Stroke, Transform};

/// Apart from every seed that recipes train on.
const SEED: u64 = 0x5a4d_504c_4553;
/// Pixels a side.
const SIDE: u32 = 256;
/// No sample is larger, which passes over grainy backdrops.
const MOST_BYTES: usize = 8 * 1024;

fn main() -> Result<(), Box<dyn Error>> {
    let root = match std::env::args_os().nth(1) {
        Some(root) => PathBuf::from(root),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."),
    };
    let samples = root.join("samples");
    std::fs::create_dir_all(&samples)?;
    for sample in samples_wanted() {
        std::fs::write(samples.join(format!("{}.png", sample.name)), sample.draw()?)?;
    }
    let docs = root.join("docs");
    std::fs::create_dir_all(&docs)?;
    std::fs::write(docs.join("banner.png"), banner()?)?;
    Ok(())
}

/// A picture to be found among the scenes of [`SEED`].
struct Sample {
    name: &'static str,
    kind: Kind,
    fits: Box<dyn Fn(&Facts) -> bool>,
    /// How many that fit are passed over.
    skip: usize,
}

impl Sample {
    fn draw(&self) -> Result<Vec<u8>, Box<dyn Error>> {
        let options = SceneOptions { kind: Some(self.kind), held_out: false };
        let mut fitting = (0..200_000)
            .map(|index| Scene::draw_with(SEED, index, &options))
            .filter(|scene| (self.fits)(&scene.facts()))
            .map(|scene| png(scene.render(SIDE).rgb(), SIDE, SIDE))
            .filter(|png| png.as_ref().map_or(true, |png| png.len() <= MOST_BYTES));
        fitting.nth(self.skip).ok_or_else(|| format!("no scene found for {}", self.name))?
    }
}

fn samples_wanted() -> Vec<Sample> {
    let thing = |name, thing, colour, skip| Sample {
        name,
        kind: Kind::Composed,
        fits: Box::new(move |facts| facts.thing == Some(thing) && facts.colour == Some(colour)),
        skip,
    };
    let counted = |name, figure, colour, count, skip| Sample {
        name,
        kind: Kind::Counted,
        fits: Box::new(move |facts| {
            let own = match figure {
                Figure::Shape(shape) => facts.shape == Some(shape),
                Figure::Thing(thing) => facts.thing == Some(thing),
            };
            own && facts.colour == Some(colour) && facts.count == Some(count)
        }),
        skip,
    };
    vec![
        thing("red-apple", Thing::Apple, Colour::Red, 5),
        thing("green-apple", Thing::Apple, Colour::Green, 3),
        thing("yellow-banana", Thing::Banana, Colour::Yellow, 0),
        thing("pink-ice-cream", Thing::IceCream, Colour::Pink, 5),
        thing("red-mushroom", Thing::Mushroom, Colour::Red, 2),
        thing("green-tree", Thing::Tree, Colour::Green, 6),
        thing("red-flower", Thing::Flower, Colour::Red, 2),
        thing("yellow-sun", Thing::Sun, Colour::Yellow, 2),
        thing("yellow-moon", Thing::Moon, Colour::Yellow, 3),
        thing("white-cloud", Thing::Cloud, Colour::White, 0),
        thing("orange-cat", Thing::Cat, Colour::Orange, 1),
        thing("brown-dog", Thing::Dog, Colour::Brown, 1),
        thing("blue-fish", Thing::Fish, Colour::Blue, 3),
        thing("white-snowman", Thing::Snowman, Colour::White, 6),
        thing("yellow-house", Thing::House, Colour::Yellow, 5),
        thing("blue-car", Thing::Car, Colour::Blue, 4),
        thing("yellow-boat", Thing::Boat, Colour::Yellow, 5),
        thing("red-balloon", Thing::Balloon, Colour::Red, 6),
        thing("purple-umbrella", Thing::Umbrella, Colour::Purple, 2),
        thing("green-book", Thing::Book, Colour::Green, 0),
        counted("three-blue-stars", Figure::Shape(Shape::Star), Colour::Blue, 3, 0),
        counted("two-red-hearts", Figure::Shape(Shape::Heart), Colour::Red, 2, 4),
        counted("four-orange-fish", Figure::Thing(Thing::Fish), Colour::Orange, 4, 6),
        Sample {
            name: "green-triangle-on-the-left",
            kind: Kind::Placed,
            fits: Box::new(|facts| {
                facts.shape == Some(Shape::Triangle)
                    && facts.colour == Some(Colour::Green)
                    && facts.position == Some(Position::Left)
            }),
            skip: 1,
        },
        Sample {
            name: "red-star-above-blue-circle",
            kind: Kind::Related,
            fits: Box::new(|facts| {
                let star = (Figure::Shape(Shape::Star), Colour::Red);
                let circle = (Figure::Shape(Shape::Circle), Colour::Blue);
                facts.related == Some([star, circle]) && facts.relation == Some(Relation::Above)
            }),
            skip: 0,
        },
    ]
}

fn png(rgb: &[u8], width: u32, height: u32) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut bytes = Vec::new();
    PngEncoder::new_with_quality(&mut bytes, CompressionType::Best, FilterType::Adaptive).write_image(
        rgb,
        width,
        height,
        image::ExtendedColorType::Rgb8,
    )?;
    Ok(bytes)
}

type Rgb = [u8; 3];

const SKY: Rgb = [226, 240, 250];
const RIVER: Rgb = [104, 172, 216];
const RIPPLE: Rgb = [140, 196, 230];
const BANK: Rgb = [142, 194, 104];
const BRIDGE: Rgb = [206, 72, 56];
const INK: Rgb = [52, 56, 72];
const PAPER: Rgb = [255, 255, 255];

/// Encoder, bridge, language model: a picture on one bank, words on the other, and what the picture
/// is made of crossing over.
fn banner() -> Result<Vec<u8>, Box<dyn Error>> {
    let mut board = Board(Pixmap::new(960, 240).ok_or("no memory for the banner")?);
    board.0.fill(opaque(SKY));
    for (x, y) in [(330.0, 40.0), (560.0, 28.0), (660.0, 62.0)] {
        for (dx, dy, r) in [(-20.0, 4.0, 12.0), (0.0, -4.0, 17.0), (22.0, 4.0, 13.0)] {
            board.fill(PAPER, |p| p.push_circle(x + dx, y + dy, r));
        }
    }
    board.round_rect(RIVER, 0.0, 186.0, 960.0, 80.0, 0.0);
    for (x, y) in [(300.0, 212.0), (430.0, 226.0), (480.0, 204.0), (560.0, 222.0), (650.0, 208.0)] {
        board.stroke(RIPPLE, 4.0, |p| {
            p.move_to(x, y);
            p.quad_to(x + 12.0, y - 7.0, x + 24.0, y);
            p.quad_to(x + 36.0, y + 7.0, x + 48.0, y);
        });
    }
    suspension_bridge(&mut board);
    for right in [false, true] {
        let at = |x: f32| if right { 960.0 - x } else { x };
        board.fill(BANK, |p| {
            p.move_to(at(0.0), 240.0);
            p.line_to(at(0.0), 168.0);
            p.line_to(at(236.0), 168.0);
            p.cubic_to(at(262.0), 176.0, at(262.0), 210.0, at(292.0), 240.0);
        });
    }
    picture(&mut board)?;
    words(&mut board);
    let rgb: Vec<u8> = board.0.pixels().iter().flat_map(|p| [p.red(), p.green(), p.blue()]).collect();
    png(&rgb, 960, 240)
}

fn suspension_bridge(board: &mut Board) {
    let (left, right, deck) = (352.0, 608.0, 168.0);
    // Cables: from bank to tower, tower to tower, tower to bank; hangers below them.
    let low = 148.0;
    let top = 62.0;
    let cable = |x: f32| {
        let middle = (left + right) / 2.0;
        let half = (right - left) / 2.0;
        if (left..=right).contains(&x) {
            let part = (x - middle) / half;
            low - (low - top) * part * part
        } else {
            let out = if x < left { left - x } else { x - right };
            let part = 1.0 - out / 128.0;
            deck - (deck - top) * part * part
        }
    };
    for step in 0..=32_u8 {
        let x = 224.0 + 16.0 * f32::from(step);
        board.line(BRIDGE, 1.6, &[(x, cable(x)), (x, deck)]);
    }
    board.stroke(BRIDGE, 4.5, |p| {
        for step in 0..=128_u8 {
            let x = 224.0 + 4.0 * f32::from(step);
            if p.is_empty() {
                p.move_to(x, cable(x));
            } else {
                p.line_to(x, cable(x));
            }
        }
    });
    for x in [left, right] {
        board.round_rect(BRIDGE, x - 8.0, top - 8.0, 16.0, 190.0, 3.0);
        board.round_rect([172, 54, 44], x - 14.0, 206.0, 28.0, 40.0, 3.0);
    }
    board.round_rect([172, 54, 44], 200.0, deck, 560.0, 9.0, 3.0);
    // The embeddings on their way.
    let colours: [Rgb; 7] = [
        [226, 58, 62],
        [246, 150, 50],
        [250, 206, 60],
        [86, 172, 90],
        [84, 168, 226],
        [60, 98, 200],
        [146, 86, 176],
    ];
    for (i, rgb) in (0_u8..).zip(colours) {
        let x = 268.0 + 66.0 * f32::from(i);
        board.round_rect(INK, x - 1.5, deck - 23.5, 23.0, 23.0, 6.0);
        board.round_rect(rgb, x, deck - 22.0, 20.0, 20.0, 5.0);
    }
}

/// The picture on the left bank, framed.
fn picture(board: &mut Board) -> Result<(), Box<dyn Error>> {
    let options = SceneOptions { kind: Some(Kind::Composed), held_out: false };
    let side = 124_u32;
    let apple = (0..200_000)
        .map(|index| Scene::draw_with(SEED, index, &options))
        .find(|scene| {
            let facts = scene.facts();
            facts.thing == Some(Thing::Apple)
                && facts.colour == Some(Colour::Red)
                && facts.backdrop == dari_data::scenes::Backdrop::Cream
        })
        .ok_or("no apple found")?
        .render(side);
    let (x, y) = (62_u32, 30_u32);
    let wood = [138, 92, 56];
    for foot in [92.0, 156.0] {
        board.line(wood, 8.0, &[(foot, 150.0), (foot, 180.0)]);
    }
    board.round_rect(wood, x as f32 - 9.0, y as f32 - 9.0, 142.0, 142.0, 6.0);
    let width = board.0.width();
    let pixels = board.0.pixels_mut();
    for (i, rgb) in (0..).zip(apple.rgb().chunks_exact(3)) {
        let at = (y + i / side) * width + x + i % side;
        if let (Some(pixel), [red, green, blue]) = (pixels.get_mut(at as usize), rgb) {
            *pixel = opaque([*red, *green, *blue]).premultiply().to_color_u8();
        }
    }
    Ok(())
}

/// The words on the right bank: "빨간 사과" and "red apple" in a bubble, written by strokes.
fn words(board: &mut Board) {
    board.fill(PAPER, |p| {
        p.move_to(752.0, 120.0);
        p.line_to(738.0, 164.0);
        p.line_to(796.0, 130.0);
    });
    board.round_rect(PAPER, 728.0, 22.0, 208.0, 116.0, 24.0);
    // Each syllable's strokes in a square of side 1.
    let syllables: [&[&[(f32, f32)]]; 4] = [
        &[
            &[(0.04, 0.02), (0.04, 0.46), (0.25, 0.46), (0.25, 0.02)],
            &[(0.04, 0.23), (0.25, 0.23)],
            &[(0.38, 0.02), (0.38, 0.46), (0.59, 0.46), (0.59, 0.02)],
            &[(0.38, 0.23), (0.59, 0.23)],
            &[(0.80, 0.0), (0.80, 0.52)],
            &[(0.80, 0.25), (0.97, 0.25)],
            &[(0.2, 0.63), (0.8, 0.63), (0.8, 0.81), (0.2, 0.81), (0.2, 0.99), (0.83, 0.99)],
        ],
        &[
            &[(0.06, 0.08), (0.52, 0.08), (0.46, 0.3), (0.3, 0.46), (0.08, 0.56)],
            &[(0.78, 0.0), (0.78, 0.66)],
            &[(0.78, 0.31), (0.97, 0.31)],
            &[(0.22, 0.68), (0.22, 0.96), (0.84, 0.96)],
        ],
        &[
            &[(0.31, 0.1), (0.27, 0.4), (0.02, 0.82)],
            &[(0.28, 0.42), (0.56, 0.82)],
            &[(0.76, 0.0), (0.76, 1.0)],
            &[(0.76, 0.46), (0.96, 0.46)],
        ],
        &[
            &[(0.06, 0.1), (0.54, 0.1), (0.5, 0.46)],
            &[(0.28, 0.4), (0.28, 0.76)],
            &[(0.0, 0.8), (0.62, 0.73)],
            &[(0.78, 0.0), (0.78, 1.0)],
            &[(0.78, 0.46), (0.98, 0.46)],
        ],
    ];
    let (size, top) = (36.0, 40.0);
    for (strokes, x) in syllables.into_iter().zip([748.0, 790.0, 846.0, 888.0]) {
        for stroke in strokes {
            let points: Vec<_> = stroke.iter().map(|(u, v)| (x + u * size, top + v * size)).collect();
            board.line(INK, 4.4, &points);
        }
    }
    let mut x = 766.0;
    for letter in "red apple".chars() {
        x += board.letter(letter, x, 112.0);
    }
}

struct Board(Pixmap);

impl Board {
    fn fill(&mut self, rgb: Rgb, build: impl FnOnce(&mut PathBuilder)) {
        let mut builder = PathBuilder::new();
        build(&mut builder);
        if let Some(path) = builder.finish() {
            let transform = Transform::identity();
            self.0.fill_path(&path, &paint(rgb), FillRule::Winding, transform, None);
        }
    }

    fn stroke(&mut self, rgb: Rgb, width: f32, build: impl FnOnce(&mut PathBuilder)) {
        let mut builder = PathBuilder::new();
        build(&mut builder);
        if let Some(path) = builder.finish() {
            let stroke =
                Stroke { width, line_cap: LineCap::Round, line_join: LineJoin::Round, ..Stroke::default() };
            let transform = Transform::identity();
            self.0.stroke_path(&path, &paint(rgb), &stroke, transform, None);
        }
    }

    fn line(&mut self, rgb: Rgb, width: f32, points: &[(f32, f32)]) {
        self.stroke(rgb, width, |p| {
            for (i, &(x, y)) in points.iter().enumerate() {
                if i == 0 {
                    p.move_to(x, y);
                } else {
                    p.line_to(x, y);
                }
            }
        });
    }

    fn round_rect(&mut self, rgb: Rgb, x: f32, y: f32, width: f32, height: f32, r: f32) {
        let (right, bottom, k) = (x + width, y + height, r * 0.448);
        self.fill(rgb, |p| {
            p.move_to(x + r, y);
            p.line_to(right - r, y);
            p.cubic_to(right - k, y, right, y + k, right, y + r);
            p.line_to(right, bottom - r);
            p.cubic_to(right, bottom - k, right - k, bottom, right - r, bottom);
            p.line_to(x + r, bottom);
            p.cubic_to(x + k, bottom, x, bottom - k, x, bottom - r);
            p.line_to(x, y + r);
            p.cubic_to(x, y + k, x + k, y, x + r, y);
        });
    }

    /// Writes a small letter at `x` around the middle line `y`; gives how far the next one is.
    fn letter(&mut self, letter: char, x: f32, y: f32) -> f32 {
        let (r, width) = (7.0, 2.8);
        let round = |p: &mut PathBuilder| p.push_circle(x + r, y, r);
        match letter {
            'a' | 'd' | 'p' => {
                self.stroke(INK, width, round);
                let (top, bottom, side) = match letter {
                    'a' => (y - r, y + r, x + 2.0 * r),
                    'd' => (y - 2.4 * r, y + r, x + 2.0 * r),
                    _ => (y - r, y + 2.4 * r, x),
                };
                self.line(INK, width, &[(side, top), (side, bottom)]);
                2.0 * r + 6.5
            }
            'e' => {
                self.stroke(INK, width, |p| {
                    // Round from the bar's right end over the top to the opening below.
                    let k = 0.5523 * r;
                    p.move_to(x, y);
                    p.line_to(x + 2.0 * r, y);
                    p.cubic_to(x + 2.0 * r, y - k, x + r + k, y - r, x + r, y - r);
                    p.cubic_to(x + r - k, y - r, x, y - k, x, y);
                    p.cubic_to(x, y + k, x + r - k, y + r, x + r, y + r);
                    p.quad_to(x + 1.6 * r, y + r, x + 1.85 * r, y + 0.6 * r);
                });
                2.0 * r + 5.5
            }
            'r' => {
                self.stroke(INK, width, |p| {
                    p.move_to(x, y + r);
                    p.line_to(x, y - r);
                    p.move_to(x, y - 0.2 * r);
                    p.quad_to(x + 0.3 * r, y - r, x + 1.1 * r, y - r);
                });
                1.1 * r + 5.0
            }
            'l' => {
                self.line(INK, width, &[(x, y - 2.4 * r), (x, y + r)]);
                6.5
            }
            _ => 8.0,
        }
    }
}

fn opaque([red, green, blue]: Rgb) -> Color {
    Color::from_rgba8(red, green, blue, 255)
}

fn paint(rgb: Rgb) -> Paint<'static> {
    let mut paint = Paint::default();
    paint.set_color(opaque(rgb));
    paint.anti_alias = true;
    paint
}
