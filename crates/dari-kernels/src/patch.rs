//! Pictures to patches: what a patch embedding multiplies, and back for the gradient.

use rayon::prelude::*;

/// A batch of pictures cut into square patches, without overlap; what does not fill a patch at the
/// right and lower edge is left out, as a convolution of that stride does.
#[derive(Clone, Copy, Debug)]
pub struct Grid {
    /// Colour channels.
    pub channels: usize,
    /// Height of a picture in pixels.
    pub height: usize,
    /// Width of a picture in pixels.
    pub width: usize,
    /// Side of a patch in pixels.
    pub patch: usize,
}

impl Grid {
    /// Patches down and across.
    pub fn patches(&self) -> (usize, usize) {
        (self.height / self.patch, self.width / self.patch)
    }

    /// Values in one patch.
    pub fn values(&self) -> usize {
        self.channels * self.patch * self.patch
    }

    /// Offsets (picture, patches) of every run of `patch` pixels of one picture.
    fn runs(self) -> impl Iterator<Item = (usize, usize)> {
        let (down, across) = self.patches();
        let side = self.patch;
        (0..down * across).flat_map(move |place| {
            let (y, x) = (place / across, place % across);
            (0..self.channels * side).map(move |line| {
                let (channel, row) = (line / side, line % side);
                let picture = (channel * self.height + y * side + row) * self.width + x * side;
                (picture, (place * self.channels * side + line) * side)
            })
        })
    }
}

/// `[batch, channels, height, width]` to `[batch, patches, channels * patch * patch]`.
pub fn unfold(grid: Grid, pixels: &[f32], out: &mut [f32]) {
    let (down, across) = grid.patches();
    let picture = grid.channels * grid.height * grid.width;
    let patches = down * across * grid.values();
    if picture == 0 || patches == 0 {
        return;
    }
    assert!(pixels.len().is_multiple_of(picture) && out.len() == pixels.len() / picture * patches);
    out.par_chunks_mut(patches).zip(pixels.par_chunks(picture)).for_each(|(out, pixels)| {
        for (from, to) in grid.runs() {
            out[to..to + grid.patch].copy_from_slice(&pixels[from..from + grid.patch]);
        }
    });
}

/// The gradient of [`unfold`]: pixels of no patch get zero.
pub fn fold(grid: Grid, patches_gradient: &[f32], pixels_gradient: &mut [f32]) {
    let (down, across) = grid.patches();
    let picture = grid.channels * grid.height * grid.width;
    let patches = down * across * grid.values();
    pixels_gradient.fill(0.0);
    if picture == 0 || patches == 0 {
        return;
    }
    assert!(pixels_gradient.len() / picture * patches == patches_gradient.len());
    pixels_gradient.par_chunks_mut(picture).zip(patches_gradient.par_chunks(patches)).for_each(
        |(pixels, gradient)| {
            for (to, from) in grid.runs() {
                pixels[to..to + grid.patch].copy_from_slice(&gradient[from..from + grid.patch]);
            }
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unfolds_and_folds_with_a_ragged_edge() {
        let grid = Grid { channels: 3, height: 7, width: 5, patch: 2 };
        let pixels: Vec<f32> = (0..2 * 3 * 7 * 5).map(|i| i as f32).collect();
        let mut out = vec![f32::NAN; 2 * 6 * 12];
        unfold(grid, &pixels, &mut out);
        let mut at = 0;
        for batch in 0..2 {
            for (y, x) in [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)] {
                for channel in 0..3 {
                    for (dy, dx) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                        let index = ((batch * 3 + channel) * 7 + y * 2 + dy) * 5 + x * 2 + dx;
                        assert_eq!(out[at], pixels[index]);
                        at += 1;
                    }
                }
            }
        }
        let mut back = vec![f32::NAN; pixels.len()];
        fold(grid, &out, &mut back);
        for (i, (a, b)) in back.iter().zip(&pixels).enumerate() {
            let (y, x) = (i / 5 % 7, i % 5);
            assert_eq!(*a, if y < 6 && x < 4 { *b } else { 0.0 });
        }
    }
}
