//! Decoded samples on their way to pixels: rows of each component, kept as long as they are needed.

use super::colour::Colour;
use super::frame::{Component, Frame};
use super::transform::{self, Kernel};
use super::upsample::{self, Method};
use super::{Decoded, Error};

/// Rows of one component. Not all need be there at once: row `r` lies in place `r & wrap`.
pub(super) struct Plane {
    samples: Vec<u8>,
    /// Samples that a row takes.
    stride: usize,
    /// One less than the rows that there is room for, a power of two; or all ones if none is given up.
    wrap: usize,
    /// Rows complete so far, from the top.
    ready: usize,
    width: usize,
    height: usize,
    across: usize,
    down: usize,
    method: Method,
    /// Where an output row is made, and its column sums.
    line: Vec<u8>,
    sums: Vec<u16>,
}

impl Plane {
    /// Samples of a row, and rows that there is room for: all, or a power of two that holds two MCU rows.
    fn shape(component: &Component, whole: bool) -> (usize, usize) {
        let size = component.kernel.size();
        let two = (component.v * size * 2).next_power_of_two();
        (component.blocks_wide * size, if whole { component.blocks_high * size } else { two })
    }

    fn new(component: &Component, frame: &Frame, whole: bool) -> Plane {
        let (stride, rows) = Plane::shape(component, whole);
        let Component { width, height, across, down, .. } = *component;
        let method = Method::choose(across, down, width, frame.block);
        Plane {
            samples: vec![0; stride * rows],
            stride,
            wrap: if whole { usize::MAX } else { rows - 1 },
            ready: 0,
            width,
            height,
            across,
            down,
            method,
            line: vec![0; if method == Method::Same { 0 } else { width * across }],
            sums: vec![0; if method == Method::H2V2 { width } else { 0 }],
        }
    }

    /// Stores the samples of the block at a column and row of blocks.
    #[inline(always)]
    fn store<const N: usize>(&mut self, column: usize, row: usize, samples: &[[u8; N]; N]) {
        let mut from = ((row * N) & self.wrap) * self.stride + column * N;
        for samples in samples {
            if let Some(line) = self.samples.get_mut(from..from + N) {
                line.copy_from_slice(samples);
            }
            from += self.stride;
        }
    }

    /// Transforms a block and stores its samples; `last` is the last zigzag position that may not be zero.
    #[inline(always)]
    pub(super) fn reconstruct(
        &mut self,
        kernel: Kernel,
        quant: &[i16; 64],
        block: &[i16],
        last: usize,
        column: usize,
        row: usize,
    ) {
        let (Some(&dc), [step, ..]) = (block.first(), quant) else { return };
        let flat = || transform::flat(dc, *step);
        match (kernel, block.first_chunk::<64>(), block.first_chunk::<32>(), quant.first_chunk::<32>()) {
            (Kernel::One, ..) => self.store(column, row, &[[flat()]]),
            (Kernel::Two, ..) if last == 0 => self.store(column, row, &[[flat(); 2]; 2]),
            (Kernel::Four, ..) if last == 0 => self.store(column, row, &[[flat(); 4]; 4]),
            (Kernel::Eight, ..) if last == 0 => self.store(column, row, &[[flat(); 8]; 8]),
            (Kernel::Two, _, Some(block), Some(quant)) => {
                self.store(column, row, &transform::two(block, quant));
            }
            (Kernel::Four, Some(block), ..) => self.store(column, row, &transform::four(block, quant, last)),
            (Kernel::Eight, Some(block), ..) => {
                self.store(column, row, &transform::eight(block, quant, last));
            }
            // No block is shorter than its kernel's length.
            _ => {}
        }
    }

    fn row(&self, y: usize) -> &[u8] {
        let from = (y.min(self.height.saturating_sub(1)) & self.wrap) * self.stride;
        self.samples.get(from..from + self.width).unwrap_or_default()
    }

    /// Input rows that output row `y` is made of: the nearest, and the next to it where that is read.
    fn sources(&self, y: usize) -> (usize, usize) {
        let near = (y / self.down).min(self.height.saturating_sub(1));
        if !self.method.two_rows() {
            (near, near)
        } else if y.is_multiple_of(2) {
            (near, near.saturating_sub(1))
        } else {
            (near, (near + 1).min(self.height.saturating_sub(1)))
        }
    }

    /// Makes output row `y` in `line`, unless it is a row already.
    fn prepare(&mut self, y: usize) {
        let (near, far) = self.sources(y);
        let mut line = std::mem::take(&mut self.line);
        let mut sums = std::mem::take(&mut self.sums);
        match self.method {
            Method::Same => {}
            Method::H2V1 => upsample::h2v1(self.row(near), &mut line),
            Method::H1V2 => upsample::h1v2(self.row(near), self.row(far), y.is_multiple_of(2), &mut line),
            Method::H2V2 => upsample::h2v2(self.row(near), self.row(far), &mut sums, &mut line),
            Method::Repeat => upsample::repeat(self.row(near), self.across, &mut line),
        }
        self.line = line;
        self.sums = sums;
    }

    fn prepared(&self, y: usize) -> &[u8] {
        if self.method == Method::Same { self.row(y) } else { &self.line }
    }
}

/// The planes of all components, and the pixels made of them so far.
pub(super) struct Planes {
    pub(super) planes: Vec<Plane>,
    colour: Colour,
    width: usize,
    height: usize,
    pixels: Vec<u8>,
    /// Output rows made so far.
    made: usize,
}

impl Planes {
    /// Bytes that planes take beside the output; `whole` if they must hold all rows at once.
    pub(super) fn bytes(frame: &Frame, whole: bool) -> u64 {
        let of = |component: &Component| {
            let (stride, rows) = Plane::shape(component, whole);
            // And the line with its sums: at most 3 bytes an output pixel.
            stride as u64 * rows as u64 + frame.out_width as u64 * 3
        };
        frame.components.iter().map(of).sum()
    }

    /// Empty planes; the caller has checked their size and the output's.
    pub(super) fn new(frame: &Frame, colour: Colour, whole: bool) -> Planes {
        let (width, height) = (frame.out_width, frame.out_height);
        let planes = frame.components.iter().map(|c| Plane::new(c, frame, whole)).collect();
        Planes { planes, colour, width, height, pixels: vec![0; width * height * 3], made: 0 }
    }

    /// Notes that a component's first `rows` rows of blocks are complete.
    pub(super) fn complete(&mut self, component: usize, rows: usize, size: usize) {
        if let Some(plane) = self.planes.get_mut(component) {
            plane.ready = rows * size;
        }
    }

    /// Makes all output rows that the complete rows allow.
    pub(super) fn advance(&mut self) {
        while self.made < self.height {
            let y = self.made;
            let ready = |plane: &Plane| {
                let (near, far) = plane.sources(y);
                near.max(far) < plane.ready
            };
            if !self.planes.iter().all(ready) {
                return;
            }
            for plane in &mut self.planes {
                plane.prepare(y);
            }
            let mut lines: [&[u8]; 4] = [&[]; 4];
            for (line, plane) in lines.iter_mut().zip(&self.planes) {
                *line = plane.prepared(y);
            }
            let stride = self.width * 3;
            if let (Some(out), Some(lines)) =
                (self.pixels.get_mut(y * stride..(y + 1) * stride), lines.get(..self.planes.len()))
            {
                self.colour.convert(lines, out);
            }
            self.made += 1;
        }
    }

    /// The picture.
    ///
    /// # Errors
    /// [`Error::Damaged`] if rows are missing.
    pub(super) fn finish(self) -> Result<Decoded, Error> {
        if self.made < self.height {
            return Err(Error::Damaged(format!(
                "only {} of {} rows of pixels have data",
                self.made, self.height
            )));
        }
        Ok(Decoded { width: self.width as u32, height: self.height as u32, pixels: self.pixels })
    }
}
