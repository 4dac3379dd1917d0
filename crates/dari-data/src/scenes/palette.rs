//! Colours of objects and backdrops: their numbers, and which contrast with which.

use super::random::Random;
use super::words::{Backdrop, Colour};

/// Red, green and blue, 0 to 255.
pub(super) type Rgb = [u8; 3];

/// Hue (degrees), saturation and value of a colour's middle, then how far each may stray.
fn hsv(colour: Colour) -> ([f32; 3], [f32; 3]) {
    match colour {
        Colour::Red => ([358.0, 0.88, 0.86], [6.0, 0.07, 0.06]),
        Colour::Orange => ([27.0, 0.92, 0.97], [4.0, 0.06, 0.03]),
        Colour::Yellow => ([51.0, 0.82, 0.98], [4.0, 0.08, 0.02]),
        Colour::Green => ([132.0, 0.68, 0.60], [14.0, 0.10, 0.07]),
        Colour::Blue => ([222.0, 0.82, 0.80], [7.0, 0.07, 0.07]),
        Colour::Purple => ([279.0, 0.66, 0.64], [8.0, 0.07, 0.06]),
        Colour::Pink => ([338.0, 0.42, 0.98], [8.0, 0.07, 0.02]),
        Colour::Brown => ([24.0, 0.66, 0.47], [4.0, 0.06, 0.04]),
        Colour::Black => ([230.0, 0.12, 0.11], [30.0, 0.08, 0.03]),
        Colour::White => ([60.0, 0.01, 0.985], [60.0, 0.01, 0.015]),
        Colour::Grey => ([220.0, 0.03, 0.56], [30.0, 0.02, 0.04]),
        Colour::SkyBlue => ([199.0, 0.49, 0.97], [6.0, 0.06, 0.02]),
    }
}

fn from_hsv([hue, saturation, value]: [f32; 3]) -> Rgb {
    let hue = (hue / 60.0).rem_euclid(6.0);
    let channel = |offset: f32| {
        let k = (offset + hue) % 6.0;
        let fall = k.min(4.0 - k).clamp(0.0, 1.0);
        ((value - value * saturation * fall) * 255.0 + 0.5).clamp(0.0, 255.0) as u8
    };
    [channel(5.0), channel(3.0), channel(1.0)]
}

/// The middle of a colour.
#[cfg(test)]
pub(super) fn middle(colour: Colour) -> Rgb {
    from_hsv(hsv(colour).0)
}

/// A shade of `colour` near its middle, never so far that it would bear another name.
pub(super) fn shade(colour: Colour, random: &mut Random) -> Rgb {
    let (mut middle, stray) = hsv(colour);
    for (value, stray) in middle.iter_mut().zip(stray) {
        *value += random.range(-stray, stray);
    }
    from_hsv(middle)
}

/// The colour of a backdrop, slightly varied.
pub(super) fn backdrop(backdrop: Backdrop, random: &mut Random) -> Rgb {
    let base: Rgb = match backdrop {
        Backdrop::White => [250, 250, 250],
        Backdrop::Grey => [182, 184, 188],
        Backdrop::Black => [18, 18, 22],
        Backdrop::SkyBlue => [150, 206, 242],
        Backdrop::Cream => [250, 238, 210],
        Backdrop::Mint => [200, 238, 214],
        Backdrop::Lavender => [222, 212, 242],
        Backdrop::Peach => [252, 218, 200],
        Backdrop::Navy => [28, 38, 84],
    };
    // White keeps its neutral look.
    let most = if backdrop == Backdrop::White { 2 } else { 5 };
    base.map(|channel| {
        let moved = i32::from(channel) + random.below(2 * most + 1) as i32 - most as i32;
        moved.clamp(0, 255) as u8
    })
}

/// How different two colours look, 0 to about 765: the "redmean" weighting of the squares, a cheap
/// stand-in for a perceptual distance (<https://www.compuphase.com/cmetric.htm>).
pub(super) fn distance(a: Rgb, b: Rgb) -> f32 {
    let [red, green, blue] = [0, 1, 2].map(|i| i32::from(a[i]) - i32::from(b[i]));
    let mean = (i32::from(a[0]) + i32::from(b[0])) / 2;
    let sum = (512 + mean) * red * red + 1024 * green * green + (767 - mean) * blue * blue;
    ((sum / 256) as f32).sqrt()
}

/// Whether an object of one colour is plain to see before the other.
pub(super) fn contrasts(object: Rgb, behind: Rgb) -> bool {
    // In the dark a difference of hue alone is hard to see.
    let dim = luma(behind) < 90 && luma(object).abs_diff(luma(behind)) < 48;
    distance(object, behind) > 190.0 && !dim
}

/// `rgb` towards black: 0 leaves it, 1 makes it black.
pub(super) fn darker(rgb: Rgb, by: f32) -> Rgb {
    towards(rgb, [0, 0, 0], by)
}

/// `rgb` towards white: 0 leaves it, 1 makes it white.
pub(super) fn lighter(rgb: Rgb, by: f32) -> Rgb {
    towards(rgb, [255, 255, 255], by)
}

fn towards(from: Rgb, to: Rgb, by: f32) -> Rgb {
    [0, 1, 2].map(|i| {
        let (from, to) = (f32::from(from[i]), f32::from(to[i]));
        (from + (to - from) * by + 0.5).clamp(0.0, 255.0) as u8
    })
}

/// Brightness, 0 to 255 (weights of BT.601).
pub(super) fn luma([red, green, blue]: Rgb) -> u32 {
    (299 * u32::from(red) + 587 * u32::from(green) + 114 * u32::from(blue)) / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hue_converts() {
        assert_eq!(from_hsv([0.0, 1.0, 1.0]), [255, 0, 0]);
        assert_eq!(from_hsv([120.0, 1.0, 1.0]), [0, 255, 0]);
        assert_eq!(from_hsv([240.0, 1.0, 0.5]), [0, 0, 128]);
        assert_eq!(from_hsv([360.0, 0.0, 0.5]), [128, 128, 128]);
    }

    #[test]
    fn shades_never_cross_names() {
        for colour in Colour::ALL {
            for key in 0..500 {
                let rgb = shade(colour, &mut Random::keyed(&[key]));
                let nearest = Colour::ALL
                    .into_iter()
                    .min_by(|&a, &b| distance(rgb, middle(a)).total_cmp(&distance(rgb, middle(b))))
                    .unwrap();
                assert_eq!(nearest, colour, "{rgb:?}");
            }
        }
    }
}
