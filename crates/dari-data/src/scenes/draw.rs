//! From a scene to pixels.

use super::palette::{Rgb, darker, lighter, luma};
use super::random::{Random, direction, mix};
use super::words::Figure;
use super::{Ground, Object, Scene, Texture, nature, objects, shapes};
use crate::image::Picture;
use tiny_skia::{Color, FillRule, LineCap, LineJoin, Paint, Path, PathBuilder, Pixmap, Stroke, Transform};

/// The largest side that [`Scene::render`] draws, in pixels.
const MAX_SIDE: u32 = 4096;

/// Ink of eyes, wheels and the like.
pub(super) const INK: Rgb = [44, 44, 52];
/// Paper of clock faces and pages.
pub(super) const PAPER: Rgb = [252, 251, 247];
/// Wood of trunks and stems.
pub(super) const WOOD: Rgb = [116, 76, 46];
/// Green of stalks and leaves.
pub(super) const STALK: Rgb = [74, 142, 66];

impl Scene {
    /// Draws the scene as a square of `size` pixels a side, 1 to 4096; what lies outside is taken
    /// as the nearest of these.
    #[must_use]
    pub fn render(&self, size: u32) -> Picture {
        let size = size.clamp(1, MAX_SIDE);
        let mut rgb = Vec::with_capacity(size as usize * size as usize * 3);
        if let Some(mut pixmap) = Pixmap::new(size, size) {
            paint_backdrop(self, &mut pixmap);
            if let Some(ground) = self.ground {
                paint_ground(ground, &mut pixmap);
            }
            for object in &self.objects {
                paint_object(object, &mut pixmap);
            }
            for pixel in pixmap.pixels() {
                // The backdrop is opaque, so nothing is left to divide out.
                rgb.extend([pixel.red(), pixel.green(), pixel.blue()]);
            }
        }
        Picture::from_rgb(size, size, rgb).expect("a square of 1 to 4096 pixels a side, filled")
    }
}

/// The backdrop, worked pixel by pixel in whole numbers.
fn paint_backdrop(scene: &Scene, pixmap: &mut Pixmap) {
    let side = u64::from(pixmap.width());
    let base = scene.backdrop_rgb;
    // Dark backdrops are worked with lighter strokes, light ones with darker.
    let sign: i32 = if luma(base) < 90 { 1 } else { -1 };
    let shade_at = |x: u64, y: u64| -> i32 {
        match scene.texture {
            Texture::Plain => 0,
            Texture::Grain(key) => (mix(key ^ (y << 32 | x)) % 17) as i32 - 8,
            Texture::Fade => sign * (18 * y / side) as i32,
            Texture::Stripes(count, slanted) => {
                let across = if slanted { x + y } else { x };
                sign * (2 * u64::from(count) * across / side % 2 * 9) as i32
            }
            Texture::Fields(count) => {
                let count = u64::from(count);
                sign * ((count * x / side + count * y / side) % 2 * 8) as i32
            }
        }
    };
    for (i, pixel) in (0..).zip(pixmap.pixels_mut()) {
        let shade = shade_at(i % side, i / side);
        let [red, green, blue] = base.map(|c| (i32::from(c) + shade).clamp(0, 255) as u8);
        *pixel = Color::from_rgba8(red, green, blue, 255).premultiply().to_color_u8();
    }
}

impl Ground {
    pub(super) fn rgb(self) -> Rgb {
        match self {
            Ground::Grass => [134, 190, 92],
            Ground::Sand => [232, 206, 150],
            Ground::Water => [84, 158, 208],
            Ground::Snow => [232, 240, 248],
            Ground::Road => [128, 130, 136],
        }
    }
}

fn paint_ground(ground: Ground, pixmap: &mut Pixmap) {
    let side = pixmap.width() as f32;
    let mut canvas = Canvas::new(pixmap, Transform::from_scale(side, side), side);
    let rgb = ground.rgb();
    match ground {
        Ground::Road => canvas.rect(rgb, -0.1, 0.78, 1.1, 1.1),
        Ground::Water => canvas.fill(rgb, |p| {
            p.move_to(-0.1, 1.1);
            p.line_to(-0.1, 0.8);
            for i in 0..6 {
                let x = i as f32 * 0.2 - 0.1;
                p.quad_to(x + 0.1, 0.73, x + 0.2, 0.8);
            }
            p.line_to(1.1, 1.1);
        }),
        Ground::Grass | Ground::Sand | Ground::Snow => canvas.fill(rgb, |p| {
            p.move_to(-0.1, 1.1);
            p.line_to(-0.1, 0.82);
            p.quad_to(0.5, 0.74, 1.1, 0.82);
            p.line_to(1.1, 1.1);
        }),
    }
}

fn paint_object(object: &Object, pixmap: &mut Pixmap) {
    let side = pixmap.width() as f32;
    let (cosine, sine) = direction(object.rotation);
    let scale = object.radius * side;
    let flip = if object.mirrored { -1.0 } else { 1.0 };
    let (sx, sy) = (scale * flip * object.stretch.min(1.0), scale / object.stretch.max(1.0));
    let transform = Transform::from_row(
        cosine * sx,
        sine * sx,
        -sine * sy,
        cosine * sy,
        object.x * side,
        object.y * side,
    );
    let mut canvas = Canvas::new(pixmap, transform, scale);
    let rgb = object.rgb;
    match object.figure {
        Figure::Shape(shape) => {
            let outline =
                object.outlined.then(|| if luma(rgb) < 70 { lighter(rgb, 0.35) } else { darker(rgb, 0.35) });
            shapes::paint(shape, rgb, outline, &mut canvas);
        }
        Figure::Thing(thing) => {
            let mut random = Random::keyed(&[object.detail]);
            let random = &mut random;
            if !nature::paint(thing, rgb, random, &mut canvas) {
                objects::paint(thing, rgb, random, &mut canvas);
            }
        }
    }
}

/// A surface on which a figure is drawn in its own coordinates: the square from (-1, -1) to (1, 1),
/// y downwards.
pub(super) struct Canvas<'a> {
    pixmap: &'a mut Pixmap,
    transform: Transform,
    /// Pixels to a unit.
    scale: f32,
}

impl<'a> Canvas<'a> {
    pub(super) fn new(pixmap: &'a mut Pixmap, transform: Transform, scale: f32) -> Canvas<'a> {
        Canvas { pixmap, transform, scale }
    }

    /// The path in pixels: curves are flattened with a tolerance in the path's own units, so the
    /// scale must be in the points.
    fn path(&self, build: impl FnOnce(&mut PathBuilder)) -> Option<Path> {
        let mut builder = PathBuilder::new();
        build(&mut builder);
        builder.finish()?.transform(self.transform)
    }

    fn fill_by(&mut self, rgb: Rgb, rule: FillRule, build: impl FnOnce(&mut PathBuilder)) {
        if let Some(path) = self.path(build) {
            let transform = Transform::identity();
            self.pixmap.fill_path(&path, &paint(rgb), rule, transform, None);
        }
    }

    /// Fills what the path encloses.
    pub(super) fn fill(&mut self, rgb: Rgb, build: impl FnOnce(&mut PathBuilder)) {
        self.fill_by(rgb, FillRule::Winding, build);
    }

    /// Fills what the path encloses an odd number of times, so that a path within is a hole.
    pub(super) fn fill_between(&mut self, rgb: Rgb, build: impl FnOnce(&mut PathBuilder)) {
        self.fill_by(rgb, FillRule::EvenOdd, build);
    }

    /// Draws along the path with round ends, never thinner than nine tenths of a pixel.
    pub(super) fn stroke(&mut self, rgb: Rgb, width: f32, build: impl FnOnce(&mut PathBuilder)) {
        let stroke = Stroke {
            width: (width * self.scale).max(0.9),
            line_cap: LineCap::Round,
            line_join: LineJoin::Round,
            ..Stroke::default()
        };
        if let Some(path) = self.path(build) {
            let transform = Transform::identity();
            self.pixmap.stroke_path(&path, &paint(rgb), &stroke, transform, None);
        }
    }

    pub(super) fn circle(&mut self, rgb: Rgb, x: f32, y: f32, radius: f32) {
        self.ellipse(rgb, x, y, radius, radius, 0.0);
    }

    /// An ellipse of two radii, turned clockwise by `turns`.
    pub(super) fn ellipse(&mut self, rgb: Rgb, x: f32, y: f32, rx: f32, ry: f32, turns: f32) {
        self.fill(rgb, |p| ellipse(p, x, y, rx, ry, turns));
    }

    pub(super) fn polygon(&mut self, rgb: Rgb, points: &[(f32, f32)]) {
        self.fill(rgb, |p| polygon(p, points));
    }

    /// A rectangle by its left, top, right and bottom.
    pub(super) fn rect(&mut self, rgb: Rgb, x0: f32, y0: f32, x1: f32, y1: f32) {
        self.polygon(rgb, &[(x0, y0), (x1, y0), (x1, y1), (x0, y1)]);
    }

    /// A rectangle with round corners, by its left, top, right and bottom.
    pub(super) fn round_rect(&mut self, rgb: Rgb, [x0, y0, x1, y1]: [f32; 4], r: f32) {
        let k = r * 0.448;
        self.fill(rgb, |p| {
            p.move_to(x0 + r, y0);
            p.line_to(x1 - r, y0);
            p.cubic_to(x1 - k, y0, x1, y0 + k, x1, y0 + r);
            p.line_to(x1, y1 - r);
            p.cubic_to(x1, y1 - k, x1 - k, y1, x1 - r, y1);
            p.line_to(x0 + r, y1);
            p.cubic_to(x0 + k, y1, x0, y1 - k, x0, y1 - r);
            p.line_to(x0, y0 + r);
            p.cubic_to(x0, y0 + k, x0 + k, y0, x0 + r, y0);
        });
    }

    pub(super) fn line(&mut self, rgb: Rgb, width: f32, points: &[(f32, f32)]) {
        self.stroke(rgb, width, |p| line(p, points));
    }
}

fn paint(rgb: Rgb) -> Paint<'static> {
    let mut paint = Paint::default();
    let [red, green, blue] = rgb;
    paint.set_color_rgba8(red, green, blue, 255);
    paint.anti_alias = true;
    paint
}

/// A line through `points`.
pub(super) fn line(p: &mut PathBuilder, points: &[(f32, f32)]) {
    for (i, &(x, y)) in points.iter().enumerate() {
        if i == 0 {
            p.move_to(x, y);
        } else {
            p.line_to(x, y);
        }
    }
}

/// A closed line through `points`.
pub(super) fn polygon(p: &mut PathBuilder, points: &[(f32, f32)]) {
    line(p, points);
    p.close();
}

/// An ellipse as four cubic curves.
pub(super) fn ellipse(p: &mut PathBuilder, x: f32, y: f32, rx: f32, ry: f32, turns: f32) {
    let (cosine, sine) = direction(turns);
    let at = |u: f32, v: f32| {
        let (u, v) = (u * rx, v * ry);
        (x + u * cosine - v * sine, y + u * sine + v * cosine)
    };
    // 4/3 tan(π/8), the handle's length for a quarter of a circle.
    const K: f32 = 0.552_284_8;
    let start = at(1.0, 0.0);
    p.move_to(start.0, start.1);
    for (u, v) in [(1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0)] {
        // The quarter from (u, v) to (-v, u).
        let a = at(u - K * v, v + K * u);
        let b = at(-v + K * u, u + K * v);
        let end = at(-v, u);
        p.cubic_to(a.0, a.1, b.0, b.1, end.0, end.1);
    }
    p.close();
}

/// Goes on along a circle, from one angle to another, in turns clockwise from the right.
pub(super) fn arc(p: &mut PathBuilder, x: f32, y: f32, radius: f32, from: f32, to: f32) {
    const STEPS: u8 = 24;
    for step in 0..=STEPS {
        let part = f32::from(step) / f32::from(STEPS);
        let (cosine, sine) = direction(from + (to - from) * part);
        let (x, y) = (x + cosine * radius, y + sine * radius);
        if p.is_empty() {
            p.move_to(x, y);
        } else {
            p.line_to(x, y);
        }
    }
}

/// The corners of a regular polygon, the first at the top; every second at `inner` of the radius.
pub(super) fn corners(count: u8, radius: f32, inner: Option<f32>) -> Vec<(f32, f32)> {
    let steps = count * if inner.is_some() { 2 } else { 1 };
    (0..steps)
        .map(|step| {
            let (cosine, sine) = direction(f32::from(step) / f32::from(steps) - 0.25);
            let radius = match inner {
                Some(inner) if step % 2 == 1 => radius * inner,
                _ => radius,
            };
            (cosine * radius, sine * radius)
        })
        .collect()
}
