//! Fruit, plants, the sky and animals.

use super::draw::{Canvas, INK, PAPER, STALK, WOOD, arc, ellipse};
use super::palette::{Rgb, contrasts, darker, lighter, luma};
use super::random::{Random, direction};
use super::words::Thing;

/// Paints `thing` mainly in `rgb`; `false` when it is none of this file.
pub(super) fn paint(thing: Thing, rgb: Rgb, random: &mut Random, c: &mut Canvas) -> bool {
    match thing {
        Thing::Apple => apple(rgb, random, c),
        Thing::Banana => banana(rgb, c),
        Thing::Carrot => carrot(rgb, c),
        Thing::Strawberry => strawberry(rgb, c),
        Thing::Mushroom => mushroom(rgb, c),
        Thing::IceCream => ice_cream(rgb, random, c),
        Thing::Tree => tree(rgb, random, c),
        Thing::Flower => flower(rgb, random, c),
        Thing::Leaf => leaf(rgb, c),
        Thing::Sun => sun(rgb, random, c),
        Thing::Moon => moon(rgb, random, c),
        Thing::Cloud => cloud(rgb, random, c),
        Thing::Cat => cat(rgb, c),
        Thing::Dog => dog(rgb, c),
        Thing::Fish => fish(rgb, random, c),
        Thing::Bird => bird(rgb, c),
        Thing::Butterfly => butterfly(rgb, random, c),
        Thing::Snowman => snowman(rgb, random, c),
        Thing::Smile => smile(rgb, random, c),
        _ => return false,
    }
    true
}

/// Ink that shows on `rgb`.
fn ink_on(rgb: Rgb) -> Rgb {
    if luma(rgb) < 80 { PAPER } else { INK }
}

fn apple(rgb: Rgb, random: &mut Random, c: &mut Canvas) {
    c.line(WOOD, 0.13, &[(0.0, -0.45), (0.05, -0.72), (0.14, -0.92)]);
    let leaf = if contrasts(rgb, STALK) { STALK } else { darker(STALK, 0.35) };
    c.ellipse(leaf, 0.42, -0.78, 0.3, 0.14, -0.06);
    c.fill(rgb, |p| {
        p.move_to(0.0, -0.46);
        p.cubic_to(0.3, -0.72, 0.98, -0.62, 0.95, 0.08);
        p.cubic_to(0.93, 0.62, 0.55, 1.02, 0.28, 0.96);
        p.cubic_to(0.1, 0.9, -0.1, 0.9, -0.28, 0.96);
        p.cubic_to(-0.55, 1.02, -0.93, 0.62, -0.95, 0.08);
        p.cubic_to(-0.98, -0.62, -0.3, -0.72, 0.0, -0.46);
    });
    if random.chance(75) {
        c.ellipse(lighter(rgb, 0.5), -0.52, -0.1, 0.13, 0.25, 0.07);
    }
}

fn banana(rgb: Rgb, c: &mut Canvas) {
    c.fill(rgb, |p| {
        p.move_to(-0.86, -0.55);
        p.cubic_to(-0.8, 0.35, -0.05, 1.0, 0.95, 0.52);
        p.line_to(0.98, 0.3);
        p.cubic_to(0.3, 0.42, -0.35, 0.1, -0.6, -0.66);
    });
    c.stroke(darker(rgb, 0.22), 0.06, |p| {
        p.move_to(-0.72, -0.5);
        p.cubic_to(-0.55, 0.3, 0.1, 0.72, 0.92, 0.42);
    });
    c.polygon(WOOD, &[(-0.9, -0.52), (-0.58, -0.62), (-0.66, -0.92), (-0.82, -0.9)]);
    c.line(WOOD, 0.14, &[(0.94, 0.36), (0.95, 0.46)]);
}

fn carrot(rgb: Rgb, c: &mut Canvas) {
    for turn in [-0.30, -0.25, -0.18, -0.12, -0.06] {
        let (cosine, sine) = direction(turn);
        let tip = (0.42 + cosine * 0.52, -0.42 + sine * 0.52);
        c.line(STALK, 0.17, &[(0.4, -0.4), tip]);
    }
    c.fill(rgb, |p| {
        p.move_to(-0.92, 0.92);
        p.cubic_to(-0.55, 0.0, -0.1, -0.72, 0.35, -0.6);
        p.cubic_to(0.58, -0.52, 0.68, -0.4, 0.62, -0.24);
        p.cubic_to(0.5, 0.22, -0.2, 0.62, -0.92, 0.92);
    });
    let line = darker(rgb, 0.28);
    c.line(line, 0.06, &[(-0.05, -0.4), (0.18, -0.2)]);
    c.line(line, 0.06, &[(0.12, 0.18), (0.3, 0.02)]);
    c.line(line, 0.06, &[(-0.42, 0.18), (-0.2, 0.32)]);
}

fn strawberry(rgb: Rgb, c: &mut Canvas) {
    c.fill(rgb, |p| {
        p.move_to(0.0, 1.0);
        p.cubic_to(-0.4, 0.85, -0.95, 0.15, -0.85, -0.3);
        p.cubic_to(-0.75, -0.7, -0.25, -0.68, 0.0, -0.55);
        p.cubic_to(0.25, -0.68, 0.75, -0.7, 0.85, -0.3);
        p.cubic_to(0.95, 0.15, 0.4, 0.85, 0.0, 1.0);
    });
    let seed = [250, 226, 140];
    for (x, y) in [(-0.5, -0.15), (0.0, -0.1), (0.5, -0.15), (-0.28, 0.22), (0.28, 0.22), (0.0, 0.55)] {
        c.ellipse(seed, x, y, 0.055, 0.09, 0.0);
    }
    c.polygon(
        STALK,
        &[
            (0.0, -0.98),
            (0.14, -0.72),
            (0.62, -0.82),
            (0.36, -0.52),
            (0.46, -0.3),
            (0.1, -0.46),
            (0.0, -0.18),
            (-0.1, -0.46),
            (-0.46, -0.3),
            (-0.36, -0.52),
            (-0.62, -0.82),
            (-0.14, -0.72),
        ],
    );
}

fn mushroom(rgb: Rgb, c: &mut Canvas) {
    let stem = [244, 232, 208];
    c.fill(stem, |p| {
        p.move_to(-0.28, 0.0);
        p.cubic_to(-0.22, 0.4, -0.4, 0.7, -0.36, 0.92);
        p.line_to(0.36, 0.92);
        p.cubic_to(0.4, 0.7, 0.22, 0.4, 0.28, 0.0);
    });
    c.fill(darker(stem, 0.14), |p| ellipse(p, 0.0, 0.1, 0.36, 0.09, 0.0));
    c.fill(rgb, |p| {
        p.move_to(-0.98, 0.1);
        p.cubic_to(-0.98, -1.2, 0.98, -1.2, 0.98, 0.1);
        p.cubic_to(0.5, 0.24, -0.5, 0.24, -0.98, 0.1);
    });
    for (x, y, r) in [(-0.46, -0.2, 0.15), (0.1, -0.52, 0.17), (0.56, -0.12, 0.13)] {
        c.circle(PAPER, x, y, r);
    }
}

fn ice_cream(rgb: Rgb, random: &mut Random, c: &mut Canvas) {
    let cone = [214, 160, 92];
    c.polygon(cone, &[(-0.46, 0.08), (0.46, 0.08), (0.0, 1.0)]);
    let grid = darker(cone, 0.22);
    c.line(grid, 0.05, &[(-0.22, 0.12), (0.13, 0.66)]);
    c.line(grid, 0.05, &[(0.22, 0.12), (-0.13, 0.66)]);
    c.circle(rgb, 0.0, -0.36, 0.6);
    for x in [-0.42, -0.14, 0.16, 0.43] {
        c.circle(rgb, x, 0.06, 0.18);
    }
    c.ellipse(lighter(rgb, 0.55), -0.26, -0.56, 0.1, 0.17, 0.1);
    if random.chance(40) && contrasts(rgb, [214, 40, 60]) {
        c.circle([214, 40, 60], 0.05, -0.86, 0.13);
    }
}

fn tree(rgb: Rgb, random: &mut Random, c: &mut Canvas) {
    c.polygon(WOOD, &[(-0.13, 0.1), (0.13, 0.1), (0.2, 1.0), (-0.2, 1.0)]);
    // A fir is green; any other colour takes a round crown.
    let green = rgb[1] > rgb[0] && rgb[1] > rgb[2];
    if green && random.chance(40) {
        for (top, bottom, half) in [(-1.0, -0.3, 0.46), (-0.62, 0.14, 0.62), (-0.2, 0.6, 0.8)] {
            c.polygon(rgb, &[(0.0, top), (half, bottom), (-half, bottom)]);
            let shadow = darker(rgb, 0.2);
            c.line(shadow, 0.05, &[(-half * 0.9, bottom), (half * 0.9, bottom)]);
        }
        return;
    }
    for (x, y, r) in [
        (-0.44, 0.02, 0.42),
        (0.44, 0.02, 0.42),
        (-0.3, -0.42, 0.42),
        (0.3, -0.42, 0.42),
        (0.0, -0.54, 0.44),
        (0.0, -0.1, 0.5),
    ] {
        c.circle(rgb, x, y, r);
    }
    let light = lighter(rgb, 0.22);
    for (x, y) in [(-0.34, -0.4), (0.22, -0.58), (0.36, -0.02), (-0.3, 0.1)] {
        c.circle(light, x, y, 0.1);
    }
}

fn flower(rgb: Rgb, random: &mut Random, c: &mut Canvas) {
    c.line(STALK, 0.13, &[(0.0, -0.1), (0.03, 0.95)]);
    c.ellipse(STALK, 0.3, 0.62, 0.3, 0.13, -0.08);
    c.ellipse(STALK, -0.26, 0.74, 0.26, 0.12, 0.08);
    let petals = 5 + random.below(3) as u8;
    let edge = darker(rgb, 0.1);
    for petal in 0..petals {
        let turn = f32::from(petal) / f32::from(petals) - 0.25;
        let (cosine, sine) = direction(turn);
        let width = if petals == 5 { 0.3 } else { 0.24 };
        let shade = if petal % 2 == 0 { rgb } else { edge };
        c.ellipse(shade, cosine * 0.4, sine * 0.4 - 0.3, 0.32, width, turn);
    }
    let yellow = [250, 206, 60];
    let heart = if contrasts(rgb, yellow) { yellow } else { [150, 88, 40] };
    c.circle(heart, 0.0, -0.3, 0.22);
}

fn leaf(rgb: Rgb, c: &mut Canvas) {
    c.fill(rgb, |p| {
        p.move_to(0.85, -0.9);
        p.cubic_to(1.0, 0.1, 0.4, 0.85, -0.55, 0.6);
        p.cubic_to(-0.85, -0.3, -0.1, -0.95, 0.85, -0.9);
    });
    let vein = darker(rgb, 0.35);
    c.line(vein, 0.09, &[(-0.95, 0.98), (-0.5, 0.52), (0.55, -0.6)]);
    for (x, y) in [(-0.2, 0.2), (0.15, -0.17)] {
        c.line(vein, 0.05, &[(x, y), (x + 0.42, y + 0.02)]);
        c.line(vein, 0.05, &[(x, y), (x - 0.02, y - 0.42)]);
    }
}

fn sun(rgb: Rgb, random: &mut Random, c: &mut Canvas) {
    let rays = 8 + 2 * random.below(3) as u8;
    for ray in 0..rays {
        let turn = f32::from(ray) / f32::from(rays);
        let at = |turn: f32, radius: f32| {
            let (cosine, sine) = direction(turn);
            (cosine * radius, sine * radius)
        };
        let half = 0.32 / f32::from(rays);
        c.polygon(rgb, &[at(turn - half, 0.68), at(turn, 1.02), at(turn + half, 0.68)]);
    }
    c.circle(rgb, 0.0, 0.0, 0.56);
    if random.chance(35) {
        face(darker(rgb, 0.6), 0.5, c);
    }
}

fn moon(rgb: Rgb, random: &mut Random, c: &mut Canvas) {
    c.circle(rgb, 0.0, 0.0, 0.92);
    let crater = darker(rgb, 0.13);
    for (x, y, r) in [(-0.35, -0.32, 0.24), (0.36, 0.1, 0.2), (-0.2, 0.44, 0.15), (0.24, -0.5, 0.11)] {
        let nudge = random.range(-0.06, 0.06);
        c.circle(crater, x + nudge, y - nudge, r);
    }
}

fn cloud(rgb: Rgb, random: &mut Random, c: &mut Canvas) {
    let high = random.range(0.4, 0.5);
    let all = [(-0.55, 0.16, 0.38), (-0.12, -0.16, high), (0.38, 0.0, 0.42), (0.62, 0.22, 0.32)];
    let puffs = |rgb: Rgb, down: f32, c: &mut Canvas| {
        for (x, y, r) in all {
            c.circle(rgb, x, y + down, r);
        }
        c.round_rect(rgb, [-0.8, 0.1 + down, 0.85, 0.54 + down], 0.22);
    };
    puffs(darker(rgb, 0.14), 0.1, c);
    puffs(rgb, 0.0, c);
}

fn cat(rgb: Rgb, c: &mut Canvas) {
    let inner = [240, 170, 170];
    for side in [-1.0, 1.0] {
        c.polygon(rgb, &[(side * 0.88, -0.95), (side * 0.86, -0.05), (side * 0.18, -0.55)]);
        c.polygon(inner, &[(side * 0.74, -0.7), (side * 0.72, -0.3), (side * 0.42, -0.52)]);
    }
    c.ellipse(rgb, 0.0, 0.12, 0.92, 0.8, 0.0);
    let stripe = if luma(rgb) < 80 { lighter(rgb, 0.18) } else { darker(rgb, 0.22) };
    for x in [-0.22, 0.0, 0.22] {
        c.line(stripe, 0.09, &[(x, -0.6), (x * 0.8, -0.36)]);
    }
    let ink = ink_on(rgb);
    let eye = if luma(rgb) < 80 { [236, 208, 70] } else { INK };
    for side in [-1.0, 1.0] {
        c.ellipse(eye, side * 0.38, 0.02, 0.12, 0.17, 0.0);
        c.line(ink, 0.045, &[(side * 0.4, 0.36), (side * 0.98, 0.26)]);
        c.line(ink, 0.045, &[(side * 0.4, 0.46), (side * 0.96, 0.54)]);
    }
    c.polygon([226, 120, 130], &[(-0.12, 0.28), (0.12, 0.28), (0.0, 0.42)]);
    c.stroke(ink, 0.06, |p| {
        p.move_to(-0.24, 0.52);
        p.quad_to(-0.06, 0.66, 0.0, 0.42);
        p.quad_to(0.06, 0.66, 0.24, 0.52);
    });
}

fn dog(rgb: Rgb, c: &mut Canvas) {
    c.ellipse(rgb, 0.0, 0.05, 0.74, 0.82, 0.0);
    let ear = if luma(rgb) < 80 { lighter(rgb, 0.22) } else { darker(rgb, 0.35) };
    for side in [-1.0, 1.0] {
        c.ellipse(ear, side * 0.74, -0.1, 0.24, 0.58, side * -0.03);
    }
    let muzzle = lighter(rgb, if luma(rgb) > 200 { 0.0 } else { 0.7 });
    c.ellipse(muzzle, 0.0, 0.44, 0.42, 0.36, 0.0);
    let ink = ink_on(rgb);
    for side in [-1.0, 1.0] {
        c.circle(ink, side * 0.3, -0.14, 0.12);
        if ink != INK {
            c.circle(INK, side * 0.28, -0.13, 0.07);
        }
    }
    c.ellipse(INK, 0.0, 0.26, 0.19, 0.13, 0.0);
    c.line(INK, 0.06, &[(0.0, 0.3), (0.0, 0.52)]);
    c.ellipse([232, 110, 124], 0.0, 0.66, 0.13, 0.16, 0.0);
    c.stroke(INK, 0.06, |p| {
        p.move_to(-0.22, 0.5);
        p.quad_to(-0.1, 0.62, 0.0, 0.52);
        p.quad_to(0.1, 0.62, 0.22, 0.5);
    });
}

fn fish(rgb: Rgb, random: &mut Random, c: &mut Canvas) {
    let fin = darker(rgb, 0.22);
    c.polygon(fin, &[(0.4, 0.0), (1.0, -0.58), (0.86, 0.0), (1.0, 0.58)]);
    c.polygon(fin, &[(-0.3, -0.4), (0.2, -0.82), (0.34, -0.3)]);
    c.polygon(fin, &[(-0.1, 0.4), (0.22, 0.78), (0.3, 0.3)]);
    c.ellipse(rgb, -0.2, 0.0, 0.78, 0.52, 0.0);
    if random.chance(50) {
        for x in [-0.14, 0.14] {
            c.stroke(lighter(rgb, 0.55), 0.1, |p| {
                p.move_to(x, -0.34);
                p.quad_to(x + 0.14, 0.0, x, 0.34);
            });
        }
    }
    c.circle(PAPER, -0.58, -0.12, 0.15);
    c.circle(INK, -0.6, -0.12, 0.08);
    c.line(fin, 0.06, &[(-0.92, 0.14), (-0.74, 0.16)]);
}

fn bird(rgb: Rgb, c: &mut Canvas) {
    let legs = [226, 138, 40];
    c.line(legs, 0.08, &[(-0.06, 0.6), (-0.1, 0.96)]);
    c.line(legs, 0.08, &[(0.2, 0.6), (0.2, 0.96)]);
    let beak = if contrasts(rgb, [240, 150, 30]) { [240, 150, 30] } else { [190, 70, 40] };
    c.polygon(beak, &[(-0.72, -0.5), (-1.0, -0.34), (-0.7, -0.22)]);
    let wing = if luma(rgb) < 80 { lighter(rgb, 0.25) } else { darker(rgb, 0.2) };
    c.polygon(wing, &[(0.5, 0.1), (1.0, -0.22), (0.98, 0.22), (0.6, 0.42)]);
    c.ellipse(rgb, 0.1, 0.2, 0.64, 0.54, 0.03);
    c.circle(rgb, -0.38, -0.4, 0.42);
    c.ellipse(wing, 0.28, 0.16, 0.38, 0.24, 0.05);
    c.circle(PAPER, -0.48, -0.46, 0.12);
    c.circle(INK, -0.5, -0.46, 0.075);
}

fn butterfly(rgb: Rgb, random: &mut Random, c: &mut Canvas) {
    let light = lighter(rgb, if luma(rgb) > 230 { 0.0 } else { 0.6 });
    let edge = darker(rgb, 0.3);
    let spots = random.chance(70);
    for side in [-1.0, 1.0] {
        c.ellipse(edge, side * 0.52, -0.38, 0.52, 0.42, side * -0.1);
        c.ellipse(rgb, side * 0.52, -0.38, 0.46, 0.36, side * -0.1);
        c.ellipse(edge, side * 0.42, 0.42, 0.42, 0.35, side * 0.13);
        c.ellipse(rgb, side * 0.42, 0.42, 0.36, 0.29, side * 0.13);
        if spots {
            c.circle(light, side * 0.6, -0.44, 0.14);
            c.circle(light, side * 0.46, 0.46, 0.1);
        }
        c.line(INK, 0.05, &[(0.0, -0.5), (side * 0.22, -0.88)]);
    }
    c.ellipse(INK, 0.0, 0.02, 0.09, 0.56, 0.0);
}

fn snowman(rgb: Rgb, random: &mut Random, c: &mut Canvas) {
    let shade = darker(rgb, 0.12);
    for (y, r) in [(0.48, 0.5), (-0.3, 0.36)] {
        c.circle(shade, 0.0, y, r);
        c.circle(rgb, -0.03, y - 0.03, r - 0.04);
    }
    let scarfs = [[206, 44, 50], [40, 96, 190], [52, 140, 76]];
    let scarf = random.pick(&scarfs).unwrap_or([206, 44, 50]);
    c.round_rect(scarf, [-0.34, -0.06, 0.34, 0.1], 0.07);
    c.round_rect(scarf, [0.1, 0.0, 0.26, 0.42], 0.06);
    c.rect(INK, -0.42, -0.66, 0.42, -0.56);
    c.rect(INK, -0.26, -1.0, 0.26, -0.6);
    c.circle(INK, -0.13, -0.38, 0.055);
    c.circle(INK, 0.13, -0.38, 0.055);
    c.polygon([240, 130, 40], &[(0.0, -0.3), (0.0, -0.18), (-0.3, -0.2)]);
    for y in [0.3, 0.54] {
        c.circle(INK, -0.05, y, 0.055);
    }
}

/// Two eyes and a mouth within `size` around the middle.
fn face(ink: Rgb, size: f32, c: &mut Canvas) {
    for side in [-1.0, 1.0] {
        c.ellipse(ink, side * 0.36 * size, -0.22 * size, 0.13 * size, 0.2 * size, 0.0);
    }
    c.stroke(ink, 0.14 * size, |p| arc(p, 0.0, 0.05 * size, 0.52 * size, 0.06, 0.44));
}

fn smile(rgb: Rgb, random: &mut Random, c: &mut Canvas) {
    c.circle(darker(rgb, 0.25), 0.0, 0.0, 0.97);
    c.circle(rgb, 0.0, 0.0, 0.9);
    if random.chance(40) {
        // Laughing.
        for side in [-1.0, 1.0] {
            c.ellipse(INK, side * 0.36, -0.24, 0.12, 0.18, 0.0);
        }
        c.fill(INK, |p| arc(p, 0.0, 0.12, 0.5, 0.0, 0.5));
        c.fill(PAPER, |p| {
            p.move_to(-0.42, 0.14);
            p.line_to(0.42, 0.14);
            p.line_to(0.36, 0.28);
            p.line_to(-0.36, 0.28);
        });
    } else {
        face(INK, 1.0, c);
    }
    if random.chance(30) {
        let cheek = [240, 130, 120];
        for side in [-1.0, 1.0] {
            c.circle(cheek, side * 0.62, 0.14, 0.12);
        }
    }
}
