//! The plain shapes.

use super::draw::{Canvas, arc, corners, ellipse, polygon};
use super::palette::Rgb;
use super::words::Shape;
use tiny_skia::PathBuilder;

/// Paints `shape` in `rgb`, with a line around it where `outline` is a colour.
pub(super) fn paint(shape: Shape, rgb: Rgb, outline: Option<Rgb>, canvas: &mut Canvas) {
    canvas.fill_between(rgb, |p| trace(shape, p));
    if let Some(outline) = outline {
        canvas.stroke(outline, 0.09, |p| trace(shape, p));
    }
}

fn trace(shape: Shape, p: &mut PathBuilder) {
    match shape {
        Shape::Circle => ellipse(p, 0.0, 0.0, 0.95, 0.95, 0.0),
        Shape::Square => polygon(p, &[(-0.82, -0.82), (0.82, -0.82), (0.82, 0.82), (-0.82, 0.82)]),
        Shape::Triangle => polygon(p, &[(0.0, -0.9), (0.98, 0.8), (-0.98, 0.8)]),
        Shape::Star => polygon(p, &corners(5, 1.02, Some(0.42))),
        Shape::Heart => {
            p.move_to(0.0, 0.95);
            p.cubic_to(-0.45, 0.55, -1.0, 0.2, -1.0, -0.35);
            p.cubic_to(-1.0, -0.95, -0.25, -1.05, 0.0, -0.48);
            p.cubic_to(0.25, -1.05, 1.0, -0.95, 1.0, -0.35);
            p.cubic_to(1.0, 0.2, 0.45, 0.55, 0.0, 0.95);
            p.close();
        }
        Shape::Diamond => polygon(p, &[(0.0, -1.0), (0.66, 0.0), (0.0, 1.0), (-0.66, 0.0)]),
        Shape::Cross => {
            let (a, b) = (0.29, 0.95);
            polygon(
                p,
                &[
                    (-a, -b),
                    (a, -b),
                    (a, -a),
                    (b, -a),
                    (b, a),
                    (a, a),
                    (a, b),
                    (-a, b),
                    (-a, a),
                    (-b, a),
                    (-b, -a),
                    (-a, -a),
                ],
            );
        }
        Shape::Crescent => {
            // The outer circle with a smaller one, to the right, cut out: they meet at x = 0.36.
            arc(p, 0.0, 0.0, 0.96, 0.1886, 0.8114);
            arc(p, 0.5, 0.0, 0.9, 0.7252, 0.2748);
            p.close();
        }
        Shape::Ring => {
            ellipse(p, 0.0, 0.0, 0.95, 0.95, 0.0);
            ellipse(p, 0.0, 0.0, 0.52, 0.52, 0.0);
        }
        Shape::Arrow => polygon(
            p,
            &[
                (1.0, 0.0),
                (0.15, -0.78),
                (0.15, -0.28),
                (-0.95, -0.28),
                (-0.95, 0.28),
                (0.15, 0.28),
                (0.15, 0.78),
            ],
        ),
        Shape::Pentagon => polygon(p, &corners(5, 1.0, None)),
        Shape::Hexagon => polygon(p, &corners(6, 0.98, None)),
    }
}
