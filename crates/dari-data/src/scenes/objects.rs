//! Things that people make.

use super::draw::{Canvas, INK, PAPER, arc, ellipse};
use super::palette::{Rgb, contrasts, darker, lighter, luma};
use super::random::{Random, direction};
use super::words::Thing;
use tiny_skia::PathBuilder;

const GLASS: Rgb = [206, 232, 246];
const STEEL: Rgb = [150, 154, 164];

/// Paints `thing` mainly in `rgb`; nothing when it is none of this file.
pub(super) fn paint(thing: Thing, rgb: Rgb, random: &mut Random, c: &mut Canvas) {
    match thing {
        Thing::House => house(rgb, random, c),
        Thing::Car => car(rgb, c),
        Thing::Boat => boat(rgb, random, c),
        Thing::Rocket => rocket(rgb, c),
        Thing::Balloon => balloon(rgb, c),
        Thing::Ball => ball(rgb, random, c),
        Thing::Umbrella => umbrella(rgb, c),
        Thing::Cup => cup(rgb, random, c),
        Thing::Key => key(rgb, random, c),
        Thing::Book => book(rgb, c),
        Thing::Clock => clock(rgb, random, c),
        Thing::Pencil => pencil(rgb, c),
        Thing::Gift => gift(rgb, c),
        Thing::Hat => hat(rgb, random, c),
        Thing::Shirt => shirt(rgb, random, c),
        _ => {}
    }
}

/// A shade beside `rgb` that shows on it.
fn beside(rgb: Rgb, by: f32) -> Rgb {
    if luma(rgb) < 70 { lighter(rgb, by) } else { darker(rgb, by) }
}

fn house(rgb: Rgb, random: &mut Random, c: &mut Canvas) {
    let roof = if luma(rgb) < 110 { [92, 88, 96] } else { darker(rgb, 0.45) };
    if random.chance(60) {
        c.rect(darker(roof, 0.2), 0.4, -0.82, 0.62, -0.3);
    }
    c.rect(rgb, -0.76, -0.2, 0.76, 0.98);
    c.polygon(roof, &[(0.0, -1.0), (0.98, -0.14), (-0.98, -0.14)]);
    let door = if contrasts(rgb, [112, 74, 48]) { [112, 74, 48] } else { [238, 216, 176] };
    if random.chance(50) {
        c.rect(door, -0.18, 0.38, 0.18, 0.98);
        for x in [-0.48, 0.48] {
            window(x, 0.18, c);
        }
    } else {
        c.rect(door, 0.14, 0.3, 0.5, 0.98);
        c.circle(PAPER, 0.22, 0.66, 0.05);
        window(-0.34, 0.3, c);
    }
}

fn window(x: f32, y: f32, c: &mut Canvas) {
    c.rect(PAPER, x - 0.2, y - 0.2, x + 0.2, y + 0.2);
    c.rect([120, 176, 216], x - 0.14, y - 0.14, x + 0.14, y + 0.14);
}

fn car(rgb: Rgb, c: &mut Canvas) {
    c.fill(rgb, |p| {
        p.move_to(-0.62, -0.04);
        p.cubic_to(-0.5, -0.62, -0.3, -0.62, -0.1, -0.62);
        p.line_to(0.16, -0.62);
        p.cubic_to(0.36, -0.62, 0.46, -0.4, 0.62, -0.04);
    });
    c.round_rect(rgb, [-0.98, -0.12, 0.98, 0.46], 0.2);
    let edge = beside(rgb, 0.3);
    c.polygon(GLASS, &[(-0.46, -0.1), (-0.32, -0.46), (-0.04, -0.46), (-0.04, -0.1)]);
    c.polygon(GLASS, &[(0.06, -0.46), (0.2, -0.46), (0.44, -0.1), (0.06, -0.1)]);
    c.line(edge, 0.05, &[(-0.9, 0.34), (0.9, 0.34)]);
    c.circle([252, 226, 120], 0.88, 0.08, 0.1);
    for x in [-0.54, 0.54] {
        c.circle(INK, x, 0.46, 0.27);
        c.circle([196, 198, 204], x, 0.46, 0.12);
    }
}

fn boat(rgb: Rgb, random: &mut Random, c: &mut Canvas) {
    let sail = if luma(rgb) > 225 { darker(rgb, 0.1) } else { lighter(rgb, 0.72) };
    c.line([112, 78, 50], 0.09, &[(-0.05, -0.94), (-0.05, 0.35)]);
    c.polygon(sail, &[(0.06, -0.9), (0.78, 0.16), (0.06, 0.16)]);
    if random.chance(65) {
        c.polygon(rgb, &[(-0.16, -0.72), (-0.16, 0.16), (-0.7, 0.16)]);
    }
    c.fill(rgb, |p| {
        p.move_to(-0.98, 0.28);
        p.line_to(0.98, 0.28);
        p.cubic_to(0.9, 0.66, 0.7, 0.86, 0.5, 0.9);
        p.line_to(-0.5, 0.9);
        p.cubic_to(-0.7, 0.86, -0.9, 0.66, -0.98, 0.28);
    });
    c.line(darker(rgb, 0.25), 0.07, &[(-0.88, 0.42), (0.88, 0.42)]);
}

fn rocket(rgb: Rgb, c: &mut Canvas) {
    c.polygon([248, 160, 40], &[(-0.24, 0.62), (0.24, 0.62), (0.0, 1.02)]);
    c.polygon([252, 220, 90], &[(-0.12, 0.62), (0.12, 0.62), (0.0, 0.84)]);
    let fin = darker(rgb, 0.38);
    for side in [-1.0, 1.0] {
        c.polygon(fin, &[(side * 0.3, 0.1), (side * 0.68, 0.74), (side * 0.26, 0.62)]);
    }
    c.fill(rgb, |p| {
        p.move_to(0.0, -1.0);
        p.cubic_to(0.5, -0.55, 0.46, 0.2, 0.26, 0.66);
        p.line_to(-0.26, 0.66);
        p.cubic_to(-0.46, 0.2, -0.5, -0.55, 0.0, -1.0);
    });
    c.circle(fin, 0.0, -0.22, 0.21);
    c.circle(GLASS, 0.0, -0.22, 0.14);
    c.line(fin, 0.06, &[(-0.28, 0.44), (0.28, 0.44)]);
}

fn balloon(rgb: Rgb, c: &mut Canvas) {
    c.stroke([120, 120, 128], 0.05, |p| {
        p.move_to(0.0, 0.5);
        p.cubic_to(0.22, 0.65, -0.2, 0.78, 0.03, 0.98);
    });
    c.polygon(darker(rgb, 0.2), &[(0.0, 0.38), (0.15, 0.58), (-0.15, 0.58)]);
    c.fill(rgb, |p| {
        p.move_to(0.0, 0.48);
        p.cubic_to(-0.4, 0.36, -0.68, 0.0, -0.68, -0.32);
        p.cubic_to(-0.68, -1.22, 0.68, -1.22, 0.68, -0.32);
        p.cubic_to(0.68, 0.0, 0.4, 0.36, 0.0, 0.48);
    });
    c.ellipse(lighter(rgb, 0.55), -0.3, -0.56, 0.12, 0.21, 0.08);
}

fn ball(rgb: Rgb, random: &mut Random, c: &mut Canvas) {
    c.circle(darker(rgb, 0.25), 0.0, 0.0, 0.95);
    c.circle(rgb, 0.0, 0.0, 0.9);
    let pale = if contrasts(rgb, PAPER) { PAPER } else { darker(rgb, 0.4) };
    if random.chance(60) {
        // Wedges of a beach ball, from a pole a little off the middle.
        for from in [0.02, 0.36, 0.7] {
            c.fill(pale, |p| {
                p.move_to(0.12, -0.18);
                let (cosine, sine) = direction(from);
                p.line_to(cosine * 0.9, sine * 0.9);
                arc(p, 0.0, 0.0, 0.9, from, from + 0.13);
            });
        }
        c.circle(rgb, 0.12, -0.18, 0.15);
    } else {
        c.stroke(pale, 0.15, |p| {
            p.move_to(-0.8, -0.28);
            p.quad_to(0.0, 0.22, 0.8, -0.28);
        });
        c.stroke(pale, 0.15, |p| {
            p.move_to(-0.66, 0.5);
            p.quad_to(0.0, 0.9, 0.66, 0.5);
        });
    }
}

fn umbrella(rgb: Rgb, c: &mut Canvas) {
    let stick = [108, 92, 84];
    c.stroke(stick, 0.1, |p| {
        p.move_to(0.0, -0.95);
        p.line_to(0.0, 0.74);
        p.cubic_to(0.0, 1.02, 0.36, 1.02, 0.36, 0.72);
    });
    let dome = |p: &mut PathBuilder| {
        p.move_to(-0.98, 0.14);
        p.cubic_to(-0.95, -1.12, 0.95, -1.12, 0.98, 0.14);
        for (from, to) in [(0.98, 0.49), (0.49, 0.0), (0.0, -0.49), (-0.49, -0.98)] {
            p.quad_to((from + to) / 2.0, -0.1, to, 0.14);
        }
        p.close();
    };
    c.fill(rgb, dome);
    let seam = darker(rgb, 0.25);
    for side in [-1.0, 1.0] {
        c.stroke(seam, 0.05, |p| {
            p.move_to(0.0, -0.8);
            p.quad_to(side * 0.42, -0.5, side * 0.49, 0.12);
        });
    }
    c.line(seam, 0.05, &[(0.0, -0.8), (0.0, 0.1)]);
}

fn cup(rgb: Rgb, random: &mut Random, c: &mut Canvas) {
    c.stroke(beside(rgb, 0.14), 0.17, |p| {
        p.move_to(0.46, -0.16);
        p.cubic_to(1.0, -0.3, 1.04, 0.52, 0.42, 0.46);
    });
    c.fill(rgb, |p| {
        p.move_to(-0.74, -0.42);
        p.line_to(0.54, -0.42);
        p.line_to(0.46, 0.66);
        p.cubic_to(0.44, 0.84, 0.36, 0.9, 0.24, 0.9);
        p.line_to(-0.44, 0.9);
        p.cubic_to(-0.56, 0.9, -0.64, 0.84, -0.66, 0.66);
    });
    c.ellipse(beside(rgb, 0.28), -0.1, -0.42, 0.64, 0.15, 0.0);
    c.ellipse([104, 66, 42], -0.1, -0.4, 0.52, 0.1, 0.0);
    if random.chance(50) {
        for x in [-0.34, 0.1] {
            c.stroke([176, 180, 188], 0.07, |p| {
                p.move_to(x, -0.64);
                p.cubic_to(x + 0.16, -0.74, x - 0.16, -0.86, x, -0.96);
            });
        }
    }
}

fn key(rgb: Rgb, random: &mut Random, c: &mut Canvas) {
    // On a slant: along the diagonal from the upper left to the lower right.
    let edge = beside(rgb, 0.35);
    for (rgb, width) in [(edge, 0.27), (rgb, 0.2)] {
        c.line(rgb, width, &[(-0.22, -0.22), (0.82, 0.82)]);
        c.line(rgb, width, &[(0.78, 0.78), (0.96, 0.56)]);
        c.line(rgb, width, &[(0.5, 0.5), (0.68, 0.28)]);
        if random.chance(40) {
            c.line(rgb, width, &[(0.24, 0.24), (0.36, 0.1)]);
        }
    }
    c.fill_between(edge, |p| {
        ellipse(p, -0.46, -0.46, 0.53, 0.53, 0.0);
        ellipse(p, -0.46, -0.46, 0.19, 0.19, 0.0);
    });
    c.fill_between(rgb, |p| {
        ellipse(p, -0.46, -0.46, 0.49, 0.49, 0.0);
        ellipse(p, -0.46, -0.46, 0.23, 0.23, 0.0);
    });
}

fn book(rgb: Rgb, c: &mut Canvas) {
    // Closed, its pages showing at the right and below.
    let back = beside(rgb, 0.35);
    c.round_rect(back, [-0.76, -0.86, 0.8, 0.96], 0.1);
    c.rect(PAPER, -0.6, -0.8, 0.72, 0.86);
    c.rect([206, 202, 192], -0.6, 0.74, 0.72, 0.79);
    c.round_rect(rgb, [-0.76, -0.92, 0.66, 0.7], 0.1);
    c.rect(back, -0.76, -0.86, -0.54, 0.9);
    c.round_rect(PAPER, [-0.32, -0.6, 0.44, -0.14], 0.05);
    c.line([140, 140, 148], 0.06, &[(-0.2, -0.46), (0.32, -0.46)]);
    c.line([140, 140, 148], 0.06, &[(-0.2, -0.29), (0.18, -0.29)]);
}

fn clock(rgb: Rgb, random: &mut Random, c: &mut Canvas) {
    c.circle(rgb, 0.0, 0.0, 0.97);
    c.circle(PAPER, 0.0, 0.0, 0.66);
    for hour in 0..12_u8 {
        let (cosine, sine) = direction(f32::from(hour) / 12.0);
        let inner = if hour % 3 == 0 { 0.5 } else { 0.56 };
        let (a, b) = ((cosine * inner, sine * inner), (cosine * 0.59, sine * 0.59));
        c.line([120, 120, 128], 0.05, &[a, b]);
    }
    for (length, width) in [(0.32, 0.11), (0.47, 0.08)] {
        let (cosine, sine) = direction(random.range(0.0, 1.0));
        c.line(INK, width, &[(0.0, 0.0), (cosine * length, sine * length)]);
    }
    c.circle(INK, 0.0, 0.0, 0.08);
}

fn pencil(rgb: Rgb, c: &mut Canvas) {
    // Along the diagonal: `u` from the eraser to the point, `v` across.
    let at = |u: f32, v: f32| ((u + v) * 0.707, (u - v) * 0.707);
    let mut band = |rgb: Rgb, from: f32, to: f32, low: f32, high: f32| {
        c.polygon(rgb, &[at(from, low), at(to, low), at(to, high), at(from, high)]);
    };
    band([236, 150, 160], -1.25, -1.02, -0.26, 0.26);
    band(STEEL, -1.04, -0.84, -0.26, 0.26);
    band(rgb, -0.85, 0.66, -0.26, 0.26);
    band(darker(rgb, 0.22), -0.85, 0.66, -0.26, -0.1);
    band(lighter(rgb, 0.25), -0.85, 0.66, 0.1, 0.26);
    c.polygon([240, 208, 160], &[at(0.65, -0.26), at(1.28, 0.0), at(0.65, 0.26)]);
    c.polygon(INK, &[at(1.02, -0.11), at(1.28, 0.0), at(1.02, 0.11)]);
}

fn gift(rgb: Rgb, c: &mut Canvas) {
    let ribbon = if contrasts(rgb, [250, 224, 120]) { [250, 224, 120] } else { [214, 48, 58] };
    c.rect(rgb, -0.78, -0.1, 0.78, 0.95);
    c.rect(darker(rgb, 0.15), -0.78, -0.1, 0.78, 0.02);
    c.rect(rgb, -0.9, -0.42, 0.9, -0.06);
    c.rect(ribbon, -0.15, -0.42, 0.15, 0.95);
    for side in [-1.0, 1.0] {
        c.stroke(ribbon, 0.14, |p| {
            p.move_to(0.0, -0.46);
            p.cubic_to(side * 0.2, -1.1, side * 0.85, -0.95, side * 0.55, -0.6);
            p.quad_to(side * 0.4, -0.48, 0.0, -0.46);
        });
    }
    c.circle(ribbon, 0.0, -0.48, 0.14);
}

fn hat(rgb: Rgb, random: &mut Random, c: &mut Canvas) {
    let band = if luma(rgb) < 90 { lighter(rgb, 0.5) } else { darker(rgb, 0.45) };
    if random.chance(50) {
        // A straw hat.
        c.ellipse(rgb, 0.0, 0.42, 0.99, 0.3, 0.0);
        c.fill(rgb, |p| {
            p.move_to(-0.58, 0.4);
            p.cubic_to(-0.56, -0.9, 0.56, -0.9, 0.58, 0.4);
            p.quad_to(0.0, 0.6, -0.58, 0.4);
        });
        c.fill(band, |p| {
            p.move_to(-0.575, 0.14);
            p.quad_to(0.0, 0.34, 0.575, 0.14);
            p.line_to(0.58, 0.38);
            p.quad_to(0.0, 0.6, -0.58, 0.38);
        });
    } else {
        // A top hat.
        c.rect(rgb, -0.56, -0.8, 0.56, 0.5);
        c.rect(band, -0.56, 0.14, 0.56, 0.4);
        c.round_rect(rgb, [-0.98, 0.4, 0.98, 0.66], 0.12);
    }
}

fn shirt(rgb: Rgb, random: &mut Random, c: &mut Canvas) {
    let body: [(f32, f32); 12] = [
        (-0.34, -0.86),
        (0.34, -0.86),
        (0.6, -0.78),
        (0.98, -0.26),
        (0.7, -0.02),
        (0.54, -0.2),
        (0.54, 0.92),
        (-0.54, 0.92),
        (-0.54, -0.2),
        (-0.7, -0.02),
        (-0.98, -0.26),
        (-0.6, -0.78),
    ];
    c.polygon(rgb, &body);
    let edge = beside(rgb, 0.3);
    c.fill(edge, |p| {
        p.move_to(-0.3, -0.86);
        p.cubic_to(-0.25, -0.48, 0.25, -0.48, 0.3, -0.86);
    });
    for side in [-1.0, 1.0] {
        c.line(edge, 0.05, &[(side * 0.54, -0.2), (side * 0.5, -0.42)]);
    }
    match random.below(3) {
        0 => c.rect(beside(rgb, 0.2), -0.54, 0.2, 0.54, 0.38),
        1 => c.round_rect(beside(rgb, 0.2), [0.1, -0.2, 0.36, 0.1], 0.04),
        _ => {}
    }
}
