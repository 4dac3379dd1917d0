//! A decoded picture.

use std::fs;
use std::path::Path;

use ::image::codecs::png::PngEncoder;
use ::image::{ExtendedColorType, ImageEncoder};

use super::Error;

/// An RGB picture of 8 bits a channel, rows from the top, no padding; never empty.
#[derive(Clone, PartialEq, Eq)]
pub struct Picture {
    width: u32,
    height: u32,
    rgb: Vec<u8>,
}

impl Picture {
    /// A picture from its bytes `[height, width, 3]`.
    ///
    /// # Errors
    /// [`Error::Shape`] when a side is 0 or the bytes are not exactly `width * height * 3`.
    pub fn from_rgb(width: u32, height: u32, rgb: Vec<u8>) -> Result<Picture, Error> {
        let expected = u64::from(width).saturating_mul(u64::from(height)).saturating_mul(3);
        if width == 0 || height == 0 || rgb.len() as u64 != expected {
            return Err(Error::Shape { width, height, expected, found: rgb.len() as u64 });
        }
        Ok(Picture { width, height, rgb })
    }

    /// Width in pixels, at least 1.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Height in pixels, at least 1.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// The bytes `[height, width, 3]`.
    pub fn rgb(&self) -> &[u8] {
        &self.rgb
    }

    /// The bytes `[height, width, 3]`, taken out.
    pub fn into_rgb(self) -> Vec<u8> {
        self.rgb
    }

    /// The part that begins at `left`, `top`; what would lie outside the picture is left out.
    ///
    /// # Errors
    /// [`Error::Shape`] when nothing of it lies inside.
    pub fn crop(&self, left: u32, top: u32, width: u32, height: u32) -> Result<Picture, Error> {
        let width = width.min(self.width.saturating_sub(left));
        let height = height.min(self.height.saturating_sub(top));
        let row = |y: u32| {
            let start = (y as usize * self.width as usize + left as usize) * 3;
            &self.rgb[start..start + width as usize * 3]
        };
        let rgb = if width == 0 { Vec::new() } else { (top..top + height).flat_map(row).copied().collect() };
        Picture::from_rgb(width, height, rgb)
    }

    /// The picture as the bytes of a PNG file.
    ///
    /// # Errors
    /// [`Error::Write`] when the encoder refuses it.
    pub fn to_png(&self) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        PngEncoder::new(&mut bytes)
            .write_image(&self.rgb, self.width, self.height, ExtendedColorType::Rgb8)
            .map_err(|error| Error::Write { name: "PNG".into(), detail: error.to_string() })?;
        Ok(bytes)
    }

    /// Writes the picture as a PNG file, replacing what was there.
    ///
    /// # Errors
    /// [`Error::Write`] with the file's name.
    pub fn write_png(&self, path: &Path) -> Result<(), Error> {
        let bytes = self.to_png()?;
        fs::write(path, bytes)
            .map_err(|error| Error::Write { name: path.display().to_string(), detail: error.to_string() })
    }
}

impl std::fmt::Debug for Picture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Picture({} x {})", self.width, self.height)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_must_fill_the_picture() {
        assert!(Picture::from_rgb(2, 2, vec![0; 12]).is_ok());
        for (width, height, len) in [(2, 2, 11), (0, 0, 0), (0, 4, 0), (u32::MAX, u32::MAX, 3)] {
            let error = Picture::from_rgb(width, height, vec![0; len]).unwrap_err();
            assert!(matches!(error, Error::Shape { .. }), "{error}");
        }
    }

    #[test]
    fn png_keeps_every_pixel() {
        let rgb: Vec<u8> = (0..7 * 5 * 3).map(|i| (i * 37 % 256) as u8).collect();
        let picture = Picture::from_rgb(7, 5, rgb).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("written.png");
        picture.write_png(&path).unwrap();
        let back = super::super::open(&path, &Default::default()).unwrap();
        assert_eq!(back, picture);
        let error = picture.write_png(&folder.path().join("no/such/folder.png")).unwrap_err();
        assert!(error.to_string().contains("folder.png"), "{error}");
    }
}
