//! Variation of training pictures, driven by the caller's own random numbers: where things are (crop,
//! turn, zoom, mirror) and how they are drawn (colour, blur, few tones, outlines).

use serde::{Deserialize, Serialize};

use super::{Error, Filter, Picture, resize};

/// What may be done to a picture. The default does nothing.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Variation {
    /// Least share of the area that a random resized crop keeps, in (0, 1]; 1 for no crop.
    pub crop: f64,
    /// Mirrors half of the pictures. Wrong for data that speaks of left and right.
    pub flip: bool,
    /// Degrees by which a picture is turned at most, either way.
    pub turn: f64,
    /// From this to its inverse a picture is shrunk or grown, in (0, 1]; 1 for neither. It is then
    /// also stretched and shifted a little. What lies outside continues the picture's edge.
    pub zoom: f64,
    /// Strength, 0 to 1, of changes to brightness, contrast, saturation and hue.
    pub colour: f64,
    /// Share of pictures that lose their colours.
    pub grey: f64,
    /// Share of pictures that are blurred.
    pub blur: f64,
    /// Share of pictures whose shades become a few flat tones.
    pub flat: f64,
    /// Share of pictures whose edges are drawn over in black.
    pub outline: f64,
    /// Share of pictures of which a rectangle is painted over.
    pub erase: f64,
}

impl Default for Variation {
    fn default() -> Self {
        Variation {
            crop: 1.0,
            flip: false,
            turn: 0.0,
            zoom: 1.0,
            colour: 0.0,
            grey: 0.0,
            blur: 0.0,
            flat: 0.0,
            outline: 0.0,
            erase: 0.0,
        }
    }
}

impl Variation {
    /// What is wrong with the numbers, if anything: the setting, what it is, what it may be.
    pub fn problem(&self) -> Option<String> {
        for (key, value) in [("crop", self.crop), ("zoom", self.zoom)] {
            if !(value > 0.0 && value <= 1.0) {
                return Some(format!("{key}` is {value}, expected above 0 and at most 1"));
            }
        }
        if !(0.0..=180.0).contains(&self.turn) {
            return Some(format!("turn` is {}, expected 0 to 180 degrees", self.turn));
        }
        let shares = [
            ("colour", self.colour),
            ("grey", self.grey),
            ("blur", self.blur),
            ("flat", self.flat),
            ("outline", self.outline),
            ("erase", self.erase),
        ];
        let wrong = shares.into_iter().find(|(_, value)| !(0.0..=1.0).contains(value));
        wrong.map(|(key, value)| format!("{key}` is {value}, expected 0 to 1"))
    }
}

/// How far from the picture's own shape a crop may go, as torchvision's `RandomResizedCrop`.
const SHAPES: (f64, f64) = (3.0 / 4.0, 4.0 / 3.0);

/// Varies a picture. One that is cropped comes out in `size` (width, height), others keep theirs.
/// `draw(i)` gives the `i`th number in `[0, 1)`.
pub fn vary(
    picture: &Picture,
    variation: &Variation,
    size: (u32, u32),
    draw: impl Fn(u64) -> f64,
) -> Result<Picture, Error> {
    let mut picture = picture.clone();
    let chance = |index: u64, share: f64| share > 0.0 && draw(index) < share;
    if variation.turn > 0.0 || variation.zoom < 1.0 {
        picture = moved(&picture, variation, &draw)?;
    }
    if variation.crop < 1.0 {
        let (left, top, width, height) = window(picture.width(), picture.height(), variation.crop, &draw);
        picture = crop(&picture, left, top, width, height)?;
        picture = resize::resize(&picture, size.0, size.1, Filter::Bicubic)?;
    }
    if variation.flip && draw(9) < 0.5 {
        picture = mirror(&picture)?;
    }
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let mut rgb = picture.into_rgb();
    let outlined = chance(20, variation.outline).then(|| edges(&rgb, width, height, 40.0 + 80.0 * draw(21)));
    if chance(22, variation.blur) {
        blur(&mut rgb, width, height, if draw(23) < 0.5 { 1 } else { 2 });
    }
    if chance(24, variation.flat) {
        flatten(&mut rgb, 2.0 + (4.0 * draw(25)).floor());
    }
    let grey = chance(26, variation.grey);
    if variation.colour > 0.0 || grey {
        recolour(&mut rgb, variation.colour, grey, |index| draw(30 + index));
    }
    if let Some(outlined) = outlined {
        for (pixel, _) in rgb.chunks_exact_mut(3).zip(outlined).filter(|(_, edge)| *edge) {
            pixel.fill(0);
        }
    }
    if chance(40, variation.erase) {
        erase(&mut rgb, width, height, |index| draw(41 + index));
    }
    Picture::from_rgb(width as u32, height as u32, rgb)
}

/// Turned, scaled, stretched and shifted about the middle; bilinear.
fn moved(picture: &Picture, variation: &Variation, draw: &impl Fn(u64) -> f64) -> Result<Picture, Error> {
    let (width, height) = (picture.width(), picture.height());
    let either = |index: u64| 2.0 * draw(index) - 1.0;
    let angle = (variation.turn * either(10)).to_radians();
    let zoom = (-variation.zoom.ln() * either(11)).exp();
    let stretch = (-variation.zoom.ln() / 3.0 * either(12)).exp();
    let room = (1.0 - variation.zoom) / 3.0;
    let shift = [room * either(13) * f64::from(width), room * either(14) * f64::from(height)];
    let middle = [f64::from(width) / 2.0, f64::from(height) / 2.0];
    let (sin, cos) = angle.sin_cos();
    let (across, down) = (1.0 / (zoom * stretch), stretch / zoom);
    let rgb = picture.rgb();
    let at = |x: f64, y: f64| {
        let x = x.clamp(0.0, f64::from(width - 1)) as usize;
        let y = y.clamp(0.0, f64::from(height - 1)) as usize;
        &rgb[(y * width as usize + x) * 3..][..3]
    };
    let mut out = Vec::with_capacity(rgb.len());
    for row in 0..height {
        for column in 0..width {
            let x = f64::from(column) + 0.5 - middle[0] - shift[0];
            let y = f64::from(row) + 0.5 - middle[1] - shift[1];
            let from = [
                (cos * x + sin * y) * across + middle[0] - 0.5,
                (cos * y - sin * x) * down + middle[1] - 0.5,
            ];
            let whole = from.map(f64::floor);
            let part = [(from[0] - whole[0]) as f32, (from[1] - whole[1]) as f32];
            let corners = [
                (at(whole[0], whole[1]), (1.0 - part[0]) * (1.0 - part[1])),
                (at(whole[0] + 1.0, whole[1]), part[0] * (1.0 - part[1])),
                (at(whole[0], whole[1] + 1.0), (1.0 - part[0]) * part[1]),
                (at(whole[0] + 1.0, whole[1] + 1.0), part[0] * part[1]),
            ];
            for channel in 0..3 {
                let value: f32 = corners.iter().map(|(pixel, share)| f32::from(pixel[channel]) * share).sum();
                out.push(value.round() as u8);
            }
        }
    }
    Picture::from_rgb(width, height, out)
}

/// Brightness of a pixel, ITU-R BT.601.
fn luma(pixel: &[u8]) -> f32 {
    0.299 * f32::from(pixel[0]) + 0.587 * f32::from(pixel[1]) + 0.114 * f32::from(pixel[2])
}

/// Brightness, contrast, saturation and hue, as one matrix and one offset.
fn recolour(rgb: &mut [u8], strength: f64, grey: bool, draw: impl Fn(u64) -> f64) {
    let either = |index: u64| (strength * (2.0 * draw(index) - 1.0)) as f32;
    let brightness = 1.0 + 0.6 * either(0);
    let contrast = 1.0 + 0.6 * either(1);
    let saturation = if grey { 0.0 } else { 1.0 + 0.8 * either(2) };
    // A turn of the plane of colours at equal brightness.
    let (sin, cos) = (0.8 * either(3)).sin_cos();
    let count = (rgb.len() / 3).max(1) as f32;
    let mean = rgb.chunks_exact(3).map(luma).sum::<f32>() / count;
    for pixel in rgb.chunks_exact_mut(3) {
        let grey = luma(pixel);
        let [red, blue] = [f32::from(pixel[0]) - grey, f32::from(pixel[2]) - grey];
        let [red, blue] = [saturation * (cos * red - sin * blue), saturation * (sin * red + cos * blue)];
        let green = -(0.299 * red + 0.114 * blue) / 0.587;
        let level = brightness * (mean + contrast * (grey - mean));
        for (value, change) in pixel.iter_mut().zip([red, green, blue]) {
            *value = (level + brightness * contrast * change).round().clamp(0.0, 255.0) as u8;
        }
    }
}

/// Each channel in steps.
fn flatten(rgb: &mut [u8], steps: f64) {
    let steps = steps as f32;
    let table: Vec<u8> =
        (0..=255u8).map(|v| ((f32::from(v) / 255.0 * steps).round() / steps * 255.0) as u8).collect();
    for value in rgb {
        *value = table[usize::from(*value)];
    }
}

/// The mean of a square of `2 * reach + 1` pixels, edges continued.
fn blur(rgb: &mut [u8], width: usize, height: usize, reach: usize) {
    let mean = |from: &[u8], at: &dyn Fn(usize) -> usize, place: usize, length: usize| {
        let near = (0..=2 * reach).map(|offset| (place + offset).saturating_sub(reach).min(length - 1));
        near.map(|place| u32::from(from[at(place)])).sum::<u32>() / (2 * reach as u32 + 1)
    };
    let across = rgb.to_vec();
    for (index, value) in rgb.iter_mut().enumerate() {
        let (row, column, channel) = (index / 3 / width, index / 3 % width, index % 3);
        *value = mean(&across, &|column| (row * width + column) * 3 + channel, column, width) as u8;
    }
    let down = rgb.to_vec();
    for (index, value) in rgb.iter_mut().enumerate() {
        let (row, column, channel) = (index / 3 / width, index / 3 % width, index % 3);
        *value = mean(&down, &|row| (row * width + column) * 3 + channel, row, height) as u8;
    }
}

/// Where brightness changes by more than `least` within a pixel's neighbourhood.
fn edges(rgb: &[u8], width: usize, height: usize, least: f64) -> Vec<bool> {
    let grey: Vec<f32> = rgb.chunks_exact(3).map(luma).collect();
    let at = |row: usize, column: usize| grey[row.min(height - 1) * width + column.min(width - 1)];
    let edge = |index: usize| {
        let (row, column) = (index / width, index % width);
        let across = at(row, column + 1) - at(row, column.saturating_sub(1));
        let down = at(row + 1, column) - at(row.saturating_sub(1), column);
        f64::from(across.hypot(down)) > least
    };
    (0..width * height).map(edge).collect()
}

/// A rectangle of up to a sixth of the area in one colour.
fn erase(rgb: &mut [u8], width: usize, height: usize, draw: impl Fn(u64) -> f64) {
    let side = |index: u64, length: usize| ((0.1 + 0.3 * draw(index)) * length as f64).ceil() as usize;
    let (across, down) = (side(0, width).min(width), side(1, height).min(height));
    let left = (draw(2) * (width - across + 1) as f64) as usize;
    let top = (draw(3) * (height - down + 1) as f64) as usize;
    let colour = [4, 5, 6].map(|index| (256.0 * draw(index)) as u8);
    for row in rgb.chunks_exact_mut(width * 3).skip(top).take(down) {
        for pixel in row.chunks_exact_mut(3).skip(left).take(across) {
            pixel.copy_from_slice(&colour);
        }
    }
}

/// The part of a picture from (`left`, `top`); it is cut at the picture's edges.
pub fn crop(picture: &Picture, left: u32, top: u32, width: u32, height: u32) -> Result<Picture, Error> {
    let left = left.min(picture.width().saturating_sub(1));
    let top = top.min(picture.height().saturating_sub(1));
    let width = width.clamp(1, picture.width() - left);
    let height = height.clamp(1, picture.height() - top);
    let stride = picture.width() as usize * 3;
    let rows = picture.rgb().chunks_exact(stride).skip(top as usize).take(height as usize);
    let cut = rows.flat_map(|row| &row[left as usize * 3..][..width as usize * 3]).copied().collect();
    Picture::from_rgb(width, height, cut)
}

/// Left and right exchanged.
pub fn mirror(picture: &Picture) -> Result<Picture, Error> {
    let rows = picture.rgb().chunks_exact(picture.width() as usize * 3);
    let turned = rows.flat_map(|row| row.chunks_exact(3).rev().flatten()).copied().collect();
    Picture::from_rgb(picture.width(), picture.height(), turned)
}

fn window(width: u32, height: u32, least_area: f64, draw: &impl Fn(u64) -> f64) -> (u32, u32, u32, u32) {
    let area = (least_area + (1.0 - least_area) * draw(0)) * width as f64 * height as f64;
    let (low, high) = (SHAPES.0.ln(), SHAPES.1.ln());
    let shape = (low + (high - low) * draw(1)).exp() * width as f64 / height as f64;
    let cut_width = ((area * shape).sqrt().round() as u32).clamp(1, width);
    let cut_height = ((area / shape).sqrt().round() as u32).clamp(1, height);
    let left = (draw(2) * (width - cut_width + 1) as f64) as u32;
    let top = (draw(3) * (height - cut_height + 1) as f64) as u32;
    (left, top, cut_width, cut_height)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp(width: u32, height: u32) -> Picture {
        let rgb = (0..width * height).flat_map(|i| [i as u8, (i >> 8) as u8, 7]).collect();
        Picture::from_rgb(width, height, rgb).expect("a picture")
    }

    #[test]
    fn crops_and_mirrors() {
        let picture = ramp(5, 4);
        let cut = crop(&picture, 1, 2, 3, 2).expect("cut");
        assert_eq!((cut.width(), cut.height()), (3, 2));
        assert_eq!(cut.rgb()[..3], picture.rgb()[(2 * 5 + 1) * 3..][..3]);
        assert_eq!(crop(&picture, 9, 9, 9, 9).expect("clamped").rgb(), &picture.rgb()[19 * 3..]);
        let turned = mirror(&picture).expect("mirrored");
        assert_eq!(turned.rgb()[..3], picture.rgb()[4 * 3..][..3]);
        assert_eq!(mirror(&turned).expect("back").rgb(), picture.rgb());
    }

    #[test]
    fn varied_pictures_have_the_size_asked_for() {
        let variation = Variation {
            crop: 0.3,
            flip: true,
            turn: 20.0,
            zoom: 0.7,
            colour: 1.0,
            grey: 0.3,
            blur: 0.5,
            flat: 0.5,
            outline: 0.5,
            erase: 0.5,
        };
        for (width, height) in [(1, 1), (1, 40), (64, 48), (7, 300)] {
            for seed in 0..20u64 {
                let draw = |i: u64| ((seed * 31 + i * 17) % 97) as f64 / 97.0;
                let varied = vary(&ramp(width, height), &variation, (24, 16), draw).expect("varied");
                assert_eq!((varied.width(), varied.height()), (24, 16));
            }
        }
    }

    #[test]
    fn nothing_asked_is_nothing_done() {
        let picture = ramp(20, 10);
        let same = vary(&picture, &Variation::default(), (5, 5), |_| 0.0).expect("a picture");
        assert_eq!(same.rgb(), picture.rgb());
    }

    #[test]
    fn each_change_does_what_it_says() {
        let picture = ramp(20, 10);
        let only = |variation: Variation| {
            vary(&picture, &variation, (20, 10), |_| 0.25).expect("a picture").into_rgb()
        };
        let plain = Variation::default();
        let grey = only(Variation { grey: 1.0, ..plain });
        assert!(
            grey.chunks_exact(3)
                .all(|pixel| pixel[0].abs_diff(pixel[1]) <= 1 && pixel[1].abs_diff(pixel[2]) <= 1)
        );
        let flat = only(Variation { flat: 1.0, ..plain });
        assert!(flat.iter().collect::<std::collections::BTreeSet<_>>().len() <= 8);
        let erased = only(Variation { erase: 1.0, ..plain });
        let painted = erased.chunks_exact(3).filter(|pixel| *pixel == [64, 64, 64]).count();
        assert_eq!(painted, 4 * 2);
        let half = (0..200).flat_map(|i| [if i % 20 < 10 { 250 } else { 90 }; 3]).collect();
        let half = Picture::from_rgb(20, 10, half).expect("a picture");
        let outline = Variation { outline: 1.0, ..plain };
        let outlined = vary(&half, &outline, (20, 10), |_| 0.25).expect("a picture").into_rgb();
        let black = |at: usize| outlined[3 * at..][..3] == [0, 0, 0];
        assert!((0..200).all(|at| black(at) == [9, 10].contains(&(at % 20))));
        let turned = only(Variation { turn: 30.0, ..plain });
        assert_ne!(turned, picture.rgb());
    }
}
