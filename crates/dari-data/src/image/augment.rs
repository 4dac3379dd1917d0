//! Variation of training pictures: random resized crop and mirroring, driven by the caller's own
//! random numbers.

use super::{Error, Filter, Picture, resize};

/// What may be done to a picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Variation {
    /// Least share of the area that is kept, in (0, 1]; 1 for no crop.
    pub least_area: f64,
    /// Whether half of the pictures are mirrored.
    pub flip: bool,
}

/// How far from the picture's own shape a crop may go, as torchvision's `RandomResizedCrop`.
const SHAPES: (f64, f64) = (3.0 / 4.0, 4.0 / 3.0);

/// Varies a picture and brings it to `size` (width, height); a picture that is not cropped keeps
/// its size. `draw(i)` gives the `i`th number in `[0, 1)`.
pub fn vary(
    picture: &Picture,
    variation: &Variation,
    size: (u32, u32),
    draw: impl Fn(u64) -> f64,
) -> Result<Picture, Error> {
    let mut picture = picture.clone();
    if variation.least_area < 1.0 {
        let (left, top, width, height) =
            window(picture.width(), picture.height(), variation.least_area, &draw);
        picture = crop(&picture, left, top, width, height)?;
        picture = resize::resize(&picture, size.0, size.1, Filter::Bicubic)?;
    }
    if variation.flip && draw(9) < 0.5 {
        picture = mirror(&picture)?;
    }
    Ok(picture)
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
        let variation = Variation { least_area: 0.3, flip: true };
        for (width, height) in [(1, 1), (1, 40), (64, 48), (7, 300)] {
            for seed in 0..20u64 {
                let draw = |i: u64| ((seed * 31 + i * 17) % 97) as f64 / 97.0;
                let varied = vary(&ramp(width, height), &variation, (24, 16), draw).expect("varied");
                assert_eq!((varied.width(), varied.height()), (24, 16));
            }
        }
    }
}
