//! Pictures cut into tiles, so that small things are seen in large ones: Idefics 3's and SmolVLM's way.

use serde_json::{Value, json};

use super::config::wrong;
use super::processor::{ImageProcessor, Pixels};
use super::resize::{self, Filter};
use super::{Error, Picture};

/// A longer side is first brought down to this.
const LONGEST: f64 = 4096.0;

/// How pictures are cut.
#[derive(Debug, Clone)]
pub struct TileProcessor {
    piece: ImageProcessor,
    filter: Filter,
    /// To which the longer side is brought first.
    longest: u32,
    /// The side of a tile.
    side: u32,
    split: bool,
}

impl TileProcessor {
    /// Reads the configuration of an `Idefics3ImageProcessor` or `SmolVLMImageProcessor`, by itself or within a
    /// `processor_config.json`; `None` for another class.
    ///
    /// # Errors
    /// [`Error::Config`] naming the field.
    pub fn from_config(config: &Value) -> Result<Option<TileProcessor>, Error> {
        let config = config.get("image_processor").filter(|nested| nested.is_object()).unwrap_or(config);
        let class = config.get("image_processor_type").and_then(Value::as_str).unwrap_or_default();
        let class = class.trim_end_matches("Pil").trim_end_matches("Fast");
        if !["Idefics3ImageProcessor", "SmolVLMImageProcessor"].contains(&class) {
            return Ok(None);
        }
        let edge = |field: &str, usual: u64| -> Result<u32, Error> {
            let found = config.get(field).map_or(Some(usual), |size| size.get("longest_edge")?.as_u64());
            match found.and_then(|edge| u32::try_from(edge).ok()).filter(|edge| (1..=8192).contains(edge)) {
                Some(edge) => Ok(edge),
                None => Err(wrong(
                    &format!("{field}.longest_edge"),
                    config.get(field).unwrap_or(&Value::Null),
                    "1 to 8192 pixels",
                )),
            }
        };
        let flag = |field: &str| config.get(field).and_then(Value::as_bool).unwrap_or(true);
        let (longest, side) = (edge("size", 1456)?, edge("max_image_size", 364)?);
        let resample = config.get("resample").cloned().unwrap_or(json!(1));
        let filter = resample.as_u64().and_then(Filter::from_pillow);
        let filter = filter.ok_or_else(|| wrong("resample", &resample, "0 to 5"))?;
        if !flag("do_resize") {
            return Err(wrong("do_resize", &json!(false), "true: pictures are brought to whole tiles"));
        }
        let usual = json!([0.5, 0.5, 0.5]);
        let field = |field: &str, usual: &Value| config.get(field).cloned().unwrap_or_else(|| usual.clone());
        let piece = ImageProcessor::from_config(&json!({
            "image_processor_type": "SiglipImageProcessor",
            "do_convert_rgb": true,
            "do_resize": true,
            "size": {"height": side, "width": side},
            "resample": resample,
            "do_rescale": flag("do_rescale"),
            "rescale_factor": field("rescale_factor", &json!(1.0 / 255.0)),
            "do_normalize": flag("do_normalize"),
            "image_mean": field("image_mean", &usual),
            "image_std": field("image_std", &usual),
        }))?;
        Ok(Some(TileProcessor { piece, filter, longest, side, split: flag("do_image_splitting") }))
    }

    /// The side of a tile, in pixels.
    pub fn side(&self) -> usize {
        self.side as usize
    }

    /// Rows and columns of tiles that a picture of this height and width is cut into; zeros where it is not.
    pub fn grid(&self, height: u32, width: u32) -> (usize, usize) {
        if !self.split {
            return (0, 0);
        }
        let (height, width) = self.whole_tiles(self.resized(height, width));
        if height <= self.side && width <= self.side {
            return (0, 0);
        }
        ((height / self.side) as usize, (width / self.side) as usize)
    }

    /// How many pieces a picture of this height and width becomes.
    pub fn pieces(&self, height: u32, width: u32) -> usize {
        let (rows, columns) = self.grid(height, width);
        rows * columns + 1
    }

    /// Height and width to which a picture of this height and width is resized first: the longer side is at its
    /// length.
    pub fn resized(&self, height: u32, width: u32) -> (u32, u32) {
        let ratio = f64::from(width) / f64::from(height);
        let edge = f64::from(self.longest);
        let even = |side: f64| {
            let side = side as u32;
            (side + side % 2).max(1)
        };
        let (height, width) = match width >= height {
            true => (even(edge / ratio), self.longest),
            false => (self.longest, even(edge * ratio)),
        };
        if f64::from(height.max(width)) <= LONGEST {
            return (height, width);
        }
        let ratio = f64::from(width) / f64::from(height);
        let shorter = |side: f64| (side as u32).max(1);
        match width >= height {
            true => (shorter(LONGEST / ratio), LONGEST as u32),
            false => (LONGEST as u32, shorter(LONGEST * ratio)),
        }
    }

    /// Height and width in whole tiles, the shape a little distorted.
    fn whole_tiles(&self, (height, width): (u32, u32)) -> (u32, u32) {
        let ratio = f64::from(width) / f64::from(height);
        let up = |side: u32| side.max(1).div_ceil(self.side) * self.side;
        match width >= height {
            true => {
                let width = up(width);
                (up((f64::from(width) / ratio) as u32), width)
            }
            false => {
                let height = up(height);
                (height, up((f64::from(height) * ratio) as u32))
            }
        }
    }

    /// A picture's pieces: the tiles of its [`grid`](Self::grid) row by row, and the whole picture last.
    ///
    /// # Errors
    /// A side that would be beyond what is resized.
    pub fn cut(&self, picture: &Picture) -> Result<Vec<Pixels>, Error> {
        let (rows, columns) = self.grid(picture.height(), picture.width());
        let (height, width) = self.resized(picture.height(), picture.width());
        let mut picture = resize::resize(picture, width, height, self.filter)?;
        if self.split {
            let (height, width) = self.whole_tiles((height, width));
            picture = resize::resize(&picture, width, height, self.filter)?;
        }
        let mut pieces = Vec::with_capacity(rows * columns + 1);
        for row in 0..rows as u32 {
            for column in 0..columns as u32 {
                let tile = picture.crop(column * self.side, row * self.side, self.side, self.side)?;
                pieces.push(self.piece.process(&tile));
            }
        }
        pieces.push(self.piece.process(&picture));
        Ok(pieces)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grids_are_the_references() {
        let config = |longest: u32, side: u32| {
            json!({"image_processor_type": "Idefics3ImageProcessor", "size": {"longest_edge": longest},
                "max_image_size": {"longest_edge": side}})
        };
        for (longest, side, height, width, rows, columns) in [
            (40, 16, 30, 40, 3, 3),
            (40, 16, 57, 31, 3, 2),
            (40, 16, 64, 64, 3, 3),
            (40, 16, 20, 1, 3, 1),
            (40, 16, 14, 90, 1, 3),
            (40, 16, 75, 18, 3, 1),
            (40, 16, 2, 3, 2, 3),
            (1456, 364, 768, 1024, 3, 4),
            (2048, 512, 1080, 1920, 3, 4),
        ] {
            let tiles =
                TileProcessor::from_config(&config(longest, side)).expect("sound").expect("its class");
            assert_eq!(tiles.grid(height, width), (rows, columns), "{width} x {height}");
        }
        let other = json!({"image_processor_type": "CLIPImageProcessor"});
        assert!(TileProcessor::from_config(&other).expect("sound").is_none());
        assert!(TileProcessor::from_config(&config(0, 16)).is_err());
    }
}
