//! Drawing: rectangles, lines, digits and pictures on white.

use dari::Picture;

/// Pixels to draw on.
pub struct Canvas {
    width: usize,
    rgb: Vec<u8>,
}

impl Canvas {
    /// All white.
    pub fn white(width: usize, height: usize) -> Canvas {
        Canvas { width, rgb: vec![255; width * height * 3] }
    }

    /// What was drawn.
    pub fn finish(self) -> anyhow::Result<Picture> {
        let height = self.rgb.len() / 3 / self.width.max(1);
        Ok(Picture::from_rgb(self.width as u32, height as u32, self.rgb)?)
    }

    /// A straight line between two points, `thick` pixels wide; what lies outside is left out.
    pub fn line(&mut self, from: (f64, f64), to: (f64, f64), thick: usize, ink: [u8; 3]) {
        let steps = (to.0 - from.0).abs().max((to.1 - from.1).abs()).ceil().max(1.0) as usize;
        let height = self.rgb.len() / 3 / self.width.max(1);
        for step in 0..=steps {
            let share = step as f64 / steps as f64;
            let at = |a: f64, b: f64| (a + (b - a) * share).round() as usize;
            let (x, y) = (at(from.0, to.0), at(from.1, to.1));
            let (left, top) = (x.saturating_sub(thick / 2), y.saturating_sub(thick / 2));
            if left + thick <= self.width && top + thick <= height {
                self.fill(left, top, thick, thick, ink);
            }
        }
    }

    /// Fills a rectangle, which lies inside.
    pub fn fill(&mut self, x: usize, y: usize, width: usize, height: usize, colour: [u8; 3]) {
        for row in y..y + height {
            for pixel in self.rgb[(row * self.width + x) * 3..][..width * 3].chunks_exact_mut(3) {
                pixel.copy_from_slice(&colour);
            }
        }
    }

    /// Puts a picture, of it at most `width` by `height`, at (`x`, `y`).
    pub fn put(&mut self, picture: &Picture, x: usize, y: usize, width: usize, height: usize) {
        let (width, height) = (width.min(picture.width() as usize), height.min(picture.height() as usize));
        let rows = picture.rgb().chunks_exact(picture.width() as usize * 3).take(height);
        for (row, pixels) in rows.enumerate() {
            self.rgb[((y + row) * self.width + x) * 3..][..width * 3].copy_from_slice(&pixels[..width * 3]);
        }
    }

    /// Writes digits around a point, in a 3 x 5 face doubled.
    pub fn write(&mut self, text: &str, x: usize, y: usize, ink: [u8; 3]) {
        const SCALE: usize = 2;
        let advance = 4 * SCALE;
        let mut left = x.saturating_sub(text.len() * advance / 2);
        let top = y.saturating_sub(5 * SCALE / 2);
        for digit in text.chars() {
            for (row, bits) in face(digit).into_iter().enumerate() {
                for column in (0..3).filter(|column| bits & (4 >> column) != 0) {
                    self.fill(left + column * SCALE, top + row * SCALE, SCALE, SCALE, ink);
                }
            }
            left += advance;
        }
    }
}

/// A digit's rows, the leftmost pixel the highest of three bits.
fn face(digit: char) -> [u8; 5] {
    match digit {
        '0' => [7, 5, 5, 5, 7],
        '1' => [2, 6, 2, 2, 7],
        '2' => [7, 1, 7, 4, 7],
        '3' => [7, 1, 7, 1, 7],
        '4' => [5, 5, 7, 1, 1],
        '5' => [7, 4, 7, 1, 7],
        '6' => [7, 4, 7, 5, 7],
        '7' => [7, 1, 1, 2, 2],
        '8' => [7, 5, 7, 5, 7],
        '9' => [7, 5, 7, 1, 7],
        '-' => [0, 0, 7, 0, 0],
        '.' => [0, 0, 0, 0, 2],
        _ => [0; 5],
    }
}
