//! The arithmetic of preprocessing: target sizes, crop offsets, and the table from bytes to floats, each
//! rounding as its reference does.

use super::Picture;
use super::resize::{Filter, Window, resize_window};

/// How the size to resize to follows from the picture's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum SizeRule {
    /// To this height and width, whatever the shape.
    Exact { height: u32, width: u32 },
    /// The shorter side to this length, keeping the shape; the longer side's fraction is cut
    /// (`get_resize_output_image_size` of transformers, `Resize(int)` of torchvision).
    Shortest(u32),
    /// The same, unless the longer side would pass `longest` (`get_size_with_aspect_ratio`).
    ShortestCapped { shortest: u32, longest: u32 },
    /// Keeps the shape so that the picture covers (`longest` false) or fits (`longest` true) the
    /// target; both sides rounded (open_clip's `ResizeKeepRatio`).
    KeepRatio { height: u32, width: u32, longest: bool },
    /// As large as `most` patches of `patch` pixels a side allow, both sides whole patches, the shape
    /// kept as near as they let it (`get_image_size_for_max_num_patches` of SigLIP 2).
    Patches { patch: u32, most: u32 },
}

impl SizeRule {
    /// `(height, width)` to resize a picture to. Where the reference's formula gives 0, and the
    /// reference fails, this gives 1.
    pub(super) fn target(self, height: u32, width: u32) -> (u32, u32) {
        let (h, w) = (f64::from(height), f64::from(width));
        match self {
            SizeRule::Exact { height, width } => (height, width),
            SizeRule::Shortest(side) => {
                let (short, long) = (h.min(w), h.max(w));
                // `as` cuts the fraction, as Python's int() does.
                let long = (f64::from(side) * long / short) as u32;
                if width <= height { (long, side) } else { (side, long) }
            }
            SizeRule::ShortestCapped { shortest, longest } => {
                let (short, long) = (h.min(w), h.max(w));
                let capped = long / short * f64::from(shortest) > f64::from(longest);
                let raw = if capped { f64::from(longest) * short / long } else { f64::from(shortest) };
                let side = raw.round_ties_even() as u32;
                let (new_height, new_width) = if height.min(width) == side {
                    (height, width)
                } else if width < height {
                    ((raw * h / w) as u32, side)
                } else {
                    (side, (raw * w / h) as u32)
                };
                (new_height.max(1), new_width.max(1))
            }
            SizeRule::KeepRatio { height, width, longest } => {
                let (down, across) = (h / f64::from(height), w / f64::from(width));
                let ratio = if longest { down.max(across) } else { down.min(across) };
                let side = |length: f64| ((length / ratio).round_ties_even() as u32).max(1);
                (side(h), side(w))
            }
            SizeRule::Patches { patch, most } => {
                const EPSILON: f64 = 1e-5;
                let p = f64::from(patch);
                let patches = |scale: f64, length: f64| (length * scale / p).ceil().max(1.0);
                let (mut low, mut high) = (EPSILON / 10.0, 100.0);
                while high - low >= EPSILON {
                    let scale = (low + high) / 2.0;
                    match patches(scale, h) * patches(scale, w) <= f64::from(most) {
                        true => low = scale,
                        false => high = scale,
                    }
                }
                let side = |length: f64| (patches(low, length) as u32).min(most) * patch;
                (side(h), side(w))
            }
        }
    }
}

/// Whose rounding a centre crop follows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum CropRule {
    /// `transformers.image_transforms.center_crop`: the half is floored.
    Transformers,
    /// torchvision's `center_crop`, and open_clip's `center_crop_or_pad`: the half is rounded to even;
    /// the padding on the left and top is floored.
    Torchvision,
}

impl CropRule {
    /// Where the crop begins on an axis of `length` pixels; negative where it needs padding.
    fn offset(self, length: u32, crop: u32) -> i64 {
        let spare = i64::from(length) - i64::from(crop);
        match self {
            CropRule::Transformers => spare.div_euclid(2),
            CropRule::Torchvision if spare < 0 => -(-spare / 2),
            CropRule::Torchvision => (spare as f64 / 2.0).round_ties_even() as i64,
        }
    }
}

/// A crop about the centre; what lies outside the picture is `fill`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Crop {
    pub(super) height: u32,
    pub(super) width: u32,
    pub(super) rule: CropRule,
    pub(super) fill: u8,
}

/// Whose arithmetic takes a byte to a float.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Scale {
    /// No rescaling.
    None,
    /// Times the factor in f64, then to f32 (transformers).
    Times(f64),
    /// Divided by 255 in f32 (torchvision's `ToTensor`).
    By255,
}

/// What each of the 256 values becomes, `[channel][value]`: everything after the resize acts on single
/// values, so a table is exact.
pub(super) fn table(scale: Scale, normalize: Option<([f64; 3], [f64; 3])>) -> Box<[[f32; 256]; 3]> {
    let mut table = Box::new([[0f32; 256]; 3]);
    for (channel, values) in table.iter_mut().enumerate() {
        for (byte, value) in values.iter_mut().enumerate() {
            let scaled = match scale {
                Scale::None => byte as f32,
                Scale::Times(factor) => (byte as f64 * factor) as f32,
                Scale::By255 => byte as f32 / 255.0,
            };
            *value = match &normalize {
                Some((mean, std)) => (scaled - mean[channel] as f32) / std[channel] as f32,
                None => scaled,
            };
        }
    }
    table
}

/// Which part of a picture of this height and width a model sees: left, top, width and height, in the
/// picture's own pixels.
pub(super) fn region(
    (height, width): (u32, u32),
    resize: Option<(SizeRule, Filter)>,
    crop: Option<Crop>,
) -> [f64; 4] {
    let (tall, wide) = resize.map_or((height, width), |(rule, _)| rule.target(height, width));
    let Some(crop) = crop else {
        return [0.0, 0.0, width.into(), height.into()];
    };
    let part = |length: u32, resized: u32, cropped: u32| {
        let scale = f64::from(length) / f64::from(resized.max(1));
        let (start, inside) = overlap(crop.rule.offset(resized, cropped), resized, cropped).0;
        (f64::from(start) * scale, f64::from(inside) * scale)
    };
    let ((left, across), (top, down)) = (part(width, wide, crop.width), part(height, tall, crop.height));
    [left, top, across, down]
}

/// Resizes, crops and tabulates a picture into the top left of `out`, `[3, rows, columns]` with
/// `(rows, columns)` given; what is not covered stays as it was.
pub(super) fn run(
    picture: &Picture,
    resize: Option<(SizeRule, Filter)>,
    crop: Option<Crop>,
    table: &[[f32; 256]; 3],
    (rows, columns): (usize, usize),
    out: &mut [f32],
) {
    let (filter, (height, width)) = match resize {
        Some((rule, filter)) => (filter, rule.target(picture.height(), picture.width())),
        None => (Filter::Nearest, (picture.height(), picture.width())),
    };
    let crop = crop.unwrap_or(Crop { height, width, rule: CropRule::Transformers, fill: 0 });
    let (across, before_x) = overlap(crop.rule.offset(width, crop.width), width, crop.width);
    let (down, before_y) = overlap(crop.rule.offset(height, crop.height), height, crop.height);
    let window = Window { left: across.0, top: down.0, width: across.1, height: down.1 };
    let bytes = resize_window(picture, width, height, filter, window);

    let (crop_height, crop_width) = (crop.height as usize, crop.width as usize);
    let covered = before_x..before_x + across.1 as usize;
    for (channel, plane) in out.chunks_exact_mut(rows * columns).enumerate() {
        let values = &table[channel];
        let fill = values[usize::from(crop.fill)];
        for (y, line) in plane.chunks_exact_mut(columns).take(crop_height).enumerate() {
            let line = &mut line[..crop_width.min(columns)];
            let row = y
                .checked_sub(before_y)
                .and_then(|y| bytes.chunks_exact(window.width.max(1) as usize * 3).nth(y));
            match row {
                None => line.fill(fill),
                Some(row) => {
                    line[..covered.start].fill(fill);
                    line[covered.end..].fill(fill);
                    let pixels = row.chunks_exact(3);
                    for (value, pixel) in line[covered.clone()].iter_mut().zip(pixels) {
                        *value = values[usize::from(pixel[channel])];
                    }
                }
            }
        }
    }
}

/// The part of `0..length` that a crop of `crop` pixels from `offset` keeps, as `(start, count)`, and how
/// many of the crop's pixels come before it.
fn overlap(offset: i64, length: u32, crop: u32) -> ((u32, u32), usize) {
    let start = offset.clamp(0, i64::from(length));
    let end = (offset + i64::from(crop)).clamp(start, i64::from(length));
    ((start as u32, (end - start) as u32), (start - offset) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn target_sizes() {
        let shortest = SizeRule::Shortest(224);
        assert_eq!(shortest.target(480, 640), (224, 298));
        assert_eq!(shortest.target(640, 480), (298, 224));
        assert_eq!(shortest.target(1, 65_535), (224, 14_679_840));
        let capped = SizeRule::ShortestCapped { shortest: 800, longest: 1333 };
        assert_eq!(capped.target(480, 640), (800, 1066));
        assert_eq!(capped.target(100, 1000), (133, 1333));
        assert_eq!(capped.target(1, 60_000), (1, 1333));
        let fits = SizeRule::KeepRatio { height: 224, width: 224, longest: true };
        assert_eq!(fits.target(480, 640), (168, 224));
        assert_eq!(fits.target(1, 60_000), (1, 224));
    }

    #[test]
    fn crop_offsets() {
        for (length, crop, transformers, torchvision) in
            [(10, 4, 3, 3), (9, 4, 2, 2), (11, 4, 3, 4), (4, 9, -3, -2), (4, 8, -2, -2), (5, 5, 0, 0)]
        {
            assert_eq!(CropRule::Transformers.offset(length, crop), transformers);
            assert_eq!(CropRule::Torchvision.offset(length, crop), torchvision);
        }
    }
}
